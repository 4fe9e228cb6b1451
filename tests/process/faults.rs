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
    let kept = letters(&world, &done["push_id"]).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        (&kept[0]["code"], &kept[0]["target"], &kept[0]["from"]),
        (&json!("process_not_found"), &json!("strict/a"), &json!("router/r"))
    );
    let items = json!([{ "queue": "strict", "partition": "b", "payload": {} }]);
    assert_eq!(world.push(items).await.status, 201);
    assert_eq!(slot(&world, "strict/b", 0).await["status"], "refused");
    let early = push_with(&world, "strict/a", json!({}), json!({})).await;
    assert_eq!((early.status, early.error().2), (404, "process_not_found".into()));
    push(&world, "strict/a", json!({ "type": "Process" })).await;
    assert_eq!(push(&world, "strict/a", json!({})).await["output"], 1);
    // What was refused is sent after all.
    let redrive = format!("/api/v1/letters/{}/redrive", kept[0]["id"].as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    assert_eq!(slot(&world, "strict/a", 3).await["output"], 2);
    assert_eq!(complete(&world, &done).await["stats"]["dlq"], 0);
}

#[tokio::test]
async fn what_a_class_takes_from_nobody_is_kept_where_a_process_sent_it() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    let picky =
        json!({ "runtime": "native", "module": "counter", "accept_from": ["process:bank/*"] });
    define(&world, "picky", picky).await;
    let done = push(&world, "router/r", json!({ "to": "picky/a", "n": 7 })).await;
    assert_eq!((&done["status"], &done["stats"]["dlq"]), (&json!("partial"), &json!(1)), "{done}");
    let kept = letters(&world, &done["push_id"]).await;
    assert_eq!(
        (&kept[0]["code"], &kept[0]["message"]),
        (&json!("not_accepted"), &json!({ "n": 7 })),
        "{kept:?}"
    );
    // From a client by way of a queue it is no letter: the record says what became of it.
    let items = json!([{ "queue": "picky", "partition": "b", "payload": {} }]);
    assert_eq!(world.push(items).await.status, 201);
    let refused = slot(&world, "picky/b", 0).await;
    assert_eq!(refused["status"], "refused");
    assert_eq!(letters(&world, &refused["cascade"]).await, Vec::<Value>::new());
}

