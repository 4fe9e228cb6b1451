//! The commit loop: gather what waits, decide, append, apply, sign, and again.
//!
//! One thread owns the state of all its shards, so nothing here is locked: rings and the inbox are
//! the only things shared with the rest of the engine. While an append waits for the disk, the next
//! commit gathers by itself. The thread's only waits are the append and the doorbell.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::base::clock::Clock;
use crate::base::place::ShardId;
use crate::buffer::Buffers;
use crate::buffer::flush::LINGER_US;
use crate::buffer::ring::Ring;
use crate::log::{Append, AppendError, Durability, Log};
use crate::sealing::Keyring;
use crate::shard::account::Ages;
use crate::shard::bodies::LogBodies;
use crate::shard::command::{Command, CommandError, Inbox, Pop, Reply};
use crate::shard::failover::{Standby, Unknown};
use crate::shard::hot::HotTail;
use crate::shard::parked::Parked;
use crate::shard::reclaim::Moving;
use crate::shard::replica::Replica;
use crate::shard::round::{self, Plan, Retention, Work};
use crate::shard::schedule::Schedule;
use crate::shard::steady::Steady;
use crate::shard::watch::Watches;
use crate::shard::{Config, checkpointer};
use crate::state::ShardState;
use crate::state::catalog::Catalog;
use crate::state::draft::Context;
use crate::state::effect::Origin;
use crate::state::kv::Kv;
use crate::telemetry::Telemetry;

/// Bytes of one commit: bounds how long one producer's burst delays another's receipt.
pub(super) const COMMIT_BYTES_MAX: u64 = 16 << 20;
/// How often an append whose answer was lost, or that lost a race, is taken up again.
const TRIES_MAX: u32 = 1000;
/// Commits that may fail in a row while the engine stops; then what waits is given up.
const STOP_TRIES_MAX: u32 = 50;

/// What a lane works with; see the fields of the engine.
pub(super) struct Lane {
    pub(super) log: Arc<dyn Log>,
    pub(super) kv: Arc<dyn Kv>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) view: Arc<ArcSwap<Catalog>>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) seals: Arc<Keyring>,
    pub(super) replica: Replica,
    pub(super) hot: HotTail,
    pub(super) parked: Parked,
    /// Since when consumers' messages are there.
    pub(super) ages: Ages,
    /// Who waits to hear of work in any queue of a kind.
    pub(super) watches: Watches,
    pub(super) config: Config,
    pub(super) schedule: Schedule,
    pub(super) checkpointer: checkpointer::Handle,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) origin: Origin,
    pub(super) rotation: usize,
    /// The shard that the next pop begins with.
    pub(super) turn: usize,
    /// What is written again so that its space can be given back.
    pub(super) moving: Moving,
    /// What retention has still to look at.
    pub(super) retention: Retention,
    /// The time by which everything is decided.
    pub(super) steady: Steady,
    /// Decided again with the next commit.
    pub(super) again: Vec<Command>,
    /// QoS 0 batches that the log did not take: their producers have their answer, so they stay.
    pub(super) held: Vec<(ShardId, Vec<Ring>)>,
    /// Where pushes go while the store is away.
    pub(super) standby: Option<Standby>,
    /// The log failed for good.
    pub(super) poisoned: bool,
    /// Commits that failed since one succeeded.
    pub(super) failed_in_a_row: u32,
    /// A checkpoint failed: there are no further ones.
    pub(super) checkpoints_failed: bool,
    /// When other engines are to be followed, in the clock's microseconds.
    pub(super) follow_at_us: u64,
    /// When they were followed last.
    pub(super) followed_at_us: u64,
    /// Somebody said that they have appended.
    pub(super) news: Arc<AtomicBool>,
    /// Whether what a crash left half done was looked for.
    pub(super) tidied: bool,
    /// A shard was taken from a checkpoint since the commit began: entries went by unseen.
    pub(super) skipped: bool,
    /// Own entries that were met by following, since the commit began.
    pub(super) seen_own: Vec<Origin>,
    pub(super) stopping: Option<Reply<()>>,
}

/// A plan that was offered to the log, and what the log said.
pub(super) struct Offered {
    pub(super) plan: Plan,
    pub(super) answer: Result<Append, AppendError>,
}

/// How an attempt to append ended.
enum Attempt {
    Done(Vec<u64>),
    /// Entries of others were applied: decide again.
    Again,
    Failed(AppendError),
}

