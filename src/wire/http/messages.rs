//! Messages over HTTP: a page of them, one with its payload, and what may be done with one.
//!
//! In: filters from the query; a partition's id with a transaction id or a message's own id. Out:
//! messages as they stand with each group now. A deleted message is as if it had never been. Called by
//! `table`; the look-up by `traces` too.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use hyper::StatusCode;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::id::{partition_from_uuid, uuid_parse};
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::place::QueueId;
use crate::delivery::desk::{self, DeskError, MessageKey, Named};
use crate::sealing::OpenError;
use crate::shard::look::letters::ShownLetter;
use crate::shard::look::messages::{
    Body as MessageBody, FoundMessage, GroupStatus, MessageFilter, Status,
};
use crate::state::effect::ProducerSub;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::dead::{Page, failed, refused};
use crate::wire::http::ids::{TransactionId, Uuid, millis_text};
use crate::wire::http::pop_answer::{Data, traceparent};
use crate::wire::http::shape::{self, Object, optional_text};
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, delete, get, post};
use crate::wire::http::times::Range;
use crate::wire::http::url::Query;

/// Messages on a page where nothing is said, and at most.
const LIMIT_DEFAULT: u64 = 200;
const LIMIT_MAX: u64 = 1_000;
/// Furthest page: older messages are found by `to`.
const OFFSET_MAX: u64 = 100_000;
/// How far back a list goes where nothing is said.
const HOUR_MS: u64 = 60 * 60 * 1000;
/// Longest reason for a move to the dead letters, bytes.
const REASON_BYTES_MAX: usize = 4_096;

type Ids = Result<Path<(String, String)>, PathRejection>;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    const ONE: &str = "/api/v1/messages/{partitionId}/{transactionId}";
    const RETRY: &str = "/api/v1/messages/{partitionId}/{transactionId}/retry";
    const BURY: &str = "/api/v1/messages/{partitionId}/{transactionId}/dlq";
    vec![
        get("/api/v1/messages", READ_ONLY, "listMessages", "Messages, newest first", list),
        get(ONE, READ_ONLY, "getMessage", "One message with its payload", show),
        delete(ONE, READ_WRITE, "deleteMessage", "Delete one message for all groups", erase),
        post(RETRY, READ_WRITE, "retryMessage",
            "Give a dead letter back to its group", retry),
        post(BURY, READ_WRITE, "buryMessage", "Make a dead letter of a message", bury),
    ]
}

/// How messages are consumed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    has_queue_mode: bool,
    bus_groups_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_by_groups: Option<usize>,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Mode {
    fn of<'a>(groups: impl Iterator<Item = &'a str>) -> Self {
        let (queue, bus): (Vec<&str>, Vec<&str>) =
            groups.partition(|name| *name == GroupName::QUEUE_MODE);
        let (has_queue_mode, bus_groups_count) = (!queue.is_empty(), bus.len());
        let kind = match (has_queue_mode, bus_groups_count) {
            (false, 0) => "none",
            (true, 0) => "queue",
            (false, _) => "bus",
            (true, _) => "hybrid",
        };
        Self { has_queue_mode, bus_groups_count, consumed_by_groups: None, kind }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    messages: Vec<Listed<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    has_more: bool,
    mode: Mode,
    pagination: Page,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BusStatus {
    consumed_by: usize,
    total_groups: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    id: Option<Uuid>,
    transaction_id: Option<TransactionId<'a>>,
    partition_id: Uuid,
    queue_path: String,
    queue: &'a str,
    partition: &'a str,
    namespace: &'a str,
    task: &'a str,
    status: &'static str,
    queue_status: Option<&'static str>,
    bus_status: BusStatus,
    trace_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    producer_sub: Option<&'a str>,
    queue_priority: i32,
    created_at: String,
    lease_expires_at: Option<String>,
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Processing => "processing",
        Status::Completed => "completed",
        Status::DeadLetter => "dead_letter",
    }
}

