//! The ways in and out: what a push may say, what targets there are, and what each refusal is.

use onrush_client::{Client, Message};
use serde_json::{Value, json};

use crate::client::{Answer, World};
use crate::desk::{
    complete, define, letters, native, process, push, push_with, slot, state, until,
};

#[tokio::test]
async fn a_push_waits_for_as_much_as_it_says() {
    let world = World::new().await;
    native(&world, "sleeper", "sleeper").await;
    native(&world, "p", "ping_server").await;
    // For the first answer, though something else is pending still.
    let message = json!({ "start": "p/replier" });
    let replied = push_with(&world, "p/sender", message, json!({ "await": "reply" })).await;
    assert_eq!((replied.status, &replied.json()["reply"]), (200, &json!({ "got": "pong" })));
    // Nobody answers: then it waits for the end.
    let silent =
        push_with(&world, "sleeper/a", json!({}), json!({ "await": "reply" })).await.json();
    assert_eq!((&silent["complete"], &silent["reply"]), (&json!(true), &Value::Null));
    let slow = json!({ "ms": 1_500, "to": "sleeper/c" });
    let accepted =
        push_with(&world, "sleeper/b", slow.clone(), json!({ "pushMode": "async" })).await;
    assert_eq!((accepted.status, &accepted.json()["complete"]), (200, &json!(false)));
    let sync =
        push_with(&world, "sleeper/d", json!({ "ms": 10 }), json!({ "push-mode": "sync" })).await;
    assert_eq!((sync.status, &sync.json()["complete"]), (200, &json!(true)));
    // What is said last says more than how.
    let both = json!({ "pushMode": "sync", "await": "accepted" });
    let both = push_with(&world, "sleeper/e", slow, both).await.json();
    assert_eq!(both["complete"], false, "{both}");
}

#[tokio::test]
async fn a_tree_is_read_in_parts() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    native(&world, "counter", "counter").await;
    let message = json!({ "count": 25, "class": "counter", "prefix": "c" });
    let done = push(&world, "fan/a", message).await;
    let id = done["push_id"].as_str().unwrap();
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/pushes/{id}?limit=11&depth=0{cursor}");
        let page = world.get(&path).await.json();
        let children = page["children"].as_array().unwrap();
        assert!(children.len() <= 10, "{page}");
        seen.extend(children.iter().map(|child| child["index"].as_u64().unwrap()));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());
    for wrong in ["limit=0", "limit=1001", "depth=x", "cursor=here", "wait=-1"] {
        let refused = world.get(&format!("/api/v1/pushes/{id}?{wrong}")).await;
        assert_eq!(refused.status, 400, "{wrong}: {}", refused.text());
    }
}

#[tokio::test]
async fn an_answer_has_an_end_in_bytes() {
    let world = World::new().await;
    let source = "return { handle = function(state, msg, ctx)
        if msg.root then
            for n = 1, 60 do ctx.send { target = `wide/{n}` } end
        end
        return string.rep('x', 200000)
    end }";
    define(&world, "wide", json!({ "runtime": "luau", "module": source })).await;
    let done =
        push_with(&world, "wide/root", json!({ "root": true }), json!({ "resultDepth": 9 })).await;
    assert!(done.body.len() < 9 << 20, "{} bytes", done.body.len());
    let done = done.json();
    let cut = |child: &&Value| child["output"].is_null() && child["output_truncated"] == true;
    let children = done["children"].as_array().unwrap();
    assert_eq!(children.len(), 60);
    let count = children.iter().filter(cut).count();
    assert!((1..60).contains(&count), "{count} of them are cut");
    // Each of them is had by itself.
    let whole = slot(&world, "wide/60", 0).await;
    assert_eq!(whole["output"].as_str().map(str::len), Some(200_000));
    let shallow = push_with(&world, "wide/root", json!({ "root": true }), json!({})).await;
    assert!(shallow.body.len() < 400_000, "{} bytes", shallow.body.len());
}

