//! The same runs over HTTP/1.1: JSON bodies, one request under way on each connection.
//!
//! In: a run. Out: findings, as over TCP. Everything is on one thread with tokio's runtime; its
//! timers count milliseconds, so latencies at a fixed rate are up to one too long. The floor that
//! these runs are held against is that of the binary protocol. Called by `run`.

mod body;
mod exchange;
mod workers;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::task::{JoinHandle, LocalSet};

pub(crate) use body::PAYLOAD_BYTES_MIN;
use body::PushBody;
use exchange::Exchange;
use workers::{Consumer, Popping, Producer};

use crate::clock::{Span, as_ns};
use crate::error::LoadError;
use crate::numbers::{Ledger, Numbers};
use crate::pace::Pace;
use crate::report::Findings;
use crate::run::push::PushPlan;
use crate::run::{DRAIN, PHASE_MAX, Run, runtime};
use crate::tally::{Meter, Tally};

/// Pushes, then pops everything back.
pub(crate) fn push(run: &Run<'_>) -> Result<Findings, LoadError> {
    let meter = Arc::new(Meter::default());
    let plan = run.push_plan();
    let length = run.load.warmup() + run.load.length();
    let (mut tally, ledgers) = {
        let _progress = run.progress("push", length, &meter);
        let warmup = run.load.warmup();
        fill(run, &plan, &meter, |run| Span::new(run.clock, warmup, run.load.length(), DRAIN))?
    };
    let mut integrity = None;
    if let Some(verifier) = run.verifier() {
        let meter = Arc::new(Meter::default());
        let _progress = run.progress("check", Duration::from_secs(10), &meter);
        let span = Span::new(run.clock, Duration::ZERO, PHASE_MAX, DRAIN);
        match empty(run, Tally::new(span, meter), Some(verifier), &ledgers) {
            Ok(mut popped) => {
                integrity = popped.verifier.take().map(|verifier| verifier.close(&ledgers));
                for (what, count) in &popped.tally.errors {
                    tally.error(&format!("check: {what}"), *count);
                }
            }
            // The server is gone, perhaps; what was measured until then is still told.
            Err(error) => tally.error(&format!("check: {error}"), 1),
        }
    }
    Ok(findings(tally, integrity, run.bound(true)))
}

/// Fills the queue, then measures popping and acknowledging.
pub(crate) fn pop(run: &Run<'_>) -> Result<Findings, LoadError> {
    let mut plan = run.push_plan();
    plan.messages_max = run.load.messages;
    plan.rate = None;
    let (filled, ledgers) = {
        let meter = Arc::new(Meter::default());
        let _progress = run.progress("fill", run.load.length(), &meter);
        fill(run, &plan, &meter, |run| Span::new(run.clock, Duration::ZERO, PHASE_MAX, DRAIN))?
    };
    let meter = Arc::new(Meter::default());
    let _progress = run.progress("pop", run.load.length(), &meter);
    let mut span = Span::new(run.clock, Duration::ZERO, run.load.length(), PHASE_MAX);
    let mut popped = empty(run, Tally::new(span, meter), run.verifier(), &ledgers)?;
    // A queue that was empty before the time was up is measured until then.
    span.end_ns = span.end_ns.min(popped.last_ns.max(span.warm_ns + 1));
    popped.tally.span = span;
    for (what, count) in &filled.errors {
        popped.tally.error(&format!("fill: {what}"), *count);
    }
    let integrity = popped.verifier.take().map(|verifier| verifier.close(&ledgers));
    Ok(findings(popped.tally, integrity, run.bound(false)))
}

/// Makes the run's queue.
pub(crate) fn set_up(run: &Run<'_>) -> Result<(), LoadError> {
    let body = format!("{{\"queue\":\"{}\",\"options\":{{}}}}", run.queue);
    ask_once(run, Method::POST, "/api/v1/configure".to_owned(), body)
}

/// Removes the run's queue.
pub(crate) fn tear_down(run: &Run<'_>) -> Result<(), LoadError> {
    let path = format!("/api/v1/resources/queues/{}", run.queue);
    ask_once(run, Method::DELETE, path, String::new())
}

fn ask_once(run: &Run<'_>, method: Method, path: String, body: String) -> Result<(), LoadError> {
    let local = LocalSet::new();
    local.block_on(&runtime()?, async {
        let mut exchange = Exchange::connect(&run.load.addr, run.load.token.as_deref()).await?;
        let failed = |reason| LoadError::Io { doing: "setting up the queue", reason };
        let reply = exchange.ask(method, &path, Bytes::from(body)).await.map_err(failed)?;
        reply.refusal().map_or(Ok(()), |refusal| Err(failed(refusal)))
    })
}

