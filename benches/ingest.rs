//! What admission costs: pushes of 100 x 100 B from bytes into rings, without a socket before and a
//! commit behind.
//!
//! In: nothing. Out: criterion's figures per message. The floor is one look at every byte, a CRC-32,
//! which admission cannot do without. Pushes are of QoS 0 and wait for an hour, so that the lane leaves
//! the rings alone; those of other QoS walk the same way up to there.

#[path = "rig/engine.rs"]
mod engine;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{Rig, SHARDS, batch, short_runs};
use onrush::buffer::ring::Ring;
use onrush::ingest::{Config, Ingest, PushTerms};
use onrush_protocol::batch::BatchLimits;
use onrush_protocol::name::PartitionName;
use onrush_protocol::qos::Qos;

const MESSAGES: usize = 100;
/// Pushes of one measured stretch; rings are emptied before each.
const PUSHES: usize = 256;

fn ingest(rig: &Rig) -> Ingest {
    let config = Config {
        limits: BatchLimits::default(),
        buffer_ms: 3_600_000,
        buffer_max: u32::MAX,
        room_timeout: Duration::from_secs(1),
    };
    let telemetry = Arc::clone(&rig.telemetry);
    Ingest::new(Arc::clone(&rig.engine), rig.catalogs.clone(), telemetry, config)
}

/// Takes everything out of the rings, as the lane would; how many messages that were.
fn drain(rig: &Rig) -> u64 {
    let buffers = rig.engine.buffers();
    let rings = (0..SHARDS).flat_map(|shard| buffers.drain(shard, u64::MAX));
    let add = |(bytes, messages), ring: Ring| {
        (bytes + ring.bytes(), messages + u64::from(ring.messages()))
    };
    let (bytes, messages) = rings.fold((0, 0), add);
    buffers.give_back(bytes);
    messages
}

fn pushes(criterion: &mut Criterion) {
    let rig = Rig::start();
    let ingest = ingest(&rig);
    let terms = PushTerms { qos: Qos::Buffered, buffer_ms: 0, buffer_max: 0, sub: None };
    let mut group = criterion.benchmark_group("push of 100 x 100 B into rings");
    group.throughput(Throughput::Elements((PUSHES * MESSAGES) as u64));
    let plain = batch(MESSAGES, false).bytes().clone();
    group.bench_function("floor: crc32", |bencher| {
        bencher.iter(|| (0..PUSHES).fold(0, |sum, _| sum ^ crc32fast::hash(black_box(&plain))));
    });
    for (partitions, ids) in [(1, false), (100, false), (PUSHES, false), (100, true)] {
        let bytes: Bytes = batch(MESSAGES, ids).bytes().clone();
        let name = |at: usize| format!("p{}", at % partitions).parse().expect("a name");
        let names: Vec<PartitionName> = (0..PUSHES).map(name).collect();
        let what = if ids { "with ids, " } else { "" };
        let mut has_run = false;
        group.bench_function(format!("{what}over {partitions} partitions"), |bencher| {
            has_run = true;
            let ready = || {
                drain(&rig);
                names.clone()
            };
            let run = |names: Vec<PartitionName>| {
                for name in names {
                    let taken =
                        ingest.try_push(&rig.queue, name, bytes.clone(), terms.clone(), None);
                    assert!(matches!(taken, Ok(Ok(_))), "there is room: {taken:?}");
                }
            };
            bencher.iter_batched(ready, run, BatchSize::PerIteration);
        });
        // Nobody took anything out meanwhile, so it was admission that was measured.
        let left = if has_run { PUSHES * MESSAGES } else { 0 };
        assert_eq!(drain(&rig), left as u64, "the lane was here");
    }
    group.finish();
    rig.stop();
}

criterion_group! { name = benches; config = short_runs(); targets = pushes }
criterion_main!(benches);
