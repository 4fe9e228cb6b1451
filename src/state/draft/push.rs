//! Deciding pushes: which partition, which sequence, new or duplicate.
//!
//! A batch without transaction ids costs one step whatever its size. Ids are decided in one pass
//! over the batch's fingerprints: against this draft, then the shard's ledger.

use onrush_protocol::batch::RecordBatch;

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::draft::{Context, DecideError, Draft};
use crate::state::effect::{Effect, Sequence};
use crate::state::ledger::First;
use crate::state::single;

/// A batch on its way into a partition.
#[derive(Clone, Debug)]
pub struct PushBatch {
    /// The batch, checked.
    pub batch: RecordBatch,
    /// One fingerprint per record, 0 where it has no id; empty when none has.
    pub fingerprints: Vec<u128>,
}

/// What became of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pushed {
    /// All of it is new.
    Stored {
        /// Sequence of the first record; the others follow densely.
        first_seq: Sequence,
        /// Records.
        count: u32,
        /// When, unix milliseconds.
        time_ms: u64,
    },
    /// Some records are duplicates: one outcome per record, in order.
    Mixed(Vec<RecordOutcome>),
}

/// What became of one record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordOutcome {
    /// The message that stands for it: itself, or the first one with its id.
    pub message: First,
    /// Whether there was one before.
    pub duplicate: bool,
}

/// An id that this draft is about to store, with its text for comparison.
#[derive(Clone, Debug)]
pub(super) struct NewId {
    first: First,
    text: Box<str>,
}

impl Draft<'_> {
    /// The number of a partition, which is created if it is new. `hash` is its placing hash.
    ///
    /// # Errors
    /// [`DecideError::QueueGone`], [`DecideError::NumbersExhausted`].
    pub fn place(
        &mut self,
        queue: QueueId,
        name: &str,
        hash: u64,
    ) -> Result<PartitionNumber, DecideError> {
        if let Some(number) = self.state.find(queue, name, hash) {
            return Ok(number);
        }
        if self.context.catalog.get(queue).is_none() {
            return Err(DecideError::QueueGone);
        }
        let key = (queue, Box::from(name));
        if let Some(number) = self.new_partitions.get(&key) {
            return Ok(*number);
        }
        let local = self.state.partitions.len() + self.new_partitions.len();
        let local = u32::try_from(local).map_err(|_| DecideError::NumbersExhausted)?;
        let number = self.state.shards.number(self.state.shard, local);
        let number = number.ok_or(DecideError::NumbersExhausted)?;
        self.register_known_groups(queue);
        self.effects.push(Effect::CreatePartition { number, queue, name: name.into() });
        self.new_partitions.insert(key, number);
        Ok(number)
    }

    /// Appends a batch to a placed partition, without its duplicates.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when the ledger cannot be read: nothing of the batch is taken.
    pub fn push(
        &mut self,
        partition: PartitionNumber,
        push: &PushBatch,
    ) -> Result<Pushed, DecideError> {
        let state = self.state;
        let head = *self.heads.entry(partition).or_insert_with(|| {
            state.partition(partition).map_or(0, |partition| partition.next_seq)
        });
        if push.fingerprints.is_empty() {
            return Ok(self.append(partition, head, push.batch.clone(), Vec::new()));
        }
        let found = self.find_all(partition, push)?;
        let mut outcomes = Vec::with_capacity(found.len());
        let mut next = head;
        for (first, record) in found.iter().zip(push.batch.records()) {
            let own = First { seq: next, time_ms: self.now_ms };
            let index = outcomes.len();
            let fingerprint = push.fingerprints.get(index).copied().unwrap_or(0);
            // An id that stands twice in one batch: the first one is in `new_ids` by now.
            let earlier = first.or_else(|| self.in_draft(partition, fingerprint, &record));
            if earlier.is_none() {
                next += 1;
                if let Some(text) = record.transaction_id {
                    let id = NewId { first: own, text: text.into() };
                    self.new_ids.insert((partition, fingerprint), id);
                }
            }
            let message = earlier.unwrap_or(own);
            outcomes.push(RecordOutcome { message, duplicate: earlier.is_some() });
        }
        if outcomes.iter().all(|outcome| !outcome.duplicate) {
            let fingerprints = push.fingerprints.clone();
            return Ok(self.append(partition, head, push.batch.clone(), fingerprints));
        }
        let is_new = |index: usize| outcomes.get(index).is_some_and(|it| !it.duplicate);
        if let Some(batch) = push.batch.filter(is_new) {
            let kept = push.fingerprints.iter().enumerate().filter(|(index, _)| is_new(*index));
            let fingerprints = kept.map(|(_, fingerprint)| *fingerprint).collect();
            self.append(partition, head, batch, fingerprints);
        }
        Ok(Pushed::Mixed(outcomes))
    }

    fn append(
        &mut self,
        partition: PartitionNumber,
        first_seq: Sequence,
        batch: RecordBatch,
        fingerprints: Vec<u128>,
    ) -> Pushed {
        let (count, time_ms) = (batch.count(), self.now_ms);
        self.heads.insert(partition, first_seq + u64::from(count));
        let batch = batch.bytes().clone();
        self.effects.push(Effect::Append { partition, first_seq, count, fingerprints, batch });
        Pushed::Stored { first_seq, count, time_ms }
    }

    /// For each record, the earlier message with its id.
    fn find_all(
        &self,
        partition: PartitionNumber,
        push: &PushBatch,
    ) -> Result<Vec<Option<First>>, DecideError> {
        let mut found = Vec::with_capacity(push.fingerprints.len());
        for (fingerprint, record) in push.fingerprints.iter().zip(push.batch.records()) {
            found.push(match record.transaction_id {
                None => None,
                Some(text) => match self.in_draft(partition, *fingerprint, &record) {
                    Some(first) => Some(first),
                    None => self.in_ledger(partition, *fingerprint, text)?,
                },
            });
        }
        Ok(found)
    }

    fn in_draft(
        &self,
        partition: PartitionNumber,
        fingerprint: u128,
        record: &onrush_protocol::batch::Record<'_>,
    ) -> Option<First> {
        let text = record.transaction_id?;
        let id = self.new_ids.get(&(partition, fingerprint))?;
        (*id.text == *text).then_some(id.first)
    }

    fn in_ledger(
        &self,
        partition: PartitionNumber,
        fingerprint: u128,
        text: &str,
    ) -> Result<Option<First>, DecideError> {
        let Context { kv, dedup, .. } = self.context;
        let first = self.state.ledger.find(kv, dedup, self.now_ms, partition, fingerprint)?;
        let Some(first) = first else { return Ok(None) };
        // Two texts with one keyed 128-bit fingerprint are not to be expected, but a message lost
        // to a collision could not be explained to anybody. A body that retention took away
        // cannot be compared; then the fingerprint decides.
        let stored = self.stored_id(partition, first.seq)?;
        Ok(stored.is_none_or(|stored| *stored == *text).then_some(first))
    }

    fn stored_id(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> Result<Option<Box<str>>, DecideError> {
        let runs = self.state.runs(self.context.kv, partition, seq, seq + 1)?;
        let Some(run) = runs.first() else { return Ok(None) };
        let record = single(self.context.bodies, self.state.shard, run, seq);
        let Some((batch, _)) = record else { return Ok(None) };
        let id = batch.records().next().and_then(|record| record.transaction_id.map(Into::into));
        Ok(id)
    }
}
