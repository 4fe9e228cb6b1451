//! XG-01 to XG-14: what such systems do not do by themselves.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::client::{World, request};
use crate::desk::{complete, define, letters, native, process, push, push_with, slot, state};

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
    let strict =
        push_with(&world, "faulty/a", json!({ "poison": 1 }), json!({ "strict": true })).await;
    assert_eq!(strict.status, 424, "{}", strict.text());
}

#[tokio::test]
async fn xg_05_a_cycle_ends_at_its_hop_limit_and_is_kept() {
    let world = World::new().await;
    for (class, other) in [("a", "b/1"), ("b", "a/1")] {
        let init = json!({ "rules": { "*": other } });
        let class_of = json!({ "runtime": "native", "module": "router", "init": init });
        define(&world, class, class_of).await;
    }
    let done = push(&world, "a/1", json!({ "n": 1 })).await;
    assert_eq!((&done["status"], &done["complete"]), (&json!("truncated"), &json!(true)), "{done}");
    assert_eq!((&done["stats"]["messages"], &done["stats"]["dlq"]), (&json!(65), &json!(1)));
    let slots = |name: &'static str| {
        let world = &world;
        async move { process(world, name).await["slots"].clone() }
    };
    assert_eq!((slots("a/1").await, slots("b/1").await), (json!(33), json!(32)));
    let kept = letters(&world, &done["push_id"]).await;
    assert_eq!(kept.len(), 1);
    let letter = &kept[0];
    assert_eq!((&letter["code"], &letter["depth"]), (&json!("hop_limit"), &json!(65)), "{letter}");
    assert_eq!((&letter["from"], &letter["target"]), (&json!("a/1"), &json!("b/1")));
    // The way that led to it, from the first message on.
    let path = format!("/api/v1/letters/{}", letter["id"].as_str().unwrap());
    let whole = world.get(&path).await.json();
    let way = whole["path"].as_array().unwrap();
    assert_eq!(way.len(), 65, "{whole}");
    for (n, step) in way.iter().enumerate() {
        let (process, slot) = (["a/1", "b/1"][n % 2], n / 2);
        assert_eq!((&step["process"], &step["slot"]), (&json!(process), &json!(slot)), "{whole}");
    }
    assert_eq!(way[64]["message_id"], letter["parent"]);
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
async fn xg_06_a_fan_out_of_fan_outs_ends_at_its_message_limit() {
    let world = World::new().await;
    // Each of two hundred would send two hundred.
    let source = "return { handle = function(state, msg, ctx)
        if msg.level > 2 then return end
        for n = 1, 200 do
            ctx.send { target = `tree/{msg.level}-{n}`, level = msg.level + 1 }
        end
    end }";
    define(&world, "tree", json!({ "runtime": "luau", "module": source })).await;
    let more = json!({ "maxMessages": 1_000, "timeoutMs": 300_000 });
    let pushed = push_with(&world, "tree/root", json!({ "level": 1 }), more).await.json();
    let done = complete(&world, &pushed).await;
    assert_eq!((&done["status"], &done["stats"]["messages"]), (&json!("truncated"), &json!(1_000)));
    assert_eq!(done["stats"]["errors"], 0, "{}", done["stats"]);
    let asked = 200 * 200 + 200 + 1;
    assert_eq!(done["stats"]["dlq"], asked - 1_000, "what did not go is kept");
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
    assert_eq!(
        (&open["complete"], &open["stats"]["pending"]),
        (&json!(false), &json!(1)),
        "{open}"
    );
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
        let (version, output) = if n < 3 { (1, json!(n + 1)) } else { (2, json!({ "n": n })) };
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
async fn xg_13_a_first_message_that_is_called_off_is_not_evaluated() {
    let world = World::new().await;
    native(&world, "sleeper", "sleeper").await;
    native(&world, "counter", "counter").await;
    let manual = json!({ "runtime": "native", "module": "counter", "mode": "manual" });
    define(&world, "manual", manual).await;
    let accepted = json!({ "await": "accepted" });
    let cancel = |push: &Value| {
        let path = format!("/api/v1/pushes/{}", push["push_id"].as_str().unwrap());
        let world = &world;
        async move { world.ask("DELETE", &path, "").await }
    };
    // One that waits in a process that is stopped.
    push(&world, "counter/a", json!({})).await;
    world.post("/api/v1/processes/counter/a/pause", &json!({})).await;
    let waits = push_with(&world, "counter/a", json!({}), accepted.clone()).await.json();
    let behind = push_with(&world, "counter/a", json!({}), accepted.clone()).await.json();
    let cancelled = cancel(&waits).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    assert_eq!(cancelled.json()["complete"], true, "{}", cancelled.text());
    assert_eq!(cancel(&waits).await.status, 200, "said twice");
    world.post("/api/v1/processes/counter/a/resume", &json!({})).await;
    assert_eq!(crate::desk::complete(&world, &behind).await["output"], 2, "it counts two");
    let record = slot(&world, "counter/a", 1).await;
    assert_eq!(
        (&record["status"], &record["error"]["code"]),
        (&json!("cancelled"), &json!("cancelled")),
        "{record}"
    );
    assert_eq!(state(&world, "counter/a", "count").await, 2);
    // One that is evaluated at this very moment: nothing of it stands.
    let message = json!({ "ms": 1_500, "to": "counter/never" });
    let runs = push_with(&world, "sleeper/a", message, accepted.clone()).await.json();
    let next = push_with(&world, "sleeper/a", json!({}), accepted.clone()).await.json();
    assert_eq!(cancel(&runs).await.status, 200);
    assert_eq!(crate::desk::complete(&world, &next).await["status"], "ok");
    assert_eq!(crate::desk::complete(&world, &runs).await["status"], "cancelled");
    assert_eq!(process(&world, "counter/never").await["code"], "process_not_found");
    // One in manual mode, where nothing was ever evaluated.
    let body = json!({ "message": {} });
    let path = "/api/v1/processes/manual/a/schedule";
    let scheduled = world.post(path, &body).await.json();
    assert_eq!(cancel(&scheduled).await.status, 200);
    world.post(path, &body).await;
    assert_eq!(push(&world, "manual/a", json!({})).await["output"], 2, "one of three was not");
    // A message that a process sent is no push.
    native(&world, "router", "router").await;
    let message = json!({ "to": "manual/b" });
    let more = json!({ "await": "slot", "maxDepth": 0 });
    let routed = push_with(&world, "router/r", message, more).await.json();
    let child = &routed["children"][0]["message_id"];
    let path = format!("/api/v1/pushes/{}", child.as_str().unwrap());
    let refused = world.ask("DELETE", &path, "").await;
    assert_eq!((refused.status, refused.error().2), (404, "push_not_found".into()));
    assert_eq!(world.get("/api/v1/processes/manual/b/now").await.json()["output"], 1);
    assert_eq!(crate::desk::complete(&world, &routed).await["status"], "ok");
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

#[tokio::test]
async fn xg_07_a_process_with_too_much_waiting_tells_clients_to_come_later() {
    let world = World::new().await;
    let limits = json!({ "backlog_soft": 2 });
    let manual =
        json!({ "runtime": "native", "module": "counter", "mode": "manual", "limits": limits });
    define(&world, "slow", manual).await;
    let schedule = || async {
        world.post("/api/v1/processes/slow/a/schedule", &json!({ "message": {} })).await
    };
    assert_eq!(schedule().await.status, 200);
    assert_eq!(schedule().await.status, 200);
    let refused = schedule().await;
    assert_eq!((refused.status, refused.error().2), (429, "backlog_full".into()));
    assert!(refused.head.to_lowercase().contains("retry-after"), "{}", refused.head);
    let now = world.get("/api/v1/processes/slow/a/now").await.json();
    assert_eq!(now["output"], 2, "{now}");
    assert_eq!(schedule().await.status, 200);
}

#[tokio::test]
async fn xg_07_what_processes_send_to_one_with_too_much_waiting_is_kept() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    let limits = json!({ "backlog_hard": 2 });
    let manual =
        json!({ "runtime": "native", "module": "counter", "mode": "manual", "limits": limits });
    define(&world, "slow", manual).await;
    for (target, refused) in [("slow/a", 3), ("slow/b", 3)] {
        // In one batch, which goes as a whole or not at all, and one by one.
        let (count, process_of) = if target == "slow/a" { (5, 1) } else { (1, 5) };
        let mut pushes = Vec::new();
        for n in 0..process_of {
            let message = json!({ "count": count, "target": target });
            let more = json!({ "maxDepth": 0 });
            pushes.push(
                push_with(&world, &format!("fan/{target}-{n}").replace("slow/", ""), message, more)
                    .await
                    .json(),
            );
        }
        let mut kept = Vec::new();
        for push in &pushes {
            kept.extend(letters(&world, &push["push_id"]).await);
        }
        let there = process(&world, target).await["slots"].as_u64().unwrap_or(0);
        assert_eq!(there + kept.len() as u64, 5, "{target}: none is dropped");
        assert!(
            kept.len() >= refused && there <= 2,
            "{target}: {there} there, {} kept",
            kept.len()
        );
        for letter in &kept {
            assert_eq!(
                (&letter["code"], &letter["target"]),
                (&json!("backlog_full"), &json!(target))
            );
        }
        let id = kept[0]["id"].as_str().unwrap();
        let redrive = format!("/api/v1/letters/{id}/redrive");
        if there == 2 {
            let full = world.post(&redrive, &json!({})).await;
            assert_eq!((full.status, full.error().2), (429, "backlog_full".into()));
            world.get(&format!("/api/v1/processes/{target}/now")).await;
        }
        assert_eq!(world.post(&redrive, &json!({})).await.status, 200, "there is room again");
        assert_eq!(process(&world, target).await["slots"], there + 1);
    }
}

