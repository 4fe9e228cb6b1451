//! What a few processes must not do to all others, and to themselves.

use onrush_client::{Client, Message};
use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{complete, define, letters, native, process, push, push_with, slot, until};

#[tokio::test]
async fn any_number_of_classes_may_wait_for_work() {
    let world = World::new().await;
    for n in 0..70 {
        native(&world, &format!("class{n}"), "counter").await;
    }
    for n in 0..70 {
        let more = json!({ "timeoutMs": 10_000 });
        let answer = push_with(&world, &format!("class{n}/a"), json!({}), more).await;
        assert_eq!(answer.status, 200, "class{n}: {}", answer.text());
    }
}

#[tokio::test]
async fn stopped_processes_keep_no_others_waiting() {
    let world = World::new().await;
    let halts = json!({ "runtime": "native", "module": "faulty", "on_error": "halt" });
    define(&world, "faulty", halts).await;
    native(&world, "counter", "counter").await;
    for n in 0..70 {
        let name = format!("faulty/{n}");
        push(&world, &name, json!({ "poison": true })).await;
        let more = json!({ "await": "accepted" });
        assert_eq!(push_with(&world, &name, json!({}), more).await.status, 200);
    }
    let answer = push_with(&world, "counter/a", json!({}), json!({ "timeoutMs": 10_000 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // And those go on when they may.
    world.post("/api/v1/processes/faulty/69/resume", &json!({})).await;
    assert_eq!(slot(&world, "faulty/69", 1).await["output"], 1);
}

#[tokio::test]
async fn processes_that_send_to_a_full_queue_keep_no_others_waiting() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    let options = json!({ "queue": "narrow", "options": { "maxSize": 1 } });
    assert_eq!(world.post("/api/v1/configure", &options).await.status, 200);
    push(&world, "router/first", json!({ "to": "queue:narrow" })).await;
    for n in 0..70 {
        let message = json!({ "to": "queue:narrow", "n": n });
        let more = json!({ "await": "accepted" });
        let answer = push_with(&world, &format!("router/{n}"), message, more).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let answer = push_with(&world, "counter/a", json!({}), json!({ "timeoutMs": 10_000 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(process(&world, "router/0").await["evaluated"], 0, "nothing is left out");
    let wide = json!({ "queue": "narrow", "options": { "maxSize": 1_000 } });
    assert_eq!(world.post("/api/v1/configure", &wide).await.status, 200);
    for n in 0..70 {
        assert_eq!(slot(&world, &format!("router/{n}"), 0).await["status"], "ok");
    }
}

#[tokio::test]
async fn a_message_cannot_ask_for_more_memory_than_there_is() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    let message = json!({ "count": 1_000_000_000_000_i64, "target": "fan/x" });
    let done = push(&world, "fan/a", message).await;
    assert_eq!(done["error"]["code"], "outbox_too_large", "{done}");
    assert_eq!(push(&world, "fan/a", json!({ "count": 1 })).await["output"], json!({ "sent": 1 }));
}

#[tokio::test]
async fn a_key_that_has_no_room_in_the_store_is_refused() {
    let world = World::new().await;
    native(&world, "kv", "kv").await;
    native(&world, "ledger", "ledger").await;
    push(&world, "kv/a", json!({ "op": "set", "key": "k", "value": 1 })).await;
    let long = "k".repeat(70_000);
    for op in ["set", "get", "delete", "scan"] {
        let done = push(&world, "kv/a", json!({ "op": op, "key": long, "value": 2 })).await;
        assert_eq!(done["error"]["code"], "state_limit", "{op}: {done}");
    }
    let mint = json!({ "action": "mint", "account": long, "quantity": 1 });
    assert_eq!(push(&world, "ledger/a", mint).await["error"]["code"], "state_limit");
    let keys = "/api/v1/processes/kv/a/state";
    let before = world.get(keys).await.json()["keys"].clone();
    assert_eq!(before, json!([{ "key": "k", "value": 1 }]));
    let world = world.restart().await;
    assert_eq!(world.get(keys).await.json()["keys"], before);
}

#[tokio::test]
async fn a_state_has_an_end() {
    let world = World::new().await;
    let limits = json!({ "state_bytes": 1_000_000 });
    define(&world, "kv", json!({ "runtime": "native", "module": "kv", "limits": limits })).await;
    let set = |key: String, bytes: usize| {
        let world = &world;
        let message = json!({ "op": "set", "key": key, "value": "x".repeat(bytes) });
        async move { push(world, "kv/a", message).await }
    };
    for n in 0..9 {
        assert_eq!(set(format!("k{n}"), 100_000).await["status"], "ok");
    }
    for _ in 0..2 {
        assert_eq!(set("k9".into(), 100_000).await["error"]["code"], "state_limit");
        assert_eq!(set("k8".into(), 100_000).await["status"], "ok", "in place of another");
    }
    push(&world, "kv/a", json!({ "op": "delete", "key": "k0" })).await;
    assert_eq!(set("k9".into(), 100_000).await["status"], "ok");
    let world = world.restart().await;
    let set = |key: &'static str| {
        let world = &world;
        let message = json!({ "op": "set", "key": key, "value": "x".repeat(100_000) });
        async move { push(world, "kv/a", message).await }
    };
    assert_eq!(set("new").await["error"]["code"], "state_limit", "it is known for good");
    // What is written over without having been read is not counted twice in the end.
    for key in ["k1", "k2", "k3", "k4"] {
        assert_eq!(set(key).await["status"], "ok", "{key}");
    }
}

#[tokio::test]
async fn what_waits_for_its_class_comes_in_the_order_in_which_it_was_sent() {
    let world = World::new().await;
    let relay = json!({ "runtime": "native", "module": "router", "init": { "rules": { "*": "late/x" } },
        "unknown_target": { "park": 600_000 } });
    define(&world, "relay", relay).await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    for _ in 0..3 {
        push(&world, "router/a", json!({ "to": "counter/a" })).await;
    }
    // The cascade of the first one begins later in its log than that of the second.
    for (n, root) in ["router/a", "router/b"].into_iter().enumerate() {
        let more = json!({ "await": "accepted" });
        push_with(&world, root, json!({ "to": "relay/s", "n": n }), more).await;
        until(|| async { process(&world, "relay/s").await["slots"] == n + 1 }).await;
        assert_eq!(slot(&world, "relay/s", n as u64).await["outbox"][0]["status"], "parked");
    }
    native(&world, "late", "counter").await;
    until(|| async { process(&world, "late/x").await["slots"] == 2 }).await;
    let log = world.get("/api/v1/processes/late/x/slots").await.json();
    let came: Vec<&Value> =
        log["slots"].as_array().unwrap().iter().map(|it| &it["message"]["n"]).collect();
    assert_eq!(came, [&json!(0), &json!(1)], "{log}");
}

#[tokio::test]
async fn only_its_definition_makes_a_process_of_an_explicit_class() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    let explicit = json!({ "runtime": "native", "module": "counter", "create": "explicit" });
    define(&world, "strict", explicit).await;
    let done = push(&world, "router/r", json!({ "to": "strict/a" })).await;
    assert_eq!(done["status"], "partial", "{done}");
    let refused = slot(&world, "strict/a", 0).await;
    assert_eq!(
        (&refused["status"], &refused["error"]["code"]),
        (&json!("refused"), &json!("process_not_found"))
    );
    assert_eq!(process(&world, "strict/a").await["version"], 0);
    let items = json!([{ "queue": "strict", "partition": "b", "payload": {} }]);
    assert_eq!(world.push(items).await.status, 201);
    assert_eq!(slot(&world, "strict/b", 0).await["status"], "refused");
    let early = push_with(&world, "strict/a", json!({}), json!({})).await;
    assert_eq!((early.status, early.error().2), (404, "process_not_found".into()));
    push(&world, "strict/a", json!({ "type": "Process" })).await;
    assert_eq!(push(&world, "strict/a", json!({})).await["output"], 1);
}

#[tokio::test]
async fn bytes_whose_code_failed_are_a_letter_too() {
    let world = World::new().await;
    let keeps = json!({ "runtime": "native", "module": "kv", "on_error": "dlq" });
    define(&world, "kv", keeps).await;
    let client = Client::connect(&world.server.tcp_addr().to_string()).await.unwrap();
    let queue = client.queue("kv").partition("a");
    queue.push([Message::bytes(vec![0_u8, 159, 146, 150])]).await.unwrap();
    let failed = slot(&world, "kv/a", 0).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let kept = letters(&world, &failed["cascade"]).await;
    let letter = &kept[0];
    assert_eq!(
        (&letter["encoding"], &letter["message"]),
        (&json!("base64"), &json!("AJ+Slg==")),
        "{letter}"
    );
    let redrive = format!("/api/v1/letters/{}/redrive", letter["id"].as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    let again = slot(&world, "kv/a", 1).await;
    let kept = letters(&world, &again["cascade"]).await;
    assert_eq!(kept[0]["message"], "AJ+Slg==", "the same bytes");
}

#[tokio::test]
async fn what_comes_late_to_a_process_in_manual_mode_is_evaluated_with_its_cascade() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    let parks =
        json!({ "runtime": "native", "module": "router", "unknown_target": { "park": 600_000 } });
    define(&world, "parks", parks).await;
    let manual = json!({ "runtime": "native", "module": "counter", "mode": "manual" });
    define(&world, "manual", manual.clone()).await;
    let done = push(&world, "router/r", json!({ "to": "manual/a", "delay_ms": 20 })).await;
    assert_eq!(
        (&done["status"], &done["children"][0]["status"]),
        (&json!("ok"), &json!("ok")),
        "{done}"
    );
    let more = json!({ "await": "slot" });
    let parked = push_with(&world, "parks/p", json!({ "to": "late/a" }), more).await.json();
    let refused = push(&world, "router/r", json!({ "to": "later/a" })).await;
    define(&world, "late", manual.clone()).await;
    assert_eq!(complete(&world, &parked).await["children"][0]["output"], 1);
    define(&world, "later", manual).await;
    let letter = letters(&world, &refused["push_id"]).await[0]["id"].clone();
    let redrive = format!("/api/v1/letters/{}/redrive", letter.as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    assert_eq!(complete(&world, &refused).await["children"][0]["output"], 1);
    // But not deeper than whoever pushed wanted.
    let message = json!({ "to": "manual/b", "delay_ms": 1 });
    push_with(&world, "router/r", message, json!({ "maxDepth": 0 })).await;
    until(|| async { process(&world, "manual/b").await["slots"] == 1 }).await;
    assert_eq!(process(&world, "manual/b").await["evaluated"], 0);
}

#[tokio::test]
async fn a_push_may_lower_the_limits_of_its_class_and_not_raise_them() {
    let world = World::new().await;
    let limits = json!({ "hops": 5, "messages": 50 });
    let class = json!({ "runtime": "native", "module": "pingpong", "limits": limits });
    define(&world, "short", class).await;
    native(&world, "fan", "fan").await;
    for (key, asked, messages) in [
        ("a", json!({ "maxHops": 0 }), 6),
        ("b", json!({ "maxHops": 60 }), 6),
        ("c", json!({ "maxHops": 3 }), 4),
    ] {
        let message = json!({ "start": true, "limit": 100 });
        let done = push_with(&world, &format!("short/{key}"), message, asked).await.json();
        assert_eq!(
            (&done["status"], &done["stats"]["messages"]),
            (&json!("truncated"), &json!(messages)),
            "{done}"
        );
    }
    let limits = json!({ "messages": 10 });
    let class = json!({ "runtime": "native", "module": "fan", "limits": limits });
    define(&world, "few", class).await;
    let message = json!({ "count": 20, "class": "fan" });
    let done = push_with(&world, "few/a", message, json!({ "maxMessages": 1_000 })).await.json();
    assert_eq!(done["stats"]["messages"], 10, "{done}");
}

#[tokio::test]
async fn a_message_that_can_be_none_keeps_no_timers() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let source = "return { handle = function(state, msg, ctx)
        ctx.send { target = 'counter/big', delay_ms = 1, data = string.rep('x', 2000000) }
        ctx.send { target = 'counter/small', delay_ms = 50 }
    end }";
    define(&world, "guest", json!({ "runtime": "luau", "module": source })).await;
    let done = push(&world, "guest/a", json!({})).await;
    assert_eq!((&done["status"], &done["stats"]["dlq"]), (&json!("partial"), &json!(1)), "{done}");
    assert_eq!(done["children"][0]["error"]["code"], "payload_too_large");
    assert_eq!(done["children"][0]["error"]["status"], 413);
    assert_eq!(done["children"][1]["status"], "ok", "and the one behind it has come");
    let message = "x".repeat(2_000_000);
    let timer = json!({ "target": "counter/a", "message": message, "delayMs": 1 }).to_string();
    let refused = world.ask("PUT", "/api/v1/process-timers/big", &timer).await;
    assert_eq!((refused.status, refused.error().2), (413, "message_too_large".into()));
}

#[tokio::test]
async fn a_full_queue_keeps_only_what_goes_to_it() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    native(&world, "router", "router").await;
    let options = json!({ "queue": "narrow", "options": { "maxSize": 1 } });
    assert_eq!(world.post("/api/v1/configure", &options).await.status, 200);
    let refused = push(&world, "router/r", json!({ "to": "queue:nowhere" })).await;
    push(&world, "router/r", json!({ "to": "queue:narrow" })).await;
    for (id, target) in [("a", "queue:narrow"), ("b", "counter/b")] {
        let timer = json!({ "target": target, "message": {}, "everyMs": 50 }).to_string();
        let path = format!("/api/v1/process-timers/{id}");
        assert_eq!(world.ask("PUT", &path, &timer).await.status, 200);
    }
    until(|| async { process(&world, "counter/b").await["slots"].as_u64() > Some(3) }).await;
    // Redriving does not wait either.
    let options = json!({ "queue": "nowhere", "options": { "maxSize": 1 } });
    assert_eq!(world.post("/api/v1/configure", &options).await.status, 200);
    push(&world, "router/r", json!({ "to": "queue:nowhere" })).await;
    let letter = letters(&world, &refused["push_id"]).await[0]["id"].clone();
    let redrive = format!("/api/v1/letters/{}/redrive", letter.as_str().unwrap());
    let full = world.post(&redrive, &json!({})).await;
    assert_eq!((full.status, full.error().2), (429, "queue_full".into()));
}

#[tokio::test]
async fn a_message_that_was_deleted_is_passed_over() {
    let world = World::new().await;
    let manual = json!({ "runtime": "native", "module": "counter", "mode": "manual" });
    define(&world, "manual", manual).await;
    for n in 0..5 {
        let body = json!({ "message": {}, "transactionId": format!("m{n}") });
        let answer = world.post("/api/v1/processes/manual/a/schedule", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let items = world.get("/api/v1/messages?queue=manual").await.json();
    let message =
        items["messages"].as_array().unwrap().iter().find(|it| it["transactionId"] == "m2");
    let partition = message.unwrap()["partitionId"].as_str().unwrap();
    let path = format!("/api/v1/messages/{partition}/m2");
    assert_eq!(world.ask("DELETE", &path, "").await.status, 200);
    let done = push(&world, "manual/a", json!({})).await;
    assert_eq!((&done["slot"], &done["output"]), (&json!(5), &json!(5)), "{done}");
    let none = world.get("/api/v1/processes/manual/a/slots/2").await;
    assert_eq!(none.status, 202, "{}", none.text());
}

#[tokio::test]
async fn letters_of_limits_and_of_first_messages_can_be_sent_after_all() {
    let world = World::new().await;
    native(&world, "pingpong", "pingpong").await;
    let message = json!({ "start": true, "limit": 100 });
    let done = push_with(&world, "pingpong/a", message, json!({ "maxHops": 3 })).await.json();
    let letter = &letters(&world, &done["push_id"]).await[0];
    assert_eq!((&letter["code"], &letter["target"]), (&json!("hop_limit"), &json!("pingpong/a")));
    let redrive = format!("/api/v1/letters/{}/redrive", letter["id"].as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    assert_eq!(slot(&world, "pingpong/a", 4).await["status"], "ok");
    let keeps = json!({ "runtime": "native", "module": "faulty", "on_error": "dlq" });
    define(&world, "faulty", keeps).await;
    let failed = push(&world, "faulty/a", json!({ "poison": true })).await;
    native(&world, "faulty", "counter").await;
    let letter = &letters(&world, &failed["push_id"]).await[0];
    let redrive = format!("/api/v1/letters/{}/redrive", letter["id"].as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    assert_eq!(slot(&world, "faulty/a", 1).await["status"], "ok");
    let after = complete(&world, &failed).await;
    assert_eq!((&after["stats"]["pending"], &after["stats"]["dlq"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_queue_that_cannot_be_sealed_is_a_target_that_takes_nothing() {
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let world = World::with(|settings| {
        settings.encryption.key = onrush::config::Secret::new(key);
    })
    .await;
    let options = json!({ "queue": "secret", "options": { "encryptionEnabled": true } });
    assert_eq!(world.post("/api/v1/configure", &options).await.status, 200);
    let world = world
        .restart_with(|settings| settings.encryption.key = onrush::config::Secret::default())
        .await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    let done = push(&world, "router/r", json!({ "to": ["queue:secret", "counter/a"] })).await;
    assert_eq!(done["status"], "partial", "{done}");
    assert_eq!(done["children"][0]["error"]["code"], "target_closed");
    assert_eq!(done["children"][1]["status"], "ok");
}
