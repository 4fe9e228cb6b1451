//! Deciding acks: settled, failed, dead.
//!
//! All items of one request for one partition are decided together, against the lease as it was
//! when the request came. A cursor never passes a message that failed and never goes back; an item
//! that is refused changes nothing.

use crate::base::place::PartitionNumber;
use crate::state::draft::{CursorDraft, DecideError, Draft};
use crate::state::effect::{
    DeadLetter, DeadReason, Effect, GroupIndex, LeaseToken, Progress, Sequence,
};
use crate::state::{Single, single};

/// What a consumer says of some messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Done.
    Completed,
    /// Not done: counts as an attempt, and beyond the retry limit makes a dead letter.
    Failed,
    /// Not done, and nobody's fault.
    Retry,
    /// Never to be tried again.
    Dead,
}

/// Some messages of one partition and what became of them.
#[derive(Clone, Debug)]
pub struct AckItem {
    /// First sequence.
    pub first: Sequence,
    /// Last sequence, inclusive.
    pub last: Sequence,
    /// The verdict.
    pub verdict: Verdict,
    /// What the consumer says about it; kept with a dead letter.
    pub error: Box<str>,
}

/// What became of one item.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Acked {
    /// Messages settled as completed.
    pub settled: u32,
    /// Messages that became dead letters.
    pub buried: u32,
    /// Whether the lease ended with this request.
    pub released: bool,
}

/// Why an item was refused; nothing of it is applied.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AckRefusal {
    /// No such partition.
    #[error("partition {0} does not exist")]
    NoPartition(PartitionNumber),
    /// The group has never popped here.
    #[error("the group holds nothing in partition {0}")]
    NoGroup(PartitionNumber),
    /// The lease is not the live one: it expired, was released, or belongs to somebody else.
    #[error("invalid or expired lease")]
    LeaseExpired,
    /// The range names messages that do not exist or are not held by this lease.
    #[error("messages {first} to {last} are not held")]
    NoMessage {
        /// First sequence asked for.
        first: Sequence,
        /// Last sequence asked for.
        last: Sequence,
    },
    /// The range names messages that are settled already, and to settle them again was to be part of
    /// something that happens once.
    #[error("messages {first} to {last} are settled already")]
    Settled {
        /// First sequence asked for.
        first: Sequence,
        /// Last sequence asked for.
        last: Sequence,
    },
    /// It could not be decided.
    #[error(transparent)]
    Decide(#[from] DecideError),
}

