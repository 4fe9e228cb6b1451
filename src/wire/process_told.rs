//! How slots, trees and cascades are written.
//!
//! In: what the room found. Out: JSON. Pure. Called by `process_ask`, and for what changes while it is
//! watched by the HTTP door.

use serde_json::{Map, Value, json};

use crate::process::ProcessError;
use crate::process::keys::Address;
use crate::process::look::Scheduled;
use crate::process::record::{EntryStatus, Fault, SlotRecord};
use crate::process::tree::{Node, Standing};

/// A record as an answer.
pub(super) fn record(process: &str, slot: u64, found: &SlotRecord) -> Value {
    let mut body = serde_json::to_value(found).unwrap_or_default();
    if let Value::Object(fields) = &mut body {
        fields.insert("process".into(), process.into());
        fields.insert("slot".into(), slot.into());
    }
    body
}

/// A message in the log of its process, with what became of it. `is_trimmed`: that may have been let go of.
pub(super) fn scheduled(message: &Scheduled, found: Option<SlotRecord>, is_trimmed: bool) -> Value {
    let missing = if is_trimmed { "trimmed" } else { "pending" };
    let payload = match message.is_json {
        true => serde_json::from_slice(&message.payload).unwrap_or_default(),
        false => Value::Null,
    };
    json!({
        "slot": message.address.seq,
        "message_id": message.address.id(),
        "transaction_id": message.transaction_id,
        "timestamp": message.address.time_ms,
        "from": message.from,
        "cascade": message.root.id(),
        "message": payload,
        "status": found.as_ref().map_or(json!(missing), |it| json!(it.status)),
        "result": found,
    })
}

/// A part of a value. `results` stands for the whole, and `data` for its output, as elsewhere.
pub(super) fn part(whole: &Value, path: &str) -> Result<Value, ProcessError> {
    let mut value = whole;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let next = match value {
            Value::Array(items) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
            Value::Object(fields) => fields.get(part).or_else(|| match part {
                "results" => Some(value),
                "data" => fields.get("output"),
                _ => None,
            }),
            _ => None,
        };
        value = next.ok_or_else(|| ProcessError::NoPath(path.into()))?;
    }
    Ok(value.clone())
}

/// What a push is answered with.
pub(super) struct Told<'a> {
    pub(super) standing: &'a Standing,
    pub(super) tree: Option<Node>,
    /// How many levels carry full results.
    pub(super) result_depth: u64,
    /// How deep the sender wanted to wait; what is deeper is deferred.
    pub(super) max_depth: Option<u64>,
    pub(super) now_ms: u64,
}

impl Told<'_> {
    /// As JSON.
    pub(super) fn body(self) -> Map<String, Value> {
        let Standing { root, process, slot, tally, reply } = self.standing;
        let tally = tally.unwrap_or_default();
        let began_ms = root.time_ms;
        let ended_ms = match self.standing.is_complete() {
            true if tally.ended_ms > 0 => tally.ended_ms,
            true => slot.as_ref().map_or(began_ms, |slot| slot.evaluated_ms),
            false => self.now_ms,
        };
        let first_errors = i64::from(slot.as_ref().is_some_and(|slot| slot.status.is_error()));
        let mut body = Map::new();
        let stats = json!({
            "messages": tally.messages.max(i64::from(slot.is_some())),
            "depth": tally.depth,
            "pending": if slot.is_some() { tally.pending.max(0) } else { tally.pending.max(0) + 1 },
            "errors": tally.errors.max(first_errors),
            "dlq": tally.refused,
            "elapsed_ms": ended_ms.saturating_sub(began_ms),
        });
        body.insert("push_id".into(), root.id().into());
        body.insert("complete".into(), self.standing.is_complete().into());
        body.insert("status".into(), self.standing.status().into());
        body.insert("process".into(), process.as_str().into());
        body.insert("slot".into(), root.seq.into());
        body.insert("stats".into(), stats);
        if let Some(trace_id) = slot.as_ref().and_then(|slot| slot.trace_id.as_deref()) {
            body.insert("trace_id".into(), trace_id.into());
        }
        let reply = reply.as_ref().and_then(|it| serde_json::from_slice::<Value>(it).ok());
        body.insert("reply".into(), reply.unwrap_or_default());
        if let Some(tree) = self.tree {
            body.extend(node(tree, 0, self.result_depth, self.max_depth));
        }
        body
    }
}