impl Lane {
    /// Runs until a `Stop` command was carried out, or nobody is left who could send one.
    pub(super) fn run(mut self) {
        self.publish_catalog();
        loop {
            self.buffers.bell().listen();
            if self.inbox.is_abandoned() {
                return;
            }
            self.follow_if_due();
            self.wake_sleepers();
            let mut work = self.gather();
            if self.is_down() {
                self.serve_down(std::mem::take(&mut work));
            }
            let idle = self.is_down() || work.is_empty() && !self.timer_due();
            let gives_up = self.gives_up();
            if !idle && !gives_up {
                self.commit(work);
                self.expire_parked();
                self.begin_checkpoint();
                continue;
            }
            self.expire_parked();
            self.begin_checkpoint();
            if let Some(reply) = self.stopping.take() {
                self.give_up(work);
                self.shut_down();
                // Whoever asked may have stopped waiting; the lane is done either way.
                let _ = reply.send(());
                return;
            }
            self.sleep();
        }
    }

    /// Whether the engine stops and the log takes nothing more: nobody may wait for that for ever.
    fn gives_up(&self) -> bool {
        let hopeless = self.poisoned || self.failed_in_a_row > STOP_TRIES_MAX;
        self.stopping.is_some() && self.failed_in_a_row > 0 && hopeless
    }

    /// Takes everything that is due.
    fn gather(&mut self) -> Work {
        let mut work = Work { commands: std::mem::take(&mut self.again), ..Work::default() };
        work.commands.append(&mut self.inbox.take());
        self.call_those_before(&mut work.commands);
        work.chores = std::mem::take(&mut self.replica.chores);
        work.rings = std::mem::take(&mut self.held);
        let now_us = self.clock.monotonic_us();
        self.steady.note(self.clock.now_ms(), now_us);
        // What is due soon comes along: one commit instead of several.
        let horizon_us = match self.buffers.first_due_us() {
            Some(first) if first <= now_us => now_us + LINGER_US,
            _ => 0,
        };
        // What is held counts: else an outage would pile up more than one append can take.
        let held = work.rings.iter().flat_map(|(_, rings)| rings).map(Ring::bytes).sum();
        let mut room = COMMIT_BYTES_MAX.saturating_sub(held);
        self.drain_before_transactions(&mut work, &mut room);
        // Those that come by themselves are sealed where they are taken.
        self.seal_late(&mut work.rings);
        work.rings.append(&mut self.drain_due(room, horizon_us, &|_| true));
        work.reserved = self.buffers.allowances().refresh(|queue| self.replica.undone_of(queue));
        self.go_round_the_store(&mut work);
        if !self.is_down() {
            self.plan_upkeep(&mut work);
        }
        work
    }

    /// Takes the pushes that are due by then of shards that may be committed, up to about so many bytes.
    pub(super) fn drain_due(
        &mut self,
        mut room: u64,
        horizon_us: u64,
        may: &dyn Fn(ShardId) -> bool,
    ) -> Vec<(ShardId, Vec<Ring>)> {
        let mut drained = Vec::new();
        let shards = self.replica.count().get();
        for step in 0..shards {
            // Another shard is first each time, so that a full commit starves nobody.
            let shard = (self.rotation as u16).wrapping_add(step) % shards;
            let is_due = self.buffers.due_us(shard).is_some_and(|due| due <= horizon_us);
            if (is_due || self.stopping.is_some()) && room > 0 && may(shard) {
                let rings = self.buffers.drain(shard, room);
                room = room.saturating_sub(rings.iter().map(Ring::bytes).sum());
                if !rings.is_empty() {
                    drained.push((shard, rings));
                }
            }
        }
        self.rotation = self.rotation.wrapping_add(1);
        self.seal_late(&mut drained);
        drained
    }

    /// For each pop that has just come, calls one that has waited longer for the same: what this
    /// commit lets go must not pass by those who were there first.
    fn call_those_before(&mut self, commands: &mut Vec<Command>) {
        if self.parked.is_empty() {
            return;
        }
        let mut before = Vec::new();
        for command in commands.iter() {
            if let Command::Pop(pop) = command
                && pop.ticket.is_none()
                && pop.partition.is_none()
            {
                let waits = |other: &Pop| other.partition.is_none();
                before.extend(self.parked.take(&pop.queue, &pop.group, 1, waits));
            }
        }
        commands.splice(0..0, before.into_iter().map(Command::Pop));
    }

