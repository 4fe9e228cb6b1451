//! Many requests on one connection: order of answers, the window, ends of connections.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and should say where"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use onrush_client::{
    Code, ConnectOptions, Connection, Error, Outcome, PartitionName, Qos, QueueName,
};
use onrush_protocol::request::Ping;
use onrush_protocol::response::SectionReceipt;
use onrush_protocol::{BatchBuilder, NewRecord, Request, Response};
use support::{FakeServer, Fault, PING, PUSH};

fn options(request_timeout: Duration) -> ConnectOptions {
    ConnectOptions { request_timeout, ..ConnectOptions::default() }
}

async fn connect(server: &FakeServer) -> Connection {
    let options = options(Duration::from_secs(20));
    Connection::connect(&server.addr(), &options).await.unwrap()
}

fn batch(payload: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
    builder.finish().unwrap().bytes().clone()
}

fn names() -> (QueueName, PartitionName) {
    ("q".parse().unwrap(), PartitionName::default())
}

#[tokio::test]
async fn answers_find_their_callers_whatever_their_order() {
    let server = FakeServer::start().await;
    let connection = connect(&server).await;
    server.fault(PUSH, Fault::Delay(Duration::from_millis(50)));
    let (queue, partition) = names();
    let first =
        tokio::spawn(connection.push_raw(&queue, &partition, Qos::AtLeastOnce, batch(b"a")));
    while server.seen(PUSH) == 0 {
        tokio::task::yield_now().await;
    }
    let second = connection.push_raw(&queue, &partition, Qos::AtLeastOnce, batch(b"b"));
    let second = second.await.unwrap();
    let first = first.await.unwrap().unwrap();
    let seq = |receipts: &onrush_protocol::response::Receipts| match receipts.sections[..] {
        [SectionReceipt::Pushed { first_seq, .. }] => first_seq,
        _ => panic!("{receipts:?}"),
    };
    assert_eq!((seq(&first), seq(&second)), (0, 1));
}

#[tokio::test]
async fn a_thousand_pushes_at_once_keep_their_order() {
    let server = FakeServer::with(64, None, 1 << 20).await;
    let connection = connect(&server).await;
    let (queue, partition) = names();
    let mut pushes = tokio::task::JoinSet::new();
    for number in 0..1000u32 {
        let payload = batch(&number.to_le_bytes());
        pushes.spawn(connection.push_raw(&queue, &partition, Qos::AtLeastOnce, payload));
        // Spawned tasks start in order on a runtime with one thread.
    }
    while let Some(result) = pushes.join_next().await {
        result.unwrap().unwrap();
    }
    let expected: Vec<Vec<u8>> = (0..1000u32).map(|number| number.to_le_bytes().to_vec()).collect();
    assert_eq!(server.payloads("q", "Default"), expected);
}

#[tokio::test]
async fn whoever_comes_beyond_the_window_waits_for_a_place() {
    let server = FakeServer::with(2, None, 1 << 20).await;
    let connection = connect(&server).await;
    server.fault(PING, Fault::Silence);
    server.fault(PING, Fault::Silence);
    let ping = Request::Ping(Ping {});
    let limit = Duration::from_secs(20);
    let mut hung = Vec::new();
    for _ in 0..2 {
        let (connection, ping) = (connection.clone(), ping.clone());
        hung.push(tokio::spawn(async move { connection.request_within(&ping, limit).await }));
    }
    while server.seen(PING) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(connection.window_left(), 0);
    let third = connection.request_within(&ping, Duration::from_millis(20)).await;
    assert!(matches!(third, Err(Error::TimedOut { sent: false, .. })), "{third:?}");
    assert_eq!(third.unwrap_err().outcome(), Outcome::NotApplied);
    assert_eq!(server.seen(PING), 2);
}

#[tokio::test]
async fn a_dropped_request_keeps_its_place_until_its_answer() {
    let server = FakeServer::with(1, None, 1 << 20).await;
    let connection = connect(&server).await;
    server.fault(PING, Fault::Delay(Duration::from_millis(50)));
    let ping = Request::Ping(Ping {});
    let dropped = tokio::time::timeout(Duration::from_millis(10), connection.request(&ping)).await;
    assert!(dropped.is_err());
    assert_eq!(connection.window_left(), 0);
    assert!(matches!(connection.request(&ping).await, Ok(Response::Pong(_))));
    assert_eq!(connection.window_left(), 1);
}

#[tokio::test]
async fn when_the_server_goes_everybody_learns_that_nobody_knows() {
    let server = FakeServer::start().await;
    let connection = connect(&server).await;
    server.fault(PING, Fault::Silence);
    server.fault(PUSH, Fault::DropBefore);
    let waiting = {
        let connection = connection.clone();
        tokio::spawn(async move { connection.request(&Request::Ping(Ping {})).await })
    };
    while server.seen(PING) == 0 {
        tokio::task::yield_now().await;
    }
    let (queue, partition) = names();
    let push = connection.push_raw(&queue, &partition, Qos::AtLeastOnce, batch(b"x")).await;
    for error in [push.unwrap_err(), waiting.await.unwrap().unwrap_err()] {
        assert!(matches!(error, Error::Disconnected { sent: true, .. }), "{error:?}");
        assert!(error.is_retryable());
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
    assert!(connection.is_closed());
    let late = connection.request(&Request::Ping(Ping {})).await.unwrap_err();
    assert!(matches!(late, Error::Disconnected { sent: false, .. }), "{late:?}");
}

#[tokio::test]
async fn a_line_that_says_nothing_is_given_up() {
    let server = FakeServer::start().await;
    let connection =
        Connection::connect(&server.addr(), &options(Duration::from_millis(30))).await.unwrap();
    server.fault(PING, Fault::Silence);
    let error = connection.request(&Request::Ping(Ping {})).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { sent: true, .. }), "{error:?}");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_wrong_token_is_refused_by_name() {
    let server = FakeServer::with(16, Some("secret"), 1 << 20).await;
    let error = Connection::connect(&server.addr(), &ConnectOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unauthenticated));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn nobody_there_is_an_error_that_may_be_tried_again() {
    let addr = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let error = Connection::connect(&addr, &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn a_server_that_takes_the_call_and_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let options =
        ConnectOptions { connect_timeout: Duration::from_millis(30), ..ConnectOptions::default() };
    let error = Connection::connect(&addr, &options).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn a_frame_that_the_server_would_not_take_is_refused_before_it_is_sent() {
    let server = FakeServer::start().await;
    let connection = connect(&server).await;
    let (queue, partition) = names();
    let giant = Bytes::from(vec![0; 17 * 1024 * 1024]);
    let error = connection.push_raw(&queue, &partition, Qos::AtLeastOnce, giant).await.unwrap_err();
    assert!(matches!(error, Error::Value { field: "frame", .. }), "{error:?}");
    assert_eq!(server.seen(PUSH), 0);
    assert_eq!(connection.window_left(), 1024);
}

#[tokio::test]
async fn garbage_from_the_server_ends_the_connection_with_a_reason() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let talking = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut theirs = theirs;
        theirs.write_all(&[0xff; 64]).await.unwrap();
        theirs
    });
    let error = Connection::over(ours, &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
    drop(talking.await);
}
