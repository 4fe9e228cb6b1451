//! Deciding pushes: which partition, which sequence, new or duplicate.
//!
//! A batch without transaction ids costs one step whatever its size. Ids are decided over the batch's
//! fingerprints alone, against the shard's ledger and this draft; records are only read where a
//! fingerprint is found, to compare the ids themselves.

use onrush_protocol::batch::RecordBatch;

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::draft::{Context, DecideError, Draft};
use crate::state::effect::{Effect, ProducerSub, Sequence};
use crate::state::ledger::{First, Key};
use crate::state::model::Run;
use crate::state::single;

/// A batch on its way into a partition.
#[derive(Clone, Debug)]
pub struct PushBatch {
    /// The batch, checked.
    pub batch: RecordBatch,
    /// One fingerprint per record, 0 where it has no id; empty when none has.
    pub fingerprints: Vec<u128>,
    /// Who pushes it, where that is known.
    pub sub: Option<ProducerSub>,
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

/// How many messages a queue still takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// How many.
    pub left: u64,
    /// The queue's limit.
    pub limit: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: u64::MAX, limit: u64::MAX }
    }
}

impl Room {
    fn take(&self, count: u64) -> Result<(), DecideError> {
        let Self { left, limit } = *self;
        if count > left { Err(DecideError::QueueFull { limit }) } else { Ok(()) }
    }
}

