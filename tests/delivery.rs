//! Handing out over the binary protocol: groups, leases, verdicts, waiting consumers, and what a
//! restart leaves of them.

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

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::time::Duration;

use look::stat;
use onrush::delivery::PopOrder;
use onrush::shard::command::ReplyTo;
use onrush::state::draft::ack::{AckItem as Item, Verdict};
use onrush::state::draft::pop::PopBudget;
use onrush::state::effect::GroupStart;
use onrush_client::{
    AckOutcome, Client, Code, Error, GroupName, Message, MessageStatus, NO_LEASE, Pop, Popped, Qos,
    Queue, QueueOptions, ReceivedMessage, SubscriptionStart,
};
use onrush_protocol::request::{Ack, AckItem};
use onrush_protocol::response::{Acked, AckedItem, SectionReceipt};
use onrush_protocol::{BatchBuilder, LongText, NewRecord, Request, Response};
use server::TestServer;
use tokio::time::Instant;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A lease that ends while a test looks on.
const SHORT: Duration = Duration::from_millis(150);

fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<Message> {
    numbers.into_iter().map(|number| Message::json(&number)).collect()
}

fn number(message: &ReceivedMessage) -> u64 {
    message.json().unwrap()
}

fn numbers(popped: &Popped) -> Vec<u64> {
    popped.messages.iter().map(number).collect()
}

fn attempts(popped: &Popped) -> Vec<u32> {
    popped.messages.iter().map(|message| message.attempts).collect()
}

/// Pops again and again, as a consumer does, until there is something.
async fn pop_until_some(queue: &Queue, batch: u32, lease: Duration) -> Popped {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wait = Duration::from_millis(200);
        let popped = queue.pop().batch(batch).wait(wait).lease(lease).send().await.unwrap();
        if !popped.is_empty() {
            return popped;
        }
        assert!(Instant::now() < deadline, "nothing came");
    }
}

