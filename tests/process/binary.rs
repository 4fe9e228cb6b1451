//! Processes over the binary port, through the client that users hold: the same answers as over HTTP.

use std::time::Duration;

use onrush_client::{AwaitLevel, Client, Code, Error, Instance, ProcessReply, ReplyStatus};
use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{define, native};

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn client(world: &World) -> Client {
    Client::connect(&world.server.tcp_addr().to_string()).await.unwrap()
}

fn code(error: &Error) -> Code {
    error.code().unwrap_or_else(|| panic!("{error:?}"))
}

async fn push(instance: &Instance, message: Value) -> Value {
    let reply = instance.push(&message).timeout(PATIENCE).await.unwrap();
    assert!(reply.is_done(), "{reply:?}");
    reply.json
}

/// The same value without what tells when and how fast something was done.
fn timeless(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for name in ["elapsed_ms", "took_us", "transaction_id"] {
                    fields.remove(name);
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value
}

#[tokio::test]
async fn what_is_asked_over_the_binary_port_is_answered_as_over_http() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    native(&world, "counter", "counter").await;
    let client = client(&world).await;
    let router = client.process("router").instance("a");
    let pushed = push(&router, json!({ "to": ["counter/a", "counter/b"] })).await;
    assert_eq!((&pushed["complete"], &pushed["status"]), (&json!(true), &json!("ok")));
    assert_eq!(pushed["output"], json!({ "routed": 2 }));
    let id = pushed["push_id"].as_str().unwrap();

    let over_http = world.get(&format!("/api/v1/pushes/{id}?depth=9")).await.json();
    let shown = client.process_push(id).status(9, Duration::ZERO).await.unwrap();
    assert_eq!(timeless(shown.json), timeless(over_http));
    let over_http = world.get(&format!("/api/v1/pushes/{id}/graph")).await.json();
    assert_eq!(client.process_push(id).graph().await.unwrap(), over_http);
    for (path, answer) in [
        ("", router.standing().await.unwrap()),
        ("/slots?limit=5", router.slots(0, 5).await.unwrap()),
        ("/slots/0", router.result(0, "", Duration::ZERO).await.unwrap().json),
        ("/slots/0/output/routed", router.result(0, "output/routed", PATIENCE).await.unwrap().json),
        ("/now", router.newest("", PATIENCE).await.unwrap().json),
    ] {
        let over_http = world.get(&format!("/api/v1/processes/router/a{path}")).await;
        assert_eq!((over_http.status, over_http.json()), (200, answer), "{path}");
    }
    let counter = client.process("counter").instance("a");
    let over_http = world.get("/api/v1/processes/counter/a/state").await.json();
    assert_eq!(counter.state("", "", 100).await.unwrap(), over_http);
    assert_eq!(counter.state_key("count").await.unwrap(), 1);
    assert_eq!(counter.state("none", "", 1).await.unwrap()["keys"], json!([]));
}

