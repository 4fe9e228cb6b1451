//! Answers of processes in the shape that HyperBEAM gives them.
//!
//! A node of a tree is what became of a slot, with `slot` and `process`, and one member for each entry of its
//! outbox, by its index: where it went, and what that resulted in. In: the answers of our own routes, and what the room found. Out: JSON. Pure.
//! Called by `process_push` and `facade`.

use serde_json::{Map, Value, json};

use crate::process::look::Scheduled;
use crate::process::record::{EntryRecord, SlotRecord};
use crate::process::sent::Sent;

/// The type by which a client of the other routes asks for this shape.
pub(super) const KIND: &str = "application/vnd.hb-push+json";

/// The answer to a push in this shape, made of what our own routes answer.
pub(super) fn told(body: &Value) -> Map<String, Value> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut told = node(body, text("process"));
    // Whoever sent nothing and is pending all the same is not evaluated yet.
    let has_children = told.contains_key("1") || body.get("cursor").is_some();
    if text("status") == "pending" && !has_children {
        told.extend(in_flight());
    }
    if told.contains_key("error") {
        let slot = body.get("slot").cloned().unwrap_or_default();
        told.insert("attempted-slot".into(), slot);
    }
    told.insert("push".into(), text("push_id").into());
    if let Some(recorded) = body.get("recorded") {
        told.insert("recorded".into(), recorded.clone());
    }
    told
}

fn in_flight() -> Map<String, Value> {
    Map::from_iter([("in-flight".into(), true.into()), ("status".into(), 202.into())])
}

