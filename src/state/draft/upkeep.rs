//! Deciding what time brings: leases that lapse, messages that retention lets go, queues that go.

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::classes::OWN_NAME;
use crate::state::codec::{self, Chunk};
use crate::state::draft::ack::Failure;
use crate::state::draft::gates::{LetGo, Rules};
use crate::state::draft::{DecideError, Draft};
use crate::state::effect::{DeadLetter, DeadReason, Effect, GroupIndex, LeaseToken, Sequence};
use crate::state::model::{Lease, Partition, Run};

/// Sequences looked at in one step, at most.
const SEQUENCES_PER_LOOK: u64 = 4096;

/// What one commit may still do for retention.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Diligence {
    /// Partitions to look at.
    pub partitions: usize,
    /// Runs to let go of.
    pub runs: usize,
}

impl Diligence {
    /// Whether there is nothing left of it.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.partitions == 0 || self.runs == 0
    }
}

/// What a token holds, once it was extended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extended {
    /// When the first of its leases ends, unix milliseconds.
    pub until_ms: u64,
    /// How many partitions they are of.
    pub partitions: u32,
}

impl Extended {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            until_ms: self.until_ms.min(other.until_ms),
            partitions: self.partitions.saturating_add(other.partitions),
        }
    }
}

impl Draft<'_> {
    /// Ends leases that are over, `most` at a time and until `bytes_left` is used up, which the last
    /// of them may exceed: an attempt for each message that they still held, and a dead letter where
    /// that was one too many. Returns how many ended.
    ///
    /// A message that cannot be read now gets no dead letter: it stays open with its attempts
    /// counted, so that it never holds up the leases behind it.
    pub fn lapse(&mut self, most: usize, bytes_left: &mut usize) -> usize {
        let due = self.state.timers.iter().take_while(|(until, ..)| *until <= self.now_ms);
        let due: Vec<_> = due.take(most).map(|(_, local, group)| (*local, *group)).collect();
        let (mut ended, mut counted) = (0, self.effects.len());
        for (local, group) in due {
            if *bytes_left == 0 {
                break;
            }
            let Some(number) = self.state.shards.number(self.state.shard, local) else { continue };
            let Some(mut cursor) = self.cursor(number, group) else { continue };
            let Some(lease) = cursor.lease else { continue };
            let queue = self.state.partition(number).map(|it| it.queue);
            let limit = queue.map_or(0, |queue| self.lapses_max(queue, group));
            let failure = Failure {
                reason: DeadReason::LeaseExpired,
                error: "lease expired",
                limit: Some(limit),
            };
            let open = cursor.progress.open_ranges(lease.from, lease.to);
            let mut progress = cursor.progress.clone();
            if self.fail(number, group, &mut progress, &open, &failure).is_ok() {
                cursor.progress = progress;
            } else {
                for seq in open.iter().flat_map(|(from, to)| *from..*to) {
                    cursor.progress.fail(seq);
                }
            }
            self.settle(number, group, cursor, true);
            ended += 1;
            let new = self.effects.iter().skip(counted);
            *bytes_left = bytes_left.saturating_sub(new.map(codec::encoded_len).sum());
            counted = self.effects.len();
        }
        ended
    }

    /// How often leases of a group may lapse over a message. An engine that died is no fault of a
    /// message to a process: that one is evaluated however often it takes.
    fn lapses_max(&self, queue: QueueId, group: GroupIndex) -> u32 {
        let catalog = self.context.catalog;
        let is_own = self.state.group_at(group).is_some_and(|it| &*it.name == OWN_NAME);
        if is_own && catalog.class(queue).is_some() {
            return u32::MAX;
        }
        catalog.get(queue).map_or(0, |it| it.options.retry_limit)
    }

    /// Makes the leases with this token last until at least `until_ms`. Returns how long they do, or
    /// `None` when the token holds nothing here.
    pub fn extend(&mut self, token: LeaseToken, until_ms: u64) -> Option<Extended> {
        let holders = self.state.holders.get(&token)?;
        let mut extended = None;
        for (local, group) in holders {
            let Some(number) = self.state.shards.number(self.state.shard, *local) else { continue };
            let Some(cursor) = self.cursor(number, *group) else { continue };
            let Some(lease) = cursor.lease.filter(|lease| lease.token == token) else { continue };
            let until = lease.until_ms.max(until_ms);
            if until > lease.until_ms {
                let (partition, group, until_ms) = (number, *group, until);
                self.effects.push(Effect::Extend { partition, group, until_ms });
                let lease = Some(Lease { until_ms, ..lease });
                self.put_cursor(number, group, super::CursorDraft { lease, ..cursor });
            }
            let one = Extended { until_ms: until, partitions: 1 };
            extended = Some(extended.map_or(one, |all: Extended| all.with(one)));
        }
        extended
    }

    /// Ends the part of a lease from `from` on, which its consumer never got: others may have it at once,
    /// and no attempt is counted. Nothing happens where the token holds nothing there.
    pub fn give_back(&mut self, partition: PartitionNumber, token: LeaseToken, from: Sequence) {
        let local = self.state.shards.local(partition);
        let holders = self.state.holders.get(&token);
        let held = holders.and_then(|held| held.iter().find(|(it, _)| *it == local));
        let Some((_, group)) = held.filter(|_| self.state.partition(partition).is_some()) else {
            return;
        };
        let Some(cursor) = self.cursor(partition, *group) else { return };
        let Some(lease) = cursor.lease.filter(|it| it.token == token && from < it.to) else {
            return;
        };
        if cursor.progress.open_ranges(lease.from, from.max(lease.from)).is_empty() {
            return self.settle(partition, *group, cursor, true);
        }
        self.lease(partition, *group, cursor, Lease { to: from, ..lease });
    }

    /// Lets go what the queue's retention says, oldest first, in its partitions here from the one at
    /// `from` on. Returns at which one to go on, where `left` ended before they did.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when rows cannot be read: nothing is let go.
    pub fn retain(
        &mut self,
        queue: QueueId,
        from: usize,
        left: &mut Diligence,
    ) -> Result<Option<usize>, DecideError> {
        let Some(definition) = self.context.catalog.get(queue) else { return Ok(None) };
        let rules = Rules::of(definition);
        if !rules.lets_go() {
            return Ok(None);
        }
        let (mut let_go, mut trims, mut goes_on) = (LetGo::default(), Vec::new(), None);
        for (at, (number, partition)) in self.state.partitions_of(queue).enumerate().skip(from) {
            let trimmed = self.trimmed.get(&number).copied().unwrap_or(partition.base_seq);
            if trimmed >= partition.next_seq {
                continue;
            }
            if left.is_spent() {
                goes_on = Some(at);
                break;
            }
            left.partitions -= 1;
            let base_seq = self.kept_from(number, partition, &rules, left, &mut let_go)?;
            if base_seq > partition.base_seq {
                trims.push((number, base_seq));
            }
            if left.runs == 0 {
                // There may be more of this one.
                goes_on = Some(at);
                break;
            }
        }
        for (number, base_seq) in trims {
            self.trim(number, base_seq);
        }
        self.let_go.add(let_go);
        Ok(goes_on)
    }

    /// The first sequence that a partition keeps, as far as `left` leads. Mostly that is the first one
    /// there is, so it is looked at alone, and more only where it goes.
    fn kept_from(
        &self,
        number: PartitionNumber,
        partition: &Partition,
        rules: &Rules,
        left: &mut Diligence,
        let_go: &mut LetGo,
    ) -> Result<Sequence, DecideError> {
        let trimmed = self.trimmed.get(&number).copied();
        let (mut base_seq, mut look) = (trimmed.unwrap_or(partition.base_seq), 1);
        while base_seq < partition.next_seq && left.runs > 0 {
            let to = partition.next_seq.min(base_seq + look);
            let runs = self.state.runs(self.context.kv, number, base_seq, to)?;
            let mut gone = 0;
            for run in runs.iter().take(left.runs) {
                let Some(count) = self.count_of(partition, run, rules, let_go) else { break };
                *count += run.end_seq() - base_seq.max(run.first_seq);
                base_seq = run.end_seq();
                gone += 1;
            }
            left.runs -= gone;
            if gone < runs.len() || gone == 0 {
                break;
            }
            look = (2 * look).min(SEQUENCES_PER_LOOK);
        }
        Ok(base_seq)
    }

    /// Under what a run that nobody is to get any more is counted; `None` where it is kept. Messages
    /// that a lease holds are kept until it ends, and dead letters have their own payload: they stay.
    fn count_of<'a>(
        &self,
        partition: &Partition,
        run: &Run,
        rules: &Rules,
        let_go: &'a mut LetGo,
    ) -> Option<&'a mut u64> {
        let cursors = &partition.cursors;
        let leased = cursors.iter().filter_map(|it| it.lease.as_ref().map(|lease| lease.from));
        if leased.min().is_some_and(|held| run.end_seq() > held) {
            return None;
        }
        let is_past = |age_ms: u64| age_ms > 0 && run.time_ms.saturating_add(age_ms) <= self.now_ms;
        let consumed = cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0);
        match () {
            () if is_past(rules.lifetime_ms) => Some(&mut let_go.expired),
            () if is_past(rules.retention_ms) => Some(&mut let_go.retained),
            () if run.end_seq() <= consumed && is_past(rules.completed_ms) => {
                Some(&mut let_go.completed)
            }
            () => None,
        }
    }

    /// Forgets a queue's partitions, groups and dead letters in this shard.
    pub fn drop_queue(&mut self, queue: QueueId) {
        let known = self.state.by_queue.contains_key(&queue);
        if known || self.state.by_queue_groups.contains_key(&queue) {
            self.effects.push(Effect::DropQueue { queue });
        }
    }

    /// Writes a batch again, so that the segment that holds it now can go.
    pub fn relocate(&mut self, chunk: &Chunk) {
        let Chunk { partition, first_seq, count, time_ms, sub, batch } = chunk.clone();
        let moved = Effect::Relocate { partition, first_seq, count, time_ms, sub, batch };
        self.effects.push(moved);
    }

    /// Writes a dead letter again, for the same reason; one that is gone meanwhile stays gone.
    pub fn bury_again(&mut self, letter: &DeadLetter) {
        let key = (letter.partition, letter.group, letter.seq);
        if matches!(self.dead_since(key), Ok(Some(failed_ms)) if failed_ms == letter.failed_ms) {
            self.effects.push(Effect::Bury(DeadLetter { is_again: true, ..letter.clone() }));
        }
    }
}