#[tokio::test]
async fn entries_go_where_their_targets_say() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let aliases = json!({ "runtime": "native", "module": "router",
        "aliases": { "bank": "counter/bank", "out": "queue:out/p", "loop": "@bank" } });
    define(&world, "router", aliases).await;
    world.post("/api/v1/configure", &json!({ "queue": "out" })).await;
    let ours = "queue:$process/desk";
    let to =
        json!(["@bank", "@out", "queue:out", "queue:counter/q", "@loop", "@none", "$what", ours]);
    let done = push(&world, "router/r", json!({ "to": to, "n": 1 })).await;
    let children = done["children"].as_array().unwrap();
    let statuses: Vec<&str> = children.iter().map(|it| it["status"].as_str().unwrap()).collect();
    let expected = ["ok", "queued", "queued", "ok", "refused", "refused", "refused", "refused"];
    assert_eq!(statuses, expected, "{done}");
    for child in &children[4..] {
        assert_eq!(
            (&child["error"]["code"], &child["error"]["status"]),
            (&json!("target_not_found"), &json!(404))
        );
    }
    assert_eq!(children[0]["process"], "counter/bank");
    for partition in ["p", "Default"] {
        let popped =
            world.get(&format!("/api/v1/pop/queue/out/partition/{partition}")).await.json();
        assert_eq!(popped["messages"][0]["data"], json!({ "n": 1 }), "{partition}: {popped}");
    }
    // An answer goes to whom the message says.
    native(&world, "p", "ping_server").await;
    let ask = json!({ "target": "p/asked", "action": "Reply", "reply_to": "counter/answers" });
    let routed = push_entry(&world, ask).await;
    assert_eq!(routed["children"][0]["children"][0]["process"], "counter/answers", "{routed}");
    assert_eq!(state(&world, "counter/answers", "count").await, 1);
}

/// Lets a process send an entry that says of itself what `entry` says.
async fn push_entry(world: &World, entry: Value) -> Value {
    let done = push_entry_with(world, "entry/e", entry, json!({})).await;
    assert_eq!(done.status, 200, "{}", done.text());
    done.json()
}

async fn push_entry_with(world: &World, process: &str, entry: Value, more: Value) -> Answer {
    let source = format!(
        "return {{ handle = function(state, msg, ctx)
            return ctx.send(json.decode([==[{entry}]==]))
        end }}"
    );
    define(world, "entry", json!({ "runtime": "luau", "module": source })).await;
    push_with(world, process, json!({}), more).await
}

#[tokio::test]
async fn entries_may_say_how_they_go() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let manual = json!({ "runtime": "native", "module": "counter", "mode": "manual" });
    define(&world, "manual", manual).await;
    native(&world, "router", "router").await;
    // First state, of a process that must be new.
    let spawn = json!({ "to": "counter/new", "spawn_init": { "count": 40 } });
    let made = push(&world, "router/r", spawn.clone()).await;
    assert_eq!(made["children"][0]["status"], "ok", "{made}");
    assert_eq!(state(&world, "counter/new", "count").await, 41);
    let again = push(&world, "router/r", spawn).await;
    assert_eq!(again["status"], "partial", "{again}");
    let refused = slot(&world, "counter/new", 1).await;
    assert_eq!(refused["error"]["code"], "process_exists", "{refused}");
    assert_eq!(state(&world, "counter/new", "count").await, 41);
    // An id of its own: seen in the log of the target.
    push_entry(&world, json!({ "target": "counter/own", "transaction_suffix": "mine" })).await;
    let log = world.get("/api/v1/processes/counter/own/slots").await.json();
    let id = log["slots"][0]["transaction_id"].as_str().unwrap();
    assert!(id.starts_with("p:") && id.ends_with(":s:mine"), "{id}");
    // Later, and only if it is not too late by then.
    let late = push_entry(&world, json!({ "target": "counter/late", "delay_ms": 30 })).await;
    let (sent, came) = (slot(&world, "entry/e", 1).await, slot(&world, "counter/late", 0).await);
    assert_eq!(late["status"], "ok", "{late}");
    let waited = came["pushed_ms"].as_u64().unwrap() - sent["evaluated_ms"].as_u64().unwrap();
    assert!(waited >= 29, "{waited} ms");
    let short = json!({ "target": "manual/short", "ttl_ms": 1 });
    let more = json!({ "await": "slot", "maxDepth": 0 });
    push_entry_with(&world, "entry/f", short, more).await;
    until(|| async { process(&world, "manual/short").await["slots"] == 1 }).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let now = world.get("/api/v1/processes/manual/short/now").await.json();
    assert_eq!(
        (&now["status"], &now["error"]["code"]),
        (&json!("expired"), &json!("expired")),
        "{now}"
    );
    let kept = letters(&world, &now["cascade"]).await;
    assert_eq!(kept[0]["code"], "expired");
}

