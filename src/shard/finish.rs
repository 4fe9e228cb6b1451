//! After the append: apply the entries, keep the batches hot, sign receipts, answer commands, and
//! hand what became visible to consumers that wait.

use std::collections::BTreeSet;

use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use onrush_protocol::qos::Qos;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::shard::account::PushLedger;
use crate::shard::command::{Command, CommandError, Empty, Held, Parcel, Pop, Popped, Source};
use crate::shard::lane::{Lane, fail_command};
use crate::shard::look::View;
use crate::shard::round::{self, Asleep, Outcome, Plan, Work};
use crate::state::ShardState;
use crate::state::care::Care;
use crate::state::codec::{self, Chunk, ENTRY_HEADER};
use crate::state::draft::gates::LetGo;
use crate::state::draft::pop::{Claim, PopStep};
use crate::state::effect::{Effect, Entry};
use crate::state::sleep::Sleeper;

/// Partitions of one shard that wake between two commits: the rest of them follows at once.
const WAKINGS_MAX: usize = 4096;

impl Lane {
    /// Applies a plan that the log took and answers everybody. `positions` is empty where the
    /// entries were applied already, by following.
    pub(super) fn finish(&mut self, work: Work, plan: Plan, positions: &[u64]) {
        let catalog = self.replica.count().catalog();
        for (((shard, entry), proposal), position) in
            plan.entries.iter().zip(&plan.proposals).zip(positions)
        {
            let len = proposal.len() as u64;
            self.telemetry.log_bytes.add(len);
            self.count_effects(entry);
            self.keep_hot(*shard, entry, *position);
            self.replica.apply(*shard, entry, *position, len);
        }
        if plan.entries.iter().any(|(shard, _)| *shard == catalog) {
            self.publish_catalog();
        }
        self.replica.chores.extend(plan.unfinished);
        if !work.retention.is_empty() {
            self.go_on_with_retention(plan.retention_left);
        }
        self.telemetry.lapsed.add(plan.lapsed as u64);
        self.count_let_go(&plan.let_go);
        self.put_to_sleep(&plan.asleep);
        self.end_replay(&work.replay, &plan.replayed);
        let mut pushes = work.rings.iter().flat_map(|(_, rings)| rings).flat_map(|it| &it.pending);
        if pushes.any(|push| push.places.is_some()) {
            // Before they give their places back: whoever is not counted yet must not be missed.
            self.buffers.allowances().refresh(|queue| self.replica.undone_of(queue));
        }
        self.sign(work.rings, plan.receipts);
        for (command, outcome) in work.commands.into_iter().zip(plan.outcomes) {
            self.answer(command, outcome);
        }
        self.wake_parked(plan.entries.iter().map(|(shard, entry)| (*shard, entry)));
    }

    fn count_let_go(&self, let_go: &LetGo) {
        if *let_go != LetGo::default() {
            self.telemetry.removals.add(1);
        }
        self.telemetry.expired.add(let_go.expired);
        self.telemetry.retained.add(let_go.retained);
        self.telemetry.completed_gone.add(let_go.completed);
        self.telemetry.undelivered.add(let_go.undelivered);
    }

    /// Partitions that were met before their time leave the ready lists until it comes.
    fn put_to_sleep(&mut self, asleep: &[Asleep]) {
        let now_ms = self.now_ms();
        for Asleep { shard, head, sleepers } in asleep {
            let Some(state) = self.replica.shards.get_mut(usize::from(*shard)) else { continue };
            // What somebody else did meanwhile may have opened the gate: it is looked at again.
            let may_wait = state.head() == *head;
            for sleeper in sleepers {
                let until_ms = if may_wait { sleeper.until_ms } else { now_ms };
                state.put_to_sleep(Sleeper { until_ms, ..*sleeper });
            }
        }
    }

    /// Wakes partitions whose time has come, and those who wait for them.
    pub(super) fn wake_sleepers(&mut self) {
        let now_ms = self.now_ms();
        let mut queues = BTreeSet::new();
        for shard in &mut self.replica.shards {
            shard.wake_due(now_ms, WAKINGS_MAX, &mut queues);
        }
        if !self.parked.is_empty() || !self.watches.is_empty() {
            queues.into_iter().for_each(|queue| self.wake_queue(queue));
        }
    }

