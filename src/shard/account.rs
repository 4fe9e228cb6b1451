//! What is counted of a commit: by queue and group, and how long messages took.
//!
//! In: what was answered, and the entries that stand. Out: counters of telemetry, and nothing else. Called
//! by the lane, once per request and partition and never per message.

use hashbrown::HashMap;
use onrush_protocol::qos::Qos;
use smallvec::SmallVec;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::buffer::receipt::{PushRefusal, Receipt};
use crate::log::AppendError;
use crate::shard::command::{Ack, Pop, Verdicts};
use crate::shard::lane::Lane;
use crate::shard::round::{tally, tally_pushed};
use crate::shard::transaction::{Committed, Transaction};
use crate::state::draft::DecideError;
use crate::state::draft::ack::{AckItem, Acked, Verdict};
use crate::state::draft::pop::Claim;
use crate::state::draft::push::Pushed;
use crate::state::effect::{Effect, Entry, GroupIndex, Sequence};
use crate::telemetry::Telemetry;
use crate::telemetry::queues::{GroupCount, PushFate, Pushes};

/// Leases whose messages' times are kept, at most; of more that are held at a time it is not measured
/// how long their messages take.
const AGES_MAX: usize = 65_536;

/// Pause between two looks for leases that ran out or whose partitions are gone, microseconds.
const SWEEP_US: u64 = 10_000_000;

/// First sequences of runs, and when they were pushed, unix milliseconds.
type PushTimes = SmallVec<[(Sequence, u64); 1]>;

/// When the messages that consumers hold were pushed, by the run that each is in.
#[derive(Debug, Default)]
pub(super) struct Ages {
    held: HashMap<(PartitionNumber, GroupIndex), PushTimes>,
    /// When leases that are over were looked for, in the clock's microseconds.
    swept_at_us: u64,
}

impl Ages {
    fn note(&mut self, group: GroupIndex, claim: &Claim) {
        let key = (claim.partition, group);
        if self.held.len() < AGES_MAX || self.held.contains_key(&key) {
            let runs = claim.runs.iter().map(|run| (run.first_seq, run.time_ms));
            self.held.insert(key, runs.collect());
        }
    }

    /// How many messages from `first` to `last` were pushed when, as far as it is known.
    fn of(
        &self,
        key: (PartitionNumber, GroupIndex),
        (first, last): (Sequence, Sequence),
    ) -> impl Iterator<Item = (u64, u64)> {
        let runs = self.held.get(&key).map_or(&[][..], SmallVec::as_slice);
        let ends = runs.iter().skip(1).map(|run| run.0).chain([Sequence::MAX]);
        runs.iter().zip(ends).filter_map(move |((start, time_ms), end)| {
            let (from, to) = (first.max(*start), last.saturating_add(1).min(end));
            (from < to).then(|| (to - from, *time_ms))
        })
    }

    /// Forgets leases that are over, now and then, where there are many.
    fn sweep(&mut self, now_us: u64, lives: impl Fn(PartitionNumber, GroupIndex) -> bool) {
        if self.held.len() >= AGES_MAX && now_us >= self.swept_at_us + SWEEP_US {
            self.swept_at_us = now_us;
            self.held.retain(|(partition, group), _| lives(*partition, *group));
        }
    }
}

/// Pushes to one queue after the other.
#[derive(Default)]
pub(super) struct PushLedger {
    of: Option<(QueueId, Pushes, u64)>,
}

impl PushLedger {
    /// Adds a receipt; what came before it for another queue is counted.
    pub(super) fn add(
        &mut self,
        telemetry: &Telemetry,
        queue: QueueId,
        (qos, count): (Qos, u32),
        receipt: &Receipt,
    ) {
        if self.of.as_ref().is_some_and(|(known, ..)| *known != queue) {
            self.close(telemetry);
        }
        let (_, pushes, requests) = self.of.get_or_insert((queue, Pushes::default(), 0));
        let (new, duplicates) = tally(receipt);
        pushes.add(qos as u8, PushFate::Stored, new);
        pushes.add(qos as u8, PushFate::Duplicate, duplicates);
        if let Err(refusal) = receipt {
            pushes.add(qos as u8, PushFate::Refused, u64::from(count));
            count_refusal(telemetry, refusal, u64::from(count));
        }
        *requests += 1;
    }

    /// Counts what is left.
    pub(super) fn close(&mut self, telemetry: &Telemetry) {
        if let Some((queue, pushes, requests)) = self.of.take() {
            telemetry.by_queue.note_pushes(queue, &pushes, requests);
        }
    }
}

/// Counts messages that were refused because something was full or away.
fn count_refusal(telemetry: &Telemetry, refusal: &PushRefusal, count: u64) {
    let why = &telemetry.refused;
    match refusal {
        PushRefusal::Decide(DecideError::QueueFull { .. }) => why.queue_full.add(count),
        PushRefusal::Append(AppendError::DiskFull) => why.disk_full.add(count),
        PushRefusal::Append(AppendError::Unavailable(_) | AppendError::OutcomeUnknown) => {
            why.store_away.add(count);
        }
        _ => {}
    }
}

