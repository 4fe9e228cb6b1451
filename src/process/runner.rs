//! The work list: which instances are evaluated, and by whom.
//!
//! An instance has work when its cursor is behind its tail; the shards know that, hand instances out
//! in turn, and fence them with leases. So there is no list here that a crash could lose: each class
//! has one consumer that takes instances as fast as they can be worked off, and each instance one
//! task, step by step. Cascades need no stack: what a step sends is work of its target.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::name::{PartitionName, QueueName};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::base::place::QueueId;
use crate::delivery::parcel::Package;
use crate::delivery::{Handout, PopError, PopOrder};
use crate::process::Inner;
use crate::process::commit::{Settled, StepError, group};
use crate::process::definition::Mode;
use crate::process::evaluate::{Done, Evaluated, Job};
use crate::process::faults::{Place, cross};
use crate::process::incoming::Incoming;
use crate::process::instance::{Fetch, Instance};
use crate::process::keys::Address;
use crate::process::step::{Builder, Step};
use crate::shard::command::{Command, LetGo};
use crate::shard::transaction::Committed;
use crate::state::draft::pop::PopBudget;
use crate::state::draft::push::Pushed;
use crate::state::effect::{GroupStart, LeaseToken, Sequence};
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

/// Instances that are being evaluated, and what they need.
pub(super) struct Lot {
    token: LeaseToken,
    until_ms: u64,
}

/// An instance in manual mode that is to be evaluated up to a slot.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) queue: QueueId,
    pub(super) class: QueueName,
    pub(super) key: PartitionName,
    pub(super) slot: Sequence,
}

/// Runs until `stop` says so: consumers for all classes there are, and those that come.
pub(super) async fn run(inner: Arc<Inner>, is_alone: bool, mut stop: watch::Receiver<bool>) {
    if is_alone {
        // Whoever held instances was an earlier life of this very server.
        let (reply, answer) = oneshot::channel();
        inner.engine.submit(Command::LetGo(LetGo { group: group(), reply }));
        let _ = answer.await;
    }
    let mut consumers: HashMap<QueueId, tokio::task::AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(crate::process::sweep::run(Arc::clone(&inner), stop.clone()));
    let errands = inner.errands_to_run.lock().take();
    tasks.spawn(run_errands(Arc::clone(&inner), errands));
    loop {
        let news = inner.defined.notified();
        tokio::pin!(news);
        news.as_mut().enable();
        consumers.retain(|_, consumer| !consumer.is_finished());
        for (queue, name) in inner.automatic() {
            let consume = || tasks.spawn(consume(Arc::clone(&inner), queue, name));
            consumers.entry(queue).or_insert_with(consume);
        }
        tokio::select! {
            () = news => {}
            () = sleep(LOOK) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    tasks.shutdown().await;
    inner.drain().await;
}

/// Evaluates instances in manual mode as they are asked to.
async fn run_errands(inner: Arc<Inner>, errands: Option<mpsc::UnboundedReceiver<Errand>>) {
    let Some(mut errands) = errands else { return };
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            errand = errands.recv() => match errand {
                Some(errand) => drop(running.spawn(Arc::clone(&inner).run_manually(errand))),
                None => return,
            },
            Some(_) = running.join_next() => {}
        }
    }
}

/// The consumer of a class, for as long as it is evaluated by itself.
async fn consume(inner: Arc<Inner>, queue: QueueId, name: QueueName) {
    while inner.is_automatic(queue) {
        let Ok(permit) = Arc::clone(&inner.instances).acquire_owned().await else { return };
        match inner.pop(&name, None, MESSAGES, WAIT_MS).await {
            Ok(handout) => inner.begin(queue, handout, Some(permit)),
            Err(error) => {
                tracing::debug!(class = %name, %error, "no instances now");
                drop(permit);
                sleep(LOOK).await;
            }
        }
    }
}

