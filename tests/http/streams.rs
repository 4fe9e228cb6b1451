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

/// What a cycle over some messages says.
fn step(query: &Value, held: &[Value]) -> Value {
    let last = held.last().unwrap();
    json!({ "query_id": query, "partition_id": last["partitionId"],
        "consumer_group": "__QUEUE_MODE__", "state_ops": [upsert("k", json!(1))],
        "push_items": [{ "queue": "out", "payload": 1 }],
        "ack": { "transactionId": last["transactionId"], "leaseId": last["leaseId"] } })
}

fn attempts(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["retryCount"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_refused_cycle_changes_nothing_and_gives_its_batch_back_at_once() {
    let world = World::new().await;
    // A lease lasts longer than the test may.
    let options = json!({ "leaseTime": 3600, "retryLimit": 100, "retryDelay": 0 });
    world.post("/api/v1/configure", &json!({ "queue": "a", "options": options })).await;
    let query = registered(&world, "h", false).await["query_id"].clone();
    let mut held = leased(&world, "a", 2).await;
    let partition = held[0]["partitionId"].clone();
    for (path, bad, error) in [
        ("/ack/transactionId", json!("never-pushed"), "Message not found"),
        ("/ack/transactionId", json!(null), "ack.transactionId is required"),
        ("/state_ops/0/type", json!("merge"), "Unknown state_op type: merge"),
        ("/query_id", json!("019a0c11-7fe8-7001-9999-0123456789ab"), "Query not found"),
        ("/state_ops/0/key", json!("k".repeat(2000)), "key has 2000 bytes; 1 to 1024 are allowed"),
    ] {
        let mut body = step(&query, &held);
        *body.pointer_mut(path).unwrap() = bad;
        let done = cycle(&world, body).await;
        assert_eq!((&done["success"], &done["error"]), (&json!(false), &json!(error)), "{done}");
        assert_eq!(done["lease_released"], true, "{done}");
        let tried = attempts(&held)[0] + 1;
        held = popped(&world, "a").await;
        assert_eq!(attempts(&held), [tried, tried], "as if the lease had run out: {error}");
    }
    // So does one that is refused by its status.
    let mut body = step(&query, &held);
    body["push_items"][0]["payload"] = json!("x".repeat(5 << 20));
    assert_eq!(world.post("/streams/v1/cycle", &body).await.status, 413);
    held = popped(&world, "a").await;
    assert_eq!(attempts(&held), [6, 6]);
    assert!(popped(&world, "out").await.is_empty());
    assert!(state(&world, &query, &partition, json!({})).await.is_empty());
    assert_eq!(cycle(&world, step(&query, &held)).await["success"], true);
    assert_eq!(popped(&world, "out").await.len(), 1);
}

#[tokio::test]
async fn a_cycle_that_was_too_slow_or_stands_already_takes_no_lease_from_who_has_it_now() {
    let world = World::new().await;
    let query = registered(&world, "h", false).await["query_id"].clone();
    let held = leased(&world, "a", 3).await;
    let mut other = step(&query, &held);
    other["ack"]["leaseId"] = json!("019a0c11-7fe8-7001-9999-0123456789ab");
    let done = cycle(&world, other).await;
    assert_eq!(
        (&done["error"], &done["code"]),
        (&json!("Invalid or expired lease"), &json!("lease_expired"))
    );
    assert_eq!(done["lease_released"], false);
    // A gate settles the first two and keeps the lease of the third.
    let mut gate = step(&query, &held[..2]);
    gate["release_lease"] = json!(false);
    assert_eq!(cycle(&world, gate.clone()).await["ack_result"]["lease_released"], false);
    let again = cycle(&world, gate).await;
    assert_eq!(
        (&again["code"], &again["lease_released"]),
        (&json!("already_settled"), &json!(false))
    );
    assert!(popped(&world, "a").await.is_empty(), "the third is held still");
    assert_eq!(cycle(&world, step(&query, &held)).await["success"], true);
}

#[tokio::test]
async fn a_batch_whose_cycles_are_refused_too_often_becomes_dead_letters() {
    let world = World::new().await;
    let options = json!({ "leaseTime": 3600, "retryLimit": 1, "retryDelay": 0 });
    world.post("/api/v1/configure", &json!({ "queue": "a", "options": options })).await;
    let query = registered(&world, "h", false).await["query_id"].clone();
    let mut held = leased(&world, "a", 2).await;
    for left in [2, 0] {
        let mut body = step(&query, &held);
        body["state_ops"][0]["type"] = json!("merge");
        assert_eq!(cycle(&world, body).await["lease_released"], true);
        held = popped(&world, "a").await;
        assert_eq!(held.len(), left);
    }
    let dead = world.get("/api/v1/dlq?queue=a").await.json();
    let errors: Vec<&Value> =
        dead["messages"].as_array().unwrap().iter().map(|it| &it["errorMessage"]).collect();
    assert_eq!(errors, [&json!("Unknown state_op type: merge"); 2]);
}

#[tokio::test]
async fn a_cycle_whose_sink_is_full_gives_its_batch_back_and_counts_nothing() {
    let world = World::new().await;
    world.post("/api/v1/configure", &json!({ "queue": "out", "options": { "maxSize": 1 } })).await;
    world.push(json!([{ "queue": "out", "payload": 0 }])).await;
    let query = registered(&world, "h", false).await["query_id"].clone();
    let mut held = leased(&world, "a", 2).await;
    for _ in 0..5 {
        let done = cycle(&world, step(&query, &held)).await;
        assert_eq!((&done["code"], &done["lease_released"]), (&json!("queue_full"), &json!(true)));
        held = popped(&world, "a").await;
        assert_eq!(attempts(&held), [0, 0], "it is no fault of theirs");
    }
    let full = popped(&world, "out").await;
    world.post("/api/v1/ack", &crate::transactions::ack(&full[0], "completed")).await;
    assert_eq!(cycle(&world, step(&query, &held)).await["success"], true);
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
