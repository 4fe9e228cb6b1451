//! What encryption costs: sealing and opening a batch, by size of message and by batch.
//!
//! The floor is the cipher alone over the same payloads, one call each, in place; the rest is building
//! the batch again, its checksum, and what stands beside each payload. A batch of one tells what a
//! message costs that comes alone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onrush::base::random::SystemRandom;
use onrush::sealing::keys::KeySet;
use onrush::sealing::{Keyring, Place};
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};

const PLACE: Place<'_> = Place { queue: 7, partition: "customer-123" };
/// Messages of a batch, and bytes of each.
const SHAPES: [(usize, usize); 4] = [(1, 100), (100, 100), (100, 1_024), (100, 16_384)];

fn batch(messages: usize, bytes: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let payload = vec![b'x'; bytes];
    for _ in 0..messages {
        let record = NewRecord { payload: &payload, ..NewRecord::default() };
        builder.push(&record).expect("within every limit");
    }
    builder.finish().expect("there are records")
}

fn floor(key: &LessSafeKey, payloads: &mut [Vec<u8>]) {
    for payload in payloads {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from([0; 32]), payload);
        let _ = black_box(tag.expect("it does not fail"));
    }
}

fn sealing(criterion: &mut Criterion) {
    let keys = KeySet::single(&"7e".repeat(32)).expect("64 digits");
    let ring = Keyring::new(keys, Arc::new(SystemRandom));
    let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key of 32 bytes");
    let key = LessSafeKey::new(key);
    for (messages, bytes) in SHAPES {
        let clear = batch(messages, bytes);
        let sealed = ring.seal(PLACE, &clear).expect("there is a key");
        let mut payloads = vec![vec![b'x'; bytes]; messages];
        let mut group = criterion.benchmark_group(format!("batch of {messages} x {bytes} B"));
        group.throughput(Throughput::Elements(messages as u64));
        group.warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2));
        group.bench_function("floor: AES-256-GCM", |bencher| {
            bencher.iter(|| floor(&key, &mut payloads));
        });
        group.bench_function("floor: copy and CRC-32", |bencher| {
            bencher.iter(|| {
                let copy = BytesMut::from(&black_box(clear.bytes())[..]);
                crc32fast::hash(&copy)
            });
        });
        group.bench_function("seal", |bencher| {
            bencher.iter(|| ring.seal(PLACE, black_box(&clear)).is_ok());
        });
        group.bench_function("open", |bencher| {
            bencher.iter(|| ring.open(PLACE, black_box(&sealed)).is_ok());
        });
        group.finish();
    }
}

criterion_group!(benches, sealing);
criterion_main!(benches);
