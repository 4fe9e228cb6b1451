//! The routes of what lies at the desk of processes: refused messages and timers; and those that stop an
//! instance and let it go on.
//!
//! In: ids and small bodies. Out: what the room says. Called by `table`.

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::ProcessError;
use crate::process::bulk::Handled;
use crate::process::letters::LetterShown;
use crate::process::timers::Timer;
use crate::process::way::Waypoint;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::ids::millis_text;
use crate::wire::http::process_push::control;
use crate::wire::http::processes::{Raw, failed, process_of, replied};
use crate::wire::http::shape;
use crate::wire::http::status::{Answer, Failure, empty, json};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, delete, get, post, put};
use crate::wire::http::url::Query;
use crate::wire::process_ask::{PAGE, PAGE_MAX};

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    const LETTER: &str = "/api/v1/letters/{id}";
    const TIMER: &str = "/api/v1/process-timers/{id}";
    vec![
        get("/api/v1/letters", READ_ONLY, "listLetters",
            "Messages of processes that were refused", letters),
        post("/api/v1/letters/redrive", READ_WRITE, "redriveLetters",
            "Send the refused messages of a push after all", redrive_all),
        delete("/api/v1/letters", READ_WRITE, "deleteLetters",
            "Throw the refused messages of a push away", discard_all),
        get(LETTER, READ_ONLY, "getLetter",
            "A refused message with the messages that led to it", letter),
        post("/api/v1/letters/{id}/redrive", READ_WRITE, "redriveLetter",
            "Send a refused message after all", redrive),
        delete(LETTER, READ_WRITE, "deleteLetter", "Throw a refused message away", discard),
        get("/api/v1/process-timers", READ_ONLY, "listTimers", "All timers", timers),
        put(TIMER, READ_WRITE, "setTimer", "Set a timer, or set it anew", set_timer),
        get(TIMER, READ_ONLY, "getTimer", "A timer", timer),
        delete(TIMER, READ_WRITE, "stopTimer", "Stop a timer for good", stop_timer),
        post("/api/v1/processes/{class}/{key}/pause", READ_WRITE, "pauseProcess",
            "Let a process evaluate nothing until it is resumed", pause),
        post("/api/v1/processes/{class}/{key}/resume", READ_WRITE, "resumeProcess",
            "Let a process go on", resume),
    ]
}

fn letter_body(letter: &LetterShown) -> Value {
    json!({
        "id": letter.id,
        "target": letter.target,
        "code": letter.code,
        "reason": letter.reason,
        "cascade": letter.cascade,
        "parent": letter.parent,
        "from": letter.from,
        "depth": letter.depth,
        "since": millis_text(letter.since_ms),
        "message": letter.payload,
        "encoding": if letter.base64 { "base64" } else { "json" },
    })
}

async fn letters(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    let letters = async {
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let limit = query.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE) as usize;
        let (cascade, after) = (query.get("cascade"), query.get("after"));
        let page = api.rooms.processes.letters(cascade, after, limit).await;
        let (letters, after) = page.map_err(|error| failed(&error))?;
        let letters: Vec<Value> = letters.iter().map(letter_body).collect();
        Ok(json(StatusCode::OK, &json!({ "letters": letters, "after": after })))
    };
    settle(letters.await)
}

async fn letter(State(api): Door, path: Raw<String>) -> Answer {
    let letter = async {
        let found = api.rooms.processes.letter_with_way(&of_path(path)?).await;
        let (letter, way) = found.map_err(|error| failed(&error))?;
        let step = |it: &Waypoint| json!({ "process": it.process, "slot": it.address.seq, "message_id": it.address.id() });
        let mut body = letter_body(&letter);
        if let Value::Object(fields) = &mut body {
            fields.insert("path".into(), way.iter().map(step).collect());
        }
        Ok(json(StatusCode::OK, &body))
    };
    settle(letter.await)
}