fn is_done(group: &GroupStatus) -> bool {
    matches!(group.status, Status::Completed | Status::DeadLetter)
}

fn is_bus(group: &&GroupStatus) -> bool {
    &*group.group != GroupName::QUEUE_MODE
}

async fn list(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(page(&api, &query.unwrap_or_default()).await)
}

fn filter(api: &Api, query: &Query<'_>) -> Result<MessageFilter, Failure> {
    let queue = query.get("queue").map(str::parse::<QueueName>).transpose()?;
    let partition = query.get("partition").map(str::parse::<PartitionName>).transpose()?;
    let status = match query.get("status") {
        None => None,
        Some("pending") => Some(Status::Pending),
        Some("processing") => Some(Status::Processing),
        Some("completed") => Some(Status::Completed),
        Some("dead_letter") => Some(Status::DeadLetter),
        Some(_) => {
            let message = "status must be pending, processing, completed or dead_letter";
            return Err(Failure::value(message));
        }
    };
    let namespace = query.get("ns").or_else(|| query.get("namespace"));
    let task = query.get("task");
    let catalog = api.rooms.engine.catalog_now();
    let is_wanted = |name: &str, its_namespace: &str, its_task: &str| {
        queue.as_ref().is_none_or(|queue| queue.as_str() == name)
            && namespace.is_none_or(|it| it == its_namespace)
            && task.is_none_or(|it| it == its_task)
    };
    let asked = queue.is_some() || namespace.is_some() || task.is_some();
    let queues = asked.then(|| -> Vec<QueueId> {
        let wanted = catalog.iter().filter(|it| is_wanted(&it.name, &it.namespace, &it.task));
        wanted.map(|queue| queue.id).collect()
    });
    let Range { from_ms, to_ms } = Range::of(query, api.rooms.clock.now_ms(), HOUR_MS)?;
    Ok(MessageFilter { queues, partition, status, from_ms, to_ms })
}

async fn page(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let filter = filter(api, &query)?;
    let pagination = Page::of(&query, api.dialect, LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX)?;
    let (offset, limit) = (pagination.offset as usize, pagination.limit as usize);
    let found = api.rooms.delivery.messages(filter, offset, limit).await;
    let (found, bodies) = found.map_err(|error| failed(&error))?;
    let names: std::collections::BTreeSet<&str> = {
        let groups = found.messages.iter().flat_map(|it| &it.groups);
        groups.map(|group| &*group.group).collect()
    };
    let shown = found.messages.iter().zip(&bodies);
    let body = Body {
        messages: shown.map(|(message, body)| listed(message, body.as_ref())).collect(),
        total: found.total,
        has_more: found.has_more,
        mode: Mode::of(names.into_iter()),
        pagination,
    };
    Ok(json(StatusCode::OK, &body))
}

/// A page of messages as a list without a frame.
pub(super) async fn plain(api: &Api, filter: MessageFilter, page: Page) -> Result<Answer, Failure> {
    let (offset, limit) = (page.offset as usize, page.limit as usize);
    let found = api.rooms.delivery.messages(filter, offset, limit).await;
    let (found, bodies) = found.map_err(|error| failed(&error))?;
    let shown = found.messages.iter().zip(&bodies);
    let list: Vec<Listed<'_>> = shown.map(|(it, body)| listed(it, body.as_ref())).collect();
    Ok(json(StatusCode::OK, &list))
}

