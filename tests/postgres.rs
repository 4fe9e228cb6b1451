//! Servers on PostgreSQL, from outside: the everyday walk, machines that come with nothing or come
//! back after long, and databases that go away.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

#[path = "support/look.rs"]
mod look;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "every server here has settings of its own")]
mod server;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use look::stat;
use onrush::config::{Secret, Settings};
use onrush_client::{Client, Message, MessageStatus, Qos, Queue, QueueOptions, ReceivedMessage};
use onrush_pgharness::{Cluster, Stop, installations};
use server::TestServer;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(30);
const NOISE_BYTES: usize = 16 * 1024;

/// A cluster of each major.
fn clusters() -> Vec<Cluster> {
    installations().unwrap().iter().map(|it| Cluster::start(it).unwrap()).collect()
}

/// A server with a data folder of its own on a cluster's store.
async fn start(cluster: &Cluster, change: impl FnOnce(&mut Settings)) -> TestServer {
    let url = cluster.url("postgres");
    TestServer::start_with(move |settings| {
        settings.database.url = Secret::new(url);
        change(settings);
    })
    .await
}

/// Looks after its space all the time, and gives it back in small pieces.
fn busy(settings: &mut Settings) {
    settings.store.segment_bytes = 256 << 10;
    settings.store.retention_interval_ms = 50;
    settings.store.checkpoint_interval_ms = 50;
    settings.store.hot_tail_bytes = 0;
}

fn numbered(numbers: std::ops::Range<usize>) -> Vec<Message> {
    let message = |number: usize| {
        Message::json(&serde_json::json!({ "n": number })).transaction_id(format!("id {number}"))
    };
    numbers.map(message).collect()
}

fn number(message: &ReceivedMessage) -> usize {
    message.json::<serde_json::Value>().unwrap()["n"].as_u64().unwrap() as usize
}

fn numbers(messages: &[ReceivedMessage]) -> Vec<usize> {
    messages.iter().map(number).collect()
}

async fn drain(client: &Client, queue: &Queue) -> Vec<usize> {
    numbers(&look::drain(client, queue).await)
}

async fn peek(queue: &Queue, group: &str) -> Vec<usize> {
    numbers(&look::peek(queue, group).await)
}