/// Counts what became of a batch that came in another way than through a ring.
pub(super) fn count_pushed(telemetry: &Telemetry, queue: QueueId, qos: Qos, pushed: &Pushed) {
    let (new, duplicates) = tally_pushed(pushed);
    telemetry.pushed.add(new);
    telemetry.duplicates.add(duplicates);
    let mut pushes = Pushes::default();
    pushes.add(qos as u8, PushFate::Stored, new);
    pushes.add(qos as u8, PushFate::Duplicate, duplicates);
    telemetry.by_queue.note_pushes(queue, &pushes, 0);
}

fn say(item: &AckItem, acked: &Acked) -> GroupCount {
    let named = item.last.saturating_sub(item.first) + 1;
    let none = GroupCount::default();
    match item.verdict {
        Verdict::Completed => GroupCount { completed: u64::from(acked.settled), ..none },
        Verdict::Failed => GroupCount { failed: named, ..none },
        Verdict::Retry => GroupCount { retried: named, ..none },
        Verdict::Dead => GroupCount { dead: named, ..none },
    }
}

impl Lane {
    /// Counts what entries of this engine did.
    pub(super) fn count_effects(&self, entry: &Entry) {
        for effect in &entry.effects {
            if let Effect::Bury(letter) = effect
                && !letter.is_again
            {
                self.telemetry.dead.add(1);
                let of_reason = self.telemetry.dead_by_reason.get(letter.reason as usize);
                of_reason.into_iter().for_each(|it| it.add(1));
            }
        }
    }

    /// Counts a pop that found nothing.
    pub(super) fn count_empty(&self, pop: &Pop) {
        self.telemetry.pop_requests.add(1);
        self.telemetry.pop_empty.add(1);
        if let Some(queue) = self.replica.catalog.catalog().find(pop.queue.as_str()) {
            self.telemetry.by_queue.note(queue.id, |it| {
                it.pop_requests += 1;
                it.pop_empty += 1;
            });
        }
    }

    /// Counts a pop that got messages.
    pub(super) fn count_pop(&mut self, pop: &Pop, claims: &[(ShardId, Claim)]) {
        let now_ms = self.now_ms();
        let (mut messages, mut queue) = (0, None);
        for (shard, claim) in claims {
            let state = self.replica.shards.get(usize::from(*shard));
            let partition = state.and_then(|it| it.partition(claim.partition));
            let its_queue = partition.map(|it| it.queue);
            queue = queue.or(its_queue);
            let count: u64 = claim.ranges.iter().map(|(from, to)| to - from).sum();
            messages += count;
            self.telemetry.redelivered.add(claim.attempts.len() as u64);
            for (some, time_ms) in delivered_at(claim) {
                let delay_us = now_ms.saturating_sub(time_ms) * 1000;
                self.telemetry.delivery_delay.record(delay_us, some);
                if claim.until_ms == 0 {
                    // Handed out and settled in one.
                    self.telemetry.end_to_end.record(delay_us, some);
                }
            }
            let group = its_queue.and_then(|queue| state?.group(queue, pop.group.as_str()));
            if let (Some(group), true) = (group, claim.until_ms > 0) {
                self.ages.note(group, claim);
            }
        }
        self.telemetry.pop_requests.add(1);
        self.telemetry.popped.add(messages);
        if pop.ticket.is_none() {
            // One that had to wait for messages took as long as they did.
            let took_us = self.clock.monotonic_us().saturating_sub(pop.asked_us);
            self.telemetry.pop_latency.record(took_us, 1);
        }
        if let Some(queue) = queue {
            self.telemetry.by_queue.note(queue, |it| it.pop_requests += 1);
            let settled = claims.iter().all(|(_, claim)| claim.until_ms == 0);
            let completed = if settled { messages } else { 0 };
            let more = GroupCount { delivered: messages, completed, ..GroupCount::default() };
            self.telemetry.by_queue.note_group(queue, pop.group.as_str(), &more);
        }
    }

    /// Counts an ack.
    pub(super) fn count_ack(&mut self, ack: &Ack, results: &Verdicts) {
        self.telemetry.ack_requests.add(1);
        let (mut last, mut refused) = (None, 0);
        for ((partition, item), result) in ack.items.iter().zip(results) {
            let shard = self.replica.count().of_partition(*partition);
            let queue = self.queue_of(shard, *partition);
            if let Some(queue) = queue {
                let is_next = last.replace(*partition) != Some(*partition);
                self.telemetry.by_queue.note(queue, |it| {
                    it.ack_requests += u64::from(is_next);
                    it.ack_refused += u64::from(result.is_err());
                });
            }
            match result {
                Ok(acked) => self.count_verdict(queue, ack.group.as_str(), *partition, item, acked),
                Err(_) => refused += 1,
            }
        }
        self.telemetry.ack_failed.add(refused);
        let replica = &self.replica;
        self.ages.sweep(self.clock.monotonic_us(), |partition, group| {
            let shard = replica.shards.get(usize::from(replica.count().of_partition(partition)));
            let cursor = shard.and_then(|shard| shard.cursor(partition, group));
            cursor.is_some_and(|cursor| cursor.lease.is_some())
        });
    }

