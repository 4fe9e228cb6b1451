//! How fast rings take pushes and give them to the lane: one producer, and several at once.
//!
//! In: nothing. Out: criterion's figures per push.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use onrush::base::place::{ShardCount, StoreKey};
use onrush::buffer::flush::FlushWish;
use onrush::buffer::ring::{Pending, Placed, RingLimits};
use onrush::buffer::{Buffers, Config};
use onrush::state::draft::push::PushBatch;
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use onrush_protocol::name::PartitionName;
use onrush_protocol::qos::Qos;

const KEY: StoreKey = StoreKey([3; 16]);
const SHARDS: u16 = 64;
const PUSHES: usize = 4_096;

fn buffers() -> Buffers {
    let ring = RingLimits { messages_max: u32::MAX, bytes_max: u64::MAX };
    Buffers::new(SHARDS, Config { ring, budget_bytes: u64::MAX })
}

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { payload: &[b'x'; 100], ..NewRecord::default() };
    builder.push(&record).expect("a small record fits");
    builder.finish().expect("there is a record")
}

/// Pushes over that many partitions, each with its shard.
fn pushes(partitions: usize, salt: usize) -> Vec<(u16, Placed)> {
    let (batch, shards) = (batch(), ShardCount::new(SHARDS).expect("in range"));
    let push = |at: usize| {
        let name = format!("p{salt}-{}", at % partitions);
        let hash = KEY.place(0, &name);
        let push = PushBatch { batch: batch.clone(), fingerprints: Vec::new(), sub: None };
        let pending = Pending { push, qos: Qos::Buffered, signer: None, places: None };
        let partition: PartitionName = name.parse().expect("a name");
        let flush = FlushWish::Later { buffer_ms: 100, buffer_max: u32::MAX };
        (shards.of_hash(hash), Placed { queue: 0, partition, hash, flush, pending })
    };
    (0..PUSHES).map(push).collect()
}

fn drain(buffers: &Buffers) {
    for shard in 0..SHARDS {
        let rings = buffers.drain(shard, u64::MAX);
        let bytes = rings.iter().map(|ring| ring.bytes()).sum();
        buffers.give_back(black_box(bytes));
    }
}

fn one_producer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push and drain");
    group.throughput(Throughput::Elements(PUSHES as u64));
    for partitions in [1, 64, PUSHES] {
        let buffers = buffers();
        group.bench_function(format!("over {partitions} partitions"), |bencher| {
            let run = |pushes: Vec<(u16, Placed)>| {
                for (shard, push) in pushes {
                    assert!(buffers.push(shard, push, 1).is_ok(), "there is room");
                }
                drain(&buffers);
            };
            bencher.iter_batched(|| pushes(partitions, 0), run, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn several_producers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push by 2 threads while one drains");
    group.throughput(Throughput::Elements(2 * PUSHES as u64));
    group.bench_function("over 64 partitions each", |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..count {
                let buffers = buffers();
                let work = [pushes(64, 1), pushes(64, 2)];
                let started = Instant::now();
                thread::scope(|scope| {
                    for pushes in work {
                        let buffers = &buffers;
                        scope.spawn(move || {
                            for (shard, push) in pushes {
                                assert!(buffers.push(shard, push, 1).is_ok(), "there is room");
                            }
                        });
                    }
                    (0..8).for_each(|_| drain(&buffers));
                });
                drain(&buffers);
                spent += started.elapsed();
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, one_producer, several_producers);
criterion_main!(benches);
