//! The routes of what is done to a process beside its messages: a trial, a slot that is passed over, a reset,
//! and evaluating it anew.
//!
//! In: small bodies. Out: what the room says, as it says it. Called by `table`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::process::control::Pending;
use crate::process::trial::Trial;
use crate::state::effect::ProducerSub;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::process_push::{control, sub};
use crate::wire::http::processes::{Raw, Sender, failed, process_of};
use crate::wire::http::shape;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{ADMIN, READ_ONLY, READ_WRITE, Row, post};
use crate::wire::process_ask::{WAIT_MS, WAIT_MS_MAX};
use crate::wire::process_told::record;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    vec![
        post("/api/v1/processes/{class}/{key}/dryrun", READ_WRITE, "tryMessage",
            "What a message would come to now; nothing of it is kept", dry_run),
        post("/api/v1/processes/{class}/{key}/skip-slot", READ_WRITE, "skipSlot",
            "Pass over a message that waits", skip_slot),
        post("/api/v1/processes/{class}/{key}/reset", ADMIN, "resetProcess",
            "Take all state of a process away", reset),
        post("/api/v1/processes/{class}/{key}/verify", READ_ONLY, "verifyProcess",
            "Evaluate a process anew and compare", verify),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrial<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

async fn dry_run(
    State(api): Door,
    path: Raw<(String, String)>,
    caller: Sender,
    body: Bytes,
) -> Answer {
    let run = async {
        let (class, key) = of_path(path)?;
        let raw: RawTrial<'_> = shape::read(&body)?;
        let message = raw.message.ok_or_else(|| Failure::malformed("message is required"))?;
        let trial = tried(&api, (&class, &key), message.get().as_bytes(), sub(caller)).await?;
        Ok(json(StatusCode::OK, &trial))
    };
    settle(run.await)
}

/// What a message would come to.
pub(super) async fn tried(
    api: &Api,
    (class, key): (&str, &str),
    message: &[u8],
    sub: Option<ProducerSub>,
) -> Result<Trial, Failure> {
    let (class, key) = process_of(class, key)?;
    let message = Bytes::copy_from_slice(message);
    let tried = api.rooms.processes.dry_run(&class, &key, message, sub).await;
    tried.map_err(|error| failed(&error))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSkip {
    slot: Option<u64>,
}

async fn skip_slot(State(api): Door, path: Raw<(String, String)>, body: Bytes) -> Answer {
    let skip = async {
        let (class, key) = of_path(path)?;
        let raw: RawSkip = shape::read(&body)?;
        let slot = raw.slot.ok_or_else(|| Failure::malformed("slot is required"))?;
        let (name, instance) = process_of(&class, &key)?;
        let skipped = api.rooms.processes.skip_slot(&name, &instance, slot).await;
        let skipped = skipped.map_err(|error| failed(&error))?;
        let status = skipped.status.map_or(json!("pending"), |status| json!(status));
        let body = json!({ "process": format!("{class}/{key}"), "slot": slot, "status": status });
        Ok(json(StatusCode::OK, &body))
    };
    settle(skip.await)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawReset {
    confirm: Option<String>,
    pending: Option<String>,
    #[serde(alias = "timeout_ms")]
    timeout_ms: Option<u64>,
}

/// How long somebody wants to wait.
fn patience(timeout_ms: Option<u64>) -> Result<Duration, Failure> {
    let timeout_ms = timeout_ms.unwrap_or(WAIT_MS);
    let refused = || control(format!("timeoutMs must be a whole number from 0 to {WAIT_MS_MAX}"));
    let fits = timeout_ms <= WAIT_MS_MAX;
    fits.then_some(Duration::from_millis(timeout_ms)).ok_or_else(refused)
}

async fn reset(State(api): Door, path: Raw<(String, String)>, body: Bytes) -> Answer {
    let reset = async {
        let (class, key) = of_path(path)?;
        let raw: RawReset = shape::read(&body)?;
        let confirm = raw.confirm.ok_or_else(|| Failure::malformed("confirm is required"))?;
        let process = format!("{class}/{key}");
        if confirm != process {
            return Err(control(format!("confirm must be the process's name, '{process}'")));
        }
        let pending = match raw.pending.as_deref() {
            None | Some("evaluate") => Pending::Evaluate,
            Some("skip") => Pending::Skip,
            Some(_) => return Err(control("pending must be evaluate or skip")),
        };
        let patience = patience(raw.timeout_ms)?;
        let (name, instance) = process_of(&class, &key)?;
        let processes = &api.rooms.processes;
        let at = processes.reset(&name, &instance, pending).await;
        let at = at.map_err(|error| failed(&error))?;
        let run = processes.run_to(&name, &instance, at.seq).await;
        run.map_err(|error| failed(&error))?;
        let waiting = processes.wait_slot(at.partition, at.seq, patience);
        let done = tokio::select! {
            done = waiting => done.map_err(|error| failed(&error))?,
            () = api.stopping() => None,
        };
        Ok(match done {
            Some(done) => json(StatusCode::OK, &record(&process, at.seq, &done)),
            None => {
                let body = json!({ "process": process, "slot": at.seq, "status": "pending" });
                json(StatusCode::ACCEPTED, &body)
            }
        })
    };
    settle(reset.await)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawVerify {
    #[serde(alias = "timeout_ms")]
    timeout_ms: Option<u64>,
}

async fn verify(State(api): Door, path: Raw<(String, String)>, body: Bytes) -> Answer {
    let verify = async {
        let (class, key) = of_path(path)?;
        let raw: RawVerify =
            if body.is_empty() { RawVerify::default() } else { shape::read(&body)? };
        let patience = patience(raw.timeout_ms)?;
        let (class, key) = process_of(&class, &key)?;
        let verified = tokio::select! {
            verified = api.rooms.processes.verify(&class, &key, patience) => verified,
            () = api.stopping() => return Ok(stopped(&class, &key)),
        };
        let verified = verified.map_err(|error| failed(&error))?;
        let status = if verified.complete { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok(json(status, &verified))
    };
    settle(verify.await)
}

fn stopped(class: &impl std::fmt::Display, key: &impl std::fmt::Display) -> Answer {
    let body =
        json!({ "process": format!("{class}/{key}"), "complete": false, "equal": Value::Null });
    json(StatusCode::ACCEPTED, &body)
}
