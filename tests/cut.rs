//! Black box: the line between the server and a real PostgreSQL is cut at every byte of what they say
//! to each other around a commit. Whether the commit stood or not, the message stands once.
//!
//! `CUT_STEP` sets how many bytes lie between two cuts; 9 unless it says otherwise, 1 is every byte.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;
#[path = "support/proxy.rs"]
mod proxy;

use std::future::IntoFuture;
use std::time::Duration;

use onrush_client::{Client, Message, Qos, Queue};
use onrush_pgharness::{Cluster, installations};
use process::ServerProcess;
use proxy::{Proxy, Way};

/// More than the bytes of one small commit, either way.
const BYTES: [(Way, u64); 2] = [(Way::ToDatabase, 900), (Way::ToServer, 400)];
const PATIENCE: Duration = Duration::from_secs(30);

fn step() -> usize {
    std::env::var("CUT_STEP").ok().and_then(|text| text.parse().ok()).unwrap_or(9)
}

async fn push(queue: &Queue, number: u64) {
    // Without a transaction id: nothing but the log itself can tell whether it stands.
    let pushed = queue.push([Message::json(&number)]).qos(Qos::AtLeastOnce);
    let result = tokio::time::timeout(PATIENCE, pushed.into_future()).await;
    assert!(result.expect("an answer").unwrap().is_complete(), "number {number}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_cut_at_any_byte_stands_once() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let proxy = Proxy::open(([127, 0, 0, 1], cluster.port()).into()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("database.url=postgresql://postgres@{}/postgres", proxy.addr);
    let mut server = ServerProcess::spawn_with(folder.path(), &[&url]);
    let client = Client::builder().addr(&server.listening().await.to_string()).retries(0);
    let client = client.request_timeout(PATIENCE).connect().await.unwrap();
    let queue = client.queue("cut").partition("p");
    let mut number = 0;
    for (way, bytes) in BYTES {
        for at in (1..=bytes).step_by(step()) {
            push(&queue, number).await;
            proxy.cut_after(way, at);
            push(&queue, number + 1).await;
            proxy.disarm();
            number += 2;
        }
    }
    println!("{number} pushes, {} cuts", proxy.cuts());
    assert!(proxy.cuts() * 4 > number, "hardly any cut: {} of {number}", proxy.cuts());
    let mut numbers: Vec<u64> = Vec::new();
    while (numbers.len() as u64) < number {
        let popped = queue.pop().batch(1000).wait(PATIENCE).auto_ack(true).send().await.unwrap();
        assert!(!popped.is_empty(), "{} of {number} came", numbers.len());
        numbers.extend(popped.messages.iter().map(|message| message.json::<u64>().unwrap()));
    }
    assert_eq!(numbers, (0..number).collect::<Vec<_>>());
    let more = queue.pop().batch(10).send().await.unwrap();
    assert!(more.is_empty(), "something stands twice");
}
