//! Bodies of the routes of queries: registration, cycle, state keys.
//!
//! In: bytes. Out: what they ask for, borrowed from the body; or a refusal of the whole request. What a
//! cycle's client expects as `success: false` is kept as a text in its place. Pure. Called by
//! `streams`.

use std::borrow::Cow;

use bytes::Bytes;
use onrush_protocol::id::uuid_parse;
use onrush_protocol::name::GroupName;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::state::draft::ack::Verdict;
use crate::state::draft::transaction::StateOp;
use crate::state::effect::LeaseToken;
use crate::transaction::PARTS_MAX;
use crate::transaction::streams::KEYS_MAX;
use crate::wire::http::ack_parse::{self, AckLine, RawLine};
use crate::wire::http::push_parse::{self, PushItem, RawItem};
use crate::wire::http::shape::{self, List, Object, optional_text};
use crate::wire::http::status::Failure;
use crate::wire::http::transaction_parse::too_many;

/// A registration.
#[derive(Debug)]
pub(super) struct RegisterRequest<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    pub(super) sink: Cow<'a, str>,
    pub(super) config_hash: Cow<'a, str>,
    pub(super) reset: bool,
}

/// A question about state keys.
#[derive(Debug)]
pub(super) struct StatesRequest<'a> {
    pub(super) query: Cow<'a, str>,
    pub(super) partition: Cow<'a, str>,
    pub(super) keys: Vec<Bytes>,
    pub(super) prefix: Cow<'a, str>,
    /// Only those whose window ended by then, unix milliseconds.
    pub(super) ripe_ms: Option<f64>,
}

/// One step of a query.
#[derive(Debug)]
pub(super) struct CycleRequest<'a> {
    pub(super) query: Cow<'a, str>,
    pub(super) partition: Cow<'a, str>,
    pub(super) group: Option<GroupName>,
    pub(super) ops: Vec<StateOp>,
    pub(super) pushes: Vec<PushItem<'a>>,
    pub(super) ack: Option<CycleAck<'a>>,
    pub(super) release_lease: bool,
}

/// A cycle's verdict.
#[derive(Debug)]
pub(super) struct CycleAck<'a> {
    pub(super) line: AckLine<'a>,
    pub(super) count: u64,
}

/// A cycle, or why it cannot be one.
pub(super) type Cycle<'a> = Result<CycleRequest<'a>, NoCycle<'a>>;

/// What cannot be a cycle: its client expects the reason beside its ids, and to be rid of its lease.
#[derive(Debug)]
pub(super) struct NoCycle<'a> {
    pub(super) query: Cow<'a, str>,
    pub(super) partition: Cow<'a, str>,
    pub(super) group: Option<GroupName>,
    pub(super) lease: Option<LeaseToken>,
    pub(super) reason: String,
}

#[derive(Deserialize)]
struct RawRegister<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    source_queue: Option<&'a RawValue>,
    sink_queue: Option<&'a RawValue>,
    config_hash: Option<&'a RawValue>,
    reset: Option<bool>,
}

#[derive(Deserialize)]
struct RawStates<'a> {
    #[serde(borrow)]
    query_id: Option<&'a RawValue>,
    partition_id: Option<&'a RawValue>,
    keys: Option<List<&'a RawValue, KEYS_MAX>>,
    key_prefix: Option<&'a RawValue>,
    ripe_at_or_before: Option<f64>,
}

#[derive(Deserialize)]
struct RawCycle<'a> {
    #[serde(borrow)]
    query_id: Option<&'a RawValue>,
    partition_id: Option<&'a RawValue>,
    consumer_group: Option<&'a RawValue>,
    state_ops: Option<List<Object<RawOp<'a>>, KEYS_MAX>>,
    push_items: Option<List<Object<RawItem<'a>>, PARTS_MAX>>,
    ack: Option<Object<RawAck<'a>>>,
    release_lease: Option<bool>,
}

#[derive(Deserialize)]
struct RawOp<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAck<'a> {
    #[serde(borrow)]
    transaction_id: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    lease_id: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    count: Option<u64>,
}

/// A text that must be there.
fn required<'a>(raw: Option<&'a RawValue>, refusal: &'static str) -> Result<Cow<'a, str>, Failure> {
    let text = raw.and_then(shape::text).filter(|text| !text.is_empty());
    text.ok_or_else(|| Failure::malformed(refusal))
}

