//! The transaction route: verdicts and pushes that stand or fall as a whole.
//!
//! In: the whole body. Out: one result for each verdict and each push, in request order. Business
//! refusals are 200 with `success: false`, as clients expect; the code beside the text is the one
//! that all doors know. What is wrong with the body, and a store that is away, are told by the
//! status. Called by `admin`.

use hyper::StatusCode;
use onrush_protocol::code::Code;
use serde::Serialize;

use crate::base::place::PartitionNumber;
use crate::catalog::CatalogError;
use crate::ingest::PushError;
use crate::shard::transaction::{Committed, Reach, Refusal};
use crate::state::draft::push::Pushed;
use crate::state::effect::LeaseToken;
use crate::state::ledger::First;
use crate::transaction::{AckOrder, AppendOrder, Order, TransactionError, Which};
use crate::wire::codes;
use crate::wire::http::ack::{NO_LEASE, NOT_FOUND, words};
use crate::wire::http::ack_parse::{AckLine, Lease};
use crate::wire::http::ids::{TransactionId, Uuid};
use crate::wire::http::push::Origin;
use crate::wire::http::push_pack::{self, Section};
use crate::wire::http::push_parse::PushItem;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::transaction_parse::{self, Part, TransactionRequest};
use crate::wire::http::{Api, dialect::Dialect};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    transaction_id: Uuid,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    results: Vec<Line<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Push(PushLine<'a>),
    Ack(AckedLine<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PushLine<'a> {
    index: usize,
    #[serde(rename = "type")]
    kind: &'static str,
    success: bool,
    transaction_id: Option<TransactionId<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_id: Option<Uuid>,
    queue_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AckedLine<'a> {
    index: usize,
    #[serde(rename = "type")]
    kind: &'static str,
    success: bool,
    transaction_id: &'a str,
    error: Option<&'a str>,
    dlq: bool,
}

/// Why nothing stands, and which part of the request is to blame.
struct Blame {
    part: Option<Part>,
    text: String,
    code: Code,
}

/// Carries out a body.
pub(super) async fn transaction<'a>(
    api: &Api,
    body: &'a [u8],
    origin: Origin<'a>,
) -> Result<Answer, Failure> {
    let mut request = transaction_parse::parse(body)?;
    origin.give_context(&mut request.pushes);
    let target = api.config.batch_target_bytes;
    let packed = push_pack::pack(&request.pushes, *api.rooms.ingest.limits(), target)?;
    if let Some((index, error)) = packed.refused.first() {
        return Err(Failure::batch(error).at(*index as usize));
    }
    let sections = packed.sections;
    // The transaction leaves nothing behind that could be found by it.
    let id = Uuid::random(&*api.rooms.random);
    let outcome = match order(&request, &sections) {
        Ok(order) => {
            carry_out(api, &request, &sections, Order { sub: origin.sub, ..order }).await?
        }
        Err(blame) => Err(blame),
    };
    Ok(json(StatusCode::OK, &render(api.dialect, id, &request, &sections, &outcome)))
}

async fn carry_out(
    api: &Api,
    request: &TransactionRequest<'_>,
    sections: &[Section],
    order: Order,
) -> Result<Result<Committed, Blame>, Failure> {
    // A queue that is made by this takes its labels from the first push that has any.
    let labelled = |it: &&PushItem<'_>| it.namespace.is_some() || it.task.is_some();
    for item in request.pushes.iter().filter(labelled) {
        let name = item.queue.parse()?;
        let labels = (item.namespace.as_deref(), item.task.as_deref());
        if let Err(error) = api.rooms.catalogs.find_or_create_in(&name, labels.0, labels.1).await {
            let index = sections.iter().position(|section| section.queue == name).unwrap_or(0);
            return refused(TransactionError::Push { index, error: error.into() }, sections);
        }
    }
    match api.rooms.transactions.commit(order).await {
        Ok(committed) => Ok(Ok(committed)),
        Err(error) => refused(error, sections),
    }
}