    /// Unix milliseconds; never goes back and never stands still.
    pub(super) fn now_ms(&self) -> u64 {
        self.steady.now_ms(self.clock.now_ms(), self.clock.monotonic_us())
    }

    pub(super) fn timer_due(&self) -> bool {
        self.next_timer_ms().is_some_and(|due| due <= self.now_ms())
    }

    /// When the next lease of any shard ends, unix milliseconds.
    fn next_timer_ms(&self) -> Option<u64> {
        self.replica.shards.iter().filter_map(ShardState::next_timer_ms).min()
    }

    /// When the next partition that sleeps is to wake, unix milliseconds.
    pub(super) fn next_waking_ms(&self) -> Option<u64> {
        self.replica.shards.iter().filter_map(ShardState::next_waking_ms).min()
    }

    fn commit(&mut self, mut work: Work) {
        self.take_own_commands(&mut work);
        self.seen_own.clear();
        self.skipped = false;
        match self.parts(work) {
            Ok(parts) => self.commit_side_by_side(parts),
            Err(work) => self.commit_whole(*work, None),
        }
    }

    /// Commits work, by a plan that was offered to the log already where there is one.
    pub(super) fn commit_whole(&mut self, work: Work, offered: Option<Offered>) {
        // Everybody in it has an answer, whatever became of it.
        let _ = self.try_commit(work, offered);
    }

    /// As [`Self::commit_whole`].
    ///
    /// # Errors
    /// Why some of it does not stand. Who waited for it has been told.
    fn try_commit(
        &mut self,
        mut work: Work,
        mut offered: Option<Offered>,
    ) -> Result<(), AppendError> {
        let mut looked = self.config.sole_writer;
        for _ in 0..TRIES_MAX {
            if let Some(Offered { plan, answer }) = offered.take() {
                let attempt = self.append(&plan, Some(answer));
                match self.conclude(work, plan, attempt) {
                    ControlFlow::Continue(again) => work = again,
                    ControlFlow::Break(ended) => return ended,
                }
            }
            if let Err(error) = self.settle_doubts(&mut work.replay) {
                return self.refuse_all(work, error);
            }
            let plan = self.decide(&work);
            if plan.replayed.len() < work.replay.items.len()
                || self.set_aside(&work, &plan).is_err()
            {
                self.postpone_replay(&mut work);
                continue;
            }
            self.turn = plan.turn;
            if !looked && plan.is_doubtful() {
                // A no may only be due to what others did and this engine has not seen.
                looked = true;
                match self.follow_all() {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => return self.refuse_all(work, error),
                }
            }
            let attempt = self.append(&plan, None);
            match self.conclude(work, plan, attempt) {
                ControlFlow::Continue(again) => work = again,
                ControlFlow::Break(ended) => return ended,
            }
        }
        let busy = AppendError::Unavailable("too many engines want the same shards".into());
        self.refuse_all(work, busy)
    }

    /// Ends a commit; or gives its work back, to be decided again.
    fn conclude(
        &mut self,
        work: Work,
        plan: Plan,
        attempt: Attempt,
    ) -> ControlFlow<Result<(), AppendError>, Work> {
        match attempt {
            Attempt::Done(positions) => {
                self.failed_in_a_row = 0;
                self.finish(work, plan, &positions);
                ControlFlow::Break(Ok(()))
            }
            Attempt::Again => ControlFlow::Continue(work),
            Attempt::Failed(AppendError::OutcomeUnknown) => {
                let unknown = Unknown::of(&plan);
                self.fail(work, &AppendError::OutcomeUnknown, Some(&unknown));
                ControlFlow::Break(Err(AppendError::OutcomeUnknown))
            }
            Attempt::Failed(error) => ControlFlow::Break(self.fail_or_split(work, error)),
        }
    }

    /// What does not fit as a whole may fit in parts: no request may fail for another's size.
    fn fail_or_split(&mut self, work: Work, error: AppendError) -> Result<(), AppendError> {
        let parts = match error {
            AppendError::DiskFull | AppendError::TooLarge { .. } => work.split(&error),
            _ => Err(Box::new(work)),
        };
        let (first, mut second) = match parts {
            Ok(parts) => parts,
            Err(work) => return self.refuse_all(*work, error),
        };
        let stands = self.try_commit(first, None);
        // What was to come behind something that waits still, waits behind it.
        self.divert(&mut second);
        second.reserved = self.buffers.allowances().refresh(|queue| self.replica.undone_of(queue));
        match stands {
            Err(error) if !self.held.is_empty() => {
                // Pushes that were answered are held, and nothing may overtake them.
                let error = match error {
                    AppendError::OutcomeUnknown => {
                        AppendError::Unavailable("what came before may not stand yet".into())
                    }
                    error => error,
                };
                self.refuse_all(second, error)
            }
            stands => stands.and(self.try_commit(second, None)),
        }
    }

