//! Looking at a server through a client: its figures, and what lies in a queue.

#![allow(dead_code, reason = "no test asks for all of it")]

use std::time::Duration;

use onrush_client::{Client, Popped, Queue, ReceivedMessage, SubscriptionStart};

/// One of the server's figures, by its name.
pub(crate) async fn stat(client: &Client, name: &str) -> u64 {
    let stats = client.stats().await.unwrap();
    stats.into_iter().find(|(found, _)| found == name).map(|(_, value)| value).unwrap()
}

/// Waits until the store is there and nothing waits in the failover log any more. A server that has
/// not found its store again yet refuses pops.
pub(crate) async fn drained(client: &Client) {
    let empty = async {
        while stat(client, "store_away").await + stat(client, "spill_waiting").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, empty).await.expect("what was buffered gets into the database");
}

/// Pops and settles everything that a group has left.
pub(crate) async fn drain(client: &Client, queue: &Queue) -> Vec<ReceivedMessage> {
    let mut all = Vec::new();
    loop {
        let popped = queue.pop().batch(1000).partitions(100).send().await.unwrap();
        if popped.is_empty() {
            return all;
        }
        client.ack(&popped).await.unwrap();
        all.extend(popped.messages);
    }
}

/// Everything that is kept in a queue, as a group that is new sees it.
pub(crate) async fn peek(queue: &Queue, group: &str) -> Vec<ReceivedMessage> {
    let mut all = Vec::new();
    loop {
        let pop = queue.pop().group(group).start(SubscriptionStart::Beginning);
        let popped: Popped = pop.batch(1000).partitions(100).auto_ack(true).send().await.unwrap();
        if popped.is_empty() {
            return all;
        }
        all.extend(popped.messages);
    }
}
