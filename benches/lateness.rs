//! How late delayed messages come to consumers that wait for them.
//!
//! In: `ONRUSH_TEST_STORE`, which may ask for a database, and `RATE`, messages a second (250 unless it says
//! otherwise). Out: percentiles of the time from the moment at which a message is due until its consumer has
//! it, over a real server and the binary protocol. It fails where one comes early, or where not 99 of 100 are
//! less than 50 ms late.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench may fail where it stands, and tells its figures"
)]

#[path = "../tests/support/store.rs"]
mod store;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onrush::config::Settings;
use onrush::server::Server;
use onrush_client::{Client, Message, QueueOptions};

const DELAY_S: u32 = 1;
const MESSAGES: u64 = 2_000;
const PARTITIONS: u64 = 200;
const CONSUMERS: usize = 16;
/// Messages a second where nothing is said.
const RATE: u64 = 250;
/// How late 99 of 100 may be, milliseconds.
const LATE_MS: i64 = 50;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Pops one by one until nothing comes any more; how late each message was, milliseconds.
async fn consume(client: Client) -> Vec<i64> {
    let queue = client.queue("late");
    let mut late = Vec::new();
    loop {
        let popped = queue.pop().wait(Duration::from_secs(5)).auto_ack(true).send().await.unwrap();
        let Some(message) = popped.messages.first() else { return late };
        let due_ms = message.time_ms + u64::from(DELAY_S) * 1000;
        late.push(now_ms() as i64 - due_ms as i64);
    }
}

async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.path().join("data");
    store::choose(&mut settings);
    let server = Server::start(&settings).await.unwrap();
    let connect = || async { Client::connect(&server.tcp_addr().to_string()).await.unwrap() };
    let producer = connect().await;
    let queue = producer.queue("late");
    let options = QueueOptions { delayed_processing_s: DELAY_S, ..QueueOptions::default() };
    queue.config(options).create().await.unwrap();
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        consumers.push(tokio::spawn(consume(connect().await)));
    }
    let rate = std::env::var("RATE").ok().map_or(RATE, |text| text.parse().unwrap());
    let mut pushes = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / rate.max(1)));
    for number in 0..MESSAGES {
        ticks.tick().await;
        let partition = queue.partition(&format!("p{}", number % PARTITIONS));
        // Not waited for one by one: a push takes longer than is between two of them.
        pushes.spawn(async move { partition.push([Message::json(&number)]).await.unwrap() });
    }
    while let Some(pushed) = pushes.join_next().await {
        pushed.unwrap();
    }
    let mut late = Vec::new();
    for consumer in consumers {
        late.extend(consumer.await.unwrap());
    }
    late.sort_unstable();
    assert_eq!(late.len() as u64, MESSAGES);
    let at = |per_mille: usize| late[(late.len() - 1) * per_mille / 1000];
    let [min, p50, p99, p999, max] = [0, 500, 990, 999, 1000].map(at);
    println!(
        "late by, ms: min {min} p50 {p50} p99 {p99} p99.9 {p999} max {max} of {MESSAGES}, {rate}/s"
    );
    assert!(min >= 0, "a message came early");
    assert!(p99 < LATE_MS, "99 of 100 are {p99} ms late");
    server.stop(Duration::from_secs(10)).await;
}

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}
