//! What is done to a process beside its messages: trials, slots that are passed over, resets, and evaluating
//! it anew.

use serde_json::{Value, json};

use crate::client::{Answer, World};
use crate::desk::{complete, define, native, process, push, push_with, slot, state};

/// Asks for something of a process.
async fn ask(world: &World, process: &str, verb: &str, body: Value) -> Answer {
    world.post(&format!("/api/v1/processes/{process}/{verb}"), &body).await
}

/// The same, of which something comes.
async fn done(world: &World, process: &str, verb: &str, body: Value) -> Value {
    let answer = ask(world, process, verb, body).await;
    assert_eq!(answer.status, 200, "{verb}: {}", answer.text());
    answer.json()
}

/// Pushes messages to a process that is stopped, and returns their pushes.
async fn put_behind(world: &World, process: &str, messages: &[Value]) -> Vec<Value> {
    let mut pushes = Vec::new();
    for message in messages {
        let answer = ask(world, process, "schedule", json!({ "message": message })).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        pushes.push(answer.json());
    }
    pushes
}

#[tokio::test]
async fn a_trial_shows_what_would_come_and_leaves_nothing() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    native(&world, "router", "router").await;
    push(&world, "counter/a", json!({ "add": 2 })).await;
    for _ in 0..2 {
        let tried = done(&world, "counter/a", "dryrun", json!({ "message": { "add": 5 } })).await;
        assert_eq!((&tried["output"], &tried["slot"]), (&json!(7), &json!(1)), "{tried}");
        assert_eq!((&tried["status"], &tried["version"]), (&json!("ok"), &json!(1)));
        assert_eq!(tried["state"], json!([{ "key": "count", "value": 7 }]));
        assert_eq!(tried["outbox"], json!([]));
    }
    assert_eq!(process(&world, "counter/a").await["slots"], 1);
    assert_eq!(push(&world, "counter/a", json!({})).await["output"], 3, "on what there was");
    let message = json!({ "to": ["counter/b", "nowhere/c"], "n": 1 });
    let tried = done(&world, "router/new", "dryrun", json!({ "message": message })).await;
    assert_eq!(tried["outbox"][1]["target"], "nowhere/c", "{tried}");
    assert_eq!(tried["outbox"][0]["message"], json!({ "n": 1 }));
    for nothing in ["router/new", "counter/b"] {
        let answer = world.get(&format!("/api/v1/processes/{nothing}")).await;
        assert_eq!((answer.status, answer.error().2), (404, "process_not_found".into()));
    }
    // A definition is tried too, and code that fails.
    let init = json!({ "message": { "type": "Process", "init": { "count": 40 } } });
    let tried = done(&world, "counter/b", "dryrun", init).await;
    assert_eq!(tried["status"], "created", "{tried}");
    assert_eq!(tried["state"], json!([{ "key": "count", "value": 40 }]));
    let tried = done(&world, "router/new", "dryrun", json!({ "message": {} })).await;
    assert_eq!(tried["status"], "failed", "{tried}");
    assert_eq!((&tried["error"]["code"], &tried["state"]), (&json!("guest_error"), &json!([])));
}

#[tokio::test]
async fn a_trial_is_refused_where_a_push_would_be() {
    let world = World::new().await;
    let native = |more: Value| {
        let mut definition = json!({ "runtime": "native", "module": "counter" });
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        definition
    };
    define(&world, "explicit", native(json!({ "create": "explicit" }))).await;
    define(&world, "closed", native(json!({ "accept_from": ["process:*"] }))).await;
    for (process, body, status, code) in [
        ("none/a", json!({ "message": {} }), 404, "class_not_found"),
        ("explicit/a", json!({ "message": {} }), 404, "process_not_found"),
        ("closed/a", json!({ "message": {} }), 403, "not_accepted"),
        ("explicit/a", json!({ "message": { "cascade": 1 } }), 400, "reserved_field"),
        ("explicit/a", json!({}), 400, "malformed_request"),
        ("explicit/a", json!({ "message": 1, "await": "slot" }), 400, "malformed_request"),
    ] {
        let answer = ask(&world, process, "dryrun", body.clone()).await;
        assert_eq!((answer.status, answer.error().2), (status, code.into()), "{process} {body}");
    }
}