/// A node of the tree, without what the first one has anyway.
fn node(
    node_of: Node,
    depth: u64,
    result_depth: u64,
    max_depth: Option<u64>,
) -> Map<String, Value> {
    let Node { address, entry, record, children, rest_from, is_trimmed, .. } = node_of;
    let mut body = Map::new();
    if let Some(entry) = &entry {
        body.insert("index".into(), entry.index.into());
        body.insert("target".into(), json!(entry.target));
        if let Some(to) = &entry.to {
            body.insert("process".into(), json!(to));
        }
        if let Some(error) = &entry.error {
            body.insert("error".into(), entry_fault(error));
        }
        let status = match (&record, entry.status) {
            (Some(record), _) => json!(record.status),
            (None, EntryStatus::Sent) if is_trimmed => json!("trimmed"),
            (None, EntryStatus::Sent) => json!("pending"),
            (None, status) => json!(status),
        };
        body.insert("status".into(), status);
        let is_deferred = record.is_none()
            && !is_trimmed
            && entry.status == EntryStatus::Sent
            && max_depth.is_some_and(|most| depth > most);
        if is_deferred {
            body.insert("deferred".into(), true.into());
        }
        if let Some(address) = address {
            body.insert("slot".into(), address.seq.into());
        }
    }
    if let Some(address) = address {
        body.insert("message_id".into(), address.id().into());
    }
    let is_full = depth < result_depth;
    if let Some(record) = record.filter(|_| is_full) {
        body.insert("output".into(), json!(record.output));
        body.insert("output_truncated".into(), record.output_truncated.into());
        body.insert("printed".into(), json!(record.printed));
        body.insert("printed_truncated".into(), record.printed_truncated.into());
        body.insert("version".into(), record.version.into());
        body.insert("fuel".into(), record.fuel.into());
        body.insert("took_us".into(), record.took_us.into());
        if let Some(error) = &record.error {
            body.insert("error".into(), json!(error));
        }
    }
    let below = |child| Value::Object(node(child, depth + 1, result_depth, max_depth));
    let children: Vec<Value> = children.into_iter().map(below).collect();
    body.insert("children".into(), Value::Array(children));
    if let (Some(from), Some(address)) = (rest_from, address) {
        body.insert("cursor".into(), cursor(address, from).into());
    }
    body
}

/// Why an entry went nowhere, with the status that a request would have had for it.
fn entry_fault(fault: &Fault) -> Value {
    let status = match &*fault.code {
        "effect_not_allowed" => Some(403),
        "target_not_found" => Some(404),
        "duplicate" => Some(409),
        "payload_too_large" => Some(413),
        "target_missing" | "codec_rejected" => Some(422),
        "backlog_full" => Some(429),
        _ => None,
    };
    let mut body = json!(fault);
    if let (Some(status), Value::Object(fields)) = (status, &mut body) {
        fields.insert("status".into(), status.into());
    }
    body
}

/// Where the rest of a node's children begins.
fn cursor(address: Address, index: u32) -> String {
    format!("{}:{index}", address.id())
}

/// Reads a cursor.
pub(super) fn read_cursor(text: &str) -> Option<(Address, u32)> {
    let (id, index) = text.split_once(':')?;
    Some((Address::parse(id)?, index.parse().ok()?))
}

/// Nodes and edges of a tree, for drawing it.
pub(super) fn graph(push: &Standing, tree: Node) -> Value {
    let (mut nodes, mut edges, mut open) = (Vec::new(), Vec::new(), vec![(None::<String>, tree)]);
    while let Some((parent, node)) = open.pop() {
        let Node { address, entry, record, children, rest_from, is_trimmed, .. } = node;
        let index = entry.as_ref().map_or(0, |entry| entry.index);
        let id = match (address, &parent) {
            (Some(address), _) => address.id(),
            (None, Some(parent)) => format!("{parent}:{index}"),
            (None, None) => push.root.id(),
        };
        let process = match &entry {
            Some(entry) => json!(entry.to.as_ref().or(entry.target.as_ref())),
            None => json!(push.process),
        };
        let status = match (&record, &entry) {
            (Some(record), _) => json!(record.status),
            (None, Some(entry)) if entry.status != EntryStatus::Sent => json!(entry.status),
            _ if is_trimmed => json!("trimmed"),
            _ => json!("pending"),
        };
        let error = record.as_ref().and_then(|it| it.error.as_ref());
        let error = error.or(entry.as_ref().and_then(|entry| entry.error.as_ref()));
        nodes.push(json!({
            "id": id,
            "process": process,
            "slot": address.map(|address| address.seq),
            "status": status,
            "error": error,
            "pushed": address.map(|address| address.time_ms),
            "evaluated": record.as_ref().map(|record| record.evaluated_ms),
            "took_us": record.as_ref().map(|record| record.took_us),
            "more": rest_from.is_some(),
        }));
        if let Some(parent) = parent {
            edges.push(json!({ "from": parent, "to": id, "index": index }));
        }
        open.extend(children.into_iter().rev().map(|child| (Some(id.clone()), child)));
    }
    json!({ "push_id": push.root.id(), "nodes": nodes, "edges": edges })
}