fn listed<'a>(message: &'a FoundMessage, body: Option<&'a MessageBody>) -> Listed<'a> {
    let id = Uuid::of_message(message.time_ms, message.partition, message.seq);
    let record = body.and_then(|body| body.batch.records().next());
    let given = record.as_ref().and_then(|it| it.transaction_id).map(TransactionId::Text);
    let own = message.groups.iter().find(|group| !is_bus(group));
    let bus: Vec<&GroupStatus> = message.groups.iter().filter(is_bus).collect();
    let consumed_by = bus.iter().filter(|group| is_done(group)).count();
    let lease = message.groups.iter().filter_map(|group| group.lease_until_ms).max();
    Listed {
        id,
        transaction_id: given.or(id.map(TransactionId::Own)),
        partition_id: Uuid::of_partition(message.partition),
        queue_path: format!("{}/{}", message.queue.name, message.partition_name),
        queue: &message.queue.name,
        partition: &message.partition_name,
        namespace: &message.queue.namespace,
        task: &message.queue.task,
        status: word(message.status()),
        queue_status: own.map(|group| word(group.status)),
        bus_status: BusStatus { consumed_by, total_groups: bus.len() },
        trace_id: record.as_ref().and_then(|it| it.trace_id).map(Uuid),
        traceparent: record.as_ref().and_then(traceparent),
        producer_sub: body.and_then(|it| it.sub.as_ref()).map(ProducerSub::as_str),
        queue_priority: message.queue.options.priority,
        created_at: millis_text(message.time_ms),
        lease_expires_at: lease.map(millis_text),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    lease_time: u32,
    retry_limit: u32,
    retry_delay: u32,
    ttl: u32,
    priority: i32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group<'a> {
    name: &'a str,
    consumed: bool,
    status: &'static str,
    attempts: u32,
    error_message: Option<&'a str>,
    lease_expires_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    #[serde(flatten)]
    listed: Listed<'a>,
    payload: Option<Data<'a>>,
    /// The same by the name that pops and clients know it by.
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    /// Why there is no payload, where the message does not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_error: Option<String>,
    is_encrypted: bool,
    error_message: Option<&'a str>,
    retry_count: u32,
    queue_config: Config,
    mode: Mode,
    consumer_groups: Vec<Group<'a>>,
}

/// Finds a message by its partition's id and its transaction id, or its own id.
pub(super) async fn find(
    api: &Api,
    partition: &str,
    transaction_id: &str,
) -> Result<Named, Failure> {
    let number = uuid_parse(partition).and_then(partition_from_uuid).ok_or_else(not_found)?;
    let key = MessageKey::Id(transaction_id.into());
    api.rooms.delivery.named(number, key).await.map_err(|error| refused(&error))
}

/// The refusal for a message that is not there, in the words of the contract.
pub(super) fn not_found() -> Failure {
    refused(&DeskError::NoMessage)
}

async fn named(api: &Api, ids: Ids) -> Result<(Named, String), Failure> {
    let (partition, transaction_id) = of_path(ids)?;
    Ok((find(api, &partition, &transaction_id).await?, transaction_id))
}

async fn show(State(api): Door, ids: Ids) -> Answer {
    settle(detail(&api, ids).await)
}

async fn detail(api: &Api, ids: Ids) -> Result<Answer, Failure> {
    let (named, _) = named(api, ids).await?;
    let detail = api.rooms.delivery.detail(named.partition, named.seq).await;
    let desk::Detail { found, body, opened, letters } = detail.map_err(|error| refused(&error))?;
    let detail = detailed(&found, body.as_ref(), opened.as_ref(), &letters);
    Ok(json(StatusCode::OK, &detail))
}

fn detailed<'a>(
    found: &'a FoundMessage,
    body: Option<&'a MessageBody>,
    opened: Option<&'a Result<RecordBatch, OpenError>>,
    letters: &'a [ShownLetter],
) -> Detail<'a> {
    let record = opened.and_then(|it| it.as_ref().ok()?.records().next());
    let of_record = || record.as_ref().map(Data::of);
    let data = of_record();
    let options = &found.queue.options;
    let letter_of = |group: &str| letters.iter().find(|it| *it.group_name == *group);
    let attempts = |group: &GroupStatus| {
        letter_of(&group.group).map_or(group.attempts, |letter| letter.letter.attempts)
    };
    let groups = found.groups.iter().map(|group| Group {
        name: &group.group,
        consumed: is_done(group),
        status: word(group.status),
        attempts: attempts(group),
        error_message: letter_of(&group.group).map(desk::words),
        lease_expires_at: group.lease_until_ms.map(millis_text),
    });
    let done = found.groups.iter().filter(is_bus).filter(|group| is_done(group)).count();
    let mode = Mode::of(found.groups.iter().map(|group| &*group.group));
    Detail {
        listed: listed(found, body),
        encoding: data.as_ref().and_then(Data::encoding),
        payload: data,
        data: of_record(),
        payload_error: opened.and_then(|it| it.as_ref().err()).map(ToString::to_string),
        is_encrypted: body.is_some_and(|body| body.batch.is_sealed()),
        error_message: letters.first().map(desk::words),
        retry_count: found.groups.iter().map(attempts).max().unwrap_or(0),
        queue_config: Config {
            lease_time: options.lease_time_s,
            retry_limit: options.retry_limit,
            retry_delay: options.retry_delay_ms,
            ttl: options.ttl_s,
            priority: options.priority,
        },
        mode: Mode { consumed_by_groups: Some(done), ..mode },
        consumer_groups: groups.collect(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    success: bool,
    partition_id: Uuid,
    transaction_id: &'a str,
    message: &'static str,
    groups: u64,
}

fn done(named: &Named, transaction_id: &str, message: &'static str, groups: u64) -> Answer {
    let partition_id = Uuid::of_partition(named.partition);
    let body = Done { success: true, partition_id, transaction_id, message, groups };
    json(StatusCode::OK, &body)
}

async fn erase(State(api): Door, ids: Ids) -> Answer {
    settle(erase_one(&api, ids).await)
}

async fn erase_one(api: &Api, ids: Ids) -> Result<Answer, Failure> {
    let (named, transaction_id) = named(api, ids).await?;
    let erased = api.rooms.delivery.erase(named.partition, named.seq).await;
    erased.map_err(|error| refused(&error))?;
    Ok(done(&named, &transaction_id, "Message deleted", 0))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(borrow)]
    consumer_group: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    reason: Option<&'a RawValue>,
}

