//! Where dead letters lie, and how many there are.
//!
//! Letters themselves lie in the log. Rows say where, twice: by partition, group and sequence, which
//! is how they are moved, and by group and time of failure, newest first, which is how people look at
//! them. What is not a row yet, or not gone from the rows yet, is in memory. Counts are always in
//! memory; a start takes them from the index. Changed by `apply`, read by everybody else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut};

use crate::base::place::{PartitionNumber, ShardId};
use crate::state::care::rows::{Kind, key as care_key};
use crate::state::effect::{GroupIndex, Sequence};
use crate::state::kv::{Kv, KvError, RowChange, Scan, Space};
use crate::state::{remove_range, rows};

/// Where a dead letter lies in the log, and when its message failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeadPlace {
    /// Log position of its effect.
    pub position: u64,
    /// Bytes of the effect.
    pub len: u32,
    /// When it failed for the last time, unix milliseconds; 0 where it was not noted.
    pub failed_ms: u64,
}

/// Which letter: partition, group, sequence.
pub type DeadKey = (PartitionNumber, GroupIndex, Sequence);

/// Where dead letters lie.
pub type DeadLetters = BTreeMap<DeadKey, DeadPlace>;

/// A letter in the order of the index: the group, the newest failure first, then the partition and
/// sequence that are highest.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct IndexKey {
    /// The group.
    pub group: GroupIndex,
    /// The bits of the time of failure, all turned over.
    since_end: u64,
    partition_from_end: u32,
    seq_from_end: u64,
}

impl IndexKey {
    /// Of a letter.
    #[must_use]
    pub fn new((partition, group, seq): DeadKey, failed_ms: u64) -> Self {
        let (since_end, partition_from_end, seq_from_end) = (!failed_ms, !partition, !seq);
        Self { group, since_end, partition_from_end, seq_from_end }
    }

    /// When the message failed.
    #[must_use]
    pub fn failed_ms(self) -> u64 {
        !self.since_end
    }

    /// Which letter it is.
    #[must_use]
    pub fn letter(self) -> DeadKey {
        (!self.partition_from_end, self.group, !self.seq_from_end)
    }

    /// Its place among letters of all groups and shards.
    #[must_use]
    pub fn rank(self) -> (u64, u32, u64) {
        (self.since_end, self.partition_from_end, self.seq_from_end)
    }

    #[expect(clippy::big_endian_bytes, reason = "byte order of keys must be number order")]
    fn row_key(self, shard: ShardId) -> Vec<u8> {
        let mut key = rows::shard_key(shard, self.group);
        key.put_slice(&self.since_end.to_be_bytes());
        key.put_slice(&self.partition_from_end.to_be_bytes());
        key.put_slice(&self.seq_from_end.to_be_bytes());
        key
    }

    fn parse(mut key: &[u8]) -> Option<Self> {
        key.try_get_u32().ok()?;
        Some(Self {
            group: key.try_get_u32().ok()?,
            since_end: key.try_get_u64().ok()?,
            partition_from_end: key.try_get_u32().ok()?,
            seq_from_end: key.try_get_u64().ok()?,
        })
    }
}

/// Reads rows of the index from `from` on, in its order, while they are of its group.
///
/// # Errors
/// [`KvError`] when rows cannot be read.
pub fn scan_index(
    kv: &dyn Kv,
    shard: ShardId,
    from: IndexKey,
    visit: &mut dyn FnMut(IndexKey, DeadPlace) -> Scan,
) -> Result<(), KvError> {
    let end = match from.group.checked_add(1) {
        Some(next) => rows::shard_key(shard, next),
        None => rows::shard_key(shard + 1, 0),
    };
    kv.scan(Space::Letters, &from.row_key(shard), &end, &mut |key, value| {
        let (Some(at), Some((position, len))) = (IndexKey::parse(key), rows::read_pair(value))
        else {
            return Scan::Continue;
        };
        visit(at, DeadPlace { position, len: len as u32, failed_ms: at.failed_ms() })
    })
}

