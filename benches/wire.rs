//! What the HTTP door costs a push: its JSON body read and packed into record batches.
//!
//! In: nothing. Out: criterion's figures per message. The floor is the same body read into a tree of
//! JSON values, which is what a server does that looks at payloads; ours are checked and kept as they
//! came. The binary protocol has no such step: what a frame costs is in `protocol` and `ingest`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onrush::wire::http::fuzz_push;

fn body(messages: usize, partitions: usize) -> String {
    let mut out = String::from("{\"items\":[");
    for at in 0..messages {
        let comma = if at == 0 { "" } else { "," };
        let partition = at % partitions;
        write!(
            out,
            r#"{comma}{{"queue":"orders","partition":"customer-{partition}","transactionId":"order-{at}","payload":{{"customer":{partition},"amount":{at},"note":"{:060}"}}}}"#,
            at
        )
        .expect("a string takes everything");
    }
    out.push_str("]}");
    out
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push body");
    for (messages, partitions) in [(1, 1), (100, 1), (100, 100), (1_000, 10)] {
        let body = body(messages, partitions);
        group.throughput(Throughput::Elements(messages as u64));
        let what = format!("{messages} messages to {partitions} partitions");
        // Both dialects, one after the other: half of it is what one push costs.
        group.bench_function(format!("{what}, read and packed twice"), |bencher| {
            bencher.iter(|| fuzz_push(black_box(body.as_bytes())));
        });
        group.bench_function(format!("floor: {what}, a tree of values"), |bencher| {
            bencher.iter(|| {
                serde_json::from_slice::<serde_json::Value>(black_box(body.as_bytes()))
                    .expect("valid JSON")
            });
        });
    }
    group.finish();
}

fn short_runs() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
}

criterion_group! { name = benches; config = short_runs(); targets = bodies }
criterion_main!(benches);