/// Reads a registration.
pub(super) fn register(body: &[u8]) -> Result<RegisterRequest<'_>, Failure> {
    let Object::Is(raw) = shape::read::<Object<RawRegister<'_>>>(body)? else {
        return Err(Failure::malformed("name is required"));
    };
    let sink = optional_text(raw.sink_queue, "sink_queue must be a string")?;
    Ok(RegisterRequest {
        name: required(raw.name, "name is required")?,
        source: required(raw.source_queue, "source_queue is required")?,
        sink: sink.unwrap_or_default(),
        config_hash: required(raw.config_hash, "config_hash is required")?,
        reset: raw.reset.unwrap_or(false),
    })
}

/// Reads a question about state keys.
pub(super) fn states(body: &[u8]) -> Result<StatesRequest<'_>, Failure> {
    let Object::Is(raw) = shape::read::<Object<RawStates<'_>>>(body)? else {
        return Err(Failure::malformed("query_id is required"));
    };
    let texts = match raw.keys {
        None => Vec::new(),
        Some(List::Is(keys)) => keys,
        Some(List::TooMany) => return Err(too_many("keys")),
        Some(List::Other) => return Err(Failure::malformed("keys must be an array")),
    };
    let key = |raw: &RawValue| {
        let text = shape::text(raw).ok_or_else(|| Failure::malformed("keys must hold strings"))?;
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    };
    let keys: Result<Vec<Bytes>, Failure> = texts.into_iter().map(key).collect();
    Ok(StatesRequest {
        query: required(raw.query_id, "query_id is required")?,
        partition: required(raw.partition_id, "partition_id is required")?,
        keys: keys?,
        prefix: optional_text(raw.key_prefix, "key_prefix must be a string")?.unwrap_or_default(),
        ripe_ms: raw.ripe_at_or_before,
    })
}

/// Reads a cycle.
pub(super) fn cycle(body: &[u8]) -> Result<Cycle<'_>, Failure> {
    let Object::Is(raw) = shape::read::<Object<RawCycle<'_>>>(body)? else {
        return Err(Failure::malformed("query_id is required"));
    };
    let query = required(raw.query_id, "query_id is required")?;
    let partition = required(raw.partition_id, "partition_id is required")?;
    let group = optional_text(raw.consumer_group, "consumer_group must be a string")?;
    let group = group.filter(|group| !group.is_empty()).map(|group| group.parse()).transpose()?;
    let pushes = match raw.push_items {
        None => Vec::new(),
        Some(List::Is(items)) => items,
        Some(List::TooMany) => return Err(too_many("push_items")),
        Some(List::Other) => return Err(Failure::malformed("push_items must be an array")),
    };
    let pushes = pushes.into_iter().enumerate().map(|(index, item)| match item {
        Object::Is(item) => push_parse::item(&item).map_err(|failure| failure.at(index)),
        Object::Other => Err(Failure::malformed("Each item must be an object").at(index)),
    });
    let pushes = pushes.collect::<Result<_, _>>()?;
    let lease = match &raw.ack {
        Some(Object::Is(ack)) => ack.lease_id.and_then(shape::text).and_then(|it| uuid_parse(&it)),
        Some(Object::Other) | None => None,
    };
    let refuse = |reason: String| {
        let (query, partition, group) = (query.clone(), partition.clone(), group.clone());
        Ok(Err(NoCycle { query, partition, group, lease, reason }))
    };
    let ops = match ops(raw.state_ops)? {
        Ok(ops) => ops,
        Err(text) => return refuse(text),
    };
    let ack = match raw.ack {
        None => None,
        Some(Object::Other) => return refuse("ack must be an object".to_owned()),
        Some(Object::Is(ack)) => match verdict(&ack, raw.partition_id)? {
            Ok(ack) => Some(ack),
            Err(text) => return refuse(text),
        },
    };
    let release_lease = raw.release_lease.unwrap_or(true);
    Ok(Ok(CycleRequest { query, partition, group, ops, pushes, ack, release_lease }))
}

type Raws<'a> = Option<List<Object<RawOp<'a>>, KEYS_MAX>>;

