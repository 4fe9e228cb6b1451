//! Black box: what an idle server, many partitions and many transaction ids cost in memory, and how
//! a restart fares with them.
//!
//! `PARTITIONS` and `IDS` set the size; CI runs small ones, whose limits are the same per item. For
//! the figures of the README, run it in full against a release build:
//! `PARTITIONS=1000000 IDS=4000000 SERVER_BIN=target/release/onrush cargo test --test scale`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/process.rs"]
mod process;

use std::time::{Duration, Instant};

use bytes::Bytes;
use onrush_client::{Client, Connection};
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::name::{PartitionName, QueueName};
use onrush_protocol::qos::Qos;
use onrush_protocol::request::{Push, PushSection, PushSections, PushTerms, Request};
use onrush_protocol::response::{Response, SectionReceipt};
use process::ServerProcess;

const MIB: u64 = 1 << 20;
const SETTINGS: &[&str] = &["store.segment_bytes=64MiB", "store.checkpoint_interval_ms=500"];

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn batch(ids: std::ops::Range<usize>, with_ids: bool) -> Bytes {
    let mut builder = BatchBuilder::new();
    for id in ids {
        let text = format!("transaction-{id:012}");
        let transaction_id = with_ids.then_some(text.as_str());
        let record = NewRecord {
            transaction_id,
            payload: b"{\"n\":1}",
            is_json: true,
            ..Default::default()
        };
        builder.push(&record).unwrap();
    }
    builder.finish().unwrap().bytes().clone()
}

async fn push(connection: &Connection, sections: Vec<PushSection>) -> Vec<SectionReceipt> {
    let terms = PushTerms { qos: Qos::ExactlyOnce, ..PushTerms::default() };
    let sections = PushSections::collect(&sections).unwrap();
    let request = Request::Push(Push { terms, sections });
    match connection.request_within(&request, Duration::from_secs(60)).await.unwrap() {
        Response::Receipts(receipts) => receipts.sections,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn_with(folder.path(), &[]);
    server.listening().await;
    let resident = server.resident_bytes() / MIB;
    println!("idle: {resident} MiB resident");
    assert!(resident < 30, "{resident} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_cost_little_and_are_there_again_after_a_restart() {
    let partitions = size("PARTITIONS", 20_000);
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn_with(folder.path(), SETTINGS);
    let addr = server.listening().await.to_string();
    let connection = Client::connect(&addr).await.unwrap().connection().await.unwrap();
    let before = server.memory_bytes();
    let one = batch(0..1, false);
    for start in (0..partitions).step_by(1000) {
        let section = |number: usize| PushSection {
            queue: "wide".parse::<QueueName>().unwrap(),
            partition: format!("customer-{number}").parse::<PartitionName>().unwrap(),
            batch: one.clone(),
        };
        let sections = (start..partitions.min(start + 1000)).map(section).collect();
        for receipt in push(&connection, sections).await {
            assert!(matches!(receipt, SectionReceipt::Pushed { first_seq: 0, .. }), "{receipt:?}");
        }
    }
    let grown = server.memory_bytes().saturating_sub(before);
    let (per_partition, resident) = (grown / partitions as u64, server.resident_bytes() / MIB);
    println!("{partitions} partitions: {per_partition} bytes each, {resident} MiB resident");
    // What one server holds at a million must fit a gibibyte. Small runs carry fixed costs.
    let limit = 1024 * MIB / 1_000_000 * partitions as u64 + 100 * MIB;
    assert!(grown < limit, "{grown} bytes");
    assert!(partitions < 1_000_000 || resident < 1024, "{resident} MiB");
    server.kill();

    let started = Instant::now();
    let mut server = ServerProcess::spawn_with(folder.path(), SETTINGS);
    let addr = server.listening().await.to_string();
    println!("listening again after {:?}", started.elapsed());
    let client = Client::connect(&addr).await.unwrap();
    let mut found = 0;
    while found < partitions {
        let pop = client.queue("wide").pop().batch(10_000).partitions(u16::MAX);
        let popped = pop.auto_ack(true).send().await.unwrap();
        assert!(!popped.is_empty(), "{found} of {partitions}");
        found += popped.len();
    }
    assert_eq!(found, partitions);
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_ids_cost_little_memory_and_are_all_remembered() {
    let ids = size("IDS", 100_000);
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn_with(folder.path(), SETTINGS);
    let addr = server.listening().await.to_string();
    let connection = Client::connect(&addr).await.unwrap().connection().await.unwrap();
    let section = |start: usize, with_ids: bool| PushSection {
        queue: "ids".parse::<QueueName>().unwrap(),
        partition: format!("p{}", start / 1000 % 64).parse::<PartitionName>().unwrap(),
        batch: batch(start..ids.min(start + 1000), with_ids),
    };
    // As many messages without ids first: what those cost in memory is not the ledger's.
    for start in (0..ids).step_by(1000) {
        push(&connection, vec![section(start, false)]).await;
    }
    let mut memory = vec![server.memory_bytes()];
    for start in (0..ids).step_by(1000) {
        let receipts = push(&connection, vec![section(start, true)]).await;
        assert!(matches!(receipts[..], [SectionReceipt::Pushed { .. }]), "{receipts:?}");
        if (start + 1000) % 1_000_000 == 0 {
            memory.push(server.memory_bytes());
        }
    }
    let grown: Vec<u64> = memory.windows(2).map(|it| it[1].saturating_sub(it[0]) / MIB).collect();
    println!("{ids} ids: MiB per million {grown:?}");
    for start in (0..ids).step_by(ids.div_ceil(20).next_multiple_of(1000)) {
        let receipts = push(&connection, vec![section(start, true)]).await;
        let [SectionReceipt::Mixed { outcomes, .. }] = &receipts[..] else {
            panic!("{receipts:?}");
        };
        let is_duplicate = |it: &onrush_protocol::response::PushOutcome| {
            it.status == onrush_protocol::response::PushStatus::Duplicate
        };
        assert!(outcomes.iter().all(is_duplicate), "ids from {start}");
    }
    // The first million also fills the buffers of the key-value store, about 100 MiB whatever
    // comes after; the ledger itself is what each further million adds.
    let further = grown.len().saturating_sub(1) as u64;
    let per_million = grown.iter().skip(1).sum::<u64>() / further.max(1);
    assert!(per_million < 16, "{grown:?} MiB");
    server.terminate();
}
