//! The work list: which instances are evaluated, and by whom.
//!
//! An instance has work when its cursor is behind its tail; the shards know that, hand instances out
//! in turn, and fence them with leases. So there is no list here that a crash could lose: each class
//! has one consumer that takes instances as fast as they can be worked off, and each instance one
//! task, step by step. Cascades need no stack: what a step sends is work of its target.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onrush_protocol::name::{PartitionName, QueueName};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::base::place::QueueId;
use crate::delivery::parcel::Package;
use crate::delivery::{Handout, PopError, PopOrder};
use crate::process::commit::{PAUSE_MS, PAUSE_MS_MAX, Settled, StepError, group};
use crate::process::definition::Mode;
use crate::process::errands::{self, Errand};
use crate::process::evaluate::{Done, Evaluated, Job};
use crate::process::faults::{Place, cross};
use crate::process::hand_over::Handed;
use crate::process::incoming::Incoming;
use crate::process::instance::{Fetch, Instance, total_change};
use crate::process::keys::Address;
use crate::process::lot::{Left, Lot};
use crate::process::places::Seat;
use crate::process::record::{Fault, SlotRecord};
use crate::process::step::{Builder, Step};
use crate::process::{Inner, ProcessError};
use crate::shard::command::{Command, LetGo};
use crate::shard::transaction::Committed;
use crate::state::draft::pop::PopBudget;
use crate::state::draft::push::Pushed;
use crate::state::effect::GroupStart;
use crate::state::tally::Tally;

/// How long a consumer waits for work before it asks again, milliseconds.
const WAIT_MS: u64 = 20_000;
/// Instances that one pop takes.
const PARTITIONS: u32 = 64;
/// Messages that one pop takes.
const MESSAGES: u32 = 2_048;
/// Bytes of them.
const BYTES: u64 = 2 << 20;
/// How often classes of other engines are looked for, and how long a failed pop pauses.
const LOOK: Duration = Duration::from_millis(250);

/// Targets that take nothing of a step, and why.
type Closed = HashMap<(QueueId, PartitionName), Fault>;

/// What a step came to.
#[expect(clippy::large_enum_variant, reason = "one at a time, and moved on at once")]
enum Stepped {
    /// It stands; and what comes after it.
    On(Instance, Vec<Incoming>, Handed),
    /// Nothing of it stands, and there is no next one.
    Ended(Left),
}

/// Runs until `stop` says so: consumers for all classes there are, and those that come.
pub(super) async fn run(inner: Arc<Inner>, is_alone: bool, mut stop: watch::Receiver<bool>) {
    inner.is_alone.store(is_alone, Ordering::Relaxed);
    if is_alone {
        // Whoever held instances was an earlier life of this very server.
        let (reply, answer) = oneshot::channel();
        inner.engine.submit(Command::LetGo(LetGo { group: group(), reply }));
        let _ = answer.await;
    }
    let mut consumers: HashMap<QueueId, tokio::task::AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(crate::process::sweep::run(Arc::clone(&inner), stop.clone()));
    tasks.spawn(crate::process::effects::run(Arc::clone(&inner), stop.clone()));
    let errands = inner.errands_to_run.lock().take();
    tasks.spawn(errands::run(Arc::clone(&inner), errands));
    tasks.spawn(errands::recall(Arc::clone(&inner), is_alone));
    loop {
        let news = inner.defined.notified();
        tokio::pin!(news);
        news.as_mut().enable();
        consumers.retain(|_, consumer| !consumer.is_finished());
        for (queue, name) in inner.classes_of(Mode::Auto) {
            let consume = || tasks.spawn(consume(Arc::clone(&inner), queue, name));
            consumers.entry(queue).or_insert_with(consume);
        }
        tokio::select! {
            () = news => {}
            () = sleep(LOOK) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    inner.stopping.store(true, Ordering::SeqCst);
    tasks.shutdown().await;
    inner.resumed.notify_waiters();
    inner.drain().await;
}

/// The consumer of a class, for as long as it is evaluated by itself. It has a place of the work list
/// only while there is work: any number of classes may wait for theirs.
async fn consume(inner: Arc<Inner>, queue: QueueId, name: QueueName) {
    while inner.is_in_mode(queue, Mode::Auto) {
        match inner.pop(&name, None, MESSAGES, WAIT_MS).await {
            Ok(handout) if handout.packages.is_empty() => {}
            Ok(handout) => {
                let lot = Lot::new(handout.token, handout.until_ms, None);
                let mut idle = Idle { inner: &inner, handout: Some(handout) };
                let place = inner.keeping(&lot, inner.places.take(queue)).await;
                let Some((place, handout)) = place.zip(idle.handout.take()) else { return };
                inner.begin(queue, handout, Some(place));
            }
            Err(error) => {
                tracing::debug!(class = %name, %error, "no instances now");
                sleep(LOOK).await;
            }
        }
    }
}

/// Instances that wait for a place; given back where they never get one.
struct Idle<'a> {
    inner: &'a Inner,
    handout: Option<Handout>,
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        let Some(handout) = &self.handout else { return };
        let lot = Lot::new(handout.token, handout.until_ms, None);
        handout.packages.iter().for_each(|package| self.inner.give_back(package.partition, &lot));
    }
}