/// Fills the log with messages that are done with at once, until pieces of it were given back.
async fn churn(client: &Client) {
    let queue = client.queue("noise");
    let fleeting = QueueOptions {
        retention_enabled: true,
        completed_retention_s: 1,
        ..QueueOptions::default()
    };
    queue.config(fleeting).create().await.unwrap();
    let began = stat(client, "log_start").await;
    let deadline = Instant::now() + PATIENCE;
    // More than two pieces of what was there before.
    while stat(client, "log_start").await < began + (1 << 20) {
        assert!(Instant::now() < deadline, "no space comes back");
        let noise = (0..16).map(|_| Message::bytes(vec![b'n'; NOISE_BYTES]));
        queue.push(noise).await.unwrap();
        let popped = queue.pop().batch(1000).partitions(100).send().await.unwrap();
        client.ack(&popped).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_walk_through_the_database_and_a_restart_in_order() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        let queue = client.queue("orders");
        let orders = queue.clone().partition("p");
        for from in (0..200).step_by(20) {
            orders.push(numbered(from..from + 20)).qos(Qos::ExactlyOnce).await.unwrap();
        }
        let first = orders.pop().batch(50).send().await.unwrap();
        client.ack(&first).await.unwrap();
        let mut all: Vec<usize> = first.messages.iter().map(number).collect();
        let server = server.restart().await;
        let client = server.client().await;
        let again = client.queue("orders").partition("p");
        let pushed = again.push(numbered(3..4)).qos(Qos::ExactlyOnce).await.unwrap();
        assert!(matches!(pushed.messages[0].status, MessageStatus::Duplicate));
        all.extend(drain(&client, &client.queue("orders")).await);
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_nothing_starts_without_the_history_and_knows_everything() {
    for cluster in clusters() {
        let first = start(&cluster, busy).await;
        let client = first.client().await;
        let kept = client.queue("kept");
        let push = kept.clone().partition("p").push(numbered(0..60)).qos(Qos::ExactlyOnce);
        push.await.unwrap();
        let popped = kept.pop().group("half").batch(30).send().await.unwrap();
        client.ack(&popped).await.unwrap();
        churn(&client).await;
        first.stop().await;
        let second = start(&cluster, busy).await;
        let client = second.client().await;
        let kept = client.queue("kept");
        assert!(stat(&client, "log_start").await > 0);
        let half = kept.pop().group("half").batch(100).send().await.unwrap();
        let numbers: Vec<usize> = half.messages.iter().map(number).collect();
        assert_eq!(numbers, (30..60).collect::<Vec<_>>());
        assert_eq!(peek(&kept, "new").await, (0..60).collect::<Vec<_>>());
        let again = kept.clone().partition("p").push(numbered(59..61)).qos(Qos::ExactlyOnce);
        let again = again.await.unwrap();
        assert!(matches!(again.messages[0].status, MessageStatus::Duplicate));
        assert!(matches!(again.messages[1].status, MessageStatus::Pushed));
        second.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_slept_through_the_log_takes_a_checkpoint_while_it_runs() {
    let cluster = clusters().remove(0);
    let busy_one = start(&cluster, busy).await;
    // It looks at what others do only when it must.
    let sleeper = start(&cluster, |settings| {
        busy(settings);
        settings.database.follow_interval_ms = 3_600_000;
    })
    .await;
    let (client, other) = (busy_one.client().await, sleeper.client().await);
    client.queue("kept").partition("p").push(numbered(0..20)).await.unwrap();
    assert_eq!(peek(&other.queue("kept"), "a").await.len(), 20);
    client.queue("kept").partition("p").push(numbered(20..40)).await.unwrap();
    churn(&client).await;
    other.queue("kept").partition("p").push(numbered(40..41)).await.unwrap();
    assert_eq!(peek(&other.queue("kept"), "b").await, (0..41).collect::<Vec<_>>());
    let same = [peek(&client.queue("kept"), "c").await, peek(&other.queue("kept"), "d").await];
    assert_eq!(same[0], same[1]);
    sleeper.stop().await;
    busy_one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_know_more_than_the_database_are_made_again() {
    let mut cluster = clusters().remove(0);
    let server = start(&cluster, |_| {}).await;
    let client = server.client().await;
    client.queue("q").partition("p").push(numbered(0..10)).await.unwrap();
    // As when somebody restores yesterday's backup.
    let copy = "CREATE SCHEMA yesterday; CREATE TABLE yesterday.heads AS TABLE onrush.heads";
    cluster.sql("postgres", copy).unwrap();
    client.queue("q").partition("p").push(numbered(10..20)).await.unwrap();
    let back = "DELETE FROM onrush.log USING yesterday.heads h \
                 WHERE log.shard = h.shard AND log.head >= h.head; \
                UPDATE onrush.heads n SET head = o.head, bytes = o.bytes, tail = o.tail \
                  FROM yesterday.heads o WHERE o.shard = n.shard";
    cluster.stop(Stop::Fast);
    cluster.start_again().unwrap();
    let (settings, folder) = server.stop_and_keep().await;
    cluster.sql("postgres", back).unwrap();
    let server = TestServer::start_again(settings, folder).await;
    let client = server.client().await;
    let queue = client.queue("q");
    assert_eq!(peek(&queue, "a").await, (0..10).collect::<Vec<_>>());
    queue.clone().partition("p").push(numbered(30..31)).await.unwrap();
    assert_eq!(peek(&queue, "a").await, [30]);
    // And once more, but others have filled the gap meanwhile: no head tells.
    let (settings, folder) = server.stop_and_keep().await;
    cluster.sql("postgres", back).unwrap();
    let other = start(&cluster, |_| {}).await;
    let elsewhere = other.client().await.queue("q");
    for number in 50..60 {
        elsewhere.clone().partition("p").push(numbered(number..number + 1)).await.unwrap();
    }
    let server = TestServer::start_again(settings, folder).await;
    let queue = server.client().await.queue("q");
    let all: Vec<usize> = (0..10).chain(50..60).collect();
    assert_eq!(peek(&queue, "new").await, all);
    assert_eq!(peek(&elsewhere, "newer").await, all);
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_costs_nothing_but_time() {
    for mut cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        // One that never gives the server up for a while.
        let address = server.tcp_addr().to_string();
        let stubborn = Client::builder().addr(&address).circuit_breaker(u32::MAX, PATIENCE);
        let client = stubborn.connect().await.unwrap();
        let queue = client.queue("q");
        let pushing = {
            let queue = queue.clone().partition("p");
            tokio::spawn(async move {
                let (mut stored, mut failed) = (BTreeSet::new(), 0);
                let deadline = Instant::now() + Duration::from_secs(6);
                let mut next = 0;
                while Instant::now() < deadline {
                    // With an id, so that trying again is safe.
                    match queue.push(numbered(next..next + 1)).qos(Qos::ExactlyOnce).await {
                        Ok(result) if result.is_complete() => {
                            stored.insert(next);
                            next += 1;
                        }
                        _ => failed += 1,
                    }
                }
                (stored, failed)
            })
        };
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            cluster.kill_all();
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.start_again().unwrap();
        }
        let (stored, failed) = pushing.await.unwrap();
        assert!(stored.len() > 50, "{} stored, {failed} failed", stored.len());
        look::drained(&client).await;
        let kept = peek(&queue, "a").await;
        // One more may stand whose answer was lost with its connection at the end.
        let count = stored.len();
        assert_eq!(kept[..count], (0..count).collect::<Vec<_>>()[..]);
        assert!(kept.len() <= count + 1, "{kept:?}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_waits_at_one_server_hears_of_what_another_one_takes() {
    for cluster in clusters() {
        // Whoever only looked would look again after the test is long over.
        let seldom = |settings: &mut Settings| settings.database.follow_interval_ms = 1_800_000;
        let (one, other) = (start(&cluster, seldom).await, start(&cluster, seldom).await);
        let (pushing, popping) = (one.client().await, other.client().await);
        pushing.queue("q").push(numbered(0..1)).await.unwrap();
        for round in 1..4 {
            // Whoever comes to a message has looked for it; only one that waits must be told.
            assert!(!drain(&popping, &popping.queue("q")).await.is_empty());
            let waiting = popping.queue("q");
            let waiting = tokio::spawn(async move {
                waiting.pop().wait(PATIENCE).auto_ack(true).send().await.unwrap()
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!waiting.is_finished());
            // The first ones may come before the servers have met.
            let mut number = round * 1_000;
            while !waiting.is_finished() {
                pushing.queue("q").push(numbered(number..number + 1)).await.unwrap();
                number += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(!waiting.await.unwrap().is_empty(), "nothing was heard");
            pushing.queue("q").push(numbered(number..number + 1)).await.unwrap();
        }
        one.stop().await;
        other.stop().await;
    }
}
