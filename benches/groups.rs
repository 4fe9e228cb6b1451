//! What finding work costs in a queue of many partitions: pops of ten messages in ten partitions, whether
//! the queue has ten partitions or very many, against a whole server.
//!
//! In: `PARTITIONS`, a million unless it says something else; `ONRUSH_TEST_STORE`, as for tests. Out:
//! criterion's figures of one pop, and how the medians compare. A group has read everything; before each
//! pop, ten messages come, and after it they are acknowledged: neither is in the figure. The round trip and
//! the commit are, and they are most of it: what finding alone costs is in the bench `state`.

#[path = "../tests/support/server.rs"]
#[allow(dead_code, clippy::indexing_slicing, clippy::unwrap_used, reason = "set-up of tests")]
mod server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use onrush_client::{Client, Connection, SubscriptionStart};
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::qos::Qos;
use onrush_protocol::request::{Push, PushSection, PushSections, PushTerms, Request};
use onrush_protocol::response::Response;
use server::TestServer;

/// Partitions with messages.
const BUSY: usize = 10;
const GROUP: &str = "readers";

fn partitions() -> usize {
    let asked = std::env::var("PARTITIONS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(1_000_000)
}

fn one() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload: &[b'x'; 100], ..NewRecord::default() }).expect("it fits");
    builder.finish().expect("there is a record").bytes().clone()
}

/// One message in each of some partitions.
async fn push(connection: &Connection, partitions: impl Iterator<Item = usize>) {
    let batch = one();
    let section = |number: usize| PushSection {
        queue: "wide".parse().expect("a name"),
        partition: format!("p{number}").parse().expect("a name"),
        batch: batch.clone(),
    };
    let sections: Vec<PushSection> = partitions.map(section).collect();
    let terms = PushTerms { qos: Qos::AtLeastOnce, ..PushTerms::default() };
    let sections = PushSections::collect(&sections).expect("there are some");
    let request = Request::Push(Push { terms, sections });
    let answer = connection.request_within(&request, Duration::from_secs(120)).await;
    assert!(matches!(answer, Ok(Response::Receipts(_))), "{answer:?}");
}

/// A server whose queue has so many partitions, all of them read by the group.
async fn filled(partitions: usize) -> (TestServer, Client, Connection) {
    let server = TestServer::start().await;
    let client = server.client().await;
    let connection = client.connection().await.expect("a connection");
    for start in (0..partitions).step_by(1_000) {
        push(&connection, start..partitions.min(start + 1_000)).await;
    }
    let pop = client.queue("wide").pop().group(GROUP).start(SubscriptionStart::New);
    assert!(pop.await.expect("a pop").is_empty());
    (server, client, connection)
}

/// How long `times` pops take, in all and each.
async fn pops(
    client: &Client,
    connection: &Connection,
    (step, times): (usize, u64),
    each: &mut Vec<Duration>,
) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..times {
        push(connection, (0..BUSY).map(|at| at * step)).await;
        let pop = client.queue("wide").pop().group(GROUP).batch(100).partitions(100);
        let started = Instant::now();
        let popped = pop.await.expect("a pop");
        each.push(started.elapsed());
        taken += each.last().copied().unwrap_or_default();
        assert_eq!(popped.len(), BUSY);
        client.ack(&popped).await.expect("an ack");
    }
    taken
}

fn sparse(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut group = criterion.benchmark_group("pop 10 messages of 10 partitions");
    let mut medians = Vec::new();
    for partitions in [BUSY, partitions()] {
        let mut each = Vec::new();
        let (server, client, connection) = runtime.block_on(filled(partitions));
        group.bench_function(format!("in a queue of {partitions}"), |bencher| {
            bencher.iter_custom(|times| {
                let step = partitions / BUSY;
                runtime.block_on(pops(&client, &connection, (step, times), &mut each))
            });
        });
        runtime.block_on(server.stop());
        each.sort_unstable();
        medians.extend(each.get(each.len() / 2).map(|median| (partitions, *median)));
    }
    group.finish();
    if let [(few, of_few), (many, of_many)] = medians[..] {
        let ratio = of_many.as_secs_f64() / of_few.as_secs_f64();
        eprintln!("median pop: {of_few:?} of {few}, {of_many:?} of {many}, ratio {ratio:.2}");
    }
}

fn short_runs() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .sample_size(20)
}

criterion_group! { name = benches; config = short_runs(); targets = sparse }
criterion_main!(benches);
