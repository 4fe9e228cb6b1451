//! Traces over HTTP: what consumers tell of messages, and reading it by message and by name.
//!
//! In: an event about one message, with names to find it by. Out: its id when it is durable; pages of
//! events. Everything is bounded: a body's data, names and texts here, with the limit named; what is kept
//! by the store. Called by `table`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use hyper::StatusCode;
use onrush_protocol::batch::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::delivery::desk::Named;
use crate::shard::look::messages::FoundMessage;
use crate::shard::tend::Ask;
use crate::state::care::trace::{DATA_BYTES_MAX, NAMES_MAX, NameFigures, TraceEvent};
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::dead::{Page, failed};
use crate::wire::http::ids::{Uuid, millis_text};
use crate::wire::http::messages::{find, not_found};
use crate::wire::http::pop_answer::Data;
use crate::wire::http::shape::{self, List, Object, optional_text};
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, get, post};
use crate::wire::http::url::Query;

/// Longest name, kind or group of an event, bytes.
const TEXT_BYTES_MAX: usize = 255;
/// Events on a page where nothing is said, and at most.
const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;
/// Names on a page where nothing is said.
const NAMES_DEFAULT: u64 = 50;
const OFFSET_MAX: u64 = 1_000_000;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    vec![
        post("/api/v1/traces", READ_WRITE, "addTrace", "Tell what happened to a message", add),
        get("/api/v1/traces/names", READ_ONLY, "listTraceNames",
            "Names of traces, the one that was used last first", names),
        get("/api/v1/traces/by-name/{name}", READ_ONLY, "listTracesByName",
            "Trace events of a name, newest first", by_name),
        get("/api/v1/traces/{partitionId}/{transactionId}", READ_ONLY, "listTracesOfMessage",
            "Trace events of a message, oldest first", of_message),
    ]
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(borrow)]
    transaction_id: Option<&'a RawValue>,
    partition_id: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    consumer_group: Option<&'a RawValue>,
    event_type: Option<&'a RawValue>,
    trace_names: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Added {
    success: bool,
    trace_id: Uuid,
}

async fn add(State(api): Door, body: Bytes) -> Answer {
    settle(add_one(&api, &body).await)
}

async fn add_one(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    let required = || Failure::malformed("transactionId and partitionId are required");
    let Object::Is(raw) = shape::read::<Object<Raw<'_>>>(body)? else { return Err(required()) };
    let transaction_id = raw.transaction_id.and_then(shape::text).ok_or_else(required)?;
    let partition = raw.partition_id.and_then(shape::text).ok_or_else(required)?;
    let data = raw.data.map(RawValue::get).filter(|text| *text != "null");
    let data = data.ok_or_else(|| Failure::malformed("data is required"))?;
    if data.len() > DATA_BYTES_MAX {
        let message = format!("data is longer than {DATA_BYTES_MAX} bytes");
        return Err(Failure::value(message).limit(DATA_BYTES_MAX as u64));
    }
    let group = text(raw.consumer_group, "consumerGroup")?.unwrap_or_default();
    let kind = text(raw.event_type, "eventType")?.unwrap_or_else(|| "info".into());
    let names = trace_names(raw.trace_names)?;
    let Named { partition, seq, queue, partition_name } =
        find(api, &partition, &transaction_id).await?;
    let found = api.rooms.engine.message(partition, seq).await;
    found.map_err(|error| failed(&error))?.ok_or_else(not_found)?;
    let trace_id = Uuid::random(&*api.rooms.random);
    let event = TraceEvent {
        id: trace_id.0,
        partition,
        seq,
        time_ms: api.rooms.clock.now_ms(),
        transaction_id: Box::from(&*transaction_id),
        queue,
        partition_name,
        group,
        kind,
        names,
        data: data.as_bytes().to_vec().into(),
    };
    let told = api.rooms.engine.tend(Ask::Trace(Box::new(event))).await;
    told.map_err(|error| failed(&error))?;
    Ok(json(StatusCode::CREATED, &Added { success: true, trace_id }))
}

fn checked(text: &str, field: &str) -> Result<Box<str>, Failure> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("{field} is longer than {TEXT_BYTES_MAX} bytes");
        return Err(Failure::value(message).limit(TEXT_BYTES_MAX as u64));
    }
    Ok(text.into())
}

fn text(raw: Option<&RawValue>, field: &'static str) -> Result<Option<Box<str>>, Failure> {
    let found = optional_text(raw, "consumerGroup and eventType must be strings")?;
    found.map(|text| checked(&text, field)).transpose()
}

/// One name, several, or none; each once.
fn trace_names(raw: Option<&RawValue>) -> Result<Vec<Box<str>>, Failure> {
    let odd = || Failure::value("traceNames must be a string or a list of strings");
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(Vec::new()) };
    if let Some(name) = shape::text(raw) {
        return Ok(vec![checked(&name, "traceNames")?]);
    }
    let names = match serde_json::from_str::<List<&RawValue, NAMES_MAX>>(raw.get()) {
        Ok(List::Is(names)) => names,
        Ok(List::TooMany) => {
            let message = format!("traceNames holds more than {NAMES_MAX} names");
            return Err(Failure::value(message).limit(NAMES_MAX as u64));
        }
        Ok(List::Other) | Err(_) => return Err(odd()),
    };
    let mut found: Vec<Box<str>> = Vec::with_capacity(names.len());
    for name in names {
        let name = checked(&shape::text(name).ok_or_else(odd)?, "traceNames")?;
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

/// As the reference's reads write them: with underscores.
#[derive(Serialize)]
struct Event<'a> {
    id: Uuid,
    event_type: &'a str,
    data: &'a RawValue,
    consumer_group: Option<&'a str>,
    worker_id: Option<&'a str>,
    created_at: String,
    trace_names: &'a [Box<str>],
}

