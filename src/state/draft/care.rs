//! Deciding what operators ask: dead letters back or away, messages deleted or buried, partitions
//! emptied.
//!
//! A dead letter that goes back opens its message for its own group where the message is still in the
//! partition and will be for long enough; else it becomes a message at the partition's end that only
//! its group gets. Either way the letter goes in the same entry, so it is never in two places and
//! never in none. Letters of a group that was deleted go back to the group of its name, once there is
//! one again: it may still have the message open, else it gets it at the partition's end. Until then
//! they stay, to be looked at, moved elsewhere or deleted.

use bytes::Bytes;
use onrush_protocol::batch::{BatchBuilder, NewRecord, Record, RecordBatch};

use crate::base::place::PartitionNumber;
use crate::state::care::Care;
use crate::state::care::graves::DeadKey;
use crate::state::classes::OWN_HEADER;
use crate::state::draft::ack::Failure;
use crate::state::draft::gates::Rules;
use crate::state::draft::push::{PushBatch, Pushed};
use crate::state::draft::{CursorDraft, DecideError, Draft};
use crate::state::effect::{DeadReason, Effect, GroupIndex, ProducerSub, Progress, Sequence};

/// Ranges that a group's progress may have before further letters wait until it has caught up.
const RANGES_MAX: usize = 4096;

/// What became of a dead letter that was to be moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LetterMove {
    /// It is where it was to go.
    Moved,
    /// There is no such letter, or not any more.
    Missing,
    /// Not now: a consumer of the group holds messages around it, or the group has too much open.
    Later,
    /// Its message is needed, and was not brought along.
    NeedsBody,
    /// Its group was deleted, and there is none of its name.
    NoGroup,
}

/// A letter's message.
#[derive(Clone, Debug)]
pub struct LetterBody {
    /// As a record batch of one.
    pub batch: Bytes,
    /// Who pushed it, where that is known.
    pub sub: Option<ProducerSub>,
}

/// A letter that is to be moved, by its sequence, and its message where somebody read it.
pub type LetterAsk = (Sequence, Option<LetterBody>);

/// How a message was deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deletion {
    /// It is deleted now.
    Done,
    /// There is no such message, or not any more.
    Missing,
}

