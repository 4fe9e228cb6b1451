//! When messages may be handed out, and until when: delays, windows, ages.
//!
//! In: a queue's options, the times of messages, now. Out: whether a partition has to wait and until
//! when, or which of its messages are too old for anybody. All of it is decided on read, so that an
//! option that changes means what it says at once, for messages that are there already too; `sleep`
//! says what becomes of partitions that wait. Time is the server's when a message was pushed, which
//! in a partition only grows. Called by `pop` and `upkeep`.

use crate::base::place::PartitionNumber;
use crate::state::catalog::QueueDefinition;
use crate::state::draft::{CursorDraft, DecideError, Draft};
use crate::state::effect::{Effect, GroupIndex, Sequence};
use crate::state::model::Run;

/// However steadily messages come, a partition is handed out at the latest when the oldest one that
/// the group has not settled is as many windows old.
pub const WINDOWS_MAX: u64 = 10;

/// A queue's options as far as time is concerned, milliseconds; 0 where there is no such rule.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    /// How long a message stays out of sight.
    pub delay_ms: u64,
    /// How long a partition has to be quiet.
    pub window_ms: u64,
    /// The age from which a message is dropped: it lived too long, or waited too long.
    pub lifetime_ms: u64,
    /// The age from which a message is not kept, whoever has seen it.
    pub retention_ms: u64,
    /// The age from which a message is not kept that all groups are done with.
    pub completed_ms: u64,
}

/// What keeps a partition from a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Gate {
    /// When it opens at the earliest, unix milliseconds.
    pub(super) until_ms: u64,
    /// Whether it is the queue's window.
    pub(super) is_window: bool,
}

/// Messages that were removed, by what removed them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LetGo {
    /// By `ttl` or `maxWaitTimeSeconds`.
    pub expired: u64,
    /// By `retentionSeconds`.
    pub retained: u64,
    /// By `completedRetentionSeconds`.
    pub completed: u64,
    /// Of all these, such as some group had not settled.
    pub undelivered: u64,
}

impl LetGo {
    /// Adds what somebody else let go of.
    pub fn add(&mut self, other: Self) {
        self.expired += other.expired;
        self.retained += other.retained;
        self.completed += other.completed;
        self.undelivered += other.undelivered;
    }
}

impl Rules {
    /// The rules of a queue.
    #[must_use]
    pub fn of(queue: &QueueDefinition) -> Self {
        let options = &queue.options;
        let ms = |seconds: u32| u64::from(seconds) * 1000;
        let kept = if options.retention_enabled { ms } else { |_: u32| 0 };
        let lifetime = if queue.has_ttl() { ms(options.ttl_s) } else { 0 };
        Self {
            delay_ms: ms(options.delayed_processing_s),
            window_ms: ms(options.window_buffer_s),
            lifetime_ms: shorter(lifetime, ms(options.max_wait_time_s)),
            retention_ms: kept(options.retention_s),
            completed_ms: kept(options.completed_retention_s),
        }
    }

    /// Whether messages are ever removed.
    #[must_use]
    pub fn lets_go(&self) -> bool {
        self.age_ms() > 0 || self.completed_ms > 0
    }

    /// The age from which a message is handed out to nobody; 0 = there is none.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        shorter(self.lifetime_ms, self.retention_ms)
    }

    /// What keeps messages from being handed out now: `oldest` and `newest` are the times of the
    /// oldest one that is open and of the partition's newest.
    fn gate(&self, oldest_ms: u64, newest_ms: u64, now_ms: u64) -> Option<Gate> {
        let quiet_ms = newest_ms.saturating_add(self.window_ms);
        let patience_ms = oldest_ms.saturating_add(self.window_ms.saturating_mul(WINDOWS_MAX));
        let window_ms = if self.window_ms > 0 { quiet_ms.min(patience_ms) } else { 0 };
        let until_ms = window_ms.max(oldest_ms.saturating_add(self.delay_ms));
        let is_window = window_ms > now_ms;
        (until_ms > now_ms).then_some(Gate { until_ms, is_window })
    }
}

/// The shorter of two times, of which 0 is none.
fn shorter(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, time) | (time, 0) => time,
        (one, other) => one.min(other),
    }
}