    fn keep_hot(&mut self, shard: ShardId, entry: &Entry, position: u64) {
        let mut at = position + ENTRY_HEADER as u64;
        for effect in &entry.effects {
            if let Effect::Append { partition, first_seq, count, sub, batch, .. } = effect {
                let chunk = Chunk {
                    partition: *partition,
                    first_seq: *first_seq,
                    count: *count,
                    time_ms: entry.time_ms,
                    sub: sub.clone(),
                    batch: batch.clone(),
                };
                self.hot.add(shard, at, chunk);
            }
            at += codec::encoded_len(effect) as u64;
        }
    }

    fn sign(
        &mut self,
        rings: Vec<(ShardId, Vec<crate::buffer::ring::Ring>)>,
        receipts: Vec<crate::buffer::receipt::Receipt>,
    ) {
        let mut returned = 0;
        let (mut new, mut duplicates, mut ledger) = (0, 0, PushLedger::default());
        let rings = rings.into_iter().flat_map(|(_, rings)| rings);
        let pending = rings.flat_map(|it| it.pending.into_iter().map(move |one| (it.queue, one)));
        for ((queue, pending), receipt) in pending.zip(receipts) {
            returned += pending.bytes();
            let what = (pending.qos, pending.push.batch.count());
            ledger.add(&self.telemetry, queue, what, &receipt);
            let (fresh, again) = round::tally(&receipt);
            new += fresh;
            duplicates += again;
            if pending.qos == Qos::Buffered && receipt.is_ok() {
                self.telemetry.buffered_flushed.add(u64::from(pending.push.batch.count()));
            }
            if receipt.is_err() {
                self.telemetry.push_failed.add(u64::from(pending.push.batch.count()));
            }
            if let Some(signer) = pending.signer {
                signer.sign(receipt);
            }
        }
        ledger.close(&self.telemetry);
        self.buffers.give_back(returned);
        self.telemetry.pushed.add(new);
        self.telemetry.duplicates.add(duplicates);
    }

    fn answer(&mut self, command: Command, outcome: Outcome) {
        match (command, outcome) {
            (Command::Pop(pop), Outcome::Popped(claims, step)) => {
                self.answer_pop(pop, claims, step)
            }
            (Command::Pop(pop), Outcome::None) => {
                // It hung up after it was woken: what it was woken for is the next one's.
                self.wake_name(&pop.queue);
            }
            (command, Outcome::Again) => self.again.push(command),
            (command, Outcome::Failed(error)) => {
                fail_command(command, &CommandError::Decide(error));
            }
            (Command::Ack(ack), Outcome::Acked(results)) => {
                self.count_ack(&ack, &results);
                // Whoever hung up does not want to know; the ack stands.
                let _ = ack.reply.send(Ok(results));
            }
            (Command::Extend(extend), Outcome::Extended(until)) => {
                let _ = extend.reply.send(Ok(until));
            }
            (Command::Define(define), Outcome::Defined(queue)) => {
                let _ = define.reply.send(Ok(queue));
            }
            (Command::Transact(whole), Outcome::Transacted(decided)) => {
                self.answer_transaction(*whole, decided);
            }
            (Command::Register(register), Outcome::Registered(query)) => {
                let _ = register.reply.send(Ok(query));
            }
            (Command::DefineClass(define), Outcome::Classed(classed)) => {
                let _ = define.reply.send(Ok(classed));
            }
            (Command::LetGo(let_go), Outcome::LetGo(ended)) => {
                let _ = let_go.reply.send(Ok(ended));
            }
            (Command::Maintain(maintain), Outcome::Maintained(now)) => {
                let _ = maintain.reply.send(Ok(now));
            }
            (Command::Tend(tend), Outcome::Tended(tended)) => {
                let _ = tend.reply.send(Ok(tended));
            }
            (Command::Seek(seek), Outcome::Sought(sought)) => {
                let _ = seek.reply.send(Ok(sought));
            }
            (Command::ForgetGroup(forget), Outcome::Forgotten(forgotten)) => {
                let _ = forget.reply.send(Ok(forgotten));
            }
            (Command::Subscribe(subscribe), Outcome::Subscribed(queues)) => {
                let _ = subscribe.reply.send(Ok(queues));
            }
            (Command::Delete(delete), Outcome::Deleted(existed)) => {
                let _ = delete.reply.send(Ok(existed));
            }
            _ => {}
        }
    }

