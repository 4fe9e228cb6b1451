//! Rows that count who reads them, and that fail when a test wants it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::base::place::{PartitionNumber, ShardCount, ShardId};
use crate::state::kv::memory::MemoryKv;
use crate::state::kv::{IdRow, Kv, KvError, RowChange, Scan, Space};

/// Rows.
pub(super) struct Watched {
    pub(super) kv: MemoryKv,
    /// So many can be read one by one, and then none.
    pub(super) gets_left: AtomicUsize,
    /// Rows that scans have come by.
    pub(super) scanned: AtomicUsize,
}

impl Watched {
    pub(super) fn new(kv: MemoryKv) -> Self {
        Self { kv, gets_left: AtomicUsize::new(usize::MAX), scanned: AtomicUsize::new(0) }
    }
}

impl Kv for Watched {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let left = self.gets_left.fetch_sub(1, Ordering::Relaxed);
        if left == 0 { Err(KvError("away".into())) } else { self.kv.get(space, key) }
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), KvError> {
        self.kv.scan(space, from, to, &mut |key, value| {
            self.scanned.fetch_add(1, Ordering::Relaxed);
            visit(key, value)
        })
    }

    fn last(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, KvError> {
        self.kv.last(space, from, to)
    }

    fn write_with_ids(&self, changes: &[RowChange], ids: Vec<IdRow>) -> Result<(), KvError> {
        self.kv.write_with_ids(changes, ids)
    }

    fn persist(&self) -> Result<(), KvError> {
        self.kv.persist()
    }

    fn find_id(
        &self,
        partition: PartitionNumber,
        fingerprint: u128,
        oldest: u32,
    ) -> Result<Option<IdRow>, KvError> {
        self.kv.find_id(partition, fingerprint, oldest)
    }

    fn scan_ids(
        &self,
        shard: ShardId,
        count: ShardCount,
        visit: &mut dyn FnMut(&IdRow) -> Scan,
    ) -> Result<(), KvError> {
        self.kv.scan_ids(shard, count, visit)
    }

    fn forget_ids(&self, shard: ShardId, count: ShardCount) -> Result<(), KvError> {
        self.kv.forget_ids(shard, count)
    }

    fn drop_generations_before(&self, oldest_kept: u32) -> Result<(), KvError> {
        self.kv.drop_generations_before(oldest_kept)
    }
}
