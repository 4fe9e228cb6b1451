//! Pops: what comes out is what went in, and waiting ends when it should.

use std::time::Duration;

use serde_json::json;

use crate::client::{World, request};

#[tokio::test]
async fn a_pop_has_the_shape_of_the_contract() {
    let world = World::new().await;
    let trace = "019a0c11-7fe8-7001-9999-0123456789ab";
    let item = json!({ "queue": "orders", "partition": "p1", "payload": { "a": [1, null] },
                       "transactionId": "t1", "traceId": trace });
    let pushed = world.push(json!([item])).await.json()["messages"][0].clone();
    let popped = world.get("/api/v1/pop/queue/orders?batch=5&consumerGroup=g").await;
    assert_eq!(popped.status, 200);
    let json = popped.json();
    assert_eq!(json["success"], json!(true));
    for (key, value) in [("queue", "orders"), ("partition", "p1"), ("consumerGroup", "g")] {
        assert_eq!(json[key], value);
        assert_eq!(json["messages"][0][key], value);
    }
    assert_eq!(json["partitionsClaimed"], json!(1));
    let message = &json["messages"][0];
    assert_eq!(message["id"], pushed["message_id"]);
    assert_eq!(message["transactionId"], "t1");
    assert_eq!(message["traceId"], trace);
    assert_eq!(message["data"], json!({ "a": [1, null] }));
    assert_eq!((&message["producerSub"], &message["retryCount"]), (&json!(null), &json!(0)));
    assert_eq!(message["partitionId"], pushed["partition_id"]);
    assert_eq!(message["partitionId"], json["partitionId"]);
    assert_eq!(message["leaseId"], json["leaseId"]);
    assert!(uuid::Uuid::parse_str(json["leaseId"].as_str().unwrap()).is_ok());
    let created = message["createdAt"].as_str().unwrap();
    assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
}

#[tokio::test]
async fn a_payload_comes_back_byte_for_byte() {
    let world = World::new().await;
    let payloads = [
        r#"{"b":1.50,"a":1e2,"a":"A","big":123456789012345678901234567890}"#,
        r#"[ 1 ,  { } ]"#,
        "\"tab\\t\u{1f600}\\ud83d\\ude00 \\/\"",
        "null",
        "-0.0",
    ];
    for payload in payloads {
        let body = format!(r#"{{"items":[{{"queue":"q","payload": {payload} }}]}}"#);
        assert_eq!(world.ask("POST", "/api/v1/push", &body).await.status, 201);
    }
    for payload in payloads {
        let popped = world.get("/api/v1/pop/queue/q?autoAck=true").await;
        let expected = format!(r#""data":{payload},"producerSub""#);
        assert!(popped.text().contains(&expected), "{payload}: {}", popped.text());
    }
}

#[tokio::test]
async fn what_is_no_json_goes_out_as_base64_and_spoils_nothing() {
    let world = World::new().await;
    let tcp = onrush_client::Client::connect(&world.server.tcp_addr().to_string()).await.unwrap();
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let messages = [
        onrush_client::Message::bytes(&b"\xff\x00"[..]),
        onrush_client::Message::json(&json!({ "fine": true })),
        onrush_client::Message::json(&deep),
    ];
    tcp.queue("q").push(messages).await.unwrap();
    let json = world.get("/api/v1/pop/queue/q?batch=3").await.json();
    assert_eq!(json["messages"][2]["encoding"], "base64", "nested deeper than we take it");
    assert_eq!(json["messages"][0]["data"], "/wA=");
    assert_eq!(json["messages"][0]["encoding"], "base64");
    assert_eq!(json["messages"][1]["data"], json!({ "fine": true }));
    assert_eq!(json["messages"][1].get("encoding"), None);
}

#[tokio::test]
async fn nothing_to_pop_is_a_bare_204() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": 1 }])).await;
    world.get("/api/v1/pop/queue/q").await;
    for path in [
        "/api/v1/pop/queue/unknown",
        "/api/v1/pop/queue/q",
        "/api/v1/pop/queue/q/partition/unknown",
        "/queen/api/v1/pop/queue/q/partition/Default",
        "/api/v1/pop/queue/q?wait=true&timeout=1",
    ] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
    }
    let queues = world.get("/api/v1/resources/queues").await.json();
    assert_eq!(queues["queues"].as_array().unwrap().len(), 1, "a pop makes no queue");
}

#[tokio::test]
async fn a_pop_that_waits_is_woken_by_the_push_that_it_waits_for() {
    let world = World::new().await;
    let mut waiting = world.connect().await;
    waiting.send(&request("GET", "/api/v1/pop/queue/q?wait=true&timeout=60000", "", "")).await;
    world.push(json!([{ "queue": "q", "payload": "here" }])).await;
    assert_eq!(waiting.answer().await.json()["messages"][0]["data"], "here");
}

#[tokio::test]
async fn a_consumer_that_hangs_up_holds_nothing() {
    let world = World::new().await;
    for _ in 0..10 {
        let mut waiting = world.connect().await;
        waiting.send(&request("GET", "/api/v1/pop/queue/q?wait=true&timeout=60000", "", "")).await;
        drop(waiting);
    }
    world.push(json!([{ "queue": "q", "payload": "for the living" }])).await;
    // It waits, because a message that was on its way to the dead has to come back first.
    let popped = world.get("/api/v1/pop/queue/q?wait=true&timeout=30000").await;
    assert_eq!(popped.json()["messages"][0]["data"], "for the living");
}

