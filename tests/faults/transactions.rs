//! Transactions and cycles of queries.

use serde_json::{Value, json};

use crate::client::World;

async fn leased(world: &World, count: usize) -> Vec<Value> {
    world.push((0..count).map(|at| json!({ "queue": "a", "payload": at })).collect()).await;
    popped(world, "a", "").await
}

async fn popped(world: &World, queue: &str, more: &str) -> Vec<Value> {
    let answer = world.get(&format!("/api/v1/pop/queue/{queue}?batch=100{more}")).await;
    match answer.status {
        204 => Vec::new(),
        _ => answer.json()["messages"].as_array().unwrap().clone(),
    }
}

fn ack(message: &Value, status: &str) -> Value {
    json!({ "type": "ack", "transactionId": message["transactionId"], "status": status,
            "partitionId": message["partitionId"], "leaseId": message["leaseId"], "error": "boom" })
}

async fn commit(world: &World, body: Value) -> Value {
    let answer = world.post("/queen/api/v1/transaction", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a15_a_lease_that_a_transaction_requires_must_live() {
    let world = World::new().await;
    let held = leased(&world, 1).await;
    let push = json!({ "type": "push", "queue": "b", "payload": 1 });
    let body = json!({ "operations": [push], "requiredLeases": [held[0]["leaseId"]] });
    assert_eq!(commit(&world, body.clone()).await["success"], true);
    world.post("/api/v1/ack", &ack(&held[0], "completed")).await;
    let refused = commit(&world, body).await;
    assert_eq!(refused["success"], false, "{refused}");
    assert_eq!(popped(&world, "b", "").await.len(), 1, "only the first one's push");
}

#[tokio::test]
async fn a15_a_failure_in_a_transaction_is_tried_again_up_to_the_limit() {
    let world = World::new().await;
    let configure = json!({ "queue": "a", "options": { "retryLimit": 1, "retryDelay": 0 } });
    world.post("/api/v1/configure", &configure).await;
    let held = leased(&world, 1).await;
    let body = |held: &[Value]| json!({ "operations": [ack(&held[0], "failed")] });
    let first = commit(&world, body(&held)).await;
    assert_eq!(first["results"][0]["dlq"], false, "{first}");
    let again = popped(&world, "a", "&wait=true&timeout=30000").await;
    assert_eq!(again[0]["retryCount"], 1);
    let second = commit(&world, body(&again)).await;
    assert_eq!(second["results"][0]["dlq"], true, "{second}");
    let dead = world.get("/api/v1/dlq?queue=a").await.json();
    assert_eq!(dead["messages"][0]["errorMessage"], "boom");
}

#[tokio::test]
async fn a15_a_duplicate_does_not_fail_the_transaction() {
    let world = World::new().await;
    let push = json!({ "type": "push", "queue": "b", "payload": 1, "transactionId": "x" });
    let first = commit(&world, json!({ "operations": [push] })).await;
    let other = json!({ "type": "push", "queue": "b", "payload": 2 });
    let second = commit(&world, json!({ "operations": [push, other] })).await;
    assert_eq!(second["success"], true);
    assert_eq!(second["results"][0]["status"], "duplicate");
    assert_eq!(second["results"][0]["messageId"], first["results"][0]["messageId"]);
    assert_eq!(popped(&world, "b", "").await.len(), 2);
}

async fn registered(world: &World, reset: bool) -> Value {
    let body = json!({ "name": "n", "source_queue": "a", "config_hash": "h", "reset": reset });
    world.post("/streams/v1/queries", &body).await.json()
}

fn cycle(query: &Value, message: &Value, status: &str) -> Value {
    json!({ "query_id": query, "partition_id": message["partitionId"],
        "consumer_group": "__QUEUE_MODE__",
        "state_ops": [{ "type": "upsert", "key": "k", "value": { "n": 1 } }],
        "ack": { "transactionId": message["transactionId"], "leaseId": message["leaseId"],
                 "status": status, "error": "boom" } })
}

#[tokio::test]
async fn a16_a_cycle_that_fails_gives_its_batch_back_at_once() {
    let world = World::new().await;
    let configure = json!({ "queue": "a", "options": { "retryLimit": 1, "retryDelay": 0 } });
    world.post("/api/v1/configure", &configure).await;
    let query = registered(&world, false).await["query_id"].clone();
    let held = leased(&world, 2).await;
    let failed = world.post("/streams/v1/cycle", &cycle(&query, &held[1], "failed")).await.json();
    assert_eq!(
        (&failed["success"], &failed["ack_result"]["lease_released"]),
        (&json!(true), &json!(true)),
        "{failed}"
    );
    // No lease of five minutes has to run out first.
    let again = popped(&world, "a", "&wait=true&timeout=30000").await;
    assert_eq!(again[0]["data"], json!(0), "{again:?}");
    let last = again.iter().find(|it| it["data"] == json!(1)).unwrap_or(&again[0]);
    let buried = world.post("/streams/v1/cycle", &cycle(&query, last, "dlq")).await.json();
    assert_eq!(buried["ack_result"]["dlq"], true, "{buried}");
}

#[tokio::test]
async fn a16_reset_takes_the_state_though_the_hash_is_the_same() {
    let world = World::new().await;
    let query = registered(&world, false).await["query_id"].clone();
    let held = leased(&world, 1).await;
    let done = world.post("/streams/v1/cycle", &cycle(&query, &held[0], "completed")).await.json();
    assert_eq!(done["success"], true, "{done}");
    let ask = json!({ "query_id": query, "partition_id": held[0]["partitionId"], "keys": [] });
    let rows = |answer: Value| answer["rows"].as_array().unwrap().len();
    assert_eq!(rows(world.post("/streams/v1/state/get", &ask).await.json()), 1);
    assert_eq!(registered(&world, false).await["reset"], false);
    assert_eq!(rows(world.post("/streams/v1/state/get", &ask).await.json()), 1);
    assert_eq!(registered(&world, true).await["reset"], true);
    assert_eq!(rows(world.post("/streams/v1/state/get", &ask).await.json()), 0);
    let world = world.restart().await;
    assert_eq!(rows(world.post("/streams/v1/state/get", &ask).await.json()), 0);
}