impl Inner {
    /// Counts what was evaluated and stands.
    pub(super) fn count(&self, done: &[Done]) {
        let telemetry = self.engine.telemetry();
        let counts = &telemetry.processes;
        counts.slots.add(done.len() as u64);
        for SlotRecord { fuel, depth, error, outbox, .. } in done.iter().map(|it| &it.record) {
            telemetry.fuel_used.add(*fuel);
            telemetry.cascade_depth.raise(u64::from(*depth));
            error.iter().for_each(|error| counts.failed.add(&error.code));
            let refused = outbox.iter().filter_map(|entry| entry.error.as_ref());
            refused.for_each(|error| counts.refused.add(&error.code));
        }
        // One for all of them: they were committed together.
        if let Some(record) = done.first().map(|it| &it.record) {
            let delay_ms = record.evaluated_ms.saturating_sub(record.pushed_ms);
            counts.delay.record(delay_ms.saturating_mul(1_000), done.len() as u64);
        }
    }

    /// Takes instances of a class.
    pub(super) async fn pop(
        &self,
        name: &QueueName,
        key: Option<PartitionName>,
        messages: u32,
        wait_ms: u64,
    ) -> Result<Handout, PopError> {
        let budget = PopBudget { messages, bytes: BYTES, partitions: PARTITIONS };
        let order = PopOrder {
            queue: name.clone(),
            partition: key,
            group: group(),
            start: GroupStart::Beginning,
            budget,
            wait_ms,
            lease_ms: self.config.lease_ms,
            auto_ack: false,
        };
        self.delivery.pop_own(order).await
    }

    /// Begins to evaluate instances, each on its own.
    pub(super) fn begin(self: &Arc<Self>, queue: QueueId, handout: Handout, place: Option<Seat>) {
        let Handout { token, until_ms, packages, .. } = handout;
        let lot = Lot::new(token, until_ms, place);
        for package in packages {
            let (inner, mut lot, busy) = (Arc::clone(self), lot.clone(), self.busy.clone());
            tokio::spawn(async move {
                let partition = package.partition;
                let working = &inner.engine.telemetry().processes.working;
                working.add(1);
                let left = inner.work_off(queue, package, &mut lot).await;
                working.sub(1);
                lot.leave_place();
                drop(busy);
                inner.leave(partition, left, &lot).await;
            });
        }
    }

