//! What goes in comes out as it was, by either door, and after a restart.

use onrush_client::{Client, Message, Qos, SubscriptionStart};
use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{Desk, payloads};

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_out_as_it_was_by_both_doors_and_after_a_restart() {
    let mut desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    let values =
        [json!({ "n": 1 }), Value::Null, json!("text ü"), json!([1.50, "x".repeat(5_000)])];
    desk.push("secrets", "p", &values).await;
    let address = desk.world.server.tcp_addr().to_string();
    let queue = Client::connect(&address).await.unwrap().queue("secrets").partition("p");
    let trace = "019a0c11-7fe8-7001-9999-0123456789ab".parse().unwrap();
    let message = Message::bytes(vec![0, 255, 7]).transaction_id("t-1").trace_id(trace);
    queue.push([message.header("key", vec![1, 2])]).qos(Qos::ExactlyOnce).await.unwrap();
    queue.push([Message::bytes(vec![])]).qos(Qos::Buffered).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            desk = desk.restart().await;
        }
        let address = desk.world.server.tcp_addr().to_string();
        let client = Client::connect(&address).await.unwrap();
        let queue = client.queue("secrets").partition("p");
        // The buffered one comes a little later; each look is a new group's.
        let mut looks = 0;
        let popped = loop {
            let group = format!("tcp-{restarted}-{looks}");
            let popped = queue.pop().group(&group).start(SubscriptionStart::Beginning).batch(100);
            let popped = popped.send().await.unwrap();
            if popped.messages.len() == 6 {
                break popped;
            }
            looks += 1;
        };
        let bytes: Vec<Vec<u8>> = popped.messages.iter().map(|it| it.bytes().to_vec()).collect();
        let mut expected: Vec<Vec<u8>> =
            values.iter().map(|value| value.to_string().into_bytes()).collect();
        expected.extend([vec![0, 255, 7], vec![]]);
        assert_eq!(bytes, expected);
        assert_eq!(popped.messages[4].transaction_id(), "t-1");
        let path = format!("/api/v1/pop/queue/secrets?batch=3&consumerGroup=http-{restarted}");
        let answer = desk.world.get(&path).await.json();
        assert_eq!(payloads(&answer), values[..3]);
    }
    // A duplicate is known by its id, which stays in clear.
    let item =
        json!([{ "queue": "secrets", "partition": "p", "transactionId": "t-1", "payload": 2 }]);
    let again = desk.world.push(item).await.json();
    assert_eq!(again["messages"][0]["status"], "duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_batch_and_a_pop_that_settles_at_once_are_opened_too() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    let values: Vec<Value> = (0..10).map(|n| json!({ "n": n })).collect();
    desk.push("secrets", "p", &values).await;
    assert_eq!(desk.take("secrets", 3).await, values[..3]);
    let address = desk.world.server.tcp_addr().to_string();
    let queue = Client::connect(&address).await.unwrap().queue("secrets");
    let popped = queue.pop().batch(4).auto_ack(true).send().await.unwrap();
    let seen: Vec<Value> = popped.messages.iter().map(|it| it.json().unwrap()).collect();
    assert_eq!(seen, values[3..7]);
    assert_eq!(desk.take("secrets", 10).await, values[7..]);
    assert_eq!(desk.take("secrets", 10).await, Vec::<Value>::new(), "all of it is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_opened() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    let item = json!({ "queue": "secrets", "partition": "p", "transactionId": "t-1", "payload": { "canary": 1 } });
    assert_eq!(desk.world.push(json!([item])).await.status, 201);
    let popped = desk.world.get("/api/v1/pop/queue/secrets?batch=1").await.json();
    let message = &popped["messages"][0];
    let ack = json!({
        "transactionId": message["transactionId"], "partitionId": message["partitionId"],
        "status": "dlq", "leaseId": message["leaseId"], "error": "no good",
    });
    assert_eq!(desk.world.post("/api/v1/ack", &ack).await.status, 200);
    let letters = desk.world.get("/api/v1/dlq?queue=secrets").await.json();
    assert_eq!(payloads(&letters), [json!({ "canary": 1 })]);
    // Without the key the letter is there all the same, and says what it lacks.
    desk.keys(&[(2, 'b')]).await;
    let letters = desk.world.get("/api/v1/dlq?queue=secrets").await.json();
    assert_eq!(letters["messages"][0]["data"], Value::Null);
    assert_eq!(letters["messages"][0]["dataError"], "key 1 is not here");
    assert_eq!(letters["messages"][0]["transactionId"], "t-1", "ids stay readable");
}

#[tokio::test(flavor = "multi_thread")]
async fn turning_it_on_and_off_counts_for_new_messages_and_old_ones_stay_readable() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.configure("q", json!({})).await;
    desk.push("q", "p", &[json!("in clear")]).await;
    desk.configure("q", json!({ "encryptionEnabled": true })).await;
    desk.push("q", "p", &[json!("sealed")]).await;
    desk.configure("q", json!({ "encryptionEnabled": false })).await;
    desk.push("q", "p", &[json!("in clear again")]).await;
    let desk = desk.restart().await;
    let path = "/api/v1/pop/queue/q?batch=10&consumerGroup=g";
    let expected = [json!("in clear"), json!("sealed"), json!("in clear again")];
    assert_eq!(payloads(&desk.world.get(path).await.json()), expected);
    // Also to who settles at once: the middle one must not be passed by without its key.
    desk.keys(&[(2, 'b')]).await;
    assert_eq!(desk.take("q", 10).await, expected[..1]);
    let (status, error, code) = desk.refused("q", "batch=10&autoAck=true").await;
    assert_eq!((status, code.as_str()), (503, "key_not_here"), "{error}");
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    assert_eq!(desk.take("q", 10).await, expected[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_in_the_settings_is_enough() {
    let key = onrush::config::Secret::new("00112233445566778899aabbccddeeff".repeat(2));
    let world = World::with(|settings| settings.encryption.key = key).await;
    let body = json!({ "queue": "q", "options": { "encryptionEnabled": true } });
    let configured = world.post("/queen/api/v1/configure", &body).await.json();
    assert_eq!(configured["options"]["encryptionEnabled"], true);
    let pushed = world.push(json!([{ "queue": "q", "payload": { "secret": 1 } }])).await;
    assert_eq!(pushed.status, 201);
    let popped = world.get("/queen/api/v1/pop/queue/q").await.json();
    assert_eq!(payloads(&popped), [json!({ "secret": 1 })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_takes_along_is_sealed_where_its_queue_asks_for_that_by_now() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.configure("late", json!({})).await;
    let item = |payload: &str| json!({ "queue": "late", "partition": "p", "payload": payload });
    let buffered = json!({ "bufferMs": 60000, "items": [item("before")] });
    let answer = desk.world.post("/api/v1/push", &buffered).await;
    assert!(answer.status < 300, "{}", answer.text());
    desk.sealed_queue("late").await;
    let operations = json!([{ "type": "push", "items": [item("whole")] }]);
    let whole = json!({ "operations": operations, "requiredLeases": [] });
    let answer = desk.world.post("/api/v1/transaction", &whole).await;
    assert_eq!(answer.json()["success"], true, "{}", answer.text());
    assert_eq!(desk.take("late", 10).await, ["before", "whole"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_show_the_message_and_not_what_is_stored_of_it() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    desk.push("secrets", "p", &[json!({ "n": 7 })]).await;
    let popped = desk.world.get("/api/v1/pop/queue/secrets?consumerGroup=g").await.json();
    let message = &popped["messages"][0];
    let trace = json!({
        "transactionId": message["transactionId"], "partitionId": message["partitionId"],
        "data": { "seen": true }, "traceNames": ["flow"],
    });
    assert_eq!(desk.world.post("/api/v1/traces", &trace).await.status, 201);
    let shown = async || {
        let page = desk.world.get("/api/v1/traces/by-name/flow").await.json();
        page["traces"][0]["message_payload"].clone()
    };
    assert_eq!(shown().await, json!({ "n": 7 }));
    desk.keys(&[(2, 'b')]).await;
    assert_eq!(shown().await, Value::Null, "what does not open is not shown");
}
