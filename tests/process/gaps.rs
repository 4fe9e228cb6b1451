//! XG-01 to XG-14: what such systems do not do by themselves.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::client::{World, request};
use crate::desk::{define, native, process, push, push_with, slot, state};

#[tokio::test]
async fn xg_01_entries_arrive_in_the_order_of_their_index() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    native(&world, "counter", "counter").await;
    for count in [12, 33, 1_000] {
        let target = format!("counter/{count}");
        let message = json!({ "count": count, "target": target });
        let done = push(&world, "fan/root", message).await;
        assert_eq!(done["stats"]["messages"], count + 1);
        let mut from = 0;
        while from < count {
            let path = format!("/api/v1/processes/{target}/slots?from={from}&limit=1000");
            let page = world.get(&path).await.json();
            for slot in page["slots"].as_array().unwrap() {
                assert_eq!(slot["message"]["n"], from + 1, "{slot}");
                from += 1;
            }
        }
        assert_eq!(process(&world, &target).await["slots"], count, "no more and no less");
    }
}

#[tokio::test]
async fn xg_03_a_poisoned_message_leaves_only_its_record() {
    let world = World::new().await;
    native(&world, "faulty", "faulty").await;
    push(&world, "faulty/a", json!({})).await;
    let failed = push(&world, "faulty/a", json!({ "poison": true })).await;
    assert_eq!((&failed["status"], &failed["complete"]), (&json!("failed"), &json!(true)));
    assert_eq!(failed["error"]["code"], "guest_error", "{failed}");
    assert_eq!(failed["children"], json!([]));
    assert_eq!(state(&world, "faulty/a", "count").await, 1, "its writes are gone");
    assert_eq!(push(&world, "faulty/a", json!({})).await["output"], 2);
    assert_eq!(process(&world, "faulty/a").await["slots"], 3, "and what it sent");
    assert_eq!(slot(&world, "faulty/a", 1).await["status"], "failed");
    let strict = push_with(&world, "faulty/a", json!({ "poison": 1 }), json!({ "strict": true })).await;
    assert_eq!(strict.status, 424, "{}", strict.text());
}

#[tokio::test]
async fn xg_05_a_cycle_ends_at_its_hop_limit_and_is_kept() {
    let world = World::new().await;
    native(&world, "pingpong", "pingpong").await;
    let message = json!({ "start": true, "limit": 1_000 });
    let more = json!({ "maxHops": 10 });
    let done = push_with(&world, "pingpong/a", message, more).await.json();
    assert_eq!((&done["status"], &done["complete"]), (&json!("truncated"), &json!(true)), "{done}");
    assert_eq!(done["stats"]["messages"], 11);
    assert_eq!(done["stats"]["dlq"], 1);
    assert_eq!(process(&world, "pingpong/a").await["slots"], 11);
}

#[tokio::test]
async fn xg_06_a_fan_out_ends_at_its_message_limit() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    native(&world, "counter", "counter").await;
    let message = json!({ "count": 100, "class": "counter", "prefix": "c" });
    let done = push_with(&world, "fan/a", message, json!({ "maxMessages": 30 })).await.json();
    assert_eq!((&done["status"], &done["complete"]), (&json!("truncated"), &json!(true)), "{done}");
    assert_eq!(done["stats"]["messages"], 30);
    assert_eq!(done["stats"]["dlq"], 71);
    let codes = done["children"].as_array().unwrap().iter();
    let refused = codes.filter(|child| child["error"]["code"] == "cascade_limit").count();
    assert_eq!(refused, 71);
}

#[tokio::test]
async fn xg_08_a_slow_child_keeps_nobody() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "sleeper", "sleeper").await;
    native(&world, "counter", "counter").await;
    let to = json!(["sleeper/slow", "counter/a", "counter/b", "counter/c"]);
    let message = json!({ "to": to, "ms": 2_000 });
    let push = push_with(&world, "router/r", message, json!({ "await": "slot" })).await.json();
    for target in ["counter/a", "counter/b", "counter/c"] {
        assert_eq!(slot(&world, target, 0).await["status"], "ok");
    }
    let id = push["push_id"].as_str().unwrap();
    let open = world.get(&format!("/api/v1/pushes/{id}")).await.json();
    assert_eq!((&open["complete"], &open["stats"]["pending"]), (&json!(false), &json!(1)), "{open}");
    crate::desk::complete(&world, &push).await;
}