/// Dead letters of one shard.
#[derive(Debug, Default)]
pub(in crate::state) struct Graves {
    /// Not rows yet: where they lie; `None` where they are gone and rows still have them.
    recent: BTreeMap<DeadKey, Option<DeadPlace>>,
    /// Rows of the index that are not true any more.
    stale: BTreeSet<IndexKey>,
    counts: BTreeMap<(PartitionNumber, GroupIndex), u64>,
    totals: BTreeMap<GroupIndex, u64>,
    writing: Vec<(DeadKey, Option<DeadPlace>)>,
    writing_stale: Vec<IndexKey>,
    /// Whether a row says that the index has all letters.
    is_marked: bool,
}

impl Graves {
    pub(in crate::state) fn recent(&self) -> &BTreeMap<DeadKey, Option<DeadPlace>> {
        &self.recent
    }

    pub(in crate::state) fn stale(&self) -> &BTreeSet<IndexKey> {
        &self.stale
    }

    pub(in crate::state) fn counts(&self) -> &BTreeMap<(PartitionNumber, GroupIndex), u64> {
        &self.counts
    }

    pub(in crate::state) fn totals(&self) -> &BTreeMap<GroupIndex, u64> {
        &self.totals
    }

    pub(in crate::state) fn change_count(&self) -> usize {
        self.recent.len() + self.stale.len()
    }

    /// A letter lies here from now on; it is a new one unless it is written again.
    pub(in crate::state) fn bury(&mut self, key: DeadKey, place: DeadPlace, is_new: bool) {
        let index = IndexKey::new(key, place.failed_ms);
        self.stale.remove(&index);
        self.recent.insert(key, Some(place));
        if is_new {
            self.count(key);
        }
    }

    fn count(&mut self, (partition, group, _): DeadKey) {
        *self.counts.entry((partition, group)).or_default() += 1;
        *self.totals.entry(group).or_default() += 1;
    }

    /// A letter is gone.
    pub(in crate::state) fn exhume(&mut self, key: DeadKey, failed_ms: u64) {
        let (partition, group, _) = key;
        self.recent.insert(key, None);
        self.stale.insert(IndexKey::new(key, failed_ms));
        take_one(&mut self.counts, (partition, group));
        take_one(&mut self.totals, group);
    }

    /// All letters of a partition are gone, and rows of it will be looked for.
    pub(in crate::state) fn drop_partition(&mut self, number: PartitionNumber) {
        let letters = (number, 0, 0)..=(number, GroupIndex::MAX, Sequence::MAX);
        remove_range(&mut self.recent, letters);
        let counts = self.counts.range((number, 0)..=(number, GroupIndex::MAX));
        let counts: Vec<_> = counts.map(|(key, count)| (*key, *count)).collect();
        for ((partition, group), count) in counts {
            self.counts.remove(&(partition, group));
            if let Some(total) = self.totals.get_mut(&group) {
                *total = total.saturating_sub(count);
            }
        }
        self.totals.retain(|_, total| *total > 0);
    }

    /// Rows for a checkpoint.
    pub(in crate::state) fn begin(&mut self, shard: ShardId, out: &mut Vec<RowChange>) {
        let space = Space::Letters;
        for index in &self.stale {
            out.push(RowChange { space, key: index.row_key(shard), value: None });
            self.writing_stale.push(*index);
        }
        for (at, place) in &self.recent {
            let (partition, group, seq) = *at;
            let key = rows::dead_key(partition, group, seq);
            let value = place.map(|place| rows::dead_value(&place));
            out.push(RowChange { space: Space::Dead, key, value });
            if let Some(place) = place {
                let key = IndexKey::new(*at, place.failed_ms).row_key(shard);
                let value = Some(rows::pair_value(place.position, u64::from(place.len)));
                out.push(RowChange { space, key, value });
            }
            self.writing.push((*at, *place));
        }
        if !self.is_marked {
            let key = care_key(shard, Kind::Marker, 0);
            out.push(RowChange { space: Space::Care, key, value: Some(vec![1]) });
            self.is_marked = true;
        }
    }

