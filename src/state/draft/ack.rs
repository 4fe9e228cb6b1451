//! Deciding acks: settled, failed, dead.
//!
//! All items of one request for one partition are decided together, against the lease as it was
//! when the request came. A cursor never passes a message that failed and never goes back; an item
//! that is refused changes nothing.

use onrush_protocol::batch::RecordBatch;
use onrush_protocol::limits::POP_MESSAGES_MAX;

use crate::base::place::PartitionNumber;
use crate::state::Single;
use crate::state::draft::{CursorDraft, DecideError, Draft};
use crate::state::effect::{
    DeadLetter, DeadReason, Effect, GroupIndex, LeaseToken, Progress, Sequence,
};

/// Bytes of dead letters that one verdict makes at most: no lease holds as much, and it fits into an
/// append beside what else is committed.
const LETTER_BYTES_MAX: usize = 32 << 20;
/// Ranges that acks may leave between messages that are open, and messages with attempts: each ack
/// writes all of them. Consumers that ack what they hold never come near.
const SCATTERED_MAX: usize = 2 * POP_MESSAGES_MAX as usize;
const SCATTERED: DecideError = DecideError::OverLimit {
    of: "separate ranges of settled messages",
    limit: SCATTERED_MAX as u64,
};

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
        if verdict != Verdict::Completed && count(&open) > u64::from(POP_MESSAGES_MAX) {
            // More than any lease holds: settling them all is one step, failing them is not.
            let (of, limit) = ("messages", u64::from(POP_MESSAGES_MAX));
            return Err(DecideError::OverLimit { of, limit }.into());
        }
        match verdict {
            Verdict::Completed => {
                settle(&mut cursor.progress, first, last)?;
                work.changed = true;
                let settled = u32::try_from(count(&open)).unwrap_or(u32::MAX);
                Ok(Acked { settled, ..Acked::default() })
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
        let is_left = u64::from(buried) < count(open);
        if is_left && !dead {
            cursor.progress.wait_until(self.now_ms + work.retry_delay_ms);
        }
        work.release |= is_left;
        Ok(Acked { buried, ..Acked::default() })
    }

    /// Counts a failed attempt for each message in `open`; those over the limit become dead
    /// letters and are settled. Returns how many did. On an error the draft is as it was, and
    /// `progress` is good for nothing.
    pub(super) fn fail(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        progress: &mut Progress,
        open: &[(Sequence, Sequence)],
        failure: &Failure<'_>,
    ) -> Result<u32, DecideError> {
        let (mut dead, had_attempts) = (Vec::new(), progress.attempts.len());
        for seq in open.iter().flat_map(|(from, to)| *from..*to) {
            let attempts = match failure.limit {
                Some(_) => progress.fail(seq),
                None => progress.attempts_of(seq),
            };
            if failure.limit.is_none_or(|limit| attempts > limit) {
                dead.push((seq, attempts));
            }
        }
        for (first, last) in stretches(&dead) {
            settle(progress, first, last)?;
        }
        if progress.attempts.len() > SCATTERED_MAX.max(had_attempts) {
            return Err(SCATTERED);
        }
        let letters = self.dead_letters(partition, group, &dead, failure)?;
        let mut earlier = Vec::new();
        for letter in &letters {
            let key = (letter.partition, letter.group, letter.seq);
            // A group that went back meets messages that it has letters of: the newer one counts.
            earlier.extend(self.dead_since(key)?.map(|failed_ms| (key, failed_ms)));
        }
        // From here on nothing fails.
        for (key, failed_ms) in earlier {
            self.exhume_one(key, failed_ms);
        }
        for letter in &letters {
            let key = (letter.partition, letter.group, letter.seq);
            self.letters.insert(key, Some(letter.failed_ms));
        }
        let buried = letters.len() as u32;
        self.effects.extend(letters.into_iter().map(Effect::Bury));
        Ok(buried)
    }

    /// The letters of messages in ascending order, each with its attempts.
    fn dead_letters(
        &self,
        partition: PartitionNumber,
        group: GroupIndex,
        dead: &[(Sequence, u32)],
        failure: &Failure<'_>,
    ) -> Result<Vec<DeadLetter>, DecideError> {
        let messages = self.read_all(partition, dead.iter().map(|(seq, _)| *seq))?;
        let letters = dead.iter().zip(messages).map(|((seq, attempts), message)| {
            let Single { batch, time_ms: pushed_ms, sub } = message;
            DeadLetter {
                partition,
                group,
                seq: *seq,
                pushed_ms,
                failed_ms: self.now_ms,
                is_again: false,
                attempts: *attempts,
                reason: failure.reason,
                error: failure.error.into(),
                sub,
                batch: batch.bytes().clone(),
            }
        });
        Ok(letters.collect())
    }

    /// Messages by their ascending sequences. Each run and each batch is read once, however many
    /// messages are asked of it.
    fn read_all(
        &self,
        partition: PartitionNumber,
        wanted: impl Iterator<Item = Sequence>,
    ) -> Result<Vec<Single>, DecideError> {
        let (mut wanted, mut found, mut bytes) = (wanted.peekable(), Vec::new(), 0);
        while let Some(seq) = wanted.peek().copied() {
            let missing = DecideError::BodyMissing { partition, seq };
            let runs = self.state.runs(self.context.kv, partition, seq, seq + 1)?;
            let run = runs.first().ok_or_else(|| missing.clone())?;
            let chunks = self.context.bodies.chunks(self.state.shard, run);
            for chunk in chunks.ok_or_else(|| missing.clone())? {
                let end = chunk.first_seq + u64::from(chunk.count);
                if wanted.peek().is_none_or(|seq| end <= *seq) {
                    continue;
                }
                let batch = RecordBatch::parse_trusted(chunk.batch);
                let batch = batch.map_err(|_| missing.clone())?;
                for (at, record) in (chunk.first_seq..end).zip(batch.records()) {
                    if wanted.next_if_eq(&at).is_some() {
                        let (batch, sub) = (batch.of_one(&record), chunk.sub.clone());
                        bytes += batch.bytes().len();
                        found.push(Single { batch, time_ms: chunk.time_ms, sub });
                    }
                    if bytes > LETTER_BYTES_MAX {
                        let (of, limit) = ("bytes of dead letters", LETTER_BYTES_MAX as u64);
                        return Err(DecideError::OverLimit { of, limit });
                    }
                }
            }
            if wanted.peek() == Some(&seq) {
                return Err(missing);
            }
        }
        Ok(found)
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

/// Settles messages, unless that would leave a group with too many ranges.
fn settle(progress: &mut Progress, first: Sequence, last: Sequence) -> Result<(), DecideError> {
    let before = progress.settled.len();
    if before < SCATTERED_MAX {
        progress.settle(first, last);
        return Ok(());
    }
    let mut settled = progress.clone();
    settled.settle(first, last);
    if settled.settled.len() > before {
        return Err(SCATTERED);
    }
    *progress = settled;
    Ok(())
}

fn count(ranges: &[(Sequence, Sequence)]) -> u64 {
    ranges.iter().map(|(from, to)| to - from).sum()
}

/// Ascending sequences as ranges of neighbours, first and last.
fn stretches(dead: &[(Sequence, u32)]) -> Vec<(Sequence, Sequence)> {
    let mut stretches: Vec<(Sequence, Sequence)> = Vec::new();
    for (seq, _) in dead {
        match stretches.last_mut() {
            Some((_, last)) if *last + 1 == *seq => *last = *seq,
            _ => stretches.push((*seq, *seq)),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_stops_where_it_would_leave_too_many_ranges_and_goes_on_where_it_joins_some() {
        let ranges = (0..SCATTERED_MAX as u64).map(|at| (3 * at + 1, 3 * at + 1)).collect();
        let mut progress = Progress { settled: ranges, ..Progress::default() };
        let behind = 3 * SCATTERED_MAX as u64 + 1;
        let before = progress.clone();
        assert_eq!(settle(&mut progress, behind, behind), Err(SCATTERED));
        assert_eq!(progress, before);
        settle(&mut progress, 2, 3).unwrap();
        assert_eq!(progress.settled.len(), SCATTERED_MAX - 1);
        settle(&mut progress, behind, behind).unwrap();
    }
}