    pub(super) fn decide(&mut self, work: &Work) -> Plan {
        self.origin.append += 1;
        let bodies = LogBodies { hot: &self.hot, log: &*self.log };
        let context = Context {
            now_ms: self.now_ms(),
            kv: &*self.kv,
            bodies: &bodies,
            catalog: self.replica.catalog.catalog(),
            dedup: self.config.dedup,
        };
        let mut plan = round::decide(&self.replica, context, self.origin, self.turn, work);
        if self.log.wants_briefs() {
            plan.add_briefs();
        }
        plan
    }

    /// Appends a plan, and does not rest until it is known what became of it. After a lost answer
    /// the very same plan is offered again: if it stands, or arrives late, the heads have moved and
    /// its entries are found there; so it can never stand twice. `answer` is what the log said when it
    /// was offered the plan before.
    fn append(&mut self, plan: &Plan, mut answer: Option<Result<Append, AppendError>>) -> Attempt {
        if plan.proposals.is_empty() {
            return self.sync_for_duplicates(plan);
        }
        let (mut lost, mut failing_since_us) = (false, None);
        for pause in 0..TRIES_MAX {
            let error = match answer.take().unwrap_or_else(|| self.offer(plan)) {
                Ok(Append::Appended(positions)) => {
                    self.telemetry.commits.add(1);
                    return Attempt::Done(positions);
                }
                Ok(Append::Conflict(shards)) => {
                    self.telemetry.conflicts.add(1);
                    match self.look_for_ours(&shards, plan.origin) {
                        // The entries were applied by following; `finish` only signs.
                        Ok(true) => return Attempt::Done(Vec::new()),
                        // Ours may be among the entries that nobody can read any more.
                        Ok(false) if lost && self.skipped => {
                            return Attempt::Failed(AppendError::OutcomeUnknown);
                        }
                        Ok(false) => return Attempt::Again,
                        Err(error) => error,
                    }
                }
                Err(AppendError::OutcomeUnknown) => {
                    lost = true;
                    AppendError::OutcomeUnknown
                }
                Err(AppendError::Poisoned(reason)) if !self.poisoned => {
                    // The sync that failed may have left the entries on disk, or not: only a
                    // restart can tell. What comes after it is surely not applied.
                    tracing::error!(
                        reason,
                        "the log failed; nothing more is accepted until a restart"
                    );
                    self.poisoned = true;
                    return Attempt::Failed(AppendError::OutcomeUnknown);
                }
                Err(error) => error,
            };
            let now_us = self.clock.monotonic_us();
            let since_us = *failing_since_us.get_or_insert(now_us);
            // Of several that failed together the first one finds out for all of them.
            let is_suspect = self
                .suspect_us()
                .map(|suspect_us| !self.is_down() && now_us < since_us + suspect_us);
            let goes_on = match (&error, is_suspect) {
                (AppendError::Unavailable(_) | AppendError::OutcomeUnknown, Some(suspect)) => {
                    suspect
                }
                _ => lost,
            };
            if !goes_on {
                let error = if lost { AppendError::OutcomeUnknown } else { error };
                return Attempt::Failed(error);
            }
            std::thread::sleep(Duration::from_millis(u64::from(pause.min(100))));
        }
        Attempt::Failed(AppendError::OutcomeUnknown)
    }

    fn offer(&self, plan: &Plan) -> Result<Append, AppendError> {
        let started = self.clock.monotonic_us();
        let appended = self.runtime.block_on(self.log.append(&plan.proposals, plan.durability));
        self.telemetry.commit_latency.record(self.clock.monotonic_us() - started, 1);
        appended
    }

    /// Applies what others appended to shards; tells whether the own plan was among it. All of its
    /// shards are followed even if one cannot be read: that one is caught up with later.
    fn look_for_ours(&mut self, shards: &[ShardId], ours: Origin) -> Result<bool, AppendError> {
        let mut heads = self.heads()?;
        heads.retain(|(shard, _)| shards.contains(shard));
        let followed = self.follow(&heads);
        if self.seen_own.contains(&ours) {
            return Ok(true);
        }
        followed.map(|()| false)
    }

