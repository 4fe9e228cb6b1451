//! What a commit costs beside the log: pushes of 100 x 100 B from admission to their receipts, through
//! rings, the lane's round, an append in memory, and the application of its entries.
//!
//! In: nothing. Out: criterion's figures per message. What deciding alone costs is in `state`; the rest
//! is gathering, hand-over between threads and signing.

#[path = "rig/engine.rs"]
mod engine;

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{Rig, batch, short_runs};
use onrush::base::post::Mailbox;
use onrush::buffer::receipt::{Delivery, Signer};
use onrush::ingest::{Config, Ingest, PushTerms};
use onrush_protocol::batch::BatchLimits;
use onrush_protocol::name::PartitionName;
use onrush_protocol::qos::Qos;

const MESSAGES: usize = 100;

/// Pushes to each of the partitions and waits for all receipts.
fn round_trip(rig: &Rig, ingest: &Ingest, names: &[PartitionName], bytes: &Bytes) {
    let mailbox = Arc::new(Mailbox::<Delivery>::default());
    let terms = PushTerms { qos: Qos::AtLeastOnce, buffer_ms: 0, buffer_max: 0, sub: None };
    for (request, name) in (0..).zip(names) {
        let signer = Signer { mailbox: Arc::clone(&mailbox), request, section: 0 };
        let (name, bytes) = (name.clone(), bytes.clone());
        let taken = ingest.try_push(&rig.queue, name, bytes, terms.clone(), Some(signer));
        assert!(matches!(taken, Ok(Ok(_))), "there is room: {taken:?}");
    }
    let (mut waiting, mut receipts) = (names.len(), Vec::new());
    while waiting > 0 {
        rig.wait(mailbox.arrived());
        mailbox.take(&mut receipts);
        assert!(receipts.iter().all(|delivery| delivery.receipt.is_ok()));
        waiting -= receipts.drain(..).len();
    }
}

fn commits(criterion: &mut Criterion) {
    let rig = Rig::start();
    let config = Config {
        limits: BatchLimits::default(),
        buffer_ms: 0,
        buffer_max: 0,
        room_timeout: std::time::Duration::from_secs(1),
    };
    let telemetry = Arc::clone(&rig.telemetry);
    let ingest = Ingest::new(Arc::clone(&rig.engine), rig.catalogs.clone(), telemetry, config);
    let bytes = batch(MESSAGES, false).bytes().clone();
    let mut group = criterion.benchmark_group("pushes of 100 x 100 B and their receipts");
    for partitions in [1, 64, 512] {
        let name = |at: usize| format!("p{at}").parse().expect("a name");
        let names: Vec<PartitionName> = (0..partitions).map(name).collect();
        group.throughput(Throughput::Elements((partitions * MESSAGES) as u64));
        group.bench_function(format!("{partitions} partitions at once"), |bencher| {
            bencher.iter(|| round_trip(&rig, &ingest, &names, &bytes));
        });
    }
    group.finish();
    rig.stop();
}

criterion_group! { name = benches; config = short_runs(); targets = commits }
criterion_main!(benches);
