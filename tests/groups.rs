//! Consumer groups over the binary port, through the client that users hold.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

#[path = "support/server.rs"]
mod server;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onrush_client::{
    Client, Code, Error, KeepStart, Message, Popped, ReceivedMessage, SubscriptionStart,
};
use server::TestServer;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A time after everything that was pushed so far and before everything that will be.
async fn between() -> i64 {
    let before = now_ms();
    while now_ms() <= before + 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    now_ms()
}

async fn push(client: &Client, partition: &str, text: &str) {
    let pushed = client.queue("q").partition(partition).push([Message::bytes(text.to_owned())]);
    assert!(pushed.await.unwrap().is_complete());
}

fn texts(popped: &Popped) -> Vec<String> {
    let text = |it: &ReceivedMessage| String::from_utf8(it.bytes().to_vec()).unwrap();
    let mut texts: Vec<String> = popped.messages.iter().map(text).collect();
    texts.sort();
    texts
}

async fn take(client: &Client, group: &str, start: SubscriptionStart) -> Vec<String> {
    let pop = client.queue("q").pop().group(group).batch(100).partitions(100).start(start);
    texts(&pop.auto_ack(true).await.unwrap())
}

fn code(error: &Error) -> Code {
    error.code().unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test]
async fn a_group_begins_at_a_time_and_queue_mode_always_with_everything() {
    let server = TestServer::start().await;
    let client = server.client().await;
    push(&client, "a", "1").await;
    let at = between().await;
    push(&client, "a", "2").await;
    push(&client, "b", "3").await;
    assert_eq!(take(&client, "g", SubscriptionStart::Time(at)).await, ["2", "3"]);
    assert_eq!(take(&client, "old", SubscriptionStart::Time(-5)).await, ["1", "2", "3"]);
    let mode = onrush_client::GroupName::queue_mode();
    assert_eq!(take(&client, mode.as_str(), SubscriptionStart::New).await, ["1", "2", "3"]);
    server.stop().await;
}

#[tokio::test]
async fn a_group_is_sent_to_a_time_to_the_end_and_back_in_one_partition_or_in_all() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for partition in ["a", "b"] {
        push(&client, partition, &format!("{partition}1")).await;
    }
    let at = between().await;
    for partition in ["a", "b"] {
        push(&client, partition, &format!("{partition}2")).await;
    }
    let default = SubscriptionStart::Default;
    assert_eq!(take(&client, "g", default).await.len(), 4);
    let group = client.group("g").queue("q");
    assert_eq!(group.seek_to_time(at).await.unwrap(), 2);
    assert_eq!(take(&client, "g", default).await, ["a2", "b2"]);
    assert_eq!(group.partition("b").seek_to_beginning().await.unwrap(), 1);
    assert_eq!(take(&client, "g", default).await, ["b1", "b2"]);
    group.seek_to_beginning().await.unwrap();
    // Held messages go back with the seek, and their lease with them.
    let held = client.queue("q").pop().group("g").batch(9).partitions(9).await.unwrap();
    assert_eq!(held.len(), 4);
    group.seek_to_end().await.unwrap();
    assert!(take(&client, "g", default).await.is_empty());
    let missing = client.group("g").queue("none").seek_to_end().await.unwrap_err();
    assert_eq!(code(&missing), Code::QueueNotFound);
    let nobody = client.group("nobody").queue("q").seek_to_end().await.unwrap_err();
    assert_eq!(code(&nobody), Code::GroupNotFound);
    let nowhere = group.partition("none").seek_to_end().await.unwrap_err();
    assert_eq!(code(&nowhere), Code::PartitionNotFound);
    server.stop().await;
}

#[tokio::test]
async fn lag_is_counted_listed_and_forgotten_with_the_group() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for partition in ["a", "b", "c"] {
        push(&client, partition, "1").await;
        push(&client, partition, "2").await;
    }
    let popped = client.queue("q").partition("a").pop().group("g").batch(2).await.unwrap();
    client.ack(&popped).await.unwrap();
    let held = client.queue("q").partition("b").pop().group("g").await.unwrap();
    let standings = client.group("g").standings().await.unwrap();
    let standing = &standings[0];
    assert_eq!((standings.len(), standing.queue.as_str()), (1, "q"));
    let numbers = (standing.partitions, standing.lagging, standing.behind, standing.members);
    assert_eq!(numbers, (3, 2, 4, 1));
    let age_ms = now_ms() - standing.oldest_ms as i64;
    assert!((0..600_000).contains(&age_ms), "{age_ms}");
    let lag = client.group("g").queue("q").lag().await.unwrap();
    let mut names: Vec<&str> = lag.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(lag.iter().filter(|it| it.lease_until_ms > 0).count(), 1);
    assert_eq!(client.groups().await.unwrap(), standings);
    assert_eq!(client.group("g").delete(KeepStart::No).await.unwrap(), 3);
    assert!(client.groups().await.unwrap().is_empty());
    assert!(client.ack(&held).await.is_err(), "its lease is gone");
    assert_eq!(take(&client, "g", SubscriptionStart::Default).await.len(), 6, "afresh");
    let at = between().await;
    assert_eq!(client.group("g").start_at(at).await.unwrap(), 1);
    assert_eq!(client.group("g").queue("q").delete(KeepStart::Yes).await.unwrap(), 3);
    push(&client, "a", "3").await;
    assert_eq!(take(&client, "g", SubscriptionStart::Beginning).await, ["3"], "as remembered");
    server.stop().await;
}

#[tokio::test]
async fn a_group_of_many_partitions_is_moved_and_listed_in_pieces() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let messages = |at: usize| [Message::bytes(format!("{at}"))];
    for at in 0..300 {
        client.queue("q").partition(&format!("p{at}")).push(messages(at)).await.unwrap();
    }
    let default = SubscriptionStart::Default;
    let mut found = take(&client, "g", default).await.len();
    while found < 300 {
        let more = take(&client, "g", default).await.len();
        assert!(more > 0, "{found}");
        found += more;
    }
    let group = client.group("g").queue("q");
    assert_eq!(group.seek_to_beginning().await.unwrap(), 300);
    assert_eq!(group.lag().await.unwrap().len(), 300);
    assert_eq!(group.seek_to_end().await.unwrap(), 300);
    assert!(group.lag().await.unwrap().is_empty());
    server.stop().await;
}