#[tokio::test]
async fn xg_12_a_new_version_holds_for_messages_that_came_after_it() {
    let world = World::new().await;
    let manual = |module: &str| json!({ "runtime": "native", "module": module, "mode": "manual" });
    let first = define(&world, "class", manual("counter")).await;
    assert_eq!(first["version"], 1);
    let schedule = |n: u64| {
        let world = &world;
        let body = json!({ "message": { "n": n } });
        async move { world.post("/api/v1/processes/class/a/schedule", &body).await }
    };
    for n in 0..3 {
        schedule(n).await;
    }
    let second = define(&world, "class", manual("echo")).await;
    assert_eq!((&second["version"], &second["versions"]), (&json!(2), &json!([1, 2])));
    for n in 3..5 {
        schedule(n).await;
    }
    push(&world, "class/a", json!({ "n": 5 })).await;
    for n in 0..6_u64 {
        let record = slot(&world, "class/a", n).await;
        let (version, output) =
            if n < 3 { (1, json!(n + 1)) } else { (2, json!({ "n": n })) };
        assert_eq!((&record["version"], &record["output"]), (&json!(version), &output), "{record}");
    }
    let path = "/api/v1/processes/class";
    let mut wire = world.connect().await;
    let body = manual("kv").to_string();
    let headed = wire.ask_with("PUT", path, "If-Match: \"1\"\r\n", &body).await;
    assert_eq!((headed.status, headed.error().2), (409, "version_conflict".into()));
}

#[tokio::test]
async fn xg_13_what_is_called_off_is_not_evaluated() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "sleeper", "sleeper").await;
    native(&world, "counter", "counter").await;
    // Both wait behind the first one's sleep.
    let message = json!({ "to": "sleeper/a", "ms": 1_500 });
    let first = push_with(&world, "router/r", message, json!({ "await": "slot" })).await.json();
    let message = json!({ "to": "sleeper/a", "ms": 0 });
    let second = push_with(&world, "router/r", message, json!({ "await": "slot" })).await.json();
    let id = second["push_id"].as_str().unwrap();
    let cancelled = world.ask("DELETE", &format!("/api/v1/pushes/{id}"), "").await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    let done = crate::desk::complete(&world, &second).await;
    assert_eq!(done["status"], "cancelled");
    assert_eq!(done["output"], json!({ "routed": 1 }), "what was committed stays");
    assert_eq!(done["children"][0]["status"], "cancelled", "{done}");
    assert_eq!(crate::desk::complete(&world, &first).await["status"], "ok");
    assert_eq!(slot(&world, "sleeper/a", 1).await.get("output"), None::<&Value>);
}

#[tokio::test]
async fn a_push_is_shown_as_a_graph_and_told_as_it_goes() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    let done = push(&world, "fan/root", json!({ "targets": ["fan/x", "nowhere/y"] })).await;
    let id = done["push_id"].as_str().unwrap();
    let graph = world.get(&format!("/api/v1/pushes/{id}/graph")).await.json();
    let count = |key: &str| graph[key].as_array().unwrap().len();
    assert_eq!((count("nodes"), count("edges")), (4, 3), "{graph}");
    let mut wire = world.connect().await;
    wire.send(&request("GET", &format!("/api/v1/pushes/{id}/events"), "", "")).await;
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("event: complete") {
        let reading = wire.stream.read_buf(&mut told);
        let read = timeout(Duration::from_secs(60), reading).await.expect("an event in a minute");
        assert!(read.unwrap() > 0, "closed early: {}", String::from_utf8_lossy(&told));
    }
    let gone = world.get("/api/v1/pushes/00000000-0000-7000-8000-000000000000").await;
    assert_eq!((gone.status, gone.error().2), (404, "push_not_found".into()));
}
