//! What the wire's formats cost: a frame taken off a buffer, a batch checked, cut and built.
//!
//! The floor of all of it is one look at every byte: a CRC-32 of the same batch.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onrush_protocol::batch::{BatchBuilder, BatchLimits, NewRecord, RecordBatch};
use onrush_protocol::name::{PartitionName, QueueName};
use onrush_protocol::request::PushTerms;
use onrush_protocol::{frame, limits};

const RECORDS: u64 = 100;

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for _ in 0..RECORDS {
        let record = NewRecord { payload: &[7; 100], ..NewRecord::default() };
        builder.push(&record).expect("a hundred bytes are within every limit");
    }
    builder.finish().expect("the builder holds records")
}

fn push_frame(batch: &Bytes) -> Bytes {
    let queue: QueueName = "orders".parse().expect("a legal name");
    let mut out = BytesMut::new();
    PushTerms::default().encode_single(1, &queue, &PartitionName::default(), batch.len(), &mut out);
    out.extend_from_slice(batch);
    out.freeze()
}

fn formats(criterion: &mut Criterion) {
    let (batch, limits) = (batch(), BatchLimits::default());
    let (bytes, whole) = (batch.bytes().clone(), push_frame(batch.bytes()));
    let mut group = criterion.benchmark_group("batch of 100 x 100 B");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("floor: crc32", |bencher| {
        bencher.iter(|| crc32fast::hash(black_box(&bytes)));
    });
    group.bench_function("frame decode", |bencher| {
        bencher.iter(|| {
            let mut buffer = BytesMut::from(&whole[..]);
            black_box(frame::decode(&mut buffer, limits::FRAME_BYTES_MAX).is_ok())
        });
    });
    group.bench_function("parse and check", |bencher| {
        bencher.iter(|| RecordBatch::parse(black_box(bytes.clone()), &limits).is_ok());
    });
    group.bench_function("slice of half", |bencher| {
        bencher.iter(|| black_box(batch.slice(25, 75)).is_some());
    });
    group.bench_function("build", |bencher| bencher.iter(|| black_box(self::batch()).count()));
    group.finish();
}

criterion_group!(benches, formats);
criterion_main!(benches);
