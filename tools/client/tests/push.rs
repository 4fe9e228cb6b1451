//! Pushing through the fluent interface: receipts, splitting, callbacks, retries.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and should say where"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onrush_client::{
    Breaker, BreakerState, Client, Code, Error, Message, MessageStatus, Outcome, Qos, QueueOptions,
    Uuid,
};
use support::{FakeServer, Fault, PING, PUSH};

async fn client(server: &FakeServer) -> Client {
    Client::builder()
        .addr(&server.addr())
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        .request_timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap()
}

fn numbered(range: std::ops::Range<u32>) -> Vec<Message> {
    range.map(|number| Message::bytes(number.to_string())).collect()
}

fn texts(payloads: Vec<Vec<u8>>) -> Vec<String> {
    payloads.into_iter().map(|payload| String::from_utf8(payload).unwrap()).collect()
}

#[tokio::test]
async fn each_message_gets_its_receipt_in_order() {
    let server = FakeServer::start().await;
    let queue = client(&server).await.queue("orders").partition("customer-123");
    let trace = Uuid::from_u128(7);
    let messages = [
        Message::json(&serde_json::json!({"orderId": "O-1"})).transaction_id("tx-1"),
        Message::bytes("raw").trace_id(trace).header("k", "v"),
    ];
    let result = queue.push(messages).await.unwrap();
    assert!(result.is_complete() && result.store_healthy);
    let [first, second] = &result.messages[..] else { panic!("{result:?}") };
    assert!(matches!(first.status, MessageStatus::Pushed));
    assert_eq!(first.transaction_id.as_deref(), Some("tx-1"));
    assert_eq!((first.seq, second.seq), (Some(0), Some(1)));
    assert_eq!(second.trace_id, Some(trace));
    assert_eq!(second.transaction_id, second.message_id.map(|id| id.to_string()));
    let stored = texts(server.payloads("orders", "customer-123"));
    assert_eq!(stored, [r#"{"orderId":"O-1"}"#, "raw"]);
}

#[tokio::test]
async fn a_duplicate_is_told_with_the_first_messages_id() {
    let server = FakeServer::start().await;
    let queue = client(&server).await.queue("payments");
    let first = queue.push([Message::bytes("a").transaction_id("t")]).await.unwrap();
    let (seen, successes) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let (count, success) = (Arc::clone(&seen), Arc::clone(&successes));
    let again = queue
        .push([Message::bytes("b").transaction_id("t"), Message::bytes("c").transaction_id("u")])
        .qos(Qos::ExactlyOnce)
        .on_duplicate(move |receipts| *count.lock().unwrap() += receipts.len())
        .on_success(move |receipts| *success.lock().unwrap() += receipts.len())
        .on_error(|_, error| panic!("{error}"))
        .await
        .unwrap();
    assert!(matches!(again.messages[0].status, MessageStatus::Duplicate));
    assert_eq!(again.messages[0].message_id, first.messages[0].message_id);
    assert!(matches!(again.messages[1].status, MessageStatus::Pushed));
    assert_eq!((*seen.lock().unwrap(), *successes.lock().unwrap()), (1, 1));
}

#[tokio::test]
async fn buffering_at_the_server_means_qos_0() {
    let server = FakeServer::start().await;
    let queue = client(&server).await.queue("events");
    let result = queue.push(numbered(0..3)).buffer_ms(100).buffer_max(100).await.unwrap();
    assert!(
        result.messages.iter().all(|receipt| matches!(receipt.status, MessageStatus::Buffered))
    );
    assert!(result.messages.iter().all(|receipt| receipt.message_id.is_none()));
}

#[tokio::test]
async fn a_push_of_any_size_is_split_and_answered_in_order() {
    let server = FakeServer::with(16, None, 64 * 1024).await;
    let queue = client(&server).await.queue("bulk");
    let messages: Vec<Message> = (0..300u32)
        .map(|number| {
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(1000, 7);
            Message::bytes(payload)
        })
        .collect();
    let result = queue.push(messages).await.unwrap();
    assert!(server.seen(PUSH) >= 5);
    let seqs: Vec<u64> = result.messages.iter().filter_map(|receipt| receipt.seq).collect();
    assert_eq!(seqs, (0..300).collect::<Vec<_>>());
    let order: Vec<u8> = server.payloads("bulk", "Default").iter().map(|p| p[0]).collect();
    assert_eq!(order, (0..300u32).map(|number| number as u8).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_bad_message_does_not_fail_the_others() {
    let server = FakeServer::start().await;
    let queue = client(&server).await.queue("q");
    let bad_map = std::collections::HashMap::from([(vec![1], 1)]);
    let messages = [
        Message::bytes("0"),
        Message::bytes(vec![0; 2 * 1024 * 1024]),
        Message::json(&bad_map),
        Message::bytes("3").transaction_id(""),
        Message::bytes("4"),
    ];
    let result = queue.push(messages).await.unwrap();
    assert_eq!(result.taken(), 2);
    assert!(matches!(result.messages[1].error(), Some(Error::Batch(_))));
    assert!(matches!(result.messages[2].error(), Some(Error::Json(_))));
    assert!(matches!(result.messages[3].error(), Some(Error::Batch(_))));
    assert_eq!(texts(server.payloads("q", "Default")), ["0", "4"]);
}

#[tokio::test]
async fn nothing_is_an_ok_push_and_sends_nothing() {
    let server = FakeServer::start().await;
    let result = client(&server).await.queue("q").push([]).await.unwrap();
    assert!(result.messages.is_empty() && result.is_complete());
    assert_eq!(server.seen(PUSH), 0);
}

#[tokio::test]
async fn a_bad_name_is_refused_before_anything_is_sent() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    let error = client.queue("bad\nname").push(numbered(0..1)).await.unwrap_err();
    assert!(matches!(error, Error::Name(_)), "{error:?}");
    let error = client.queue("q").partition("").push(numbered(0..1)).await.unwrap_err();
    assert!(matches!(error, Error::Name(_)), "{error:?}");
    assert_eq!(server.seen(PUSH), 0);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_order_holds() {
    let server = FakeServer::with(16, None, 16 * 1024).await;
    let queue = client(&server).await.queue("q");
    server.fault(PUSH, Fault::Refuse(Code::Busy, 1));
    server.fault(PUSH, Fault::Refuse(Code::RingFull, 0));
    let messages: Vec<Message> = (0..40).map(|n| Message::bytes(vec![n as u8; 1000])).collect();
    let result = queue.push(messages).await.unwrap();
    assert!(result.is_complete());
    let order: Vec<u8> = server.payloads("q", "Default").iter().map(|p| p[0]).collect();
    assert_eq!(order, (0..40).collect::<Vec<u8>>());
}

#[tokio::test]
async fn an_unknown_outcome_is_not_repeated_without_ids() {
    let server = FakeServer::start().await;
    let queue = client(&server).await.queue("q");
    server.fault(PUSH, Fault::DropAfter);
    let error = queue.push(numbered(0..1)).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { sent: true, .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(server.payloads("q", "Default").len(), 1);
    server.fault(PUSH, Fault::Refuse(Code::OutcomeUnknown, 0));
    let error = queue.push(numbered(0..1)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::OutcomeUnknown));
    assert_eq!(server.seen(PUSH), 2);
}

#[tokio::test]
async fn with_exactly_once_a_lost_answer_is_repeated_and_stored_once() {
    let server = FakeServer::start().await;
    let queue = client(&server).await.queue("q");
    server.fault(PUSH, Fault::DropAfter);
    server.fault(PUSH, Fault::DropBefore);
    let result = queue.push(numbered(0..5)).qos(Qos::ExactlyOnce).await.unwrap();
    assert!(result.is_complete());
    assert_eq!(server.seen(PUSH), 3);
    assert_eq!(texts(server.payloads("q", "Default")), ["0", "1", "2", "3", "4"]);
    // The ids were made before the first attempt, so the repetition met them.
    assert!(
        result.messages.iter().all(|receipt| matches!(receipt.status, MessageStatus::Duplicate))
    );
}

#[tokio::test]
async fn what_stands_behind_a_failure_is_held_back() {
    let server = FakeServer::with(16, None, 16 * 1024).await;
    let queue = client(&server).await.queue("q");
    server.fault(PUSH, Fault::Delay(Duration::ZERO));
    server.fault(PUSH, Fault::Refuse(Code::Poisoned, 0));
    let messages: Vec<Message> = (0..40).map(|n| Message::bytes(vec![n as u8; 1000])).collect();
    let errors = Arc::new(Mutex::new(None));
    let told = Arc::clone(&errors);
    let result = queue
        .push(messages)
        .on_error(move |receipts, error| {
            *told.lock().unwrap() = Some((receipts.len(), error.code()));
        })
        .await
        .unwrap();
    let stored = server.payloads("q", "Default").len();
    assert!(stored > 0 && stored < 40);
    assert_eq!(result.taken(), stored);
    assert_eq!(*errors.lock().unwrap(), Some((40 - stored, Some(Code::Poisoned))));
    assert!(matches!(result.messages[39].error(), Some(Error::HeldBack)));
    assert_eq!(server.seen(PUSH), 2);
}

#[tokio::test]
async fn a_refusal_for_good_is_not_repeated() {
    let server = FakeServer::start().await;
    let queue = client(&server).await.queue("q");
    server.fault(PUSH, Fault::Refuse(Code::Forbidden, 0));
    let error = queue.push(numbered(0..1)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Forbidden));
    assert!(!error.is_retryable());
    assert_eq!(server.seen(PUSH), 1);
}

#[tokio::test]
async fn the_client_reconnects_by_itself() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    client.connection().await.unwrap().close();
    client.ping().await.unwrap();
    server.fault(PING, Fault::DropBefore);
    client.ping().await.unwrap();
    assert_eq!(server.seen(PING), 3);
}

#[tokio::test]
async fn many_callers_of_a_dead_connection_dial_once() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    client.connection().await.unwrap().close();
    let pings = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.ping().await })
    });
    for ping in pings.collect::<Vec<_>>() {
        ping.await.unwrap().unwrap();
    }
    const HELLO: u8 = 1;
    assert_eq!(server.seen(HELLO), 2);
}

