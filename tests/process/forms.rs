//! PV-21: messages in a form that their target does not take.

use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{complete, define, native, process, push, push_with, slot};

/// `router` sends all but `to` on.
async fn send(world: &World, to: &str, more: Value) -> Value {
    let mut message = json!({ "to": to });
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    push(world, "router/r", message).await
}

/// What a process was sent in a slot.
async fn message(world: &World, name: &str, slot: u64) -> Value {
    let path = format!("/api/v1/processes/{name}/slots?from={slot}&limit=1");
    world.get(&path).await.json()["slots"][0]["message"].clone()
}

#[tokio::test]
async fn pv_21_what_a_target_does_not_take_is_refused_or_said_otherwise() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    for (class, codec) in [("text", "json"), ("raw", "bytes")] {
        let only = json!({ "runtime": "native", "module": "counter", "codecs": [codec] });
        define(&world, class, only).await;
    }
    let bytes = json!({ "encoding": "base64", "body": "aGk=" });
    let coded = |mut message: Value| {
        message["recode"] = json!(true);
        message
    };
    for (to, message) in [("raw/a", json!({ "n": 1 })), ("text/a", bytes.clone())] {
        let told = send(&world, to, message).await;
        let child = &told["children"][0];
        assert_eq!(
            (&child["status"], &told["status"]),
            (&json!("refused"), &json!("partial")),
            "{told}"
        );
        let error = &child["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!("codec_rejected"), &json!(422)));
        assert_eq!(told["stats"]["dlq"], 1, "and is kept: {told}");
        let missing = world.get(&format!("/api/v1/processes/{to}")).await;
        assert_eq!(missing.status, 404, "nothing came there");
    }
    // What may be said otherwise is not refused.
    let told = send(&world, "raw/a", coded(json!({ "n": 1 }))).await;
    let child = &told["children"][0];
    assert_eq!((&told["status"], &child["status"]), (&json!("ok"), &json!("ok")), "{told}");
    assert_eq!(slot(&world, "raw/a", 0).await["output"], 1);
    assert_eq!(message(&world, "raw/a", 0).await, Value::Null, "bytes");
    let told = send(&world, "text/a", coded(bytes.clone())).await;
    assert_eq!(told["status"], "ok", "{told}");
    assert_eq!(message(&world, "text/a", 0).await, bytes);
    // What goes as it is has no mark on it.
    send(&world, "text/a", coded(json!({ "n": 2 }))).await;
    assert_eq!(message(&world, "text/a", 1).await, json!({ "n": 2 }));
    send(&world, "raw/a", bytes.clone()).await;
    assert_eq!(process(&world, "raw/a").await["slots"], 2);
    let broken = send(&world, "raw/a", json!({ "encoding": "base64", "body": "?" })).await;
    assert_eq!(broken["children"][0]["error"]["code"], "codec_rejected", "{broken}");
}

#[tokio::test]
async fn a_push_in_a_form_that_its_class_does_not_take_is_refused() {
    let world = World::new().await;
    let only = json!({ "runtime": "native", "module": "counter", "codecs": ["bytes"] });
    define(&world, "raw", only).await;
    let refused = push_with(&world, "raw/a", json!({ "n": 1 }), json!({})).await;
    assert_eq!((refused.status, refused.error().2), (422, "codec_rejected".into()));
    let dry = world.post("/api/v1/processes/raw/a/dryrun", &json!({ "message": 1 })).await;
    assert_eq!((dry.status, dry.error().2), (422, "codec_rejected".into()));
    // A definition is no message.
    push(&world, "raw/a", json!({ "type": "Process", "init": { "count": 4 } })).await;
    let item = json!([{ "queue": "raw", "partition": "a", "payload": { "n": 1 } }]);
    assert_eq!(world.push(item).await.status, 201);
    let told = slot(&world, "raw/a", 1).await;
    assert_eq!(
        (&told["status"], &told["error"]["code"]),
        (&json!("refused"), &json!("codec_rejected"))
    );
}

#[tokio::test]
async fn bytes_that_were_refused_are_sent_after_all_as_they_were() {
    let world = World::new().await;
    native(&world, "router", "router").await;
    let class =
        |codecs: Value| json!({ "runtime": "native", "module": "counter", "codecs": codecs });
    define(&world, "text", class(json!(["json"]))).await;
    let told = send(&world, "text/a", json!({ "encoding": "base64", "body": "aGk=" })).await;
    let id = told["push_id"].as_str().unwrap();
    let letters = world.get(&format!("/api/v1/letters?cascade={id}")).await.json();
    let letter = &letters["letters"][0];
    assert_eq!((&letter["code"], &letter["target"]), (&json!("codec_rejected"), &json!("text/a")));
    define(&world, "text", class(json!(["json", "bytes"]))).await;
    let redrive = format!("/api/v1/letters/{}/redrive", letter["id"].as_str().unwrap());
    assert_eq!(world.post(&redrive, &json!({})).await.status, 200);
    let told = complete(&world, &told).await;
    assert_eq!(
        (&told["status"], &told["children"][0]["output"]),
        (&json!("ok"), &json!(1)),
        "{told}"
    );
    assert_eq!(message(&world, "text/a", 0).await, Value::Null, "bytes, as they were");
}