#[tokio::test]
async fn xg_04_whatever_a_guest_tries_ends_within_its_limits() {
    let world = World::new().await;
    let source = "local function deep() return 1 + deep() end
    return { handle = function(state, msg, ctx)
        state.seen = (state.seen or 0) + 1
        if msg.try == 'loop' then while true do end end
        if msg.try == 'caught' then while true do pcall(function() while true do end end) end end
        if msg.try == 'pattern' then
            string.find(string.rep('a', 28), string.rep('a?', 28) .. string.rep('a', 28))
        end
        if msg.try == 'memory' then local t = {} while true do t[#t + 1] = string.rep('x', 1000) end end
        if msg.try == 'deep' then return deep() end
        if msg.try == 'outbox' then for n = 1, 1001 do ctx.send { target = 'hostile/b' } end end
        if msg.try == 'bytes' then
            for n = 1, 9 do ctx.send { target = 'hostile/b', data = string.rep('x', 500000) } end
        end
        if msg.try == 'state' then for n = 1, 10001 do state['k' .. n] = n end end
        return state.seen
    end }";
    // Time for all of it, however busy the machine is.
    let limits = json!({ "fuel": 1_000_000, "time_ms": 60_000, "memory_bytes": 8 << 20 });
    define(&world, "hostile", json!({ "runtime": "luau", "module": source, "limits": limits }))
        .await;
    let slow = json!({ "time_ms": 20 });
    define(&world, "hurried", json!({ "runtime": "luau", "module": source, "limits": slow })).await;
    native(&world, "counter", "counter").await;
    for (n, (what, code)) in [
        ("loop", "fuel_exhausted"),
        ("caught", "fuel_exhausted"),
        ("pattern", "fuel_exhausted"),
        ("memory", "memory_exceeded"),
        ("deep", "guest_error"),
        ("outbox", "outbox_too_large"),
        ("bytes", "outbox_too_large"),
        ("state", "state_limit"),
    ]
    .into_iter()
    .enumerate()
    {
        let done = push(&world, "hostile/a", json!({ "try": what })).await;
        assert_eq!(
            (&done["status"], &done["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{what}: {done}"
        );
        assert_eq!(done["children"], json!([]), "{what}");
        let good = push(&world, "hostile/a", json!({})).await;
        assert_eq!(good["output"], n + 1, "nothing of {what} is left");
        assert_eq!(push(&world, "counter/a", json!({})).await["output"], n + 1);
    }
    let done = push(&world, "hurried/a", json!({ "try": "loop" })).await;
    assert_eq!(done["error"]["code"], "time_exceeded", "{done}");
    assert_eq!(push(&world, "hurried/a", json!({})).await["output"], 1);
    assert_eq!(process(&world, "hostile/b").await["code"], "process_not_found");
}

#[tokio::test]
async fn xg_10_a_push_whose_time_runs_out_goes_on() {
    let world = World::new().await;
    native(&world, "sleeper", "sleeper").await;
    native(&world, "counter", "counter").await;
    let message = json!({ "ms": 700, "to": "counter/a" });
    let early = push_with(&world, "sleeper/a", message, json!({ "timeoutMs": 50 })).await;
    assert_eq!(early.status, 202);
    let early = early.json();
    assert_eq!((&early["status"], &early["timed_out"]), (&json!("pending"), &json!(true)));
    let done = crate::desk::complete(&world, &early).await;
    assert_eq!(done["children"][0]["output"], 1, "{done}");
}

#[tokio::test]
async fn xg_14_the_same_messages_make_the_same_state() {
    let world = World::new().await;
    native(&world, "kv", "kv").await;
    for n in 0..20 {
        let message = match n % 5 {
            4 => json!({ "op": "delete", "key": format!("k{}", n % 3) }),
            _ => json!({ "op": "set", "key": format!("k{}", n % 7), "value": [n] }),
        };
        push(&world, "kv/first", message).await;
    }
    let log = world.get("/api/v1/processes/kv/first/slots?limit=100").await.json();
    for slot in log["slots"].as_array().unwrap() {
        let again = push(&world, "kv/scratch", slot["message"].clone()).await;
        assert_eq!(again["output"], slot["result"]["output"]);
    }
    let keys = |process: &'static str| {
        let path = format!("/api/v1/processes/{process}/state");
        let world = &world;
        async move { world.get(&path).await.json()["keys"].clone() }
    };
    assert_eq!(keys("kv/first").await, keys("kv/scratch").await);
    // And its own messages, from nothing.
    let verified = world.post("/api/v1/processes/kv/first/verify", &json!({})).await.json();
    assert_eq!((&verified["equal"], &verified["slots"]), (&json!(true), &json!(20)), "{verified}");
}

/// A module of web assembly whose `handle` does `body`; where the message says so, and else returns.
fn wasm(body: &str) -> String {
    use base64::Engine as _;
    let text = format!(
        r#"(module
        (import "onrush" "send" (func $send (param i32 i32) (result i32)))
        (import "onrush" "kv_put" (func $put (param i32 i32 i32 i32)))
        (import "onrush" "payload_len" (func $payload_len (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "k12{{}}")
        (func (export "alloc") (param i32) (result i32) (i32.const 4096))
        (func $again (param i32) (result i32)
            (i32.add (i32.const 1) (call $again (local.get 0))))
        (func (export "handle") (param i32 i32) (result i64)
            (if (i32.gt_u (call $payload_len) (i32.const 5)) (then {body}))
            (i64.or (i64.shl (i64.const 1) (i64.const 32)) (i64.const 2))))"#
    );
    base64::engine::general_purpose::STANDARD.encode(wat::parse_str(text).unwrap())
}

#[tokio::test]
async fn xg_04_whatever_a_compiled_guest_tries_ends_within_its_limits() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let limits = json!({ "fuel": 1_000_000, "time_ms": 60_000, "memory_bytes": 8 << 20 });
    let hurried = json!({ "time_ms": 20 });
    for (n, (class, body, limits, code)) in [
        ("loop", "(loop $l (br $l))", &limits, "fuel_exhausted"),
        ("hurried", "(loop $l (br $l))", &hurried, "time_exceeded"),
        (
            "memory",
            "(loop $l (drop (memory.grow (i32.const 16))) (br $l))",
            &limits,
            "memory_exceeded",
        ),
        ("deep", "(drop (call $again (i32.const 1)))", &limits, "guest_error"),
        ("trap", "unreachable", &limits, "guest_error"),
        (
            "outbox",
            "(loop $l (drop (call $send (i32.const 3) (i32.const 2))) (br $l))",
            &limits,
            "outbox_too_large",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let class_of = json!({ "runtime": "wasm", "module": wasm(body), "limits": limits });
        define(&world, class, class_of).await;
        let process = format!("{class}/a");
        for _ in 0..2 {
            let done = push(&world, &process, json!("go on for ever")).await;
            assert_eq!(
                (&done["status"], &done["error"]["code"]),
                (&json!("failed"), &json!(code)),
                "{class}: {done}"
            );
            assert_eq!(done["children"], json!([]), "{class}");
        }
        assert_eq!(push(&world, &process, json!(1)).await["output"], 12, "{class} goes on");
        assert_eq!(push(&world, "counter/a", json!({})).await["output"], n + 1);
    }
}

#[tokio::test]
async fn what_was_refused_is_kept_and_can_be_sent_after_all() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    let pushed = push(&world, "router/r", json!({ "to": "late/a", "add": 3 })).await;
    assert_eq!(pushed["status"], "partial", "{pushed}");
    let id = pushed["push_id"].as_str().unwrap();
    let letters = || async { world.get(&format!("/api/v1/letters?cascade={id}")).await.json() };
    let found = letters().await;
    let letter = &found["letters"][0];
    assert_eq!(
        (&letter["code"], &letter["target"]),
        (&json!("target_not_found"), &json!("late/a"))
    );
    assert_eq!((&letter["from"], &letter["parent"]), (&json!("router/r"), &pushed["push_id"]));
    assert_eq!((&letter["message"], &letter["depth"]), (&json!({ "add": 3 }), &json!(1)));
    let redrive = format!("/api/v1/letters/{}/redrive", letter["id"].as_str().unwrap());
    let early = world.post(&redrive, &json!({})).await;
    assert_eq!(early.status, 404, "{}", early.text());
    native(&world, "late", "counter").await;
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    let done = crate::desk::complete(&world, &pushed).await;
    assert_eq!(
        (&done["status"], &done["children"][0]["output"]),
        (&json!("ok"), &json!(3)),
        "{done}"
    );
    assert_eq!(letters().await["letters"], json!([]));
    let twice = world.post(&redrive, &json!({})).await;
    assert_eq!((twice.status, twice.error().2), (404, "path_not_found".into()));
}

#[tokio::test]
async fn the_letters_of_a_push_are_sent_or_thrown_away_together() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    native(&world, "counter", "counter").await;
    let mut pushes = Vec::new();
    for key in ["a", "b"] {
        let message = json!({ "count": 600, "target": format!("counter/{key}") });
        let more = json!({ "maxMessages": 100, "timeoutMs": 60_000 });
        let pushed = push_with(&world, &format!("fan/{key}"), message, more).await.json();
        assert_eq!(pushed["stats"]["dlq"], 501, "{}", pushed["stats"]);
        pushes.push(pushed);
    }
    let path = |at: usize| format!("cascade={}", pushes[at]["push_id"].as_str().unwrap());
    let sent = world.post(&format!("/api/v1/letters/redrive?{}", path(0)), &json!({})).await;
    let told = json!({ "redriven": 501, "kept": 0, "after": null });
    assert_eq!((sent.status, sent.json()), (200, told));
    let done = crate::desk::complete(&world, &pushes[0]).await;
    assert_eq!((&done["status"], &done["stats"]["dlq"]), (&json!("ok"), &json!(0)));
    let log = world.get("/api/v1/processes/counter/a/slots?limit=1000").await.json();
    let slots = log["slots"].as_array().unwrap();
    let came: Vec<u64> = slots.iter().filter_map(|it| it["message"]["n"].as_u64()).collect();
    assert_eq!(came, (1..=600).collect::<Vec<_>>(), "in the order in which they were sent");
    let gone = world.ask("DELETE", &format!("/api/v1/letters?{}", path(1)), "").await;
    assert_eq!((gone.status, gone.json()), (200, json!({ "deleted": 501, "has_more": false })));
    assert_eq!(letters(&world, &pushes[1]["push_id"]).await, Vec::<Value>::new());
    assert_eq!(process(&world, "counter/b").await["slots"], 99);
    for (method, path) in [("POST", "/api/v1/letters/redrive"), ("DELETE", "/api/v1/letters")] {
        let refused = world.ask(method, path, "").await;
        assert_eq!((refused.status, refused.error().2), (400, "bad_control_value".into()));
        let refused = world.ask(method, &format!("{path}?cascade=none"), "").await;
        assert_eq!((refused.status, refused.error().2), (404, "push_not_found".into()));
    }
}

#[tokio::test]
async fn letters_are_let_go_of_when_their_class_keeps_them_no_longer() {
    let world = World::new().await;
    native(&world, "keeps", "router").await;
    let forgets = json!({ "runtime": "native", "module": "router",
        "retention": { "letters_seconds": 1 } });
    define(&world, "forgets", forgets).await;
    let kept = push(&world, "keeps/a", json!({ "to": "nowhere/a" })).await;
    let old = push(&world, "forgets/a", json!({ "to": "nowhere/a" })).await;
    assert_eq!(old["stats"]["dlq"], 1);
    crate::desk::until(|| async { letters(&world, &old["push_id"]).await.is_empty() }).await;
    assert_eq!(letters(&world, &kept["push_id"]).await.len(), 1);
}

#[tokio::test]
async fn a_process_that_halts_goes_on_when_it_is_resumed() {
    let world = World::new().await;
    let halts = json!({ "runtime": "native", "module": "faulty", "on_error": "halt" });
    define(&world, "faulty", halts).await;
    push(&world, "faulty/a", json!({ "poison": true })).await;
    assert_eq!(process(&world, "faulty/a").await["stopped"], "slot 0 failed");
    let more = json!({ "timeoutMs": 300 });
    let refused = push_with(&world, "faulty/a", json!({}), more).await;
    assert_eq!((refused.status, refused.error().2), (409, "process_stopped".into()));
    let more = json!({ "await": "accepted" });
    let waits = push_with(&world, "faulty/a", json!({}), more.clone()).await;
    assert_eq!(waits.status, 200, "{}", waits.text());
    let resumed = world.post("/api/v1/processes/faulty/a/resume", &json!({})).await;
    assert_eq!((resumed.status, &resumed.json()["stopped"]), (200, &Value::Null));
    let done = crate::desk::complete(&world, &waits.json()).await;
    assert_eq!(done["output"], 1, "{done}");
    let paused =
        world.post("/api/v1/processes/faulty/a/pause", &json!({ "reason": "a break" })).await;
    assert_eq!(paused.json()["stopped"], "a break");
    let waits = push_with(&world, "faulty/a", json!({}), more).await;
    assert_eq!(waits.status, 200, "{}", waits.text());
    world.post("/api/v1/processes/faulty/a/resume", &json!({})).await;
    assert_eq!(crate::desk::complete(&world, &waits.json()).await["output"], 2);
}

#[tokio::test]
async fn a_message_whose_code_failed_is_a_letter_where_its_class_says_so() {
    let world = World::new().await;
    let keeps = json!({ "runtime": "native", "module": "faulty", "on_error": "dlq" });
    define(&world, "faulty", keeps).await;
    let failed = push(&world, "faulty/a", json!({ "poison": true })).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let id = failed["push_id"].as_str().unwrap();
    let letters = world.get(&format!("/api/v1/letters?cascade={id}")).await.json();
    let letter = &letters["letters"][0];
    assert_eq!((&letter["code"], &letter["target"]), (&json!("guest_error"), &json!("faulty/a")));
    let discard = format!("/api/v1/letters/{}", letter["id"].as_str().unwrap());
    assert_eq!(world.ask("DELETE", &discard, "").await.status, 204);
    assert_eq!(world.ask("DELETE", &discard, "").await.status, 404);
}

#[tokio::test]
async fn errors_of_the_table_have_their_status_and_code() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    push(&world, "counter/a", json!({})).await;
    for (method, path, body, status, code) in [
        ("GET", "/api/v1/processes/none", "", 404, "class_not_found"),
        ("POST", "/api/v1/processes/none/a/push", r#"{"message": 1}"#, 404, "class_not_found"),
        ("GET", "/api/v1/processes/counter/b", "", 404, "process_not_found"),
        ("GET", "/api/v1/processes/counter/a/slots/9", "", 404, "slot_not_found"),
        ("POST", "/api/v1/processes/counter/a/slots/9/push", "", 404, "slot_not_found"),
        ("GET", "/api/v1/pushes/nothing", "", 404, "push_not_found"),
        ("GET", "/api/v1/processes/counter/a/state/none", "", 404, "path_not_found"),
        ("POST", "/api/v1/processes/counter/a/push", "{}", 400, "malformed_request"),
        (
            "POST",
            "/api/v1/processes/counter/a/push",
            r#"{"message": 1, "x": 1}"#,
            400,
            "malformed_request",
        ),
        (
            "PUT",
            "/api/v1/processes/bad",
            r#"{"runtime": "native", "module": "none"}"#,
            422,
            "module_invalid",
        ),
        ("PUT", "/api/v1/processes/bad", r#"{"runtime": "native"}"#, 400, "malformed_request"),
        (
            "PUT",
            "/api/v1/processes/bad",
            r#"{"runtime": "native", "module": "kv", "limits": {"hops": 99999}}"#,
            400,
            "bad_value",
        ),
        ("DELETE", "/api/v1/processes/none", "", 404, "class_not_found"),
    ] {
        let answer = world.ask(method, path, body).await;
        assert_eq!((answer.status, answer.error().2), (status, code.into()), "{method} {path}");
    }
    assert_eq!(world.get("/api/v1/processes/bad").await.status, 404, "nothing was defined");
    assert_eq!(world.ask("DELETE", "/api/v1/processes/counter", "").await.status, 204);
    assert_eq!(world.get("/api/v1/processes/counter").await.status, 404);
}

#[tokio::test]
async fn what_processes_do_is_counted() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    native(&world, "faulty", "faulty").await;
    push(&world, "router/r", json!({ "to": ["counter/a", "nowhere/a"] })).await;
    push(&world, "router/r", json!({ "to": ["counter/a", "nowhere/a"] })).await;
    push(&world, "faulty/a", json!({ "poison": true })).await;
    let answer = world.get("/metrics/prometheus").await;
    let lines: Vec<&str> = answer.text().lines().collect();
    for line in [
        "mq_process_slots_total 5",
        r#"mq_process_slots_failed_total{code="guest_error"} 1"#,
        r#"mq_process_refused_total{code="target_not_found"} 2"#,
        "mq_process_duplicates_total 0",
        "mq_process_evaluation_seconds_count 5",
        "mq_process_commit_seconds_count 5",
        "mq_process_delay_seconds_count 5",
    ] {
        assert!(lines.contains(&line), "{line}: {lines:#?}");
    }
}