    /// The rows can be read.
    pub(in crate::state) fn end(&mut self) {
        for (key, place) in std::mem::take(&mut self.writing) {
            if self.recent.get(&key) == Some(&place) {
                self.recent.remove(&key);
            }
        }
        for index in std::mem::take(&mut self.writing_stale) {
            self.stale.remove(&index);
        }
    }

    /// Counts what rows have. Rows of a store that had no index yet are indexed with the next
    /// checkpoint.
    pub(in crate::state) fn load(
        &mut self,
        shard: ShardId,
        kv: &dyn Kv,
        is_ours: &dyn Fn(PartitionNumber) -> bool,
    ) -> Result<(), KvError> {
        self.is_marked = kv.get(Space::Care, &care_key(shard, Kind::Marker, 0))?.is_some();
        if self.is_marked {
            let (from, to) = (rows::shard_key(shard, 0), rows::shard_key(shard + 1, 0));
            return kv.scan(Space::Letters, &from, &to, &mut |key, _| {
                if let Some(index) = IndexKey::parse(key) {
                    self.count(index.letter());
                }
                Scan::Continue
            });
        }
        kv.scan(Space::Dead, &[], &[], &mut |key, value| {
            if let Some((key, place)) = rows::parse_dead(key, value)
                && is_ours(key.0)
            {
                self.bury(key, place, true);
            }
            Scan::Continue
        })
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Removals of a partition's rows, in both orders.
///
/// # Errors
/// [`KvError`] when rows cannot be read.
pub(in crate::state) fn removals(
    kv: &dyn Kv,
    shard: ShardId,
    partition: PartitionNumber,
    out: &mut Vec<RowChange>,
) -> Result<(), KvError> {
    let from = rows::dead_key(partition, 0, 0);
    let to = rows::dead_key(partition, u32::MAX, u64::MAX);
    kv.scan(Space::Dead, &from, &to, &mut |key, value| {
        out.push(RowChange { space: Space::Dead, key: key.to_vec(), value: None });
        if let Some((at, place)) = rows::parse_dead(key, value) {
            let key = IndexKey::new(at, place.failed_ms).row_key(shard);
            out.push(RowChange { space: Space::Letters, key, value: None });
        }
        Scan::Continue
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::kv::memory::MemoryKv;

    #[test]
    fn letters_of_a_store_without_an_index_are_counted_and_indexed() {
        let kv = MemoryKv::new();
        let key = rows::dead_key(7, 2, 9);
        // As rows were when they did not say when.
        let value = Some(rows::pair_value(100, 20));
        kv.write(&[RowChange { space: Space::Dead, key, value }]).unwrap();
        let mut graves = Graves::default();
        graves.load(3, &kv, &|number| number == 7).unwrap();
        assert_eq!(graves.counts().get(&(7, 2)), Some(&1));
        let mut rows = Vec::new();
        graves.begin(3, &mut rows);
        kv.write(&rows).unwrap();
        graves.end();
        let mut again = Graves::default();
        again.load(3, &kv, &|_| panic!("the index is enough")).unwrap();
        assert_eq!((again.counts(), again.totals()), (graves.counts(), graves.totals()));
        assert!(again.recent().is_empty() && graves.recent().is_empty());
        let mut seen = Vec::new();
        let from = IndexKey::new((u32::MAX, 2, u64::MAX), u64::MAX);
        scan_index(&kv, 3, from, &mut |at, place| {
            seen.push((at.letter(), place));
            Scan::Continue
        })
        .unwrap();
        assert_eq!(seen, [((7, 2, 9), DeadPlace { position: 100, len: 20, failed_ms: 0 })]);
    }

    #[test]
    fn the_index_goes_from_the_newest_failure_to_the_oldest() {
        let at =
            |failed_ms, partition, seq| IndexKey::new((partition, 1, seq), failed_ms).row_key(3);
        let keys = [at(9, 5, 5), at(8, 6, 1), at(8, 5, 7), at(8, 5, 6), at(0, 9, 9)];
        assert!(keys.is_sorted());
        let key = IndexKey::new((5, 1, 7), 8);
        assert_eq!(
            (IndexKey::parse(&at(8, 5, 7)), key.failed_ms(), key.letter()),
            (Some(key), 8, (5, 1, 7))
        );
    }
}
