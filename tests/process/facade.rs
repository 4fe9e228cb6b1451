//! The paths and answers that clients of HyperBEAM know, and the examples of the page on its push, as they
//! stand there.

use serde_json::{Value, json};

use crate::client::{Answer, World};
use crate::desk::{define, native, process, push, slot, state};

/// A request on one of those paths, of which something comes.
async fn ask(world: &World, method: &str, path: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = world.ask(method, path, &body).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    answer.json()
}

/// The head line of an answer with this name.
fn header(answer: &Answer, name: &str) -> Option<String> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(':'));
    let mut named = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim().to_owned())
}

/// A process in manual mode with a message that was only scheduled.
async fn scheduled(world: &World) -> u64 {
    let manual = json!({ "runtime": "native", "module": "pingpong", "mode": "manual" });
    define(world, "base", manual).await;
    let message = json!({ "start": true, "limit": 2 });
    let put = ask(world, "POST", "/base%2Fp~process@1.0/schedule", message.clone()).await;
    assert_eq!((&put["type"], &put["process"]), (&json!("Assignment"), &json!("base/p")), "{put}");
    assert_eq!((&put["body"], &put["epoch"]), (&message, &json!("0")));
    assert_eq!(process(world, "base/p").await["evaluated"], 0, "only put there");
    put["slot"].as_u64().unwrap()
}

#[tokio::test]
async fn the_example_basic_push() {
    let world = World::new().await;
    let slot_number = scheduled(&world).await;
    let result = ask(
        &world,
        "POST",
        "/base%2Fp~process@1.0/push",
        json!({
            "slot": slot_number,
            "push-mode": "sync"
        }),
    )
    .await;
    assert_eq!((&result["slot"], &result["process"]), (&json!(0), &json!("base/p")), "{result}");
    assert_eq!((&result["data"], &result["output"]), (&json!("Ping 1"), &json!("Ping 1")));
    let mut node = &result;
    for slot in 1..=3 {
        let entry = &node["1"];
        assert_eq!(
            (&entry["target"], &entry["slot"]),
            (&json!("base/p"), &json!(slot)),
            "{result}"
        );
        assert!(entry["id"].as_str().is_some_and(|id| id.len() == 36), "{entry}");
        node = &entry["resulted-in"];
        assert_eq!((&node["slot"], &node["process"]), (&json!(slot), &json!("base/p")));
        assert_eq!(node.get("data"), None, "only the first level has results");
    }
    assert_eq!(node.get("1"), None, "until nothing is left to be pushed");
    let data = world.get("/base%2Fp~process@1.0/now/results/data").await;
    assert_eq!((data.status, data.json()), (200, json!("Done.")));
}

#[tokio::test]
async fn the_example_async_push() {
    let world = World::new().await;
    let slot_number = scheduled(&world).await;
    let result = ask(
        &world,
        "POST",
        "/base%2Fp~process@1.0/push",
        json!({
            "slot": slot_number,
            "push-mode": "async"
        }),
    )
    .await;
    assert_eq!((&result["slot"], &result["process"]), (&json!(0), &json!("base/p")), "{result}");
    // The work goes on by itself, and can be asked for.
    assert_eq!(slot(&world, "base/p", 0).await["output"], "Ping 1");
    let id = result["push"].as_str().unwrap();
    let done = world.get(&format!("/api/v1/pushes/{id}?wait=60000")).await.json();
    assert_eq!(
        (&done["complete"], &done["stats"]["messages"]),
        (&json!(true), &json!(4)),
        "{done}"
    );
}

