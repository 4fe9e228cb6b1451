//! How long what became of slots is kept, and that nothing which was not evaluated is let go of.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{complete, define, native, process, push, push_with, slot, state};

/// A class that keeps what became of its newest slots.
async fn keeps(world: &World, class: &str, module: &str, slots: u64) {
    let retention = json!({ "slots": slots });
    let definition = json!({ "runtime": "native", "module": module, "retention": retention });
    let defined = define(world, class, definition).await;
    assert_eq!(defined["definition"]["retention"], json!({ "slots": slots, "seconds": 0 }));
}

/// Waits until a process has let go of all slots before one.
async fn trimmed_to(world: &World, name: &str, from: u64) -> Value {
    for _ in 0..1_200 {
        let shown = process(world, name).await;
        if shown["kept_from"].as_u64() >= Some(from) {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{name} keeps what it need not: {}", process(world, name).await);
}

#[tokio::test]
async fn a_class_keeps_what_became_of_its_newest_slots() {
    let world = World::new().await;
    keeps(&world, "counter", "counter", 8).await;
    let first = push(&world, "counter/a", json!({})).await;
    for _ in 1..40 {
        push(&world, "counter/a", json!({})).await;
    }
    let shown = trimmed_to(&world, "counter/a", 28).await;
    assert!(shown["kept_from"].as_u64() <= Some(32), "as many as it says: {shown}");
    let world = world.restart().await;
    for number in 32..40 {
        assert_eq!(slot(&world, "counter/a", number).await["output"], number + 1);
    }
    let gone = world.get("/api/v1/processes/counter/a/slots/3?wait=30000").await;
    assert_eq!((gone.status, gone.error().2), (404, "slot_not_found".into()));
    let id = first["push_id"].as_str().unwrap();
    let gone = world.get(&format!("/api/v1/pushes/{id}?wait=30000")).await;
    assert_eq!((gone.status, gone.error().2), (404, "push_not_found".into()));
    let log = world.get("/api/v1/processes/counter/a/slots?limit=1").await.json();
    assert_eq!(log["slots"][0]["status"], "trimmed", "its message is there still: {log}");
    assert_eq!(state(&world, "counter/a", "count").await, 40, "and its state");
    assert_eq!(push(&world, "counter/a", json!({})).await["output"], 41);
    let refused = world.post("/api/v1/processes/counter/a/verify", &json!({})).await;
    assert_eq!((refused.status, refused.error().2), (409, "not_replayable".into()));
}

#[tokio::test]
async fn a_cascade_that_is_pending_is_kept_however_old_it_is() {
    let world = World::new().await;
    keeps(&world, "router", "router", 4).await;
    native(&world, "counter", "counter").await;
    push(&world, "counter/slow", json!({})).await;
    world.post("/api/v1/processes/counter/slow/pause", &json!({})).await;
    let more = json!({ "await": "slot" });
    let open = push_with(&world, "router/r", json!({ "to": "counter/slow" }), more).await.json();
    let mut last = Value::Null;
    for _ in 0..20 {
        last = push(&world, "router/r", json!({ "to": "counter/fast" })).await;
    }
    trimmed_to(&world, "router/r", 12).await;
    let id = open["push_id"].as_str().unwrap();
    let told = world.get(&format!("/api/v1/pushes/{id}")).await.json();
    assert_eq!((&told["status"], &told["complete"]), (&json!("pending"), &json!(false)), "{told}");
    world.post("/api/v1/processes/counter/slow/resume", &json!({})).await;
    let told = complete(&world, &open).await;
    assert_eq!((&told["status"], &told["children"][0]["output"]), (&json!("ok"), &json!(2)));
    // What its target let go of is not taken for pending.
    keeps(&world, "short", "counter", 1).await;
    let pushed = push(&world, "router/r", json!({ "to": "short/s" })).await;
    push(&world, "short/s", json!({})).await;
    push(&world, "short/s", json!({})).await;
    trimmed_to(&world, "short/s", 1).await;
    let told = complete(&world, &pushed).await;
    assert_eq!(told["children"][0]["status"], "trimmed", "{told}");
    assert_eq!(complete(&world, &last).await["status"], "ok");
}

#[tokio::test]
async fn a_queue_of_a_class_lets_go_of_nothing_that_was_not_evaluated() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let configure = |queue: &str, options: Value| {
        let body = json!({ "queue": queue, "options": options });
        let world = &world;
        async move { world.post("/api/v1/configure", &body).await }
    };
    for options in [
        json!({ "ttl": 3600 }),
        json!({ "ttl": 5 }),
        json!({ "maxWaitTimeSeconds": 5 }),
        json!({ "retentionEnabled": true, "retentionSeconds": 5 }),
    ] {
        let refused = configure("counter", options.clone()).await;
        assert_eq!((refused.status, refused.error().2), (400, "bad_option".into()), "{options}");
        assert_eq!(configure("plain", options).await.status, 200, "as for any queue");
        let definition = json!({ "runtime": "native", "module": "counter" }).to_string();
        let refused = world.ask("PUT", "/api/v1/processes/plain", &definition).await;
        assert_eq!((refused.status, refused.error().2), (400, "bad_option".into()));
    }
    let completed = json!({ "retentionEnabled": true, "completedRetentionSeconds": 5 });
    assert_eq!(configure("counter", completed).await.status, 200);
    assert_eq!(push(&world, "counter/a", json!({})).await["output"], 1);
}

#[tokio::test]
async fn a_server_says_how_much_classes_may_ask_for() {
    let world = World::with(|settings| {
        settings.processes.fuel_max = 20_000;
        settings.processes.hops_max = 3;
    })
    .await;
    let class =
        |limits: Value| json!({ "runtime": "native", "module": "pingpong", "limits": limits });
    let path = "/api/v1/processes/pingpong";
    for (limits, field) in [(json!({ "fuel": 20_001 }), "fuel"), (json!({ "hops": 4 }), "hops")] {
        let refused = world.ask("PUT", path, &class(limits).to_string()).await;
        assert_eq!((refused.status, refused.error().2), (400, "bad_value".into()));
        assert!(refused.text().contains(field), "{}", refused.text());
    }
    let defined = crate::desk::define(&world, "pingpong", class(json!({}))).await;
    assert_eq!(defined["definition"]["limits"]["hops"], 3, "{defined}");
    let message = json!({ "start": true, "limit": 100 });
    let done = crate::desk::push(&world, "pingpong/a", message).await;
    assert_eq!((&done["status"], &done["stats"]["messages"]), (&json!("truncated"), &json!(4)));
}

#[tokio::test]
async fn a_class_that_goes_leaves_nobody_waiting_for_it() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    native(&world, "counter", "counter").await;
    define(&world, "gone", json!({ "runtime": "native", "module": "counter", "mode": "manual" }))
        .await;
    let targets: Vec<String> =
        (0..30).map(|n| format!("gone/{}", n % 3)).chain(["counter/a".into()]).collect();
    let message = json!({ "targets": targets });
    let more = json!({ "maxDepth": 0, "await": "slot" });
    let open = push_with(&world, "fan/a", message, more).await.json();
    let path = format!("/api/v1/pushes/{}", open["push_id"].as_str().unwrap());
    crate::desk::until(|| async { world.get(&path).await.json()["stats"]["pending"] == 30 }).await;
    // One of them is done.
    push(&world, "gone/0", json!({})).await;
    let path = "/api/v1/processes/gone";
    let mut wire = world.connect().await;
    let stale = wire.ask_with("DELETE", path, "If-Match: \"7\"\r\n", "").await;
    assert_eq!((stale.status, stale.error().2), (409, "version_conflict".into()));
    assert_eq!(world.ask("DELETE", path, "").await.status, 204);
    let done = complete(&world, &open).await;
    assert_eq!((&done["status"], &done["stats"]["messages"]), (&json!("partial"), &json!(32)));
    assert_eq!(done["stats"]["pending"], 0, "{done}");
    assert_eq!(world.get(path).await.status, 404);
}