#[tokio::test]
async fn a_slot_is_passed_over_and_says_so() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    push(&world, "counter/a", json!({})).await;
    done(&world, "counter/a", "pause", json!({})).await;
    let add = |sum: u64| json!({ "add": sum });
    let pushes = put_behind(&world, "counter/a", &[add(10), add(100), add(1_000)]).await;
    let skip = |slot: u64| json!({ "slot": slot });
    let skipped = done(&world, "counter/a", "skip-slot", skip(2)).await;
    assert_eq!(skipped, json!({ "process": "counter/a", "slot": 2, "status": "pending" }));
    for (body, status, code) in [
        (skip(0), 409, "already_settled"),
        (skip(4), 404, "slot_not_found"),
        (json!({}), 400, "malformed_request"),
        (json!({ "slot": -1 }), 400, "malformed_request"),
    ] {
        let refused = ask(&world, "counter/a", "skip-slot", body.clone()).await;
        assert_eq!((refused.status, refused.error().2), (status, code.into()), "{body}");
    }
    // It is durable before its turn comes.
    let world = world.restart().await;
    done(&world, "counter/a", "resume", json!({})).await;
    assert_eq!(slot(&world, "counter/a", 3).await["output"], 1_011);
    let passed = slot(&world, "counter/a", 2).await;
    assert_eq!(
        (&passed["status"], &passed["error"]["code"]),
        (&json!("skipped"), &json!("skipped"))
    );
    assert_eq!(passed.get("output"), None);
    assert_eq!(state(&world, "counter/a", "count").await, 1_011);
    let told = complete(&world, &pushes[1]).await;
    assert_eq!(
        (&told["status"], &told["stats"]["errors"]),
        (&json!("failed"), &json!(1)),
        "{told}"
    );
    assert_eq!(complete(&world, &pushes[2]).await["status"], "ok");
}

#[tokio::test]
async fn a_message_of_a_cascade_that_is_passed_over_ends_its_branch_alone() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    native(&world, "router", "router").await;
    push(&world, "counter/a", json!({})).await;
    done(&world, "counter/a", "pause", json!({})).await;
    let more = json!({ "await": "slot" });
    let message = json!({ "to": ["counter/a", "counter/b"] });
    let pushed = push_with(&world, "router/r", message, more).await.json();
    slot(&world, "counter/b", 0).await;
    done(&world, "counter/a", "skip-slot", json!({ "slot": 1 })).await;
    done(&world, "counter/a", "resume", json!({})).await;
    let told = complete(&world, &pushed).await;
    assert_eq!(told["status"], "partial", "{told}");
    let ends: Vec<&Value> =
        told["children"].as_array().unwrap().iter().map(|it| &it["status"]).collect();
    assert_eq!(ends, [&json!("skipped"), &json!("ok")]);
}