/// A refusal as its part of the answer, or as a failure of the whole request where nothing about the
/// request is to blame.
fn refused<T>(error: TransactionError, sections: &[Section]) -> Result<Result<T, Blame>, Failure> {
    let code = codes::of_transaction_error(&error);
    let push_of = |index: usize, record: usize| {
        let item = sections.get(index).and_then(|section| section.items.get(record));
        item.map(|item| Part::Push(*item as usize))
    };
    let (part, text) = match &error {
        TransactionError::Refused(Refusal::Ack { index, refusal }) => {
            (Some(Part::Ack(*index)), format!("ACK operation failed: {}", words(refusal)))
        }
        TransactionError::Refused(Refusal::Lease(_)) => (None, format!("{NO_LEASE}: {error}")),
        TransactionError::Refused(Refusal::Duplicate { index, record }) => {
            let text = "PUSH operation failed: its transactionId was pushed before";
            (push_of(*index, *record), text.to_owned())
        }
        TransactionError::Refused(Refusal::Append { index, error }) => {
            (push_of(*index, 0), format!("PUSH operation failed: {error}"))
        }
        TransactionError::Push { index, error: PushError::Queue(CatalogError::NotFound(name)) } => {
            let text = format!("PUSH operation failed: Queue '{name}' does not exist");
            (push_of(*index, 0), text)
        }
        TransactionError::Refused(_) => (None, error.to_string()),
        TransactionError::Push { .. }
        | TransactionError::TooLarge { .. }
        | TransactionError::Command(_) => return Err(Failure::new(code, error.to_string())),
    };
    Ok(Err(Blame { part, text, code }))
}

fn order(request: &TransactionRequest<'_>, sections: &[Section]) -> Result<Order, Blame> {
    let blame = |part, text: &str, code| Blame { part, text: text.to_owned(), code };
    let leases: Option<Vec<LeaseToken>> = request.leases.iter().copied().collect();
    let leases = leases.ok_or_else(|| {
        blame(None, "Invalid or expired lease: a required lease was never one", Code::LeaseNotFound)
    })?;
    let acks = request.acks.iter().enumerate().map(|(index, (group, line))| {
        let part = Some(Part::Ack(index));
        let refuse =
            |text: &str, code| Err(blame(part, &format!("ACK operation failed: {text}"), code));
        let AckLine { transaction_id, partition, verdict, lease, error } = line;
        let token = match lease {
            Lease::None => None,
            Lease::Token(token) => Some(*token),
            Lease::Foreign => return refuse(NO_LEASE, Code::LeaseNotFound),
        };
        let Some(partition) = partition else { return refuse(NOT_FOUND, Code::MessageNotFound) };
        let Some(verdict) = verdict else {
            return refuse("status must be completed, failed, retry or dlq", Code::BadValue);
        };
        Ok(AckOrder {
            group: group.clone(),
            token,
            partition: *partition,
            which: Which::Id(Box::from(&**transaction_id)),
            verdict: *verdict,
            error: error.clone(),
            reach: Reach::Named,
        })
    });
    let acks = acks.collect::<Result<_, _>>()?;
    let appends = sections.iter().map(append).collect();
    Ok(Order { leases, acks, states: None, appends, on_duplicate: request.on_duplicate, sub: None })
}

/// A packed section as a batch of an order.
pub(super) fn append(section: &Section) -> AppendOrder {
    let Section { queue, partition, batch, .. } = section;
    AppendOrder { queue: queue.clone(), partition: partition.clone(), batch: batch.clone() }
}

/// What became of one pushed item: its partition, its message, and whether it was there before.
pub(super) type Placed = (PartitionNumber, First, bool);