impl Inner {
    /// Counts what was evaluated and stands.
    fn count(&self, done: &[Done]) {
        let telemetry = self.engine.telemetry();
        for it in done {
            telemetry.fuel_used.add(it.record.fuel);
            telemetry.cascade_depth.raise(u64::from(it.record.depth));
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
    pub(super) fn begin(
        self: &Arc<Self>,
        queue: QueueId,
        handout: Handout,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let Handout { token, until_ms, packages, .. } = handout;
        let permit = Arc::new(permit);
        for package in packages {
            let (inner, permit) = (Arc::clone(self), Arc::clone(&permit));
            let busy = self.busy.clone();
            tokio::spawn(async move {
                inner.work_off(queue, package, Lot { token, until_ms }).await;
                drop((permit, busy));
            });
        }
    }

    /// Evaluates instances one after the other.
    pub(super) async fn work_off_all(self: &Arc<Self>, queue: QueueId, handout: Handout) {
        let Handout { token, until_ms, packages, .. } = handout;
        for package in packages {
            self.work_off(queue, package, Lot { token, until_ms }).await;
        }
    }

    /// Evaluates what was taken of an instance, step by step. What is left when the lease is lost, or
    /// the instance stops, comes again.
    pub(super) async fn work_off(self: &Arc<Self>, queue: QueueId, package: Package, mut lot: Lot) {
        let Package { partition, name, batches, .. } = package;
        let (Ok(_), Some(job)) = (self.ensure_desk().await, self.job(queue, partition, name))
        else {
            return;
        };
        let job = Arc::new(job);
        let mut incoming: Vec<Incoming> =
            batches.iter().flat_map(|batch| Incoming::of_batch(partition, batch)).collect();
        let Some(first) = incoming.first().map(|message| message.address.seq) else { return };
        let mut instance = match self.cache.take(partition, first) {
            Some(instance) => instance,
            None => match Instance::load(&self.engine, partition, first).await {
                Ok(instance) => instance,
                Err(_) => return,
            },
        };
        while !incoming.is_empty() {
            if self.stops.lock().remove(&partition) {
                let next = incoming.first().map_or(first, |message| message.address.seq);
                match Instance::load(&self.engine, partition, next).await {
                    Ok(fresh) => instance = fresh,
                    Err(_) => return,
                }
            }
            if instance.stopped.is_some() {
                self.hold(partition, &lot).await;
                return;
            }
            self.keep_lease(&mut lot).await;
            let stepped = self.step(&job, instance, incoming, &lot).await;
            let Some((next, rest)) = stepped else { return };
            (instance, incoming) = (next, rest);
        }
        self.cache.put(partition, instance);
    }

    /// One step of an instance: evaluated, and committed. `None` when it is not ours any more.
    async fn step(
        self: &Arc<Self>,
        job: &Arc<Job>,
        mut instance: Instance,
        mut incoming: Vec<Incoming>,
        lot: &Lot,
    ) -> Option<(Instance, Vec<Incoming>)> {
        let (mut known, mut cancelled) = (HashMap::new(), HashSet::new());
        let mut evaluated = None;
        loop {
            let mut done = match evaluated.take() {
                Some(done) => done,
                None => {
                    let evaluation =
                        self.evaluate(job, instance, incoming, &cancelled, lot).await?;
                    (instance, incoming) = (evaluation.0, evaluation.1);
                    evaluation.2
                }
            };
            let Some(last) = done.done.last().and_then(|it| incoming.get(it.at)) else {
                // The store cannot be read: a moment later, perhaps.
                sleep(LOOK).await;
                self.cache.forget(job.partition);
                return None;
            };
            let first = incoming.first().map_or(0, |it| it.address.seq);
            let last = last.address.seq;
            let settled = Settled { partition: job.partition, token: lot.token, first, last };
            let step = {
                let catalog = self.engine.catalog_now();
                let desk = self.desk()?;
                let builder = Builder::new(job, &catalog, desk, &known);
                builder.build(&incoming, &mut done, instance.version)
            };
            match self.commit(Some(settled), &step).await {
                Ok(committed) => {
                    cross(Place::Committed);
                    self.count(&done.done);
                    self.run_manual_targets(&step, &committed);
                    incoming.drain(..done.done.len());
                    instance.version = done.version;
                    instance.stopped = done.stopped;
                    instance.keep(done.dirty, last + 1);
                    self.slots
                        .fetch_add(done.done.len() as u64, std::sync::atomic::Ordering::Relaxed);
                    step.roots.iter().for_each(|root| self.board.tell(*root));
                    if step.has_waiting {
                        self.waiting.notify_waiters();
                    }
                    return Some((instance, incoming));
                }
                Err(StepError::Gone) => {
                    step.roots.iter().for_each(|root| self.board.tell(*root));
                    self.cache.forget(job.partition);
                    return None;
                }
                Err(StepError::Again) => evaluated = Some(done),
                Err(StepError::Tally(index, tally)) => {
                    if let Some(root) = step.tallied.get(&index) {
                        evaluated = Some(done).filter(|_| !tally.cancelled);
                        learn(*root, tally, &mut known, &mut cancelled);
                    }
                }
            }
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

    /// Evaluates on a thread of its own, as many at a time as there are cores.
    async fn evaluate(
        &self,
        job: &Arc<Job>,
        mut instance: Instance,
        incoming: Vec<Incoming>,
        cancelled: &HashSet<Address>,
        lot: &Lot,
    ) -> Option<(Instance, Vec<Incoming>, Evaluated)> {
        let _turn = self.evaluators.acquire().await.ok()?;
        cross(Place::BeforeEvaluation);
        let (job, cancelled) = (Arc::clone(job), cancelled.clone());
        let evaluating = tokio::task::spawn_blocking(move || {
            let evaluated = job.evaluate(&mut instance, &incoming, &cancelled);
            (instance, incoming, evaluated)
        });
        tokio::pin!(evaluating);
        let third = Duration::from_millis(self.config.lease_ms / 3);
        let evaluated = loop {
            tokio::select! {
                evaluated = &mut evaluating => break evaluated.ok(),
                // However long the code takes, nobody else is to begin it meanwhile.
                () = sleep(third) => drop(self.delivery.extend(lot.token, self.config.lease_ms).await),
            }
        };
        cross(Place::AfterEvaluation);
        evaluated
    }

    fn job(
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
            fetch: Fetch { engine: Arc::clone(&self.engine), handle: Handle::current() },
        })
    }

    /// Lets the lease end later where it is half over.
    async fn keep_lease(&self, lot: &mut Lot) {
        let now_ms = self.engine.clock().now_ms();
        if lot.until_ms < now_ms + self.config.lease_ms / 2
            && let Ok(Some(until_ms)) = self.delivery.extend(lot.token, self.config.lease_ms).await
        {
            lot.until_ms = until_ms;
        }
    }

    /// Keeps an instance that is stopped to itself until it is resumed: it would only be handed out
    /// again and again. Holds no place of the work list.
    async fn hold(&self, partition: crate::base::place::PartitionNumber, lot: &Lot) {
        let third = Duration::from_millis(self.config.lease_ms / 3);
        loop {
            let resumed = self.resumed.notified();
            tokio::pin!(resumed);
            resumed.as_mut().enable();
            tokio::select! {
                () = resumed => {}
                () = sleep(third) => {}
            }
            match Instance::load(&self.engine, partition, 0).await {
                Ok(instance) if instance.stopped.is_some() => {}
                _ => break,
            }
            if !matches!(self.delivery.extend(lot.token, self.config.lease_ms).await, Ok(Some(_))) {
                return;
            }
        }
        let back = crate::shard::command::GiveBack { token: lot.token, partition, from: 0 };
        self.engine.submit(Command::GiveBack(back));
    }

    /// Classes whose messages are evaluated as they come.
    fn automatic(&self) -> Vec<(QueueId, QueueName)> {
        let catalog = self.engine.catalog_now();
        let classes = catalog.classes().map(|(queue, _)| queue);
        let queues = classes.filter_map(|queue| catalog.get(queue));
        let queues = queues.map(|queue| (queue.id, queue.name.parse::<QueueName>()));
        let named: Vec<_> = queues.filter_map(|(queue, name)| Some((queue, name.ok()?))).collect();
        drop(catalog);
        named.into_iter().filter(|(queue, _)| self.is_automatic(*queue)).collect()
    }

    fn is_automatic(&self, queue: QueueId) -> bool {
        let catalog = self.engine.catalog_now();
        let newest = catalog.class(queue).and_then(|class| class.newest());
        let name = catalog.get(queue).map_or("", |queue| &queue.name);
        let code = newest.and_then(|newest| self.modules.get(queue, name, newest).ok());
        code.is_some_and(|code| code.definition.mode == Mode::Auto)
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
