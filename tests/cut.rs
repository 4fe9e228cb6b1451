//! Black box: the line between the server and a real PostgreSQL is cut at every byte of what they say
//! to each other around a commit. Whether the commit stood or not, the message stands once.
//!
//! `CUT_STEP` sets how many bytes lie between two cuts; 3 unless it says otherwise, 1 is every byte.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/look.rs"]
mod look;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;
#[path = "support/proxy.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod proxy;
#[path = "support/seeds.rs"]
mod seeds;

use std::future::IntoFuture;
use std::time::Duration;

use onrush_client::{Client, Message, Qos, Queue};
use onrush_pgharness::{Cluster, Installation, installations};
use process::ServerProcess;
use proxy::{Proxy, Way};

/// Exchanges in a row that were over before the cut: the end of what is said is reached.
const OVER: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

fn step() -> usize {
    seeds::number("CUT_STEP", 3)
}

async fn push(queue: &Queue, number: u64) {
    // Without a transaction id: nothing but the log itself can tell whether it stands.
    let pushed = queue.push([Message::json(&number)]).qos(Qos::AtLeastOnce);
    let result = tokio::time::timeout(PATIENCE, pushed.into_future()).await;
    assert!(result.expect("an answer").unwrap().is_complete(), "number {number}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_cut_at_any_byte_stands_once() {
    cut_everywhere(&installations().unwrap().remove(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_does_on_the_newest_major() {
    cut_everywhere(&installations().unwrap().pop().unwrap()).await;
}

async fn cut_everywhere(installation: &Installation) {
    let cluster = Cluster::start(installation).unwrap();
    let proxy = Proxy::open(([127, 0, 0, 1], cluster.port()).into()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("database.url=postgresql://postgres@{}/postgres", proxy.addr);
    // Nothing else is said meanwhile that could be cut in its place.
    let quiet = "database.follow_interval_ms=1h";
    let mut server = ServerProcess::spawn_with(folder.path(), &[&url, quiet]);
    let client = Client::builder().addr(&server.listening().await.to_string()).retries(0);
    let client = client.request_timeout(PATIENCE).connect().await.unwrap();
    let queue = client.queue("cut").partition("p");
    let mut number = 0;
    for way in [Way::ToDatabase, Way::ToServer] {
        let (mut over, mut last) = (0, 0);
        for at in (1..).step_by(step()) {
            // What goes to the failover log does not pass the line that is to be cut.
            look::drained(&client).await;
            push(&queue, number).await;
            let before = proxy.cuts();
            proxy.cut_after(way, at);
            push(&queue, number + 1).await;
            proxy.disarm();
            number += 2;
            over = if proxy.cuts() == before { over + 1 } else { 0 };
            last = if over == 0 { at } else { last };
            if over == OVER {
                break;
            }
        }
        println!("{way:?}: cut up to byte {last}");
        // The head of a statement alone is longer than this; so is the head of an answer.
        let least = if way == Way::ToDatabase { 100 } else { 10 };
        assert!(last >= least, "{way:?} was cut up to byte {last} only");
    }
    println!("{number} pushes, {} cuts", proxy.cuts());
    look::drained(&client).await;
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