    fn answer_pop(&mut self, pop: Box<Pop>, claims: Vec<(ShardId, Claim)>, step: Option<PopStep>) {
        if claims.is_empty() {
            if let Some(until_us) = pop.wait_until_us
                && until_us > self.clock.monotonic_us()
            {
                let refused = self.parked.park(pop, until_us);
                return refused.map_or((), |pop| answer_stopping(*pop));
            }
            let empty = match step {
                Some(PopStep::NoPartition) => Empty::NoPartition,
                Some(PopStep::LeaseHeld) => Empty::LeaseHeld,
                Some(PopStep::WindowOpen(partition)) => Empty::WindowOpen(partition),
                _ => Empty::NoWork,
            };
            self.count_empty(&pop);
            return answer_empty(*pop, empty);
        }
        let until_ms = claims.iter().map(|(_, claim)| claim.until_ms).min().unwrap_or(0);
        self.count_pop(&pop, &claims);
        let parcels = claims.into_iter().filter_map(|(shard, claim)| self.parcel(shard, claim));
        let parcels: Vec<Parcel> = parcels.collect();
        let Pop { reply, queue, group, token, auto_ack, .. } = *pop;
        let is_leased = until_ms > 0;
        let to_settle = (auto_ack && is_leased).then_some(group);
        let held = match is_leased {
            true => Held::new(&self.inbox, &self.buffers, token, &parcels),
            false => Held::default(),
        };
        // A consumer that hung up before its messages came does not keep them from the others.
        let _ = reply.send(Ok(Popped {
            queue,
            token,
            empty: None,
            until_ms,
            to_settle,
            parcels,
            held,
        }));
    }

    fn parcel(&self, shard: ShardId, claim: Claim) -> Option<Parcel> {
        let Claim { partition, ranges, runs, attempts, .. } = claim;
        let state = self.replica.shards.get(usize::from(shard))?.partition(partition)?;
        let name = state.name.parse::<PartitionName>().ok()?;
        let source = |run| self.hot.find(shard, &run).map_or(Source::Cold(run), Source::Hot);
        let sources = runs.into_iter().map(source).collect();
        Some(Parcel { queue: state.queue, partition, name, ranges, attempts, sources })
    }