async fn redrive(State(api): Door, path: Raw<String>) -> Answer {
    let redrive = async {
        let sent = api.rooms.processes.redrive(&of_path(path)?).await;
        sent.map_err(|error| failed(&error))?;
        Ok(json(StatusCode::OK, &json!({ "redriven": true })))
    };
    settle(redrive.await)
}

/// The push whose letters are meant.
fn cascade_of<'a>(query: &'a Query<'_>) -> Result<&'a str, Failure> {
    query.get("cascade").ok_or_else(|| control("cascade must be the id of a push"))
}

async fn redrive_all(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    let redrive = async {
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let (cascade, after) = (cascade_of(&query)?, query.get("after"));
        let handled = api.rooms.processes.redrive_all(cascade, after).await;
        let handled = handled.map_err(|error| failed(&error))?;
        let Handled { done, kept, after } = handled;
        Ok(json(StatusCode::OK, &json!({ "redriven": done, "kept": kept, "after": after })))
    };
    settle(redrive.await)
}

async fn discard_all(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    let discard = async {
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let handled = api.rooms.processes.discard_all(cascade_of(&query)?).await;
        let Handled { done, after, .. } = handled.map_err(|error| failed(&error))?;
        Ok(json(StatusCode::OK, &json!({ "deleted": done, "has_more": after.is_some() })))
    };
    settle(discard.await)
}

async fn discard(State(api): Door, path: Raw<String>) -> Answer {
    let discard = async {
        let gone = api.rooms.processes.discard(&of_path(path)?).await;
        gone.map_err(|error| failed(&error))?;
        Ok(empty())
    };
    settle(discard.await)
}

async fn timers(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    let timers = async {
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let limit = query.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE) as usize;
        let timers = api.rooms.processes.timers(query.get("after"), limit).await;
        let timers = timers.map_err(|error| failed(&error))?;
        Ok(json(StatusCode::OK, &json!({ "timers": timers })))
    };
    settle(timers.await)
}

async fn set_timer(State(api): Door, path: Raw<String>, body: Bytes) -> Answer {
    let set = async {
        let id = of_path(path)?;
        let timer: Timer =
            serde_json::from_slice(&body).map_err(|error| Failure::malformed(error.to_string()))?;
        let set = api.rooms.processes.set_timer(&id, timer).await;
        Ok(json(StatusCode::OK, &set.map_err(|error| failed(&error))?))
    };
    settle(set.await)
}

async fn timer(State(api): Door, path: Raw<String>) -> Answer {
    let timer = async {
        let id = of_path(path)?;
        let found = api.rooms.processes.timer(&id).await.map_err(|error| failed(&error))?;
        let found = found.ok_or_else(|| failed(&ProcessError::NoPath(id)))?;
        Ok(json(StatusCode::OK, &found))
    };
    settle(timer.await)
}

async fn stop_timer(State(api): Door, path: Raw<String>) -> Answer {
    let stop = async {
        let stopped = api.rooms.processes.stop_timer(&of_path(path)?).await;
        stopped.map_err(|error| failed(&error))?;
        Ok(empty())
    };
    settle(stop.await)
}

/// Why an instance is stopped.
#[derive(Default, Deserialize)]
struct Pause {
    reason: Option<String>,
}

async fn pause(State(api): Door, path: Raw<(String, String)>, body: Bytes) -> Answer {
    let pause = async {
        let (class, key) = of_path(path)?;
        let asked: Pause = if body.is_empty() { Pause::default() } else { shape::read(&body)? };
        let reason = asked.reason.unwrap_or_else(|| "paused".into());
        stop(&api, &class, &key, Some(&reason)).await
    };
    settle(pause.await)
}

async fn resume(State(api): Door, path: Raw<(String, String)>) -> Answer {
    let resume = async {
        let (class, key) = of_path(path)?;
        stop(&api, &class, &key, None).await
    };
    settle(resume.await)
}

async fn stop(api: &Api, class: &str, key: &str, reason: Option<&str>) -> Result<Answer, Failure> {
    let (class, key) = process_of(class, key)?;
    replied(api.processes().stop(&class, &key, reason).await)
}
