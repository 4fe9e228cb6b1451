//! Deciding pops: which partitions, which messages, until when.
//!
//! Only what is applied can be popped, so nobody sees a message that is not yet in the log. Finding
//! a partition with work is a look at the front of its group's ready list. One whose time has not
//! come is noted, and leaves the list when the commit is done.

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::draft::gates::{Gate, Rules};
use crate::state::draft::{CursorDraft, DecideError, Draft};
use crate::state::effect::{Effect, GroupIndex, LeaseToken, Sequence};
use crate::state::model::{Lease, Run};
use crate::state::sleep::Sleeper;

/// What a consumer asks of one shard.
#[derive(Clone, Debug)]
pub struct PopAsk<'a> {
    /// The queue.
    pub queue: QueueId,
    /// One partition by name and placing hash, or any.
    pub partition: Option<(&'a str, u64)>,
    /// The consumer group.
    pub group: &'a str,
    /// The fencing token that the leases get.
    pub token: LeaseToken,
    /// How long they last; 0 = as the queue says.
    pub lease_ms: u64,
    /// Settle at once instead of leasing.
    pub auto_ack: bool,
}

/// What a pop may still take, over all shards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PopBudget {
    /// Messages.
    pub messages: u32,
    /// Bytes of batches; the first batch of the whole answer goes out whatever its size.
    pub bytes: u64,
    /// Partitions.
    pub partitions: u32,
}

impl PopBudget {
    /// Whether nothing more fits.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.messages == 0 || self.partitions == 0 || self.bytes == 0
    }
}

/// Messages of one partition that a pop got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The partition.
    pub partition: PartitionNumber,
    /// Half-open ranges of sequences, ascending.
    pub ranges: Vec<(Sequence, Sequence)>,
    /// The runs that hold them.
    pub runs: Vec<Run>,
    /// Failed attempts of those that have any.
    pub attempts: Vec<(Sequence, u32)>,
    /// When the lease ends, unix milliseconds; 0 when there is none.
    pub until_ms: u64,
}

/// How a shard answered a pop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PopStep {
    /// Claims were added as far as there was work.
    Done,
    /// The one partition asked for does not exist.
    NoPartition,
    /// Another consumer of the group holds the one partition asked for.
    LeaseHeld,
    /// The one partition asked for has messages, and waits for its window to close.
    WindowOpen(PartitionNumber),
}

/// Partitions before their time that one draft looks at: a pop that meets more of them goes on with
/// the next commit, when those are out of the way.
const SLEEPERS_MAX: usize = 1024;