#[tokio::test]
async fn batches_go_to_processes_as_to_any_queue() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let item = |n: u64| {
        json!({ "queue": "counter", "partition": "a", "payload": { "add": n },
        "transactionId": format!("t{n}") })
    };
    let answer = world.push(json!([item(1), item(2), item(3), item(2)])).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(slot(&world, "counter/a", 2).await["output"], 6);
    assert_eq!(process(&world, "counter/a").await["slots"], 3, "one was there before");
    // Nobody but the server says where a message comes from.
    let client = Client::connect(&world.server.tcp_addr().to_string()).await.unwrap();
    let queue = client.queue("counter").partition("a");
    let forged = Message::json(&json!({})).header("$onrush", "{}");
    let refused = queue.push([forged]).await.expect_err("a header of ours");
    assert!(refused.to_string().contains("$onrush"), "{refused}");
    let own = Message::json(&json!({})).transaction_id("p:1:0:1");
    let refused = queue.push([own]).await.expect_err("an id of ours");
    assert!(refused.to_string().contains("p:"), "{refused}");
    let more = json!({ "transactionId": "p:1:0:1" });
    let refused = push_with(&world, "counter/a", json!({}), more).await;
    assert_eq!((refused.status, refused.error().2), (400, "reserved_field".into()));
    assert_eq!(process(&world, "counter/a").await["slots"], 3);
}

#[tokio::test]
async fn a_script_is_a_class() {
    let world = World::new().await;
    let source = include_str!("../../examples/processes/luau/counter.luau");
    define(&world, "visits", json!({ "runtime": "luau", "module": source })).await;
    assert_eq!(push(&world, "visits/a", json!({ "by": 2 })).await["output"], 2);
    let world = world.restart().await;
    let done = push(&world, "visits/a", json!({ "by": 40 })).await;
    assert_eq!(done["output"], 42, "{done}");
    assert!(done["fuel"].as_u64().unwrap() > 0);
    assert_eq!(state(&world, "visits/a", "count").await, 42);
    let broken = json!({ "runtime": "luau", "module": "return {" }).to_string();
    let refused = world.ask("PUT", "/api/v1/processes/broken", &broken).await;
    assert_eq!((refused.status, refused.error().2), (422, "module_invalid".into()));
}

#[tokio::test]
async fn pv_10_a_module_of_web_assembly_is_a_class() {
    use base64::Engine as _;
    let world = World::new().await;
    let module = include_bytes!("../../examples/processes/wasm/fac.wasm");
    let module = base64::engine::general_purpose::STANDARD.encode(module);
    define(&world, "fac", json!({ "runtime": "wasm", "module": module })).await;
    for (n, expected) in [(5, 120), (6, 720)] {
        assert_eq!(push(&world, "fac/any", json!(n)).await["output"], expected);
    }
    let refused = push(&world, "fac/any", json!(21)).await;
    assert_eq!(refused["error"]["code"], "guest_error", "{refused}");
}

