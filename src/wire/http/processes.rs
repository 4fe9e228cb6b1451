//! The routes of processes: classes, instances, slots, state.
//!
//! In: definitions, paths, queries. Out: what the rooms say, in the words of `process_answer`. Pushes are
//! in `process_push`. Called by `table`.

use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use hyper::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use hyper::{HeaderMap, StatusCode};
use onrush_protocol::name::{PartitionName, QueueName};
use serde_json::{Value, json};

use crate::process::keys::Address;
use crate::process::look::InstanceShown;
use crate::process::record::SlotRecord;
use crate::process::{ProcessError, class::ClassShown};
use crate::wire::auth::Caller;
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::ids::millis_text;
use crate::wire::http::process_answer::{at_path, record, scheduled};
use crate::wire::http::status::{Answer, Failure, empty, json};
use crate::wire::http::table::{ADMIN, READ_ONLY, READ_WRITE, Row, delete, get, post, put};
use crate::wire::http::url::Query;
use crate::wire::http::{process_desk, process_push};

/// Rows of one page, by default and at most.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1_000;
/// Longest wait, milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 600_000;
/// Wait where nothing is said, milliseconds.
pub(super) const WAIT_MS: u64 = 30_000;

/// Path parameters.
pub(super) type Raw<T> = Result<Path<T>, PathRejection>;
/// Who sends a request, where that is known.
pub(super) type Sender = Option<Extension<Caller>>;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    const CLASS: &str = "/api/v1/processes/{class}";
    let mut rows = vec![
        get("/api/v1/processes", READ_ONLY, "listClasses", "All classes of processes", list),
        put(CLASS, ADMIN, "defineClass", "Define a class, or a new version of it", define),
        get(CLASS, READ_ONLY, "getClass", "A class and what it says", show),
        delete(CLASS, ADMIN, "deleteClass", "Delete a class with all its processes", forget),
        get("/api/v1/processes/{class}/{key}", READ_ONLY, "getProcess",
            "How a process stands", instance),
        get("/api/v1/processes/{class}/{key}/slots", READ_ONLY, "listSlots",
            "Messages of a process with what became of them", slots),
        get("/api/v1/processes/{class}/{key}/slots/{slot}", READ_ONLY, "getSlot",
            "What became of a message", slot),
        get("/api/v1/processes/{class}/{key}/slots/{slot}/{*path}", READ_ONLY, "getSlotPart",
            "A part of what became of a message", slot_part),
        get("/api/v1/processes/{class}/{key}/now", READ_ONLY, "getNow",
            "What became of the newest message, once all before it are done", now),
        get("/api/v1/processes/{class}/{key}/now/{*path}", READ_ONLY, "getNowPart",
            "A part of what became of the newest message", now_part),
        get("/api/v1/processes/{class}/{key}/state", READ_ONLY, "listState",
            "State keys of a process", state),
        get("/api/v1/processes/{class}/{key}/state/{*state_key}", READ_ONLY, "getStateKey",
            "One state key of a process", state_key),
        post("/api/v1/processes/{class}/{key}/push", READ_WRITE, "pushToProcess",
            "Push a message to a process and wait for what comes of it", process_push::push),
        post("/api/v1/processes/{class}/{key}/schedule", READ_WRITE, "scheduleForProcess",
            "Put a message into the log of a process", process_push::schedule),
        post("/api/v1/processes/{class}/{key}/slots/{slot}/push", READ_WRITE, "pushSlot",
            "Wait for what comes of a message that is there", process_push::push_slot),
    ];
    rows.extend(process_push::rows());
    rows.extend(process_desk::rows());
    rows
}

pub(super) fn failed(error: &ProcessError) -> Failure {
    Failure::new(codes::of_process_error(error), error.to_string())
}

pub(super) fn process_of(class: &str, key: &str) -> Result<(QueueName, PartitionName), Failure> {
    Ok((class.parse()?, key.parse()?))
}

async fn list(State(api): Door) -> Answer {
    let classes: Vec<Value> = api.rooms.processes.classes().iter().map(class_body).collect();
    json(StatusCode::OK, &json!({ "classes": classes }))
}

fn class_body(class: &ClassShown) -> Value {
    json!({
        "class": class.name,
        "version": class.version,
        "since": millis_text(class.since_ms),
        "versions": class.versions,
        "definition": class.definition,
    })
}

