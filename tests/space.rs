//! Space: what retention and deletion let go comes back to the disk, what is kept stays readable, and
//! the log stays within twice of what lives in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/look.rs"]
mod look;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "every server here has settings of its own")]
mod server;

use std::future::IntoFuture;
use std::time::Duration;

use look::{drain, peek, stat};
use onrush_client::{AckOutcome, Client, Message, QueueOptions, ReceivedMessage};
use server::TestServer;
use tokio::time::Instant;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(20);
const MEGABYTE: u64 = 1 << 20;
/// Bytes of a message that is there to fill the log.
const NOISE_BYTES: usize = 16 * 1024;

/// A server with small files that looks after its space all the time.
async fn busy_server() -> TestServer {
    let settings = |settings: &mut onrush::config::Settings| {
        settings.store.segment_bytes = MEGABYTE;
        settings.store.retention_interval_ms = 50;
        settings.store.checkpoint_interval_ms = 50;
        // Nothing may be readable just because it is in memory still.
        settings.store.hot_tail_bytes = 0;
    };
    TestServer::start_with(settings).await
}

/// Bytes between the log's start and its end.
async fn log_bytes(client: &Client) -> u64 {
    stat(client, "log_end").await - stat(client, "log_start").await
}

/// Waits until the log's start has come to `position`.
async fn await_start(client: &Client, position: u64) {
    let deadline = Instant::now() + PATIENCE;
    while stat(client, "log_start").await < position {
        let (start, end) = (stat(client, "log_start").await, stat(client, "log_end").await);
        assert!(Instant::now() < deadline, "the log is {start} to {end}, without {position}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the log has at most `bytes`.
async fn await_log_bytes(client: &Client, bytes: u64) {
    let deadline = Instant::now() + PATIENCE;
    while log_bytes(client).await > bytes {
        let now = log_bytes(client).await;
        assert!(Instant::now() < deadline, "the log has {now} bytes, more than {bytes}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Goes once what was done with it is older than a second.
fn fleeting() -> QueueOptions {
    QueueOptions { retention_enabled: true, completed_retention_s: 1, ..QueueOptions::default() }
}

fn noise(messages: usize) -> Vec<Message> {
    (0..messages).map(|_| Message::bytes(vec![b'n'; NOISE_BYTES])).collect()
}

/// A payload that is told apart from every other.
fn keepsake(number: u64) -> Vec<u8> {
    let mut payload = format!("{number}:").into_bytes();
    payload.resize(1000, b'a' + (number % 26) as u8);
    payload
}

/// Fills the log with `megabytes` of messages that are done with at once.
async fn fill(client: &Client, megabytes: u64) {
    let queue = client.queue("noise");
    queue.config(fleeting()).create().await.unwrap();
    for _ in 0..megabytes * MEGABYTE / (16 * NOISE_BYTES as u64) {
        queue.push(noise(16)).await.unwrap();
        drain(client, &queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_completed_long_enough_ago_gives_its_space_back() {
    let server = busy_server().await;
    let client = server.client().await;
    fill(&client, 6).await;
    await_start(&client, 4 * MEGABYTE).await;
    assert!(peek(&client.queue("noise"), "late").await.len() < 6 * 64, "most of it is gone");
    let queue = client.queue("noise");
    queue.push([Message::json(&1)]).await.unwrap();
    assert_eq!(drain(&client, &queue).await.len(), 1, "the queue goes on");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_whether_it_was_consumed_or_not_but_for_what_is_held() {
    let server = busy_server().await;
    let client = server.client().await;
    let options =
        QueueOptions { retention_enabled: true, retention_s: 1, ..QueueOptions::default() };
    let queue = client.queue("news");
    queue.config(options).create().await.unwrap();
    let held_partition = queue.partition("held");
    held_partition.push([Message::bytes(keepsake(1)), Message::bytes(keepsake(2))]).await.unwrap();
    let lease = Duration::from_secs(600);
    let held = held_partition.pop().batch(2).lease(lease).send().await.unwrap();
    assert_eq!(held.len(), 2);
    for _ in 0..16 {
        queue.push(noise(16)).await.unwrap();
    }
    assert_eq!(held.messages[0].bytes()[..], keepsake(1)[..]);
    // Nobody consumed it, and it goes; only what a lease holds may not, though nobody gets it now.
    let name = "news".parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let kept = server.rooms().catalogs.describe(&name).await.unwrap().total;
        assert!(kept >= 2, "a lease holds them");
        if kept == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{kept} are kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(peek(&client.queue("news"), "late").await.is_empty());
    await_start(&client, 2 * MEGABYTE).await;
    assert_eq!(client.ack(&held).await.unwrap().acked, 2);
    let deadline = Instant::now() + PATIENCE;
    while server.rooms().catalogs.describe(&name).await.unwrap().total > 0 {
        assert!(Instant::now() < deadline, "the lease is over and they are kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_retention_everything_is_kept_however_often_it_was_consumed() {
    let server = busy_server().await;
    let client = server.client().await;
    let queue = client.queue("archive");
    // Ages without the switch are ages without effect.
    let options = QueueOptions { retention_s: 1, completed_retention_s: 1, ..Default::default() };
    queue.config(options).create().await.unwrap();
    for start in (0..3000).step_by(100) {
        let messages = (start..start + 100).map(|number| Message::bytes(keepsake(number)));
        queue.push(messages).await.unwrap();
    }
    assert_eq!(drain(&client, &queue).await.len(), 3000);
    // Rounds of retention came and went: what came later and may go is gone.
    fill(&client, 4).await;
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        if peek(&client.queue("noise"), &format!("g{round}")).await.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "the noise stays");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let kept = peek(&client.queue("archive"), "again").await;
    assert_eq!(kept.len(), 3000);
    assert!((0..).zip(&kept).all(|(number, it)| it.bytes()[..] == keepsake(number)[..]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_gives_its_space_back() {
    let server = busy_server().await;
    let client = server.client().await;
    let queue = client.queue("doomed");
    for _ in 0..24 {
        queue.push(noise(16)).await.unwrap();
    }
    assert!(log_bytes(&client).await > 6 * MEGABYTE);
    assert!(queue.delete().await.unwrap());
    await_start(&client, 4 * MEGABYTE).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survivors_in_dead_segments_are_moved_and_read_as_before_also_after_a_restart() {
    let mut server = busy_server().await;
    let client = server.client().await;
    let kept = client.queue("kept");
    kept.config(QueueOptions { retry_limit: 0, ..Default::default() }).create().await.unwrap();
    // A few messages in each of many segments, in two partitions, some with a transaction id.
    for number in 0..40 {
        let partition = if number % 4 == 0 { "p" } else { "q" };
        let message = Message::bytes(keepsake(number)).header("n", number.to_string());
        let message = match number % 3 {
            0 => message.transaction_id(format!("id {number}")),
            _ => message,
        };
        kept.partition(partition).push([message]).await.unwrap();
        if number % 8 == 7 {
            fill(&client, 1).await;
        }
    }
    // Some are done with, one is a dead letter, one has failed: all that must outlive the move.
    let popped = kept.partition("p").pop().batch(5).send().await.unwrap();
    client.ack(&popped.messages[1..]).await.unwrap();
    client.settle(&popped.messages[0], AckOutcome::DeadLetter, "because").await.unwrap();
    drop(client);
    for round in 0..3 {
        let client = server.client().await;
        let before = stat(&client, "log_end").await;
        fill(&client, 4).await;
        // All that was there before the filling, and so every survivor, has been written again.
        await_start(&client, before).await;
        let seen = peek(&client.queue("kept"), &format!("reader {round}")).await;
        check_keepsakes(&seen);
        let letters = server.dead_letters("kept").await;
        assert_eq!(letters.len(), 1, "round {round}");
        assert_eq!(letters[0]["errorMessage"], "because");
        let again = kept_again(&client).await;
        assert_eq!(again, 0, "transaction ids are remembered");
        drop(client);
        server = server.restart().await;
    }
    let client = server.client().await;
    check_keepsakes(&peek(&client.queue("kept"), "last").await);
    // The first group goes on where it was: in `p` behind what is settled, in `q` at its start.
    let rest = drain(&client, &client.queue("kept")).await;
    let count = |name: &str| rest.iter().filter(|it| it.partition_name().as_str() == name).count();
    assert_eq!((count("p"), count("q")), (5, 30));
    server.stop().await;
}

/// Pushes a message with an id that is there; returns how many were taken.
async fn kept_again(client: &Client) -> usize {
    let kept = client.queue("kept");
    let mut taken = 0;
    for number in [0_u64, 12, 24, 36] {
        let message = Message::bytes(keepsake(number)).transaction_id(format!("id {number}"));
        let result = kept.partition("p").push([message]).await.unwrap();
        let is_new = matches!(result.messages[0].status, onrush_client::MessageStatus::Pushed);
        taken += usize::from(is_new);
    }
    taken
}

#[track_caller]
fn check_keepsakes(seen: &[ReceivedMessage]) {
    assert_eq!(seen.len(), 40);
    for (name, is_its) in [("p", true), ("q", false)] {
        let numbers = (0..40).filter(|number| (number % 4 == 0) == is_its);
        let found = seen.iter().filter(|it| it.partition_name().as_str() == name);
        for ((seq, number), message) in (0..).zip(numbers).zip(found) {
            assert_eq!(message.seq, seq);
            assert_eq!(message.bytes()[..], keepsake(number)[..]);
            assert_eq!(message.header("n").unwrap()[..], *number.to_string().as_bytes());
            if number % 3 == 0 {
                assert_eq!(message.transaction_id(), format!("id {number}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_outlive_the_segments_in_which_they_died() {
    let mut server = busy_server().await;
    let client = server.client().await;
    // Its messages go with their retention; what died of them stays.
    let options = QueueOptions { retry_limit: 0, ..fleeting() };
    let queue = client.queue("fragile");
    queue.config(options).create().await.unwrap();
    for number in 0..60_u64 {
        queue.push([Message::json(&format!("payload {number}"))]).await.unwrap();
    }
    let popped = queue.pop().batch(60).send().await.unwrap();
    client.nack(&popped, "broken").await.unwrap();
    assert_eq!(server.dead_letters("fragile").await.len(), 60);
    drop((client, queue));
    for _ in 0..2 {
        let client = server.client().await;
        let before = stat(&client, "log_end").await;
        fill(&client, 4).await;
        await_start(&client, before).await;
        assert!(peek(&client.queue("fragile"), "late").await.is_empty(), "the messages are gone");
        let letters = server.dead_letters("fragile").await;
        let payloads: Vec<_> = letters.iter().map(|it| it["data"].as_str().unwrap()).collect();
        // The newest failure first.
        let expected: Vec<_> = (0..60).rev().map(|number| format!("payload {number}")).collect();
        assert_eq!(payloads, expected);
        drop(client);
        server = server.restart().await;
    }
    assert_eq!(server.dead_letters("fragile").await.len(), 60);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_segment_at_the_front_does_not_hold_back_the_dead_ones_behind_it() {
    let server = busy_server().await;
    let client = server.client().await;
    let kept = client.queue("kept");
    // Three quarters of the first segment live for ever.
    for start in (0..768).step_by(64) {
        let messages = (start..start + 64).map(|number| Message::bytes(keepsake(number)));
        kept.push(messages).await.unwrap();
    }
    fill(&client, 16).await;
    // Twice what lives, the segment being filled, and the one before it that is still young.
    await_log_bytes(&client, 2 * 768 * 1024 + 3 * MEGABYTE).await;
    let seen = peek(&client.queue("kept"), "reader").await;
    assert_eq!(seen.len(), 768);
    assert!((0..).zip(&seen).all(|(number, it)| it.bytes()[..] == keepsake(number)[..]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_rounds_of_retention_let_go_of_everything_that_is_due() {
    let server = TestServer::start_with(|settings| {
        settings.store.segment_bytes = MEGABYTE;
        settings.store.checkpoint_interval_ms = 50;
        // If each round gave back one file, or some thousand messages, this would take minutes.
        settings.store.retention_interval_ms = 1500;
    });
    let server = server.await;
    let client = server.client().await;
    let queue = client.queue("noise");
    queue.config(fleeting()).create().await.unwrap();
    // Many files of large messages, and many messages in one partition, each a run of its own.
    let small = queue.partition("small");
    for _ in 0..30 {
        let pushes = (0..1000).map(|number| small.push([Message::json(&number)]));
        let pushes: Vec<_> = pushes.map(|push| tokio::spawn(push.into_future())).collect();
        for push in pushes {
            push.await.unwrap().unwrap();
        }
    }
    for _ in 0..20 * 4 {
        queue.push(noise(16)).await.unwrap();
    }
    drain(&client, &queue).await;
    let end = stat(&client, "log_end").await;
    await_start(&client, end - 3 * MEGABYTE).await;
    assert!(peek(&client.queue("noise"), "late").await.len() < 1000);
    server.stop().await;
}