#[tokio::test]
async fn a_process_that_is_stopped_takes_only_messages_for_later() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    push(&world, "counter/a", json!({})).await;
    let paused =
        world.post("/api/v1/processes/counter/a/pause", &json!({ "reason": "a break" })).await;
    assert_eq!(paused.json()["stopped"], "a break");
    for level in ["slot", "reply", "cascade"] {
        let refused = push_with(&world, "counter/a", json!({}), json!({ "await": level })).await;
        assert_eq!((refused.status, refused.error().2), (409, "process_stopped".into()), "{level}");
        assert!(refused.text().contains("a break"), "{}", refused.text());
    }
    assert_eq!(process(&world, "counter/a").await["slots"], 1, "nothing was taken");
    let later = push_with(&world, "counter/a", json!({}), json!({ "await": "accepted" })).await;
    assert_eq!(later.status, 200);
    let body = json!({ "message": {} });
    assert_eq!(world.post("/api/v1/processes/counter/a/schedule", &body).await.status, 200);
    let open = world.post("/api/v1/processes/counter/a/slots/1/push", &json!({})).await;
    assert_eq!((open.status, open.error().2), (409, "process_stopped".into()));
    let done = world.post("/api/v1/processes/counter/a/slots/0/push", &json!({})).await;
    assert_eq!(done.status, 200, "what is evaluated is told");
    world.post("/api/v1/processes/counter/a/resume", &json!({})).await;
    assert_eq!(complete(&world, &later.json()).await["output"], 2);
    assert_eq!(slot(&world, "counter/a", 2).await["output"], 3);
}

#[tokio::test]
async fn a_push_is_called_off_while_something_of_it_is_pending() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    let manual = json!({ "runtime": "native", "module": "counter", "mode": "manual" });
    define(&world, "manual", manual).await;
    let delete = |push: &Value| {
        let path = format!("/api/v1/pushes/{}", push["push_id"].as_str().unwrap());
        let world = &world;
        async move { world.ask("DELETE", &path, "").await }
    };
    let done = push(&world, "router/r", json!({ "to": "manual/done" })).await;
    let late: Answer = delete(&done).await;
    assert_eq!((late.status, late.error().2), (409, "push_complete".into()));
    let more = json!({ "await": "slot", "maxDepth": 0 });
    let open = push_with(&world, "router/r", json!({ "to": "manual/a" }), more).await.json();
    for _ in 0..2 {
        let cancelled = delete(&open).await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    }
    let now = world.get("/api/v1/processes/manual/a/now").await.json();
    assert_eq!(now["status"], "cancelled", "{now}");
    assert_eq!(state(&world, "manual/a", "count").await, Value::Null);
    assert_eq!(delete(&open).await.status, 200, "as it was called off");
    let path = "/api/v1/processes/router/r/slots/1/push";
    let told = world.post(path, &json!({})).await;
    assert_eq!((told.status, &told.json()["status"]), (200, &json!("cancelled")));
    let strict = world.post(&format!("{path}?strict=1"), &json!({})).await;
    assert_eq!((strict.status, &strict.json()["status"]), (409, &json!("cancelled")));
}

#[tokio::test]
async fn a_failure_is_a_failed_answer_where_that_is_asked_for() {
    let world = World::new().await;
    native(&world, "faulty", "faulty").await;
    let path = "/api/v1/processes/faulty/a/push";
    let poison = json!({ "message": { "poison": true } });
    assert_eq!(world.post(path, &poison).await.status, 200);
    for query in ["strict=1", "strict=true"] {
        let strict = world.post(&format!("{path}?{query}"), &poison).await;
        assert_eq!((strict.status, &strict.json()["error"]["code"]), (424, &json!("guest_error")));
    }
    assert_eq!(world.post(&format!("{path}?strict=0"), &poison).await.status, 200);
    let slot = world.post("/api/v1/processes/faulty/a/slots/0/push?strict=1", &json!({})).await;
    assert_eq!(slot.status, 424);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let message = json!({ "text": "x".repeat((4 << 20) + 1) });
    let refused = push_with(&world, "counter/a", message, json!({})).await;
    assert_eq!((refused.status, refused.error().2), (413, "message_too_large".into()));
    let missing = world.get("/api/v1/processes/counter/a").await;
    assert_eq!(missing.status, 404, "nothing was taken");
}