#[tokio::test]
async fn the_example_process_push() {
    let world = World::new().await;
    let explicit = json!({ "runtime": "native", "module": "counter", "create": "explicit" });
    define(&world, "counter", explicit).await;
    let process_definition = json!({ "module": "counter", "init": { "count": 40 } });
    for path in ["/push", "/~process@1.0/push"] {
        let body = json!({
            "type": "Process",
            "body": process_definition
        });
        let answer = world.post(path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let made = answer.json();
        assert_eq!((&made["type"], &made["slot"]), (&json!("Process"), &json!(0)), "{made}");
        let name = made["process"].as_str().unwrap();
        assert_eq!(slot(&world, name, 0).await["status"], "created", "nothing is evaluated");
        // What the answer's head says is an id that paths take.
        let id = header(&answer, "process").unwrap();
        assert_eq!(made["id"], id);
        let counted =
            ask(&world, "POST", &format!("/{id}~process@1.0/push"), json!({ "n": 1 })).await;
        assert_eq!(
            (&counted["data"], &counted["process"]),
            (&json!(41), &json!(name)),
            "{counted}"
        );
    }
    let body = json!({ "type": "Process", "body": process_definition });
    let made = ask(&world, "POST", "/counter%2Fmine~process@1.0/push", body).await;
    assert_eq!((&made["process"], &made["slot"]), (&json!("counter/mine"), &json!(0)), "{made}");
    for (body, status, code) in [
        (json!({ "n": 1 }), 400, "bad_control_value"),
        (json!({ "type": "Process" }), 400, "malformed_request"),
        (json!({ "type": "Process", "module": "none" }), 404, "class_not_found"),
    ] {
        let refused = world.post("/push", &body).await;
        assert_eq!((refused.status, refused.error().2), (status, code.into()), "{body}");
    }
}

#[tokio::test]
async fn entries_say_where_they_went_or_why_they_did_not() {
    let world = World::new().await;
    native(&world, "fan", "fan").await;
    native(&world, "p", "ping_server").await;
    let message = json!({ "targets": ["fan/x", "nowhere/y", null] });
    let told = ask(&world, "POST", "/fan%2Froot/push&result-depth+integer=2", message).await;
    assert_eq!(told["1"]["resulted-in"]["process"], "fan/x", "{told}");
    assert!(told["1"]["resulted-in"].get("data").is_some(), "two levels: {told}");
    let refused = json!({ "target": "nowhere/y", "response": "error", "outbox-index": 2,
        "status": 404, "reason": told["2"]["reason"] });
    assert_eq!(told["2"], refused);
    assert_eq!((&told["3"]["response"], &told["3"]["status"]), (&json!("error"), &json!(422)));
    // And back again, in the shape of theirs, by the routes of ours.
    let body = json!({ "message": { "start": "p/replier" }, "resultDepth": 99 }).to_string();
    let accept = "Accept: application/vnd.hb-push+json\r\n";
    let mut wire = world.connect().await;
    let path = "/api/v1/processes/p/sender/push";
    let answer = wire.ask_with("POST", path, accept, &body).await;
    let kind = header(&answer, "content-type");
    assert_eq!(kind.as_deref(), Some("application/vnd.hb-push+json"));
    let told = answer.json();
    let pong = &told["1"]["resulted-in"]["1"]["resulted-in"];
    assert_eq!(
        (&pong["data"], &pong["process"]),
        (&json!("GOT PONG"), &json!("p/sender")),
        "{told}"
    );
    let pushed = format!("/api/v1/pushes/{}?depth=99", told["push"].as_str().unwrap());
    let again = wire.ask_with("GET", &pushed, accept, "").await.json();
    assert_eq!(again, told);
    let own = wire.ask("GET", &pushed, "").await.json();
    assert_eq!(own["complete"], true, "who does not ask for it gets ours: {own}");
}

#[tokio::test]
async fn what_is_deeper_than_was_asked_is_passed_over() {
    let world = World::new().await;
    let manual = json!({ "runtime": "native", "module": "ping_server", "mode": "manual" });
    define(&world, "p", manual).await;
    let start = json!({ "start": "p/replier", "max-depth": 0 });
    let told = ask(&world, "POST", "/p%2Fsender~process@1.0/push", start).await;
    assert_eq!(told["1"]["resulted-in"], "skipped", "{told}");
    let current = world.get("/p%2Freplier/slot/current").await;
    assert_eq!((current.status, current.text()), (200, "0"), "it was scheduled");
    let start = json!({ "start": "p/replier", "max-depth": 1 });
    let told = ask(&world, "POST", "/p%2Fsender~process@1.0/push", start).await;
    let replied = &told["1"]["resulted-in"];
    assert_eq!(replied["slot"], 1, "the child ran: {told}");
    assert_eq!(replied["1"]["resulted-in"], "skipped", "and the grandchild did not: {told}");
}

#[tokio::test]
async fn the_log_and_what_became_of_it_are_read_by_path() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    for n in 0..3 {
        push(&world, "router/r", json!({ "to": "counter/c", "add": n, "deep": { "at": [4] } }))
            .await;
    }
    let log = ask(&world, "GET", "/router%2Fr~process@1.0/schedule?from=1&to=2", Value::Null).await;
    assert_eq!((&log["type"], &log["continues"]), (&json!("schedule"), &json!(false)), "{log}");
    assert_eq!(log["assignments"]["1"]["body"]["add"], 1, "{log}");
    assert_eq!(log["assignments"].as_object().unwrap().len(), 2);
    let page = ask(&world, "GET", "/router%2Fr/schedule?limit=1", Value::Null).await;
    assert_eq!(page["continues"], true, "{page}");
    let whole = ask(&world, "GET", "/router%2Fr/compute&slot=1", Value::Null).await;
    assert_eq!((&whole["at-slot"], &whole["process"]), (&json!(1), &json!("router/r")), "{whole}");
    let sent = json!({ "target": "counter/c", "add": 1, "deep": { "at": [4] } });
    assert_eq!(whole["results"]["outbox"], json!({ "1": sent }));
    for (method, path, expected) in [
        (
            "GET",
            "/router%2Fr~process@1.0/compute&slot+integer=2/results/outbox/1/deep/at/0",
            json!(4),
        ),
        ("GET", "/router%2Fr/compute/results/data/routed?slot=0", json!(1)),
        ("POST", "/counter%2Fc~process@1.0/compute/results=1", Value::Null),
        ("GET", "/counter%2Fc/compute&slot=1/results/output", json!(1)),
        ("GET", "/counter%2Fc/compute/results/data", json!(3)),
        ("GET", "/counter%2Fc/now/results/data", json!(3)),
        ("GET", "/counter%2Fc/now/at-slot", json!(2)),
    ] {
        let found = ask(&world, method, path, Value::Null).await;
        match expected {
            Value::Null => assert_eq!(found["data"], 1, "{path}: {found}"),
            expected => assert_eq!(found, expected, "{path}"),
        }
    }
    let first = ask(&world, "GET", "/counter%2Fc/schedule", Value::Null).await;
    let id = first["assignments"]["0"]["id"].as_str().unwrap();
    let by_id =
        ask(&world, "GET", &format!("/{id}~process@1.0/now/results/data"), Value::Null).await;
    assert_eq!(by_id, 3, "any of its messages names a process");
}