fn class_answer(status: StatusCode, class: &ClassShown) -> Answer {
    let mut answer = json(status, &class_body(class));
    if let Ok(tag) = format!("\"{}\"", class.version).parse() {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// The version that `If-Match` names; 0, none at all, for `If-None-Match: *`.
fn expected(headers: &HeaderMap) -> Result<Option<u32>, Failure> {
    if headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*") {
        return Ok(Some(0));
    }
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let version = value.to_str().ok().and_then(|text| text.trim_matches('"').parse().ok());
    version.map(Some).ok_or_else(|| Failure::value("If-Match must be a version of the class"))
}

async fn define(State(api): Door, path: Raw<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let define = async {
        let name: QueueName = of_path(path)?.parse()?;
        let expected = expected(&headers)?;
        let defined = api.rooms.processes.define(&name, &body, expected).await;
        let class = defined.map_err(|error| failed(&error))?;
        Ok(class_answer(StatusCode::OK, &class))
    };
    settle(define.await)
}

async fn show(State(api): Door, path: Raw<String>) -> Answer {
    let show = || {
        let class = api.rooms.processes.class(&of_path(path)?.parse()?);
        Ok(class_answer(StatusCode::OK, &class.map_err(|error| failed(&error))?))
    };
    settle(show())
}

async fn forget(State(api): Door, path: Raw<String>, headers: HeaderMap) -> Answer {
    let forget = async {
        let name: QueueName = of_path(path)?.parse()?;
        let deleted = api.rooms.processes.delete(&name, expected(&headers)?).await;
        deleted.map_err(|error| failed(&error))?;
        Ok(empty())
    };
    settle(forget.await)
}

/// An instance by the names in a path.
pub(super) async fn found(
    api: &Api,
    class: &str,
    key: &str,
) -> Result<(QueueName, PartitionName, InstanceShown), Failure> {
    let (class, key) = process_of(class, key)?;
    let instance = api.rooms.processes.instance(&class, &key).await;
    let instance = instance.map_err(|error| failed(&error))?;
    Ok((class, key, instance))
}

async fn instance(State(api): Door, path: Raw<(String, String)>) -> Answer {
    let instance = async {
        let (class, key) = of_path(path)?;
        let (_, _, shown) = found(&api, &class, &key).await?;
        let body = json!({
            "process": format!("{class}/{key}"),
            "slots": shown.next,
            "evaluated": shown.done,
            "pending": shown.next.saturating_sub(shown.done),
            "oldest": shown.base,
            "version": shown.version,
            "stopped": shown.stopped,
        });
        Ok(json(StatusCode::OK, &body))
    };
    settle(instance.await)
}

async fn slots(State(api): Door, path: Raw<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    let slots = async {
        let (class, key) = of_path(path)?;
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let (class, key, shown) = found(&api, &class, &key).await?;
        let from = query.number("from", 0, u64::MAX)?.unwrap_or(0).max(shown.base);
        let last = query.number("to", 0, u64::MAX)?.unwrap_or(u64::MAX);
        let limit = query.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE);
        let end = last.saturating_add(1).min(shown.next).max(from);
        let to = end.min(from.saturating_add(limit));
        let processes = &api.rooms.processes;
        let records = processes.slots_from(&shown, from, limit as usize).await;
        let (records, more_after) = records.map_err(|error| failed(&error))?;
        let mut records: std::collections::BTreeMap<_, _> = records.into_iter().collect();
        // No further than it is known what became of them.
        let to = more_after.map_or(to, |slot| to.min(slot + 1));
        let messages = processes.schedule(&class, &key, &shown, from, to).await;
        let messages = messages.map_err(|error| failed(&error))?;
        let slots: Vec<Value> = messages
            .iter()
            .map(|message| scheduled(message, records.remove(&message.address.seq)))
            .collect();
        let body = json!({ "slots": slots, "has_more": to < end, "next": to, "tail": shown.next });
        Ok(json(StatusCode::OK, &body))
    };
    settle(slots.await)
}

/// How long a read may wait.
fn wait_of(query: &Query<'_>, default_ms: u64) -> Result<Duration, Failure> {
    let wait_ms = query.number("wait", 0, WAIT_MS_MAX)?.unwrap_or(default_ms);
    Ok(Duration::from_millis(wait_ms))
}

async fn one_slot(
    api: &Api,
    (class, key, slot): (&str, &str, &str),
    query: Option<String>,
    path: &str,
) -> Result<Answer, Failure> {
    let raw = query.unwrap_or_default();
    let patience = wait_of(&Query::parse(&raw)?, 0)?;
    let number: u64 = slot.parse().map_err(|_| Failure::value("slot must be a whole number"))?;
    let (_, _, shown) = found(api, class, key).await?;
    if number >= shown.next {
        return Err(failed(&ProcessError::NoSlot(number)));
    }
    let waited = api.rooms.processes.wait_slot(shown.partition, number, patience).await;
    match waited.map_err(|error| failed(&error))? {
        Some(found) => match path.strip_prefix("outbox/") {
            Some(rest) => entry(api, &found, rest).await,
            None => at_path(&record(&format!("{class}/{key}"), number, &found), path),
        },
        None => {
            let process = format!("{class}/{key}");
            let body = json!({ "process": process, "slot": number, "status": "pending" });
            Ok(json(StatusCode::ACCEPTED, &body))
        }
    }
}

