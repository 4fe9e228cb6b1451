//! Popping, acknowledging, renewing, and the consuming loop.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and should say where"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onrush_client::{AckOutcome, Client, Code, Error, Message, ReceivedMessage};
use support::{ACK, FakeServer, Fault, POP, POP_KNOWN};

async fn client(server: &FakeServer) -> Client {
    Client::builder()
        .addr(&server.addr())
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        .request_timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap()
}

async fn filled(server: &FakeServer, partitions: u32, messages: u32) -> Client {
    let client = client(server).await;
    for partition in 0..partitions {
        let queue = client.queue("q").partition(&format!("p{partition}"));
        let messages = (0..messages).map(|number| Message::json(&(partition, number)));
        queue.push(messages).await.unwrap();
    }
    client
}

fn numbers(message: &ReceivedMessage) -> (u32, u32) {
    message.json().unwrap()
}

#[tokio::test]
async fn a_server_that_cannot_say_who_pushed_is_asked_for_it_once() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 3).await;
    for number in 0..3 {
        let popped = client.queue("q").pop().await.unwrap();
        assert_eq!(numbers(&popped.messages[0]), (0, number));
        assert_eq!(popped.messages[0].producer(), None);
        client.ack(&popped).await.unwrap();
    }
    assert_eq!((server.seen(POP_KNOWN), server.seen(POP)), (1, 3));
}

#[tokio::test]
async fn a_message_comes_out_as_it_went_in() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    let queue = client.queue("orders").partition("p");
    let message = Message::bytes(vec![0xff, 0])
        .transaction_id("tx")
        .trace_id(onrush_client::Uuid::from_u128(9))
        .header("a", "1")
        .header("b", vec![2]);
    queue.push([message, Message::json(&"json")]).await.unwrap();
    let popped = queue.pop().group("g").batch(10).await.unwrap();
    let [first, second] = &popped.messages[..] else { panic!("{popped:?}") };
    assert_eq!(first.bytes().as_ref(), [0xff, 0]);
    assert_eq!((first.is_json, second.is_json), (false, true));
    assert_eq!(first.transaction_id(), "tx");
    assert_eq!(second.transaction_id(), second.id.to_string());
    assert_eq!(first.trace_id, Some(onrush_client::Uuid::from_u128(9)));
    assert_eq!(first.header("b").unwrap().as_ref(), [2]);
    assert_eq!((first.seq, second.seq), (0, 1));
    assert_eq!((first.queue().as_str(), first.partition_name().as_str()), ("orders", "p"));
    assert_eq!((first.group().as_str(), first.attempts), ("g", 0));
    assert!(first.is_leased());
    assert!(first.json::<String>().is_err());
}

#[tokio::test]
async fn many_messages_are_acknowledged_as_one_range_each_partition() {
    let server = FakeServer::start().await;
    let client = filled(&server, 3, 100).await;
    let popped = client.queue("q").pop().batch(1000).partitions(3).await.unwrap();
    assert_eq!(popped.len(), 300);
    let report = client.ack(&popped).await.unwrap();
    assert_eq!((report.acked, report.refused.len()), (300, 0));
    let acks = server.shared.store.lock().unwrap().acks.clone();
    let done = AckOutcome::Completed;
    assert_eq!(acks, [(0, 0, 99, done), (1, 0, 99, done), (2, 0, 99, done)]);
    assert!(client.queue("q").pop().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_message_comes_again_with_its_attempts() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 2).await;
    let pop = client.queue("q").pop();
    let first = pop.clone().await.unwrap();
    client.nack(&first.messages[0], "not today").await.unwrap();
    let again = pop.await.unwrap();
    assert_eq!((again.messages[0].seq, again.messages[0].attempts), (0, 1));
    client.ack(&again.messages[0]).await.unwrap();
}

#[tokio::test]
async fn an_ack_without_its_lease_says_which_range_was_refused() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 3).await;
    let popped = client.queue("q").pop().batch(3).await.unwrap();
    client.ack(&popped).await.unwrap();
    let error = client.ack(&popped).await.unwrap_err();
    let Error::Ack(report) = error else { panic!("{error:?}") };
    let [refused] = &report.refused[..] else { panic!("{report:?}") };
    assert_eq!((refused.first_seq, refused.last_seq), (0, 2));
    assert_eq!(refused.refusal.code(), Some(Code::LeaseNotFound));
}

#[tokio::test]
async fn auto_acked_messages_need_no_ack() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 3).await;
    let popped = client.queue("q").pop().batch(3).auto_ack(true).await.unwrap();
    assert!(!popped.messages[0].is_leased());
    assert_eq!(client.ack(&popped).await.unwrap().acked, 0);
    assert_eq!(server.seen(ACK), 0);
}

#[tokio::test]
async fn a_pop_that_waits_is_woken_by_a_push() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    let pop = client.queue("q").pop().wait(Duration::from_secs(30));
    let waiting = tokio::spawn(async move { pop.await });
    while server.seen(POP) == 0 {
        tokio::task::yield_now().await;
    }
    client.queue("q").push([Message::bytes("x")]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pop_outside_its_limits_is_refused_before_it_is_sent() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    let error = client.queue("q").pop().batch(10_001).await.unwrap_err();
    assert_eq!(error.to_string(), "batch is 10001; 1 to 10000 are allowed");
    assert!(client.queue("q").pop().partitions(0).await.is_err());
    assert!(client.queue("q").pop().group("").await.is_err());
    assert_eq!(server.seen(POP), 0);
}

