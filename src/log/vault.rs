//! The vault: whole checkpoints of shards, kept beside a log that several machines share.
//!
//! A machine's rows are its own. A machine that is new, or was away for so long that the log no longer
//! has what it missed, starts from a checkpoint in the vault and applies what came later. And only
//! what such checkpoints cover may be given back. In: parts of bytes whose meaning is the state's. Out:
//! the same parts. Called by `shard`: the checkpointer saves, start-up loads.

use bytes::Bytes;

use super::{AppendError, LogFuture, ReadError};
use crate::base::place::ShardId;

/// A checkpoint in the vault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kept {
    /// Its shard.
    pub shard: ShardId,
    /// Entries of the shard that it includes.
    pub head: u64,
    /// How many parts it has.
    pub parts: u32,
    /// Bytes of its parts.
    pub bytes: u64,
    /// Tells it from others of the shard.
    pub save: u64,
}

/// Keeps one checkpoint per shard, the newest.
pub trait Vault: Send + Sync {
    /// Whether a checkpoint of `shard` at `head` is worth its bytes by now, and this engine is the
    /// one to write it. Never waits.
    fn is_due(&self, shard: ShardId, head: u64) -> bool;

    /// Begins to save a checkpoint. Until it is finished the one before counts.
    fn save(&self, shard: ShardId, head: u64) -> Box<dyn Saving + '_>;

    /// The checkpoints that are kept, in no order.
    fn kept(&self) -> LogFuture<'_, Result<Vec<Kept>, ReadError>>;

    /// A part of a checkpoint, from 0. [`ReadError::TooOld`] when a newer one has replaced it.
    fn part(&self, kept: Kept, part: u32) -> LogFuture<'_, Result<Bytes, ReadError>>;
}

/// A checkpoint on its way into the vault. Dropped before it is finished, it never was.
pub trait Saving: Send {
    /// Adds the next part.
    fn add(&mut self, part: Bytes) -> LogFuture<'_, Result<(), AppendError>>;

    /// Puts it in the place of the one before; durable when it answers. One that has become older
    /// than what is kept by now is thrown away, which is no error.
    fn finish(self: Box<Self>) -> LogFuture<'static, Result<(), AppendError>>;
}
