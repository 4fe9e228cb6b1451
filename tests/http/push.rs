//! Pushes, in the shapes of both contracts.

use serde_json::{Value, json};

use crate::client::World;
use crate::client::store;

fn is_uuid_v7(id: &Value) -> bool {
    let id = id.as_str().unwrap_or_default();
    uuid::Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7)
}

#[tokio::test]
async fn a_push_is_answered_in_the_shape_of_the_contract() {
    let world = World::new().await;
    let trace = "019a0c11-7fe8-7001-9999-0123456789ab";
    let items = json!([
        { "queue": "orders", "partition": "customer-123",
          "payload": { "orderId": "O-12345", "amount": 99.99 } },
        { "queue": "orders", "payload": 1, "transactionId": "custom", "traceId": trace },
    ]);
    let answer = world.push(items).await;
    assert_eq!(answer.status, 201);
    let json = answer.json();
    assert_eq!(json["pushed"], json!(true));
    assert_eq!(json["qos0"], json!(false));
    assert_eq!(json["dbHealthy"], json!(true));
    let messages = json["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0]["status"], "pushed");
    assert!(is_uuid_v7(&messages[0]["message_id"]), "{json}");
    // Where the store may be away, the transaction id is fixed before the first attempt.
    let is_its_own = messages[0]["transaction_id"] == messages[0]["message_id"];
    assert_eq!(is_its_own, store::is_embedded(), "{json}");
    assert_eq!((&messages[0]["trace_id"], &messages[0]["sequence"]), (&Value::Null, &json!(0)));
    assert_eq!(messages[1]["transaction_id"], "custom");
    assert_eq!(messages[1]["trace_id"], trace);
    assert_ne!(messages[0]["partition_id"], messages[1]["partition_id"]);
}

#[tokio::test]
async fn a_buffered_push_is_answered_word_for_word_and_flushed() {
    let world = World::new().await;
    let body = json!({ "items": [{ "queue": "events", "payload": { "type": "login" } }],
                       "bufferMs": 1, "bufferMax": 100 });
    let answer = world.post("/api/v1/push", &body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.text(),
        r#"{"pushed":true,"qos0":true,"dbHealthy":true,"messages":[{"transaction_id":"buffered","status":"buffered"}]}"#
    );
    let popped = world.get("/api/v1/pop/queue/events?wait=true&timeout=30000").await.json();
    assert_eq!(popped["messages"][0]["data"], json!({ "type": "login" }));
    let figures = world.get("/metrics").await.json();
    assert_eq!(figures["file_buffer"], json!({ "pending": 0, "flushed": 1, "failed": 0 }));
}

#[tokio::test]
async fn a_transaction_id_is_pushed_once_and_then_a_duplicate_of_the_first() {
    let world = World::new().await;
    let item =
        |payload: u32| json!({ "queue": "q", "transactionId": "tx-123", "payload": payload });
    let first = world.push(json!([item(1), item(2)])).await.json();
    let statuses = [&first["messages"][0]["status"], &first["messages"][1]["status"]];
    assert_eq!(statuses, ["pushed", "duplicate"], "the first one of a request wins");
    let again = world.push(json!([item(3)])).await;
    assert_eq!(again.status, 201);
    let again = again.json();
    assert_eq!(again["pushed"], json!(true));
    assert_eq!(again["messages"][0]["transaction_id"], "tx-123");
    assert_eq!(again["messages"][0]["status"], "duplicate");
    assert_eq!(again["messages"][0]["message_id"], first["messages"][0]["message_id"]);
    let popped = world.get("/api/v1/pop/queue/q?batch=10").await.json();
    assert_eq!(popped["messages"].as_array().unwrap().len(), 1);
    assert_eq!(popped["messages"][0]["data"], json!(1));
}

#[tokio::test]
async fn of_concurrent_pushes_of_one_id_exactly_one_is_stored() {
    let world = std::sync::Arc::new(World::new().await);
    let mut pushes = tokio::task::JoinSet::new();
    for payload in 0..20 {
        let world = std::sync::Arc::clone(&world);
        pushes.spawn(async move {
            let item = json!({ "queue": "q", "transactionId": "same", "payload": payload });
            world.push(json!([item])).await.json()["messages"][0].clone()
        });
    }
    let messages = pushes.join_all().await;
    let stored: Vec<&Value> = messages.iter().filter(|it| it["status"] == "pushed").collect();
    assert_eq!(stored.len(), 1, "{messages:?}");
    assert!(messages.iter().all(|it| it["message_id"] == stored[0]["message_id"]));
}

#[tokio::test]
async fn under_queen_the_answer_is_an_array_as_its_clients_expect() {
    let world = World::new().await;
    let items = json!({ "items": [
        { "queue": "a.b.c", "payload": null, "transactionId": "t1", "producerSub": "me" },
        { "queue": "a.b.c", "payload": 2, "transactionId": "t1" },
        { "queue": "other", "payload": 3, "transactionId": "t3" },
    ]});
    let answer = world.post("/queen/api/v1/push", &items).await;
    assert_eq!(answer.status, 201);
    let json = answer.json();
    let first = &json[0];
    assert_eq!(first["index"], json!(0));
    assert_eq!((&first["status"], &first["queueName"]), (&json!("queued"), &json!("a.b.c")));
    assert!(is_uuid_v7(&first["message_id"]) && first["partition_id"].is_string());
    let duplicate = json!({ "index": 1, "transaction_id": "t1", "status": "duplicate",
                            "message_id": first["message_id"], "queueName": "a.b.c" });
    assert_eq!(json[1], duplicate);
    assert_eq!(json[2]["status"], "queued");
    let empty = world.post("/queen/api/v1/push", &json!({ "items": [] })).await;
    assert_eq!((empty.status, empty.text()), (201, "[]"));
    let queue = world.get("/api/v1/resources/queues/a.b.c").await.json();
    assert_eq!((&queue["namespace"], &queue["task"]), (&json!("a"), &json!("b")));
}

#[tokio::test]
async fn the_root_speaks_queen_when_it_is_told_to() {
    let world = World::with(|settings| {
        settings.http.dialect = onrush::config::Dialect::Queen;
    })
    .await;
    assert_eq!(world.push(json!([{ "queue": "q" }])).await.json()[0]["status"], "queued");
}

#[tokio::test]
async fn labels_of_an_item_are_those_of_the_queue_that_it_makes() {
    let world = World::new().await;
    let item = json!({ "queue": "orders", "namespace": "billing", "task": "process-order" });
    world.push(json!([item])).await;
    let later = json!({ "queue": "orders", "namespace": "other" });
    world.push(json!([later])).await;
    let queue = world.get("/api/v1/resources/queues/orders").await.json();
    assert_eq!(queue["namespace"], "billing", "a queue that exists keeps its labels");
    assert_eq!(queue["task"], "process-order");
    assert_eq!(queue["messages"]["total"], json!(2));
}

#[tokio::test]
async fn an_unknown_queue_is_refused_in_the_words_of_the_contract_when_none_is_made() {
    let world = World::with(|settings| settings.server.auto_create_queues = false).await;
    let answer = world.push(json!([{ "queue": "unknown-queue", "payload": 1 }])).await;
    let (status, error, code) = answer.error();
    assert_eq!(status, 404);
    assert_eq!(error, "Queue 'unknown-queue' does not exist");
    assert_eq!(code, "queue_not_found");
    let json = answer.json();
    assert_eq!((&json["pushed"], &json["retryable"]), (&json!(false), &json!(false)));
    assert_eq!(json["messages"][0]["status"], "failed");
    let under_queen = json!({ "items": [{ "queue": "unknown-queue" }] });
    let answer = world.post("/queen/api/v1/push", &under_queen).await;
    assert_eq!(answer.error().1, "Queue 'unknown-queue' does not exist");
}

#[tokio::test]
async fn one_items_failure_is_not_anothers() {
    let world = World::with(|settings| settings.wire.message_bytes_max = 1024).await;
    let large = "x".repeat(2000);
    let items = json!([{ "queue": "q", "payload": 1 }, { "queue": "q", "payload": large },
                       { "queue": "q", "payload": 3 }]);
    let answer = world.push(items).await;
    assert_eq!(answer.status, 201, "two are stored");
    let json = answer.json();
    assert_eq!(json["pushed"], json!(false), "and one is not");
    let failed = &json["messages"][1];
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"], "Payload exceeds maximum size");
    assert_eq!(failed["code"], "message_too_large");
    assert_eq!(json["messages"][2]["sequence"], json!(1));
    let alone = world.push(json!([{ "queue": "q", "payload": large }])).await;
    assert_eq!(alone.status, 413);
    assert_eq!(alone.error().1, "Payload exceeds maximum size");
}

#[tokio::test]
async fn a_bulk_push_is_split_and_answered_in_request_order() {
    let world = World::new().await;
    let filler = "y".repeat(4000);
    let item = |index: usize| {
        let partition = format!("p{}", index % 3);
        json!({ "queue": "bulk", "partition": partition, "payload": { "n": index, "f": filler },
                "transactionId": format!("t{index}") })
    };
    let items: Vec<Value> = (0..3000).map(item).collect();
    let json = world.push(Value::Array(items)).await.json();
    let messages = json["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 3000);
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(message["transaction_id"], format!("t{index}"));
        assert_eq!(message["status"], "pushed");
        assert_eq!(message["sequence"], json!(index / 3), "its partition's order is the request's");
    }
    let one = world.get("/api/v1/pop/queue/bulk/partition/p1?batch=10000").await.json();
    let order: Vec<u64> = one["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["data"]["n"].as_u64().unwrap())
        .collect();
    assert!(order.len() > 100);
    let expected: Vec<u64> = (0..order.len() as u64).map(|at| at * 3 + 1).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_body_that_is_refused_stores_nothing() {
    let world = World::new().await;
    let refused = |answer: crate::client::Answer| answer.error();
    let bodies: [(&str, &str); 5] = [
        (r#"{"items":[{"queue":"q"},{"queue":7}]}"#, "Queue must be a string"),
        (r#"{"items":[{"queue":"q"},{"queue":"q","traceId":"x"}]}"#, "TraceId must be a UUID"),
        (r#"{"items":[{"queue":"q"},{"queue":"q","partition":""}]}"#, "partition has 0 bytes"),
        (r#"{"items":[{"queue":"q"}]"#, "Invalid JSON: "),
        ("", "Empty request body"),
    ];
    for (body, words) in bodies {
        let (status, error, _) = refused(world.ask("POST", "/api/v1/push", body).await);
        assert_eq!(status, 400, "{body}");
        assert!(error.starts_with(words), "{body}: {error}");
    }
    assert_eq!(
        world.get("/api/v1/resources/queues").await.json(),
        json!({ "queues": [], "total": 0 })
    );
}

#[tokio::test]
async fn what_was_answered_survives_a_restart() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": "kept", "transactionId": "t" }])).await;
    let world = world.restart().await;
    let again =
        world.push(json!([{ "queue": "q", "payload": "again", "transactionId": "t" }])).await;
    assert_eq!(again.json()["messages"][0]["status"], "duplicate");
    assert_eq!(world.get("/api/v1/pop/queue/q").await.json()["messages"][0]["data"], "kept");
}

#[tokio::test]
async fn a_push_to_many_partitions_waits_for_room_once() {
    let world = World::with(|settings| settings.buffer.append_timeout_ms = 1000).await;
    let items: Vec<_> =
        (0..100).map(|n| json!({ "queue": "q", "partition": format!("p{n}") })).collect();
    assert_eq!(world.push(json!(items)).await.status, 201);
    let rooms = world.server.rooms();
    let budget = rooms.engine.buffers().budget();
    let taken = rooms.ingest.reserve(budget.limit()).await.unwrap();
    // One wait for each of them would be a hundred seconds.
    let patience = std::time::Duration::from_secs(50);
    let answer = tokio::time::timeout(patience, world.push(json!(items))).await.unwrap().json();
    let messages = answer["messages"].as_array().unwrap();
    assert!(messages.iter().all(|it| it["status"] == "failed" && it["code"] == "busy"), "{answer}");
    drop(taken);
    assert_eq!(world.push(json!(items)).await.status, 201);
}
