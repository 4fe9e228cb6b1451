//! The key-value seam: ordered rows that outgrow memory.
//!
//! Rows are derived from the log and remember the log position that they include, so they are never
//! synced on the hot path: after a crash the missing tail is applied again. [`memory`] serves tests,
//! [`disk`] the server. Called by `state` (look-ups) and `shard` (checkpoints).

#[cfg(test)]
mod contract;
pub mod disk;
pub mod memory;

use bytes::Bytes;

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
    /// Transaction ids of one time generation, dropped whole. Key: partition (4), fingerprint (16).
    Dedup(u32),
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

    /// Writes all changes or none; readable when it returns; survives the process, not yet the
    /// machine. A key has 1 to [`KEY_BYTES_MAX`] bytes; a batch with another one is refused.
    fn write(&self, changes: &[RowChange]) -> Result<(), KvError>;

    /// Makes everything written so far survive the machine.
    fn persist(&self) -> Result<(), KvError>;

    /// The dedup generations that exist, oldest first.
    fn generations(&self) -> Vec<u32>;

    /// Drops all dedup generations older than `oldest_kept`, each as a whole.
    fn drop_generations_before(&self, oldest_kept: u32) -> Result<(), KvError>;
}
