//! Transactions: acks and pushes that stand or fall as a whole.

use serde_json::{Value, json};

use crate::client::World;

/// Pushes messages and pops them all.
pub(crate) async fn leased(world: &World, queue: &str, count: usize) -> Vec<Value> {
    let item = |at: usize| json!({ "queue": queue, "payload": at, "transactionId": format!("{queue}{at}") });
    world.push((0..count).map(item).collect()).await;
    popped(world, queue).await
}

/// What can be had of a queue now.
pub(crate) async fn popped(world: &World, queue: &str) -> Vec<Value> {
    let answer = world.get(&format!("/api/v1/pop/queue/{queue}?batch=100&partitions=100")).await;
    match answer.status {
        204 => Vec::new(),
        _ => answer.json()["messages"].as_array().unwrap().clone(),
    }
}

pub(crate) fn payloads(messages: &[Value]) -> Vec<&Value> {
    messages.iter().map(|message| &message["data"]).collect()
}

pub(crate) fn ack(message: &Value, status: &str) -> Value {
    json!({ "type": "ack", "transactionId": message["transactionId"], "status": status,
            "partitionId": message["partitionId"], "leaseId": message["leaseId"] })
}

async fn commit(world: &World, operations: Value, leases: Value) -> Value {
    let body = json!({ "operations": operations, "requiredLeases": leases });
    let answer = world.post("/queen/api/v1/transaction", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn acks_and_pushes_over_queues_stand_together_and_are_answered_in_order() {
    let world = World::new().await;
    let held = leased(&world, "a", 2).await;
    let operations = json!([
        { "type": "push", "items": [{ "queue": "b", "payload": 1 }, { "queue": "c", "payload": 2, "partition": "p" }] },
        ack(&held[0], "completed"),
        { "type": "push", "queue": "b", "data": 3 },
        ack(&held[1], "completed"),
    ]);
    let done = commit(&world, operations, json!([held[0]["leaseId"]])).await;
    assert_eq!(done["success"], true, "{done}");
    assert!(uuid::Uuid::parse_str(done["transactionId"].as_str().unwrap()).is_ok());
    let results = done["results"].as_array().unwrap();
    let kinds: Vec<&str> = results.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["push", "push", "ack", "push", "ack"]);
    for (index, result) in results.iter().enumerate() {
        assert_eq!((&result["index"], &result["success"]), (&json!(index), &json!(true)));
    }
    assert_eq!(
        results[2],
        json!({ "index": 2, "type": "ack", "success": true,
        "transactionId": "a0", "error": null, "dlq": false })
    );
    assert_eq!(results[1]["queueName"], "c");
    let (b, c) = (popped(&world, "b").await, popped(&world, "c").await);
    assert_eq!((payloads(&b), payloads(&c)), (vec![&json!(1), &json!(3)], vec![&json!(2)]));
    assert_eq!(results[3]["messageId"], b[1]["id"]);
    assert_eq!(results[3]["transactionId"], b[1]["transactionId"]);
    assert_eq!(results[1]["partitionId"], c[0]["partitionId"]);
    // Both messages are settled, so the lease is gone with them.
    assert!(popped(&world, "a").await.is_empty());
}

#[tokio::test]
async fn one_refused_part_leaves_nothing_of_the_others() {
    let world = World::new().await;
    let held = leased(&world, "a", 2).await;
    let mut unknown = ack(&held[1], "completed");
    unknown["transactionId"] = json!("never-pushed");
    let mut stale = ack(&held[1], "completed");
    stale["leaseId"] = json!("019a0c11-7fe8-7001-9999-0123456789ab");
    let mut odd = ack(&held[1], "completed");
    odd["status"] = json!("perhaps");
    for (bad, text, code) in [
        (unknown, "ACK operation failed: Message not found", "message_not_found"),
        (stale, "ACK operation failed: Invalid or expired lease", "lease_expired"),
        (odd, "ACK operation failed: status must be completed, failed, retry or dlq", "bad_value"),
    ] {
        let push = json!({ "type": "push", "items": [{ "queue": "b", "payload": 1 }] });
        let done = commit(&world, json!([ack(&held[0], "completed"), push, bad]), json!([])).await;
        assert_eq!((&done["success"], &done["code"]), (&json!(false), &json!(code)), "{done}");
        assert_eq!(done["error"], text);
        let results = done["results"].as_array().unwrap();
        assert!(results.iter().all(|it| it["success"] == false), "{done}");
        assert_eq!((&results[0]["error"], &results[2]["error"]), (&json!(null), &json!(text)));
    }
    assert!(popped(&world, "b").await.is_empty());
    // The lease still holds both, so both can still be acknowledged.
    let both = json!([ack(&held[0], "completed"), ack(&held[1], "completed")]);
    assert_eq!(commit(&world, both, json!([])).await["success"], true);
}

#[tokio::test]
async fn a_required_lease_that_is_gone_fails_the_whole() {
    let world = World::new().await;
    let held = leased(&world, "a", 1).await;
    world.post("/api/v1/ack", &ack(&held[0], "completed")).await;
    let push = json!([{ "type": "push", "queue": "b", "payload": 1 }]);
    for lease in [held[0]["leaseId"].clone(), json!("never a lease")] {
        let done = commit(&world, push.clone(), json!([lease])).await;
        assert_eq!(done["success"], false);
        assert!(done["error"].as_str().unwrap().starts_with("Invalid or expired lease"), "{done}");
    }
    assert!(popped(&world, "b").await.is_empty());
}

#[tokio::test]
async fn a_duplicate_is_reported_or_fails_the_whole_as_asked() {
    let world = World::new().await;
    let first = world.push(json!([{ "queue": "b", "payload": 1, "transactionId": "x" }])).await;
    let first = first.json()["messages"][0]["message_id"].clone();
    let operations = json!([{ "type": "push", "items": [
        { "queue": "b", "payload": 2, "transactionId": "x" },
        { "queue": "b", "payload": 3, "transactionId": "y" },
    ]}]);
    let failing = json!({ "operations": operations, "onDuplicate": "fail" });
    let done = world.post("/api/v1/transaction", &failing).await.json();
    assert_eq!((&done["success"], &done["code"]), (&json!(false), &json!("duplicate_message")));
    assert_eq!(done["results"][0]["error"], done["error"]);
    let done = commit(&world, operations, json!([])).await;
    let results = &done["results"];
    assert_eq!((&results[0]["status"], &results[0]["messageId"]), (&json!("duplicate"), &first));
    assert_eq!((&results[1]["status"], &results[1]["success"]), (&json!("queued"), &json!(true)));
    let got = popped(&world, "b").await;
    assert_eq!(payloads(&got), [&json!(1), &json!(3)]);
}

#[tokio::test]
async fn what_was_buffered_before_a_transaction_stands_before_it() {
    let world = World::new().await;
    let buffered = json!({ "bufferMs": 60000, "items": [{ "queue": "b", "payload": "before" }] });
    assert_eq!(world.post("/api/v1/push", &buffered).await.status, 201);
    let push = json!([{ "type": "push", "queue": "b", "payload": "after" }]);
    assert_eq!(commit(&world, push, json!([])).await["success"], true);
    let got = popped(&world, "b").await;
    assert_eq!(payloads(&got), [&json!("before"), &json!("after")]);
}

#[tokio::test]
async fn a_transaction_that_is_sent_again_after_it_stood_is_refused() {
    let world = World::new().await;
    let held = leased(&world, "a", 2).await;
    // One message is enough: the lease goes on with the other.
    let whole = json!([ack(&held[0], "completed"), { "type": "push", "queue": "b", "payload": 1 }]);
    assert_eq!(commit(&world, whole.clone(), json!([])).await["success"], true);
    let again = commit(&world, whole, json!([held[0]["leaseId"]])).await;
    assert_eq!((&again["success"], &again["code"]), (&json!(false), &json!("already_settled")));
    assert_eq!(popped(&world, "b").await.len(), 1);
}

#[tokio::test]
async fn bodies_that_are_no_transaction_are_refused_whole() {
    let world = World::new().await;
    for (body, text) in [
        (json!({}), "operations array required"),
        (json!({ "operations": [] }), "operations array cannot be empty"),
    ] {
        let (status, error, _) = world.post("/api/v1/transaction", &body).await.error();
        assert_eq!((status, error.as_str()), (400, text));
    }
    let large = "x".repeat(5 << 20);
    let body = json!({ "operations": [{ "type": "push", "queue": "b", "payload": large }] });
    assert_eq!(world.post("/api/v1/transaction", &body).await.status, 413);
    assert!(popped(&world, "b").await.is_empty());
}

#[tokio::test]
async fn while_pushes_are_held_back_a_transaction_that_pushes_is_refused_as_retryable() {
    let world = World::new().await;
    let held = leased(&world, "a", 1).await;
    world.post("/api/v1/system/maintenance", &json!({ "enabled": true })).await;
    let body = json!({ "operations": [ack(&held[0], "completed"),
        { "type": "push", "queue": "b", "payload": 1 }] });
    let refused = world.post("/api/v1/transaction", &body).await;
    let has_failover = !crate::client::store::is_embedded();
    if has_failover {
        assert_eq!((refused.status, &refused.json()["retryable"]), (503, &json!(true)));
    }
    world.post("/api/v1/system/maintenance", &json!({ "enabled": false })).await;
    if has_failover {
        let done = world.post("/api/v1/transaction", &body).await.json();
        assert_eq!(done["success"], true, "{done}");
    }
}

#[tokio::test]
async fn a_transaction_into_a_full_queue_is_refused_whole_and_goes_through_when_there_is_room() {
    let world = World::new().await;
    let body = json!({ "queue": "b", "options": { "maxSize": 3 } });
    assert_eq!(world.post("/api/v1/configure", &body).await.status, 200);
    let held = leased(&world, "a", 1).await;
    world.push(json!([{ "queue": "b", "payload": 1 }, { "queue": "b", "payload": 2 }])).await;
    let push = |payload: u64| json!({ "type": "push", "queue": "b", "partition": "p", "payload": payload });
    let both = json!({ "operations": [ack(&held[0], "completed"), push(3), push(4)] });
    let refused = world.post("/api/v1/transaction", &both).await.json();
    assert_eq!((&refused["success"], &refused["code"]), (&json!(false), &json!("queue_full")));
    assert!(refused["results"][1]["error"].as_str().unwrap().contains("maxSize"), "{refused}");
    let first = popped(&world, "b").await;
    assert_eq!(payloads(&first), [&json!(1), &json!(2)], "nothing of it is there");
    // One of them has room; and with what is done, both.
    let one = json!({ "operations": [push(5)] });
    assert_eq!(world.post("/api/v1/transaction", &one).await.json()["success"], true);
    assert_eq!(world.post("/api/v1/transaction", &one).await.json()["code"], "queue_full");
    // A transaction that makes room itself makes it for what comes after it.
    for message in &first {
        world.post("/api/v1/ack", &ack(message, "completed")).await;
    }
    let done = world.post("/api/v1/transaction", &both).await.json();
    assert_eq!(done["success"], true, "{done}");
    assert_eq!(payloads(&popped(&world, "b").await), [&json!(5), &json!(3), &json!(4)]);
}

#[tokio::test]
async fn what_a_transaction_or_a_cycle_pushes_has_the_trace_context_of_its_request() {
    const OWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const WHOLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let world = World::new().await;
    let header = format!("traceparent: {WHOLE}\r\n");
    let contexts = |messages: &[Value]| -> Vec<Value> {
        messages.iter().map(|it| it["traceparent"].clone()).collect()
    };
    for base in ["", "/queen"] {
        let body = json!({ "operations": [{ "type": "push", "items": [
            { "queue": "b", "payload": 1 }, { "queue": "b", "payload": 2, "traceparent": OWN }] }] });
        let path = format!("{base}/api/v1/transaction");
        let mut wire = world.connect().await;
        let done = wire.ask_with("POST", &path, &header, &body.to_string()).await;
        assert_eq!(done.json()["success"], true);
        let odd = wire.ask_with("POST", &path, "traceparent: odd\r\n", &body.to_string()).await;
        assert_eq!(odd.json()["success"], true, "one that is none is overlooked");
        let seen = popped(&world, "b").await;
        assert_eq!(contexts(&seen), [json!(WHOLE), json!(OWN), json!(null), json!(OWN)]);
        for message in &seen {
            world.post("/api/v1/ack", &ack(message, "completed")).await;
        }
    }
    let query = json!({ "name": "n", "source_queue": "a", "config_hash": "h" });
    let query = world.post("/streams/v1/queries", &query).await.json()["query_id"].clone();
    let held = leased(&world, "a", 1).await;
    let cycle = json!({ "query_id": query, "partition_id": held[0]["partitionId"], "ack": null,
        "push_items": [{ "queue": "sink", "payload": 1 }] });
    let mut wire = world.connect().await;
    let done = wire.ask_with("POST", "/streams/v1/cycle", &header, &cycle.to_string()).await;
    assert_eq!(done.json()["success"], true, "{done:?}");
    assert_eq!(contexts(&popped(&world, "sink").await), [json!(WHOLE)]);
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_blamed_on_the_push_that_names_it() {
    let world = World::with(|settings| settings.server.auto_create_queues = false).await;
    assert_eq!(world.post("/api/v1/configure", &json!({ "queue": "known" })).await.status, 200);
    for labels in [json!({}), json!({ "namespace": "n" })] {
        let mut unknown = json!({ "queue": "unknown", "payload": 2 });
        unknown.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
        let items = json!([{ "queue": "known", "payload": 1 }, unknown]);
        let operations = json!([{ "type": "push", "items": items }]);
        let done = commit(&world, operations, json!([])).await;
        assert_eq!((&done["success"], &done["code"]), (&json!(false), &json!("queue_not_found")));
        let error = "PUSH operation failed: Queue 'unknown' does not exist";
        let (first, second) = (&done["results"][0], &done["results"][1]);
        assert_eq!((&first["error"], &second["error"]), (&Value::Null, &json!(error)), "{done}");
    }
}