#[tokio::test]
async fn a_trial_of_theirs_leaves_nothing_either() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    native(&world, "router", "router").await;
    push(&world, "counter/a", json!({ "add": 2 })).await;
    let path = "/counter%2Fa~process@1.0/as=execution/compute";
    let tried = ask(&world, "POST", path, json!({ "add": 5 })).await;
    assert_eq!((&tried["process"], &tried["results"]["data"]), (&json!("counter/a"), &json!(7)));
    let path = "/router%2Fr~process@1.0/as=execution/compute&to=counter%2Fa&n=1";
    let tried = ask(&world, "GET", path, Value::Null).await;
    let sent = json!({ "1": { "target": "counter/a", "n": "1" } });
    assert_eq!(tried["results"]["outbox"], sent, "{tried}");
    assert_eq!(state(&world, "counter/a", "count").await, 2);
    assert_eq!(process(&world, "counter/a").await["slots"], 1);
}

#[tokio::test]
async fn a_slot_that_is_pushed_again_by_their_path_sends_nothing_again() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    let message = json!({ "to": "counter/a" });
    let first = ask(&world, "POST", "/router%2Fr~process@1.0/push", message).await;
    for (method, body) in [("GET", Value::Null), ("POST", json!({}))] {
        let again = ask(&world, method, "/router%2Fr~process@1.0/push&slot=0", body).await;
        assert_eq!((&again["1"], &again["recorded"]), (&first["1"], &json!(true)), "{again}");
        assert_eq!(again["process"], "router/r");
    }
    assert_eq!(process(&world, "counter/a").await["slots"], 1);
    // A message within a cascade is told of with its own process.
    let inner = ask(&world, "GET", "/counter%2Fa/push&slot=0", Value::Null).await;
    assert_eq!((&inner["process"], &inner["data"]), (&json!("counter/a"), &json!(1)), "{inner}");
}

