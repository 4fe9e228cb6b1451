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
#[path = "support/seeds.rs"]
mod seeds;

use std::time::{Duration, Instant};

use bytes::Bytes;
use onrush_client::{Client, Connection};
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::name::{PartitionName, QueueName};
use onrush_protocol::qos::Qos;
use onrush_protocol::request::{Push, PushSection, PushSections, PushTerms, Request};
use onrush_protocol::response::{Response, SectionReceipt};
use process::ServerProcess;
use seeds::number;

const MIB: u64 = 1 << 20;
const SETTINGS: &[&str] = &["store.segment_bytes=64MiB", "store.checkpoint_interval_ms=500"];
/// Without what is bounded by settings of its own and filled by other things too: it would hide what
/// transaction ids cost.
const BARE_SETTINGS: &[&str] = &[
    "store.segment_bytes=64MiB",
    "store.checkpoint_interval_ms=500",
    "store.hot_tail_bytes=0",
    "store.cache_bytes=1MiB",
];
/// Ids of one push.
const IDS_OF_PUSH: usize = 1000;

/// What a message of a test is.
#[derive(Clone, Copy)]
enum Kind {
    Short,
    WithId,
    /// As long as one with an id, so that what it costs by its length is the same.
    WithoutId,
}

fn batch(ids: std::ops::Range<usize>, kind: Kind) -> Bytes {
    let mut builder = BatchBuilder::new();
    for id in ids {
        let text = format!("transaction-{id:012}");
        let quoted = format!("{text:?}");
        let record = NewRecord {
            transaction_id: matches!(kind, Kind::WithId).then_some(text.as_str()),
            payload: if matches!(kind, Kind::WithoutId) { quoted.as_bytes() } else { b"{}" },
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
    let (own, resident) = (server.memory_bytes() / MIB, server.resident_bytes() / MIB);
    println!("idle: {own} MiB of its own, {resident} MiB resident with the pages of its program");
    // A program with everything that helps to find faults is 30 MiB of pages by itself, which the system
    // takes back when it needs them.
    let limit = if std::env::var_os("SERVER_BIN").is_some() { 30 } else { 60 };
    assert!(own < 20 && resident < limit, "{own} and {resident} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_cost_little_and_are_there_again_after_a_restart() {
    let partitions = number("PARTITIONS", 20_000);
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn_with(folder.path(), SETTINGS);
    let addr = server.listening().await.to_string();
    let connection = Client::connect(&addr).await.unwrap().connection().await.unwrap();
    let before = server.memory_bytes();
    let one = batch(0..1, Kind::Short);
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

/// A server of its own that has taken messages, with transaction ids or without.
struct Loaded {
    server: ServerProcess,
    connection: Connection,
    /// Most memory while they came in, bytes.
    highest: u64,
    /// Memory soon after, bytes.
    settled: u64,
}

fn section_of_ids(start: usize, ids: usize, kind: Kind) -> PushSection {
    PushSection {
        queue: "ids".parse::<QueueName>().unwrap(),
        partition: format!("p{}", start / IDS_OF_PUSH % 64).parse::<PartitionName>().unwrap(),
        batch: batch(start..ids.min(start + IDS_OF_PUSH), kind),
    }
}

async fn load(folder: &std::path::Path, ids: usize, kind: Kind) -> Loaded {
    let mut server = ServerProcess::spawn_with(folder, BARE_SETTINGS);
    let addr = server.listening().await.to_string();
    let connection = Client::connect(&addr).await.unwrap().connection().await.unwrap();
    let mut highest = 0;
    for start in (0..ids).step_by(IDS_OF_PUSH) {
        let receipts = push(&connection, vec![section_of_ids(start, ids, kind)]).await;
        assert!(matches!(receipts[..], [SectionReceipt::Pushed { .. }]), "{receipts:?}");
        highest = server.memory_bytes().max(highest);
    }
    // The last checkpoints are written, and a little traffic makes the allocator tidy up.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        push(&connection, vec![section_of_ids(0, 1, Kind::WithoutId)]).await;
    }
    let settled = server.memory_bytes();
    Loaded { server, connection, highest, settled }
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_ids_cost_little_memory_and_are_all_remembered() {
    let ids = number("IDS", 100_000);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut without = load(folders[0].path(), ids, Kind::WithoutId).await;
    without.server.terminate();
    let mut with = load(folders[1].path(), ids, Kind::WithId).await;
    for start in (0..ids).step_by(ids.div_ceil(20).next_multiple_of(IDS_OF_PUSH)) {
        let receipts = push(&with.connection, vec![section_of_ids(start, ids, Kind::WithId)]).await;
        let [SectionReceipt::Mixed { outcomes, .. }] = &receipts[..] else {
            panic!("{receipts:?}");
        };
        let is_duplicate = |it: &onrush_protocol::response::PushOutcome| {
            it.status == onrush_protocol::response::PushStatus::Duplicate
        };
        assert!(outcomes.iter().all(is_duplicate), "ids from {start}");
    }
    with.server.terminate();

    let settled = with.settled.saturating_sub(without.settled) / MIB;
    let highest = with.highest.saturating_sub(without.highest) / MIB;
    println!("{ids} ids: {settled} MiB, {highest} MiB while they came in");
    let limit = 16 * ids.div_ceil(1_000_000) as u64;
    assert!(settled < limit, "{settled} MiB");
    // What a checkpoint and a merge work with does not depend on how many ids there are.
    assert!(highest < limit + 16, "{highest} MiB");
}
