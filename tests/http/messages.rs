//! Messages looked at one by one and in pages; deleted, retried, buried.

use serde_json::{Value, json};

use crate::client::World;

fn path(message: &Value) -> String {
    let text = |key: &str| message[key].as_str().unwrap().to_owned();
    format!("/api/v1/messages/{}/{}", text("partitionId"), text("transactionId"))
}

async fn pushed(world: &World, count: u32) -> Vec<Value> {
    let items: Vec<Value> = (0..count)
        .map(|it| {
            json!({ "queue": "a.b", "payload": { "n": it }, "transactionId": format!("t{it}") })
        })
        .collect();
    world.push(json!(items)).await;
    let page = world.get("/api/v1/messages?queue=a.b").await.json();
    let mut messages = page["messages"].as_array().unwrap().clone();
    messages.reverse();
    messages
}

async fn pop(world: &World, group: &str, batch: u32) -> Value {
    let path = format!("/api/v1/pop/queue/a.b?batch={batch}&consumerGroup={group}");
    let popped = world.get(&path).await;
    if popped.status == 204 { json!({ "messages": [] }) } else { popped.json() }
}

async fn statuses(world: &World) -> Vec<String> {
    let page = world.get("/api/v1/messages?queue=a.b").await.json();
    let all = page["messages"].as_array().unwrap().iter().rev();
    all.map(|it| it["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_message_is_told_as_it_stands_with_each_group() {
    let world = World::new().await;
    let messages = pushed(&world, 4).await;
    assert_eq!(statuses(&world).await, ["pending"; 4]);
    assert_eq!((&messages[0]["namespace"], &messages[0]["task"]), (&json!("a"), &json!("b")));
    let popped = pop(&world, "g", 3).await;
    let line = |at: usize, status: &str| {
        let message = &popped["messages"][at];
        json!({
            "transactionId": message["transactionId"], "partitionId": message["partitionId"],
            "leaseId": message["leaseId"], "consumerGroup": "g", "status": status, "error": "no",
        })
    };
    world.post("/api/v1/ack", &line(0, "completed")).await;
    world.post("/api/v1/ack", &line(1, "dlq")).await;
    assert_eq!(statuses(&world).await, ["completed", "dead_letter", "processing", "pending"]);
    for (status, count) in [("completed", 1), ("dead_letter", 1), ("processing", 1), ("pending", 1)]
    {
        let page = world.get(&format!("/api/v1/messages?queue=a.b&status={status}")).await.json();
        assert_eq!(page["total"], json!(count), "{status}");
    }
    let one = world.get(&path(&messages[1])).await.json();
    assert_eq!((&one["payload"], &one["status"]), (&json!({ "n": 1 }), &json!("dead_letter")));
    assert_eq!(one["data"], one["payload"]);
    assert_eq!((&one["errorMessage"], &one["mode"]["type"]), (&json!("no"), &json!("bus")));
    let group = &one["consumerGroups"][0];
    assert_eq!((&group["name"], &group["consumed"]), (&json!("g"), &json!(true)));
    let held = world.get(&path(&messages[2])).await.json();
    assert!(held["leaseExpiresAt"].is_string() && held["status"] == "processing", "{held}");
    let by_own_id = format!(
        "/api/v1/messages/{}/{}",
        messages[3]["partitionId"].as_str().unwrap(),
        messages[3]["id"].as_str().unwrap()
    );
    assert_eq!(world.get(&by_own_id).await.json()["transactionId"], "t3");
}

#[tokio::test]
async fn a_deleted_message_is_delivered_to_nobody_and_its_payload_is_gone() {
    let world = World::new().await;
    let messages = pushed(&world, 3).await;
    pop(&world, "early", 1).await;
    let deleted = world.ask("DELETE", &path(&messages[1]), "").await;
    assert_eq!((deleted.status, &deleted.json()["success"]), (200, &json!(true)));
    assert_eq!(world.get(&path(&messages[1])).await.error().1, "Message not found");
    assert_eq!(world.ask("DELETE", &path(&messages[1]), "").await.status, 404);
    let world = world.restart().await;
    let popped = pop(&world, "late", 10).await;
    let numbers: Vec<Value> =
        popped["messages"].as_array().unwrap().iter().map(|it| it["data"]["n"].clone()).collect();
    assert_eq!(numbers, [0, 2], "also a group that comes later does not get it");
    assert_eq!(world.get("/api/v1/messages?queue=a.b").await.json()["total"], json!(2));
    let again = json!([{ "queue": "a.b", "payload": 0, "transactionId": "t1" }]);
    assert_eq!(world.push(again).await.json()["messages"][0]["status"], "duplicate");
}

#[tokio::test]
async fn a_message_is_moved_to_the_dead_letters_and_back() {
    let world = World::new().await;
    let messages = pushed(&world, 2).await;
    let bury = format!("{}/dlq", path(&messages[0]));
    assert_eq!(world.ask("POST", &bury, "{}").await.status, 409, "there is no group yet");
    pop(&world, "g", 1).await;
    let body = json!({ "consumerGroup": "g", "error": "by hand" });
    let moved = world.post(&bury, &body).await;
    assert_eq!((moved.status, &moved.json()["groups"]), (200, &json!(1)));
    assert_eq!(statuses(&world).await, ["dead_letter", "pending"]);
    let dead = world.get("/api/v1/dlq?queue=a.b").await.json();
    assert_eq!(dead["messages"][0]["errorMessage"], "by hand");
    let retry = format!("{}/retry", path(&messages[0]));
    assert_eq!(world.ask("POST", &retry, "").await.json()["success"], json!(true));
    assert_eq!(world.ask("POST", &retry, "").await.status, 409, "it is none any more");
    let popped = pop(&world, "g", 10).await;
    assert_eq!(popped["messages"].as_array().unwrap().len(), 2);
    assert_eq!(world.get("/api/v1/dlq?queue=a.b").await.json()["total"], json!(0));
}

#[tokio::test]
async fn what_cannot_be_asked_of_messages_is_refused_by_name() {
    let world = World::new().await;
    for (query, word) in [
        ("status=odd", "status"),
        ("from=odd", "from"),
        ("limit=0", "limit"),
        ("offset=100001", "offset"),
        ("from=20&to=10", "from"),
    ] {
        let (status, error, _) = world.get(&format!("/api/v1/messages?{query}")).await.error();
        assert!(status == 400 && error.contains(word), "{query}: {error}");
    }
    let unknown = "/api/v1/messages/6f6e7275-7368-8070-8000-0000000000ff/t";
    assert_eq!(world.get(unknown).await.status, 404);
    assert_eq!(world.get("/api/v1/messages/odd/t").await.status, 404);
}