    /// Evaluates instances one after the other, and keeps none.
    pub(super) async fn work_off_all(self: &Arc<Self>, queue: QueueId, handout: Handout) {
        let Handout { token, until_ms, packages, .. } = handout;
        let mut lot = Lot::new(token, until_ms, None);
        for package in packages {
            let partition = package.partition;
            let left = self.work_off(queue, package, &mut lot).await;
            // What waits in one that is stopped is evaluated when somebody pushes to it again.
            let left = if left == Left::Stopped { Left::Work } else { left };
            self.leave(partition, left, &lot).await;
        }
    }

    /// Evaluates what was taken of an instance, step by step. What is left comes again.
    async fn work_off(self: &Arc<Self>, queue: QueueId, package: Package, lot: &mut Lot) -> Left {
        let Package { partition, name, batches, .. } = package;
        let (Ok(_), Some(job)) = (self.ensure_desk().await, self.job(queue, partition, name))
        else {
            return Left::Work;
        };
        let job = Arc::new(job);
        let mut incoming: Vec<Incoming> =
            batches.iter().flat_map(|batch| Incoming::of_batch(partition, batch)).collect();
        let Some(first) = incoming.first().map(|message| message.address.seq) else {
            return Left::Work;
        };
        let known = self.cache.take(partition, first);
        let is_alone = self.is_alone.load(Ordering::Relaxed);
        let met = match known {
            Some(instance) if is_alone => Ok(instance),
            // Others may have stopped it, or let slots of it be passed over.
            Some(instance) => instance.ask_again(&self.engine, partition).await,
            None => Instance::load(&self.engine, partition, first).await,
        };
        let Ok(mut instance) = met else { return Left::Work };
        loop {
            if self.stops.lock().remove(&partition) {
                let next = incoming.first().map_or(first, |message| message.address.seq);
                match Instance::load(&self.engine, partition, next).await {
                    Ok(fresh) => instance = fresh,
                    Err(_) => return Left::Work,
                }
            }
            if instance.stopped.is_some() {
                return Left::Stopped;
            }
            if self.is_stopping() {
                self.cache.forget(partition);
                return Left::Work;
            }
            if !self.keep_lease(lot).await {
                return Left::Over;
            }
            match self.step(&job, instance, incoming, lot).await {
                Stepped::On(next, rest, mut handed) => {
                    (instance, incoming) = (next, rest);
                    if let Some((more, next)) = handed.own.take() {
                        (incoming, *lot) = (more, next);
                    }
                    if incoming.is_empty() {
                        // First, so that whoever sends something back finds it.
                        self.cache.put(partition, instance);
                        self.begin_others(handed);
                        return Left::Over;
                    }
                    self.begin_others(handed);
                }
                Stepped::Ended(left) => return left,
            }
        }
    }