impl Draft<'_> {
    /// When a dead letter's message failed; `None` where there is no such letter.
    pub(super) fn dead_since(&self, key: DeadKey) -> Result<Option<u64>, DecideError> {
        if let Some(decided) = self.letters.get(&key) {
            return Ok(*decided);
        }
        let place = self.state.dead_at(self.context.kv, key)?;
        Ok(place.map(|place| place.failed_ms))
    }

    /// Gives dead letters of one partition and group back to the group. One answer for each.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when rows cannot be read: nothing is decided.
    pub fn redrive(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        letters: &[LetterAsk],
    ) -> Result<Vec<LetterMove>, DecideError> {
        let since = self.all_since(partition, group, letters)?;
        let stays = letters.iter().map(|(seq, _)| self.stays(partition, *seq));
        let stays = stays.collect::<Result<Vec<bool>, _>>()?;
        let Some((to, mut cursor)) = self.receiver(partition, group) else {
            let moves = since.into_iter().map(|since| match since {
                Some(_) => LetterMove::NoGroup,
                None => LetterMove::Missing,
            });
            return Ok(moves.collect());
        };
        let (mut reopened, mut moves) = (Vec::new(), Vec::with_capacity(letters.len()));
        for (((seq, body), failed_ms), stays) in letters.iter().zip(since).zip(stays) {
            let Some(failed_ms) = failed_ms else {
                moves.push(LetterMove::Missing);
                continue;
            };
            let is_held = cursor.lease.is_some_and(|it| (it.from..it.to).contains(seq));
            if is_held || cursor.progress.settled.len() >= RANGES_MAX {
                moves.push(LetterMove::Later);
            } else if stays && to != group && !cursor.progress.is_settled(*seq) {
                self.exhume_one((partition, group, *seq), failed_ms);
                moves.push(LetterMove::Moved);
            } else if stays && to == group {
                cursor.progress.reopen(*seq);
                reopened.push((*seq, failed_ms));
                self.letters.insert((partition, group, *seq), None);
                moves.push(LetterMove::Moved);
            } else if let Some(body) = body {
                let done = self.append_for(partition, to, &mut cursor.progress, body);
                if done {
                    self.exhume_one((partition, group, *seq), failed_ms);
                }
                moves.push(if done { LetterMove::Moved } else { LetterMove::Missing });
            } else {
                moves.push(LetterMove::NeedsBody);
            }
        }
        if !reopened.is_empty() {
            reopened.sort_unstable();
            let care = Care::Reopen { partition, group, letters: reopened };
            self.effects.push(Effect::Care(care));
        }
        self.put_cursor(partition, to, cursor);
        Ok(moves)
    }

    /// Who gets letters of a group back: the group, or the one that came by its name after it.
    fn receiver(
        &self,
        partition: PartitionNumber,
        group: GroupIndex,
    ) -> Option<(GroupIndex, CursorDraft)> {
        if let Some(cursor) = self.cursor(partition, group) {
            return Some((group, cursor));
        }
        let ended = self.state.group_at(group)?;
        let heir = self.state.group(ended.queue, &ended.name)?;
        self.cursor(partition, heir).map(|cursor| (heir, cursor))
    }

    /// Takes dead letters away for good. One answer for each.
    ///
    /// # Errors
    /// As [`Self::redrive`].
    pub fn exhume(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        letters: &[LetterAsk],
    ) -> Result<Vec<LetterMove>, DecideError> {
        let since = self.all_since(partition, group, letters)?;
        let (mut gone, mut moves) = (Vec::new(), Vec::with_capacity(letters.len()));
        for ((seq, _), failed_ms) in letters.iter().zip(since) {
            match failed_ms {
                Some(failed_ms) => {
                    self.letters.insert((partition, group, *seq), None);
                    gone.push((*seq, failed_ms));
                    moves.push(LetterMove::Moved);
                }
                None => moves.push(LetterMove::Missing),
            }
        }
        if !gone.is_empty() {
            let care = Care::Exhume { partition, group, letters: gone };
            self.effects.push(Effect::Care(care));
        }
        Ok(moves)
    }

    /// Pushes a dead letter's message as a new one, without its transaction id: that one names the
    /// message that died.
    ///
    /// # Errors
    /// [`DecideError::BodyMissing`] when it is no message; else as pushing says.
    pub fn push_again(
        &mut self,
        partition: PartitionNumber,
        body: &LetterBody,
    ) -> Result<(), DecideError> {
        let missing = DecideError::BodyMissing { partition, seq: 0 };
        let batch = renamed(&body.batch).ok_or(missing)?;
        let (fingerprints, sub) = (Vec::new(), body.sub.clone());
        self.push(partition, &PushBatch { batch, fingerprints, sub })?;
        Ok(())
    }

    /// Deletes a message: it is settled for every group, and no letter of it is left.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when rows cannot be read: nothing is decided.
    pub fn erase(
        &mut self,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> Result<Deletion, DecideError> {
        let groups = self.groups_in(partition);
        let ended = self.state.dead_of_ended(partition).map(|(group, _)| group);
        let mut letters = Vec::new();
        for group in groups.iter().copied().chain(ended) {
            if let Some(failed_ms) = self.dead_since((partition, group, seq))? {
                letters.push((group, failed_ms));
            }
        }
        let is_kept = self.keeps(partition, seq);
        if !is_kept && letters.is_empty() {
            return Ok(Deletion::Missing);
        }
        for (group, failed_ms) in letters {
            self.exhume_one((partition, group, seq), failed_ms);
        }
        if !is_kept {
            return Ok(Deletion::Done);
        }
        self.erased.insert((partition, seq));
        self.effects.push(Effect::Care(Care::Erase { partition, seq }));
        for group in groups {
            let Some(mut cursor) = self.cursor(partition, group) else { continue };
            if !cursor.progress.is_settled(seq) {
                cursor.progress.settle(seq, seq);
                match is_done(&cursor) {
                    true => self.settle(partition, group, cursor, true),
                    false => self.put_cursor(partition, group, cursor),
                }
            }
        }
        Ok(Deletion::Done)
    }

    /// Makes dead letters of a message, for one group or for all that have not settled it. Returns how
    /// many; `None` where there is no such message or group.
    ///
    /// # Errors
    /// [`DecideError`] when its body cannot be read: nothing is decided for that group.
    pub fn bury(
        &mut self,
        partition: PartitionNumber,
        seq: Sequence,
        group: Option<&str>,
        error: &str,
    ) -> Result<Option<u32>, DecideError> {
        let queue = self.state.partition(partition).map(|it| it.queue);
        let (Some(queue), true) = (queue, self.keeps(partition, seq)) else { return Ok(None) };
        let groups = match group.map(|name| self.state.group(queue, name)) {
            None => self.groups_in(partition),
            Some(Some(group)) => vec![group],
            Some(None) => return Ok(None),
        };
        let mut buried = 0;
        for group in groups {
            let Some(mut cursor) = self.cursor(partition, group) else { continue };
            let open = cursor.progress.open_ranges(seq, seq + 1);
            if open.is_empty() {
                continue;
            }
            let failure = Failure { reason: DeadReason::Asked, error, limit: None };
            buried += self.fail(partition, group, &mut cursor.progress, &open, &failure)?;
            let release = is_done(&cursor);
            self.settle(partition, group, cursor, release);
        }
        Ok(Some(buried))
    }

    /// Lets go of all messages of a partition; leases on them end. Returns how many there were.
    pub fn clear(&mut self, partition: PartitionNumber) -> u64 {
        let Some(held) = self.state.partition(partition) else { return 0 };
        let (base, end) = (self.trimmed.get(&partition).copied(), held.next_seq);
        let base = base.unwrap_or(held.base_seq);
        if base >= end {
            return 0;
        }
        for group in self.groups_in(partition) {
            let Some(mut cursor) = self.cursor(partition, group) else { continue };
            if cursor.lease.is_some() {
                cursor.progress.advance_to(end);
                self.settle(partition, group, cursor, true);
            }
        }
        self.cut(partition, end);
        end - base
    }

    fn groups_in(&self, partition: PartitionNumber) -> Vec<GroupIndex> {
        let cursors = self.state.partition(partition).map(|it| it.cursors.as_slice());
        cursors.unwrap_or_default().iter().map(|cursor| cursor.group).collect()
    }

    fn all_since(
        &self,
        partition: PartitionNumber,
        group: GroupIndex,
        letters: &[LetterAsk],
    ) -> Result<Vec<Option<u64>>, DecideError> {
        letters.iter().map(|(seq, _)| self.dead_since((partition, group, *seq))).collect()
    }

    pub(super) fn exhume_one(&mut self, key: DeadKey, failed_ms: u64) {
        let (partition, group, seq) = key;
        self.letters.insert(key, None);
        let letters = vec![(seq, failed_ms)];
        self.effects.push(Effect::Care(Care::Exhume { partition, group, letters }));
    }

    /// Whether a message is in its partition and was not deleted.
    fn keeps(&self, partition: PartitionNumber, seq: Sequence) -> bool {
        let kept = self.state.partition(partition);
        let kept = kept.is_some_and(|it| (it.base_seq..it.next_seq).contains(&seq));
        let is_cut = self.trimmed.get(&partition).is_some_and(|base| seq < *base);
        let is_erased = self.erased.contains(&(partition, seq));
        kept && !is_cut && !is_erased && !self.state.erased().has(partition, seq)
    }

    /// Whether a message is in its partition, and is not about to go by its age: what goes back to its
    /// group must not be lost to retention before somebody had time to take it.
    fn stays(&self, partition: PartitionNumber, seq: Sequence) -> Result<bool, DecideError> {
        if !self.keeps(partition, seq) {
            return Ok(false);
        }
        let queue = self.state.partition(partition).map(|it| it.queue);
        let queue = queue.and_then(|queue| self.context.catalog.get(queue));
        let Some(oldest_ms) = queue.map(|queue| Rules::of(queue).age_ms()) else {
            return Ok(false);
        };
        if oldest_ms == 0 {
            return Ok(true);
        }
        let runs = self.state.runs(self.context.kv, partition, seq, seq + 1)?;
        let age_ms = runs.first().map_or(u64::MAX, |it| self.now_ms.saturating_sub(it.time_ms));
        Ok(age_ms.saturating_mul(2) < oldest_ms)
    }

    /// Appends a message that only one group is to get; false where it is no message.
    fn append_for(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        progress: &mut Progress,
        body: &LetterBody,
    ) -> bool {
        let Ok(batch) = RecordBatch::parse_trusted(body.batch.clone()) else { return false };
        let (fingerprints, sub) = (Vec::new(), body.sub.clone());
        let pushed = self.push(partition, &PushBatch { batch, fingerprints, sub });
        let Ok(Pushed::Stored { first_seq, .. }) = pushed else { return false };
        let others = self.groups_in(partition).into_iter().filter(|other| *other != group);
        for other in others.collect::<Vec<_>>() {
            let Some(mut cursor) = self.cursor(partition, other) else { continue };
            cursor.progress.settle(first_seq, first_seq);
            self.settle(partition, other, cursor, false);
        }
        progress.attempts.retain(|(seq, _)| *seq != first_seq);
        true
    }
}

