//! A transaction's body: operations in order, each a verdict or pushes, borrowed from the body.
//!
//! In: the bytes of `POST /api/v1/transaction`. Out: pushes and verdicts with the order in which their
//! results are to stand; or a refusal of the whole request in the words of the contract, with the
//! index of the operation. An operation of several pushes counts as so many. Pure. Called by
//! `transaction`.

use onrush_protocol::code::Code;
use onrush_protocol::id::uuid_parse;
use onrush_protocol::name::GroupName;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::shard::transaction::OnDuplicate;
use crate::state::effect::LeaseToken;
use crate::transaction::PARTS_MAX;
use crate::wire::http::ack_parse::{self, AckLine, RawLine};
use crate::wire::http::push_parse::{self, PushItem, RawItem};
use crate::wire::http::shape::{self, List, Object, optional_text};
use crate::wire::http::status::Failure;

/// What a transaction asks for.
#[derive(Debug)]
pub(super) struct TransactionRequest<'a> {
    pub(super) pushes: Vec<PushItem<'a>>,
    pub(super) acks: Vec<(GroupName, AckLine<'a>)>,
    /// In request order: which of `pushes`, or which of `acks`.
    pub(super) order: Vec<Part>,
    /// Leases that must live; `None` for a text that was never one.
    pub(super) leases: Vec<Option<LeaseToken>>,
    pub(super) on_duplicate: OnDuplicate,
}

/// One result's operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Push(usize),
    Ack(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTransaction<'a> {
    #[serde(borrow)]
    operations: Option<List<Object<RawOperation<'a>>, PARTS_MAX>>,
    required_leases: Option<List<&'a RawValue, PARTS_MAX>>,
    on_duplicate: Option<&'a RawValue>,
    kv: Option<&'a RawValue>,
    timers: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOperation<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    items: Option<List<Object<RawItem<'a>>, PARTS_MAX>>,
    queue: Option<&'a RawValue>,
    partition: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    transaction_id: Option<&'a RawValue>,
    trace_id: Option<&'a RawValue>,
    traceparent: Option<&'a RawValue>,
    namespace: Option<&'a RawValue>,
    task: Option<&'a RawValue>,
    partition_id: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    consumer_group: Option<&'a RawValue>,
    lease_id: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

/// Reads a transaction's body.
pub(super) fn parse(body: &[u8]) -> Result<TransactionRequest<'_>, Failure> {
    let required = || Failure::malformed("operations array required");
    let Object::Is(raw) = shape::read::<Object<RawTransaction<'_>>>(body)? else {
        return Err(required());
    };
    let operations = match raw.operations {
        Some(List::Is(operations)) => operations,
        Some(List::TooMany) => return Err(too_many("operations")),
        Some(List::Other) | None => return Err(required()),
    };
    // Newer clients let these ride along, and expect them to stand or fall with the rest.
    for (name, rider) in [("kv", raw.kv), ("timers", raw.timers)] {
        if rider.is_some_and(|raw| !matches!(raw.get(), "[]" | "null")) {
            let message = format!("{name} operations in a transaction are not supported");
            return Err(Failure::value(message));
        }
    }
    if operations.is_empty() {
        return Err(Failure::malformed("operations array cannot be empty"));
    }
    let mut request = TransactionRequest {
        pushes: Vec::new(),
        acks: Vec::new(),
        order: Vec::new(),
        leases: leases(raw.required_leases)?,
        on_duplicate: on_duplicate(raw.on_duplicate)?,
    };
    for (index, operation) in operations.into_iter().enumerate() {
        let Object::Is(operation) = operation else {
            return Err(Failure::malformed("Each operation must be an object").at(index));
        };
        request.add(operation).map_err(|failure| failure.at(index))?;
        if request.order.len() > PARTS_MAX {
            return Err(too_many("operations"));
        }
    }
    Ok(request)
}

impl<'a> TransactionRequest<'a> {
    fn add(&mut self, operation: RawOperation<'a>) -> Result<(), Failure> {
        let kind = operation.kind.and_then(shape::text);
        match kind.as_deref() {
            Some("push") => self.add_pushes(operation),
            Some("ack") => {
                let line = RawLine {
                    transaction_id: operation.transaction_id,
                    partition_id: operation.partition_id,
                    status: operation.status,
                    consumer_group: operation.consumer_group,
                    lease_id: operation.lease_id,
                    error: operation.error,
                };
                self.order.push(Part::Ack(self.acks.len()));
                self.acks.push(ack_parse::single(&line)?);
                Ok(())
            }
            _ => Err(Failure::malformed("an operation's type must be push or ack")),
        }
    }

