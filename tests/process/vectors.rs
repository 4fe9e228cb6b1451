//! PV-01 to PV-24: what is expected of any system that pushes messages on.

use serde_json::{Value, json};

use crate::client::{Answer, World};
use crate::desk::{complete, define, native, process, push, push_with, slot, state, until};

/// The chain of only children below an answer.
fn chain(answer: &Value) -> Vec<&Value> {
    let mut found = vec![answer];
    while let Some([child]) =
        found.last().and_then(|it| it["children"].as_array()).map(Vec::as_slice)
    {
        found.push(child);
    }
    found
}

#[tokio::test]
async fn pv_01_a_process_pings_itself_until_it_is_done() {
    let world = World::new().await;
    native(&world, "pingpong", "pingpong").await;
    let done = push(&world, "pingpong/a", json!({ "start": true, "limit": 2 })).await;
    assert_eq!((&done["complete"], &done["status"]), (&json!(true), &json!("ok")), "{done}");
    assert_eq!(done["stats"]["messages"], 4, "{done}");
    assert_eq!(done["stats"]["depth"], 3);
    assert_eq!(done["stats"]["errors"], 0);
    let nodes = chain(&done);
    let slots: Vec<&Value> = nodes.iter().map(|node| &node["slot"]).collect();
    assert_eq!(slots, [0, 1, 2, 3].map(|it| json!(it)).iter().collect::<Vec<_>>(), "{done}");
    assert_eq!(done["output"], "Ping 1");
    assert_eq!(slot(&world, "pingpong/a", 3).await["output"], "Done.");
    assert_eq!(process(&world, "pingpong/a").await["slots"], 4);
    for limit in [0, 7] {
        let key = format!("pingpong/l{limit}");
        let done = push(&world, &key, json!({ "start": true, "limit": limit })).await;
        assert_eq!(done["stats"]["messages"], limit + 2, "{done}");
        assert_eq!(done["stats"]["depth"], limit + 1, "{done}");
    }
}

#[tokio::test]
async fn pv_02_an_answer_comes_back() {
    let world = World::new().await;
    native(&world, "p", "ping_server").await;
    let done = push(&world, "p/sender", json!({ "start": "p/replier" })).await;
    assert_eq!(done["stats"]["messages"], 3, "{done}");
    assert_eq!(done["status"], "ok");
    let replier = slot(&world, "p/replier", 0).await;
    assert_eq!(replier["output"], "ping from process:p/sender", "{replier}");
    assert_eq!(replier["printed"], "ping\n");
    assert_eq!(slot(&world, "p/sender", 1).await["output"], "GOT PONG");
    assert_eq!(done["reply"], json!({ "got": "pong" }), "the answer to whoever pushed");
}

