//! The routes of processes: classes, instances, slots, state.
//!
//! In: definitions, paths, queries. Out: what the rooms say, in the words of `process_told`. Pushes are
//! in `process_push`. Called by `table`.

use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use hyper::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, StatusCode};
use onrush_protocol::name::{PartitionName, QueueName};
use serde_json::{Value, json};

use crate::process::{ProcessError, class::ClassShown};
use crate::wire::auth::Caller;
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::ids::millis_text;
use crate::wire::http::status::{Answer, Failure, bytes, empty, json};
use crate::wire::http::table::{ADMIN, READ_ONLY, READ_WRITE, Row, delete, get, post, put};
use crate::wire::http::url::Query;
use crate::wire::http::{process_desk, process_push, process_trial};
use crate::wire::process_ask::{Asked, PAGE, PAGE_MAX, Reply, Span, WAIT_MS, WAIT_MS_MAX};

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
    rows.extend(process_trial::rows());
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

/// What was answered, as this door says it: JSON, or the text itself where a value says what kind of
/// text it is.
pub(super) fn replied(asked: Asked) -> Result<Answer, Failure> {
    let Reply { status, body } = asked.map_err(|error| failed(&error))?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let page = if status == StatusCode::OK { page(&body) } else { None };
    Ok(page.unwrap_or_else(|| json(status, &body)))
}

/// A text that says of what kind it is. It comes from a guest: a browser is told to let it do nothing.
fn page(value: &Value) -> Option<Answer> {
    let kind = value.get("contentType").or_else(|| value.get("content-type"))?.as_str()?;
    let kind = HeaderValue::from_str(kind).ok()?;
    let text = value.get("body")?.as_str()?.to_owned();
    let mut answer = bytes(StatusCode::OK, "text/plain", text.into());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(answer)
}

async fn instance(State(api): Door, path: Raw<(String, String)>) -> Answer {
    let instance = async {
        let (class, key) = of_path(path)?;
        let (class, key) = process_of(&class, &key)?;
        replied(api.processes().instance(&class, &key).await)
    };
    settle(instance.await)
}

async fn slots(State(api): Door, path: Raw<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    let slots = async {
        let (class, key) = of_path(path)?;
        let (class, key) = process_of(&class, &key)?;
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let from = query.number("from", 0, u64::MAX)?.unwrap_or(0);
        let last = query.number("to", 0, u64::MAX)?.unwrap_or(u64::MAX);
        let limit = query.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE);
        replied(api.processes().slots(&class, &key, Span { from, last, limit }).await)
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
    let (class, key) = process_of(class, key)?;
    replied(api.processes().slot(&class, &key, number, patience, path).await)
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
    let patience = wait_of(&Query::parse(&raw)?, WAIT_MS)?;
    let (class, key) = process_of(class, key)?;
    replied(api.processes().newest(&class, &key, patience, path).await)
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
        let (class, key) = process_of(&class, &key)?;
        let limit = query.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE);
        let range = (query.get("prefix").unwrap_or_default(), query.get("after"));
        replied(api.processes().state(&class, &key, range, limit).await)
    };
    settle(state.await)
}

async fn state_key(State(api): Door, path: Raw<(String, String, String)>) -> Answer {
    let state = async {
        let (class, key, name) = of_path(path)?;
        let (class, key) = process_of(&class, &key)?;
        replied(api.processes().state_key(&class, &key, &name).await)
    };
    settle(state.await)
}