impl Draft<'_> {
    /// The number of a partition, which is created if it is new. `hash` is its placing hash.
    ///
    /// # Errors
    /// [`DecideError::QueueGone`], [`DecideError::NumbersExhausted`]; [`DecideError::Kv`] when rows
    /// cannot be read that tell where a group begins.
    pub fn place(
        &mut self,
        queue: QueueId,
        name: &str,
        hash: u64,
    ) -> Result<PartitionNumber, DecideError> {
        let number = self.find_or_create(queue, name, hash)?;
        if self.context.catalog.seals(queue) {
            self.sealed_only.insert(number, ());
        }
        Ok(number)
    }

    fn find_or_create(
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
        self.register_known_groups(queue)?;
        self.effects.push(Effect::CreatePartition { number, queue, name: name.into() });
        self.new_partitions.insert(key, number);
        Ok(number)
    }

    /// Appends a batch to a placed partition, without its duplicates.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when the ledger cannot be read, [`DecideError::NotSealed`]: nothing of the
    /// batch is taken.
    pub fn push(
        &mut self,
        partition: PartitionNumber,
        push: &PushBatch,
    ) -> Result<Pushed, DecideError> {
        self.push_within(partition, push, Room::default())
    }

    /// As [`Self::push`], into a queue that has so much room. Duplicates need none.
    ///
    /// # Errors
    /// As [`Self::push`]; and [`DecideError::QueueFull`]: nothing of the batch is taken.
    pub fn push_within(
        &mut self,
        partition: PartitionNumber,
        push: &PushBatch,
        room: Room,
    ) -> Result<Pushed, DecideError> {
        if self.sealed_only.contains_key(&partition) && !push.batch.is_sealed() {
            return Err(DecideError::NotSealed);
        }
        let state = self.state;
        let head = self.heads.get(&partition).copied().unwrap_or_else(|| {
            state.partition(partition).map_or(0, |partition| partition.next_seq)
        });
        if push.fingerprints.is_empty() {
            room.take(u64::from(push.batch.count()))?;
            return Ok(self.append(partition, head, push, push.batch.clone(), Vec::new()));
        }
        let in_ledger = self.find_all(partition, push)?;
        let mut outcomes = Vec::with_capacity(in_ledger.len());
        let mut next = head;
        self.new_ids.reserve(in_ledger.len());
        for (index, (first, fingerprint)) in in_ledger.iter().zip(&push.fingerprints).enumerate() {
            let own = First { seq: next, time_ms: self.now_ms };
            // An id that stands twice in one batch: the first one is in `new_ids` by now.
            let earlier = first.or_else(|| self.in_draft(partition, push, index, head));
            if earlier.is_none() {
                next += 1;
                if *fingerprint != 0 {
                    self.new_ids.insert(Key::new(partition, *fingerprint), own);
                }
            }
            let message = earlier.unwrap_or(own);
            outcomes.push(RecordOutcome { message, duplicate: earlier.is_some() });
        }
        if let Err(full) = room.take(next - head) {
            let all = push.fingerprints.iter().zip(&outcomes);
            for (fingerprint, _) in all.filter(|(_, outcome)| !outcome.duplicate) {
                self.new_ids.remove(&Key::new(partition, *fingerprint));
            }
            return Err(full);
        }
        if outcomes.iter().all(|outcome| !outcome.duplicate) {
            let fingerprints = push.fingerprints.clone();
            return Ok(self.append(partition, head, push, push.batch.clone(), fingerprints));
        }
        let is_new = |index: usize| outcomes.get(index).is_some_and(|it| !it.duplicate);
        if let Some(batch) = push.batch.filter(is_new) {
            let kept = push.fingerprints.iter().enumerate().filter(|(index, _)| is_new(*index));
            let fingerprints = kept.map(|(_, fingerprint)| *fingerprint).collect();
            self.append(partition, head, push, batch, fingerprints);
        }
        Ok(Pushed::Mixed(outcomes))
    }

    /// Appends `batch`, all of a push or what is new of it.
    fn append(
        &mut self,
        partition: PartitionNumber,
        first_seq: Sequence,
        push: &PushBatch,
        batch: RecordBatch,
        fingerprints: Vec<u128>,
    ) -> Pushed {
        let (count, time_ms) = (batch.count(), self.now_ms);
        self.heads.insert(partition, first_seq + u64::from(count));
        let (batch, sub) = (batch.bytes().clone(), push.sub.clone());
        self.effects.push(Effect::Append { partition, first_seq, count, fingerprints, sub, batch });
        Pushed::Stored { first_seq, count, time_ms }
    }

    /// For each record, the earlier message with its id that is known without this draft.
    fn find_all(
        &self,
        partition: PartitionNumber,
        push: &PushBatch,
    ) -> Result<Vec<Option<First>>, DecideError> {
        let Context { kv, dedup, .. } = self.context;
        let (ledger, fingerprints) = (&self.state.ledger, &push.fingerprints);
        let mut found = ledger.find_all(kv, dedup, self.now_ms, partition, fingerprints)?;
        for (index, first) in found.iter_mut().enumerate() {
            if let Some(known) = first
                && !self.is_stored(partition, push, index, *known)?
            {
                *first = None;
            }
        }
        Ok(found)
    }

    /// The message of this draft that has the id of a record. `head` is where its batch begins.
    fn in_draft(
        &self,
        partition: PartitionNumber,
        push: &PushBatch,
        index: usize,
        head: Sequence,
    ) -> Option<First> {
        let fingerprint = *push.fingerprints.get(index).filter(|it| **it != 0)?;
        let first = *self.new_ids.get(&Key::new(partition, fingerprint))?;
        let earlier = match first.seq < head {
            true => self.effects.iter().find_map(|effect| match effect {
                Effect::Append { partition: of, first_seq, count, batch, .. }
                    if *of == partition
                        && (*first_seq..first_seq + u64::from(*count)).contains(&first.seq) =>
                {
                    let batch = RecordBatch::parse_trusted(batch.clone()).ok()?;
                    id_of(&batch, (first.seq - first_seq) as usize)
                }
                _ => None,
            }),
            false => {
                id_of(&push.batch, push.fingerprints.iter().position(|it| *it == fingerprint)?)
            }
        };
        (earlier? == id_of(&push.batch, index)?).then_some(first)
    }

    /// Whether a message in the store has not only the fingerprint of a record's id, but the id. Two
    /// texts with one keyed 128-bit fingerprint are not to be expected, but a message lost to a
    /// collision could not be explained to anybody. A body that retention took away cannot be
    /// compared, and one that is far is not worth making all pushes wait for a network; then the
    /// fingerprint decides.
    fn is_stored(
        &self,
        partition: PartitionNumber,
        push: &PushBatch,
        index: usize,
        first: First,
    ) -> Result<bool, DecideError> {
        let stored = self.stored_id(partition, first.seq)?;
        Ok(stored.is_none_or(|stored| id_of(&push.batch, index).is_some_and(|id| id == stored)))
    }

    fn stored_id(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> Result<Option<Box<str>>, DecideError> {
        let runs = self.state.runs(self.context.kv, partition, seq, seq + 1)?;
        let bodies = self.context.bodies;
        let is_near = |run: &&Run| bodies.is_near(self.state.shard, run);
        let Some(run) = runs.first().filter(is_near) else { return Ok(None) };
        let record = single(bodies, self.state.shard, run, seq);
        Ok(record.and_then(|it| id_of(&it.batch, 0)))
    }
}

/// The transaction id of a record.
fn id_of(batch: &RecordBatch, index: usize) -> Option<Box<str>> {
    batch.records().nth(index)?.transaction_id.map(Into::into)
}