#[tokio::test]
async fn a_process_that_is_reset_begins_anew_at_a_definite_slot() {
    let world = World::new().await;
    let counts = json!({ "runtime": "native", "module": "counter", "init": { "count": 40 } });
    define(&world, "counter", counts).await;
    assert_eq!(push(&world, "counter/a", json!({ "add": 2 })).await["output"], 42);
    for body in [json!({}), json!({ "confirm": "counter/b" }), json!({ "confirm": 1 })] {
        let refused = ask(&world, "counter/a", "reset", body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
    }
    let odd = json!({ "confirm": "counter/a", "pending": "perhaps" });
    let refused = ask(&world, "counter/a", "reset", odd).await;
    assert_eq!((refused.status, refused.error().2), (400, "bad_control_value".into()));
    assert_eq!(state(&world, "counter/a", "count").await, 42, "nothing was done");
    let reset = done(&world, "counter/a", "reset", json!({ "confirm": "counter/a" })).await;
    assert_eq!((&reset["status"], &reset["slot"]), (&json!("reset"), &json!(1)), "{reset}");
    assert_eq!(state(&world, "counter/a", "count").await, Value::Null);
    assert_eq!(process(&world, "counter/a").await["version"], 0);
    let world = world.restart().await;
    let next = push(&world, "counter/a", json!({})).await;
    assert_eq!((&next["output"], &next["slot"]), (&json!(41), &json!(2)), "as a new one: {next}");
    assert_eq!(slot(&world, "counter/a", 0).await["output"], 42, "what was, stays");
    let nobody = ask(&world, "counter/b", "reset", json!({ "confirm": "counter/b" })).await;
    assert_eq!((nobody.status, nobody.error().2), (404, "process_not_found".into()));
}

#[tokio::test]
async fn a_reset_lets_a_stopped_process_go_on_with_its_messages_or_without() {
    let world = World::new().await;
    let halts = json!({ "runtime": "native", "module": "faulty", "on_error": "halt" });
    define(&world, "faulty", halts).await;
    for (name, pending, statuses) in [
        ("faulty/keeps", "evaluate", ["ok", "reset", "ok"]),
        ("faulty/skips", "skip", ["skipped", "reset", "ok"]),
    ] {
        push(&world, name, json!({ "poison": true })).await;
        assert_eq!(process(&world, name).await["stopped"], "slot 0 failed");
        put_behind(&world, name, &[json!({})]).await;
        let body = json!({ "confirm": name, "pending": pending });
        done(&world, name, "reset", body).await;
        assert_eq!(push(&world, name, json!({})).await["output"], 1, "{name}");
        for (number, status) in (1..).zip(statuses) {
            assert_eq!(slot(&world, name, number).await["status"], status, "{name} {number}");
        }
        assert_eq!(process(&world, name).await["stopped"], Value::Null);
    }
}

#[tokio::test]
async fn a_reset_takes_more_state_away_than_fits_one_transaction() {
    let world = World::new().await;
    let module = "function handle(state, msg)\n\
        for n = 1, msg.keys or 0 do state[string.format('k%05d', n)] = n end\n\
        return #state:scan('k', 1000)\nend";
    define(
        &world,
        "many",
        json!({ "runtime": "luau", "module": module, "limits": { "time_ms": 60_000 } }),
    )
    .await;
    assert_eq!(push(&world, "many/a", json!({ "keys": 1_200 })).await["output"], 1_000);
    let page = world.get("/api/v1/processes/many/a/state?prefix=k011&limit=1000").await.json();
    assert_eq!(page["keys"].as_array().unwrap().len(), 100, "{page}");
    done(&world, "many/a", "reset", json!({ "confirm": "many/a" })).await;
    let page = world.get("/api/v1/processes/many/a/state").await.json();
    assert_eq!(page["keys"], json!([]));
    assert_eq!(push(&world, "many/a", json!({})).await["output"], 0);
    let verified = done(&world, "many/a", "verify", json!({})).await;
    assert_eq!((&verified["equal"], &verified["keys"]), (&json!(true), &json!(0)), "{verified}");
}

#[tokio::test]
async fn a_process_that_is_evaluated_anew_comes_to_the_same() {
    let world = World::new().await;
    native(&world, "faulty", "faulty").await;
    let items: Vec<Value> = (0..600)
        .map(|n| match n % 50 {
            7 => json!({ "queue": "faulty", "partition": "a", "payload": { "poison": n } }),
            _ => json!({ "queue": "faulty", "partition": "a", "payload": { "n": n } }),
        })
        .collect();
    assert_eq!(world.push(json!(items)).await.status, 201);
    slot(&world, "faulty/a", 599).await;
    let reset = json!({ "confirm": "faulty/a" });
    done(&world, "faulty/a", "reset", reset).await;
    done(&world, "faulty/a", "pause", json!({})).await;
    put_behind(&world, "faulty/a", &[json!({}), json!({}), json!({})]).await;
    done(&world, "faulty/a", "skip-slot", json!({ "slot": 602 })).await;
    done(&world, "faulty/a", "resume", json!({})).await;
    assert_eq!(slot(&world, "faulty/a", 603).await["output"], 2);
    let verified = done(&world, "faulty/a", "verify", json!({})).await;
    let expected = json!({ "process": "faulty/a", "complete": true, "equal": true, "slots": 604,
        "keys": 1, "first_difference": null });
    assert_eq!(verified, expected);
    let late = ask(&world, "faulty/a", "verify", json!({ "timeoutMs": 0 })).await;
    assert_eq!((late.status, &late.json()["complete"]), (202, &json!(false)));
    let wrong = ask(&world, "faulty/a", "verify", json!({ "timeoutMs": 600_001 })).await;
    assert_eq!((wrong.status, wrong.error().2), (400, "bad_control_value".into()));
}

#[tokio::test]
async fn what_is_not_all_there_is_not_evaluated_anew() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    push(&world, "counter/a", json!({})).await;
    let verified = done(&world, "counter/a", "verify", json!({})).await;
    assert_eq!((&verified["equal"], &verified["slots"]), (&json!(true), &json!(1)));
    // More versions than are remembered.
    for _ in 0..16 {
        native(&world, "counter", "counter").await;
    }
    let refused = ask(&world, "counter/a", "verify", json!({})).await;
    assert_eq!((refused.status, refused.error().2), (409, "not_replayable".into()));
}

#[tokio::test]
async fn what_does_not_come_to_the_same_is_told() {
    let world = World::new().await;
    native(&world, "fickle", "fickle").await;
    for _ in 0..3 {
        push(&world, "fickle/a", json!({})).await;
    }
    let verified = done(&world, "fickle/a", "verify", json!({})).await;
    assert_eq!((&verified["complete"], &verified["equal"]), (&json!(true), &json!(false)));
    let different = &verified["first_difference"];
    assert_eq!(
        (&different["slot"], &different["what"]),
        (&json!(0), &json!("output")),
        "{verified}"
    );
}