#[tokio::test]
async fn pv_03_what_was_only_scheduled_runs_first_and_is_delivered_too() {
    let world = World::new().await;
    native(&world, "log", "counter").await;
    let manual = json!({ "runtime": "native", "module": "router", "mode": "manual" });
    define(&world, "manual", manual).await;
    for n in 0..2 {
        let body = json!({ "message": { "to": "log/a", "n": n } });
        let answer = world.post("/api/v1/processes/manual/m/schedule", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(process(&world, "manual/m").await["evaluated"], 0);
    let done = push(&world, "manual/m", json!({ "to": "log/a", "n": 2 })).await;
    assert_eq!((&done["slot"], &done["complete"]), (&json!(2), &json!(true)), "{done}");
    for n in 0..3 {
        assert_eq!(slot(&world, "manual/m", n).await["status"], "ok");
    }
    let log = world.get("/api/v1/processes/log/a/slots").await.json();
    let came: Vec<&Value> =
        log["slots"].as_array().unwrap().iter().map(|it| &it["message"]["n"]).collect();
    assert_eq!(came, [&json!(0), &json!(1), &json!(2)], "in order, and once: {log}");
    assert_eq!(process(&world, "log/a").await["slots"], 3);
}

#[tokio::test]
async fn pv_04_full_results_go_as_deep_as_was_asked() {
    let world = World::new().await;
    native(&world, "pingpong", "pingpong").await;
    for (depth, full) in [(json!(0), 0), (json!(1), 1), (json!("2"), 2), (json!(99), 4)] {
        let key = format!("pingpong/{full}");
        let message = json!({ "start": true, "limit": 2 });
        let answer = push_with(&world, &key, message, json!({ "resultDepth": depth })).await;
        let done = answer.json();
        let nodes = chain(&done);
        assert_eq!(nodes.len(), 4, "{done}");
        let with: Vec<bool> = nodes.iter().map(|node| node.get("output").is_some()).collect();
        let expected: Vec<bool> = (0..4).map(|level| level < full).collect();
        assert_eq!(with, expected, "{done}");
    }
}

#[tokio::test]
async fn pv_05_an_entry_without_its_target_does_not_keep_others() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    let targets = json!({ "targets": ["fan/x", "nowhere/y", "fan/z"] });
    let done = push(&world, "fan/root", targets).await;
    assert_eq!(done["status"], "partial", "{done}");
    let children = done["children"].as_array().unwrap();
    assert_eq!(children.len(), 3);
    assert_eq!(children[1]["error"]["code"], "target_not_found", "{done}");
    assert_eq!(children[1]["error"]["status"], 404);
    assert_eq!(children[1]["status"], "refused");
    for (child, target) in [(&children[0], "fan/x"), (&children[2], "fan/z")] {
        assert_eq!((&child["status"], &child["process"]), (&json!("ok"), &json!(target)));
        assert_eq!(state(&world, target, "got").await, 1);
    }
    assert_eq!(state(&world, "fan/root", "back").await, 2);
    assert_eq!(done["stats"]["dlq"], 1);
}

#[tokio::test]
async fn pv_06_an_entry_that_names_no_target_is_refused_alone() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    let done = push(&world, "fan/root", json!({ "targets": [null, "fan/x"] })).await;
    assert_eq!(done["children"][0]["error"]["code"], "target_missing", "{done}");
    assert_eq!(done["children"][0]["error"]["status"], 422);
    assert_eq!(done["children"][1]["status"], "ok");
    assert_eq!(done["status"], "partial");
}

#[tokio::test]
async fn pv_07_a_definition_makes_a_process_and_evaluates_nothing() {
    let world = World::new().await;
    let explicit = json!({ "runtime": "native", "module": "counter", "create": "explicit" });
    define(&world, "counter", explicit).await;
    let early = push_with(&world, "counter/a", json!({}), json!({})).await;
    assert_eq!((early.status, early.error().2), (404, "process_not_found".into()));
    let message = json!({ "type": "Process", "init": { "count": 40 } });
    let made = push(&world, "counter/a", message).await;
    assert_eq!((&made["process"], &made["slot"]), (&json!("counter/a"), &json!(0)), "{made}");
    assert_eq!(slot(&world, "counter/a", 0).await["status"], "created");
    assert_eq!(slot(&world, "counter/a", 0).await.get("output"), None);
    assert_eq!(push(&world, "counter/a", json!({})).await["output"], 41);
}

#[tokio::test]
async fn pv_08_state_outlives_the_server() {
    let mut world = World::new().await;
    native(&world, "kv", "kv").await;
    for value in [42, 1337] {
        let set = json!({ "op": "set", "key": "X", "value": value });
        assert_eq!(push(&world, "kv/a", set).await["output"], value);
        world = world.restart().await;
    }
    let got = push(&world, "kv/a", json!({ "op": "get", "key": "X" })).await;
    assert_eq!((&got["output"], &got["slot"]), (&json!(1337), &json!(2)), "{got}");
}

#[tokio::test]
async fn pv_09_results_stay_as_they_were() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    for _ in 0..5 {
        push(&world, "counter/a", json!({ "add": 1 })).await;
    }
    for round in 0..2 {
        for n in [3, 0, 4, 2, 1] {
            assert_eq!(slot(&world, "counter/a", n).await["output"], n + 1, "round {round}");
        }
    }
}