#[tokio::test]
async fn what_their_paths_do_not_take_is_refused_as_anywhere() {
    let world = World::new().await;
    native(&world, "faulty", "faulty").await;
    native(&world, "empty", "counter").await;
    push(&world, "faulty/a", json!({})).await;
    for (method, path, body, status, code) in [
        (
            "POST",
            "/faulty%2Fa/push",
            r#"{"slot": 0, "push-mode": "perhaps"}"#,
            400,
            "bad_control_value",
        ),
        ("POST", "/faulty%2Fa/push", r#"{"n": 1, "max-depth": -1}"#, 400, "bad_control_value"),
        ("POST", "/faulty%2Fa/push&slot=x", "", 400, "bad_value"),
        ("POST", "/faulty%2Fa/push", "", 400, "malformed_request"),
        ("POST", "/faulty%2Fa/push", "{", 400, "malformed_request"),
        ("POST", "/faulty%2Fa/push", r#"{"from": "process:x/y"}"#, 400, "reserved_field"),
        ("GET", "/faulty%2Fa/push&slot=7", "", 404, "slot_not_found"),
        ("GET", "/faulty%2Fa/compute&slot=7", "", 404, "slot_not_found"),
        ("GET", "/faulty%2Fa/compute&slot=0/results/none", "", 404, "path_not_found"),
        ("GET", "/faulty%2Fnobody/now", "", 404, "process_not_found"),
        ("GET", "/faulty/now", "", 404, "process_not_found"),
        ("POST", "/none%2Fa/push", r#"{"n": 1}"#, 404, "class_not_found"),
        ("GET", "/faulty%2Fa/other", "", 404, "route_not_found"),
    ] {
        let answer = world.ask(method, path, body).await;
        assert_eq!(
            (answer.status, answer.error().2),
            (status, code.into()),
            "{method} {path} {body}"
        );
    }
    assert_eq!(process(&world, "faulty/a").await["slots"], 1, "nothing was put there");
    // Code that fails is told with where, and has a status that says so.
    let poisoned = world.post("/faulty%2Fa/push", &json!({ "poison": true })).await;
    assert_eq!(poisoned.status, 424, "{}", poisoned.text());
    let told = poisoned.json();
    assert_eq!(
        (&told["error"]["code"], &told["phase"]),
        (&json!("guest_error"), &json!("compute"))
    );
    assert_eq!(told["attempted-slot"], 1);
    let computed = world.get("/faulty%2Fa/compute&slot=1").await;
    assert_eq!(computed.status, 424, "{}", computed.text());
    let text = world.ask("POST", "/faulty%2Fa/push", r#""just a text""#).await;
    assert_eq!((text.status, &text.json()["data"]), (200, &json!(2)), "any JSON is a message");
}