    /// One step of an instance: evaluated, and committed.
    async fn step(
        self: &Arc<Self>,
        job: &Arc<Job>,
        mut instance: Instance,
        mut incoming: Vec<Incoming>,
        lot: &mut Lot,
    ) -> Stepped {
        let (mut known, mut closed) = (HashMap::new(), HashMap::new());
        let (mut cancelled, mut pause_ms) = (HashSet::new(), PAUSE_MS);
        let mut evaluated = None;
        loop {
            let mut done = match evaluated.take() {
                Some(done) => done,
                None => match self.evaluate(job, instance, incoming, &cancelled, lot).await {
                    Some(evaluation) => {
                        (instance, incoming) = (evaluation.0, evaluation.1);
                        evaluation.2
                    }
                    None => return Stepped::Ended(Left::Work),
                },
            };
            let Some(last) = done.done.last().and_then(|it| incoming.get(it.at)) else {
                // The store cannot be read: a moment later, perhaps.
                self.cache.forget(job.partition);
                return Stepped::Ended(Left::Rest);
            };
            let last = last.address.seq;
            let first = incoming.first().map_or(last, |it| it.address.seq);
            let settled = Settled { partition: job.partition, token: lot.token, first, last };
            let built = self.build(job, &instance, &incoming, &mut done, (&known, &closed));
            let Some(mut step) = built else { return Stepped::Ended(Left::Work) };
            let is_last = done.done.len() == incoming.len() && done.stopped.is_none();
            match self.commit_and_take(job, lot, settled, &mut step, is_last).await {
                Ok((committed, handed)) => {
                    cross(Place::Committed);
                    self.tell(&step, &committed);
                    incoming.drain(..done.done.len());
                    self.count_slots(job.partition, &done, first..last + 1);
                    done.leave(&mut instance, last + 1);
                    return Stepped::On(instance, incoming, handed);
                }
                Err(StepError::Gone) => {
                    step.roots.iter().for_each(|root| self.board.tell(*root));
                    self.cache.forget(job.partition);
                    return Stepped::Ended(Left::Rest);
                }
                Err(StepError::Again) => evaluated = Some(done),
                Err(StepError::Closed(place, error)) => {
                    closed.insert(place, why_closed(&error));
                    evaluated = Some(done);
                }
                Err(StepError::Full(_) | StepError::Later(_)) => {
                    // Whoever consumes that queue makes room; others may work meanwhile.
                    lot.leave_place();
                    if pause_ms > PAUSE_MS_MAX {
                        self.cache.forget(job.partition);
                        return Stepped::Ended(Left::Rest);
                    }
                    self.keeping(lot, sleep(Duration::from_millis(pause_ms))).await;
                    pause_ms *= 2;
                    evaluated = Some(done);
                }
                Err(StepError::Tally(index, tally)) => {
                    let Some(root) = step.tallied.get(&index) else { continue };
                    evaluated = Some(done).filter(|_| !tally.cancelled);
                    learn(*root, tally, &mut known, &mut cancelled);
                }
            }
        }
    }

    /// The step of what was evaluated, by what is known of cascades and of targets that are closed.
    /// `None` where nobody has made the desk yet.
    fn build(
        &self,
        job: &Job,
        instance: &Instance,
        incoming: &[Incoming],
        done: &mut Evaluated,
        (known, closed): (&HashMap<Address, Tally>, &Closed),
    ) -> Option<Step> {
        let catalog = self.engine.catalog_now();
        let builder = Builder::new(job, &catalog, self.desk()?, known, closed);
        let mut step = builder.build(incoming, done, instance.version);
        if done.grown != 0 {
            let total = instance.total.saturating_add_signed(done.grown);
            step.states.extend(total_change(job.partition, total));
        }
        Some(step)
    }

    /// A step stands: whoever waits for it hears of it, and what it sent is evaluated.
    pub(super) fn tell(&self, step: &Step, committed: &Committed) {
        let doubled = committed.appends.iter().filter_map(|stored| match &stored.pushed {
            Pushed::Stored { .. } => None,
            Pushed::Mixed(all) => Some(all.iter().filter(|it| it.duplicate).count() as u64),
        });
        self.engine.telemetry().processes.duplicates.add(doubled.sum());
        self.run_manual_targets(step, committed);
        step.roots.iter().for_each(|root| self.board.tell(*root));
        if step.has_waiting {
            self.waiting.notify_waiters();
        }
    }

    /// Lets targets in manual mode evaluate what a cascade sent them.
    fn run_manual_targets(&self, step: &Step, committed: &Committed) {
        for (outgoing, stored) in step.outgoing.iter().zip(&committed.appends) {
            let (true, Ok(class)) = (outgoing.runs, outgoing.queue.name.parse()) else { continue };
            let last = match &stored.pushed {
                Pushed::Stored { first_seq, count, .. } => first_seq + u64::from(*count) - 1,
                Pushed::Mixed(all) => all.iter().map(|it| it.message.seq).max().unwrap_or(0),
            };
            let (queue, key) = (outgoing.queue.id, outgoing.partition.clone());
            // Whoever ran errands has stopped: then the server stops.
            let _ = self.errands.send(Errand { queue, class, key, slot: last });
        }
    }