#[tokio::test]
async fn an_id_that_a_guest_gives_twice_sends_once_and_ends_the_cascade() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let source = "return { handle = function(state, msg, ctx)
        for n = 1, 3 do
            ctx.send { target = 'counter/a', add = n, transaction_suffix = 'same' }
        end
        ctx.send { target = 'counter/b', add = 1, transaction_suffix = 'same' }
        ctx.send { target = 'counter/a', delay_ms = 1, add = 9, transaction_suffix = 'same' }
    end }";
    define(&world, "twice", json!({ "runtime": "luau", "module": source })).await;
    let done = push(&world, "twice/a", json!({})).await;
    let children = done["children"].as_array().unwrap();
    let statuses: Vec<&str> = children.iter().map(|it| it["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["ok", "refused", "refused", "ok", "refused"], "{done}");
    assert_eq!(
        (&children[1]["error"]["code"], &children[1]["error"]["status"]),
        (&json!("duplicate"), &json!(409))
    );
    assert_eq!(process(&world, "counter/a").await["slots"], 1);
    let kept = letters(&world, &done["push_id"]).await;
    assert_eq!(kept.len(), 3);
    let redrive = format!("/api/v1/letters/{}/redrive", kept[0]["id"].as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    let after = complete(&world, &done).await;
    assert_eq!((&after["stats"]["pending"], &after["stats"]["dlq"]), (&json!(0), &json!(2)));
    assert_eq!(process(&world, "counter/a").await["slots"], 2, "sent after all");
}

#[tokio::test]
async fn no_client_takes_the_id_of_what_a_process_will_send() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    world.post("/api/v1/configure", &json!({ "queue": "out" })).await;
    push(&world, "router/r", json!({ "to": "queue:out" })).await;
    let ids = || async {
        let found = world.get("/api/v1/messages?queue=out").await.json();
        let ids = found["messages"].as_array().unwrap().iter();
        let mut ids: Vec<String> =
            ids.map(|it| it["transactionId"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let first = ids().await[0].clone();
    assert!(first.starts_with("p:") && first.ends_with(":0:1"), "{first}");
    // What the next slot will send there.
    let next = first.replace(":0:1", ":1:1");
    let items = json!([{ "queue": "out", "payload": {}, "transactionId": next }]);
    assert_eq!(world.push(items.clone()).await.json()["messages"][0]["status"], "pushed");
    let done = push(&world, "router/r", json!({ "to": "queue:out" })).await;
    assert_eq!(done["children"][0]["status"], "queued", "{done}");
    assert_eq!(ids().await, [first, next.clone(), next], "nothing was swallowed");
    // And it is no client's to be one that was there before.
    assert_eq!(world.push(items).await.json()["messages"][0]["status"], "duplicate");
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
        ctx.send { target = 'counter/big', delay_ms = 1, data = string.rep('x', msg.bytes) }
        ctx.send { target = 'counter/small', delay_ms = 50 }
    end }";
    define(&world, "guest", json!({ "runtime": "luau", "module": source })).await;
    // A slot sends no more than a message may be.
    let done = push(&world, "guest/a", json!({ "bytes": 4 << 20 })).await;
    assert_eq!(done["error"]["code"], "outbox_too_large", "{done}");
    let done = push(&world, "guest/a", json!({ "bytes": (4 << 20) - 1_000 })).await;
    assert_eq!((&done["status"], &done["stats"]["dlq"]), (&json!("ok"), &json!(0)), "{done}");
    assert_eq!(done["children"][1]["status"], "ok", "and the one behind it has come");
    let message = "x".repeat(4 << 20);
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

/// Processes whose code takes longer than anything else in a test.
async fn sleepers(world: &World, class: &str, count: u64) {
    for n in 0..count {
        let more = json!({ "await": "accepted" });
        let answer = push_with(world, &format!("{class}/{n}"), json!({ "ms": 10_000 }), more).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn classes_whose_code_is_slow_leave_others_their_turn() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    for class in ["slow", "slower"] {
        native(&world, class, "sleeper").await;
        sleepers(&world, class, 40).await;
    }
    assert_eq!(push(&world, "counter/a", json!({})).await["output"], 1);
    for name in ["slow/0", "slower/0"] {
        assert_eq!(process(&world, name).await["evaluated"], 0, "{name} sleeps still");
    }
}

#[tokio::test]
async fn what_a_process_hands_on_to_a_slow_class_leaves_others_their_turn() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    native(&world, "router", "router").await;
    native(&world, "slow", "sleeper").await;
    // Those that are there and idle are handed on.
    for n in 0..96 {
        push(&world, &format!("slow/{n}"), json!({ "ms": 0 })).await;
    }
    for n in 0..12 {
        let to: Vec<String> = (0..8).map(|at| format!("slow/{}", 8 * n + at)).collect();
        let message = json!({ "to": to, "ms": 10_000 });
        let more = json!({ "await": "slot" });
        push_with(&world, &format!("router/{n}"), message, more).await;
    }
    assert_eq!(push(&world, "counter/a", json!({})).await["output"], 1);
    assert_eq!(process(&world, "slow/0").await["evaluated"], 1, "it sleeps still");
}

#[tokio::test]
async fn what_was_asked_of_processes_in_manual_mode_is_done_by_the_next_server() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    let manual = json!({ "runtime": "native", "module": "sleeper", "mode": "manual" });
    define(&world, "manual", manual).await;
    let accepted = json!({ "await": "accepted" });
    let mut pushes = Vec::new();
    for n in 0..4 {
        let message = json!({ "ms": 500, "n": n });
        let pushed = push_with(&world, "manual/a", message, accepted.clone()).await;
        pushes.push(pushed.json());
    }
    let message = json!({ "to": ["manual/b", "manual/a"], "ms": 500 });
    pushes.push(push_with(&world, "router/r", message, json!({ "await": "slot" })).await.json());
    let body = json!({ "message": {} });
    let scheduled = world.post("/api/v1/processes/manual/c/schedule", &body).await;
    assert_eq!(scheduled.status, 200);
    let world = world.restart().await;
    for pushed in &pushes {
        assert_eq!(complete(&world, pushed).await["status"], "ok");
    }
    assert_eq!(process(&world, "manual/c").await["evaluated"], 0, "nobody asked for it");
}

#[tokio::test]
async fn what_waits_on_several_pages_keeps_its_order_when_its_class_comes() {
    let world = World::new().await;
    let parks = json!({ "runtime": "native", "module": "fan",
        "unknown_target": { "park": 600_000 } });
    define(&world, "source", parks).await;
    let message = json!({ "count": 1_000, "target": "late/x" });
    let more = json!({ "await": "slot" });
    let parked = push_with(&world, "source/a", message, more).await.json();
    assert_eq!(parked["stats"]["pending"], 1_000, "{}", parked["stats"]);
    // Wherever the walk over what waits is by now.
    native(&world, "late", "counter").await;
    until(|| async { process(&world, "late/x").await["slots"] == 1_000 }).await;
    let log = world.get("/api/v1/processes/late/x/slots?limit=1000").await.json();
    let slots = log["slots"].as_array().unwrap();
    let came: Vec<u64> = slots.iter().filter_map(|it| it["message"]["n"].as_u64()).collect();
    assert_eq!(came, (1..=1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn bytes_that_were_refused_are_not_shown_as_a_text() {
    let world = World::new().await;
    let source = "return { handle = function(state, msg, ctx)
        ctx.send { target = 'nowhere/a', encoding = 'base64', body = 'AJ+Slg==' }
        ctx.send { target = 'nowhere/a', body = 'AJ+Slg==' }
    end }";
    define(&world, "guest", json!({ "runtime": "luau", "module": source })).await;
    let done = push(&world, "guest/a", json!({})).await;
    let kept = letters(&world, &done["push_id"]).await;
    assert_eq!((&kept[0]["encoding"], &kept[1]["encoding"]), (&json!("base64"), &json!("json")));
    let entry = |index: u32| {
        let path = format!("/api/v1/processes/guest/a/slots/0/outbox/{index}");
        let world = &world;
        async move { world.get(&path).await.json() }
    };
    assert_eq!(entry(1).await["message"], Value::Null);
    assert_eq!(entry(2).await["message"], json!({ "body": "AJ+Slg==" }));
}