impl Draft<'_> {
    /// Decides all items of one request for one partition, in order.
    pub fn ack(
        &mut self,
        partition: PartitionNumber,
        group: &str,
        token: Option<LeaseToken>,
        items: &[AckItem],
    ) -> Vec<Result<Acked, AckRefusal>> {
        let refuse = |refusal: AckRefusal| items.iter().map(|_| Err(refusal.clone())).collect();
        let Some(held) = self.state.partition(partition) else {
            return refuse(AckRefusal::NoPartition(partition));
        };
        let (queue, end) = (held.queue, held.next_seq);
        let group = self.state.group(queue, group);
        let Some((group, mut cursor)) =
            group.and_then(|group| Some((group, self.cursor(partition, group)?)))
        else {
            return refuse(AckRefusal::NoGroup(partition));
        };
        let options = self.context.catalog.get(queue).map(|it| it.options);
        let mut work = Work {
            partition,
            group,
            limit: options.map_or(0, |it| it.retry_limit),
            retry_delay_ms: options.map_or(0, |it| u64::from(it.retry_delay_ms)),
            end,
            release: false,
            changed: false,
        };
        let mut results: Vec<Result<Acked, AckRefusal>> =
            items.iter().map(|item| self.ack_item(&mut work, &mut cursor, token, item)).collect();
        let done = cursor
            .lease
            .is_some_and(|lease| cursor.progress.open_ranges(lease.from, lease.to).is_empty());
        let release = (work.release || done) && cursor.lease.is_some();
        for acked in results.iter_mut().flatten() {
            acked.released = release;
        }
        if work.changed || release {
            self.settle(partition, group, cursor, release);
        }
        results
    }

    fn ack_item(
        &mut self,
        work: &mut Work,
        cursor: &mut CursorDraft,
        token: Option<LeaseToken>,
        item: &AckItem,
    ) -> Result<Acked, AckRefusal> {
        let AckItem { first, last, verdict, .. } = *item;
        let missing = AckRefusal::NoMessage { first, last };
        if first > last || last >= work.end {
            return Err(missing);
        }
        let open = cursor.progress.open_ranges(first, last + 1);
        if open.is_empty() && verdict == Verdict::Completed {
            // Said twice, or said again because the answer was lost: it is true already.
            return Ok(Acked::default());
        }
        if let Some(token) = token {
            let lease = cursor.lease.filter(|lease| lease.token == token);
            let lease = lease.ok_or(AckRefusal::LeaseExpired)?;
            if first < lease.from || last >= lease.to {
                return Err(missing);
            }
        }
        match verdict {
            Verdict::Completed => {
                cursor.progress.settle(first, last);
                work.changed = true;
                Ok(Acked { settled: count(&open), ..Acked::default() })
            }
            Verdict::Retry => {
                work.release = true;
                Ok(Acked::default())
            }
            Verdict::Failed | Verdict::Dead => self.fail_item(work, cursor, &open, item),
        }
    }

    fn fail_item(
        &mut self,
        work: &mut Work,
        cursor: &mut CursorDraft,
        open: &[(Sequence, Sequence)],
        item: &AckItem,
    ) -> Result<Acked, AckRefusal> {
        let dead = item.verdict == Verdict::Dead;
        let reason = if dead { DeadReason::Asked } else { DeadReason::RetriesExhausted };
        // On a copy first: an unreadable body must leave the whole item undone.
        let mut progress = cursor.progress.clone();
        let failed = Failure { reason, error: &item.error, limit: (!dead).then_some(work.limit) };
        let buried = self.fail(work.partition, work.group, &mut progress, open, &failed)?;
        cursor.progress = progress;
        work.changed = true;
        let is_left = u64::from(buried) < u64::from(count(open));
        if is_left && !dead {
            cursor.progress.wait_until(self.now_ms + work.retry_delay_ms);
        }
        work.release |= is_left;
        Ok(Acked { buried, ..Acked::default() })
    }

    /// Counts a failed attempt for each message in `open`; those over the limit become dead
    /// letters and are settled. Returns how many did.
    pub(super) fn fail(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        progress: &mut Progress,
        open: &[(Sequence, Sequence)],
        failure: &Failure<'_>,
    ) -> Result<u32, DecideError> {
        let mut dead = Vec::new();
        for seq in open.iter().flat_map(|(from, to)| *from..*to) {
            let attempts = match failure.limit {
                Some(_) => progress.fail(seq),
                None => progress.attempts_of(seq),
            };
            if failure.limit.is_none_or(|limit| attempts > limit) {
                dead.push(self.dead_letter(partition, group, seq, attempts, failure)?);
            }
        }
        for letter in &dead {
            progress.settle(letter.seq, letter.seq);
        }
        for letter in &dead {
            let key = (letter.partition, letter.group, letter.seq);
            // A group that went back meets messages that it has letters of: the newer one counts.
            if let Some(failed_ms) = self.dead_since(key)? {
                self.exhume_one(key, failed_ms);
            }
            self.letters.insert(key, Some(letter.failed_ms));
        }
        let buried = dead.len() as u32;
        self.effects.extend(dead.into_iter().map(Effect::Bury));
        Ok(buried)
    }

    fn dead_letter(
        &self,
        partition: PartitionNumber,
        group: GroupIndex,
        seq: Sequence,
        attempts: u32,
        failure: &Failure<'_>,
    ) -> Result<DeadLetter, DecideError> {
        let missing = DecideError::BodyMissing { partition, seq };
        let runs = self.state.runs(self.context.kv, partition, seq, seq + 1)?;
        let run = runs.first().ok_or_else(|| missing.clone())?;
        let record = single(self.context.bodies, self.state.shard, run, seq);
        let Single { batch, time_ms: pushed_ms, sub } = record.ok_or(missing)?;
        Ok(DeadLetter {
            partition,
            group,
            seq,
            pushed_ms,
            failed_ms: self.now_ms,
            is_again: false,
            attempts,
            reason: failure.reason,
            error: failure.error.into(),
            sub,
            batch: batch.bytes().clone(),
        })
    }
}

/// What a failed attempt is put down to.
pub(super) struct Failure<'a> {
    pub(super) reason: DeadReason,
    pub(super) error: &'a str,
    /// Retry limit; `None` buries at once without counting an attempt.
    pub(super) limit: Option<u32>,
}

struct Work {
    partition: PartitionNumber,
    group: GroupIndex,
    limit: u32,
    /// How long what failed is not handed out again.
    retry_delay_ms: u64,
    /// Behind the last message that exists.
    end: Sequence,
    release: bool,
    changed: bool,
}

fn count(ranges: &[(Sequence, Sequence)]) -> u32 {
    ranges.iter().map(|(from, to)| (to - from) as u32).sum()
}
