//! What a pop hands out, as JSON.
//!
//! In: batches as they were pushed. Out: the contract's body. A JSON payload goes out as the bytes
//! that came in; it is only looked over, because a producer over the binary protocol may call
//! anything JSON, and one such payload must not spoil the whole answer. Whatever is no JSON, or
//! nests deeper than we would take it in, goes out as base64 with `encoding` beside it. Pure. Called by `pop`, and by `dead` for payloads.

use hyper::StatusCode;
use onrush_protocol::batch::Record;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::base::place::PartitionNumber;
use crate::delivery::Handout;
use crate::delivery::parcel::Package;
use crate::state::draft::pop::PopBudget;
use crate::state::effect::ProducerSub;
use crate::wire::http::base64;
use crate::wire::http::ids::{TransactionId, Uuid, micros_text};
use crate::wire::http::push_pack::TRACEPARENT;
use crate::wire::http::shape::{DEPTH_MAX, is_deeper_than};
use crate::wire::http::status::{Answer, json};

/// A lease's token; the empty text where nothing is leased.
#[derive(Clone, Copy, Debug)]
struct LeaseId(Option<Uuid>);

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(token) => token.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}

/// A payload on its way out.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// As it came in.
    Json(&'a RawValue),
    /// Bytes that are no JSON.
    Binary(&'a [u8]),
}

impl<'a> Data<'a> {
    /// A record's payload.
    pub(super) fn of(record: &Record<'a>) -> Self {
        let parsed = record.is_json.then(|| serde_json::from_slice::<&RawValue>(record.payload));
        match parsed {
            Some(Ok(raw)) if !is_deeper_than(raw.get(), DEPTH_MAX) => Self::Json(raw),
            _ => Self::Binary(record.payload),
        }
    }

    /// What `encoding` says of it.
    pub(super) fn encoding(&self) -> Option<&'static str> {
        match self {
            Self::Json(_) => None,
            Self::Binary(_) => Some("base64"),
        }
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(raw) => raw.serialize(serializer),
            Self::Binary(bytes) => serializer.serialize_str(&base64::encode(bytes)),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    success: bool,
    queue: &'a str,
    partition: &'a str,
    partition_id: Option<Uuid>,
    lease_id: LeaseId,
    consumer_group: &'a str,
    partitions_claimed: usize,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    autopilot: Option<Sizes>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    window_buffer_active: bool,
}

/// The sizes that the server chose for a pop.
#[derive(Serialize)]
struct Sizes {
    partitions: u32,
    batch: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    id: Option<Uuid>,
    transaction_id: Option<TransactionId<'a>>,
    trace_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: Data<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    producer_sub: Option<&'a str>,
    created_at: &'a str,
    queue: &'a str,
    partition_id: Uuid,
    partition: &'a str,
    lease_id: LeaseId,
    consumer_group: &'a str,
    retry_count: u32,
}

/// Renders a handout that holds at least one partition; `sized` is what the server chose to take, for a
/// client that left it to it.
pub(super) fn answer(
    queue: &QueueName,
    group: &GroupName,
    handout: &Handout,
    auto_ack: bool,
    sized: Option<PopBudget>,
) -> Answer {
    let lease_id = LeaseId((!auto_ack).then_some(Uuid(handout.token)));
    // One text per batch: all of its messages came at the same time.
    let batches = handout.packages.iter().flat_map(|package| &package.batches);
    let times: Vec<String> = batches.map(|batch| micros_text(batch.time_ms)).collect();
    let mut times = times.iter();
    let mut messages = Vec::new();
    for package in &handout.packages {
        for batch in &package.batches {
            let created_at = times.next().map_or("", String::as_str);
            for (seq, record) in (batch.first_seq..).zip(batch.batch.records()) {
                let id = Uuid::of_message(batch.time_ms, package.partition, seq);
                let given = record.transaction_id.map(TransactionId::Text);
                let data = Data::of(&record);
                messages.push(Message {
                    id,
                    transaction_id: given.or(id.map(TransactionId::Own)),
                    trace_id: record.trace_id.map(Uuid),
                    traceparent: traceparent(&record),
                    encoding: data.encoding(),
                    data,
                    producer_sub: batch.sub.as_ref().map(ProducerSub::as_str),
                    created_at,
                    queue: queue.as_str(),
                    partition_id: Uuid::of_partition(package.partition),
                    partition: package.name.as_str(),
                    lease_id,
                    consumer_group: group.as_str(),
                    retry_count: attempts(package, seq),
                });
            }
        }
    }
    let first = handout.packages.first();
    let body = Body {
        success: true,
        queue: queue.as_str(),
        partition: first.map_or("", |it| it.name.as_str()),
        partition_id: first.map(|it| Uuid::of_partition(it.partition)),
        lease_id,
        consumer_group: group.as_str(),
        partitions_claimed: handout.packages.len(),
        messages,
        autopilot: sized.map(|it| Sizes { partitions: it.partitions, batch: it.messages }),
        window_buffer_active: false,
    };
    json(StatusCode::OK, &body)
}

/// Says that a partition has messages and waits for its window to close.
pub(super) fn window(
    queue: &QueueName,
    partition: &PartitionName,
    number: PartitionNumber,
    group: &GroupName,
) -> Answer {
    let body = Body {
        success: true,
        queue: queue.as_str(),
        partition: partition.as_str(),
        partition_id: Some(Uuid::of_partition(number)),
        lease_id: LeaseId(None),
        consumer_group: group.as_str(),
        partitions_claimed: 0,
        messages: Vec::new(),
        autopilot: None,
        window_buffer_active: true,
    };
    json(StatusCode::OK, &body)
}

/// The trace context of a record, from whichever door it came.
pub(super) fn traceparent<'a>(record: &Record<'a>) -> Option<&'a str> {
    std::str::from_utf8(record.headers.get(TRACEPARENT)?).ok()
}

fn attempts(package: &Package, seq: u64) -> u32 {
    let found = package.attempts.binary_search_by_key(&seq, |(seq, _)| *seq);
    found.ok().and_then(|at| package.attempts.get(at)).map_or(0, |(_, attempts)| *attempts)
}