#[tokio::test]
async fn a_pop_whose_answer_was_lost_is_not_repeated() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 1).await;
    server.fault(POP, Fault::DropBefore);
    let error = client.queue("q").pop().await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { sent: true, .. }), "{error:?}");
    assert_eq!(server.seen(POP), 1);
}

#[tokio::test]
async fn a_lease_is_renewed_while_it_is_held() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 1).await;
    let popped = client.queue("q").pop().await.unwrap();
    let until = client.renew(&popped.lease, 5_000).await.unwrap();
    assert_eq!(until, 1_700_000_005_000);
    client.ack(&popped).await.unwrap();
    let error = client.renew(&popped.lease, 5_000).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::LeaseNotFound));
}

#[tokio::test]
async fn a_consumer_sees_every_partition_in_order_and_ends_when_idle() {
    let server = FakeServer::start().await;
    let client = filled(&server, 5, 40).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&seen);
    let consumer = client
        .queue("q")
        .consume(move |message| {
            let noting = Arc::clone(&noting);
            async move {
                noting.lock().unwrap().push(numbers(&message));
                Ok::<_, Error>(())
            }
        })
        .group("g")
        .concurrency(3)
        .batch(7)
        .partitions(2)
        .idle_timeout(Duration::from_millis(50))
        .start();
    let report = consumer.join().await.unwrap();
    assert_eq!((report.handled, report.failed, report.unsettled), (200, 0, 0));
    let seen = seen.lock().unwrap();
    for partition in 0..5 {
        let order: Vec<u32> =
            seen.iter().filter(|(of, _)| *of == partition).map(|(_, number)| *number).collect();
        assert_eq!(order, (0..40).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn after_a_failure_the_rest_of_the_partition_waits_behind_it() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 10).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&seen);
    let consumer = client
        .queue("q")
        .consume(move |message| {
            let noting = Arc::clone(&noting);
            async move {
                let (_, number) = numbers(&message);
                noting.lock().unwrap().push((number, message.attempts));
                if number == 4 && message.attempts < 2 { Err("not yet") } else { Ok(()) }
            }
        })
        .batch(10)
        .limit(10 + 6 + 6)
        .idle_timeout(Duration::from_millis(50))
        .start();
    let report = consumer.join().await.unwrap();
    assert_eq!((report.handled, report.failed), (10, 2));
    let expected: Vec<(u32, u32)> =
        [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2), (5, 0)].to_vec();
    assert_eq!(seen.lock().unwrap()[..8], expected);
}

#[tokio::test]
async fn a_batch_handler_gets_one_partition_at_a_time() {
    let server = FakeServer::start().await;
    let client = filled(&server, 4, 5).await;
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&sizes);
    let consumer = client
        .queue("q")
        .consume_batches(move |messages| {
            let partition = messages[0].partition();
            let is_one = messages.iter().all(|message| message.partition() == partition);
            noting.lock().unwrap().push((messages.len(), is_one));
            async move { Ok::<_, Error>(()) }
        })
        .batch(100)
        .partitions(4)
        .limit(20)
        .start();
    assert_eq!(consumer.join().await.unwrap().handled, 20);
    assert_eq!(*sizes.lock().unwrap(), [(5, true); 4]);
}

#[tokio::test]
async fn stopping_finishes_what_was_popped() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 3).await;
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let go_on = Arc::new(tokio::sync::Notify::new());
    let waiting = Arc::clone(&go_on);
    let consumer = client
        .queue("q")
        .consume(move |message| {
            let (began, waiting) = (began.clone(), Arc::clone(&waiting));
            async move {
                if message.seq == 0 {
                    began.send(()).unwrap();
                    waiting.notified().await;
                }
                Ok::<_, Error>(())
            }
        })
        .batch(3)
        .start();
    has_begun.recv().await.unwrap();
    consumer.stop_handle().stop();
    go_on.notify_one();
    let report = consumer.join().await.unwrap();
    assert_eq!((report.handled, report.unsettled), (3, 0));
    assert!(client.queue("q").pop().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_consumer_goes_on_after_the_server_was_away() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 4).await;
    server.fault(POP, Fault::DropBefore);
    server.fault(POP, Fault::Refuse(Code::Unavailable, 0));
    let consumer = client.queue("q").consume(|_| async { Ok::<_, Error>(()) }).limit(4).start();
    assert_eq!(consumer.join().await.unwrap().handled, 4);
}

#[tokio::test]
async fn a_refusal_for_good_ends_a_consumer_with_its_reason() {
    let server = FakeServer::start().await;
    let client = client(&server).await;
    server.fault(POP, Fault::Refuse(Code::Forbidden, 0));
    let consumer = client
        .queue("q")
        .consume(|_| async { Ok::<_, Error>(()) })
        .concurrency(4)
        .wait(Duration::from_millis(10))
        .start();
    assert_eq!(consumer.join().await.unwrap_err().code(), Some(Code::Forbidden));
}

#[tokio::test]
async fn a_slow_handler_keeps_its_lease_by_renewal() {
    let server = FakeServer::start().await;
    let client = filled(&server, 1, 1).await;
    let shared = Arc::clone(&server.shared);
    let consumer = client
        .queue("q")
        .consume(move |_| {
            let shared = Arc::clone(&shared);
            async move {
                while shared.store.lock().unwrap().extended < 3 {
                    tokio::task::yield_now().await;
                }
                Ok::<_, Error>(())
            }
        })
        .renew(Duration::from_millis(5), Duration::from_secs(60))
        .limit(1)
        .start();
    let report = consumer.join().await.unwrap();
    assert_eq!((report.handled, report.unsettled), (1, 0));
}