#[tokio::test]
async fn pv_11_parts_of_results_and_pages_are_read_by_path() {
    let world = World::new().await;
    native(&world, "publisher", "publisher").await;
    push(&world, "publisher/a", json!({})).await;
    for path in ["slots/0/output/deep/nested/1/value", "now/results/data/deep/nested/1/value"] {
        let answer = world.get(&format!("/api/v1/processes/publisher/a/{path}")).await;
        assert_eq!((answer.status, answer.text()), (200, "4"), "{path}");
    }
    let page = world.get("/api/v1/processes/publisher/a/state/page").await;
    assert_eq!(page.text(), "<h1>Hello</h1>");
    assert!(page.head.to_lowercase().contains("content-type: text/html"), "{}", page.head);
    assert!(page.head.to_lowercase().contains("content-security-policy: sandbox"));
    assert_eq!(state(&world, "publisher/a", "x").await, "banana");
    let nothing = world.get("/api/v1/processes/publisher/a/slots/0/output/deep/7").await;
    assert_eq!((nothing.status, nothing.error().2), (404, "path_not_found".into()));
    // And what was sent: to a process, to whoever pushed, or nowhere.
    native(&world, "router", "router").await;
    let deep = json!({ "nested": [0, { "value": 4 }] });
    let message = json!({ "to": ["publisher/b", "$reply", "nowhere/y"], "deep": deep });
    push(&world, "router/r", message).await;
    for index in 1..=3 {
        let path = format!(
            "/api/v1/processes/router/r/slots/0/outbox/{index}/message/deep/nested/1/value"
        );
        let answer = world.get(&path).await;
        assert_eq!((answer.status, answer.text()), (200, "4"), "{path}");
    }
    let whole = world.get("/api/v1/processes/router/r/slots/0/outbox/1").await.json();
    assert_eq!(
        (&whole["status"], &whole["to"]),
        (&json!("sent"), &json!("publisher/b")),
        "{whole}"
    );
    for path in ["outbox/4", "outbox/0", "outbox/1/message/none"] {
        let answer = world.get(&format!("/api/v1/processes/router/r/slots/0/{path}")).await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test]
async fn pv_12_a_stranger_changes_nothing() {
    let world = World::new().await;
    native(&world, "guarded", "guarded").await;
    native(&world, "router", "router").await;
    let init = json!({ "type": "Process", "init": { "accept": ["process:router/friend"] } });
    push(&world, "guarded/a", init).await;
    let refused = push(&world, "guarded/a", json!({ "n": 1 })).await;
    assert_eq!((&refused["output"], &refused["slot"]), (&json!("not trusted"), &json!(1)));
    assert_eq!(state(&world, "guarded/a", "count").await, Value::Null);
    for (router, expected) in [("router/foe", json!("not trusted")), ("router/friend", json!(1))] {
        let done = push(&world, router, json!({ "to": "guarded/a" })).await;
        let at = done["children"][0]["slot"].as_u64().unwrap();
        assert_eq!(slot(&world, "guarded/a", at).await["output"], expected, "{router}");
    }
    // The class itself may say who is let in.
    let closed = json!({ "runtime": "native", "module": "echo", "accept_from": ["process:*"] });
    define(&world, "closed", closed).await;
    let refused = push_with(&world, "closed/a", json!({}), json!({})).await;
    assert_eq!((refused.status, refused.error().2), (403, "not_accepted".into()));
    // Nobody can say that he is a process.
    for field in ["from", "cascade", "hops_left"] {
        let message = json!({ field: "process:router/friend" });
        let refused = push_with(&world, "guarded/a", message, json!({})).await;
        assert_eq!((refused.status, refused.error().2), (400, "reserved_field".into()));
    }
}

#[tokio::test]
async fn pv_13_a_message_is_one_slot_however_often_it_is_sent() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let mut pushes = Vec::new();
    for n in 0..11 {
        let more = json!({ "transactionId": "one" });
        let answer = push_with(&world, "counter/a", json!({}), more).await.json();
        assert_eq!(answer["duplicate"], n > 0, "{answer}");
        assert_eq!((&answer["slot"], &answer["output"]), (&json!(0), &json!(1)));
        pushes.push(answer["push_id"].clone());
    }
    pushes.dedup();
    assert_eq!(pushes.len(), 1, "one push");
    for n in 0..11 {
        assert_eq!(push(&world, "counter/b", json!({})).await["slot"], n);
    }
    assert_eq!(process(&world, "counter/a").await["slots"], 1);
}

