//! How fast a shard decides: pushes with and without transaction ids, pops with their acks, also from very
//! many partitions, and entries made into bytes around the size from which batches are no longer copied.
//!
//! In: nothing. Out: criterion's figures, per message where they are decided one by one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use onrush::base::place::{ShardCount, ShardId, StoreKey};
use onrush::state::catalog::{Catalog, CatalogShard, QueueDefinition};
use onrush::state::codec::{self, Chunk};
use onrush::state::draft::ack::{AckItem, Verdict};
use onrush::state::draft::pop::{Claim, PopAsk, PopBudget};
use onrush::state::draft::push::PushBatch;
use onrush::state::draft::{Context, Draft};
use onrush::state::effect::{Effect, Entry, GroupIndex, GroupStart, Origin};
use onrush::state::kv::memory::MemoryKv;
use onrush::state::ledger::DedupPolicy;
use onrush::state::model::Run;
use onrush::state::{Bodies, ShardState};
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::options::QueueOptions;

const KEY: StoreKey = StoreKey([3; 16]);
const PAYLOAD_BYTES: usize = 100;
/// Commits of one measured stretch; a fresh shard comes with each.
const COMMITS: usize = 32;

/// No duplicate is ever found here, and nothing is buried: no body is asked for.
struct NoBodies;

impl Bodies for NoBodies {
    fn chunks(&self, _: ShardId, _: &Run) -> Option<Vec<Chunk>> {
        None
    }
}

struct Shard {
    state: ShardState,
    kv: MemoryKv,
    catalog: CatalogShard,
    position: u64,
}

impl Shard {
    fn new() -> Self {
        let shards = ShardCount::new(1).expect("one is in range");
        let mut catalog = CatalogShard::default();
        let queue = QueueDefinition {
            id: 0,
            name: "orders".into(),
            namespace: "".into(),
            task: "".into(),
            created_ms: 0,
            options: QueueOptions::default(),
            sealed: false,
            ttl_asked: false,
        };
        let group =
            Effect::DefineGroup { queue: 0, name: "g".into(), start: GroupStart::Beginning };
        let effects = vec![Effect::DefineQueue(Box::new(queue)), group];
        catalog.apply(&Entry { time_ms: 1, origin: Origin::default(), effects }, 0, 0);
        let state = ShardState::new(0, shards, KEY);
        Self { state, kv: MemoryKv::new(), catalog, position: 0 }
    }

    fn catalog(&self) -> &Catalog {
        self.catalog.catalog()
    }

