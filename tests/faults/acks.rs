//! Faults of acknowledging and of remembering.

use serde_json::{Value, json};

use crate::client::World;

/// Pops everything that is there for queue mode.
async fn pop(world: &World, queue: &str) -> Value {
    let path = format!("/api/v1/pop/queue/{queue}?batch=100&wait=true&timeout=30000");
    let popped = world.get(&path).await;
    assert_eq!(popped.status, 200);
    popped.json()
}

async fn queue(world: &World, options: Value) {
    let body = json!({ "queue": "q", "options": options });
    assert_eq!(world.post("/api/v1/configure", &body).await.status, 200);
}

/// Acknowledges all messages of a pop, each with its own status.
async fn ack(world: &World, popped: &Value, statuses: &[&str]) -> Value {
    let messages = popped["messages"].as_array().unwrap();
    assert_eq!(messages.len(), statuses.len(), "{popped}");
    let lines = messages.iter().zip(statuses).map(|(message, status)| {
        json!({
            "transactionId": message["transactionId"],
            "partitionId": message["partitionId"],
            "leaseId": message["leaseId"],
            "status": status,
            "error": format!("said of {}", message["data"]),
        })
    });
    let body = json!({ "acknowledgments": lines.collect::<Vec<_>>() });
    world.post("/api/v1/ack/batch", &body).await.json()
}

fn payloads(popped: &Value) -> Vec<Value> {
    popped["messages"].as_array().unwrap().iter().map(|it| it["data"].clone()).collect()
}

async fn dead(world: &World) -> Vec<(Value, Value)> {
    let page = world.get("/api/v1/dlq?queue=q").await.json();
    let letters = page["messages"].as_array().unwrap().iter();
    letters.map(|it| (it["data"].clone(), it["retryCount"].clone())).collect()
}

#[tokio::test]
async fn a3_a_completed_after_a_failed_does_not_pass_it() {
    let world = World::new().await;
    queue(&world, json!({ "retryLimit": 3, "retryDelay": 0 })).await;
    world.push(json!([{ "queue": "q", "payload": 1 }, { "queue": "q", "payload": 2 }])).await;
    let popped = pop(&world, "q").await;
    ack(&world, &popped, &["failed", "completed"]).await;
    let again = pop(&world, "q").await;
    assert_eq!(payloads(&again), [1], "the failed one comes again, the completed one does not");
    assert_eq!(again["messages"][0]["retryCount"], json!(1));
    ack(&world, &again, &["completed"]).await;
    assert_eq!(world.get("/api/v1/pop/queue/q").await.status, 204);
    assert!(dead(&world).await.is_empty());
}

#[tokio::test]
async fn a3_b_the_last_try_of_a_batch_buries_each_message_at_its_own_limit_and_loses_none() {
    let world = World::new().await;
    queue(&world, json!({ "retryLimit": 2, "retryDelay": 0 })).await;
    let items: Vec<Value> = (1..=3).map(|it| json!({ "queue": "q", "payload": it })).collect();
    world.push(json!(items)).await;
    for attempt in 0..2 {
        let popped = pop(&world, "q").await;
        assert_eq!(payloads(&popped), [1, 2, 3], "attempt {attempt}");
        ack(&world, &popped, &["failed"; 3]).await;
        assert!(dead(&world).await.is_empty(), "nobody is buried before its limit");
    }
    let popped = pop(&world, "q").await;
    ack(&world, &popped, &["failed"; 3]).await;
    let mut letters = dead(&world).await;
    letters.sort_by_key(|(data, _)| data.as_u64());
    assert_eq!(letters, [1, 2, 3].map(|it| (json!(it), json!(3))));
    assert_eq!(world.get("/api/v1/pop/queue/q").await.status, 204);
}

#[tokio::test]
async fn a5_attempts_are_counted_for_each_message_and_not_for_its_neighbours() {
    let world = World::new().await;
    queue(&world, json!({ "retryLimit": 1, "retryDelay": 0 })).await;
    world.push(json!([{ "queue": "q", "payload": "poison" }])).await;
    for _ in 0..2 {
        let popped = pop(&world, "q").await;
        ack(&world, &popped, &["failed"]).await;
    }
    assert_eq!(dead(&world).await.len(), 1);
    // The next message of the partition has all of its own attempts.
    world.push(json!([{ "queue": "q", "payload": "next" }])).await;
    let popped = pop(&world, "q").await;
    assert_eq!(popped["messages"][0]["retryCount"], json!(0));
    ack(&world, &popped, &["failed"]).await;
    let again = pop(&world, "q").await;
    assert_eq!(payloads(&again), ["next"]);
    assert_eq!(dead(&world).await.len(), 1, "its first failure buries nobody");
}

#[tokio::test]
async fn a12_an_id_is_remembered_longer_than_its_message() {
    let world = World::with(|settings| settings.store.retention_interval_ms = 50).await;
    queue(&world, json!({ "retentionEnabled": true, "completedRetentionSeconds": 1 })).await;
    let item = json!([{ "queue": "q", "payload": 1, "transactionId": "once" }]);
    let first = world.push(item.clone()).await.json();
    let popped = pop(&world, "q").await;
    ack(&world, &popped, &["completed"]).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let queue = world.get("/api/v1/resources/queues/q").await.json();
        if queue["totals"]["total"] == json!(0) || queue["messages"]["total"] == json!(0) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "retention takes it: {queue}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let late = world.push(item).await.json();
    assert_eq!(late["messages"][0]["status"], "duplicate", "{late}");
    assert_eq!(late["messages"][0]["id"], first["messages"][0]["id"]);
    assert_eq!(world.get("/api/v1/pop/queue/q").await.status, 204);
}