#[tokio::test]
async fn pv_14_the_schedule_is_read_in_pages() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    for n in 0..11 {
        push(&world, "counter/a", json!({ "n": n })).await;
    }
    let all = world.get("/api/v1/processes/counter/a/slots?from=0&to=10").await.json();
    let slots = all["slots"].as_array().unwrap();
    assert_eq!((slots.len(), &all["has_more"]), (11, &json!(false)), "{all}");
    for (n, slot) in slots.iter().enumerate() {
        assert_eq!((&slot["slot"], &slot["message"]["n"]), (&json!(n), &json!(n)));
        assert_eq!(slot["result"]["output"], n + 1);
    }
    let page = world.get("/api/v1/processes/counter/a/slots?from=3&limit=4").await.json();
    let numbers: Vec<&Value> =
        page["slots"].as_array().unwrap().iter().map(|it| &it["slot"]).collect();
    assert_eq!(numbers, [3, 4, 5, 6].map(|it| json!(it)).iter().collect::<Vec<_>>());
    assert_eq!((&page["has_more"], &page["next"]), (&json!(true), &json!(7)));
}

#[tokio::test]
async fn pv_16_a_slot_that_is_pushed_again_sends_nothing_again() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    let first = push(&world, "router/a", json!({ "to": ["counter/a", "counter/b"] })).await;
    let path = "/api/v1/processes/router/a/slots/0/push";
    for _ in 0..2 {
        let again = world.post(path, &json!({})).await.json();
        assert_eq!((&again["recorded"], &again["complete"]), (&json!(true), &json!(true)));
        assert_eq!(again["children"], first["children"], "the very same tree");
        assert_eq!(again["push_id"], first["push_id"]);
    }
    let nothing = json!({});
    let (one, other) = tokio::join!(world.post(path, &nothing), world.post(path, &nothing));
    assert_eq!((one.status, other.status), (200, 200));
    for target in ["counter/a", "counter/b"] {
        assert_eq!(process(&world, target).await["slots"], 1, "{target}");
    }
}

#[tokio::test]
async fn pv_17_a_client_that_leaves_takes_nothing_with_it() {
    let world = World::new().await;
    native(&world, "sleeper", "sleeper").await;
    native(&world, "counter", "counter").await;
    let more = json!({ "timeoutMs": 200, "transactionId": "slow" });
    let message = json!({ "ms": 1500, "to": "counter/a" });
    let body = json!({ "message": message, "transactionId": "gone" }).to_string();
    let mut wire = world.connect().await;
    let push = wire.ask("POST", "/api/v1/processes/sleeper/a/push", &body);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), push).await.is_err());
    drop(wire);
    // And one whose time runs out is told where to ask.
    let early = push_with(&world, "sleeper/b", json!({ "ms": 800, "to": "counter/a" }), more).await;
    assert_eq!(early.status, 202, "{}", early.text());
    let early = early.json();
    assert_eq!((&early["timed_out"], &early["complete"]), (&json!(true), &json!(false)));
    complete(&world, &early).await;
    let again = push_with(&world, "sleeper/a", json!({}), json!({ "transactionId": "gone" })).await;
    let again = again.json();
    assert_eq!((&again["duplicate"], &again["complete"]), (&json!(true), &json!(true)), "{again}");
    assert_eq!(state(&world, "counter/a", "count").await, 2);
}