/// Whether a lease has nothing left to settle.
fn is_done(cursor: &CursorDraft) -> bool {
    let lease = cursor.lease.as_ref();
    lease.is_some_and(|lease| cursor.progress.open_ranges(lease.from, lease.to).is_empty())
}

/// The message of a batch of one, without its transaction id; `None` where it is no message.
#[must_use]
pub fn renamed(body: &Bytes) -> Option<RecordBatch> {
    let batch = RecordBatch::parse_trusted(body.clone()).ok()?;
    let record = batch.records().next()?;
    if record.transaction_id.is_none() {
        return Some(batch.clone());
    }
    written_again(Record { transaction_id: None, ..record }, |_| true)
}

/// The message of a batch of one without what processes wrote on it: in another queue it would not be
/// true. `None` where there is nothing of the kind, or no message.
#[must_use]
pub fn disowned(batch: &RecordBatch) -> Option<RecordBatch> {
    let record = batch.records().next()?;
    record.headers.get(OWN_HEADER)?;
    written_again(record, |key| key != OWN_HEADER)
}

fn written_again(record: Record<'_>, keeps: impl Fn(&str) -> bool) -> Option<RecordBatch> {
    let headers: Vec<(&str, &[u8])> = record.headers.filter(|(key, _)| keeps(key)).collect();
    let mut builder = BatchBuilder::new();
    let record = NewRecord {
        transaction_id: record.transaction_id,
        trace_id: record.trace_id,
        headers: &headers,
        is_json: record.is_json,
        payload: record.payload,
    };
    builder.push(&record).ok()?;
    builder.finish()
}
