//! Many connections at once: all that push, all that pop.
//!
//! In: connections and a plan. Out: running tasks, and what they came to once they are joined. They
//! live in a local set on one thread, so what they share needs no lock. Called by the HTTP runs.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::{Span, as_ns};
use crate::error::LoadError;
use crate::http::body::PushBody;
use crate::http::exchange::Exchange;
use crate::http::workers::{Consumer, Popping, Producer};
use crate::numbers::{Ledger, Numbers};
use crate::pace::Pace;
use crate::run::Run;
use crate::run::push::PushPlan;
use crate::tally::Tally;

/// Connects so many times; must be called within a local set.
pub(super) async fn dial(run: &Run<'_>, count: usize) -> Result<Vec<Exchange>, LoadError> {
    let mut exchanges = Vec::with_capacity(count);
    for _ in 0..count {
        exchanges.push(Exchange::connect(&run.load.addr, run.load.token.as_deref()).await?);
    }
    Ok(exchanges)
}

/// Pushes as the plan says, one producer for each connection.
pub(super) fn start_pushing(
    run: &Run<'_>,
    plan: &PushPlan,
    exchanges: Vec<Exchange>,
    tally: &Rc<RefCell<Tally>>,
) -> Vec<JoinHandle<Ledger>> {
    let span = tally.borrow().span;
    let start = |(index, exchange)| {
        let running = producer(plan, index, exchange, span).run(run.clock, span, Rc::clone(tally));
        tokio::task::spawn_local(running)
    };
    exchanges.into_iter().enumerate().map(start).collect()
}

/// Pops until everything that is expected has come, one consumer for each connection.
pub(super) fn start_popping(
    run: &Run<'_>,
    exchanges: Vec<Exchange>,
    shared: &Rc<RefCell<Popping>>,
) -> Vec<JoinHandle<()>> {
    let (queue, group, load) = (run.queue.as_str(), run.group.as_str(), run.load);
    let start = |exchange| {
        let path = Consumer::path(queue, group, load.pop_batch, load.pop_partitions);
        let consumer = Consumer { exchange, path, group: group.to_owned() };
        tokio::task::spawn_local(consumer.run(run.clock, Rc::clone(shared)))
    };
    exchanges.into_iter().map(start).collect()
}

/// What consumers share; `expected` is `None` as long as more may be pushed.
pub(super) fn popping(run: &Run<'_>, tally: Tally, expected: Option<u64>) -> Rc<RefCell<Popping>> {
    Rc::new(RefCell::new(Popping {
        tally,
        verifier: run.verifier(),
        received: 0,
        expected,
        last_ns: run.clock.now_ns(),
        idle_ns: as_ns(Duration::from_secs_f64(run.load.idle)),
    }))
}

/// Messages that the server took, each counted once.
pub(super) fn accepted(ledgers: &[Ledger]) -> u64 {
    ledgers.iter().map(|ledger| ledger.accepted).sum()
}

/// Waits for all tasks; what each returned, in order.
pub(super) async fn join<T>(workers: Vec<JoinHandle<T>>) -> Result<Vec<T>, LoadError> {
    let mut results = Vec::with_capacity(workers.len());
    for worker in workers {
        let panicked = |_| LoadError::Io { doing: "running", reason: "a task panicked".to_owned() };
        results.push(worker.await.map_err(panicked)?);
    }
    Ok(results)
}

/// Takes what tasks shared, once all of them have ended.
pub(super) fn take<T>(shared: Rc<RefCell<T>>) -> Result<T, LoadError> {
    let left = || LoadError::Io { doing: "running", reason: "a task goes on".to_owned() };
    Rc::into_inner(shared).map(RefCell::into_inner).ok_or_else(left)
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
