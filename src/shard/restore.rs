//! Start-up on a log that other engines share: rows, checkpoints from the vault where rows are missing
//! or too old, and the log's tail.
//!
//! In: a log, rows, and who the store is. Out: a replica that has applied everything. Rows are a
//! machine's own and may lag behind a log that has moved on, or be ahead of one that a database took
//! back to an earlier day; either way the shard is taken from the vault, or from the whole log. Called
//! by the server's composition, and by the lane when it was away for too long.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;

use crate::base::place::{ShardCount, ShardId, StoreKey};
use crate::log::vault::{Kept, Vault};
use crate::log::{Log, ReadError};
use crate::shard::replica::{ReplayError, Replica};
use crate::state::checkpoint::{self, Applied, LoadError};
use crate::state::codec;
use crate::state::kv::{Kv, KvError};
use crate::state::portable::{self, Part, PartError};

/// Bytes of entries that are read at a time.
const READ_BYTES: usize = 4 << 20;
/// How often pieces may go, and checkpoints be replaced, while they are being read.
const TRIES_MAX: u32 = 5;

/// Why the state could not be brought up to the log. Rows may be missing then; nothing else changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Rows could not be read or written.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// Rows that were just written cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A checkpoint from the vault is damaged.
    #[error("the checkpoint of shard {shard}: {error}")]
    Part {
        /// Its shard.
        shard: ShardId,
        /// What is wrong.
        error: PartError,
    },
    /// The log begins behind what the rows have, and nothing fills the gap.
    #[error("the log no longer has entry {needed} of shard {shard}, and no checkpoint includes it")]
    Missing {
        /// The shard.
        shard: ShardId,
        /// The entry that should come next.
        needed: u64,
    },
    /// An entry makes no sense.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Nobody wants it any more.
    #[error("it was stopped")]
    Stopped,
    /// The system did not give what waiting needs.
    #[error("starting: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What a start found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Restored {
    /// Shards that came from the vault, or from the log's beginning because their rows were of no use.
    pub shards: u32,
    /// Entries applied.
    pub entries: u64,
}

/// Builds the state that the log says. Waits for the log, for as long as there is to read, or until
/// `stop` is raised and what is being read is there. Not to be called by a thread that runs asynchronous
/// tasks.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(
    log: &dyn Log,
    kv: &dyn Kv,
    (count, key): (ShardCount, StoreKey),
    stop: &AtomicBool,
) -> Result<(Replica, Restored), RestoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let restorer = Restorer { log, kv, count, runtime: &runtime, stop };
    let mut restored = Restored::default();
    let mut tries = 0;
    loop {
        tries += 1;
        let result = restorer.restore(key, &mut restored);
        match result {
            // Another engine let go of what was about to be read.
            Err(RestoreError::Read(ReadError::TooOld(_))) if tries < TRIES_MAX => {}
            result => return result.map(|replica| (replica, restored)),
        }
    }
}

/// Brings the rows of one shard to where the log still has what follows them.
///
/// # Errors
/// [`RestoreError`]; [`RestoreError::Missing`] where no checkpoint helps.
pub(super) fn catch_up(
    log: &dyn Log,
    kv: &dyn Kv,
    count: ShardCount,
    shard: ShardId,
    runtime: &Runtime,
) -> Result<(), RestoreError> {
    let restorer = Restorer { log, kv, count, runtime, stop: &AtomicBool::new(false) };
    let kept = restorer.kept()?;
    let kept = kept.iter().find(|kept| kept.shard == shard);
    match kept {
        Some(kept) if kept.head > checkpoint::applied(shard, kv)?.head => restorer.import(*kept),
        _ => Err(RestoreError::Missing { shard, needed: checkpoint::applied(shard, kv)?.head }),
    }
}

struct Restorer<'a> {
    log: &'a dyn Log,
    kv: &'a dyn Kv,
    count: ShardCount,
    runtime: &'a Runtime,
    stop: &'a AtomicBool,
}

