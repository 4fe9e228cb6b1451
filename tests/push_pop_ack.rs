//! The everyday walk over the binary protocol: push, pop, ack, and what a restart leaves of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use onrush_client::{Message, MessageStatus, Qos};
use server::TestServer;

fn numbered(from: usize, to: usize) -> Vec<Message> {
    (from..to).map(|number| Message::json(&serde_json::json!({ "n": number }))).collect()
}

fn number(message: &onrush_client::ReceivedMessage) -> u64 {
    message.json::<serde_json::Value>().unwrap()["n"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_out_in_the_order_in_which_they_went_in() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let orders = client.queue("orders").partition("customer-123");
    for start in (0..100).step_by(10) {
        let result = orders.push(numbered(start, start + 10)).await.unwrap();
        assert!(result.messages.iter().all(|it| matches!(it.status, MessageStatus::Pushed)));
    }
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let popped = orders.pop().batch(33).send().await.unwrap();
        assert!(!popped.is_empty(), "after {} messages", seen.len());
        seen.extend(popped.messages.iter().map(number));
        client.ack(&popped.messages).await.unwrap();
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_id_is_stored_once_and_names_the_first_message() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let payments = client.queue("payments");
    let push =
        |id: &str| payments.push([Message::json(&1).transaction_id(id)]).qos(Qos::ExactlyOnce);
    let first = push("payment-1").await.unwrap();
    let again = push("payment-1").await.unwrap();
    let other = push("payment-2").await.unwrap();
    assert!(matches!(first.messages[0].status, MessageStatus::Pushed));
    assert!(matches!(again.messages[0].status, MessageStatus::Duplicate));
    assert_eq!(again.messages[0].message_id, first.messages[0].message_id);
    assert!(matches!(other.messages[0].status, MessageStatus::Pushed));
    let popped = payments.pop().batch(10).send().await.unwrap();
    assert_eq!(popped.len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_consumer_gets_a_message_as_soon_as_it_is_pushed() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let waiting = {
        let client = server.client().await;
        tokio::spawn(async move {
            let queue = client.queue("events");
            queue.pop().wait(Duration::from_secs(20)).send().await.unwrap()
        })
    };
    client.queue("events").push(numbered(7, 8)).await.unwrap();
    let popped = waiting.await.unwrap();
    assert_eq!(popped.messages.iter().map(number).collect::<Vec<_>>(), vec![7]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_messages_cursors_and_transaction_ids() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("orders");
    queue.push(numbered(0, 20)).await.unwrap();
    queue.push([Message::json(&0).transaction_id("once")]).await.unwrap();
    let popped = queue.pop().batch(5).send().await.unwrap();
    client.ack(&popped.messages).await.unwrap();
    drop(client);

    let server = server.restart().await;
    let client = server.client().await;
    let queue = client.queue("orders");
    let again = queue.push([Message::json(&0).transaction_id("once")]).await.unwrap();
    assert!(matches!(again.messages[0].status, MessageStatus::Duplicate));
    let popped = queue.pop().batch(100).send().await.unwrap();
    assert_eq!(popped.len(), 16);
    assert_eq!(number(&popped.messages[0]), 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_keeps_failing_becomes_a_dead_letter_and_the_rest_goes_on() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let options =
        onrush_client::QueueOptions { retry_limit: 2, retry_delay_ms: 0, ..Default::default() };
    client.queue("jobs").config(options).create().await.unwrap();
    let queue = client.queue("jobs");
    queue.push(numbered(0, 2)).await.unwrap();
    for attempt in 0..3 {
        let popped = queue.pop().send().await.unwrap();
        assert_eq!(number(&popped.messages[0]), 0, "attempt {attempt}");
        assert_eq!(popped.messages[0].attempts, attempt);
        client.nack(&popped.messages, "no").await.unwrap();
    }
    let popped = queue.pop().send().await.unwrap();
    assert_eq!(number(&popped.messages[0]), 1);
    server.stop().await;
}
