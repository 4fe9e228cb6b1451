//! Dead letters over HTTP: a page of them.
//!
//! In: queue, partition, group, a range of times, limit and offset from the query. Out: the letters with
//! their payloads, newest failure first. `total` is there when it is known, else `hasMore` tells whether
//! there are more. Called by `table`.

use axum::extract::{RawQuery, State};
use hyper::StatusCode;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use serde::Serialize;

use crate::delivery::desk::{DeskError, LetterMessage, reason, words};
use crate::shard::command::CommandError;
use crate::shard::look::letters::{LetterFilter, ShownLetter};
use crate::state::effect::ProducerSub;
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, settle};
use crate::wire::http::dialect::Dialect;
use crate::wire::http::ids::{TransactionId, Uuid, millis_text};
use crate::wire::http::pop_answer::Data;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, Row, get};
use crate::wire::http::times;
use crate::wire::http::url::Query;

/// Letters on a page where nothing is said, and at most.
const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;
/// Furthest page: older letters are found by `to`.
const OFFSET_MAX: u64 = 1_000_000;

/// The routes of this file.
pub(super) fn rows() -> Vec<Row> {
    let summary = "Dead letters, newest failure first";
    vec![get("/api/v1/dlq", READ_ONLY, "listDeadLetters", summary, list_dead)]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    messages: Vec<Letter<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    has_more: bool,
    pagination: Page,
}

/// Which page an answer is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Page {
    pub(super) limit: u64,
    pub(super) offset: u64,
}

impl Page {
    /// The page that a query asks for. Where a dialect overlooks what cannot be meant, more than a page
    /// may hold is as much as it may, and what is no number is not said: its clients take a refusal for
    /// an empty page. Beyond the furthest page nothing is overlooked, for another page is not that one.
    ///
    /// # Errors
    /// A refusal that names the parameter and its limits.
    pub(super) fn of(
        query: &Query<'_>,
        dialect: Dialect,
        default: u64,
        most: u64,
        far: u64,
    ) -> Result<Self, Failure> {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
        let limit = match dialect.is_strict() {
            true => query.number("limit", 1, most)?,
            false => number("limit").filter(|limit| *limit > 0).map(|limit| limit.min(most)),
        };
        let offset = match number("offset") {
            None if !dialect.is_strict() => None,
            _ => query.number("offset", 0, far)?,
        };
        Ok(Self { limit: limit.unwrap_or(default), offset: offset.unwrap_or(0) })
    }
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
    /// Why there is no payload, where the message does not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_error: Option<String>,
    producer_sub: Option<&'a str>,
    created_at: String,
    failed_at: Option<String>,
}

async fn list_dead(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(list(&api, &query.unwrap_or_default()).await)
}

/// A page of dead letters, of a queue or of all.
async fn list(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let queue = query.get("queue").map(str::parse::<QueueName>).transpose()?;
    let filter = LetterFilter {
        queue: None,
        group: query.get("consumerGroup").map(str::parse::<GroupName>).transpose()?,
        partition: query.get("partition").map(str::parse::<PartitionName>).transpose()?,
        from_ms: times::time(&query, "from")?,
        to_ms: times::time(&query, "to")?.map(times::to_end_of_minute),
    };
    let pagination = Page::of(&query, api.dialect, LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX)?;
    let (offset, limit) = (pagination.offset as usize, pagination.limit as usize);
    let page = api.rooms.delivery.dead_letters(queue.as_ref(), filter, offset, limit).await;
    let page = page.map_err(|error| failed(&error))?;
    let delivery = &api.rooms.delivery;
    let shown: Vec<LetterMessage> =
        page.letters.iter().map(|it| delivery.letter_message(it)).collect();
    let letters = page.letters.iter().zip(&shown);
    let messages: Vec<Letter<'_>> = letters.map(|(letter, shown)| render(letter, shown)).collect();
    let (total, has_more) = (page.total, page.has_more);
    Ok(json(StatusCode::OK, &Body { messages, total, has_more, pagination }))
}

/// What the shards did not do, as its client sees it.
pub(super) fn failed(error: &CommandError) -> Failure {
    Failure::new(codes::of_command_error(error), error.to_string())
}

/// What the desk did not do, as its client sees it.
pub(super) fn refused(error: &DeskError) -> Failure {
    let failure = Failure::new(codes::of_desk_error(error), error.to_string());
    match error {
        DeskError::TooManyJobs { limit } => failure.limit(*limit as u64),
        _ => failure,
    }
}

fn render<'a>(listed: &'a ShownLetter, shown: &'a LetterMessage) -> Letter<'a> {
    let letter = &listed.letter;
    let id = Uuid::of_message(letter.pushed_ms, letter.partition, letter.seq);
    let record = shown.kept.as_ref().and_then(|batch| batch.records().next());
    let given = record.as_ref().and_then(|it| it.transaction_id).map(TransactionId::Text);
    let data = shown.opened.as_ref().ok().and_then(|batch| batch.records().next());
    let data = data.as_ref().map(Data::of);
    Letter {
        id,
        transaction_id: given.or(id.map(TransactionId::Own)),
        trace_id: record.as_ref().and_then(|it| it.trace_id).map(Uuid),
        partition_id: Uuid::of_partition(letter.partition),
        queue: &listed.queue_name,
        partition: &listed.partition_name,
        consumer_group: &listed.group_name,
        error_message: words(listed),
        reason: reason(listed),
        retry_count: letter.attempts,
        encoding: data.as_ref().and_then(Data::encoding),
        data,
        data_error: shown.opened.as_ref().err().map(ToString::to_string),
        producer_sub: letter.sub.as_ref().map(ProducerSub::as_str),
        created_at: millis_text(letter.pushed_ms),
        failed_at: (letter.failed_ms > 0).then(|| millis_text(letter.failed_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(dialect: Dialect, query: &str) -> Result<(u64, u64), String> {
        let page = Page::of(&Query::parse(query).unwrap(), dialect, 100, 1_000, 5_000);
        page.map(|it| (it.limit, it.offset)).map_err(|it| it.message().to_owned())
    }

    #[test]
    fn a_page_that_is_too_long_is_refused_or_cut_as_its_clients_understand() {
        let (own, queen) = (Dialect::Onrush, Dialect::Queen);
        for dialect in [own, queen] {
            assert_eq!(page(dialect, ""), Ok((100, 0)));
            assert_eq!(page(dialect, "limit=7&offset=5000"), Ok((7, 5_000)));
            let far = page(dialect, "offset=5001").unwrap_err();
            assert_eq!(far, "offset must be a whole number from 0 to 5000");
        }
        for (query, cut) in [
            ("limit=5000", (1_000, 0)),
            ("limit=0", (100, 0)),
            ("limit=-1", (100, 0)),
            ("limit=all&offset=first", (100, 0)),
        ] {
            assert!(page(own, query).is_err(), "{query}");
            assert_eq!(page(queen, query), Ok(cut), "{query}");
        }
    }
}