fn node(of: &Value, process: &str) -> Map<String, Value> {
    let mut body = Map::new();
    let children = of.get("children").and_then(Value::as_array);
    for child in children.into_iter().flatten() {
        let index = child.get("index").and_then(Value::as_u64).unwrap_or_default();
        body.insert(index.to_string(), Value::Object(entry(child, index)));
    }
    for name in ["slot", "cursor"] {
        body.extend(of.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    body.insert("process".into(), process.into());
    // Only levels with results have an output, be it none.
    if let Some(output) = of.get("output") {
        let (error, printed) = (of.get("error"), of.get("printed"));
        body.extend(results(output, error, printed.and_then(Value::as_str).unwrap_or_default()));
    }
    body
}

/// What became of an entry.
fn entry(child: &Value, index: u64) -> Map<String, Value> {
    let mut body = Map::new();
    let target = child.get("process").or_else(|| child.get("target"));
    let process = target.and_then(Value::as_str).unwrap_or_default();
    body.insert("target".into(), target.cloned().unwrap_or_default());
    for (ours, theirs) in [("message_id", "id"), ("slot", "slot")] {
        body.extend(child.get(ours).map(|value| (theirs.to_owned(), value.clone())));
    }
    let status = child.get("status").and_then(Value::as_str).unwrap_or_default();
    let mut result = node(child, process);
    let result: Value = match status {
        "refused" if child.get("slot").is_none() => {
            let error = child.get("error");
            let of_error = |name: &str| error.and_then(|error| error.get(name)).cloned();
            body.insert("response".into(), "error".into());
            body.insert("outbox-index".into(), index.into());
            body.insert("reason".into(), of_error("message").unwrap_or_default());
            body.extend(of_error("status").map(|status| ("status".to_owned(), status)));
            return body;
        }
        "queued" | "replied" => return body,
        "delayed" | "parked" => {
            body.insert("status".into(), 202.into());
            "deferred".into()
        }
        "pending" if child.get("deferred").is_some() => "skipped".into(),
        "pending" => {
            result.extend(in_flight());
            result.into()
        }
        "trimmed" => {
            result.insert("trimmed".into(), true.into());
            result.into()
        }
        _ => result.into(),
    };
    body.insert("resulted-in".into(), result);
    body
}

/// What became of a slot.
fn results(output: &Value, error: Option<&Value>, printed: &str) -> Map<String, Value> {
    let mut body = Map::new();
    if let Some(error) = error {
        body.insert("error".into(), error.clone());
        body.insert("phase".into(), "compute".into());
    }
    if !output.is_null() {
        // What hands data out says so in its output; else that is the data.
        body.insert("data".into(), output.get("data").unwrap_or(output).clone());
        body.insert("output".into(), output.clone());
    }
    if !printed.is_empty() {
        body.insert("printed".into(), printed.into());
    }
    body
}

/// The state after a slot, with what became of it. `sent` are entries of its outbox with what they said, as
/// far as they stand anywhere.
pub(super) fn computed(
    process: &str,
    slot: u64,
    record: &SlotRecord,
    sent: &[(EntryRecord, Option<Sent>)],
) -> Value {
    let output = record.output.as_ref().and_then(|it| serde_json::from_str(it.get()).ok());
    let error = record.error.as_ref().map(|error| json!(error));
    let mut results = results(&output.unwrap_or_default(), error.as_ref(), &record.printed);
    let outbox: Map<String, Value> = sent
        .iter()
        .map(|(entry, message)| (entry.index.to_string(), outbox_entry(entry, message.as_ref())))
        .collect();
    results.insert("outbox".into(), Value::Object(outbox));
    json!({ "process": process, "slot": slot, "at-slot": slot, "results": results })
}

fn outbox_entry(entry: &EntryRecord, message: Option<&Sent>) -> Value {
    let payload = message.filter(|message| message.is_json);
    let payload = payload.and_then(|message| serde_json::from_slice(&message.payload).ok());
    let mut body = match payload {
        Some(Value::Object(fields)) => fields,
        Some(other) => Map::from_iter([("data".to_owned(), other)]),
        None => Map::new(),
    };
    body.insert("target".into(), json!(entry.target));
    Value::Object(body)
}

/// A page of a process's log.
pub(super) fn schedule(process: &str, messages: &[Scheduled], continues: bool) -> Value {
    let assignments: Map<String, Value> = messages
        .iter()
        .map(|message| (message.address.seq.to_string(), assignment(process, message)))
        .collect();
    json!({ "type": "schedule", "process": process, "continues": continues,
        "assignments": assignments })
}

/// A message with its place in the log.
pub(super) fn assignment(process: &str, message: &Scheduled) -> Value {
    let payload: Value = match message.is_json {
        true => serde_json::from_slice(&message.payload).unwrap_or_default(),
        false => Value::Null,
    };
    json!({
        "type": "Assignment",
        "process": process,
        "slot": message.address.seq,
        "epoch": "0",
        "timestamp": message.address.time_ms,
        "id": message.address.id(),
        "from": message.from,
        "body": payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_an_entry_has_its_shape() {
        let child = |index: u64, status: &str, more: Value| {
            let mut child = json!({ "index": index, "target": "t", "process": "c/k",
                "status": status, "children": [] });
            child.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            child
        };
        let there = json!({ "message_id": "id", "slot": 3 });
        let error = json!({ "error": { "code": "x", "message": "why", "status": 404 } });
        let body = json!({
            "push_id": "push", "process": "a/b", "slot": 0, "status": "pending",
            "output": { "data": 1 }, "printed": "", "children": [
                child(1, "ok", there.clone()), child(2, "refused", error),
                child(3, "pending", there.clone()), child(4, "queued", there.clone()),
                child(5, "parked", json!({})), child(6, "trimmed", there),
                child(7, "pending", json!({ "deferred": true })),
            ],
        });
        let told = Value::Object(told(&body));
        let node = |more: Value| {
            let mut node = json!({ "slot": 3, "process": "c/k" });
            node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "target": "c/k", "id": "id", "slot": 3, "resulted-in": node })
        };
        assert_eq!(told["1"], node(json!({})));
        let refused = json!({ "target": "c/k", "response": "error", "outbox-index": 2,
            "reason": "why", "status": 404 });
        assert_eq!(told["2"], refused);
        assert_eq!(told["3"], node(json!({ "in-flight": true, "status": 202 })));
        assert_eq!(told["4"], json!({ "target": "c/k", "id": "id", "slot": 3 }));
        assert_eq!(told["5"], json!({ "target": "c/k", "resulted-in": "deferred", "status": 202 }));
        assert_eq!(told["6"], node(json!({ "trimmed": true })));
        assert_eq!(told["7"]["resulted-in"], "skipped");
        assert_eq!(
            (&told["data"], &told["slot"], &told["push"]),
            (&json!(1), &json!(0), &json!("push"))
        );
        assert_eq!(told.get("in-flight"), None, "it was evaluated");
    }

    #[test]
    fn one_that_is_not_evaluated_and_one_that_failed_say_so() {
        let mut body = json!({ "push_id": "p", "process": "a/b", "slot": 2, "status": "pending",
            "children": [] });
        let pending = Value::Object(told(&body));
        let expected = json!({ "push": "p", "process": "a/b", "slot": 2, "in-flight": true,
            "status": 202 });
        assert_eq!(pending, expected);
        let failed = json!({ "status": "failed", "output": null, "printed": "p",
            "error": { "code": "guest_error" }, "recorded": true });
        body.as_object_mut().unwrap().extend(failed.as_object().unwrap().clone());
        let expected = json!({ "push": "p", "process": "a/b", "slot": 2, "attempted-slot": 2,
            "phase": "compute", "error": { "code": "guest_error" }, "printed": "p", "recorded": true });
        assert_eq!(Value::Object(told(&body)), expected);
    }
}
