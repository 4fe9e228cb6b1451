//! What an answer to a pop costs once the shards have claimed its messages: batches cut to what was
//! claimed, then the frame around them.
//!
//! In: nothing. Out: criterion's figures per message. Batches are in the hot tail, as for a consumer
//! that keeps up. The frame is written as the binary door writes it; batches go into it as they are.

#[path = "rig/engine.rs"]
mod engine;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{Rig, batch, short_runs};
use onrush::base::random::SeededRandom;
use onrush::delivery::{Delivery, Handout};
use onrush::shard::command::{Held, Parcel, Popped, Source};
use onrush::state::codec::Chunk;
use onrush_protocol::response::{MessagesKind, MessagesWriter};

/// An answer's messages: `partitions` with `batches` each, of `messages`. Only the claimed ones of a
/// batch go out: all but `skipped` at its beginning and its end.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    partitions: u32,
    batches: u64,
    messages: u64,
    skipped: u64,
}

const SHAPES: &[Shape] = &[
    Shape { name: "1 batch of 100", partitions: 1, batches: 1, messages: 100, skipped: 0 },
    Shape { name: "100 of a batch of 102", partitions: 1, batches: 1, messages: 102, skipped: 1 },
    Shape { name: "100 batches of 1", partitions: 1, batches: 100, messages: 1, skipped: 0 },
    Shape { name: "100 partitions with 1", partitions: 100, batches: 1, messages: 1, skipped: 0 },
    Shape { name: "100 batches of 100", partitions: 1, batches: 100, messages: 100, skipped: 0 },
];

impl Shape {
    fn claimed(self) -> u64 {
        u64::from(self.partitions) * self.batches * (self.messages - 2 * self.skipped)
    }

    /// What the shards would have answered.
    fn popped(self, rig: &Rig) -> Popped {
        let bytes = batch(self.messages as usize, false).bytes().clone();
        let chunk = |partition: u32, at: u64| Chunk {
            partition,
            first_seq: at * self.messages,
            count: self.messages as u32,
            time_ms: 1,
            sub: None,
            batch: bytes.clone(),
        };
        let parcel = |partition| Parcel {
            queue: 0,
            partition,
            name: format!("p{partition}").parse().expect("a name"),
            ranges: vec![(self.skipped, self.batches * self.messages - self.skipped)],
            attempts: Vec::new(),
            sources: vec![Source::Hot((0..self.batches).map(|at| chunk(partition, at)).collect())],
        };
        Popped {
            queue: rig.queue.clone(),
            token: [1; 16],
            empty: None,
            until_ms: 60_000,
            to_settle: None,
            parcels: (0..self.partitions).map(parcel).collect(),
            held: Held::default(),
        }
    }
}

fn unpacked(delivery: &Delivery, popped: Popped) -> Handout {
    delivery.unpack_near(popped).expect("all of it is in memory").expect("nothing is damaged")
}

/// The frame that answers the pop.
fn framed(handout: Handout) -> usize {
    let mut writer = MessagesWriter::new(MessagesKind::Plain, &handout.token, handout.until_ms);
    for package in handout.packages {
        let mut section = writer.section(&handout.queue, package.partition, &package.name);
        for delivered in &package.batches {
            let batch = delivered.batch.bytes().clone();
            section.chunk(delivered.first_seq, delivered.time_ms, "", batch);
        }
        section.end(&[]);
    }
    writer.finish(1).iter().map(|part| part.len()).sum()
}

fn answers(criterion: &mut Criterion) {
    let rig = Rig::start();
    let random = Arc::new(SeededRandom::new(1));
    let delivery = Delivery::new(Arc::clone(&rig.engine), rig.catalogs.clone(), random);
    for shape in SHAPES {
        let handout = unpacked(&delivery, shape.popped(&rig));
        let batches = handout.packages.iter().flat_map(|package| &package.batches);
        let count: u64 = batches.map(|it| u64::from(it.batch.count())).sum();
        assert_eq!(count, shape.claimed(), "{}", shape.name);
        let mut group = criterion.benchmark_group(format!("answer with {}", shape.name));
        group.throughput(Throughput::Elements(shape.claimed()));
        group.bench_function("cut to what was claimed", |bencher| {
            let run = |popped| black_box(unpacked(&delivery, popped));
            bencher.iter_batched(|| shape.popped(&rig), run, BatchSize::SmallInput);
        });
        group.bench_function("and framed", |bencher| {
            let run = |popped| black_box(framed(unpacked(&delivery, popped)));
            bencher.iter_batched(|| shape.popped(&rig), run, BatchSize::SmallInput);
        });
        group.finish();
    }
    rig.stop();
}

criterion_group! { name = benches; config = short_runs(); targets = answers }
criterion_main!(benches);
