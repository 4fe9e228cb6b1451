//! What an append through the log's seam costs on the embedded log: one group commit of many shards,
//! handed to the system and made durable; and the failover log's way of keeping the same batches.
//!
//! In: a folder on the disk that `TMPDIR` names. Out: criterion's figures per byte. The floor is
//! `journal`'s: the seam adds heads and places.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onrush::base::files::DiskFiles;
use onrush::base::place::ShardCount;
use onrush::failover::record::Spilled;
use onrush::failover::{self, Spill};
use onrush::log::local::{LocalConfig, LocalLog};
use onrush::log::{Append, Durability, Log, Proposal};
use onrush::state::draft::push::PushBatch;
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::qos::Qos;

const SHARDS: u16 = 64;
/// Bytes of a shard's entry: a batch of 100 x 100 B, about.
const ENTRY_BYTES: usize = 12 << 10;
/// Segments that are kept, so that a long run does not fill the disk.
const SEGMENTS_KEPT: u64 = 3;

struct Bench {
    log: LocalLog,
    segment_bytes: u64,
    heads: Vec<u64>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn begin() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the benchmark");
        let files = Arc::new(DiskFiles::open(folder.path()).expect("the folder opens"));
        let config = LocalConfig::new(ShardCount::new(SHARDS).expect("in range"));
        let opened = LocalLog::open(files, &config, &[], &mut |_| ());
        let (log, _) = opened.expect("an empty folder opens");
        let heads = vec![0; usize::from(SHARDS) + 1];
        Self { log, segment_bytes: config.segment_bytes, heads, _folder: folder }
    }

    fn append(&mut self, shards: u16, durability: Durability) {
        let part = Bytes::from_static(&[0x5A; ENTRY_BYTES]);
        let of_shard = |shard: u16| Proposal {
            shard,
            expected_head: self.heads.get(usize::from(shard)).copied().unwrap_or_default(),
            parts: vec![part.clone()],
            brief: None,
            relies_on: None,
            labels: Vec::new(),
        };
        let proposals: Vec<Proposal> = (0..shards).map(of_shard).collect();
        let appended = wait(self.log.append(&proposals, durability));
        assert!(matches!(appended, Ok(Append::Appended(_))), "nobody else appends: {appended:?}");
        for head in self.heads.iter_mut().take(usize::from(shards)) {
            *head += 1;
        }
        let bounds = self.log.bounds();
        if bounds.end - bounds.start > SEGMENTS_KEPT * self.segment_bytes {
            for shard in 0..=SHARDS {
                let end = self.log.end_of(shard);
                self.log.truncate_before(shard, end).expect("space is given back");
            }
        }
    }
}

/// Waits for a future on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append of 12 KiB a shard");
    for shards in [1, SHARDS] {
        for (name, durability) in
            [("handed over", Durability::Written), ("durable", Durability::Synced)]
        {
            let mut bench = Bench::begin();
            group.throughput(Throughput::Bytes(u64::from(shards) * ENTRY_BYTES as u64));
            group.bench_function(format!("{shards} shards, {name}"), |bencher| {
                bencher.iter(|| bench.append(shards, durability));
            });
        }
    }
    group.finish();
}

fn spills(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for the benchmark");
    let files = Arc::new(DiskFiles::open(folder.path()).expect("the folder opens"));
    let config = failover::Config { segment_bytes: 16 << 20, disk_bytes_max: u64::MAX };
    let mut spill = Spill::open(files, config, &mut |_| ()).expect("an empty folder opens");
    let mut builder = BatchBuilder::new();
    for _ in 0..100 {
        let record = NewRecord { payload: &[b'x'; 100], ..NewRecord::default() };
        builder.push(&record).expect("a small record fits");
    }
    let batch = builder.finish().expect("there are records");
    let bytes = batch.bytes().len();
    let spilled = Spilled {
        queue: 0,
        partition: "customer-1".parse().expect("a name"),
        qos: Qos::AtLeastOnce,
        time_ms: 0,
        doubt: None,
        push: PushBatch { batch, fingerprints: Vec::new(), sub: None },
    };
    let mut group = criterion.benchmark_group("failover log");
    for count in [1, 64] {
        let batches = vec![spilled.clone(); count];
        group.throughput(Throughput::Bytes((bytes * count) as u64));
        group.bench_function(format!("{count} batches of 100 x 100 B, durable"), |bencher| {
            bencher.iter(|| {
                spill.write(&batches).expect("the disk takes it");
                if spill.used_bytes() > 256 << 20 {
                    while spill.read_next().expect("it can be read").is_some() {}
                    spill.let_go(spill.read_position()).expect("space is given back");
                }
            });
        });
    }
    group.finish();
}

fn short_runs() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
}

criterion_group! { name = benches; config = short_runs(); targets = appends, spills }
criterion_main!(benches);