impl Restorer<'_> {
    fn check_wanted(&self) -> Result<(), RestoreError> {
        match self.stop.load(Ordering::Acquire) {
            true => Err(RestoreError::Stopped),
            false => Ok(()),
        }
    }

    fn restore(&self, key: StoreKey, restored: &mut Restored) -> Result<Replica, RestoreError> {
        let heads = self.runtime.block_on(self.log.heads(self.count.get() + 1))?;
        let kept = self.kept()?;
        for (shard, head) in (0..).zip(heads) {
            self.check_wanted()?;
            let kept = kept.iter().find(|kept| kept.shard == shard).copied();
            restored.shards += u32::from(self.fit(shard, head, kept)?);
        }
        let mut replica = match Replica::load(self.count, key, self.kv) {
            Err(LoadError::Row { shard, error }) => {
                tracing::warn!(shard, %error, "rows are damaged; they are made again");
                self.begin_again(shard, kept.iter().find(|kept| kept.shard == shard).copied())?;
                restored.shards += 1;
                Replica::load(self.count, key, self.kv)?
            }
            loaded => loaded?,
        };
        // The catalog last: it may be newer than the shards, but never older.
        for shard in 0..=self.count.get() {
            restored.entries += self.apply_tail(&mut replica, shard)?;
        }
        Ok(replica)
    }

    fn kept(&self) -> Result<Vec<Kept>, ReadError> {
        self.log.vault().map_or(Ok(Vec::new()), |vault| self.runtime.block_on(vault.kept()))
    }

    /// Sees to it that a shard's rows are such that the log has what follows; tells whether they had
    /// to be replaced.
    fn fit(&self, shard: ShardId, head: u64, kept: Option<Kept>) -> Result<bool, RestoreError> {
        let applied = match checkpoint::applied(shard, self.kv) {
            Ok(applied) if self.are_of_this_log(shard, applied, head)? => applied.head,
            Ok(Applied { head: applied, .. }) => {
                tracing::warn!(
                    shard,
                    applied,
                    head,
                    "rows say otherwise than the log, which was taken back to an earlier state; \
                     they are made again"
                );
                return self.begin_again(shard, kept).map(|()| true);
            }
            Err(LoadError::Row { .. }) => return self.begin_again(shard, kept).map(|()| true),
            Err(error) => return Err(error.into()),
        };
        let is_there = applied == head || self.has(shard, applied)?;
        match kept.filter(|kept| kept.head > applied) {
            // Without rows of one's own the checkpoint is the shorter way.
            Some(kept) if applied == 0 || !is_there => self.import(kept).map(|()| true),
            None if !is_there => Err(RestoreError::Missing { shard, needed: applied }),
            _ => Ok(false),
        }
    }

    /// Whether the last entry that the rows include is the one that the log has. One that is gone by
    /// now proves nothing either way.
    fn are_of_this_log(
        &self,
        shard: ShardId,
        applied: Applied,
        head: u64,
    ) -> Result<bool, RestoreError> {
        let Some(last) = applied.head.checked_sub(1) else { return Ok(true) };
        if applied.head > head {
            return Ok(false);
        }
        let read = match self.runtime.block_on(self.log.read(shard, last, 1)) {
            Err(ReadError::TooOld(_)) => return Ok(true),
            read => read?,
        };
        let Some(entry) = read.into_iter().next() else { return Ok(true) };
        let end = entry.position.saturating_add(entry.bytes.len() as u64);
        let time_ms = codec::decode(entry.bytes).map(|entry| entry.time_ms);
        Ok(end == applied.position && time_ms.is_ok_and(|time_ms| time_ms == applied.last_ms))
    }

    fn has(&self, shard: ShardId, index: u64) -> Result<bool, RestoreError> {
        match self.runtime.block_on(self.log.read(shard, index, 1)) {
            Ok(_) => Ok(true),
            Err(ReadError::TooOld(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn begin_again(&self, shard: ShardId, kept: Option<Kept>) -> Result<(), RestoreError> {
        match kept {
            Some(kept) => self.import(kept),
            None if self.has(shard, 0)? => Ok(portable::clear(shard, self.count, self.kv)?),
            None => Err(RestoreError::Missing { shard, needed: 0 }),
        }
    }

    /// Puts a checkpoint's rows in the place of a shard's.
    fn import(&self, kept: Kept) -> Result<(), RestoreError> {
        let Kept { shard, head, parts, bytes, .. } = kept;
        tracing::info!(shard, head, bytes, "taking a shard from its checkpoint");
        portable::clear(shard, self.count, self.kv)?;
        let Some(vault) = self.log.vault() else { return Ok(()) };
        for part in 0..parts {
            self.check_wanted()?;
            let part = self.runtime.block_on(Vault::part(vault, kept, part))?;
            let part = portable::read_part(&part);
            let Part { rows, ids } = part.map_err(|error| RestoreError::Part { shard, error })?;
            self.kv.write_with_ids(&rows, ids)?;
        }
        Ok(())
    }

    fn apply_tail(&self, replica: &mut Replica, shard: ShardId) -> Result<u64, RestoreError> {
        let mut entries = 0;
        loop {
            self.check_wanted()?;
            let from = replica.head(shard);
            let read = self.runtime.block_on(self.log.read(shard, from, READ_BYTES))?;
            if read.is_empty() {
                return Ok(entries);
            }
            for stored in &read {
                replica.apply_stored(stored)?;
                entries += 1;
            }
        }
    }
}