#[tokio::test]
async fn pv_20_balances_are_exact_at_every_step() {
    let world = World::new().await;
    native(&world, "ledger", "ledger").await;
    let balance = |ledger: &'static str, account: &'static str| {
        let world = &world;
        async move { state(world, ledger, &format!("balance:{account}")).await.as_i64().unwrap_or(0) }
    };
    let act = |ledger: &'static str, message: Value| push(&world, ledger, message);
    let mint = json!({ "action": "mint", "account": "alice", "quantity": 100 });
    act("ledger/root", mint).await;
    let transfer = |quantity: Value| json!({ "action": "transfer", "account": "alice", "to": "bob", "quantity": quantity });
    act("ledger/root", transfer(json!(1))).await;
    assert_eq!(
        (balance("ledger/root", "alice").await, balance("ledger/root", "bob").await),
        (99, 1)
    );
    for refused in [json!(100), json!("101"), json!(-1), json!(0), json!(1.5)] {
        let done = act("ledger/root", transfer(refused.clone())).await;
        assert_eq!(done["error"]["code"], "guest_error", "{refused}: {done}");
        assert_eq!(
            (balance("ledger/root", "alice").await, balance("ledger/root", "bob").await),
            (99, 1)
        );
    }
    let deposit = json!({ "action": "deposit", "account": "alice", "to": "ledger/sub1", "toAccount": "alice", "quantity": 89 });
    act("ledger/root", deposit).await;
    assert_eq!(
        (balance("ledger/root", "alice").await, balance("ledger/sub1", "alice").await),
        (10, 89)
    );
    assert_eq!(balance("ledger/root", "ledger/sub1").await, 89);
    let across = json!({ "action": "withdraw", "account": "alice", "to": "ledger/root", "toAccount": "bob", "via": "ledger/sub2", "quantity": 5 });
    act("ledger/sub1", across).await;
    assert_eq!(
        (balance("ledger/sub1", "alice").await, balance("ledger/sub2", "bob").await),
        (84, 5)
    );
    let back = json!({ "action": "withdraw", "account": "bob", "to": "ledger/root", "toAccount": "bob", "quantity": 4 });
    act("ledger/sub2", back).await;
    assert_eq!((balance("ledger/sub2", "bob").await, balance("ledger/root", "bob").await), (1, 5));
    let held = [("alice", 10), ("bob", 5), ("ledger/sub1", 84), ("ledger/sub2", 1)];
    for (account, expected) in held {
        assert_eq!(balance("ledger/root", account).await, expected, "{account}");
    }
    assert_eq!(held.iter().map(|it| it.1).sum::<i64>(), 100, "the supply");
    // Nobody but a ledger may credit.
    let forged = json!({ "action": "credit", "account": "eve", "quantity": 1 });
    assert_eq!(act("ledger/sub1", forged).await["status"], "failed");
}

#[tokio::test]
async fn pv_24_a_control_value_that_says_nothing_schedules_nothing() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    for more in [
        json!({ "maxDepth": "x" }),
        json!({ "maxDepth": -1 }),
        json!({ "maxDepth": true }),
        json!({ "await": "maybe" }),
        json!({ "pushMode": "both" }),
        json!({ "timeoutMs": "soon" }),
        json!({ "maxMessages": 0 }),
        json!({ "resultDepth": [] }),
        json!({ "transactionId": 7 }),
    ] {
        let refused = push_with(&world, "counter/a", json!({}), more.clone()).await;
        assert_eq!(
            (refused.status, refused.error().2),
            (400, "bad_control_value".into()),
            "{more}"
        );
    }
    let missing = world.get("/api/v1/processes/counter/a").await;
    assert_eq!((missing.status, missing.error().2), (404, "process_not_found".into()));
}

#[tokio::test]
async fn pv_15_what_is_deeper_than_was_asked_for_is_deferred() {
    let world = World::new().await;
    native(&world, "auto", "ping_server").await;
    let manual = json!({ "runtime": "native", "module": "ping_server", "mode": "manual" });
    define(&world, "manual", manual).await;
    for class in ["auto", "manual"] {
        for depth in [0, 1] {
            let (sender, replier) = (format!("{class}/s{depth}"), format!("{class}/r{depth}"));
            let message = json!({ "start": replier });
            let answer = push_with(&world, &sender, message, json!({ "maxDepth": depth })).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let answer = answer.json();
            assert_eq!(answer["output"], "pinged");
            if class == "auto" {
                // It is evaluated soon, and said to be deferred for as long as it is not.
                let child = &answer["children"][0];
                assert_eq!(child["slot"], 0, "{answer}");
                let is_open = child["status"] == "pending";
                assert_eq!(child["deferred"] == true, depth == 0 && is_open, "{answer}");
                let done = complete(&world, &answer).await;
                assert_eq!(done["stats"]["messages"], 3, "it is finished all the same");
                continue;
            }
            let child = &answer["children"][0];
            if depth == 0 {
                assert_eq!(child["deferred"], true, "{answer}");
                assert_eq!(child["slot"], 0, "it is in the log");
                assert_eq!(process(&world, &replier).await["evaluated"], 0, "and stays there");
            } else {
                assert_eq!(child["status"], "ok", "{answer}");
                assert_eq!(child["children"][0]["deferred"], true, "{answer}");
                assert_eq!(process(&world, &sender).await["pending"], 1);
            }
        }
    }
}

