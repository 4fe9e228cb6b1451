//! The key-value seam: ordered rows, and transaction ids, that outgrow memory.
//!
//! Rows are derived from the log and remember the log position that they include, so they are never
//! synced on the hot path: after a crash the missing tail is applied again. [`memory`] serves tests,
//! [`disk`] the server. Called by `state` (look-ups) and `shard` (checkpoints).

#[cfg(test)]
mod contract;
pub mod disk;
pub mod memory;

use bytes::Bytes;

use crate::base::place::{PartitionNumber, ShardCount, ShardId};

/// One family of rows.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Space {
    /// Per shard: what has been applied. Key: shard (4).
    Meta,
    /// Partitions with their cursors. Key: shard (4), local index (4).
    Partitions,
    /// Consumer groups. Key: shard (4), group index (4).
    Groups,
    /// Where batches lie in the log. Key: partition (4), first sequence (8).
    Runs,
    /// Dead letters. Key: partition (4), group index (4), sequence (8).
    Dead,
    /// Queues with their groups. Key: shard (4), queue id (4).
    Queues,
    /// Dead letters by time of failure. Key: shard (4), group index (4), and the bits turned over of
    /// time (8), partition (4) and sequence (8).
    Letters,
    /// Deleted messages, jobs, traces. Key: shard (4), kind (1), number (8).
    Care,
    /// State keys. Key: partition (4), owner (4), the key itself.
    States,
    /// Queries. Key: shard (4), query id (4).
    Queries,
}

/// A transaction id, and the first message that had it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdRow {
    /// The span of time that it belongs to; ids are dropped by generations, never one by one.
    pub generation: u32,
    /// Its partition.
    pub partition: PartitionNumber,
    /// What stands for its text.
    pub fingerprint: u128,
    /// The message's sequence.
    pub seq: u64,
    /// When the message was pushed, unix milliseconds.
    pub time_ms: u64,
}

/// A row to put, or with `None` to remove. Keys are compared as bytes, so numbers in them are
/// big-endian.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RowChange {
    /// Its family.
    pub space: Space,
    /// Its key.
    pub key: Vec<u8>,
    /// Its new value.
    pub value: Option<Vec<u8>>,
}

/// Why rows could not be read or written. The log is not affected; rows can be rebuilt from it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the state's key-value store failed: {0}")]
pub struct KvError(pub String);

/// What a scan does after a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scan {
    /// Go on.
    Continue,
    /// Enough.
    Stop,
}

/// Most bytes of a key.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Refuses keys that some store could not keep, so that all stores refuse the same.
fn check_key(key: &[u8]) -> Result<(), KvError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(KvError(format!(
            "a key of {} bytes is outside 1..={KEY_BYTES_MAX}",
            key.len()
        )));
    }
    Ok(())
}

/// Ordered rows with atomic batches.
pub trait Kv: Send + Sync + 'static {
    /// One row.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Rows from `from` (inclusive) to `to` (exclusive; empty = to the end), in key order.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), KvError>;

    /// The last row with `from <= key <= to`.
    fn last(&self, space: Space, from: &[u8], to: &[u8])
    -> Result<Option<(Bytes, Bytes)>, KvError>;

    /// Writes all changes and ids or none; readable when it returns; survives the process, not yet
    /// the machine. A key has 1 to [`KEY_BYTES_MAX`] bytes; a batch with another one is refused. Of
    /// several changes of one row, or several rows of one id, the last one counts.
    fn write_with_ids(&self, changes: &[RowChange], ids: Vec<IdRow>) -> Result<(), KvError>;

    /// Writes all changes or none, as [`Kv::write_with_ids`] does.
    fn write(&self, changes: &[RowChange]) -> Result<(), KvError> {
        self.write_with_ids(changes, Vec::new())
    }

    /// Makes everything written so far survive the machine.
    fn persist(&self) -> Result<(), KvError>;

    /// The row of an id that was written last, if its generation is `oldest` or later.
    fn find_id(
        &self,
        partition: PartitionNumber,
        fingerprint: u128,
        oldest: u32,
    ) -> Result<Option<IdRow>, KvError>;

    /// As [`Kv::find_id`], for several ids of one partition; one answer for each, in their order.
    fn find_ids(
        &self,
        partition: PartitionNumber,
        fingerprints: &[u128],
        oldest: u32,
    ) -> Result<Vec<Option<IdRow>>, KvError> {
        fingerprints.iter().map(|id| self.find_id(partition, *id, oldest)).collect()
    }

    /// The last written row of each id in the partitions of `shard`, one of `count`, in any order.
    fn scan_ids(
        &self,
        shard: ShardId,
        count: ShardCount,
        visit: &mut dyn FnMut(&IdRow) -> Scan,
    ) -> Result<(), KvError>;

    /// Forgets all ids in the partitions of `shard`, one of `count`.
    fn forget_ids(&self, shard: ShardId, count: ShardCount) -> Result<(), KvError>;

    /// Drops all generations of ids older than `oldest_kept`, each as a whole.
    fn drop_generations_before(&self, oldest_kept: u32) -> Result<(), KvError>;
}