    fn count_verdict(
        &mut self,
        queue: Option<QueueId>,
        group: &str,
        partition: PartitionNumber,
        item: &AckItem,
        acked: &Acked,
    ) {
        self.telemetry.acked.add(u64::from(acked.settled));
        let Some(queue) = queue else { return };
        self.telemetry.by_queue.note_group(queue, group, &say(item, acked));
        let shard = usize::from(self.replica.count().of_partition(partition));
        let group = self.replica.shards.get(shard).and_then(|it| it.group(queue, group));
        let Some(group) = group else { return };
        let key = (partition, group);
        if item.verdict == Verdict::Completed {
            let now_ms = self.now_ms();
            let mut left = u64::from(acked.settled);
            for (some, time_ms) in self.ages.of(key, (item.first, item.last)) {
                let some = some.min(left);
                left -= some;
                let took_us = now_ms.saturating_sub(time_ms) * 1000;
                self.telemetry.end_to_end.record(took_us, some);
            }
        }
        if acked.released {
            self.ages.held.remove(&key);
        }
    }

    /// Counts a transaction that stands.
    pub(super) fn count_transaction(&mut self, whole: &Transaction, committed: &Committed) {
        for (ack, acked) in whole.acks.iter().zip(&committed.acks) {
            let shard = self.replica.count().of_partition(ack.partition);
            let queue = self.queue_of(shard, ack.partition);
            let (group, item) = (ack.group.as_str(), &ack.item);
            self.count_verdict(queue, group, ack.partition, item, acked);
            queue.into_iter().for_each(|queue| {
                self.telemetry.by_queue.note(queue, |it| it.transactions += 1);
            });
        }
        for (append, stored) in whole.appends.iter().zip(&committed.appends) {
            count_pushed(&self.telemetry, append.queue, Qos::ExactlyOnce, &stored.pushed);
            self.telemetry.by_queue.note(append.queue, |it| it.transactions += 1);
        }
        let stored = committed.appends.iter().zip(&committed.claims);
        for (stored, _) in stored.filter(|(_, until)| until.is_some()) {
            self.telemetry.popped.add(tally_pushed(&stored.pushed).0);
        }
    }
}

/// How many of a claim's messages were pushed when.
fn delivered_at(claim: &Claim) -> impl Iterator<Item = (u64, u64)> {
    claim.runs.iter().map(|run| {
        let within = claim
            .ranges
            .iter()
            .map(|(from, to)| run.end_seq().min(*to).saturating_sub(run.first_seq.max(*from)));
        (within.sum(), run.time_ms)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::model::Run;

    fn claim(runs: &[(Sequence, u64)], ranges: &[(Sequence, Sequence)]) -> Claim {
        let run = |(first_seq, time_ms): &(Sequence, u64)| Run {
            first_seq: *first_seq,
            position: 0,
            time_ms: *time_ms,
            len: 1,
            count: 10,
        };
        Claim {
            partition: 7,
            ranges: ranges.to_vec(),
            runs: runs.iter().map(run).collect(),
            attempts: Vec::new(),
            until_ms: 1,
        }
    }

    #[test]
    fn messages_have_the_time_of_the_run_that_they_are_in() {
        let claim = claim(&[(0, 100), (10, 200)], &[(3, 5), (8, 12)]);
        assert_eq!(delivered_at(&claim).collect::<Vec<_>>(), [(4, 100), (2, 200)]);
        let mut ages = Ages::default();
        ages.note(1, &claim);
        let of = |range| ages.of((7, 1), range).collect::<Vec<_>>();
        assert_eq!(of((3, 11)), [(7, 100), (2, 200)]);
        assert_eq!(of((10, 10)), [(1, 200)]);
        assert_eq!(ages.of((7, 2), (0, 20)).count(), 0);
    }

    #[test]
    fn of_many_leases_those_that_are_over_are_forgotten() {
        let mut ages = Ages::default();
        for partition in 0..=AGES_MAX as u32 {
            ages.note(1, &Claim { partition, ..claim(&[(0, 100)], &[(0, 1)]) });
        }
        assert_eq!(ages.held.len(), AGES_MAX);
        ages.sweep(SWEEP_US, |partition, _| partition < 10);
        assert_eq!(ages.held.len(), 10);
    }
}