#[tokio::test]
async fn groups_do_not_see_each_other_and_a_new_one_may_begin_now() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": 1 }])).await;
    let pop = |group: &str, more: &str| format!("/api/v1/pop/queue/q?consumerGroup={group}{more}");
    assert_eq!(world.get(&pop("late", "&subscriptionMode=new")).await.status, 204);
    for group in ["a", "b"] {
        let popped = world.get(&pop(group, "&autoAck=true")).await.json();
        assert_eq!(popped["messages"][0]["data"], json!(1), "{group}");
        assert_eq!(popped["leaseId"], "", "nothing is leased");
        assert_eq!(world.get(&pop(group, "")).await.status, 204, "{group}");
    }
    world.push(json!([{ "queue": "q", "payload": 2 }])).await;
    let popped = world.get(&pop("late", "")).await.json();
    assert_eq!(popped["messages"][0]["data"], json!(2));
}

#[tokio::test]
async fn a_pop_by_namespace_and_task_finds_their_queues_and_waits_for_them() {
    let world = World::new().await;
    for name in ["billing.invoice", "billing.refund", "other"] {
        world.push(json!([{ "queue": name, "payload": name }])).await;
    }
    let mut seen = Vec::new();
    for _ in 0..2 {
        let popped = world.get("/api/v1/pop?namespace=billing").await.json();
        assert_eq!(popped["queue"], popped["messages"][0]["queue"]);
        seen.push(popped["messages"][0]["data"].as_str().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["billing.invoice", "billing.refund"]);
    assert_eq!(world.get("/queen/api/v1/pop?namespace=billing").await.status, 204);
    let mut waiting = world.connect().await;
    let path = "/api/v1/pop?namespace=billing&task=late&wait=true&timeout=60000";
    waiting.send(&request("GET", path, "", "")).await;
    world.push(json!([{ "queue": "billing.late", "payload": "late" }])).await;
    assert_eq!(waiting.answer().await.json()["messages"][0]["data"], "late");
    assert_eq!(world.get("/api/v1/pop").await.error().1, "namespace or task is required");
}

#[tokio::test]
async fn a_pop_by_task_that_waits_is_told_at_once_of_a_push_an_ack_or_a_seek() {
    let world = World::new().await;
    let path = "/api/v1/pop?task=t&consumerGroup=g&wait=true&timeout=60000";
    let taken = |answer: crate::client::Answer| answer.json()["messages"][0]["data"].clone();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut one = world.connect().await;
        one.send(&request("GET", path, "", "")).await;
        waiting.push(one);
    }
    // Whoever waits longest is not promised to be first; each gets one, and none gets nothing.
    let mut seen = Vec::new();
    for (number, one) in waiting.iter_mut().enumerate() {
        let item = json!({ "queue": format!("n{number}.t"), "payload": number });
        world.push(json!([item])).await;
        seen.push((number, one));
    }
    let mut found = Vec::new();
    for (_, one) in seen {
        found.push(taken(one.answer().await).as_u64().unwrap());
    }
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
    let mut waiting = world.connect().await;
    waiting.send(&request("GET", path, "", "")).await;
    let seek = "/api/v1/consumer-groups/g/queues/n1.t/seek";
    world.post(seek, &json!({ "toBeginning": true })).await;
    assert_eq!(taken(waiting.answer().await), 1);
    assert_eq!(
        world.get("/api/v1/pop?task=t&consumerGroup=g&wait=true&timeout=50").await.status,
        204
    );
}

#[tokio::test]
async fn parameters_that_cannot_be_meant_are_refused_by_name() {
    let world = World::new().await;
    let refused = world.get("/api/v1/pop/queue/q?batch=many").await.error();
    assert_eq!(refused.0, 400);
    assert!(refused.1.starts_with("batch "), "{refused:?}");
    assert_eq!(world.get("/queen/api/v1/pop/queue/q?batch=many").await.status, 204);
    assert_eq!(world.get("/api/v1/pop/queue/%ff").await.error().2, "malformed_request");
    let long = "x".repeat(256);
    assert_eq!(world.get(&format!("/api/v1/pop/queue/{long}")).await.error().2, "bad_name");
}

#[tokio::test]
async fn waiting_consumers_are_answered_at_once_when_the_server_stops() {
    let world = World::new().await;
    let mut waiting = world.connect().await;
    waiting.send(&request("GET", "/api/v1/pop/queue/q?wait=true&timeout=3000000", "", "")).await;
    // Asked after it on another connection, so that the first is very likely parked by now;
    // whether it is or not, it must be answered.
    world.get("/health").await;
    let World { server, folder, .. } = world;
    let stopping = tokio::spawn(async move {
        server.stop(Duration::from_secs(60)).await;
        drop(folder);
    });
    assert_eq!(waiting.answer().await.status, 204);
    assert!(waiting.is_closed().await, "and its connection closes");
    stopping.await.unwrap();
}