    /// Decides one commit and applies it.
    fn commit(&mut self, decide: impl FnOnce(&mut Draft<'_>)) {
        let context = Context {
            now_ms: 1,
            kv: &self.kv,
            bodies: &NoBodies,
            catalog: self.catalog(),
            dedup: DedupPolicy::default(),
        };
        let mut draft = Draft::new(&self.state, context);
        decide(&mut draft);
        let Some(entry) = draft.finish(Origin::default()) else { return };
        let len = entry.effects.iter().map(codec::encoded_len).sum::<usize>() + codec::ENTRY_HEADER;
        self.state.apply(&entry, self.position, len as u64);
        self.position += len as u64 + 24;
    }
}

fn batch(records: usize, first_id: Option<u64>) -> PushBatch {
    let payload = [b'x'; PAYLOAD_BYTES];
    let (mut builder, mut fingerprints) = (BatchBuilder::new(), Vec::new());
    for index in 0..records {
        let id = first_id.map(|first| format!("order-{}", first + index as u64));
        let transaction_id = id.as_deref();
        let record = NewRecord { transaction_id, payload: &payload, ..NewRecord::default() };
        builder.push(&record).expect("a small record fits");
        fingerprints.extend(transaction_id.map(|id| KEY.fingerprint(id)));
    }
    PushBatch { batch: builder.finish().expect("there are records"), fingerprints, sub: None }
}

/// Commits of `batches` batches of `records` each, over 16 partitions.
fn pushes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide and apply pushes");
    for (name, batches, records, with_ids) in [
        ("64 batches of 1", 64, 1, false),
        ("64 batches of 1 with ids", 64, 1, true),
        ("4 batches of 1000", 4, 1_000, false),
        ("4 batches of 1000 with ids", 4, 1_000, true),
    ] {
        let ids = |at: usize| with_ids.then_some((at * records) as u64);
        let pushes: Vec<PushBatch> =
            (0..COMMITS * batches).map(|at| batch(records, ids(at))).collect();
        group.throughput(Throughput::Elements((COMMITS * batches * records) as u64));
        group.bench_function(name, |bencher| {
            let run = |shard: &mut Shard| {
                for commit in pushes.chunks(batches) {
                    shard.commit(|draft| push(draft, commit));
                }
            };
            bencher.iter_batched_ref(Shard::new, run, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn push(draft: &mut Draft<'_>, commit: &[PushBatch]) {
    for (at, push) in commit.iter().enumerate() {
        let name = format!("p{}", at % 16);
        let placed = draft.place(0, &name, KEY.place(0, &name)).expect("the queue is there");
        black_box(draft.push(placed, push).expect("nothing fails in memory"));
    }
}

/// What groups cost a shard where a producer pushes: the same pushes into a queue of 0, 1 and 10 groups,
/// which lag, or which have read everything before each commit. Their reading is not in the figure; what a
/// producer has left beside ten groups that read is measured by `onrush-load mixed --groups 10 --pairs 5`.
fn fan_out(criterion: &mut Criterion) {
    const BATCHES: usize = 64;
    let pushes: Vec<PushBatch> = (0..BATCHES).map(|_| batch(10, None)).collect();
    let mut group = criterion.benchmark_group("decide and apply pushes of 64 batches of 10");
    group.throughput(Throughput::Elements((BATCHES * 10) as u64));
    for (groups, reads) in [(0, false), (1, false), (10, false), (1, true), (10, true)] {
        let what = if reads { "that keep up" } else { "that lag" };
        group.bench_function(format!("with {groups} groups {what}"), |bencher| {
            bencher.iter_custom(|times| {
                let (mut shard, mut taken) = (Shard::new(), Duration::ZERO);
                for index in 0..groups {
                    shard.commit(|draft| register(draft, index));
                }
                for round in 0..times {
                    if round % 1_000 == 999 {
                        // Or the log of it would outgrow memory.
                        shard = Shard::new();
                        for index in 0..groups {
                            shard.commit(|draft| register(draft, index));
                        }
                    }
                    let started = Instant::now();
                    shard.commit(|draft| push(draft, &pushes));
                    taken += started.elapsed();
                    for index in (0..groups).filter(|_| reads) {
                        shard.commit(|draft| read_all(draft, index));
                    }
                }
                taken
            });
        });
    }
    group.finish();
}

fn register(draft: &mut Draft<'_>, index: GroupIndex) {
    let name = format!("g{index}");
    draft.register(0, &name, GroupStart::Beginning).expect("nothing is looked up");
}

fn read_all(draft: &mut Draft<'_>, index: GroupIndex) {
    let mut budget = PopBudget { messages: u32::MAX, bytes: u64::MAX, partitions: u32::MAX };
    let (partition, token, name) = (None, [1; 16], format!("g{index}"));
    let (lease_ms, auto_ack) = (0, true);
    let ask = PopAsk { queue: 0, partition, group: &name, token, lease_ms, auto_ack };
    let mut claims = Vec::new();
    draft.pop(&ask, index, &mut budget, &mut claims).expect("a pop");
    black_box(claims);
}

/// Pops of one message each with their acks, from 1000 partitions.
fn consuming(criterion: &mut Criterion) {
    const PARTITIONS: usize = 1_000;
    let one = batch(1, None);
    let filled = || {
        let mut shard = Shard::new();
        shard.commit(|draft| {
            for partition in 0..PARTITIONS {
                let name = format!("p{partition}");
                let placed = draft.place(0, &name, KEY.place(0, &name)).expect("a partition");
                draft.push(placed, &one).expect("a push");
            }
        });
        shard
    };
    let mut group = criterion.benchmark_group("pop and ack");
    group.throughput(Throughput::Elements(PARTITIONS as u64));
    group.bench_function("one message of each of 1000 partitions", |bencher| {
        let run = |shard: &mut Shard| {
            for _ in 0..PARTITIONS / 50 {
                let mut claims = Vec::new();
                shard.commit(|draft| {
                    let mut budget = PopBudget { messages: 50, bytes: 1 << 20, partitions: 50 };
                    let (partition, group, token) = (None, "g", [1; 16]);
                    let (lease_ms, auto_ack) = (0, false);
                    let ask = PopAsk { queue: 0, partition, group, token, lease_ms, auto_ack };
                    draft.pop(&ask, 0, &mut budget, &mut claims).expect("a pop");
                });
                shard.commit(|draft| {
                    for claim in &claims {
                        let (verdict, error) = (Verdict::Completed, "".into());
                        let item = AckItem { first: 0, last: 0, verdict, error };
                        black_box(draft.ack(claim.partition, "g", Some([1; 16]), &[item]));
                    }
                });
            }
        };
        bencher.iter_batched_ref(filled, run, BatchSize::LargeInput);
    });
    group.finish();
}

/// Pops of ten messages in ten partitions, of a queue that has no others or a million of them, all read:
/// what finding them costs, without a round trip, a commit's sync or anything else.
fn sparse(criterion: &mut Criterion) {
    const BUSY: usize = 10;
    let mut group = criterion.benchmark_group("pop 10 messages of 10 partitions");
    for partitions in [BUSY, 1_000_000] {
        let mut shard = wide(partitions);
        let one = batch(1, None);
        group.bench_function(format!("in a queue of {partitions}"), |bencher| {
            bencher.iter_custom(|times| {
                let mut taken = Duration::ZERO;
                for _ in 0..times {
                    shard.commit(|draft| {
                        for at in 0..BUSY {
                            push_to(draft, at * (partitions / BUSY), &one);
                        }
                    });
                    let (mut claims, started) = (Vec::new(), Instant::now());
                    shard.commit(|draft| claims = lease_ten(draft));
                    taken += started.elapsed();
                    assert_eq!(claims.len(), BUSY);
                    shard.commit(|draft| {
                        for claim in &claims {
                            let (first, end) = *claim.ranges.first().expect("a message");
                            let (verdict, error) = (Verdict::Completed, "".into());
                            let item = AckItem { first, last: end - 1, verdict, error };
                            let acked = draft.ack(claim.partition, "g0", Some([1; 16]), &[item]);
                            assert!(acked.iter().all(Result::is_ok), "{acked:?}");
                        }
                    });
                }
                taken
            });
        });
    }
    group.finish();
}

/// A shard whose queue has so many partitions, all of them read by a group.
fn wide(partitions: usize) -> Shard {
    const PER_COMMIT: usize = 10_000;
    let (mut shard, one) = (Shard::new(), batch(1, None));
    shard.commit(|draft| register(draft, 0));
    for start in (0..partitions).step_by(PER_COMMIT) {
        shard.commit(|draft| {
            for at in start..partitions.min(start + PER_COMMIT) {
                push_to(draft, at, &one);
            }
        });
        shard.commit(|draft| read_all(draft, 0));
    }
    shard
}

fn push_to(draft: &mut Draft<'_>, at: usize, one: &PushBatch) {
    let name = format!("p{at}");
    let placed = draft.place(0, &name, KEY.place(0, &name)).expect("the queue is there");
    black_box(draft.push(placed, one).expect("nothing fails in memory"));
}

fn lease_ten(draft: &mut Draft<'_>) -> Vec<Claim> {
    let mut budget = PopBudget { messages: 100, bytes: 1 << 20, partitions: 100 };
    let (partition, group, token) = (None, "g0", [1; 16]);
    let (lease_ms, auto_ack) = (0, false);
    let ask = PopAsk { queue: 0, partition, group, token, lease_ms, auto_ack };
    let mut claims = Vec::new();
    draft.pop(&ask, 0, &mut budget, &mut claims).expect("a pop");
    claims
}

/// Entries of 256 batches whose size is around what is copied, made into a rope and walked once as
/// the log's checksum does.
fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode 256 batches");
    for bytes in [150, 512, 1_024, 1_025, 2_048, 16_384] {
        let batch = Bytes::from(vec![0x5A; bytes]);
        let append = |at: usize| Effect::Append {
            partition: at as u32 % 16,
            first_seq: at as u64,
            count: 1,
            fingerprints: Vec::new(),
            sub: None,
            batch: batch.clone(),
        };
        let effects = (0..256).map(append).collect();
        let entry = Entry { time_ms: 1, origin: Origin::default(), effects };
        group.throughput(Throughput::Bytes(256 * bytes as u64));
        let parts = codec::encode(&entry).len();
        group.bench_function(format!("of {bytes} B ({parts} parts)"), |bencher| {
            bencher.iter(|| {
                let mut hasher = crc32fast::Hasher::new();
                let rope = codec::encode(black_box(&entry));
                rope.iter().for_each(|part| hasher.update(part));
                hasher.finalize()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pushes, fan_out, consuming, sparse, encoding);
criterion_main!(benches);
