//! Rows in memory, for tests: the seam's promises kept by maps, with crashes on request.
//!
//! In: batches of row changes. Out: rows in key order. What a crash loses is chosen by the test:
//! [`MemoryKv::crash`] takes back the newest batches that were not persisted, whole batches only, as
//! the disk store does. Called by tests of `state` and `shard`, and by simulated engines.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{IdRow, Kv, KvError, RowChange, Scan, Space, check_key};
use crate::base::place::{PartitionNumber, ShardCount, ShardId};

type Rows = BTreeMap<Bytes, Bytes>;
/// By generation, partition and fingerprint.
type Ids = BTreeMap<(u32, PartitionNumber, u128), IdRow>;

/// Ordered rows in memory. Nothing fails; everything is gone with the process.
#[derive(Debug, Default)]
pub struct MemoryKv {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    spaces: BTreeMap<Space, Rows>,
    ids: Ids,
    /// What each batch since the last `persist` replaced, oldest batch first.
    unpersisted: Vec<Vec<Replaced>>,
    crashes: Crashes,
}

/// What stood there before a batch touched it.
#[derive(Debug)]
enum Replaced {
    Row { space: Space, key: Bytes, value: Option<Bytes> },
    Id { key: (u32, PartitionNumber, u128), row: Option<IdRow> },
}

/// Whether the store remembers how to take back what was not persisted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Crashes {
    #[default]
    Never,
    Possible,
}

impl MemoryKv {
    /// An empty store that never crashes and keeps no history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose unpersisted batches can be taken back by [`Self::crash`]; it remembers
    /// every row replaced since the last `persist`.
    #[must_use]
    pub fn with_crashes() -> Self {
        let kv = Self::default();
        kv.inner.write().crashes = Crashes::Possible;
        kv
    }

    /// Batches that a crash could lose now.
    #[must_use]
    pub fn unpersisted(&self) -> usize {
        self.inner.read().unpersisted.len()
    }

    /// What the machine's crash does: the first `kept` unpersisted batches stay, later ones never
    /// happened. Dropped generations stay dropped.
    pub fn crash(&self, kept: usize) {
        let inner = &mut *self.inner.write();
        let kept = kept.min(inner.unpersisted.len());
        let lost = inner.unpersisted.split_off(kept);
        for batch in lost.into_iter().rev() {
            for replaced in batch.into_iter().rev() {
                inner.put_back(replaced);
            }
        }
        inner.unpersisted.clear();
    }

    /// The next rows of a scan, at most `rows_max`.
    fn chunk(
        &self,
        space: Space,
        start: &Bound<Bytes>,
        to: &[u8],
        rows_max: usize,
    ) -> Vec<(Bytes, Bytes)> {
        let inner = self.inner.read();
        let Some(rows) = inner.spaces.get(&space) else { return Vec::new() };
        let end = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
        rows.range::<[u8], _>((start.as_ref().map(Bytes::as_ref), end))
            .take(rows_max)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Rows of a space.
    #[must_use]
    pub fn len(&self, space: Space) -> usize {
        self.inner.read().spaces.get(&space).map_or(0, BTreeMap::len)
    }

    /// Whether a space has no rows.
    #[must_use]
    pub fn is_empty(&self, space: Space) -> bool {
        self.len(space) == 0
    }
}

impl Inner {
    fn drop_ids(&mut self, is_dropped: &dyn Fn(&IdRow) -> bool) {
        let dropped = self.ids.extract_if(.., |_, row| is_dropped(row));
        let keys: BTreeSet<_> = dropped.map(|(key, _)| key).collect();
        // A later crash must not put back what is gone.
        for batch in &mut self.unpersisted {
            batch.retain(|it| {
                !matches!(it, Replaced::Id { key, row } if keys.contains(key)
                || row.is_some_and(|row| is_dropped(&row)))
            });
        }
    }