impl Draft<'_> {
    /// Claims messages for a consumer of `group` until the budget is spent or no work is left.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when rows cannot be read: nothing of the failing partition is claimed.
    pub fn pop(
        &mut self,
        ask: &PopAsk<'_>,
        group: GroupIndex,
        budget: &mut PopBudget,
        claims: &mut Vec<Claim>,
    ) -> Result<PopStep, DecideError> {
        let queue = self.context.catalog.get(ask.queue);
        let rules = queue.map_or_else(Rules::default, |queue| Rules::of(queue));
        if let Some((name, hash)) = ask.partition {
            let Some(number) = self.state.find(ask.queue, name, hash) else {
                return Ok(PopStep::NoPartition);
            };
            return match self.claim(number, group, ask, &rules, budget, claims)? {
                Claimed::Held => Ok(PopStep::LeaseHeld),
                Claimed::Asleep { is_window: true } => Ok(PopStep::WindowOpen(number)),
                Claimed::Nothing | Claimed::Some | Claimed::Asleep { .. } => Ok(PopStep::Done),
            };
        }
        while !budget.is_spent() && !self.has_seen_enough() {
            let Some(number) = self.next_ready(group) else { break };
            let claimed = self.claim(number, group, ask, &rules, budget, claims)?;
            if matches!(claimed, Claimed::Nothing) && budget.is_spent() {
                // Its next message was too large for the rest of this answer; not for another one.
                self.left_over.entry(group).or_default().push_back(number);
            }
        }
        Ok(PopStep::Done)
    }

    /// Whether it met so many partitions before their time that the next commit should go on.
    #[must_use]
    pub fn has_seen_enough(&self) -> bool {
        self.sleepers.len() >= SLEEPERS_MAX
    }

    /// Whether partitions are left that may have work for a group and that no pop of this draft has
    /// looked at.
    #[must_use]
    pub fn has_work(&self, group: GroupIndex) -> bool {
        let listed = self.state.group_at(group).map_or(0, |it| it.ready.len());
        let seen = self.ready_at.get(&group).copied().unwrap_or(0);
        seen < listed || self.left_over.get(&group).is_some_and(|it| !it.is_empty())
    }

    /// The next partition of the ready list that this draft has not looked at; behind its end,
    /// those that an earlier pop of this draft did not empty.
    fn next_ready(&mut self, group: GroupIndex) -> Option<PartitionNumber> {
        let list = &self.state.group_at(group)?.ready;
        let at = self.ready_at.entry(group).or_insert(0);
        let Some(local) = list.get(*at) else {
            return self.left_over.get_mut(&group)?.pop_front();
        };
        *at += 1;
        self.state.shards.number(self.state.shard, *local)
    }

    fn claim(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        ask: &PopAsk<'_>,
        rules: &Rules,
        budget: &mut PopBudget,
        claims: &mut Vec<Claim>,
    ) -> Result<Claimed, DecideError> {
        let visible = self.state.partition(partition).map_or(0, |it| it.next_seq);
        let Some(mut cursor) = self.cursor(partition, group) else { return Ok(Claimed::Nothing) };
        if cursor.lease.is_some() {
            return Ok(Claimed::Held);
        }
        self.let_go_of_old(partition, group, &mut cursor, rules)?;
        let wanted = take(cursor.progress.open_ranges(0, visible), budget.messages);
        let Some((from, to)) = span(&wanted) else { return Ok(Claimed::Nothing) };
        let until_ms = cursor.progress.waits_until_ms();
        if until_ms > self.now_ms {
            let gate = Gate { until_ms, is_window: false };
            return Ok(self.leave_asleep(partition, group, gate));
        }
        let mut runs = self.state.runs(self.context.kv, partition, from, to)?;
        if let Some(gate) = self.hold_back(partition, rules, &mut runs)? {
            return Ok(self.leave_asleep(partition, group, gate));
        }
        let (runs, to) = within_bytes(runs, &wanted, budget, to, claims.is_empty());
        let ranges: Vec<_> = wanted
            .into_iter()
            .filter_map(|(first, end)| (first < to).then_some((first, end.min(to))))
            .collect();
        let count: u64 = ranges.iter().map(|(first, end)| end - first).sum();
        if count == 0 {
            return Ok(Claimed::Nothing);
        }
        budget.messages = budget.messages.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        budget.partitions -= 1;
        let in_claim = |seq: &Sequence| ranges.iter().any(|(a, b)| a <= seq && seq < b);
        let attempts = cursor.progress.attempts.iter().copied();
        let attempts = attempts.filter(|(seq, _)| in_claim(seq)).collect();
        let until_ms = if ask.auto_ack { 0 } else { self.now_ms + self.lease_ms(ask) };
        if ask.auto_ack {
            for (first, end) in &ranges {
                cursor.progress.settle(*first, end - 1);
            }
            self.settle(partition, group, cursor, false);
        } else {
            self.lease(partition, group, cursor, Lease { token: ask.token, until_ms, from, to });
        }
        claims.push(Claim { partition, ranges, runs, attempts, until_ms });
        Ok(Claimed::Some)
    }

    fn leave_asleep(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        gate: Gate,
    ) -> Claimed {
        let Gate { until_ms, is_window } = gate;
        self.sleepers.push((self.effects.len(), Sleeper { partition, group, until_ms }));
        Claimed::Asleep { is_window }
    }

    pub(super) fn lease(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        cursor: CursorDraft,
        lease: Lease,
    ) {
        let Lease { token, until_ms, from, to } = lease;
        self.effects.push(Effect::Lease { partition, group, token, until_ms, from, to });
        self.put_cursor(partition, group, CursorDraft { lease: Some(lease), ..cursor });
    }

    /// 60 s where neither the consumer nor the queue says anything else.
    fn lease_ms(&self, ask: &PopAsk<'_>) -> u64 {
        const DEFAULT_LEASE_MS: u64 = 60_000;
        let queue = self.context.catalog.get(ask.queue);
        let queue_ms = queue.map_or(0, |queue| u64::from(queue.options.lease_time_s) * 1000);
        let wishes = [ask.lease_ms, queue_ms];
        wishes.into_iter().find(|wish| *wish > 0).unwrap_or(DEFAULT_LEASE_MS)
    }
}

enum Claimed {
    Some,
    Nothing,
    Held,
    Asleep { is_window: bool },
}

/// The first `messages` of some ranges.
fn take(ranges: Vec<(Sequence, Sequence)>, messages: u32) -> Vec<(Sequence, Sequence)> {
    let mut left = u64::from(messages);
    let taken = ranges.into_iter().map_while(|(from, to)| {
        let end = to.min(from + left);
        left -= end - from;
        (end > from).then_some((from, end))
    });
    taken.collect()
}

fn span(ranges: &[(Sequence, Sequence)]) -> Option<(Sequence, Sequence)> {
    Some((ranges.first()?.0, ranges.last()?.1))
}

/// The runs that are needed and fit, and where they end. The first run of an answer is kept always,
/// so that a message larger than the budget still comes through; behind others it waits its turn,
/// or the answer could outgrow its frame.
fn within_bytes(
    runs: Vec<Run>,
    wanted: &[(Sequence, Sequence)],
    budget: &mut PopBudget,
    to: Sequence,
    is_first: bool,
) -> (Vec<Run>, Sequence) {
    let mut kept: Vec<Run> = Vec::with_capacity(runs.len());
    let needed = |run: &Run| wanted.iter().any(|(a, b)| *a < run.end_seq() && run.first_seq < *b);
    for run in runs.into_iter().filter(needed) {
        let bytes = u64::from(run.len);
        if bytes > budget.bytes && !(is_first && kept.is_empty()) {
            budget.bytes = 0;
            break;
        }
        budget.bytes = budget.bytes.saturating_sub(bytes);
        kept.push(run);
    }
    let end = kept.last().map_or(0, Run::end_seq).min(to);
    (kept, end)
}
