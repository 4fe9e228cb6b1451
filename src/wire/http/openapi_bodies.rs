//! What requests with a body hold, for the description of the API: a JSON schema for each route.
//!
//! In: a route's name. Out: its schema, and whether a body must be there; the limits are those of the
//! parsers. Pure. Called by `openapi`.

use onrush_protocol::limits::TRANSACTION_ID_BYTES_MAX;
use serde_json::{Map, Value, json};

use crate::transaction::PARTS_MAX;
use crate::transaction::streams::{KEYS_MAX, TEXT_BYTES_MAX};
use crate::wire::http::push_parse::ITEMS_MAX;

/// A body of a request.
pub(super) struct Body {
    /// What it holds.
    pub(super) schema: Value,
    /// Whether it must be there.
    pub(super) is_required: bool,
}

/// What the body of a route holds; `None`: it takes none, or looks at none.
pub(super) fn of(id: &str) -> Option<Body> {
    let must = |schema| Some(Body { schema, is_required: true });
    let may = |schema| Some(Body { schema, is_required: false });
    match id {
        "push" => must(push()),
        "ack" => must(object(ack_fields(), &["transactionId", "partitionId"])),
        "ackBatch" => must(ack_batch()),
        "extendLease" => may(object(
            json!({ "seconds": { "type": "integer", "minimum": 1, "default": 60 } }),
            &[],
        )),
        "configureQueue" => must(configure()),
        "commitTransaction" => must(transaction()),
        "registerQuery" => must(register()),
        "readQueryState" => must(states()),
        "moveQueryOn" => must(cycle()),
        "setMaintenance" | "setPopMaintenance" => {
            must(object(json!({ "enabled": { "type": "boolean" } }), &["enabled"]))
        }
        "redriveDeadLetters" | "deleteDeadLetters" => must(object(job_fields(), &["queue"])),
        "requeueDeadLetters" => must(requeue()),
        "retryMessage" => may(object(json!({ "consumerGroup": text() }), &[])),
        "buryMessage" => may(object(json!({ "consumerGroup": text(), "error": text() }), &[])),
        "addTrace" => must(trace()),
        "setSubscription" => {
            must(object(json!({ "subscriptionTimestamp": time() }), &["subscriptionTimestamp"]))
        }
        "seekConsumerGroup" => must(anywhere(seek())),
        "seekConsumerGroupPartition" => may(seek()),
        "defineClass" => must(object(class_fields(), &["runtime", "module"])),
        "pushToProcess" | "scheduleForProcess" => must(object(process_push_fields(), &["message"])),
        "pushSlot" => may(object(process_push_fields(), &[])),
        "pauseProcess" => may(object(json!({ "reason": text() }), &[])),
        "tryMessage" => must(object(json!({ "message": {} }), &["message"])),
        "skipSlot" => must(object(json!({ "slot": whole() }), &["slot"])),
        "resetProcess" => must(object(reset_fields(), &["confirm"])),
        "verifyProcess" => may(object(json!({ "timeoutMs": whole() }), &[])),
        "facadeSpawn" | "facadeSpawnProcess" => must(object(
            json!({ "type": { "const": "Process" }, "module": text(), "key": text(),
                "body": { "type": "object" } }),
            &["type"],
        )),
        "facadePush" | "facadeSchedule" | "facadePostTry" => may(object(facade_fields(), &[])),
        "setTimer" => must(object(timer_fields(), &["target", "message"])),
        _ => None,
    }
}

fn class_fields() -> Value {
    json!({
        "runtime": { "type": "string", "enum": ["native", "luau", "wasm"] },
        "module": text(),
        "prelude": { "type": "string", "enum": ["none", "ao"], "default": "none" },
        "init": { "type": "object" },
        "mode": { "type": "string", "enum": ["auto", "manual"], "default": "auto" },
        "create": { "type": "string", "enum": ["on_first_push", "explicit"] },
        "onError": { "type": "string", "enum": ["record", "dlq", "halt"] },
        "unknownTarget": {},
        "acceptFrom": { "type": "array", "items": text() },
        "aliases": { "type": "object" },
        "limits": { "type": "object" },
        "codecs": { "type": "array", "items": { "type": "string", "enum": ["json", "bytes"] } },
        "retention": object(json!({ "slots": whole(), "seconds": whole() }), &[]),
    })
}

fn process_push_fields() -> Value {
    json!({
        "message": {},
        "transactionId": text(),
        "await": { "type": "string", "enum": ["accepted", "slot", "reply", "cascade"] },
        "pushMode": { "type": "string", "enum": ["sync", "async"] },
        "timeoutMs": { "type": "integer", "minimum": 0 },
        "resultDepth": { "type": "integer", "minimum": 0 },
        "maxDepth": { "type": "integer", "minimum": 0 },
        "maxMessages": { "type": "integer", "minimum": 1 },
        "maxHops": { "type": "integer", "minimum": 0 },
        "strict": { "type": "boolean" },
    })
}