#[derive(Serialize)]
struct NamedEvent<'a> {
    #[serde(flatten)]
    event: Event<'a>,
    transaction_id: &'a str,
    partition_id: Uuid,
    queue_name: &'a str,
    partition_name: &'a str,
    message_payload: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Events<T> {
    traces: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pagination: Option<Page>,
}

#[derive(Serialize)]
struct Name {
    trace_name: Box<str>,
    trace_count: u64,
    message_count: u64,
    last_seen: String,
}

#[derive(Serialize)]
struct NamesBody {
    trace_names: Vec<Name>,
    total: u64,
    pagination: Page,
}

fn shown(event: &TraceEvent) -> Option<Event<'_>> {
    Some(Event {
        id: Uuid(event.id),
        event_type: &event.kind,
        data: serde_json::from_slice(&event.data).ok()?,
        consumer_group: (!event.group.is_empty()).then_some(&event.group),
        worker_id: None,
        created_at: millis_text(event.time_ms),
        trace_names: &event.names,
    })
}

async fn of_message(
    State(api): Door,
    ids: Result<Path<(String, String)>, PathRejection>,
) -> Answer {
    settle(read_message(&api, ids).await)
}

async fn read_message(
    api: &Api,
    ids: Result<Path<(String, String)>, PathRejection>,
) -> Result<Answer, Failure> {
    let (partition, transaction_id) = of_path(ids)?;
    let Named { partition, seq, .. } = find(api, &partition, &transaction_id).await?;
    let events = api.rooms.engine.look(move |view| {
        let traces = view.replica.catalog.traces();
        traces.of_message(partition, seq).cloned().collect::<Vec<Arc<TraceEvent>>>()
    });
    let events = events.await.map_err(|error| failed(&error))?;
    let traces = events.iter().filter_map(|event| shown(event)).collect();
    Ok(json(StatusCode::OK, &Events { traces, total: None, pagination: None }))
}

async fn by_name(
    State(api): Door,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answer {
    settle(read_name(&api, name, &query.unwrap_or_default()).await)
}

async fn read_name(
    api: &Api,
    name: Result<Path<String>, PathRejection>,
    query: &str,
) -> Result<Answer, Failure> {
    let (name, query) = (of_path(name)?, Query::parse(query)?);
    let page = Page::of(&query, api.dialect, LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX)?;
    let (offset, limit) = (page.offset as usize, page.limit as usize);
    let found = api
        .rooms
        .engine
        .look(move |view| view.replica.catalog.traces().of_name(&name, offset, limit));
    let (events, total) = found.await.map_err(|error| failed(&error))?;
    let bodies = bodies(api, &events).await?;
    let traces = events.iter().zip(&bodies).filter_map(|(event, body)| {
        let record = body.as_ref().and_then(|body| body.records().next());
        Some(NamedEvent {
            event: shown(event)?,
            transaction_id: &event.transaction_id,
            partition_id: Uuid::of_partition(event.partition),
            queue_name: &event.queue,
            partition_name: &event.partition_name,
            message_payload: record.as_ref().map(Data::of),
        })
    });
    let body = Events { traces: traces.collect(), total: Some(total), pagination: Some(page) };
    Ok(json(StatusCode::OK, &body))
}

/// The messages that events are about, opened, as far as they are there and open.
async fn bodies(
    api: &Api,
    events: &[Arc<TraceEvent>],
) -> Result<Vec<Option<RecordBatch>>, Failure> {
    let mut found: Vec<Option<FoundMessage>> = Vec::with_capacity(events.len());
    for event in events {
        let message = api.rooms.engine.message(event.partition, event.seq).await;
        found.push(message.map_err(|error| failed(&error))?);
    }
    let wanted: Vec<_> =
        found.iter().flatten().filter_map(|it| Some((it.partition, it.seq, it.run?))).collect();
    let delivery = &api.rooms.delivery;
    let read = delivery.bodies(wanted).await.map_err(|error| failed(&error))?;
    let mut read = read.into_iter();
    let body = |message: &Option<FoundMessage>| {
        let message = message.as_ref().filter(|message| message.run.is_some())?;
        let kept = read.next().flatten()?.batch;
        delivery.reveal(message.queue.id, &message.partition_name, Some(&kept)).ok()
    };
    Ok(found.iter().map(body).collect())
}

async fn names(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(read_names(&api, &query.unwrap_or_default()).await)
}

async fn read_names(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let pagination = Page::of(&query, api.dialect, NAMES_DEFAULT, LIMIT_MAX, OFFSET_MAX)?;
    let (offset, limit) = (pagination.offset as usize, pagination.limit as usize);
    let found =
        api.rooms.engine.look(move |view| view.replica.catalog.traces().names(offset, limit));
    let (names, total) = found.await.map_err(|error| failed(&error))?;
    let name = |NameFigures { name, events, messages, last_ms }| Name {
        trace_name: name,
        trace_count: events,
        message_count: messages,
        last_seen: millis_text(last_ms),
    };
    let trace_names = names.into_iter().map(name).collect();
    Ok(json(StatusCode::OK, &NamesBody { trace_names, total, pagination }))
}
