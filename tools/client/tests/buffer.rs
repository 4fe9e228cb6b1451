//! Collecting messages before they are pushed: nothing is dropped in silence.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and should say where"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use onrush_client::{Buffer, Client, Code, Error, Message, Qos};
use support::{FakeServer, Fault, PUSH};

const LONG: Duration = Duration::from_secs(3600);

async fn client(server: &FakeServer, retries: u32) -> Client {
    Client::builder()
        .addr(&server.addr())
        .retries(retries)
        .circuit_breaker(0, Duration::ZERO)
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        .request_timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap()
}

async fn add(buffer: &Buffer, range: std::ops::Range<u32>) {
    for number in range {
        buffer.add(Message::bytes(number.to_string())).await.unwrap();
    }
}

fn stored(server: &FakeServer) -> Vec<u32> {
    let text = |payload: Vec<u8>| String::from_utf8(payload).unwrap().parse().unwrap();
    server.payloads("q", "Default").into_iter().map(text).collect()
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_full_buffer_is_sent_as_one_push() {
    let server = FakeServer::start().await;
    let buffer = client(&server, 0).await.queue("q").buffer(10, LONG).unwrap();
    add(&buffer, 0..9).await;
    assert_eq!((buffer.waiting(), server.seen(PUSH)), (9, 0));
    add(&buffer, 9..10).await;
    until(|| server.seen(PUSH) == 1 && buffer.waiting() == 0).await;
    assert_eq!(stored(&server), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_oldest_message_waits_no_longer_than_it_was_told() {
    let server = FakeServer::start().await;
    let client = client(&server, 0).await;
    let buffer = client.queue("q").buffer(1000, Duration::from_millis(5)).unwrap();
    add(&buffer, 0..3).await;
    until(|| buffer.waiting() == 0).await;
    assert_eq!(stored(&server), [0, 1, 2]);
}

#[tokio::test]
async fn what_could_not_be_sent_stays_in_order_and_is_sent_later() {
    let server = FakeServer::start().await;
    let buffer = client(&server, 0).await.queue("q").buffer(100, LONG).unwrap();
    add(&buffer, 0..5).await;
    server.fault(PUSH, Fault::Refuse(Code::Unavailable, 0));
    let report = buffer.flush().await;
    assert_eq!((report.pushed, report.waiting, report.failed.len()), (0, 5, 0));
    assert_eq!(report.error.as_ref().and_then(Error::code), Some(Code::Unavailable));
    add(&buffer, 5..7).await;
    assert!(buffer.flush().await.is_complete());
    assert_eq!(stored(&server), (0..7).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lost_answer_does_not_make_duplicates() {
    let server = FakeServer::start().await;
    let buffer = client(&server, 0).await.queue("q").buffer(100, LONG).unwrap();
    add(&buffer, 0..5).await;
    server.fault(PUSH, Fault::DropAfter);
    assert_eq!(buffer.flush().await.waiting, 5);
    assert!(buffer.flush().await.is_complete());
    assert_eq!(stored(&server), (0..5).collect::<Vec<_>>());
}

#[tokio::test]
async fn with_qos_0_a_lost_answer_is_reported_and_not_repeated() {
    let server = FakeServer::start().await;
    let queue = client(&server, 0).await.queue("q");
    let buffer = queue.buffer(100, LONG).unwrap().qos(Qos::Buffered);
    add(&buffer, 0..5).await;
    server.fault(PUSH, Fault::DropAfter);
    let report = buffer.flush().await;
    assert_eq!((report.waiting, report.failed.len()), (0, 5));
    assert_eq!(stored(&server).len(), 5);
}

#[tokio::test]
async fn what_never_can_be_sent_is_handed_back_with_its_reason() {
    let server = FakeServer::start().await;
    let buffer = client(&server, 0).await.queue("q").buffer(100, LONG).unwrap();
    buffer.add(Message::bytes("0")).await.unwrap();
    buffer.add(Message::bytes(vec![0; 2 * 1024 * 1024])).await.unwrap();
    buffer.add(Message::bytes("1")).await.unwrap();
    let report = buffer.flush().await;
    assert_eq!((report.pushed, report.waiting, report.failed.len()), (2, 0, 1));
    assert!(matches!(report.failed[0].1, Error::Batch(_)));
    assert_eq!(stored(&server), [0, 1]);
}

#[tokio::test]
async fn closing_hands_back_every_message_that_the_server_does_not_have() {
    let server = FakeServer::start().await;
    let buffer = client(&server, 0).await.queue("q").buffer(100, LONG).unwrap();
    add(&buffer, 0..5).await;
    server.fault(PUSH, Fault::Refuse(Code::ShuttingDown, 0));
    let leftovers = buffer.close().await;
    assert_eq!(leftovers.len(), 5);
    assert!(leftovers.iter().all(|(_, error)| error.code() == Some(Code::ShuttingDown)));
    assert!(stored(&server).is_empty());
}

#[tokio::test]
async fn a_buffer_that_is_full_makes_producers_wait() {
    let server = FakeServer::start().await;
    let queue = client(&server, 0).await.queue("q");
    let buffer = Arc::new(queue.buffer(5, LONG).unwrap().capacity(5));
    for _ in 0..3 {
        server.fault(PUSH, Fault::Refuse(Code::Busy, 0));
    }
    let adding = Arc::clone(&buffer);
    let producer = tokio::spawn(async move { add(&adding, 0..50).await });
    producer.await.unwrap();
    assert!(buffer.waiting() <= 5);
    assert!(buffer.flush().await.is_complete());
    assert_eq!(stored(&server), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_buffers_of_a_client_are_flushed_together() {
    let server = FakeServer::start().await;
    let client = client(&server, 0).await;
    let first = client.queue("q").buffer(100, LONG).unwrap();
    let second = client.queue("other").buffer(100, LONG).unwrap();
    drop(client.queue("q").buffer(100, LONG).unwrap());
    add(&first, 0..2).await;
    add(&second, 0..3).await;
    let report = client.flush_all().await;
    assert!(report.is_complete());
    assert_eq!(report.pushed, 5);
}

#[tokio::test]
async fn a_flush_that_is_cut_off_loses_nothing() {
    let server = FakeServer::start().await;
    let buffer = client(&server, 0).await.queue("q").buffer(100, LONG).unwrap();
    add(&buffer, 0..5).await;
    server.fault(PUSH, Fault::Delay(Duration::from_millis(200)));
    let cut = tokio::time::timeout(Duration::from_millis(20), buffer.flush()).await;
    assert!(cut.is_err());
    assert_eq!(buffer.waiting(), 5);
    assert!(buffer.flush().await.is_complete());
    assert_eq!(stored(&server), (0..5).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_buffer_for_no_messages_is_refused() {
    let server = FakeServer::start().await;
    let error = client(&server, 0).await.queue("q").buffer(0, LONG).unwrap_err();
    assert!(matches!(error, Error::Value { field: "messages_max", .. }), "{error:?}");
}