#[tokio::test]
async fn pv_18_a_long_chain_has_exactly_its_slots() {
    let world = World::new().await;
    let limits = json!({ "hops": 0 });
    let class = json!({ "runtime": "native", "module": "pingpong", "limits": limits });
    define(&world, "pingpong", class).await;
    for limit in [40, 1_000] {
        let key = format!("pingpong/{limit}");
        let message = json!({ "start": true, "limit": limit });
        let more = json!({ "maxHops": 0, "timeoutMs": 300_000 });
        let done = push_with(&world, &key, message, more).await.json();
        assert_eq!((&done["complete"], &done["status"]), (&json!(true), &json!("ok")), "{limit}");
        assert_eq!(done["stats"]["messages"], limit + 2);
        assert_eq!(done["stats"]["depth"], limit + 1);
        assert_eq!(process(&world, &key).await["slots"], limit + 2);
    }
}

#[tokio::test]
async fn pv_19_a_message_waits_for_its_class() {
    let world = World::new().await;
    let router = |policy: Value| json!({ "runtime": "native", "module": "router", "unknown_target": policy });
    define(&world, "parks", router(json!({ "park": 60_000 }))).await;
    define(&world, "fails", router(json!("fail"))).await;
    let more = json!({ "timeoutMs": 300 });
    let parked = push_with(&world, "parks/a", json!({ "to": "late/a" }), more).await;
    assert_eq!(parked.status, 202, "{}", parked.text());
    let parked = parked.json();
    assert_eq!(
        (&parked["children"][0]["status"], &parked["status"]),
        (&json!("parked"), &json!("pending"))
    );
    let failed = push(&world, "fails/a", json!({ "to": "late/a" })).await;
    assert_eq!(failed["children"][0]["error"]["code"], "target_not_found");
    assert_eq!((&failed["status"], &failed["stats"]["dlq"]), (&json!("partial"), &json!(0)));
    native(&world, "late", "counter").await;
    let done = complete(&world, &parked).await;
    assert_eq!(
        (&done["status"], &done["children"][0]["output"]),
        (&json!("ok"), &json!(1)),
        "{done}"
    );
    assert_eq!(process(&world, "late/a").await["slots"], 1);
    // One that waits in vain is kept in the end.
    define(&world, "hurries", router(json!({ "park": 1 }))).await;
    let done = push(&world, "hurries/a", json!({ "to": "never/a" })).await;
    assert_eq!((&done["status"], &done["stats"]["dlq"]), (&json!("partial"), &json!(1)), "{done}");
}

#[tokio::test]
async fn pv_23_timers_outlive_the_server() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let timer = |key: &str, when: Value| {
        let mut body = json!({ "target": format!("counter/{key}"), "message": { "add": 1 } });
        body.as_object_mut().unwrap().extend(when.as_object().unwrap().clone());
        body
    };
    assert_eq!(put(&world, "once", timer("once", json!({ "delayMs": 1_500 }))).await.status, 200);
    assert_eq!(put(&world, "every", timer("every", json!({ "everyMs": 300 }))).await.status, 200);
    assert_eq!(
        put(&world, "cron", timer("cron", json!({ "cron": "0 0 1 1 *" }))).await.status,
        200
    );
    for wrong in [
        json!({}),
        json!({ "everyMs": 1 }),
        json!({ "cron": "x" }),
        json!({ "cron": "* * * * *", "everyMs": 50 }),
    ] {
        let refused = put(&world, "wrong", timer("a", wrong.clone())).await;
        assert_eq!(
            (refused.status, refused.error().2),
            (400, "bad_control_value".into()),
            "{wrong}"
        );
    }
    let world = world.restart().await;
    let first = slot_of_timer(&world, "counter/once", 0).await;
    assert_eq!((&first["output"], &first["from"]), (&json!(1), &json!("timer:once")), "{first}");
    slot_of_timer(&world, "counter/every", 2).await;
    let stop = world.ask("DELETE", "/api/v1/process-timers/every", "").await;
    assert_eq!(stop.status, 204, "{}", stop.text());
    let again = world.ask("DELETE", "/api/v1/process-timers/every", "").await;
    assert_eq!((again.status, again.error().2), (404, "path_not_found".into()));
    let turns = process(&world, "counter/every").await["slots"].as_u64().unwrap();
    let timers = world.get("/api/v1/process-timers").await.json();
    let ids: Vec<&Value> =
        timers["timers"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, [&json!("cron")], "once is over: {timers}");
    let world = world.restart().await;
    assert_eq!(process(&world, "counter/every").await["slots"], turns, "it has stopped");
    assert_eq!(process(&world, "counter/once").await["slots"], 1);
}

