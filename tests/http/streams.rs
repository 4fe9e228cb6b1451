//! Queries over queues: registration, state keys, cycles.

use serde_json::{Value, json};

use crate::client::World;
use crate::transactions::{leased, payloads, popped};

async fn registered(world: &World, hash: &str, reset: bool) -> Value {
    let body = json!({ "name": "sums", "source_queue": "a", "sink_queue": "out",
        "config_hash": hash, "reset": reset });
    world.post("/streams/v1/queries", &body).await.json()
}

async fn cycle(world: &World, body: Value) -> Value {
    let answer = world.post("/streams/v1/cycle", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The rows of a query's state as keys and values.
async fn state(
    world: &World,
    query: &Value,
    partition: &Value,
    more: Value,
) -> Vec<(String, Value)> {
    let mut body = json!({ "query_id": query, "partition_id": partition, "keys": [] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = world.post("/streams/v1/state/get", &body).await.json();
    assert_eq!(answer["success"], true, "{answer}");
    let rows = answer["rows"].as_array().unwrap().iter();
    rows.map(|row| (row["key"].as_str().unwrap().to_owned(), row["value"].clone())).collect()
}

fn upsert(key: &str, value: Value) -> Value {
    json!({ "type": "upsert", "key": key, "value": value })
}

#[tokio::test]
async fn a_query_is_registered_once_and_tells_another_chain_of_operators_from_its_own() {
    let world = World::new().await;
    let fresh = registered(&world, "h1", false).await;
    assert_eq!((&fresh["fresh"], &fresh["reset"]), (&json!(true), &json!(false)), "{fresh}");
    let known = registered(&world, "h1", false).await;
    assert_eq!((&known["fresh"], &known["query_id"]), (&json!(false), &fresh["query_id"]));
    let body = json!({ "name": "sums", "source_queue": "a", "config_hash": "h2" });
    let changed = world.post("/streams/v1/queries", &body).await;
    assert_eq!(changed.status, 409);
    let changed = changed.json();
    assert_eq!((&changed["success"], &changed["query_id"]), (&json!(false), &fresh["query_id"]));
    assert!(changed["error"].as_str().unwrap().starts_with("config_hash mismatch"), "{changed}");
    let reset = registered(&world, "h2", true).await;
    assert_eq!((&reset["reset"], &reset["fresh"]), (&json!(true), &json!(false)));
    assert_eq!(reset["query_id"], fresh["query_id"]);
    assert_eq!(reset["config_hash"], "h2");
}

#[tokio::test]
async fn a_cycle_moves_state_sink_and_cursor_on_together_and_survives_a_restart() {
    let world = World::new().await;
    let query = registered(&world, "h", false).await["query_id"].clone();
    let held = leased(&world, "a", 3).await;
    let partition = held[0]["partitionId"].clone();
    let done = cycle(
        &world,
        json!({
        "query_id": query, "partition_id": partition, "consumer_group": "__QUEUE_MODE__",
        "state_ops": [upsert("w\u{1f}2", json!({ "n": 2, "windowEnd": 200 })),
                      upsert("w\u{1f}1", json!({ "n": 1, "windowEnd": 100 })),
                      upsert("__wm__", json!({ "eventTimeMs": 7 }))],
        "push_items": [{ "queue": "out", "partition": "p", "payload": { "sum": 3 } }],
        "ack": { "transactionId": held[2]["transactionId"], "leaseId": held[2]["leaseId"],
                 "status": "completed", "count": 3 } }),
    )
    .await;
    assert_eq!(done["success"], true, "{done}");
    assert_eq!(
        done["ack_result"],
        json!({ "success": true, "count": 3, "lease_released": true, "dlq": false })
    );
    assert_eq!((&done["state_ops_applied"], &done["queueName"]), (&json!(3), &json!("a")));
    assert_eq!(done["push_results"][0]["status"], "queued");
    let world = world.restart().await;
    assert!(popped(&world, "a").await.is_empty(), "all three are settled");
    assert_eq!(payloads(&popped(&world, "out").await), [&json!({ "sum": 3 })]);
    let all = state(&world, &query, &partition, json!({})).await;
    let keys: Vec<&str> = all.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["__wm__", "w\u{1f}1", "w\u{1f}2"], "in the order of keys");
    let windows = state(&world, &query, &partition, json!({ "key_prefix": "w\u{1f}" })).await;
    assert_eq!(windows.len(), 2);
    let ripe = state(&world, &query, &partition, json!({ "ripe_at_or_before": 100 })).await;
    assert_eq!(ripe, [("w\u{1f}1".to_owned(), json!({ "n": 1, "windowEnd": 100 }))]);
    let named = json!({ "keys": ["__wm__", "nothing"] });
    assert_eq!(state(&world, &query, &partition, named).await.len(), 1);
    // A flush of what is ripe holds no lease and needs none.
    let flush = cycle(
        &world,
        json!({ "query_id": query, "partition_id": partition,
        "state_ops": [{ "type": "delete", "key": "w\u{1f}1" }], "ack": null,
        "push_items": [{ "queue": "out", "payload": "flushed" }] }),
    )
    .await;
    assert_eq!((&flush["success"], &flush["ack_result"]), (&json!(true), &json!(null)));
    let left = state(&world, &query, &partition, json!({ "key_prefix": "w\u{1f}" })).await;
    assert_eq!(left.len(), 1);
    let other = world.push(json!([{ "queue": "a", "partition": "other", "payload": 1 }])).await;
    let other = other.json()["messages"][0]["partition_id"].clone();
    assert!(state(&world, &query, &other, json!({})).await.is_empty(), "partitions are apart");
}

#[tokio::test]
async fn a_refused_cycle_changes_nothing() {
    let world = World::new().await;
    let query = registered(&world, "h", false).await["query_id"].clone();
    let held = leased(&world, "a", 2).await;
    let partition = held[0]["partitionId"].clone();
    let base = json!({ "query_id": query, "partition_id": partition,
        "consumer_group": "__QUEUE_MODE__", "state_ops": [upsert("k", json!(1))],
        "push_items": [{ "queue": "out", "payload": 1 }],
        "ack": { "transactionId": held[1]["transactionId"], "leaseId": held[1]["leaseId"] } });
    for (path, bad, error) in [
        ("/ack/leaseId", json!("019a0c11-7fe8-7001-9999-0123456789ab"), "Invalid or expired lease"),
        ("/ack/transactionId", json!("never-pushed"), "Message not found"),
        ("/ack/transactionId", json!(null), "ack.transactionId is required"),
        ("/state_ops/0/type", json!("merge"), "Unknown state_op type: merge"),
        ("/query_id", json!("019a0c11-7fe8-7001-9999-0123456789ab"), "Query not found"),
        ("/state_ops/0/key", json!("k".repeat(2000)), "key has 2000 bytes; 1 to 1024 are allowed"),
    ] {
        let mut body = base.clone();
        *body.pointer_mut(path).unwrap() = bad;
        let done = cycle(&world, body).await;
        assert_eq!((&done["success"], &done["error"]), (&json!(false), &json!(error)), "{done}");
    }
    assert!(popped(&world, "out").await.is_empty());
    assert!(state(&world, &query, &partition, json!({})).await.is_empty());
    assert_eq!(cycle(&world, base).await["success"], true);
}

#[tokio::test]
async fn more_named_keys_than_one_page_holds_are_answered_together() {
    let world = World::new().await;
    let query = registered(&world, "h", false).await["query_id"].clone();
    let held = leased(&world, "a", 1).await;
    let partition = held[0]["partitionId"].clone();
    let keys: Vec<String> = (0..6).map(|at| format!("k{at}")).collect();
    for key in &keys {
        let large = "x".repeat(1_000_000);
        let done = cycle(
            &world,
            json!({ "query_id": query, "partition_id": partition,
                    "consumer_group": "__QUEUE_MODE__", "state_ops": [upsert(key, json!(large))] }),
        )
        .await;
        assert_eq!(done["success"], true, "{done}");
    }
    let found = state(&world, &query, &partition, json!({ "keys": keys })).await;
    let found: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, keys);
}
