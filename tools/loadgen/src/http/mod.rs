//! The same runs over HTTP/1.1: JSON bodies, one request under way on each connection.
//!
//! In: a run. Out: findings, as over TCP. Everything is on one thread with tokio's runtime; its
//! timers count milliseconds, so latencies at a fixed rate are up to one too long. The floor that
//! these runs are held against is that of the binary protocol. Called by `run`.

mod body;
mod crew;
mod exchange;
mod workers;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::task::LocalSet;

pub(crate) use body::PAYLOAD_BYTES_MIN;
use exchange::Exchange;
use workers::Popping;

use crate::clock::Span;
use crate::error::LoadError;
use crate::numbers::Ledger;
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
    if !run.load.no_verify {
        let meter = Arc::new(Meter::default());
        let _progress = run.progress("check", Duration::from_secs(10), &meter);
        let span = Span::new(run.clock, Duration::ZERO, PHASE_MAX, DRAIN);
        match empty(run, Tally::new(span, meter), &ledgers) {
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
    let mut popped = empty(run, Tally::new(span, meter), &ledgers)?;
    // A queue that was empty before the time was up is measured until then.
    span.end_ns = span.end_ns.min(popped.last_ns.max(span.warm_ns + 1));
    popped.tally.span = span;
    for (what, count) in &filled.errors {
        popped.tally.error(&format!("fill: {what}"), *count);
    }
    let integrity = popped.verifier.take().map(|verifier| verifier.close(&ledgers));
    Ok(findings(popped.tally, integrity, run.bound(false)))
}

/// Producers and consumers at once, on one thread.
pub(crate) fn mixed(run: &Run<'_>) -> Result<Findings, LoadError> {
    let (plan, load) = (run.push_plan(), run.load);
    let (meter, popped) = (Arc::new(Meter::default()), Arc::new(Meter::default()));
    let (mut tally, ledgers, mut consumed) = LocalSet::new().block_on(&runtime()?, async {
        let producers = crew::dial(run, plan.connections).await?;
        let consumers = crew::dial(run, load.pop_connections).await?;
        let _progress = run.progress("mixed", load.warmup() + load.length(), &meter);
        let span = Span::new(run.clock, load.warmup(), load.length(), DRAIN);
        let shared = crew::popping(run, Tally::new(span, popped), None);
        let popping = crew::start_popping(run, consumers, &shared);
        let tally = Rc::new(RefCell::new(Tally::new(span, Arc::clone(&meter))));
        let pushing = crew::start_pushing(run, &plan, producers, &tally);
        let ledgers = crew::join(pushing).await?;
        // Consumers go on until all of it has come out.
        shared.borrow_mut().expected = Some(crew::accepted(&ledgers));
        crew::join(popping).await?;
        Ok::<_, LoadError>((crew::take(tally)?, ledgers, crew::take(shared)?))
    })?;
    for (what, count) in &consumed.tally.errors {
        tally.error(what, *count);
    }
    let integrity = consumed.verifier.take().map(|verifier| verifier.close(&ledgers));
    let end_to_end = integrity.is_some().then(|| consumed.tally.end_to_end.clone());
    let pop_rate = Some(consumed.tally.rate());
    Ok(Findings { end_to_end, pop_rate, ..findings(tally, integrity, run.bound(true)) })
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
    LocalSet::new().block_on(&runtime()?, async {
        let exchanges = crew::dial(run, plan.connections).await?;
        let tally = Rc::new(RefCell::new(Tally::new(span(run), Arc::clone(meter))));
        let ledgers = crew::join(crew::start_pushing(run, plan, exchanges, &tally)).await?;
        Ok((crew::take(tally)?, ledgers))
    })
}

/// Pops until everything in the ledgers has come.
fn empty(run: &Run<'_>, tally: Tally, ledgers: &[Ledger]) -> Result<Popping, LoadError> {
    LocalSet::new().block_on(&runtime()?, async {
        let exchanges = crew::dial(run, run.load.pop_connections).await?;
        let shared = crew::popping(run, tally, Some(crew::accepted(ledgers)));
        crew::join(crew::start_popping(run, exchanges, &shared)).await?;
        crew::take(shared)
    })
}