#[tokio::test]
async fn five_failures_open_the_breaker_and_nothing_more_is_sent() {
    let server = FakeServer::start().await;
    let client = Client::builder().addr(&server.addr()).retries(0).connect().await.unwrap();
    for _ in 0..5 {
        server.fault(PING, Fault::Refuse(Code::Unavailable, 0));
        assert_eq!(client.ping().await.unwrap_err().code(), Some(Code::Unavailable));
    }
    assert!(matches!(client.breaker_state(), BreakerState::Open { .. }));
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, Error::CircuitOpen { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(server.seen(PING), 5);
    let _: Breaker = Breaker::new(5, Duration::from_secs(60));
}

#[tokio::test]
async fn ones_own_mistakes_do_not_open_the_breaker() {
    let server = FakeServer::start().await;
    let client = Client::builder().addr(&server.addr()).retries(0).connect().await.unwrap();
    for _ in 0..20 {
        server.fault(PING, Fault::Refuse(Code::QueueNotFound, 0));
        assert!(client.ping().await.is_err());
    }
    client.ping().await.unwrap();
}

#[tokio::test]
async fn a_queue_is_made_and_removed() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    let options = QueueOptions { priority: -3, lease_time_s: 7, ..QueueOptions::default() };
    let queue = client.queue("q");
    assert_eq!(queue.config(options).namespace("billing").create().await.unwrap(), options);
    queue.push(numbered(0..1)).await.unwrap();
    assert!(queue.delete().await.unwrap());
    assert!(!queue.delete().await.unwrap());
    assert_eq!(client.stats().await.unwrap(), [("messages".to_owned(), 0)]);
}
