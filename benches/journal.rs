//! How fast the log takes records: appends into the page cache, appends made durable, checksums.
//!
//! In: a folder on the disk that `TMPDIR` names. Out: criterion's figures. An append's figure is
//! mostly the copy into the page cache, a durable one's mostly the disk's `fdatasync`.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onrush::base::files::DiskFiles;
use onrush::journal::{Config, Journal};

const MIB: usize = 1 << 20;

/// A log in a folder of its own, which keeps at most a few segments.
struct Log {
    journal: Journal,
    _folder: tempfile::TempDir,
}

impl Log {
    fn begin() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the benchmark");
        let files = Arc::new(DiskFiles::open(folder.path()).expect("the folder opens"));
        let opened = Journal::open(files, &Config::default(), None, &mut |_| ());
        let (journal, _) = opened.expect("an empty folder opens");
        Self { journal, _folder: folder }
    }

    fn append(&self, rope: &[Bytes]) -> u64 {
        let end = self.journal.append(1, rope).expect("there is space").end;
        // So that a long run does not fill the disk.
        if self.journal.segments().len() > 3 {
            self.journal.drop_before(self.journal.synced()).expect("dropping works");
        }
        end
    }

    fn append_durably(&self, rope: &[Bytes]) {
        let end = self.append(rope);
        self.journal.sync_to(end).expect("the disk syncs");
    }
}

fn rope(bytes: usize, parts: usize) -> Vec<Bytes> {
    let part = Bytes::from(vec![0x5A; bytes / parts]);
    vec![part; parts]
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for (name, bytes, parts) in
        [("1 MiB in 256 parts", MIB, 256), ("64 KiB in 16 parts", MIB / 16, 16), ("100 B", 100, 1)]
    {
        let log = Log::begin();
        let rope = rope(bytes, parts);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| bencher.iter(|| log.append(black_box(&rope))));
    }
    group.finish();
}

fn durable_appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append and sync");
    group.measurement_time(Duration::from_secs(5)).sample_size(20);
    for (name, bytes, parts) in [("1 MiB", MIB, 256), ("4 KiB", 4_096, 1)] {
        let log = Log::begin();
        let rope = rope(bytes, parts);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| log.append_durably(black_box(&rope)));
        });
    }
    let log = Log::begin();
    let rope = rope(4_096, 1);
    group.throughput(Throughput::Bytes(4_096));
    group.bench_function("4 KiB by 16 threads at once", |bencher| {
        bencher.iter_custom(|count| {
            let started = Instant::now();
            thread::scope(|scope| {
                for thread in 0..16 {
                    let (log, rope) = (&log, &rope);
                    let share = count / 16 + u64::from(thread < count % 16);
                    scope.spawn(move || (0..share).for_each(|_| log.append_durably(rope)));
                }
            });
            started.elapsed()
        });
    });
    group.finish();
}

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32");
    let bytes = vec![0x5A; MIB];
    group.throughput(Throughput::Bytes(MIB as u64));
    group.bench_function("1 MiB", |bencher| bencher.iter(|| crc32fast::hash(black_box(&bytes))));
    group.finish();
}

criterion_group!(benches, appends, durable_appends, checksums);
criterion_main!(benches);
