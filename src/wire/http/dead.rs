//! Dead letters over HTTP.
//!
//! In: queue, group, limit and offset from the query. Out: the letters with their payloads. `total`
//! is there when it is known, that is when the list reached its end; else `hasMore` is true. Called
//! by `admin`.

use bytes::Bytes;
use hyper::StatusCode;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::name::{GroupName, QueueName};
use serde::Serialize;

use crate::shard::command::ListedDead;
use crate::state::effect::{DeadReason, ProducerSub};
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::ids::{TransactionId, Uuid, millis_text};
use crate::wire::http::pop_answer::Data;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::url::Query;

/// Letters on a page where nothing is said, and at most.
const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;
/// Furthest page.
const OFFSET_MAX: u64 = 10_000_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    messages: Vec<Letter<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    has_more: bool,
    pagination: Page,
}

#[derive(Serialize)]
struct Page {
    limit: u64,
    offset: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Letter<'a> {
    id: Option<Uuid>,
    transaction_id: Option<TransactionId<'a>>,
    trace_id: Option<Uuid>,
    partition_id: Uuid,
    queue: &'a str,
    partition: &'a str,
    consumer_group: &'a str,
    error_message: &'a str,
    reason: &'static str,
    retry_count: u32,
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    producer_sub: Option<&'a str>,
    created_at: String,
}

/// A page of a queue's dead letters.
pub(super) async fn list(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let queue = query.get("queue").ok_or_else(|| Failure::malformed("queue is required"))?;
    let queue: QueueName = queue.parse()?;
    let group = query.get("consumerGroup").map(str::parse::<GroupName>).transpose()?;
    let limit = query.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let offset = query.number("offset", 0, OFFSET_MAX)?.unwrap_or(0);
    // One more than asked tells whether there are more.
    let letters =
        api.rooms.delivery.dead_letters(&queue, group, offset as usize, limit as usize + 1).await;
    let mut letters = letters
        .map_err(|error| Failure::new(codes::of_command_error(&error), error.to_string()))?;
    let has_more = letters.len() as u64 > limit;
    letters.truncate(limit as usize);
    let batches: Vec<Option<RecordBatch>> =
        letters.iter().map(|it| message(&it.letter.batch)).collect();
    let shown = letters.iter().zip(&batches);
    let messages: Vec<Letter<'_>> =
        shown.map(|(letter, batch)| render(&queue, letter, batch.as_ref())).collect();
    // Beyond the end nothing is known but that the end is before it.
    let known = !has_more && (offset == 0 || !messages.is_empty());
    let total = known.then_some(offset + messages.len() as u64);
    let pagination = Page { limit, offset };
    Ok(json(StatusCode::OK, &Body { messages, total, has_more, pagination }))
}

fn message(batch: &Bytes) -> Option<RecordBatch> {
    RecordBatch::parse_trusted(batch.clone()).ok()
}

fn render<'a>(
    queue: &'a QueueName,
    listed: &'a ListedDead,
    batch: Option<&'a RecordBatch>,
) -> Letter<'a> {
    let ListedDead { partition_name, group_name, letter } = listed;
    let id = Uuid::of_message(letter.pushed_ms, letter.partition, letter.seq);
    let record = batch.and_then(|batch| batch.records().next());
    let given = record.as_ref().and_then(|it| it.transaction_id).map(TransactionId::Text);
    let data = record.as_ref().map(Data::of);
    let reason = match letter.reason {
        DeadReason::RetriesExhausted => "Retries exhausted",
        DeadReason::Asked => "Moved by the consumer",
        DeadReason::LeaseExpired => "Lease expired too often",
    };
    Letter {
        id,
        transaction_id: given.or(id.map(TransactionId::Own)),
        trace_id: record.as_ref().and_then(|it| it.trace_id).map(Uuid),
        partition_id: Uuid::of_partition(letter.partition),
        queue: queue.as_str(),
        partition: partition_name,
        consumer_group: group_name,
        error_message: if letter.error.is_empty() { reason } else { &letter.error },
        reason,
        retry_count: letter.attempts,
        encoding: data.as_ref().and_then(Data::encoding),
        data,
        producer_sub: letter.sub.as_ref().map(ProducerSub::as_str),
        created_at: millis_text(letter.pushed_ms),
    }
}
