//! Transaction ids: which were seen, and which message they named first.
//!
//! New ids stay in memory until a checkpoint makes them rows of a time generation; a generation is
//! dropped whole when all of it is older than the horizon. So the ledger costs memory only for what
//! came since the last checkpoint. Pure but for reading rows. Read by `draft`, changed by `apply`.

use hashbrown::HashMap;

use crate::base::place::PartitionNumber;
use crate::state::effect::Sequence;
use crate::state::kv::{Kv, KvError, RowChange, Space};
use crate::state::rows;

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

type Ids = HashMap<(PartitionNumber, u128), First, foldhash::fast::RandomState>;

/// Ids since the last checkpoint, and those on their way into rows.
#[derive(Debug, Default)]
pub struct Ledger {
    recent: Ids,
    flushing: Ids,
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
        let key = (partition, fingerprint);
        let within = |first: &First| first.time_ms.saturating_add(policy.horizon_ms) > now_ms;
        if let Some(first) = self.recent.get(&key).or_else(|| self.flushing.get(&key)) {
            return Ok(Some(*first).filter(within));
        }
        let row_key = rows::dedup_key(partition, fingerprint);
        let oldest = policy.oldest(now_ms);
        for generation in kv.generations().into_iter().rev().take_while(|it| *it >= oldest) {
            if let Some(value) = kv.get(Space::Dedup(generation), &row_key)? {
                let first = rows::read_pair(&value).map(|(seq, time_ms)| First { seq, time_ms });
                return Ok(first.filter(within));
            }
        }
        Ok(None)
    }

    /// Ids that are only in memory.
    #[must_use]
    pub fn recent_len(&self) -> usize {
        self.recent.len()
    }

    pub(super) fn insert(&mut self, partition: PartitionNumber, fingerprint: u128, first: First) {
        self.recent.insert((partition, fingerprint), first);
    }

    pub(super) fn begin_flush(&mut self, policy: DedupPolicy, rows_out: &mut Vec<RowChange>) {
        let recent = std::mem::take(&mut self.recent);
        if self.flushing.is_empty() {
            self.flushing = recent;
        } else {
            // An earlier flush that never finished is still here: its ids go along again.
            self.flushing.extend(recent);
        }
        for ((partition, fingerprint), first) in &self.flushing {
            rows_out.push(RowChange {
                space: Space::Dedup(policy.generation(first.time_ms)),
                key: rows::dedup_key(*partition, *fingerprint).to_vec(),
                value: Some(rows::pair_value(first.seq, first.time_ms)),
            });
        }
    }

    pub(super) fn end_flush(&mut self) {
        self.flushing = Ids::default();
    }
}
