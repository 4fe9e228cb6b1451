//! What a push is answered, in both dialects.
//!
//! In: the items of a push and what became of each. Out: the answer: its elements stand in request
//! order, and its status tells the truth:
//!
//! * 201 as soon as one item is stored, was stored before, or is buffered; `pushed` is true only if
//!   no item failed.
//! * The first failure's status if every item failed; then the body begins as any failure's does.
//!
//! Pure. Called by `push`.

use hyper::StatusCode;
use serde::{Serialize, Serializer};

use crate::base::place::PartitionNumber;
use crate::state::ledger::First;
use crate::wire::http::dialect::Dialect;
use crate::wire::http::ids::{TransactionId, Uuid};
use crate::wire::http::push_parse::PushItem;
use crate::wire::http::status::{Answer, Failure, json};

/// What became of one item.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Durable: this push's message, or an earlier one with its transaction id.
    Stored { partition: PartitionNumber, message: First, duplicate: bool },
    /// In a ring, and to be flushed.
    Buffered,
    /// Not taken, or perhaps taken: see the failure.
    Failed(Failure),
}

/// A push that is over.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// One per item, in request order.
    pub(super) items: Vec<Outcome>,
    /// Whether the push was answered from the rings.
    pub(super) qos0: bool,
    /// Whether the store took what it was given.
    pub(super) db_healthy: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OnrushBody<'a> {
    #[serde(flatten)]
    failure: Option<FailureHead<'a>>,
    pushed: bool,
    qos0: bool,
    db_healthy: bool,
    messages: Vec<OnrushMessage<'a>>,
}

#[derive(Serialize)]
struct QueenFailureBody<'a> {
    #[serde(flatten)]
    failure: FailureHead<'a>,
    messages: Vec<QueenMessage<'a>>,
}

#[derive(Serialize)]
struct FailureHead<'a> {
    error: &'a str,
    code: &'a str,
    retryable: bool,
}

#[derive(Debug, Default, Serialize)]
struct OnrushMessage<'a> {
    transaction_id: Option<TransactionId<'a>>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    /// Shown, null or not, where the message was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Option<Uuid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(flatten)]
    failure: Option<FailureHead<'a>>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct QueenMessage<'a> {
    index: usize,
    #[serde(serialize_with = "or_empty")]
    transaction_id: Option<TransactionId<'a>>,
    status: &'static str,
    #[serde(serialize_with = "or_empty")]
    message_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Option<Uuid>>,
    #[serde(rename = "queueName")]
    queue_name: &'a str,
    #[serde(flatten)]
    failure: Option<FailureHead<'a>>,
}

/// Some of those clients read no element at all where one has no id: there the empty text stands for it.
fn or_empty<T: Serialize, S: Serializer>(id: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => id.serialize(serializer),
        None => serializer.serialize_str(""),
    }
}

impl std::fmt::Debug for FailureHead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code)
    }
}

impl<'a> FailureHead<'a> {
    fn of(failure: &'a Failure) -> Self {
        let (error, code) = (failure.message(), failure.code());
        Self { error, code, retryable: failure.is_retryable() }
    }
}

impl Outcomes {
    /// Messages that failed.
    pub(super) fn failed(&self) -> u64 {
        self.items.iter().filter(|it| matches!(it, Outcome::Failed(_))).count() as u64
    }

    /// The first failure, if every item failed.
    fn all_failed(&self) -> Option<&Failure> {
        let failed = self.items.iter().map(|outcome| match outcome {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Stored { .. } | Outcome::Buffered => None,
        });
        let failed: Option<Vec<_>> = failed.collect();
        failed?.first().copied()
    }
}

/// Renders the answer.
pub(super) fn answer(dialect: Dialect, items: &[PushItem<'_>], outcomes: &Outcomes) -> Answer {
    let failure = outcomes.all_failed();
    let both = items.iter().zip(&outcomes.items);
    match dialect {
        Dialect::Onrush => {
            let body = OnrushBody {
                failure: failure.map(FailureHead::of),
                pushed: outcomes.failed() == 0,
                qos0: outcomes.qos0,
                db_healthy: outcomes.db_healthy,
                messages: both.map(|(item, outcome)| onrush(item, outcome)).collect(),
            };
            respond(failure, &body)
        }
        Dialect::Queen => {
            let messages = both.enumerate().map(|(at, (item, outcome))| queen(at, item, outcome));
            let messages: Vec<_> = messages.collect();
            match failure {
                None => json(StatusCode::CREATED, &messages),
                Some(failure) => {
                    let head = FailureHead::of(failure);
                    respond(Some(failure), &QueenFailureBody { failure: head, messages })
                }
            }
        }
    }
}

fn respond(failure: Option<&Failure>, body: &impl Serialize) -> Answer {
    match failure {
        None => json(StatusCode::CREATED, body),
        Some(failure) => failure.answer_with(failure.status(), body),
    }
}

fn onrush<'a>(item: &'a PushItem<'_>, outcome: &'a Outcome) -> OnrushMessage<'a> {
    let given = item.transaction_id.as_deref().map(TransactionId::Text);
    match outcome {
        Outcome::Stored { partition, message, duplicate } => {
            let id = Uuid::of_message(message.time_ms, *partition, message.seq);
            OnrushMessage {
                transaction_id: given.or(id.map(TransactionId::Own)),
                status: if *duplicate { "duplicate" } else { "pushed" },
                message_id: id,
                // The earlier message's trace is not known here, and this one's is not stored.
                trace_id: (!duplicate).then_some(item.trace_id.map(Uuid)),
                partition_id: Some(Uuid::of_partition(*partition)),
                sequence: Some(message.seq),
                failure: None,
            }
        }
        Outcome::Buffered => OnrushMessage {
            transaction_id: given.or(Some(TransactionId::Text("buffered"))),
            status: "buffered",
            trace_id: item.trace_id.map(|id| Some(Uuid(id))),
            ..OnrushMessage::default()
        },
        Outcome::Failed(failure) => OnrushMessage {
            transaction_id: given,
            status: "failed",
            failure: Some(FailureHead::of(failure)),
            ..OnrushMessage::default()
        },
    }
}

/// A message's element as the clients of the system that we replace read it.
pub(super) fn queen<'a>(
    index: usize,
    item: &'a PushItem<'_>,
    outcome: &'a Outcome,
) -> QueenMessage<'a> {
    let given = item.transaction_id.as_deref().map(TransactionId::Text);
    let queue_name = &*item.queue;
    match outcome {
        Outcome::Stored { partition, message, duplicate } => {
            let id = Uuid::of_message(message.time_ms, *partition, message.seq);
            QueenMessage {
                index,
                transaction_id: given.or(id.map(TransactionId::Own)),
                status: if *duplicate { "duplicate" } else { "queued" },
                message_id: id,
                partition_id: (!duplicate).then_some(Uuid::of_partition(*partition)),
                trace_id: (!duplicate).then_some(item.trace_id.map(Uuid)),
                queue_name,
                failure: None,
            }
        }
        Outcome::Buffered => QueenMessage {
            index,
            transaction_id: given,
            status: "buffered",
            queue_name,
            ..QueenMessage::default()
        },
        Outcome::Failed(failure) => QueenMessage {
            index,
            transaction_id: given,
            status: "failed",
            queue_name,
            failure: Some(FailureHead::of(failure)),
            ..QueenMessage::default()
        },
    }
}