    /// Evaluates on a thread of its own, when it is the class's turn. `None` when the lease is over.
    async fn evaluate(
        &self,
        job: &Arc<Job>,
        mut instance: Instance,
        incoming: Vec<Incoming>,
        cancelled: &HashSet<Address>,
        lot: &Lot,
    ) -> Option<(Instance, Vec<Incoming>, Evaluated)> {
        let waited_us = &job.fetch.waited_us;
        let mut turn = self.keeping(lot, self.turns.take(job.queue, waited_us)).await?;
        if !self.keep_lease(lot).await {
            // Whoever has it by now evaluates it.
            return None;
        }
        cross(Place::BeforeEvaluation);
        let (job, cancelled) = (Arc::clone(job), cancelled.clone());
        let evaluating = tokio::task::spawn_blocking(move || {
            let evaluated = job.evaluate(&mut instance, &incoming, &cancelled);
            (instance, incoming, evaluated)
        });
        // However long the code takes, nobody else is to begin it meanwhile.
        let began_us = self.clock.monotonic_us();
        let evaluated = self.keeping(lot, turn.run(evaluating)).await.ok();
        let took_us = self.clock.monotonic_us().saturating_sub(began_us);
        self.engine.telemetry().processes.evaluation.record(took_us, 1);
        cross(Place::AfterEvaluation);
        evaluated
    }

    /// What it takes to evaluate slots of an instance.
    pub(super) fn job(
        &self,
        queue: QueueId,
        partition: crate::base::place::PartitionNumber,
        key: PartitionName,
    ) -> Option<Job> {
        let catalog = self.engine.catalog_now();
        let (definition, versions) = (catalog.get(queue)?, catalog.class(queue)?);
        Some(Job {
            queue,
            class: definition.name.clone(),
            versions: Arc::clone(versions),
            partition,
            key,
            modules: Arc::clone(&self.modules),
            clock: Arc::clone(&self.clock),
            fetch: Fetch::new(&self.engine, Handle::current()),
        })
    }

    /// Classes in a mode.
    pub(super) fn classes_of(&self, mode: Mode) -> Vec<(QueueId, QueueName)> {
        let catalog = self.engine.catalog_now();
        let classes = catalog.classes().map(|(queue, _)| queue);
        let queues = classes.filter_map(|queue| catalog.get(queue));
        let queues = queues.map(|queue| (queue.id, queue.name.parse::<QueueName>()));
        let named: Vec<_> = queues.filter_map(|(queue, name)| Some((queue, name.ok()?))).collect();
        drop(catalog);
        named.into_iter().filter(|(queue, _)| self.is_in_mode(*queue, mode)).collect()
    }

    fn is_in_mode(&self, queue: QueueId, mode: Mode) -> bool {
        let catalog = self.engine.catalog_now();
        let newest = catalog.class(queue).and_then(|class| class.newest());
        let name = catalog.get(queue).map_or("", |queue| &queue.name);
        let code = newest.and_then(|newest| self.modules.get(queue, name, newest).ok());
        code.is_some_and(|code| code.definition.mode == mode)
    }

    /// Whether what is under way is to end soon.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Waits until nothing is being evaluated any more.
    async fn drain(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let idle = async {
            while Arc::strong_count(&self.busy) > 1 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // What is left comes again: its lease ends.
        let _ = tokio::time::timeout(PATIENCE, idle).await;
    }
}

/// Why a target is closed, as an entry for it says.
fn why_closed(error: &ProcessError) -> Fault {
    let code = match error {
        ProcessError::Backlog(_) => "backlog_full",
        _ => "target_closed",
    };
    Fault::new(code, error.to_string())
}

/// What a refusal says of a cascade.
fn learn(
    root: Address,
    tally: Tally,
    known: &mut HashMap<Address, Tally>,
    cancelled: &mut HashSet<Address>,
) {
    if tally.cancelled {
        cancelled.insert(root);
    }
    known.insert(root, tally);
}