    /// A receipt may say `duplicate` of a message whose own append was not synced yet.
    fn sync_for_duplicates(&self, plan: &Plan) -> Attempt {
        let bounds = self.log.bounds();
        if plan.durability == Durability::Synced && bounds.synced < bounds.end {
            return match self.runtime.block_on(self.log.sync()) {
                Ok(()) => Attempt::Done(Vec::new()),
                Err(error) => Attempt::Failed(error),
            };
        }
        Attempt::Done(Vec::new())
    }

    pub(super) fn publish_catalog(&self) {
        // First, so that nobody reads of a limit that is not counted.
        self.buffers.allowances().publish(self.replica.undone());
        let catalog = self.replica.catalog.catalog();
        self.telemetry.queues.set(catalog.len() as u64);
        self.view.store(Arc::new(catalog.clone()));
    }

    fn expire_parked(&mut self) {
        for pop in self.parked.expire(self.clock.monotonic_us()) {
            self.count_empty(&pop);
            super::finish::answer_empty(*pop, crate::shard::command::Empty::NoWork);
        }
    }

    fn shut_down(&mut self) {
        self.release_parked();
        match self.standby.as_mut().and_then(|standby| standby.contact.take()) {
            // The state is what the rows say, or older than what they are becoming.
            Some(contact) => contact.finish(),
            None => self.checkpoint_everything(),
        }
        if let Err(error) = self.runtime.block_on(self.log.sync()) {
            tracing::error!(%error, "the log could not be synced while shutting down");
        }
    }

    fn sleep(&self) {
        const LONGEST_US: u64 = 60_000_000;
        let (now_us, now_ms) = (self.clock.monotonic_us(), self.now_ms());
        let lease = self.next_timer_ms().filter(|_| !self.is_down());
        let waking = self.next_waking_ms();
        let in_us = |due_ms: u64| now_us + due_ms.saturating_sub(now_ms) * 1000;
        let times = [
            self.next_failover_us(),
            lease.map(in_us),
            waking.map(in_us),
            self.parked.next_deadline_us(),
            self.next_upkeep_us(),
            (!self.config.sole_writer && !self.is_down()).then(|| self.next_follow_us()),
        ];
        let until_us = times.into_iter().flatten().min().unwrap_or(u64::MAX);
        self.buffers.sleep(now_us, until_us.min(now_us + LONGEST_US));
    }
}

/// Answers a command with a failure.
pub(super) fn fail_command(command: Command, error: &CommandError) {
    // A receiver that is gone hung up: there is nobody to tell.
    match command {
        Command::Pop(pop) => drop(pop.reply.send(Err(error.clone()))),
        Command::Ack(ack) => drop(ack.reply.send(Err(error.clone()))),
        Command::Extend(extend) => drop(extend.reply.send(Err(error.clone()))),
        Command::Define(define) => drop(define.reply.send(Err(error.clone()))),
        Command::Delete(delete) => drop(delete.reply.send(Err(error.clone()))),
        Command::Maintain(maintain) => drop(maintain.reply.send(Err(error.clone()))),
        Command::Transact(whole) => drop(whole.reply.send(Err(error.clone()))),
        Command::Register(register) => drop(register.reply.send(Err(error.clone()))),
        Command::DefineClass(define) => drop(define.reply.send(Err(error.clone()))),
        Command::LetGo(let_go) => drop(let_go.reply.send(Err(error.clone()))),
        Command::ReadStates(read) => drop(read.reply.send(Err(error.clone()))),
        Command::Find(find) => drop(find.reply.send(Err(error.clone()))),
        Command::Tend(tend) => drop(tend.reply.send(Err(error.clone()))),
        Command::Seek(seek) => drop(seek.reply.send(Err(error.clone()))),
        Command::ForgetGroup(forget) => drop(forget.reply.send(Err(error.clone()))),
        Command::Subscribe(subscribe) => drop(subscribe.reply.send(Err(error.clone()))),
        Command::Survey(survey) => drop(survey.reply.send(Err(error.clone()))),
        Command::Watch(watch) => drop(watch),
        Command::GiveBack(_)
        | Command::Look(_)
        | Command::CheckpointDone { .. }
        | Command::Release
        | Command::Stop(_) => {}
    }
}