fn findings(
    tally: Tally,
    integrity: Option<crate::verify::Integrity>,
    bound: crate::floor::Bound,
) -> Findings {
    Findings {
        command: "",
        tally,
        end_to_end: None,
        pop_rate: None,
        integrity,
        bound: Some(bound),
        floors: Vec::new(),
    }
}

/// Pushes as the plan says, over all connections.
fn fill(
    run: &Run<'_>,
    plan: &PushPlan,
    meter: &Arc<Meter>,
    span: impl FnOnce(&Run<'_>) -> Span,
) -> Result<(Tally, Vec<Ledger>), LoadError> {
    let local = LocalSet::new();
    local.block_on(&runtime()?, async {
        let mut exchanges = Vec::new();
        for _ in 0..plan.connections {
            exchanges.push(Exchange::connect(&run.load.addr, plan.token.as_deref()).await?);
        }
        let span = span(run);
        let tally = Rc::new(RefCell::new(Tally::new(span, Arc::clone(meter))));
        let mut workers = Vec::new();
        for (index, exchange) in exchanges.into_iter().enumerate() {
            let producer = producer(plan, index, exchange, span);
            let running = producer.run(run.clock, span, Rc::clone(&tally));
            workers.push(tokio::task::spawn_local(running));
        }
        let ledgers = join(workers).await?;
        let tally = Rc::into_inner(tally).map(RefCell::into_inner);
        Ok((tally.unwrap_or_else(|| Tally::new(span, Arc::clone(meter))), ledgers))
    })
}

fn producer(plan: &PushPlan, index: usize, exchange: Exchange, span: Span) -> Producer {
    let producer = u32::from(plan.mark) << 16 | index as u32;
    let requests = |rate: f64| rate / f64::from(plan.batch);
    let pace = plan.rate.map_or(Pace::Closed, |rate| {
        Pace::open(span.begin_ns, requests(rate), index, plan.connections)
    });
    let buffer = (plan.terms.buffer_ms, plan.terms.buffer_max);
    let (queue, qos) = (plan.queue.as_str(), plan.terms.qos);
    let first = index as u64 * u64::from(plan.partitions) / plan.connections as u64;
    Producer {
        exchange,
        body: PushBody::new(queue, qos, buffer, producer, plan.batch, plan.size),
        numbers: Numbers::new(plan.partitions, plan.batch, plan.duplicates, u64::from(producer)),
        pace,
        partitions: plan.partitions,
        partition: first as u32,
        batch: plan.batch,
        messages_max: match plan.messages_max {
            u64::MAX => u64::MAX,
            messages => messages.div_ceil(plan.connections as u64),
        },
    }
}

/// Pops until everything in the ledgers has come.
fn empty(
    run: &Run<'_>,
    tally: Tally,
    verifier: Option<crate::verify::Verifier>,
    ledgers: &[Ledger],
) -> Result<Popping, LoadError> {
    let load = run.load;
    let shared = Rc::new(RefCell::new(Popping {
        tally,
        verifier,
        received: 0,
        expected: ledgers.iter().map(|ledger| ledger.accepted).sum(),
        last_ns: run.clock.now_ns(),
        idle_ns: as_ns(Duration::from_secs_f64(load.idle)),
    }));
    let local = LocalSet::new();
    local.block_on(&runtime()?, async {
        let (queue, group) = (run.queue.as_str(), run.group.as_str());
        let mut workers = Vec::new();
        for _ in 0..load.pop_connections {
            let exchange = Exchange::connect(&load.addr, load.token.as_deref()).await?;
            let path = Consumer::path(queue, group, load.pop_batch, load.pop_partitions);
            let consumer = Consumer { exchange, path, group: group.to_owned() };
            let running = consumer.run(run.clock, Rc::clone(&shared));
            workers.push(tokio::task::spawn_local(running));
        }
        join(workers).await.map(drop)
    })?;
    // All workers have ended, so nobody else holds it.
    Rc::into_inner(shared)
        .map(RefCell::into_inner)
        .ok_or_else(|| LoadError::Io { doing: "popping", reason: "a worker goes on".to_owned() })
}

async fn join<T>(workers: Vec<JoinHandle<T>>) -> Result<Vec<T>, LoadError> {
    let mut results = Vec::with_capacity(workers.len());
    for worker in workers {
        let panicked = |_| LoadError::Io { doing: "running", reason: "a task panicked".to_owned() };
        results.push(worker.await.map_err(panicked)?);
    }
    Ok(results)
}