    fn put_back(&mut self, replaced: Replaced) {
        match replaced {
            Replaced::Row { space, key, value: Some(value) } => {
                self.spaces.entry(space).or_default().insert(key, value);
            }
            Replaced::Row { space, key, value: None } => {
                if let Some(rows) = self.spaces.get_mut(&space) {
                    rows.remove(&key);
                }
            }
            Replaced::Id { key, row: Some(row) } => {
                self.ids.insert(key, row);
            }
            Replaced::Id { key, row: None } => {
                self.ids.remove(&key);
            }
        }
    }
}

impl Kv for MemoryKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.inner.read().spaces.get(&space).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), KvError> {
        if !to.is_empty() && from >= to {
            return Ok(());
        }
        // In chunks and not under the lock, so that a visitor may read and write this store; the
        // first chunk is small because many scans want one row.
        let (mut start, mut chunk_rows) = (Bound::Included(Bytes::copy_from_slice(from)), 8);
        loop {
            let chunk = self.chunk(space, &start, to, chunk_rows);
            let Some((last, _)) = chunk.last() else { return Ok(()) };
            start = Bound::Excluded(last.clone());
            for (key, value) in &chunk {
                if visit(key, value) == Scan::Stop {
                    return Ok(());
                }
            }
            chunk_rows = 1_024;
        }
    }

    fn last(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, KvError> {
        if from > to {
            return Ok(None);
        }
        let inner = self.inner.read();
        let Some(rows) = inner.spaces.get(&space) else { return Ok(None) };
        let range = (Bound::Included(from), Bound::Included(to));
        Ok(rows
            .range::<[u8], _>(range)
            .next_back()
            .map(|(key, value)| (key.clone(), value.clone())))
    }

    fn write_with_ids(&self, changes: &[RowChange], ids: Vec<IdRow>) -> Result<(), KvError> {
        for change in changes {
            check_key(&change.key)?;
        }
        let inner = &mut *self.inner.write();
        let mut batch = Vec::new();
        for change in changes {
            let key = Bytes::copy_from_slice(&change.key);
            let rows = inner.spaces.entry(change.space).or_default();
            let before = match &change.value {
                Some(value) => rows.insert(key.clone(), Bytes::copy_from_slice(value)),
                None => rows.remove(&key),
            };
            if inner.crashes == Crashes::Possible {
                batch.push(Replaced::Row { space: change.space, key, value: before });
            }
        }
        for row in ids {
            let key = (row.generation, row.partition, row.fingerprint);
            let before = inner.ids.insert(key, row);
            if inner.crashes == Crashes::Possible {
                batch.push(Replaced::Id { key, row: before });
            }
        }
        if inner.crashes == Crashes::Possible {
            inner.unpersisted.push(batch);
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), KvError> {
        self.inner.write().unpersisted.clear();
        Ok(())
    }

    fn find_id(
        &self,
        partition: PartitionNumber,
        fingerprint: u128,
        oldest: u32,
    ) -> Result<Option<IdRow>, KvError> {
        let inner = self.inner.read();
        // Generations are few, and a map asked for each of them is quick enough for tests.
        let mut newest = inner.ids.last_key_value().map(|((generation, ..), _)| *generation);
        while let Some(generation) = newest.filter(|generation| *generation >= oldest) {
            if let Some(row) = inner.ids.get(&(generation, partition, fingerprint)) {
                return Ok(Some(*row));
            }
            let before = inner.ids.range(..(generation, 0, 0)).next_back();
            newest = before.map(|((generation, ..), _)| *generation);
        }
        Ok(None)
    }

    fn scan_ids(
        &self,
        shard: ShardId,
        count: ShardCount,
        visit: &mut dyn FnMut(&IdRow) -> Scan,
    ) -> Result<(), KvError> {
        let rows: BTreeMap<(PartitionNumber, u128), IdRow> = {
            let inner = self.inner.read();
            let of_shard =
                inner.ids.values().filter(|it| count.of_partition(it.partition) == shard);
            of_shard.map(|row| ((row.partition, row.fingerprint), *row)).collect()
        };
        for row in rows.values() {
            if visit(row) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn forget_ids(&self, shard: ShardId, count: ShardCount) -> Result<(), KvError> {
        self.inner.write().drop_ids(&|row| count.of_partition(row.partition) == shard);
        Ok(())
    }

    fn drop_generations_before(&self, oldest_kept: u32) -> Result<(), KvError> {
        self.inner.write().drop_ids(&|row| row.generation < oldest_kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn keeps_the_contract_of_all_stores() {
        contract::check_all(&|| Box::new(MemoryKv::new()));
        contract::check_all(&|| Box::new(MemoryKv::with_crashes()));
    }

    fn put(key: &str, value: &str) -> RowChange {
        RowChange {
            space: Space::Groups,
            key: key.as_bytes().to_vec(),
            value: Some(value.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_crash_takes_back_whole_batches_newest_first() {
        let kv = MemoryKv::with_crashes();
        kv.write(&[put("a", "1"), put("b", "1")]).unwrap();
        kv.persist().unwrap();
        kv.write(&[put("a", "2"), put("a", "3")]).unwrap();
        let gone = RowChange { space: Space::Groups, key: b"b".to_vec(), value: None };
        kv.write(&[gone, put("c", "4")]).unwrap();
        assert_eq!(kv.unpersisted(), 2);

        kv.crash(1);
        assert_eq!(kv.get(Space::Groups, b"a").unwrap().unwrap(), "3");
        assert_eq!(kv.get(Space::Groups, b"b").unwrap().unwrap(), "1");
        assert_eq!(kv.get(Space::Groups, b"c").unwrap(), None);
    }

    #[test]
    fn a_crash_after_persist_loses_nothing() {
        let kv = MemoryKv::with_crashes();
        kv.write(&[put("a", "1")]).unwrap();
        kv.persist().unwrap();
        kv.crash(0);
        assert_eq!(kv.len(Space::Groups), 1);
    }

    #[test]
    fn a_crash_brings_no_dropped_generation_back() {
        let kv = MemoryKv::with_crashes();
        let row = |seq| IdRow { generation: 1, partition: 2, fingerprint: 3, seq, time_ms: 4 };
        kv.write_with_ids(&[], vec![row(5)]).unwrap();
        kv.persist().unwrap();
        kv.write_with_ids(&[], vec![row(6)]).unwrap();
        kv.drop_generations_before(2).unwrap();
        kv.crash(0);
        assert_eq!(kv.find_id(2, 3, 0).unwrap(), None);
    }
}