    /// Lets consumers try again that wait for what entries brought.
    pub(super) fn wake_parked<'a>(&mut self, entries: impl Iterator<Item = (ShardId, &'a Entry)>) {
        if self.parked.is_empty() && self.watches.is_empty() {
            return;
        }
        let mut queues: Vec<QueueId> = Vec::new();
        for (shard, entry) in entries {
            for effect in &entry.effects {
                let queue = match effect {
                    Effect::Append { partition, .. }
                    | Effect::Settle { partition, .. }
                    | Effect::Care(Care::Reopen { partition, .. })
                    | Effect::Trim { partition, .. } => self.queue_of(shard, *partition),
                    Effect::RegisterGroup { queue, .. }
                    | Effect::DefineGroup { queue, .. }
                    | Effect::ForgetGroup { queue, .. } => Some(*queue),
                    Effect::Seek { moves, .. } => {
                        moves.first().and_then(|(number, _)| self.queue_of(shard, *number))
                    }
                    Effect::DefineQueue(definition) => Some(definition.id),
                    Effect::Maintain(_) => {
                        let all = self.replica.catalog.catalog().iter();
                        queues.extend(all.map(|queue| queue.id));
                        None
                    }
                    _ => None,
                };
                queues.extend(queue.filter(|queue| queues.last() != Some(queue)));
            }
        }
        queues.sort_unstable();
        queues.dedup();
        for queue in queues {
            self.wake_queue(queue);
        }
    }

    pub(super) fn queue_of(&self, shard: ShardId, partition: PartitionNumber) -> Option<QueueId> {
        let state = self.replica.shards.get(usize::from(shard))?;
        Some(state.partition(partition)?.queue)
    }

    /// Lets those that wait for a queue try again, if there is work for them.
    pub(super) fn wake_name(&mut self, name: &QueueName) {
        let queue = self.replica.catalog.catalog().find(name.as_str()).map(|queue| queue.id);
        if let Some(queue) = queue {
            self.wake_queue(queue);
        }
    }

    /// Lets everybody who waits try again.
    pub(super) fn wake_all(&mut self) {
        let queues: Vec<QueueId> =
            self.replica.catalog.catalog().iter().map(|queue| queue.id).collect();
        for queue in queues {
            self.wake_queue(queue);
        }
    }

    fn wake_queue(&mut self, queue: QueueId) {
        self.tell_watchers(queue);
        let catalog = self.replica.catalog.catalog();
        let Some(definition) = catalog.get(queue) else { return };
        let Ok(name) = definition.name.parse::<QueueName>() else { return };
        for group in self.parked.groups(&name) {
            let (replica, key) = (&self.replica, self.replica.key());
            let is_everywhere = || {
                let lacks = |shard: &&ShardState| {
                    shard.group(queue, group.as_str()).is_none() && shard.has_partitions(queue)
                };
                !replica.shards.iter().any(|shard| lacks(&shard))
            };
            // One that some shard does not know yet asks for itself.
            let known = catalog.group(queue, group.as_str()).is_some() && is_everywhere();
            let of_group = |shard: &ShardState| {
                let index = shard.group(queue, group.as_str());
                index.and_then(|it| shard.group_at(it)).map_or(0, |it| it.ready_count)
            };
            let ready: usize = replica.shards.iter().map(of_group).sum();
            let can_run = |pop: &Pop| match &pop.partition {
                _ if !known => true,
                None => ready > 0,
                Some(name) => {
                    let hash = key.place(queue, name.as_str());
                    let at = usize::from(replica.count().of_hash(hash));
                    let shard = replica.shards.get(at);
                    shard.is_some_and(|it| has_work(it, queue, &group, name, hash))
                }
            };
            let most = if known { ready } else { usize::MAX };
            let woken = self.parked.take(&name, &group, most, can_run);
            self.again.extend(woken.into_iter().map(Command::Pop));
        }
    }

    /// Carries out the commands that need no entry.
    pub(super) fn take_own_commands(&mut self, work: &mut Work) {
        let is_own = |command: &mut Command| {
            matches!(
                command,
                Command::Look(_)
                    | Command::Find(_)
                    | Command::ReadStates(_)
                    | Command::Watch(_)
                    | Command::Survey(_)
                    | Command::CheckpointDone { .. }
                    | Command::Release
                    | Command::Stop(_)
            )
        };
        for command in work.commands.extract_if(.., is_own).collect::<Vec<_>>() {
            match command {
                Command::Look(question) => {
                    let (replica, kv, parked) = (&self.replica, &*self.kv, &self.parked);
                    let now_ms = self.now_ms();
                    question.answer(&View { replica, kv, parked, now_ms });
                }
                Command::Find(find) => {
                    let found =
                        self.find(&find).map_err(|error| CommandError::Decide(error.into()));
                    let _ = find.reply.send(found);
                }
                Command::ReadStates(read) => {
                    let page = self.read_states(&read);
                    let _ = read.reply.send(page);
                }
                Command::Watch(watch) => self.watches.add(*watch),
                Command::Survey(survey) => {
                    let page = self.survey_page(&survey);
                    let page = page.map_err(|error| CommandError::Decide(error.into()));
                    let _ = survey.reply.send(page);
                }
                Command::CheckpointDone { shards, written } => {
                    self.end_checkpoint(&shards, written)
                }
                Command::Release => self.release_parked(),
                Command::Stop(reply) => self.stopping = Some(reply),
                _ => {}
            }
        }
    }

    /// Sends everybody away who waits for messages, and lets nobody wait from here on.
    pub(super) fn release_parked(&mut self) {
        self.watches.close();
        self.parked.close().into_iter().for_each(|pop| answer_stopping(*pop));
    }
}

fn has_work(
    shard: &ShardState,
    queue: QueueId,
    group: &GroupName,
    name: &PartitionName,
    hash: u64,
) -> bool {
    let (Some(number), Some(index)) =
        (shard.find(queue, name.as_str(), hash), shard.group(queue, group.as_str()))
    else {
        return false;
    };
    let cursors = shard.partition(number).map(|partition| &partition.cursors);
    cursors.is_some_and(|cursors| cursors.iter().any(|it| it.group == index && it.ready))
}

fn answer_stopping(pop: Pop) {
    // A consumer that hung up is gone already.
    let _ = pop.reply.send(Err(CommandError::ShuttingDown));
}

/// Answers a pop with nothing.
pub(super) fn answer_empty(pop: Pop, empty: Empty) {
    let Pop { reply, queue, token, .. } = pop;
    let (empty, parcels) = (Some(empty), Vec::new());
    let (to_settle, held) = (None, Held::default());
    let popped = Popped { queue, token, empty, until_ms: 0, to_settle, parcels, held };
    // A consumer that hung up took nothing with it.
    let _ = reply.send(Ok(popped));
}
