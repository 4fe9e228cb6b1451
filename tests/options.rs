//! What each of a queue's options does, over the binary protocol: delays, windows, ages.
//!
//! Time is part of what is asked for here: a test that wants to see something become due has to wait
//! for it. That nothing comes early is told by clocks read around it; that it comes, by a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/look.rs"]
mod look;
#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use look::stat;
use onrush_client::{AckOutcome, Client, Message, Popped, Queue, QueueOptions, ReceivedMessage};
use onrush_protocol::request::{Ack, AckItem};
use onrush_protocol::{LongText, Request, Response};
use server::TestServer;
use tokio::time::{Instant, sleep};

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any test runs.
const LONG_MS: u32 = 3_600_000;
const LONG_S: u32 = 3_600;

fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<Message> {
    numbers.into_iter().map(|number| Message::json(&number)).collect()
}

fn numbers(popped: &Popped) -> Vec<u64> {
    popped.messages.iter().map(|it: &ReceivedMessage| it.json().unwrap()).collect()
}

async fn configure(client: &Client, options: QueueOptions) -> Queue {
    let queue = client.queue("jobs");
    queue.config(options).create().await.unwrap();
    queue
}

/// A pop that waits, in a task of its own, and when its answer came.
fn waiting(queue: &Queue, batch: u32) -> tokio::task::JoinHandle<(Popped, Instant)> {
    let queue = queue.clone();
    tokio::spawn(async move {
        let popped = queue.pop().batch(batch).wait(PATIENCE).send().await.unwrap();
        (popped, Instant::now())
    })
}

async fn now(queue: &Queue) -> Vec<u64> {
    numbers(&queue.pop().batch(100).send().await.unwrap())
}

/// Says of all that was popped the same.
async fn say(client: &Client, popped: &Popped, outcome: AckOutcome) {
    let item = |message: &ReceivedMessage| AckItem {
        partition: message.partition(),
        first_seq: message.seq,
        last_seq: message.seq,
        outcome,
        error: LongText::lossy("because"),
    };
    let items = popped.messages.iter().map(item).collect();
    let ack = Ack { group: popped.messages[0].group().clone(), lease: popped.lease, items };
    let connection = client.connection().await.unwrap();
    let answer = connection.request(&Request::Ack(ack)).await.unwrap();
    let Response::Acked(acked) = answer else { panic!("{answer:?}") };
    assert!(acked.items.iter().all(|it| it.code == 0), "{acked:?}");
}