/// An entry of a slot's outbox by its index, with what it said under `message`.
async fn entry(api: &Api, found: &SlotRecord, path: &str) -> Result<Answer, Failure> {
    let missing = || failed(&ProcessError::NoPath(format!("outbox/{path}")));
    let (index, rest) = path.split_once('/').unwrap_or((path, ""));
    let entry = found.outbox.iter().find(|it| it.index.to_string() == index);
    let entry = entry.ok_or_else(missing)?;
    let address = |id: &str| Address::parse(id).ok_or_else(missing);
    let (root, slot) = (address(&found.cascade)?, address(&found.message_id)?);
    let sent = api.rooms.processes.sent(root, slot, entry.index).await;
    let sent = sent.map_err(|error| failed(&error))?;
    let mut body = json!(entry);
    if let (Some(sent), Value::Object(fields)) = (sent, &mut body) {
        if let Some(address) = sent.address {
            fields.insert("message_id".into(), address.id().into());
        }
        if sent.is_json {
            let message: Value = serde_json::from_slice(&sent.payload).unwrap_or_default();
            fields.insert("message".into(), message);
        }
    }
    at_path(&body, rest)
}

async fn slot(
    State(api): Door,
    path: Raw<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let slot = async {
        let (class, key, slot) = of_path(path)?;
        one_slot(&api, (&class, &key, &slot), query, "").await
    };
    settle(slot.await)
}

async fn slot_part(
    State(api): Door,
    path: Raw<(String, String, String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let slot = async {
        let (class, key, slot, rest) = of_path(path)?;
        one_slot(&api, (&class, &key, &slot), query, &rest).await
    };
    settle(slot.await)
}

async fn newest(
    api: &Api,
    class: &str,
    key: &str,
    query: Option<String>,
    path: &str,
) -> Result<Answer, Failure> {
    let raw = query.unwrap_or_default();
    let query = Query::parse(&raw)?;
    let wait_ms = query.number("wait", 0, WAIT_MS_MAX)?.unwrap_or(WAIT_MS);
    let (name, instance_key, shown) = found(api, class, key).await?;
    let last = shown.next.checked_sub(1).ok_or_else(|| failed(&ProcessError::NoSlot(0)))?;
    let running = api.rooms.processes.run_to(&name, &instance_key, last).await;
    running.map_err(|error| failed(&error))?;
    let last = last.to_string();
    one_slot(api, (class, key, &last), Some(format!("wait={wait_ms}")), path).await
}

async fn now(State(api): Door, path: Raw<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    let now = async {
        let (class, key) = of_path(path)?;
        newest(&api, &class, &key, query, "").await
    };
    settle(now.await)
}

async fn now_part(
    State(api): Door,
    path: Raw<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let now = async {
        let (class, key, rest) = of_path(path)?;
        newest(&api, &class, &key, query, &rest).await
    };
    settle(now.await)
}

async fn state(State(api): Door, path: Raw<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    let state = async {
        let (class, key) = of_path(path)?;
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let (_, _, shown) = found(&api, &class, &key).await?;
        let limit = query.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE) as usize;
        let prefix = query.get("prefix").unwrap_or_default();
        let page = api.rooms.processes.state(&shown, prefix, query.get("after"), limit).await;
        let page = page.map_err(|error| failed(&error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let keys: Vec<Value> = page
            .rows
            .iter()
            .map(|row| {
                let value: Value = serde_json::from_slice(&row.value).unwrap_or_default();
                json!({ "key": text(&row.key), "value": value })
            })
            .collect();
        let after = page.more_after.as_deref().map(text);
        let body = json!({ "keys": keys, "evaluated": shown.done, "after": after });
        Ok(json(StatusCode::OK, &body))
    };
    settle(state.await)
}

async fn state_key(State(api): Door, path: Raw<(String, String, String)>) -> Answer {
    let state = async {
        let (class, key, name) = of_path(path)?;
        let (_, _, shown) = found(&api, &class, &key).await?;
        let row = api.rooms.processes.state_key(&shown, &name).await;
        let row = row.map_err(|error| failed(&error))?;
        at_path(&serde_json::from_slice(&row.value).unwrap_or_default(), "")
    };
    settle(state.await)
}