/// The group and the reason that a body names; no body names none.
fn terms(body: &[u8]) -> Result<(Option<GroupName>, Box<str>), Failure> {
    if body.is_empty() {
        return Ok((None, Box::default()));
    }
    let Object::Is(raw) = shape::read::<Object<Raw<'_>>>(body)? else {
        return Ok((None, Box::default()));
    };
    let group = optional_text(raw.consumer_group, "consumerGroup must be a string")?;
    let group = group.map(|text| text.parse::<GroupName>()).transpose()?;
    let reason = optional_text(raw.error.or(raw.reason), "error must be a string")?;
    let reason = reason.unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX {
        let message = format!("error is longer than {REASON_BYTES_MAX} bytes");
        return Err(Failure::value(message).limit(REASON_BYTES_MAX as u64));
    }
    Ok((group, Box::from(&*reason)))
}

async fn retry(State(api): Door, ids: Ids, body: Bytes) -> Answer {
    settle(retry_one(&api, ids, &body).await)
}

async fn retry_one(api: &Api, ids: Ids, body: &[u8]) -> Result<Answer, Failure> {
    let (group, _) = terms(body)?;
    let (named, transaction_id) = named(api, ids).await?;
    let moved = api.rooms.delivery.retry(named.partition, named.seq, group).await;
    let moved = moved.map_err(|error| refused(&error))?;
    Ok(done(&named, &transaction_id, "Message given back", moved))
}

async fn bury(State(api): Door, ids: Ids, body: Bytes) -> Answer {
    settle(bury_one(&api, ids, &body).await)
}

async fn bury_one(api: &Api, ids: Ids, body: &[u8]) -> Result<Answer, Failure> {
    let (group, error) = terms(body)?;
    let (named, transaction_id) = named(api, ids).await?;
    let groups = api.rooms.delivery.bury(named.partition, named.seq, group, error).await;
    let groups = groups.map_err(|error| refused(&error))?;
    Ok(done(&named, &transaction_id, "Message moved to the dead letters", groups))
}