// retryDelay.

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_comes_again_after_its_delay_and_holds_up_what_is_behind_it() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let delay = Duration::from_millis(700);
    let queue =
        configure(&client, QueueOptions { retry_delay_ms: 700, ..Default::default() }).await;
    queue.push(numbered(0..3)).await.unwrap();
    let popped = queue.pop().send().await.unwrap();
    let task = waiting(&queue, 9);
    let failed_at = Instant::now();
    client.nack(&popped, "no").await.unwrap();
    let (again, came_at) = task.await.unwrap();
    assert_eq!(numbers(&again), [0, 1, 2], "in order, and somebody was woken for them");
    assert!(came_at - failed_at >= delay, "{:?}", came_at - failed_at);
    // Another group has nothing to do with it.
    let other = queue.pop().group("other").batch(9).send().await.unwrap();
    assert_eq!(numbers(&other), [0, 1, 2]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_nobodys_fault_and_a_lease_that_runs_out_do_not_wait() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue =
        configure(&client, QueueOptions { retry_delay_ms: LONG_MS, ..Default::default() }).await;
    queue.push(numbered(0..2)).await.unwrap();
    let popped = queue.pop().send().await.unwrap();
    say(&client, &popped, AckOutcome::Retry).await;
    let popped = queue.pop().batch(9).lease(Duration::from_millis(100)).send().await.unwrap();
    assert_eq!(numbers(&popped), [0, 1]);
    let (again, _) = waiting(&queue, 9).await.unwrap();
    assert_eq!((numbers(&again), again.messages[0].attempts), (vec![0, 1], 1));
    // What is done no longer waits, whatever failed before it.
    client.nack(&again.messages[0], "no").await.unwrap();
    assert!(now(&queue).await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_delay_survives_a_restart() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let delay = Duration::from_millis(1_500);
    let queue =
        configure(&client, QueueOptions { retry_delay_ms: 1_500, ..Default::default() }).await;
    queue.push(numbered(0..2)).await.unwrap();
    let popped = queue.pop().send().await.unwrap();
    let failed_at = Instant::now();
    client.nack(&popped, "no").await.unwrap();
    drop((client, queue));
    let server = server.restart().await;
    let client = server.client().await;
    let (again, came_at) = waiting(&client.queue("jobs"), 1).await.unwrap();
    assert_eq!((numbers(&again), again.messages[0].attempts), (vec![0], 1));
    assert!(came_at - failed_at >= delay, "{:?}", came_at - failed_at);
    server.stop().await;
}

// delayedProcessing.

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_is_never_early_and_whoever_waits_is_woken_for_it() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue =
        configure(&client, QueueOptions { delayed_processing_s: 1, ..Default::default() }).await;
    let task = waiting(&queue, 9);
    let pushed_at = Instant::now();
    queue.push(numbered([0])).await.unwrap();
    assert!(now(&queue).await.is_empty());
    let (popped, came_at) = task.await.unwrap();
    assert_eq!(numbers(&popped), [0]);
    assert!(came_at - pushed_at >= Duration::from_secs(1), "{:?}", came_at - pushed_at);
    client.ack(&popped).await.unwrap();
    // From one partition and from any; nothing overtakes what came before it.
    let named = client.queue("jobs").partition("p");
    let first_at = Instant::now();
    named.push(numbered([1])).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let second_at = Instant::now();
    named.push(numbered([2])).await.unwrap();
    let task = tokio::spawn(async move { named.pop().batch(9).wait(PATIENCE).send().await });
    let popped = task.await.unwrap().unwrap();
    assert_eq!(numbers(&popped)[0], 1);
    assert!(first_at.elapsed() >= Duration::from_secs(1));
    client.ack(&popped).await.unwrap();
    if popped.len() == 1 {
        let (popped, came_at) = waiting(&queue, 9).await.unwrap();
        assert_eq!(numbers(&popped), [2]);
        assert!(came_at - second_at >= Duration::from_secs(1));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_delay_counts_for_messages_that_are_there_already_at_once() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue =
        configure(&client, QueueOptions { delayed_processing_s: LONG_S, ..Default::default() })
            .await;
    queue.push(numbered(0..3)).await.unwrap();
    let task = waiting(&queue, 2);
    assert!(now(&queue).await.is_empty());
    configure(&client, QueueOptions::default()).await;
    let (popped, _) = task.await.unwrap();
    assert_eq!(numbers(&popped), [0, 1]);
    configure(&client, QueueOptions { delayed_processing_s: LONG_S, ..Default::default() }).await;
    client.ack(&popped).await.unwrap();
    assert!(now(&queue).await.is_empty());
    drop((client, queue));
    let server = server.restart().await;
    let client = server.client().await;
    assert!(now(&client.queue("jobs")).await.is_empty(), "nor after a restart");
    configure(&client, QueueOptions::default()).await;
    assert_eq!(now(&client.queue("jobs")).await, [2]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_that_wait_do_not_hide_one_that_does_not() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = configure(&client, QueueOptions { retry_delay_ms: LONG_MS, ..Default::default() });
    let queue = queue.await;
    // More in one shard than one commit looks at would take too long to set up here; the proofs of
    // `state` do that.
    for number in 0..40 {
        queue.partition(&format!("p{number}")).push(numbered([number])).await.unwrap();
    }
    let popped = queue.pop().batch(40).partitions(40).send().await.unwrap();
    assert_eq!(popped.len(), 40);
    let last = popped.messages.last().unwrap().clone();
    for message in &popped.messages[..39] {
        client.nack(message, "no").await.unwrap();
    }
    assert!(now(&queue).await.is_empty());
    client.ack(&last).await.unwrap();
    let name = last.partition_name().as_str().to_owned();
    queue.partition(&name).push(numbered([99])).await.unwrap();
    assert_eq!(now(&queue).await, [99]);
    server.stop().await;
}

// windowBuffer.

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_handed_out_when_it_was_quiet_for_its_window() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = configure(&client, QueueOptions { window_buffer_s: 1, ..Default::default() }).await;
    let task = waiting(&queue, 100);
    let mut last_at = Instant::now();
    for number in 0..5 {
        last_at = Instant::now();
        queue.push(numbered([number])).await.unwrap();
        sleep(Duration::from_millis(250)).await;
    }
    let (popped, came_at) = task.await.unwrap();
    // On a machine that stands still in between, the window may have closed earlier.
    if numbers(&popped) == [0, 1, 2, 3, 4] {
        assert!(came_at - last_at >= Duration::from_secs(1), "{:?}", came_at - last_at);
    } else {
        println!("the machine was too slow to tell: {:?}", numbers(&popped));
    }
    assert_eq!(numbers(&popped)[0], 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_producer_keeps_a_partition_for_ten_windows_and_no_longer() {
    const WINDOW: Duration = Duration::from_secs(1);
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = configure(&client, QueueOptions { window_buffer_s: 1, ..Default::default() }).await;
    let task = waiting(&queue, 10_000);
    let began = Instant::now();
    let (mut pushed_at, mut widest, mut pushed) = (began, Duration::ZERO, 0);
    while !task.is_finished() {
        assert!(began.elapsed() < PATIENCE, "it is never handed out while {pushed} came");
        queue.push(numbered([pushed])).await.unwrap();
        widest = widest.max(pushed_at.elapsed());
        (pushed_at, pushed) = (Instant::now(), pushed + 1);
        sleep(Duration::from_millis(100)).await;
    }
    let (popped, came_at) = task.await.unwrap();
    let came = numbers(&popped);
    assert!(!came.is_empty(), "nothing came while {pushed} were pushed");
    assert_eq!(came, (0..came.len() as u64).collect::<Vec<_>>(), "from the oldest on");
    // On a machine that stood still in between, the partition was quiet for a window.
    if widest < WINDOW {
        assert!(came_at - began >= 10 * WINDOW, "{:?}", came_at - began);
    } else {
        println!("the machine was too slow to tell: {widest:?} between two pushes");
    }
    server.stop().await;
}

// ttl, maxWaitTimeSeconds, retention.

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_handed_out_to_nobody_even_before_upkeep_runs() {
    let too_old = [
        ("expired", QueueOptions { ttl_s: 1, ..Default::default() }),
        ("expired", QueueOptions { max_wait_time_s: 1, ..Default::default() }),
        (
            "retained",
            QueueOptions { retention_enabled: true, retention_s: 1, ..Default::default() },
        ),
    ];
    for (figure, options) in too_old {
        let server = TestServer::start().await;
        let client = server.client().await;
        let queue = configure(&client, options).await;
        queue.push(numbered(0..3)).await.unwrap();
        queue.partition("other").push(numbered(3..5)).await.unwrap();
        sleep(Duration::from_millis(1_100)).await;
        queue.partition("other").push(numbered([5])).await.unwrap();
        assert!(queue.partition("Default").pop().batch(9).send().await.unwrap().is_empty());
        let popped = queue.pop().batch(9).partitions(9).send().await.unwrap();
        assert_eq!(numbers(&popped), [5], "{options:?}");
        assert_eq!(stat(&client, figure).await, 5, "{options:?}");
        assert_eq!(stat(&client, "undelivered").await, 5, "{options:?}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_somebody_holds_are_not_taken_away_however_old_they_are() {
    let server = TestServer::start_with(|settings| settings.store.retention_interval_ms = 50).await;
    let client = server.client().await;
    let queue = configure(&client, QueueOptions { ttl_s: 1, ..Default::default() }).await;
    queue.push(numbered(0..2)).await.unwrap();
    let held = queue.pop().send().await.unwrap();
    let other = queue.pop().group("other").batch(9).send().await.unwrap();
    assert_eq!((numbers(&held), numbers(&other)), (vec![0], vec![0, 1]));
    sleep(Duration::from_millis(1_300)).await;
    assert_eq!(stat(&client, "expired").await, 0);
    assert_eq!(client.ack(&held).await.unwrap().acked, 1);
    assert!(now(&queue).await.is_empty(), "the second one is too old for this group");
    assert_eq!(client.ack(&other).await.unwrap().acked, 2, "and the other one has it still");
    let gone = async {
        while stat(&client, "expired").await < 2 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("what nobody holds goes");
    server.stop().await;
}