fn facade_fields() -> Value {
    json!({
        "body": { "type": "object", "description": "the message; else it is the fields beside" },
        "slot": whole(),
        "push-mode": { "type": "string", "enum": ["sync", "async"] },
        "result-depth": whole(),
        "max-depth": whole(),
    })
}

fn reset_fields() -> Value {
    json!({
        "confirm": { "type": "string", "description": "class/key" },
        "pending": { "type": "string", "enum": ["evaluate", "skip"], "default": "evaluate" },
        "timeoutMs": whole(),
    })
}

fn timer_fields() -> Value {
    json!({
        "target": text(),
        "message": {},
        "atMs": { "type": "integer", "minimum": 0 },
        "delayMs": { "type": "integer", "minimum": 0 },
        "everyMs": { "type": "integer", "minimum": 0 },
        "cron": text(),
    })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn uuid() -> Value {
    json!({ "type": "string", "format": "uuid" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn whole() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn list(items: &Value, most: usize) -> Value {
    json!({ "type": "array", "items": items, "maxItems": most })
}

fn object(properties: Value, required: &[&str]) -> Value {
    let mut object = json!({ "type": "object", "properties": properties });
    if let (Value::Object(fields), false) = (&mut object, required.is_empty()) {
        fields.insert("required".to_owned(), json!(required));
    }
    object
}

/// The fields of both.
fn joined(one: Value, other: Value) -> Value {
    let fields = [one, other].into_iter().filter_map(|value| match value {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    Value::Object(fields.flatten().collect::<Map<String, Value>>())
}

fn item_fields() -> Value {
    json!({
        "queue": { "type": "string", "maxLength": 255 },
        "partition": { "type": "string", "minLength": 1, "maxLength": 255, "default": "Default" },
        "payload": { "description": "any JSON; kept byte for byte" },
        "data": { "description": "another name of the payload" },
        "transactionId": {
            "type": "string", "minLength": 1, "maxLength": TRANSACTION_ID_BYTES_MAX,
            "description": "pushed twice to a partition, it is stored once",
        },
        "traceId": uuid(),
        "traceparent": { "type": "string", "description": "a W3C trace context" },
        "namespace": { "type": "string", "description": "of a queue that this makes" },
        "task": { "type": "string", "description": "of a queue that this makes" },
    })
}

fn push() -> Value {
    let fields = json!({
        "items": list(&object(item_fields(), &["queue"]), ITEMS_MAX),
        "qos": { "type": "integer", "enum": [0, 1, 2], "default": 1 },
        "qos0": { "type": "boolean" },
        "bufferMs": { "type": "integer", "minimum": 0, "maximum": 60_000 },
        "bufferMax": whole(),
    });
    object(fields, &["items"])
}

fn ack_fields() -> Value {
    json!({
        "transactionId": { "type": "string", "minLength": 1 },
        "partitionId": uuid(),
        "status": {
            "type": "string", "enum": ["completed", "success", "failed", "retry", "dlq"],
            "default": "completed",
        },
        "consumerGroup": text(),
        "leaseId": text(),
        "error": text(),
    })
}

fn ack_batch() -> Value {
    let line = object(ack_fields(), &["transactionId", "partitionId"]);
    let fields = json!({
        "consumerGroup": text(),
        "acknowledgments": { "type": "array", "items": line },
    });
    object(fields, &["acknowledgments"])
}

fn configure() -> Value {
    let switch = || json!({ "type": "boolean", "default": false });
    let seconds = || json!({ "type": "integer", "minimum": 0, "description": "seconds" });
    let options = json!({
        "leaseTime": seconds(), "ttl": seconds(), "delayedProcessing": seconds(),
        "windowBuffer": seconds(), "retentionSeconds": seconds(),
        "completedRetentionSeconds": seconds(), "maxWaitTimeSeconds": seconds(),
        "retryLimit": whole(), "maxSize": whole(),
        "retryDelay": { "type": "integer", "minimum": 0, "description": "milliseconds" },
        "priority": { "type": "integer" },
        "deadLetterQueue": switch(), "dlqAfterMaxRetries": switch(), "retentionEnabled": switch(),
        "encryptionEnabled": switch(), "sqlRows": switch(),
    });
    let fields = json!({
        "queue": { "type": "string", "maxLength": 255 },
        "namespace": { "type": "string", "maxLength": 255 },
        "task": { "type": "string", "maxLength": 255 },
        "options": object(options, &[]),
        "mode": { "enum": ["merge", "replace"], "default": "replace",
            "description": "whether settings that are not named stay, or have their defaults again" },
    });
    object(fields, &["queue"])
}

fn transaction() -> Value {
    let kind = |name: &str| json!({ "type": { "const": name } });
    let items = json!({ "items": list(&object(item_fields(), &["queue"]), PARTS_MAX) });
    let push = object(joined(joined(kind("push"), items), item_fields()), &["type"]);
    let ack = object(joined(kind("ack"), ack_fields()), &["type", "transactionId", "partitionId"]);
    let fields = json!({
        "operations": {
            "type": "array", "items": { "oneOf": [push, ack] }, "minItems": 1, "maxItems": PARTS_MAX,
        },
        "requiredLeases": list(&text(), PARTS_MAX),
        "onDuplicate": { "type": "string", "enum": ["report", "fail"], "default": "report" },
    });
    object(fields, &["operations"])
}

fn register() -> Value {
    let name = json!({ "type": "string", "minLength": 1, "maxLength": TEXT_BYTES_MAX });
    let fields = json!({
        "name": name, "source_queue": name, "config_hash": name,
        "sink_queue": { "type": "string", "maxLength": TEXT_BYTES_MAX },
        "reset": { "type": "boolean", "default": false },
    });
    object(fields, &["name", "source_queue", "config_hash"])
}

fn states() -> Value {
    let fields = json!({
        "query_id": uuid(),
        "partition_id": uuid(),
        "keys": list(&text(), KEYS_MAX),
        "key_prefix": text(),
        "ripe_at_or_before": { "type": "number", "description": "unix milliseconds" },
    });
    object(fields, &["query_id", "partition_id"])
}

fn cycle() -> Value {
    let op = json!({
        "type": { "type": "string", "enum": ["upsert", "delete"] },
        "key": { "type": "string", "minLength": 1, "maxLength": 1024 },
        "value": { "description": "any JSON" },
    });
    let ack = json!({
        "transactionId": text(),
        "leaseId": text(),
        "status": { "type": "string", "enum": ["completed", "success", "failed", "retry", "dlq"] },
        "count": whole(),
        "error": text(),
    });
    let ack = object(ack, &["transactionId"]);
    let fields = json!({
        "query_id": uuid(),
        "partition_id": uuid(),
        "consumer_group": text(),
        "state_ops": list(&object(op, &["type", "key"]), KEYS_MAX),
        "push_items": list(&object(item_fields(), &["queue"]), PARTS_MAX),
        "ack": { "oneOf": [ack, { "type": "null" }] },
        "release_lease": { "type": "boolean", "default": true },
    });
    object(fields, &["query_id", "partition_id"])
}

fn job_fields() -> Value {
    json!({
        "queue": text(), "consumerGroup": text(), "partition": text(),
        "error": { "type": "string", "description": "a part of the letter's error" },
        "limit": { "type": "integer", "minimum": 1 },
        "ratePerSecond": { "type": "integer", "minimum": 1 },
        "dryRun": { "type": "boolean", "default": false },
    })
}

fn requeue() -> Value {
    let more = json!({ "toQueue": text(), "toPartition": text() });
    object(joined(job_fields(), more), &["queue"])
}

fn trace() -> Value {
    let fields = json!({
        "transactionId": text(),
        "partitionId": uuid(),
        "data": { "type": "object" },
        "consumerGroup": text(),
        "eventType": { "type": "string", "default": "info" },
        "traceNames": { "oneOf": [text(), { "type": "array", "items": text() }, { "type": "null" }] },
    });
    object(fields, &["transactionId", "partitionId", "data"])
}

fn seek() -> Value {
    let fields = json!({
        "toEnd": { "type": "boolean" },
        "toBeginning": { "type": "boolean" },
        "position": { "type": "string", "enum": ["latest", "earliest"] },
        "timestamp": time(),
    });
    object(fields, &[])
}

/// A seek that must say where to.
fn anywhere(mut seek: Value) -> Value {
    let one = |name: &str| json!({ "required": [name] });
    if let Value::Object(fields) = &mut seek {
        let any = ["toEnd", "toBeginning", "position", "timestamp"].map(one);
        fields.insert("anyOf".to_owned(), json!(any));
    }
    seek
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::table::{self, Verb};

    /// Routes that are posted to without saying anything.
    const SILENT: [&str; 11] = [
        "facadePostCompute",
        "facadePostNow",
        "redriveLetter",
        "redriveLetters",
        "resumeProcess",
        "refreshStats",
        "notify",
        "testMigration",
        "startMigration",
        "validateMigration",
        "resetMigration",
    ];

    #[test]
    fn every_route_that_takes_a_body_says_what_it_holds_and_no_other() {
        for label in table::labels() {
            let takes = matches!(label.verb, Verb::Post | Verb::Put);
            let silent = SILENT.contains(&label.id);
            assert_eq!(of(label.id).is_some(), takes && !silent, "{}: see `of`", label.id);
        }
    }

    #[test]
    fn what_must_be_there_is_described() {
        for label in table::labels() {
            let Some(Body { schema, .. }) = of(label.id) else { continue };
            assert_eq!(schema["type"], "object", "{}", label.id);
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            for name in required {
                let name = name.as_str().unwrap();
                assert!(schema["properties"][name].is_object(), "{} has no {name}", label.id);
            }
        }
    }
}
