//! What processes use themselves is nobody else's: their group, their queue, and what they write on
//! messages.

use onrush_client::{Client, Error, Message};
use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{native, push, slot, state};

#[tokio::test]
async fn the_group_and_the_queue_of_processes_are_refused_to_everybody_else() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    push(&world, "counter/a", json!({ "add": 1 })).await;
    let group = "consumerGroup=$process";
    let ack = json!({ "transactionId": "t", "partitionId": "0", "status": "completed",
                      "consumerGroup": "$process" });
    let to_end = json!({ "toEnd": true });
    let refused: [(&str, &str, Value); 7] = [
        ("GET", &format!("/api/v1/pop/queue/counter?{group}"), Value::Null),
        (
            "GET",
            &format!("/api/v1/pop/queue/counter/partition/a?{group}&autoAck=true"),
            Value::Null,
        ),
        ("POST", "/api/v1/ack", ack),
        ("POST", "/api/v1/consumer-groups/$process/queues/counter/seek", to_end),
        ("DELETE", "/api/v1/consumer-groups/$process", Value::Null),
        ("DELETE", "/api/v1/resources/queues/$process", Value::Null),
        ("POST", "/api/v1/configure", json!({ "queue": "$process", "options": {} })),
    ];
    for (method, path, body) in refused {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = world.ask(method, path, &body).await;
        let said = answer.text().to_owned();
        let status = answer.status;
        // An ack answers for each of its messages.
        let is_refused = (400..500).contains(&status) || said.contains("\"success\":false");
        assert!(is_refused && said.contains("$process"), "{method} {path}: {status} {said}");
    }
    let item = json!([{ "queue": "$process", "payload": 1 }]);
    let answer = world.post("/api/v1/push", &json!({ "items": item })).await;
    assert!(answer.text().contains("processes use themselves"), "{}", answer.text());
    assert_eq!(slot(&world, "counter/a", 0).await["status"], "ok");
    assert_eq!(push(&world, "counter/a", json!({ "add": 1 })).await["output"], 2);
    assert_eq!(state(&world, "counter/a", "count").await, 2);
}

#[tokio::test]
async fn nobody_says_that_a_process_sent_a_message() {
    let world = World::new().await;
    native(&world, "counter", "counter").await;
    let client = Client::connect(&world.server.tcp_addr().to_string()).await.unwrap();
    // Not even where it is no class yet.
    for queue in ["counter", "plain"] {
        let forged = Message::json(&1).header("$onrush", b"{}".to_vec());
        let pushed = client.queue(queue).push([forged]).await;
        let Err(Error::Refused(refused)) = pushed else { panic!("{pushed:?}") };
        assert!(refused.to_string().contains("$onrush"), "{refused}");
        let fine = Message::json(&json!({ "add": 1 })).header("onrush", b"{}".to_vec());
        client.queue(queue).push([fine]).await.unwrap();
    }
}

#[tokio::test]
async fn a_class_and_encryption_exclude_each_other() {
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let world = World::with(|settings| {
        settings.encryption.key = onrush::config::Secret::new(key);
    })
    .await;
    let sealed = json!({ "queue": "secret", "options": { "encryptionEnabled": true } });
    assert_eq!(world.post("/api/v1/configure", &sealed).await.status, 200);
    let class = json!({ "runtime": "native", "module": "counter" }).to_string();
    let refused = world.ask("PUT", "/api/v1/processes/secret", &class).await;
    assert_eq!((refused.status, refused.error().2), (400, "bad_option".into()));
    assert_eq!(world.get("/api/v1/processes/secret").await.status, 404, "nothing was defined");
    native(&world, "clear", "counter").await;
    let sealed = json!({ "queue": "clear", "options": { "encryptionEnabled": true } });
    let refused = world.post("/api/v1/configure", &sealed).await;
    assert_eq!((refused.status, refused.error().2), (400, "bad_option".into()));
    assert_eq!(push(&world, "clear/a", json!({})).await["output"], 1);
}