/// What became of each item, by the index of the item.
pub(super) fn placed(
    items: usize,
    sections: &[Section],
    committed: &Committed,
) -> Vec<Option<Placed>> {
    let mut all = vec![None; items];
    for (section, stored) in sections.iter().zip(&committed.appends) {
        for (record, item) in section.items.iter().enumerate() {
            let (message, duplicate) = match &stored.pushed {
                Pushed::Stored { first_seq, time_ms, .. } => {
                    (First { seq: first_seq + record as u64, time_ms: *time_ms }, false)
                }
                Pushed::Mixed(outcomes) => match outcomes.get(record) {
                    Some(outcome) => (outcome.message, outcome.duplicate),
                    None => continue,
                },
            };
            if let Some(place) = all.get_mut(*item as usize) {
                *place = Some((stored.partition, message, duplicate));
            }
        }
    }
    all
}

fn render<'a>(
    dialect: Dialect,
    transaction_id: Uuid,
    request: &'a TransactionRequest<'_>,
    sections: &[Section],
    outcome: &'a Result<Committed, Blame>,
) -> Body<'a> {
    let success = outcome.is_ok();
    let blame = outcome.as_ref().err();
    let error_of = |part: &Part| {
        blame.filter(|blame| blame.part == Some(*part)).map(|blame| blame.text.as_str())
    };
    let places = match outcome {
        Ok(committed) => placed(request.pushes.len(), sections, committed),
        Err(_) => vec![None; request.pushes.len()],
    };
    let lines = request.order.iter().enumerate().filter_map(|(index, part)| match part {
        Part::Push(at) => {
            let (item, place) = (request.pushes.get(*at)?, *places.get(*at)?);
            Some(Line::Push(push_line(dialect, index, item, place, error_of(part))))
        }
        Part::Ack(at) => {
            let acked = outcome.as_ref().ok().and_then(|it| it.acks.get(*at));
            Some(Line::Ack(AckedLine {
                index,
                kind: "ack",
                success,
                transaction_id: &request.acks.get(*at)?.1.transaction_id,
                error: error_of(part),
                dlq: acked.is_some_and(|acked| acked.buried > 0),
            }))
        }
    });
    Body {
        transaction_id,
        success,
        error: blame.map(|blame| blame.text.clone()),
        code: blame.map(|blame| blame.code.name()),
        results: lines.collect(),
    }
}

fn push_line<'a>(
    dialect: Dialect,
    index: usize,
    item: &'a PushItem<'_>,
    place: Option<Placed>,
    error: Option<&'a str>,
) -> PushLine<'a> {
    let given = item.transaction_id.as_deref().map(TransactionId::Text);
    let id = place.and_then(|(partition, First { seq, time_ms }, _)| {
        Uuid::of_message(time_ms, partition, seq)
    });
    let status = place.map(|(.., duplicate)| match (duplicate, dialect) {
        (true, _) => "duplicate",
        (false, Dialect::Onrush) => "pushed",
        (false, Dialect::Queen) => "queued",
    });
    PushLine {
        index,
        kind: "push",
        success: place.is_some(),
        transaction_id: given.or(id.map(TransactionId::Own)),
        message_id: id,
        partition_id: place.map(|(partition, ..)| Uuid::of_partition(partition)),
        queue_name: &item.queue,
        status,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::draft::ack::AckRefusal;

    #[test]
    fn what_is_to_blame_is_told_in_the_words_of_the_contract_and_what_is_not_is_a_failure() {
        let refusal = AckRefusal::NoMessage { first: 0, last: 0 };
        let error = TransactionError::Refused(Refusal::Ack { index: 3, refusal });
        let blame = refused::<()>(error, &[]).unwrap().unwrap_err();
        assert_eq!(blame.text, "ACK operation failed: Message not found");
        assert_eq!((blame.part, blame.code), (Some(Part::Ack(3)), Code::MessageNotFound));
        let away = crate::log::AppendError::Unavailable("gone".into());
        let error = TransactionError::Command(crate::shard::command::CommandError::Append(away));
        let failure = refused::<()>(error, &[]).map(|_| ()).unwrap_err();
        assert_eq!(failure.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(failure.is_retryable());
    }
}
