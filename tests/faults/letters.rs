//! Faults of the API of messages, dead letters and traces.

use serde_json::{Value, json};

use crate::client::World;

/// Pushes payloads to `q`, hands them out and makes dead letters of them.
async fn bury(world: &World, payloads: std::ops::Range<u32>) {
    let items: Vec<Value> = payloads.map(|it| json!({ "queue": "q", "payload": it })).collect();
    world.push(json!(items)).await;
    let popped = world.get("/api/v1/pop/queue/q?batch=1000&wait=true&timeout=30000").await.json();
    for message in popped["messages"].as_array().unwrap() {
        let line = json!({
            "transactionId": message["transactionId"],
            "partitionId": message["partitionId"],
            "status": "dlq",
            "error": "because",
        });
        assert_eq!(world.post("/api/v1/ack", &line).await.json()[0]["dlq"], json!(true));
    }
}

#[tokio::test]
async fn b3_what_clients_call_is_there() {
    let world = World::new().await;
    bury(&world, 0..2).await;
    let page = world.get("/api/v1/dlq?queue=q").await.json();
    let letter = &page["messages"][0];
    let one = |end: &str| {
        let (partition, id) = (&letter["partitionId"], &letter["transactionId"]);
        format!("/api/v1/messages/{}/{}{end}", partition.as_str().unwrap(), id.as_str().unwrap())
    };
    assert_eq!(world.get("/api/v1/pop?namespace=q&autoAck=true").await.status, 204);
    assert_eq!(world.ask("POST", &one("/retry"), "{}").await.status, 200);
    assert_eq!(world.ask("POST", &one("/dlq"), "").await.status, 200);
    assert_eq!(world.get("/api/v1/resources/partitions?queue=q").await.status, 200);
    let redrive = world.post("/api/v1/dlq/requeue", &json!({ "queue": "q" })).await;
    assert_eq!(redrive.status, 202);
    let cleared = world.ask("DELETE", "/api/v1/queues/q/clear", "").await;
    assert_eq!(cleared.json()["cleared"], json!(true));
    for prefix in ["", "/queen"] {
        let missing = world.ask("GET", &format!("{prefix}/api/v1/nowhere"), "").await;
        assert_eq!(missing.status, 404);
    }
}

#[tokio::test]
async fn b6_pages_of_dead_letters_messages_and_traces_are_whole_and_know_their_total() {
    let world = World::new().await;
    bury(&world, 0..5).await;
    let mut seen = Vec::new();
    for offset in [0, 2, 4, 6] {
        let page = world.get(&format!("/api/v1/dlq?queue=q&limit=2&offset={offset}")).await.json();
        assert_eq!(page["total"], json!(5), "{page}");
        assert_eq!(page["pagination"], json!({ "limit": 2, "offset": offset }));
        seen.extend(page["messages"].as_array().unwrap().iter().map(|it| it["data"].clone()));
    }
    assert_eq!(seen, [4, 3, 2, 1, 0], "newest failure first, each once");
    let mut ids = Vec::new();
    for offset in [0, 2, 4, 6] {
        let page = world.get(&format!("/api/v1/messages?queue=q&limit=2&offset={offset}")).await;
        let page = page.json();
        assert_eq!(page["total"], json!(5), "{page}");
        ids.extend(page["messages"].as_array().unwrap().iter().map(|it| it["id"].to_string()));
    }
    let mut sorted = ids.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!((ids.len(), &ids), (5, &sorted), "newest first, each once");
    // The list of one queue has no frame.
    let mut listed = Vec::new();
    for offset in [0, 2, 4, 6] {
        let path = format!("/queen/api/v1/status/queues/q/messages?limit=2&offset={offset}");
        let page = world.get(&path).await.json();
        listed.extend(page.as_array().unwrap().iter().map(|it| it["id"].to_string()));
    }
    assert_eq!(listed, ids);
    let page = world.get("/api/v1/dlq?queue=q").await.json();
    let letter = &page["messages"][0];
    for n in 0..5 {
        let trace = json!({
            "transactionId": letter["transactionId"], "partitionId": letter["partitionId"],
            "data": { "n": n }, "traceNames": ["flow"],
        });
        assert_eq!(world.post("/api/v1/traces", &trace).await.status, 201);
    }
    let mut seen = Vec::new();
    for offset in [0, 2, 4, 6] {
        let path = format!("/api/v1/traces/by-name/flow?limit=2&offset={offset}");
        let page = world.get(&path).await.json();
        assert_eq!(page["total"], json!(5), "{page}");
        seen.extend(page["traces"].as_array().unwrap().iter().map(|it| it["data"]["n"].clone()));
    }
    assert_eq!(seen, [4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn b7_an_empty_ack_batch_is_answered() {
    let world = World::new().await;
    let answer = world.post("/api/v1/ack/batch", &json!({ "acknowledgments": [] })).await;
    assert_eq!((answer.status, answer.json()), (200, json!([])));
}
