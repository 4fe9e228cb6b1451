//! Transaction ids: which were seen, and which message they named first.
//!
//! New ids stay in memory until a checkpoint makes them rows of a time generation; a generation is
//! dropped whole when all of it is older than the horizon. So the ledger costs memory only for what
//! came since the last checkpoint. Pure but for reading rows. Read by `draft`, changed by `apply`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::place::PartitionNumber;
use crate::state::effect::Sequence;
use crate::state::kv::{IdRow, Kv, KvError};

/// How long ids are remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DedupPolicy {
    /// An id within this many milliseconds of its first push is a duplicate.
    pub horizon_ms: u64,
    /// Ids of this many milliseconds share a generation.
    pub generation_ms: u64,
}

impl DedupPolicy {
    /// The generation of a time.
    #[must_use]
    pub fn generation(&self, time_ms: u64) -> u32 {
        u32::try_from(time_ms / self.generation_ms.max(1)).unwrap_or(u32::MAX)
    }

    /// The oldest generation that still matters at `now_ms`.
    #[must_use]
    pub fn oldest(&self, now_ms: u64) -> u32 {
        self.generation(now_ms.saturating_sub(self.horizon_ms))
    }
}

impl Default for DedupPolicy {
    /// Seven days in generations of one.
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Self { horizon_ms: 7 * DAY_MS, generation_ms: DAY_MS }
    }
}

/// The first message of a transaction id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct First {
    /// Its sequence.
    pub seq: Sequence,
    /// When it was pushed, unix milliseconds.
    pub time_ms: u64,
}

/// A partition and a fingerprint, in the least space: 20 bytes instead of 32.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key([u32; 5]);

impl Hash for Key {
    /// The fingerprint is a keyed hash already: a part of it is enough, mixed with the partition.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [partition, low, high, ..] = self.0;
        state.write_u64(
            (u64::from(high) << 32 | u64::from(low)) ^ u64::from(partition).rotate_left(32),
        );
    }
}

impl Key {
    pub(super) fn new(partition: PartitionNumber, fingerprint: u128) -> Self {
        let part = |shift: u32| (fingerprint >> shift) as u32;
        Self([partition, part(0), part(32), part(64), part(96)])
    }

    fn partition(self) -> PartitionNumber {
        let [partition, ..] = self.0;
        partition
    }

    fn fingerprint(self) -> u128 {
        let [_, parts @ ..] = self.0;
        parts.iter().rev().fold(0, |high, part| high << 32 | u128::from(*part))
    }
}

/// Ids of a shard that room is kept for after a checkpoint: of 64 shards together about 13 MiB.
const ROOM_MAX: usize = 4096;

type Ids = HashMap<Key, First, foldhash::fast::RandomState>;

/// Ids of a checkpoint, on their way into rows.
#[derive(Clone, Debug, Default)]
pub struct Flushed {
    ids: Arc<Ids>,
    policy: DedupPolicy,
}

impl Flushed {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// As rows, in any order.
    pub fn rows(&self) -> impl Iterator<Item = IdRow> {
        self.ids.iter().map(|(key, first)| IdRow {
            generation: self.policy.generation(first.time_ms),
            partition: key.partition(),
            fingerprint: key.fingerprint(),
            seq: first.seq,
            time_ms: first.time_ms,
        })
    }
}

/// Ids since the last checkpoint, and those on their way into rows.
#[derive(Debug, Default)]
pub struct Ledger {
    recent: Ids,
    flushing: Arc<Ids>,
}

impl Ledger {
    /// The first message with this id, if it is within the horizon at `now_ms`.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn find(
        &self,
        kv: &dyn Kv,
        policy: DedupPolicy,
        now_ms: u64,
        partition: PartitionNumber,
        fingerprint: u128,
    ) -> Result<Option<First>, KvError> {
        let found = self.find_all(kv, policy, now_ms, partition, &[fingerprint])?;
        Ok(found.into_iter().next().flatten())
    }

    /// As [`Self::find`], for several ids of one partition; one answer for each, in their order. 0
    /// stands for no id.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn find_all(
        &self,
        kv: &dyn Kv,
        policy: DedupPolicy,
        now_ms: u64,
        partition: PartitionNumber,
        fingerprints: &[u128],
    ) -> Result<Vec<Option<First>>, KvError> {
        let in_memory = |fingerprint: &u128| {
            let key = Key::new(partition, *fingerprint);
            self.recent.get(&key).or_else(|| self.flushing.get(&key)).copied()
        };
        let mut found: Vec<Option<First>> = fingerprints.iter().map(in_memory).collect();
        let is_open = |(fingerprint, first): (&u128, &Option<First>)| {
            (*fingerprint != 0 && first.is_none()).then_some(*fingerprint)
        };
        let open: Vec<u128> = fingerprints.iter().zip(&found).filter_map(is_open).collect();
        let rows = kv.find_ids(partition, &open, policy.oldest(now_ms))?;
        let unknown = fingerprints.iter().zip(&mut found);
        let unknown = unknown.filter(|(fingerprint, first)| **fingerprint != 0 && first.is_none());
        for ((_, first), row) in unknown.zip(rows) {
            *first = row.map(|row| First { seq: row.seq, time_ms: row.time_ms });
        }
        let within = |first: &First| first.time_ms.saturating_add(policy.horizon_ms) > now_ms;
        Ok(found.into_iter().map(|first| first.filter(within)).collect())
    }

    /// Ids that are only in memory.
    #[must_use]
    pub fn recent_len(&self) -> usize {
        self.recent.len()
    }

    pub(super) fn insert(&mut self, partition: PartitionNumber, fingerprint: u128, first: First) {
        self.recent.insert(Key::new(partition, fingerprint), first);
    }

    pub(super) fn begin_flush(&mut self, policy: DedupPolicy) -> Flushed {
        // As many come again, most likely: growing step by step costs as much as putting them in.
        let room = self.recent.len().min(ROOM_MAX);
        let next = Ids::with_capacity_and_hasher(room, Default::default());
        let mut ids = std::mem::replace(&mut self.recent, next);
        if !self.flushing.is_empty() {
            // An earlier flush that never finished is still here: its ids go along again.
            let newer = std::mem::replace(&mut ids, Ids::clone(&self.flushing));
            ids.extend(newer);
        }
        self.flushing = Arc::new(ids);
        Flushed { ids: Arc::clone(&self.flushing), policy }
    }

    pub(super) fn end_flush(&mut self) {
        self.flushing = Arc::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_every_bit() {
        let fingerprint = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
        let key = Key::new(7, fingerprint);
        assert_eq!((key.partition(), key.fingerprint()), (7, fingerprint));
        assert_eq!(size_of::<(Key, First)>(), 40);
    }
}