#[tokio::test]
async fn a_push_is_waited_for_as_far_as_it_says_and_done_once() {
    let world = World::new().await;
    native(&world, "sleeper", "sleeper").await;
    native(&world, "counter", "counter").await;
    let client = client(&world).await;
    let slow = client.process("sleeper").instance("a");
    let message = json!({ "ms": 700, "to": "counter/a" });
    let push = |level| slow.push(&message).transaction_id("once").until(level);
    let accepted = push(AwaitLevel::Accepted).await.unwrap();
    assert!(accepted.is_done());
    assert_eq!(accepted.json["complete"], false, "it was not waited for");
    let early = push(AwaitLevel::Cascade).timeout(Duration::from_millis(1)).await.unwrap();
    assert_eq!((early.status, &early.json["timed_out"]), (ReplyStatus::GoesOn, &json!(true)));
    assert_eq!(early.json["duplicate"], true, "the same push");
    let slot = slow.push_slot(0).until(AwaitLevel::Slot).timeout(PATIENCE).await.unwrap();
    assert_eq!(slot.json["push_id"], accepted.json["push_id"]);
    let id = accepted.push_id().unwrap().to_owned();
    let done = client.process_push(&id).status(9, PATIENCE).await.unwrap();
    assert_eq!(done.json["complete"], true, "{done:?}");
    assert_eq!(client.process("counter").instance("a").state_key("count").await.unwrap(), 1);
    // One without an id gets one, so that it may be repeated.
    let counter = client.process("counter").instance("b");
    let made_up = counter.push(&json!({})).timeout(PATIENCE).await.unwrap();
    assert_eq!(made_up.json["transaction_id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn a_failure_is_said_by_the_status_where_that_was_asked_for() {
    let world = World::new().await;
    native(&world, "faulty", "faulty").await;
    let faulty = client(&world).await.process("faulty").instance("a");
    let push = |strict| faulty.push(&json!({ "poison": true })).timeout(PATIENCE).strict(strict);
    let told: ProcessReply = push(false).await.unwrap();
    assert_eq!((told.status, &told.json["status"]), (ReplyStatus::Done, &json!("failed")));
    assert_eq!(push(true).await.unwrap().status, ReplyStatus::Failed);
}

#[tokio::test]
async fn a_push_is_called_off_and_a_process_stopped_and_resumed() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let client = client(&world).await;
    let counter = client.process("counter").instance("a");
    push(&counter, json!({})).await;
    counter.pause("a break").await.unwrap();
    assert_eq!(counter.standing().await.unwrap()["stopped"], "a break");
    let waits = counter.push(&json!({})).until(AwaitLevel::Accepted).await.unwrap();
    let called_off = counter.push(&json!({})).until(AwaitLevel::Accepted).await.unwrap();
    let cancelled = client.process_push(called_off.push_id().unwrap()).cancel().await.unwrap();
    assert_eq!(cancelled.json["status"], "cancelled");
    counter.resume().await.unwrap();
    assert_eq!(counter.standing().await.unwrap()["stopped"], Value::Null);
    let done = client.process_push(waits.push_id().unwrap()).status(1, PATIENCE).await.unwrap();
    assert_eq!(done.json["output"], 2, "{done:?}");
    let stays = client.process_push(called_off.push_id().unwrap()).status(1, PATIENCE).await;
    assert_eq!(stays.unwrap().json["status"], "cancelled");
    assert_eq!(counter.state_key("count").await.unwrap(), 2, "it was not evaluated");
}

#[tokio::test]
async fn what_there_is_not_is_said_to_be_so() {
    let world = World::new().await;
    let explicit = json!({ "runtime": "native", "module": "counter", "create": "explicit" });
    define(&world, "counter", explicit).await;
    let client = client(&world).await;
    let nowhere = client.process("none").instance("a");
    let early = client.process("counter").instance("a");
    assert_eq!(code(&nowhere.standing().await.unwrap_err()), Code::ClassNotFound);
    assert_eq!(code(&nowhere.push(&json!({})).await.unwrap_err()), Code::ClassNotFound);
    assert_eq!(code(&early.push(&json!({})).await.unwrap_err()), Code::ProcessNotFound);
    push(&early, json!({ "type": "Process" })).await;
    let slot = early.result(9, "", Duration::ZERO).await.unwrap_err();
    assert_eq!(code(&slot), Code::SlotNotFound);
    assert_eq!(code(&early.push_slot(9).await.unwrap_err()), Code::SlotNotFound);
    let part = early.result(0, "no/such", Duration::ZERO).await.unwrap_err();
    assert_eq!(code(&part), Code::PathNotFound);
    let none = client.process_push("018bcfe5-6800-7000-8000-a800000003e8");
    assert_eq!(code(&none.cancel().await.unwrap_err()), Code::PushNotFound);
    let beyond = early.push(&json!({})).max_messages(u64::MAX).await.unwrap_err();
    assert_eq!(code(&beyond), Code::BadControlValue);
    let long = early.push(&json!({})).transaction_id("x".repeat(256)).await.unwrap_err();
    assert!(matches!(long, Error::Value { field: "transaction_id", .. }), "{long:?}");
    let patient = early.result(0, "", Duration::from_secs(601)).await.unwrap_err();
    assert!(matches!(patient, Error::Value { field: "wait", .. }), "{patient:?}");
}