    fn add_pushes(&mut self, operation: RawOperation<'a>) -> Result<(), Failure> {
        let RawOperation { queue, partition, payload, data, namespace, task, .. } = operation;
        let RawOperation { transaction_id, trace_id, traceparent, .. } = operation;
        let items = match operation.items {
            Some(List::Is(items)) => items,
            Some(List::TooMany) => return Err(too_many("items")),
            Some(List::Other) => return Err(Failure::malformed("items must be an array")),
            None => {
                let item = RawItem {
                    queue,
                    partition,
                    payload,
                    data,
                    transaction_id,
                    trace_id,
                    traceparent,
                    namespace,
                    task,
                };
                vec![Object::Is(item)]
            }
        };
        for item in items {
            let Object::Is(item) = item else {
                return Err(Failure::malformed("Each item must be an object"));
            };
            self.order.push(Part::Push(self.pushes.len()));
            self.pushes.push(push_parse::item(&item)?);
        }
        Ok(())
    }
}

fn leases(raw: Option<List<&RawValue, PARTS_MAX>>) -> Result<Vec<Option<LeaseToken>>, Failure> {
    let texts = match raw {
        None => return Ok(Vec::new()),
        Some(List::Is(texts)) => texts,
        Some(List::TooMany) => return Err(too_many("requiredLeases")),
        Some(List::Other) => return Err(Failure::malformed("requiredLeases must be an array")),
    };
    let mut leases = Vec::with_capacity(texts.len());
    for raw in texts {
        let text = shape::text(raw);
        let text = text.ok_or_else(|| Failure::malformed("requiredLeases must hold strings"))?;
        // Clients list the lease of every message that they acknowledge, an empty one for none.
        if !text.is_empty() {
            leases.push(uuid_parse(&text));
        }
    }
    leases.sort_unstable();
    leases.dedup();
    Ok(leases)
}

fn on_duplicate(raw: Option<&RawValue>) -> Result<OnDuplicate, Failure> {
    match optional_text(raw, "onDuplicate must be a string")?.as_deref() {
        None | Some("report") => Ok(OnDuplicate::Report),
        Some("fail") => Ok(OnDuplicate::Fail),
        Some(_) => Err(Failure::value("onDuplicate must be report or fail")),
    }
}

pub(super) fn too_many(what: &str) -> Failure {
    let message = format!("{what} holds more than {PARTS_MAX} elements");
    Failure::new(Code::TooManyRecords, message).limit(PARTS_MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: &str = "6f6e7275-7368-8000-8000-000000000007";

    fn refused(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err().message().to_owned()
    }

    #[test]
    fn operations_keep_their_order_and_pushes_of_one_count_one_by_one() {
        let body = format!(
            r#"{{"operations":[{{"type":"push","items":[{{"queue":"a"}},{{"queue":"b","data":7}}]}},
                {{"type":"ack","transactionId":"t","partitionId":"{PARTITION}","status":"retry",
                  "consumerGroup":"g"}},
                {{"type":"push","queue":"c","payload":{{"x":1}},"transactionId":"own"}}],
                "requiredLeases":["","not a lease"],"onDuplicate":"fail"}}"#
        );
        let request = parse(body.as_bytes()).unwrap();
        let order = [Part::Push(0), Part::Push(1), Part::Ack(0), Part::Push(2)];
        assert_eq!(request.order, order);
        assert_eq!(request.pushes[1].payload, "7");
        assert_eq!(request.pushes[2].transaction_id.as_deref(), Some("own"));
        assert_eq!((request.acks[0].0.as_str(), request.acks[0].1.partition), ("g", Some(7)));
        assert_eq!((request.leases, request.on_duplicate), (vec![None], OnDuplicate::Fail));
    }

    #[test]
    fn refusals_use_the_words_of_the_contract() {
        for body in ["{}", r#"{"operations":{}}"#, "[]"] {
            assert_eq!(refused(body), "operations array required", "{body}");
        }
        assert_eq!(refused(r#"{"operations":[]}"#), "operations array cannot be empty");
        for (operation, message) in [
            ("7", "Each operation must be an object"),
            (r#"{"type":"pop"}"#, "an operation's type must be push or ack"),
            (r#"{"type":"push"}"#, "Queue must be a string"),
            (r#"{"type":"push","items":7}"#, "items must be an array"),
            (r#"{"type":"ack"}"#, "transactionId is required"),
        ] {
            let body = format!(r#"{{"operations":[{{"type":"push","queue":"q"}},{operation}]}}"#);
            assert_eq!(refused(&body), message, "{operation}");
        }
        for rider in ["kv", "timers"] {
            let op = r#"{"op":"put"}"#;
            let body =
                format!(r#"{{"operations":[{{"type":"push","queue":"q"}}],"{rider}":[{op}]}}"#);
            assert_eq!(
                refused(&body),
                format!("{rider} operations in a transaction are not supported")
            );
        }
        let body = r#"{"operations":[{"type":"push","queue":"q"}],"onDuplicate":"perhaps"}"#;
        assert_eq!(refused(body), "onDuplicate must be report or fail");
    }
}