fn refusals(error: &Error) -> Vec<Option<Code>> {
    match error {
        Error::Ack(report) => report.refused.iter().map(|range| range.refusal.code()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Says what became of ranges `(first, last, outcome)` of the partition of `popped`, in one request.
async fn settle(
    client: &Client,
    popped: &Popped,
    ranges: &[(u64, u64, AckOutcome)],
) -> Vec<AckedItem> {
    let message = &popped.messages[0];
    let items = ranges.iter().map(|(first_seq, last_seq, outcome)| AckItem {
        partition: message.partition(),
        first_seq: *first_seq,
        last_seq: *last_seq,
        outcome: *outcome,
        error: LongText::lossy("because"),
    });
    let ack = Ack { group: message.group().clone(), lease: popped.lease, items: items.collect() };
    let connection = client.connection().await.unwrap();
    match connection.request(&Request::Ack(ack)).await.unwrap() {
        Response::Acked(Acked { items }) => items,
        other => panic!("{other:?}"),
    }
}

fn done(acked: u32, dead_lettered: u32, lease_released: bool) -> AckedItem {
    AckedItem { code: 0, acked, dead_lettered, lease_released }
}

fn refused(code: Code) -> AckedItem {
    AckedItem { code: code.number(), acked: 0, dead_lettered: 0, lease_released: false }
}

async fn configure(client: &Client, queue: &str, options: QueueOptions) {
    client.queue(queue).config(options).create().await.unwrap();
}

/// What fails is handed out again without a delay.
fn at_once() -> QueueOptions {
    QueueOptions { retry_delay_ms: 0, ..Default::default() }
}

/// Waits until leases that were given now and last as long as [`SHORT`] have ended.
async fn await_lapse(client: &Client) {
    let canary = client.queue("canary");
    canary.push(numbered([0])).await.unwrap();
    let popped = canary.pop().lease(SHORT).send().await.unwrap();
    assert_eq!(popped.len(), 1);
    let again = pop_until_some(&canary, 1, Duration::ZERO).await;
    client.ack(&again).await.unwrap();
}

/// Starts a pop that waits; what is sent on its client after this stands behind it.
async fn wait_for_one(pop: Pop) -> tokio::task::JoinHandle<Popped> {
    let (polled, started) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let pop = pop.wait(PATIENCE);
        let mut pop = std::pin::pin!(pop.send());
        let mut polled = Some(polled);
        std::future::poll_fn(|context| {
            let poll = std::future::Future::poll(pop.as_mut(), context);
            // Its first poll has put it on the connection.
            polled.take().map(|polled| polled.send(()));
            poll
        })
        .await
        .unwrap()
    });
    started.await.unwrap();
    task
}

/// Waits until the server has carried out what was sent before.
async fn settle_in(client: &Client) {
    client.ping().await.unwrap();
    configure(client, "settled in", QueueOptions::default()).await;
}

// Groups.

#[tokio::test(flavor = "multi_thread")]
async fn every_group_has_a_cursor_of_its_own() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("orders");
    queue.push(numbered(0..10)).await.unwrap();
    let take = |group: &'static str, batch: u32| {
        let (queue, client) = (queue.clone(), client.clone());
        async move {
            let popped = queue.pop().group(group).batch(batch).send().await.unwrap();
            client.ack(&popped).await.unwrap();
            numbers(&popped)
        }
    };
    assert_eq!(take("billing", 3).await, [0, 1, 2]);
    assert_eq!(take("shipping", 5).await, [0, 1, 2, 3, 4]);
    assert_eq!(take("billing", 3).await, [3, 4, 5]);
    assert_eq!(take(GroupName::QUEUE_MODE, 100).await, (0..10).collect::<Vec<_>>());
    assert_eq!(take("billing", 100).await, [6, 7, 8, 9]);
    assert_eq!(take("shipping", 100).await, [5, 6, 7, 8, 9]);
    // A lease of one group is nothing to another.
    queue.push(numbered([10])).await.unwrap();
    let held = queue.pop().group("billing").send().await.unwrap();
    assert_eq!(numbers(&held), [10]);
    assert_eq!(take("shipping", 1).await, [10]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_where_it_asks_the_first_time_and_only_then() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("events");
    let pop = |group: &str, start: SubscriptionStart| {
        queue.pop().group(group).start(start).batch(100).partitions(100).into_future()
    };
    queue.push(numbered(0..3)).await.unwrap();
    queue.partition("other").push(numbered([3])).await.unwrap();
    assert!(pop("new", SubscriptionStart::New).await.unwrap().is_empty());
    let all = pop("old", SubscriptionStart::Beginning).await.unwrap();
    assert_eq!(all.len(), 4);
    // The group exists now: another wish comes too late.
    assert!(pop("new", SubscriptionStart::Beginning).await.unwrap().is_empty());
    queue.push(numbered([4])).await.unwrap();
    queue.partition("later").push(numbered([5])).await.unwrap();
    let fresh = pop("new", SubscriptionStart::Default).await.unwrap();
    assert_eq!(numbers(&fresh).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([4, 5]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_new_messages_that_waits_before_the_queue_exists_misses_none() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for round in 0..20 {
        let queue = client.queue(&format!("born{round}"));
        let waiting = wait_for_one(queue.pop().group("g").start(SubscriptionStart::New)).await;
        settle_in(&client).await;
        queue.push(numbered([round])).await.unwrap();
        assert_eq!(numbers(&waiting.await.unwrap()), [round]);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_where_groups_begin_that_do_not_say() {
    let server = TestServer::start_with(|settings| {
        settings.delivery.subscription_mode = onrush::config::SubscriptionMode::New;
    });
    let server = server.await;
    let client = server.client().await;
    let queue = client.queue("events");
    queue.push(numbered([0])).await.unwrap();
    assert!(queue.pop().group("g").send().await.unwrap().is_empty());
    queue.push(numbered([1])).await.unwrap();
    assert_eq!(numbers(&queue.pop().group("g").batch(9).send().await.unwrap()), [1]);
    let asked = queue.pop().group("h").start(SubscriptionStart::Beginning).batch(9);
    assert_eq!(numbers(&asked.send().await.unwrap()), [0, 1]);
    server.stop().await;
}

// Leases.

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_one_consumers_until_it_acknowledges() {
    let server = TestServer::start().await;
    let (one, two) = (server.client().await, server.client().await);
    one.queue("jobs").push(numbered(0..4)).await.unwrap();
    let held = one.queue("jobs").pop().batch(2).send().await.unwrap();
    assert_eq!(numbers(&held), [0, 1]);
    assert!(two.queue("jobs").pop().batch(9).send().await.unwrap().is_empty());
    let named = two.queue("jobs").partition("Default").pop().batch(9);
    assert!(named.send().await.unwrap().is_empty());
    // Half of an answer does not end it.
    one.ack(&held.messages[0]).await.unwrap();
    assert!(two.queue("jobs").pop().batch(9).send().await.unwrap().is_empty());
    one.ack(&held.messages[1]).await.unwrap();
    assert_eq!(numbers(&two.queue("jobs").pop().batch(9).send().await.unwrap()), [2, 3]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_fences_its_consumer_out_and_another_gets_the_messages() {
    let server = TestServer::start().await;
    let (slow, quick) = (server.client().await, server.client().await);
    let queue = quick.queue("jobs");
    queue.push(numbered(0..3)).await.unwrap();
    let late = slow.queue("jobs").pop().batch(3).lease(SHORT).send().await.unwrap();
    slow.ack(&late.messages[0]).await.unwrap();
    let again = pop_until_some(&queue, 3, Duration::ZERO).await;
    assert_eq!((numbers(&again), attempts(&again)), (vec![1, 2], vec![1, 1]));
    assert_ne!(again.lease, late.lease);
    let fenced = slow.ack(&late.messages[1..]).await.unwrap_err();
    assert_eq!(refusals(&fenced), [Some(Code::LeaseExpired)]);
    let fenced = slow.nack(&late.messages[1..], "no").await.unwrap_err();
    assert_eq!(refusals(&fenced), [Some(Code::LeaseExpired)]);
    match slow.renew(&late.lease, 60_000).await.unwrap_err() {
        Error::Refused(refusal) => assert_eq!(refusal.code(), Some(Code::LeaseNotFound)),
        other => panic!("{other:?}"),
    }
    // What the late one said of its own changed nothing for the other.
    let report = quick.ack(&again).await.unwrap();
    assert_eq!(report.acked, 2);
    assert!(queue.pop().batch(9).send().await.unwrap().is_empty());
    assert_eq!(stat(&quick, "lapsed").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_too_often_makes_dead_letters_that_keep_their_payload() {
    let server = TestServer::start().await;
    let client = server.client().await;
    configure(&client, "jobs", QueueOptions { retry_limit: 1, ..Default::default() }).await;
    let queue = client.queue("jobs");
    queue.push(numbered(7..9)).await.unwrap();
    for attempt in 0..2 {
        let popped = pop_until_some(&queue, 1, SHORT).await;
        assert_eq!((numbers(&popped), attempts(&popped)), (vec![7], vec![attempt]));
    }
    let next = pop_until_some(&queue, 9, Duration::ZERO).await;
    assert_eq!((numbers(&next), attempts(&next)), (vec![8], vec![0]));
    let letters = server.dead_letters("jobs").await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["data"], 7);
    assert_eq!(letters[0]["partition"], "Default");
    assert_eq!(letters[0]["retryCount"], 2);
    assert_eq!(letters[0]["errorMessage"], "lease expired");
    assert_eq!(stat(&client, "lapsed").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn extending_never_shortens_a_lease_and_keeps_the_others_out() {
    let server = TestServer::start().await;
    let (one, two) = (server.client().await, server.client().await);
    one.queue("jobs").push(numbered(0..2)).await.unwrap();
    one.queue("jobs").partition("b").push(numbered(2..4)).await.unwrap();
    let long = one.queue("jobs").partition("b").pop().batch(2);
    let long = long.lease(Duration::from_secs(600)).send().await.unwrap();
    assert_eq!(one.renew(&long.lease, 1).await.unwrap(), long.lease_until_ms);
    let held = one.queue("jobs").pop().batch(2).lease(SHORT).send().await.unwrap();
    let until_ms = one.renew(&held.lease, 600_000).await.unwrap();
    assert!(until_ms > held.lease_until_ms + 500_000, "{until_ms} after {held:?}");
    assert_eq!(one.renew(&held.lease, 60_000).await.unwrap(), until_ms);
    await_lapse(&two).await;
    assert!(two.queue("jobs").pop().batch(9).partitions(9).send().await.unwrap().is_empty());
    assert_eq!(one.ack(&held).await.unwrap().acked, 2);
    assert_eq!(one.ack(&long).await.unwrap().acked, 2);
    // An acknowledged lease is gone: nothing of it can be extended.
    assert!(matches!(one.renew(&held.lease, 1).await, Err(Error::Refused(it))
        if it.code() == Some(Code::LeaseNotFound)));
    server.stop().await;
}

// Verdicts.

#[tokio::test(flavor = "multi_thread")]
async fn failed_messages_come_again_with_their_attempts_and_nothing_passes_them() {
    let server = TestServer::start().await;
    let client = server.client().await;
    configure(&client, "jobs", at_once()).await;
    let queue = client.queue("jobs");
    queue.push(numbered(0..6)).await.unwrap();
    // A whole batch.
    let popped = queue.pop().batch(3).send().await.unwrap();
    let items = settle(&client, &popped, &[(0, 2, AckOutcome::Failed)]).await;
    assert_eq!(items, [done(0, 0, true)]);
    let popped = queue.pop().batch(6).send().await.unwrap();
    assert_eq!(numbers(&popped), [0, 1, 2, 3, 4, 5]);
    assert_eq!(attempts(&popped), [1, 1, 1, 0, 0, 0]);
    // A mixed one, the failures before and between what is done.
    let ranges = [
        (1, 1, AckOutcome::Failed),
        (0, 0, AckOutcome::Completed),
        (2, 3, AckOutcome::Completed),
        (5, 5, AckOutcome::Completed),
    ];
    let items = settle(&client, &popped, &ranges).await;
    let expected = [done(0, 0, true), done(1, 0, true), done(2, 0, true), done(1, 0, true)];
    assert_eq!(items, expected);
    // 4 was not mentioned: it comes again, and nobody counts an attempt.
    let popped = queue.pop().batch(6).send().await.unwrap();
    assert_eq!((numbers(&popped), attempts(&popped)), (vec![1, 4], vec![2, 0]));
    // A single one.
    client.nack(&popped.messages[0], "no").await.unwrap();
    let popped = queue.pop().batch(6).send().await.unwrap();
    assert_eq!((numbers(&popped), attempts(&popped)), (vec![1, 4], vec![3, 0]));
    client.ack(&popped).await.unwrap();
    queue.push(numbered([6])).await.unwrap();
    assert_eq!(numbers(&queue.pop().batch(6).send().await.unwrap()), [6]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_counts_no_attempt_and_a_dead_letter_is_one_at_once() {
    let server = TestServer::start().await;
    let client = server.client().await;
    configure(&client, "jobs", QueueOptions { retry_limit: 0, ..Default::default() }).await;
    let queue = client.queue("jobs");
    queue.push(numbered(0..3)).await.unwrap();
    for _ in 0..5 {
        let popped = queue.pop().batch(3).send().await.unwrap();
        assert_eq!((numbers(&popped), attempts(&popped)), (vec![0, 1, 2], vec![0, 0, 0]));
        let items = settle(&client, &popped, &[(0, 2, AckOutcome::Retry)]).await;
        assert_eq!(items, [done(0, 0, true)]);
    }
    let popped = queue.pop().batch(3).send().await.unwrap();
    let ranges = [(1, 1, AckOutcome::DeadLetter), (0, 0, AckOutcome::Completed)];
    assert_eq!(settle(&client, &popped, &ranges).await, [done(0, 1, false), done(1, 0, false)]);
    // The lease goes on for what is left; without a retry one failure is enough.
    assert!(queue.pop().send().await.unwrap().is_empty());
    let items = settle(&client, &popped, &[(2, 2, AckOutcome::Failed)]).await;
    assert_eq!(items, [done(0, 1, true)]);
    assert!(queue.pop().send().await.unwrap().is_empty());
    let letters = server.dead_letters("jobs").await;
    let told: Vec<_> = letters
        .iter()
        .map(|it| (it["data"].as_u64().unwrap(), it["retryCount"].as_u64().unwrap()))
        .collect();
    // The newest failure first.
    assert_eq!(told, [(2, 1), (1, 0)]);
    assert!(letters.iter().all(|it| it["errorMessage"] == "because"), "{letters:?}");
    assert_eq!(stat(&client, "dead").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_popped_with_auto_ack_is_settled_for_good() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.queue("jobs").push(numbered(0..5)).await.unwrap();
    let popped = client.queue("jobs").pop().batch(3).auto_ack(true).send().await.unwrap();
    assert_eq!(numbers(&popped), [0, 1, 2]);
    assert_eq!((popped.lease, popped.lease_until_ms), (NO_LEASE, 0));
    drop(client);
    let server = server.restart().await;
    let client = server.client().await;
    let popped = client.queue("jobs").pop().batch(9).auto_ack(true).send().await.unwrap();
    assert_eq!(numbers(&popped), [3, 4]);
    assert!(client.queue("jobs").pop().send().await.unwrap().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_may_be_said_twice() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("jobs");
    queue.push(numbered(0..4)).await.unwrap();
    let popped = queue.pop().batch(4).send().await.unwrap();
    let completed = |first, last| (first, last, AckOutcome::Completed);
    let items = settle(&client, &popped, &[completed(1, 2), completed(1, 2)]).await;
    assert_eq!(items, [done(2, 0, false), done(0, 0, false)]);
    assert_eq!(settle(&client, &popped, &[completed(0, 3)]).await, [done(2, 0, true)]);
    for _ in 0..2 {
        assert_eq!(settle(&client, &popped, &[completed(0, 3)]).await, [done(0, 0, false)]);
    }
    // A failure that comes after it is none any more.
    let items = settle(&client, &popped, &[(0, 3, AckOutcome::Failed)]).await;
    assert_eq!(items, [refused(Code::LeaseExpired)]);
    assert!(queue.pop().send().await.unwrap().is_empty());
    assert_eq!(stat(&client, "acked").await, 4);
    server.stop().await;
}

// Partitions.

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_mixes_as_many_partitions_as_it_allows_and_no_more() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("jobs");
    for partition in 0..10 {
        let partition = queue.partition(&format!("p{partition}"));
        partition.push(numbered(0..5)).await.unwrap();
    }
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut total = 0;
    while total < 50 {
        let popped = queue.pop().batch(12).partitions(3).send().await.unwrap();
        assert!(!popped.is_empty(), "after {total}");
        assert!(popped.len() <= 12, "{}", popped.len());
        let mut partitions = BTreeSet::new();
        for message in &popped {
            assert_eq!(*message.lease(), popped.lease, "one lease holds all");
            partitions.insert(message.partition());
            let name = message.partition_name().as_str().to_owned();
            seen.entry(name).or_default().push(number(message));
        }
        assert!(partitions.len() <= 3, "{partitions:?}");
        total += popped.len();
        assert_eq!(client.ack(&popped).await.unwrap().acked, popped.len() as u64);
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.values().all(|it| *it == [0, 1, 2, 3, 4]), "{seen:?}");
    // One partition and no other, and one that is not there.
    queue.partition("p3").push(numbered([5])).await.unwrap();
    queue.partition("p4").push(numbered([5])).await.unwrap();
    let only = queue.partition("p4").pop().batch(9).partitions(9).send().await.unwrap();
    assert_eq!(only.len(), 1);
    assert_eq!(only.messages[0].partition_name().as_str(), "p4");
    assert!(queue.partition("p99").pop().batch(9).send().await.unwrap().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_starves_beside_others_that_always_have_work() {
    const PARTITIONS: usize = 40;
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("jobs");
    for partition in 0..PARTITIONS {
        let partition = queue.partition(&format!("p{partition}"));
        partition.push(numbered(0..300)).await.unwrap();
    }
    // Five times as many pops as there are partitions: each of them must have had its turn.
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..PARTITIONS * 5 {
        let popped = queue.pop().send().await.unwrap();
        let message = &popped.messages[0];
        *served.entry(message.partition_name().as_str().to_owned()).or_default() += 1;
        client.ack(&popped).await.unwrap();
    }
    assert_eq!(served.len(), PARTITIONS, "{served:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_several_partitions_still_fits_a_frame() {
    let server = TestServer::start_with(|settings| {
        settings.wire.frame_bytes_max = 64 * 1024;
        settings.wire.batch_bytes_max = 60 * 1024;
        settings.wire.message_bytes_max = 60 * 1024;
    });
    let server = server.await;
    let client = server.client().await;
    let queue = client.queue("large");
    // Partitions that leave room in the answer for one more, and others that need all of it.
    for number in 0..20 {
        let partition = queue.partition(&format!("p{number}"));
        let bytes = if number % 2 == 0 { 20_000 } else { 59_000 };
        partition.push([Message::bytes(vec![b'x'; bytes])]).await.unwrap();
    }
    let mut count = 0;
    while count < 20 {
        let popped = queue.pop().batch(100).partitions(10).send().await.unwrap();
        assert!(!popped.is_empty(), "{count} of 20 came, the others stay behind");
        count += popped.len();
        assert!(popped.messages.iter().all(|it| it.attempts == 0));
        client.ack(&popped).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_consumers_share_the_work_and_each_partition_stays_in_order() {
    const PARTITIONS: u64 = 6;
    const MESSAGES: u64 = 200;
    let server = TestServer::start().await;
    let client = server.client().await;
    let mut consumers = Vec::new();
    for consumer in 0..8 {
        let client = server.client().await;
        consumers.push(tokio::spawn(async move {
            let queue = client.queue("jobs");
            let mut seen = Vec::new();
            loop {
                let pop = queue.pop().batch(7 + consumer).partitions(2);
                let popped = pop.wait(Duration::from_millis(1500)).send().await.unwrap();
                if popped.is_empty() {
                    return seen;
                }
                let partition = |it: &ReceivedMessage| it.partition_name().as_str().to_owned();
                // Noted before the ack: after it another consumer may have the next ones.
                seen.extend(popped.messages.iter().map(|it| (partition(it), number(it))));
                client.ack(&popped).await.unwrap();
            }
        }));
    }
    for start in (0..MESSAGES).step_by(20) {
        for partition in 0..PARTITIONS {
            let partition = client.queue("jobs").partition(&format!("p{partition}"));
            partition.push(numbered(start..start + 20)).await.unwrap();
        }
    }
    let mut all = Vec::new();
    for consumer in consumers {
        let seen = consumer.await.unwrap();
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (partition, number) in &seen {
            let before = last.insert(partition, *number);
            assert!(before.is_none_or(|before| before < *number), "{partition} went back");
        }
        all.extend(seen);
    }
    all.sort();
    let expected = (0..PARTITIONS)
        .flat_map(|partition| (0..MESSAGES).map(move |number| (format!("p{partition}"), number)));
    assert_eq!(all, expected.collect::<Vec<_>>(), "each message once, none twice");
    server.stop().await;
}

// Waiting.

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_waits_as_long_as_it_says_and_comes_back_with_nothing() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.queue("jobs").push(numbered([0])).await.unwrap();
    let held = client.queue("jobs").pop().send().await.unwrap();
    // A queue that does not exist, an empty one, one whose partition somebody holds.
    configure(&client, "empty", QueueOptions::default()).await;
    for queue in ["nowhere", "empty", "jobs"] {
        let (wait, from) = (Duration::from_millis(150), Instant::now());
        let popped = client.queue(queue).pop().wait(wait).send().await.unwrap();
        assert!(popped.is_empty());
        assert!(from.elapsed() >= wait, "{queue}: {:?}", from.elapsed());
    }
    client.ack(&held).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_wakes_one_of_many_waiting_consumers() {
    const CONSUMERS: u64 = 40;
    let server = TestServer::start().await;
    let client = server.client().await;
    for spread in [true, false] {
        let name = format!("jobs {spread}");
        configure(&client, &name, QueueOptions::default()).await;
        let mut waiting = Vec::new();
        for _ in 0..CONSUMERS {
            let (client, name) = (server.client().await, name.clone());
            waiting.push(tokio::spawn(async move {
                let popped = client.queue(&name).pop().wait(PATIENCE).send().await.unwrap();
                client.ack(&popped).await.unwrap();
                numbers(&popped)
            }));
        }
        for number in 0..CONSUMERS {
            // All in partitions of their own, or all in one, where each waits for the one before.
            let partition = if spread { format!("p{number}") } else { "p".to_owned() };
            client.queue(&name).partition(&partition).push(numbered([number])).await.unwrap();
        }
        let mut got = Vec::new();
        for consumer in waiting {
            let numbers = consumer.await.unwrap();
            assert_eq!(numbers.len(), 1, "somebody went away with nothing");
            got.extend(numbers);
        }
        got.sort_unstable();
        assert_eq!(got, (0..CONSUMERS).collect::<Vec<_>>());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_lease_wakes_those_who_wait_for_its_partition() {
    let server = TestServer::start().await;
    let client = server.client().await;
    configure(&client, "jobs", at_once()).await;
    let queue = client.queue("jobs");
    queue.push(numbered([0])).await.unwrap();
    let wait = || {
        let queue = queue.clone();
        tokio::spawn(async move { queue.pop().wait(PATIENCE).send().await.unwrap() })
    };
    let lapsing = queue.pop().lease(SHORT).send().await.unwrap();
    assert_eq!(lapsing.len(), 1);
    let popped = wait().await.unwrap();
    assert_eq!(attempts(&popped), [1], "the lease ran out");
    let waiting = wait();
    client.nack(&popped, "no").await.unwrap();
    let popped = waiting.await.unwrap();
    assert_eq!(attempts(&popped), [2], "it failed");
    let waiting = wait();
    settle(&client, &popped, &[(0, 0, AckOutcome::Retry)]).await;
    let popped = waiting.await.unwrap();
    assert_eq!(attempts(&popped), [2], "it was given back");
    queue.push(numbered([1])).await.unwrap();
    let waiting = wait();
    client.ack(&popped).await.unwrap();
    assert_eq!(numbers(&waiting.await.unwrap()), [1], "it was done");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_waits_is_served_before_one_who_acknowledges_and_pops_again() {
    const MESSAGES: u64 = 400;
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("jobs");
    queue.push(numbered(0..MESSAGES)).await.unwrap();
    let delivery = &server.rooms().delivery;
    let order = || PopOrder {
        queue: "jobs".parse().unwrap(),
        partition: None,
        group: GroupName::queue_mode(),
        start: GroupStart::Beginning,
        budget: PopBudget { messages: 1, bytes: 1 << 20, partitions: 1 },
        wait_ms: 0,
        lease_ms: 0,
        auto_ack: false,
    };
    let mut held = delivery.pop(order()).await.unwrap();
    let patient = wait_for_one(server.client().await.queue("jobs").pop()).await;
    settle_in(&client).await;
    // While a commit waits for the disk, what comes meanwhile is decided together.
    let busy = server.client().await;
    let busy = tokio::spawn(async move {
        let queue = busy.queue("others");
        loop {
            queue.push([Message::bytes(vec![b'x'; 100_000])]).await.unwrap();
        }
    });
    let mut served = 0;
    while let Some(package) = held.packages.first() {
        served += 1;
        assert!(served < 10, "another had {served} messages meanwhile");
        let seq = package.batches[0].first_seq;
        let (verdict, error) = (Verdict::Completed, Box::default());
        let item = Item { first: seq, last: seq, verdict, error };
        let items = vec![(package.partition, item)];
        // Said in one breath: as a rule one commit decides both.
        let (acked, answer) = tokio::sync::oneshot::channel();
        let (popped, next) = tokio::sync::oneshot::channel();
        delivery.begin_ack(GroupName::queue_mode(), Some(held.token), items, ReplyTo::Task(acked));
        delivery.begin_pop(order(), ReplyTo::Task(popped));
        assert!(answer.await.unwrap().unwrap()[0].is_ok());
        held = delivery.unpack(next.await.unwrap().unwrap()).await.unwrap();
    }
    busy.abort();
    assert_eq!(patient.await.unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_consumer_is_told_that_the_server_goes_away() {
    let server = TestServer::start().await;
    let client = Client::builder().addr(&server.tcp_addr().to_string()).retries(0);
    let client = client.connect().await.unwrap();
    configure(&client, "jobs", QueueOptions::default()).await;
    let waiting = {
        let queue = client.queue("jobs");
        tokio::spawn(async move { queue.pop().wait(Duration::from_secs(600)).send().await })
    };
    // A request behind the pop on the same connection is answered: the pop waits.
    while client.connection().await.unwrap().window_left() == 1024 {
        tokio::task::yield_now().await;
    }
    client.ping().await.unwrap();
    server.stop().await;
    match waiting.await.unwrap() {
        Err(Error::Refused(refusal)) => assert_eq!(refusal.code(), Some(Code::ShuttingDown)),
        other => panic!("{other:?}"),
    }
}

// Deleting.

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_and_made_again_remembers_nothing() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("jobs");
    let with_id = |number: u64| [Message::json(&number).transaction_id("once")];
    let mut ids = BTreeSet::new();
    for round in 0..3 {
        configure(&client, "jobs", QueueOptions { retry_limit: 0, ..Default::default() }).await;
        let pushed = queue.push(with_id(round)).qos(Qos::ExactlyOnce).await.unwrap();
        assert!(matches!(pushed.messages[0].status, MessageStatus::Pushed), "round {round}");
        assert!(ids.insert(pushed.messages[0].message_id.unwrap().to_string()));
        queue.push(numbered([round + 10, round + 20])).await.unwrap();
        let popped = queue.pop().send().await.unwrap();
        assert_eq!(numbers(&popped), [round], "only its own");
        client.nack(&popped, "to the dead letters").await.unwrap();
        assert_eq!(server.dead_letters("jobs").await.len(), 1);
        let held = queue.pop().send().await.unwrap();
        assert_eq!(numbers(&held), [round + 10]);
        assert!(queue.delete().await.unwrap());
        assert!(!queue.delete().await.unwrap(), "it is gone");
        assert!(queue.pop().batch(9).send().await.unwrap().is_empty());
        let late = client.ack(&held).await.unwrap_err();
        assert_eq!(refusals(&late), [Some(Code::PartitionNotFound)]);
        assert!(client.renew(&held.lease, 1000).await.is_err());
    }
    drop(client);
    let server = server.restart().await;
    let client = server.client().await;
    assert!(client.queue("jobs").pop().send().await.unwrap().is_empty());
    let pushed = client.queue("jobs").push(with_id(9)).await.unwrap();
    assert!(matches!(pushed.messages[0].status, MessageStatus::Pushed));
    assert!(server.dead_letters("jobs").await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_may_wait_across_the_end_of_a_queue_and_its_beginning() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("jobs");
    for round in 0..10 {
        configure(&client, "jobs", QueueOptions::default()).await;
        let waiting = {
            let queue = queue.clone();
            tokio::spawn(async move { queue.pop().wait(PATIENCE).send().await.unwrap() })
        };
        assert!(queue.delete().await.unwrap());
        queue.push(numbered([round])).await.unwrap();
        assert_eq!(numbers(&waiting.await.unwrap()), [round]);
        assert!(queue.delete().await.unwrap());
    }
    server.stop().await;
}

// Size.

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_come_in_one_answer_and_go_with_one_ack() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let queue = client.queue("jobs");
    for start in (0..12_000).step_by(1000) {
        queue.push(numbered(start..start + 1000)).await.unwrap();
    }
    let popped = queue.pop().batch(10_000).send().await.unwrap();
    assert_eq!(numbers(&popped), (0..10_000).collect::<Vec<_>>());
    let items = settle(&client, &popped, &[(0, 9_999, AckOutcome::Completed)]).await;
    assert_eq!(items, [done(10_000, 0, true)]);
    let rest = queue.pop().batch(10_000).send().await.unwrap();
    assert_eq!(numbers(&rest), (10_000..12_000).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_five_megabytes_comes_out_whole_and_in_slices_hot_and_cold() {
    const MESSAGE: usize = 1_000_000;
    let server = TestServer::start().await;
    let client = server.client().await;
    let mut builder = BatchBuilder::new();
    for number in 0..5 {
        let payload = vec![b'0' + number; MESSAGE];
        builder.push(&NewRecord { payload: &payload, ..NewRecord::default() }).unwrap();
    }
    let batch = builder.finish().unwrap().bytes().clone();
    let (queue, partition) = ("large".parse().unwrap(), "p".parse().unwrap());
    let connection = client.connection().await.unwrap();
    let receipts = connection.push_raw(&queue, &partition, Qos::AtLeastOnce, batch).await.unwrap();
    assert!(matches!(receipts.sections[..], [SectionReceipt::Pushed { count: 5, .. }]));
    drop((connection, client));
    let mut server = server;
    for group in ["hot", "cold"] {
        let client = server.client().await;
        let whole = client.queue("large").pop().group(group).batch(10).send().await.unwrap();
        let is_right = |(number, message): (u8, &ReceivedMessage)| {
            message.bytes().len() == MESSAGE
                && message.bytes().iter().all(|it| *it == b'0' + number)
        };
        assert_eq!(whole.len(), 5, "one batch is never too large for an answer");
        assert!((0..).zip(&whole.messages).all(is_right));
        settle(&client, &whole, &[(0, 4, AckOutcome::Retry)]).await;
        for number in 0..5 {
            let slice = client.queue("large").pop().group(group).bytes(1).send().await.unwrap();
            assert_eq!((slice.len(), slice.messages[0].seq), (1, u64::from(number)));
            assert!(is_right((number, &slice.messages[0])));
            client.ack(&slice).await.unwrap();
        }
        drop(client);
        server = server.restart().await;
    }
    server.stop().await;
}

// Restarts.

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_leases_attempts_and_what_was_settled_beyond_the_cursor() {
    let server = TestServer::start().await;
    let client = server.client().await;
    configure(&client, "jobs", at_once()).await;
    let (held, tried) = (client.queue("jobs").partition("held"), client.queue("jobs"));
    held.push(numbered(0..3)).await.unwrap();
    let lease = held.pop().batch(3).lease(Duration::from_secs(600)).send().await.unwrap();
    tried.partition("tried").push(numbered(0..5)).await.unwrap();
    let popped = tried.partition("tried").pop().batch(5).send().await.unwrap();
    let ranges =
        [(1, 1, AckOutcome::Completed), (3, 3, AckOutcome::Completed), (2, 2, AckOutcome::Failed)];
    settle(&client, &popped, &ranges).await;
    drop((client, held, tried));

    let server = server.restart().await;
    let client = server.client().await;
    let popped = client.queue("jobs").pop().batch(9).partitions(9).send().await.unwrap();
    assert_eq!((numbers(&popped), attempts(&popped)), (vec![0, 2, 4], vec![0, 1, 0]));
    assert!(popped.messages.iter().all(|it| it.partition_name().as_str() == "tried"));
    let until_ms = client.renew(&lease.lease, 1).await.unwrap();
    assert_eq!(until_ms, lease.lease_until_ms);
    assert_eq!(client.ack(&lease).await.unwrap().acked, 3, "the token is good still");
    assert_eq!(client.ack(&popped).await.unwrap().acked, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_while_the_server_is_away_counts_as_an_attempt() {
    let server = TestServer::start().await;
    let client = server.client().await;
    client.queue("jobs").push(numbered([0])).await.unwrap();
    let popped = client.queue("jobs").pop().lease(SHORT).send().await.unwrap();
    assert_eq!(popped.len(), 1);
    drop(client);
    let server = server.restart().await;
    let client = server.client().await;
    let again = pop_until_some(&client.queue("jobs"), 1, Duration::ZERO).await;
    assert_eq!(attempts(&again), [1]);
    assert_eq!(refusals(&client.ack(&popped).await.unwrap_err()), [Some(Code::LeaseExpired)]);
    assert_eq!(client.ack(&again).await.unwrap().acked, 1);
    server.stop().await;
}