#[tokio::test]
async fn state_is_read_in_pages() {
    let world = World::new().await;
    native(&world, "kv", "kv").await;
    for n in 0..12 {
        let key = format!("{}/{n:02}", if n % 3 == 0 { "a" } else { "b" });
        push(&world, "kv/p", json!({ "op": "set", "key": key, "value": n })).await;
    }
    let path = "/api/v1/processes/kv/p/state?prefix=b/&limit=3";
    let first = world.get(path).await.json();
    let keys = |page: &Value| -> Vec<String> {
        let keys = page["keys"].as_array().unwrap().iter();
        keys.map(|it| it["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&first), ["b/01", "b/02", "b/04"]);
    let after = first["after"].as_str().unwrap();
    let second = world.get(&format!("{path}&after={after}")).await.json();
    assert_eq!(keys(&second), ["b/05", "b/07", "b/08"]);
    let rest = world.get(&format!("{path}&after=b/08")).await.json();
    assert_eq!((keys(&rest).len(), &rest["after"]), (2, &Value::Null));
    let scanned = push(&world, "kv/p", json!({ "op": "scan", "key": "a/" })).await;
    assert_eq!(scanned["output"].as_object().unwrap().len(), 4);
}

#[tokio::test]
async fn pages_of_slots_end_where_it_is_known_what_became_of_them() {
    let world = World::new().await;
    native(&world, "echo", "echo").await;
    let text = "x".repeat(250_000);
    for _ in 0..24 {
        push(&world, "echo/a", json!({ "text": text })).await;
    }
    let (mut from, mut seen) = (0, 0);
    loop {
        let path = format!("/api/v1/processes/echo/a/slots?from={from}");
        let page = world.get(&path).await.json();
        for slot in page["slots"].as_array().unwrap() {
            assert_eq!((&slot["slot"], &slot["status"]), (&json!(seen), &json!("ok")));
            seen += 1;
        }
        from = page["next"].as_u64().unwrap();
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, 24);
}

#[tokio::test]
async fn a_push_says_which_trace_it_is_part_of() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    world.post("/api/v1/configure", &json!({ "queue": "out" })).await;
    let trace = "019a0c11-7fe8-7001-9999-0123456789ab";
    let message = json!({ "to": ["counter/a", "queue:out", "late/a"] });
    let done = push_with(&world, "router/r", message, json!({ "traceId": trace })).await.json();
    assert_eq!(done["trace_id"], trace, "{done}");
    assert_eq!(slot(&world, "router/r", 0).await["trace_id"], trace);
    assert_eq!(slot(&world, "counter/a", 0).await["trace_id"], trace, "and so is what follows");
    let found = world.get("/api/v1/messages?queue=out").await.json();
    assert_eq!(found["messages"][0]["traceId"], trace, "{found}");
    // Also where it was refused first.
    native(&world, "late", "counter").await;
    let letter = letters(&world, &done["push_id"]).await[0]["id"].clone();
    let redrive = format!("/api/v1/letters/{}/redrive", letter.as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    assert_eq!(slot(&world, "late/a", 0).await["trace_id"], trace);
    for wrong in [json!("abc"), json!(7)] {
        let refused = push_with(&world, "router/r", json!({}), json!({ "traceId": wrong })).await;
        assert_eq!((refused.status, refused.error().2), (400, "bad_control_value".into()));
    }
    assert_eq!(process(&world, "router/r").await["slots"], 1);
}