#[tokio::test]
async fn pv_23_a_timer_whose_target_is_missing_makes_up_for_nothing() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let timer = json!({ "target": "late/a", "message": {}, "everyMs": 20 });
    assert_eq!(put(&world, "early", timer).await.status, 200);
    let turns = || async {
        let timer = world.get("/api/v1/process-timers/early").await.json();
        timer["turns"].as_u64().unwrap()
    };
    until(|| async { turns().await >= 10 }).await;
    let before = turns().await;
    native(&world, "late", "counter").await;
    slot_of_timer(&world, "late/a", 2).await;
    assert_eq!(world.ask("DELETE", "/api/v1/process-timers/early", "").await.status, 204);
    let log = world.get("/api/v1/processes/late/a/slots?limit=1000").await.json();
    let slots = log["slots"].as_array().unwrap();
    // Its ids say which turns they were: each once, and none that was missed.
    let turns: Vec<&str> =
        slots.iter().map(|slot| slot["transaction_id"].as_str().unwrap()).collect();
    let due: Vec<u64> =
        turns.iter().map(|id| id.rsplit(':').next().unwrap().parse().unwrap()).collect();
    assert!(due.is_sorted_by(|a, b| b >= &(a + 20)), "{due:?} after {before}");
}

#[tokio::test]
async fn pv_23_a_guest_sends_itself_something_later() {
    let world = World::new().await;
    let source = "return { handle = function(state, msg, ctx)
        if msg.begin then
            ctx.after(20, { tick = 1 })
            ctx.send { target = '$timer', delay_ms = 40, tick = 2 }
            return 'begun'
        end
        state.last = msg.tick
        return msg.tick
    end }";
    define(&world, "clock", json!({ "runtime": "luau", "module": source })).await;
    let done = push(&world, "clock/a", json!({ "begin": true })).await;
    let ticks: Vec<&Value> =
        done["children"].as_array().unwrap().iter().map(|it| &it["slot"]).collect();
    assert_eq!(ticks, [&json!(1), &json!(2)], "{done}");
    assert_eq!((&done["status"], state(&world, "clock/a", "last").await), (&json!("ok"), json!(2)));
    assert_eq!(slot(&world, "clock/a", 1).await["output"], 1);
}

#[tokio::test]
async fn pv_23_a_cron_expression_has_its_turn() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let timer = json!({ "target": "counter/a", "message": {}, "cron": "* * * * *" });
    let set = put(&world, "minutes", timer).await.json();
    let due = set["nextMs"].as_u64().unwrap();
    assert_eq!(due % 60_000, 0, "{set}");
    // A minute at most, and some time more.
    for _ in 0..2_400 {
        if process(&world, "counter/a").await["slots"] == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let first = slot_of_timer(&world, "counter/a", 0).await;
    assert_eq!((&first["status"], &first["from"]), (&json!("ok"), &json!("timer:minutes")));
    assert!(first["pushed_ms"].as_u64().unwrap() >= due, "{first}");
    let next = world.get("/api/v1/process-timers/minutes").await.json();
    assert_eq!((&next["nextMs"], &next["turns"]), (&json!(due + 60_000), &json!(1)));
}

async fn put(world: &World, id: &str, body: Value) -> Answer {
    world.ask("PUT", &format!("/api/v1/process-timers/{id}"), &body.to_string()).await
}

/// What became of a slot of a process that a timer may yet have to make.
async fn slot_of_timer(world: &World, name: &str, number: u64) -> Value {
    for _ in 0..600 {
        if process(world, name).await["slots"].as_u64().is_some_and(|slots| slots > number) {
            return slot(world, name, number).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{name} has no slot {number}");
}