fn ops(raw: Raws<'_>) -> Result<Result<Vec<StateOp>, String>, Failure> {
    let raws = match raw {
        None => return Ok(Ok(Vec::new())),
        Some(List::Is(raws)) => raws,
        Some(List::TooMany) => return Err(too_many("state_ops")),
        Some(List::Other) => return Err(Failure::malformed("state_ops must be an array")),
    };
    let mut ops = Vec::with_capacity(raws.len());
    for raw in raws {
        let Object::Is(RawOp { kind, key, value }) = raw else {
            return Ok(Err("Each state_op must be an object".to_owned()));
        };
        let Some(key) = key.and_then(shape::text).filter(|key| !key.is_empty()) else {
            return Ok(Err("state_op.key is required".to_owned()));
        };
        // Copies: a row must not hold on to the body that it came in.
        let key = Bytes::copy_from_slice(key.as_bytes());
        let kind = kind.and_then(shape::text).unwrap_or_default();
        ops.push(match &*kind {
            "upsert" => {
                let value = value.map_or("null", RawValue::get);
                StateOp::Put { key, value: Bytes::copy_from_slice(value.as_bytes()) }
            }
            "delete" => StateOp::Remove { key },
            other => return Ok(Err(format!("Unknown state_op type: {other}"))),
        });
    }
    Ok(Ok(ops))
}

fn verdict<'a>(
    ack: &RawAck<'a>,
    partition_id: Option<&'a RawValue>,
) -> Result<Result<CycleAck<'a>, String>, Failure> {
    let RawAck { transaction_id, status, lease_id, error, count } = *ack;
    if transaction_id.and_then(shape::text).is_none_or(|id| id.is_empty()) {
        return Ok(Err("ack.transactionId is required".to_owned()));
    }
    let raw =
        RawLine { transaction_id, partition_id, status, consumer_group: None, lease_id, error };
    let (_, line) = ack_parse::single(&raw)?;
    Ok(match line.verdict {
        Some(Verdict::Completed | Verdict::Failed | Verdict::Retry | Verdict::Dead) => {
            Ok(CycleAck { line, count: count.unwrap_or(1) })
        }
        None => Err("ack.status must be completed, failed, retry or dlq".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: &str = "6f6e7275-7368-8000-8000-000000000007";

    #[test]
    fn refusals_use_the_words_of_the_contract() {
        let message = |body: &str| register(body.as_bytes()).unwrap_err().message().to_owned();
        assert_eq!(message("{}"), "name is required");
        assert_eq!(message(r#"{"name":"n"}"#), "source_queue is required");
        assert_eq!(message(r#"{"name":"n","source_queue":"q"}"#), "config_hash is required");
        let message = |body: &str| cycle(body.as_bytes()).unwrap_err().message().to_owned();
        assert_eq!(message("{}"), "query_id is required");
        assert_eq!(message(r#"{"query_id":"x"}"#), "partition_id is required");
        for (more, text) in [
            (r#""state_ops":[{"type":"merge","key":"k"}]"#, "Unknown state_op type: merge"),
            (r#""state_ops":[{"type":"upsert"}]"#, "state_op.key is required"),
            (r#""ack":{"leaseId":"x"}"#, "ack.transactionId is required"),
        ] {
            let body = format!(r#"{{"query_id":"x","partition_id":"{PARTITION}",{more}}}"#);
            assert_eq!(cycle(body.as_bytes()).unwrap().unwrap_err().reason, text);
        }
    }

    #[test]
    fn a_cycle_is_heard_whole() {
        let body = format!(
            r#"{{"query_id":"x","partition_id":"{PARTITION}","consumer_group":"streams.n",
                "state_ops":[{{"type":"upsert","key":"a\u001fb","value":{{"n": 1}}}},
                             {{"type":"delete","key":"c"}}],
                "push_items":[{{"queue":"sink","payload":1}}],
                "ack":{{"transactionId":"t","status":"failed","count":12}},"release_lease":false}}"#
        );
        let request = cycle(body.as_bytes()).unwrap().unwrap();
        let put = StateOp::Put { key: "a\u{1f}b".into(), value: r#"{"n": 1}"#.into() };
        assert_eq!(request.ops, [put, StateOp::Remove { key: "c".into() }]);
        assert_eq!((request.pushes.len(), request.release_lease), (1, false));
        let ack = request.ack.unwrap();
        assert_eq!((ack.count, ack.line.verdict), (12, Some(Verdict::Failed)));
        let flush = format!(r#"{{"query_id":"x","partition_id":"{PARTITION}","ack":null}}"#);
        let flush = cycle(flush.as_bytes()).unwrap().unwrap();
        assert!(flush.ack.is_none() && flush.release_lease && flush.group.is_none());
    }
}