impl Draft<'_> {
    /// Cuts `runs` to what may be handed out now, or tells what keeps the partition. `runs` begin with
    /// the one that holds the oldest open message.
    pub(super) fn hold_back(
        &self,
        partition: PartitionNumber,
        rules: &Rules,
        runs: &mut Vec<Run>,
    ) -> Result<Option<Gate>, DecideError> {
        if rules.delay_ms == 0 && rules.window_ms == 0 {
            return Ok(None);
        }
        let Some(oldest_ms) = runs.first().map(|run| run.time_ms) else { return Ok(None) };
        let newest_ms = match rules.window_ms {
            0 => oldest_ms,
            _ => self.newest_ms(partition)?.unwrap_or(oldest_ms),
        };
        let gate = rules.gate(oldest_ms, newest_ms, self.now_ms);
        if gate.is_none() {
            let is_due = |run: &Run| run.time_ms.saturating_add(rules.delay_ms) <= self.now_ms;
            let due = runs.iter().take_while(|run| is_due(run)).count();
            runs.truncate(due);
        }
        Ok(gate)
    }

    /// When a partition's newest message was pushed.
    fn newest_ms(&self, partition: PartitionNumber) -> Result<Option<u64>, DecideError> {
        let Some(held) = self.state.partition(partition) else { return Ok(None) };
        if let Some(run) = held.runs.last() {
            return Ok(Some(run.time_ms));
        }
        let last = held.next_seq.saturating_sub(1);
        let runs = self.state.runs(self.context.kv, partition, last, held.next_seq)?;
        Ok(runs.last().map(|run| run.time_ms))
    }

    /// Lets go of messages at the head of a group's work that nobody is to get any more. They leave
    /// the partition; where another group still holds some of them, they are only settled here.
    pub(super) fn let_go_of_old(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        cursor: &mut CursorDraft,
        rules: &Rules,
    ) -> Result<(), DecideError> {
        let cutoff_ms = self.now_ms.checked_sub(rules.age_ms()).filter(|_| rules.age_ms() > 0);
        let (Some(cutoff_ms), Some(held)) = (cutoff_ms, self.state.partition(partition)) else {
            return Ok(());
        };
        let (from, to) = (cursor.progress.next, held.next_seq);
        let end = self.first_younger(partition, from, to, cutoff_ms)?;
        if end <= from {
            return Ok(());
        }
        let leased = held.cursors.iter().filter_map(|it| it.lease.as_deref()).map(|it| it.from);
        let base_seq = leased.min().map_or(end, |held| held.min(end));
        let count = self.trim(partition, base_seq);
        match rules.lifetime_ms == rules.age_ms() {
            true => self.let_go.expired += count,
            false => self.let_go.retained += count,
        }
        cursor.progress.advance_to(end);
        if base_seq < end {
            self.settle(partition, group, cursor.clone(), false);
        }
        Ok(())
    }

    /// The first sequence of `from..to` that was pushed after `cutoff_ms`; `to` where there is none.
    fn first_younger(
        &self,
        partition: PartitionNumber,
        from: Sequence,
        to: Sequence,
        cutoff_ms: u64,
    ) -> Result<Sequence, DecideError> {
        let (mut low, mut high, mut at) = (from, to, from);
        // The first one first: mostly it is young enough.
        while low < high {
            let runs = self.state.runs(self.context.kv, partition, at, at + 1)?;
            let Some(run) = runs.first() else { break };
            match run.time_ms <= cutoff_ms {
                true => low = run.end_seq().min(to),
                false => high = run.first_seq.max(low),
            }
            at = low + (high - low) / 2;
        }
        Ok(low)
    }

    /// Removes everything below `base_seq` from a partition, unless this draft did so already; returns
    /// how many messages that are.
    pub(super) fn trim(&mut self, partition: PartitionNumber, base_seq: Sequence) -> u64 {
        let Some(held) = self.state.partition(partition) else { return 0 };
        let before = self.trimmed.get(&partition).copied().unwrap_or(held.base_seq);
        if base_seq <= before {
            return 0;
        }
        let settled = held.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0);
        self.let_go.undelivered += base_seq - settled.clamp(before, base_seq);
        self.cut(partition, base_seq);
        base_seq - before
    }

    /// A partition begins at `base_seq` from here on.
    pub(super) fn cut(&mut self, partition: PartitionNumber, base_seq: Sequence) {
        self.trimmed.insert(partition, base_seq);
        self.effects.push(Effect::Trim { partition, base_seq });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    #[test]
    fn a_delay_ends_when_it_is_over_and_not_a_millisecond_before() {
        let rules = Rules { delay_ms: 2_000, ..Rules::default() };
        let gate = |pushed_ms| rules.gate(pushed_ms, NOW, NOW).map(|gate| gate.until_ms);
        assert_eq!(gate(NOW), Some(NOW + 2_000));
        assert_eq!(gate(NOW - 1_999), Some(NOW + 1));
        assert_eq!(gate(NOW - 2_000), None);
    }

    #[test]
    fn a_window_closes_when_it_is_quiet_or_after_ten_of_them() {
        let rules = Rules { window_ms: 1_000, ..Rules::default() };
        let gate = |oldest_ms, newest_ms| rules.gate(oldest_ms, newest_ms, NOW);
        let open = |until_ms| Some(Gate { until_ms, is_window: true });
        assert_eq!(gate(NOW - 5_000, NOW - 400), open(NOW + 600));
        assert_eq!(gate(NOW - 5_000, NOW - 1_000), None);
        assert_eq!(gate(NOW - 9_900, NOW), open(NOW + 100), "the oldest does not wait longer");
        assert_eq!(gate(NOW - 10_000, NOW), None);
    }

    #[test]
    fn both_rules_have_to_be_kept() {
        let rules = Rules { window_ms: 1_000, delay_ms: 3_000, ..Rules::default() };
        let gate = rules.gate(NOW - 2_000, NOW - 900, NOW);
        assert_eq!(gate, Some(Gate { until_ms: NOW + 1_000, is_window: true }));
        let gate = rules.gate(NOW - 2_000, NOW - 1_500, NOW);
        assert_eq!(gate, Some(Gate { until_ms: NOW + 1_000, is_window: false }));
        assert_eq!(rules.gate(NOW - 3_000, NOW - 1_000, NOW), None);
    }

    #[test]
    fn of_two_ages_the_shorter_one_counts() {
        assert_eq!((shorter(0, 5), shorter(5, 0), shorter(7, 5), shorter(0, 0)), (5, 5, 5, 0));
    }
}
