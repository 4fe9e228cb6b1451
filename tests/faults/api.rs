//! Faults of the API and of the protocol.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, World};

/// Both ways in.
const BASES: [&str; 2] = ["", "/queen"];

/// Pushes one message and pops it; the message as it was popped.
async fn popped(world: &World, queue: &str) -> Value {
    assert_eq!(world.push(json!([{ "queue": queue, "payload": 1 }])).await.status, 201);
    let answer = world.get(&format!("/api/v1/pop/queue/{queue}")).await;
    assert_eq!(answer.status, 200);
    answer.json()["messages"][0].clone()
}

#[tokio::test]
async fn b1_status_codes_tell_the_truth() {
    let world = World::with(|settings| settings.http.body_bytes_max = 64 * 1024).await;
    let large = json!({ "items": [{ "queue": "q", "payload": "x".repeat(70_000) }] }).to_string();
    let push = json!({ "items": [{ "queue": "q", "payload": 1 }] }).to_string();
    for base in BASES {
        for (method, path, body, status) in [
            ("POST", "/api/v1/push", &*push, 201),
            ("POST", "/api/v1/push", "{", 400),
            ("POST", "/api/v1/push", r#"{"items":[{"queue":7}]}"#, 400),
            ("POST", "/api/v1/push", &*large, 413),
            ("POST", "/api/v1/ack", "", 400),
            ("GET", "/api/v1/pop/queue/nobody", "", 204),
            ("GET", "/api/v1/pop", "", 400),
            ("GET", "/api/v1/resources/queues/nobody", "", 404),
            ("GET", "/api/v1/resources/queues/q", "", 200),
            ("GET", "/api/v1/nothing", "", 404),
            ("GET", "/api/v1/push", "", 405),
            ("POST", "/api/v1/system/maintenance", "{}", 400),
        ] {
            let answer = world.ask(method, &format!("{base}{path}"), body).await;
            assert_eq!(answer.status, status, "{method} {base}{path}: {answer:?}");
            if status >= 400 {
                let (_, text, code) = answer.error();
                assert!(!text.is_empty() && !code.is_empty(), "{answer:?}");
            }
            assert!(status != 204 || answer.body.is_empty(), "204 has no body");
        }
    }
}

#[tokio::test]
async fn b2_empty_lists_are_lists_with_a_length() {
    let world = World::new().await;
    let length = |answer: &Answer| {
        let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
        let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        lengths.next().map(|(_, value)| value.parse::<usize>().unwrap())
    };
    for base in BASES {
        let queues = world.get(&format!("{base}/api/v1/resources/queues")).await;
        assert_eq!(queues.json()["queues"], json!([]));
        let dead = world.get(&format!("{base}/api/v1/dlq?queue=nobody")).await;
        assert_eq!(dead.json()["messages"], json!([]));
        for answer in [queues, dead] {
            assert_eq!(length(&answer), Some(answer.body.len()), "{answer:?}");
        }
    }
    let nothing = world.post("/queen/api/v1/push", &json!({ "items": [] })).await;
    assert_eq!((nothing.status, nothing.text(), length(&nothing)), (201, "[]", Some(2)));
    // Whatever route answers with a body says how long it is, and the body is JSON.
    let description = world.get("/openapi.json").await.json();
    for (path, operations) in description["paths"].as_object().unwrap() {
        if operations.get("get").is_none() {
            continue;
        }
        let path = path.replace(['{', '}'], "");
        let answer = world.get(&path).await;
        assert_eq!(answer.status == 204, answer.body.is_empty(), "{path}: {answer:?}");
        if answer.head.contains("application/json") {
            answer.json();
        }
    }
}

#[tokio::test]
async fn b4_renew_takes_an_empty_body_and_answers_one_object() {
    let world = World::new().await;
    for (base, queue) in BASES.into_iter().zip(["one", "other"]) {
        let message = popped(&world, queue).await;
        let lease = message["leaseId"].as_str().unwrap();
        let path = format!("{base}/api/v1/lease/{lease}/extend");
        for body in ["", "{}", r#"{"seconds":90}"#] {
            let renewed = world.ask("POST", &path, body).await;
            assert_eq!(renewed.status, 200, "{renewed:?}");
            let renewed = renewed.json();
            assert_eq!((&renewed["success"], &renewed["leaseId"]), (&json!(true), &json!(lease)));
            assert!(renewed["newExpiresAt"].as_str().unwrap().ends_with('Z'), "{renewed}");
        }
        let path = format!("{base}/api/v1/lease/00000000-0000-7000-8000-000000000000/extend");
        let lost = world.ask("POST", &path, "").await;
        assert_eq!(lost.json()["success"], json!(false));
    }
}

#[tokio::test]
async fn b5_paths_are_decoded_and_queries_are_read_by_whole_names() {
    let world = World::new().await;
    for base in BASES {
        let (queue, partition) = ("größe/a b", "p/1%");
        let body = json!({ "items": [{ "queue": queue, "partition": partition, "payload": 1 }] });
        assert_eq!(world.post(&format!("{base}/api/v1/push"), &body).await.status, 201);
        let encoded = "gr%C3%B6%C3%9Fe%2Fa%20b";
        let found = world.get(&format!("{base}/api/v1/resources/queues/{encoded}")).await;
        assert_eq!(found.json()["name"], json!(queue), "{found:?}");
        // The name of one parameter inside of another's, as `batch` in `xbatch`, is not it.
        let path = format!("{base}/api/v1/pop/queue/{encoded}/partition/p%2F1%25");
        let answer = world.get(&format!("{path}?xbatch=0&consumerGroup=a+b%2Fc")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        assert_eq!(answer["messages"][0]["partition"], json!(partition));
        assert_eq!(answer["consumerGroup"], json!("a b/c"));
        let broken = world.get(&format!("{base}/api/v1/pop/queue/%zz")).await;
        assert_eq!(broken.status, 400);
        let path = format!("{base}/api/v1/resources/queues/{encoded}");
        let gone = world.ask("DELETE", &path, "").await;
        assert_eq!(gone.json()["existed"], json!(true));
    }
}

#[tokio::test]
async fn b8_a_waiting_pop_is_held_while_pops_are_in_maintenance() {
    let world = World::new().await;
    assert_eq!(world.push(json!([{ "queue": "q", "payload": 1 }])).await.status, 201);
    let switch = async |enabled: bool| {
        let body = json!({ "enabled": enabled });
        assert_eq!(world.post("/api/v1/system/maintenance/pop", &body).await.status, 200);
    };
    switch(true).await;
    let began = Instant::now();
    let held = world.get("/queen/api/v1/pop/queue/q?wait=true&timeout=1200").await;
    assert_eq!(held.status, 204);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(1_100),
        "an instant answer makes a client spin: {took:?}"
    );
    let path = "/queen/api/v1/pop/queue/q?wait=true&timeout=30000";
    let mut waiting = world.connect().await;
    waiting.send(&crate::client::request("GET", path, "", "")).await;
    switch(false).await;
    let answer = waiting.answer().await;
    assert_eq!(answer.status, 200, "who waits gets what is there when it ends: {answer:?}");
    assert!(began.elapsed() < Duration::from_secs(25), "without waiting for its timeout");
}

#[tokio::test]
async fn b9_one_malformed_item_fails_nobody_elses() {
    let world = World::new().await;
    let bad = json!({ "items": [{ "queue": "q", "payload": 1, "traceId": "no uuid" }] });
    let good = json!({ "items": [{ "queue": "q", "payload": 2 }] });
    let (mut one, mut other) = (world.connect().await, world.connect().await);
    for _ in 0..20 {
        let request = |body: &Value| {
            crate::client::request("POST", "/queen/api/v1/push", "", &body.to_string())
        };
        // Side by side, so that both could come into one commit.
        one.send(&request(&bad)).await;
        other.send(&request(&good)).await;
        assert_eq!(other.answer().await.status, 201);
        let refused = one.answer().await;
        assert!(refused.status == 400 || refused.text().contains("failed"), "{refused:?}");
    }
    let pop = world.get("/queen/api/v1/pop/queue/q?batch=100").await.json();
    let messages = pop["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 20);
    // An ack of nonsense beside a good one leaves the good one done.
    let ack = |message: &Value, partition: &Value| {
        json!({ "transactionId": message["transactionId"], "partitionId": partition,
                "status": "completed", "leaseId": message["leaseId"] })
    };
    let stranger = json!("00000000-0000-4000-8000-000000000000");
    let acks = json!({ "acknowledgments": [
        ack(&messages[0], &stranger),
        ack(&messages[0], &messages[0]["partitionId"]),
    ] });
    let acked = world.post("/queen/api/v1/ack/batch", &acks).await;
    assert_eq!(acked.status, 200, "{acked:?}");
    let acked = acked.json();
    assert_eq!((&acked[0]["success"], &acked[1]["success"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn b11_buffered_answers_carry_ids() {
    let world = World::new().await;
    let hold = json!({ "enabled": true });
    assert_eq!(world.post("/api/v1/system/maintenance", &hold).await.status, 200);
    for base in BASES {
        let body = json!({ "items": [
            { "queue": "q", "payload": 1 },
            { "queue": "q", "payload": 2, "transactionId": format!("own{base}") },
        ] });
        let answer = world.post(&format!("{base}/api/v1/push"), &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let answer = answer.json();
        let messages = if base.is_empty() { &answer["messages"] } else { &answer };
        for message in messages.as_array().unwrap() {
            assert_eq!(message["status"], "buffered", "{answer}");
            assert!(!message["transaction_id"].as_str().unwrap().is_empty(), "{answer}");
        }
        assert_eq!(messages[1]["transaction_id"], json!(format!("own{base}")));
    }
}

#[tokio::test]
async fn b12_liveness_and_readiness_are_asked_for_apart() {
    let world = World::new().await;
    let alive = world.get("/livez").await;
    assert_eq!((alive.status, alive.json()), (200, json!({ "status": "alive" })));
    let ready = world.get("/readyz?verbose").await;
    assert_eq!(ready.status, 200);
    let checks = &ready.json()["checks"];
    for check in ["engine", "store", "open"] {
        assert_eq!(checks[check], "ok", "{checks}");
    }
}

#[tokio::test]
async fn b13_latencies_are_told_by_their_distribution() {
    let world = World::new().await;
    for n in 0..50 {
        assert_eq!(world.push(json!([{ "queue": "q", "payload": n }])).await.status, 201);
    }
    let figures = world.get("/metrics").await.json();
    let of = |name: &str| figures["push"][name].as_f64().unwrap();
    assert_eq!(of("requests"), 50.0);
    assert!(of("avg_latency_ms") > 0.0, "{figures}");
    assert!(of("p95_latency_ms") <= of("p99_latency_ms"), "{figures}");
    assert!(of("p99_latency_ms") <= of("max_latency_ms"), "{figures}");
    assert!(figures["log"]["commit_p99_latency_ms"].as_f64().unwrap() > 0.0, "{figures}");
}
