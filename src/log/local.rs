//! The local log: shards in the segment log of one machine, nothing to install.
//!
//! In: proposals of many shards. Out: one journal record per append, so that it stands as a whole or
//! not at all, and one fdatasync for everybody who waits at the same time. Heads are kept under one
//! lock per shard: appends of different shards run side by side up to the journal. Positions are the
//! journal's own, so a body is a slice of a mapped file. Called by `shard` through [`Log`], from
//! threads that may block: the work is done when a future is polled.

mod heads;
mod identity;
mod reading;
mod record;
mod recovery;
mod syncer;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

pub use self::identity::{IdentityError, LockError, StoreLock};
pub use self::recovery::{Applied, OpenError, OpenReport};

use self::heads::{Locked, Shard, no_such};
use self::reading::Hints;
use self::record::{KIND_ENTRIES, KIND_HEADS};
use self::recovery::Hint;
use self::syncer::Syncer;
use super::{
    Append, AppendError, Bounds, Durability, Extent, Front, Log, LogFuture, Proposal, ReadError,
    StoredEntry, Syncs,
};
use crate::base::files::Files;
use crate::base::place::{ShardCount, ShardId};
use crate::journal::{self, HEADER_BYTES, Journal, Prepare, StoreId};

/// How the local log is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalConfig {
    /// Bytes of a segment file, 8 KiB to 16 GiB, a multiple of 4,096. Default 128 MiB.
    pub segment_bytes: u64,
    /// Bytes of all entries of one append at most, up to 1 GiB less 1 MiB. Default 64 MiB.
    pub append_bytes_max: u64,
    /// Shards, as the store's identity says; the catalog's comes on top.
    pub shards: ShardCount,
    /// What an append that asks to be synced waits for.
    pub promise: Promise,
    /// Most milliseconds until a written append is durable though nobody waits. Default 100.
    pub sync_interval_ms: u64,
    /// Who works beside the callers.
    pub threads: Threads,
    /// The store that the log must belong to, as the store's identity says; any when `None`.
    pub store: Option<StoreId>,
}

/// What an append that asks for [`Durability::Synced`] waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Promise {
    /// fdatasync: entries survive the machine. The default.
    Synced,
    /// The write only (`durability = "os"`): entries survive the process, and the machine only when
    /// the sync in the background was in time.
    Written,
}

/// Whether the log has threads of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Threads {
    /// One syncs what nobody waits for, one prepares segments. The default.
    Background,
    /// None: disk operations happen in the order of the calls, so that a simulated run repeats.
    None,
}

/// Room for counts and headers beside the entries of one append: 65,535 entries.
const OVERHEAD_BYTES_MAX: u64 = 1 << 20;

/// Bytes between records of heads, unless half a segment is less: few enough to cost nothing, near
/// enough that reading a shard begins close by.
const HEADS_EVERY_BYTES_MAX: u64 = 32 << 20;

impl LocalConfig {
    /// The defaults, for a store of that many shards.
    #[must_use]
    pub fn new(shards: ShardCount) -> Self {
        Self {
            segment_bytes: 128 << 20,
            append_bytes_max: 64 << 20,
            shards,
            promise: Promise::Synced,
            sync_interval_ms: 100,
            threads: Threads::Background,
            store: None,
        }
    }

    fn journal(&self) -> journal::Config {
        journal::Config {
            segment_bytes: self.segment_bytes,
            record_bytes_max: self.append_bytes_max.saturating_add(OVERHEAD_BYTES_MAX),
            prepare: match self.threads {
                Threads::Background => Prepare::Ahead,
                Threads::None => Prepare::WhenNeeded,
            },
            store: self.store,
        }
    }
}

/// The open local log.
pub struct LocalLog {
    // Dropped before the journal, whose last act is a sync of what the thread left.
    syncer: Option<Syncer>,
    journal: Arc<Journal>,
    shards: Vec<Shard>,
    hints: Mutex<Hints>,
    /// One truncation at a time.
    truncation: Mutex<()>,
    /// Position behind the last entry; the journal's own end also covers marks and heads.
    end: AtomicU64,
    append_bytes_max: u64,
    segment_bytes: u64,
    promise: Promise,
}

impl LocalLog {
    /// Opens the log in `files`, or begins one in an empty folder. Every entry that `applied` (by
    /// shard; missing ones count as not applied at all) does not cover is given to `visit`, in
    /// order, without a copy, and is durable when this returns.
    ///
    /// Waits for reading the log from the earliest position in `applied` on, and for a sync.
    ///
    /// # Errors
    /// [`OpenError`]; what was visited must be forgotten then.
    pub fn open(
        files: Arc<dyn Files>,
        config: &LocalConfig,
        applied: &[Applied],
        visit: &mut dyn FnMut(StoredEntry),
    ) -> Result<(Self, OpenReport), OpenError> {
        let shards = usize::from(config.shards.get()) + 1;
        let found = recovery::recover(files, &config.journal(), shards, applied, visit)?;
        if config.store.is_some_and(|store| store != found.journal.store()) {
            return Err(OpenError::OtherStore);
        }
        let journal = Arc::new(found.journal);
        let syncer = match config.threads {
            Threads::None => None,
            Threads::Background => {
                let started = Syncer::start(Arc::clone(&journal), config.sync_interval_ms);
                Some(started.map_err(OpenError::Thread)?)
            }
        };
        let every_bytes = HEADS_EVERY_BYTES_MAX.min(config.segment_bytes / 2);
        let end = journal.end();
        let hints = Hints {
            places: found.hints,
            next_at: end.saturating_add(every_bytes),
            every_bytes,
            heads_at: found.heads_at,
        };
        let log = Self {
            syncer,
            journal,
            shards: found.heads.into_iter().map(Shard::new).collect(),
            hints: Mutex::new(hints),
            truncation: Mutex::new(()),
            end: AtomicU64::new(end),
            append_bytes_max: config.append_bytes_max,
            segment_bytes: config.segment_bytes,
            promise: config.promise,
        };
        Ok((log, found.report))
    }

    /// Bytes of the segment files that hold the log.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.journal.segments().iter().map(|segment| segment.bytes).sum()
    }

    /// Appends, records and syncs of the journal since the log was opened.
    #[must_use]
    pub fn stats(&self) -> journal::Stats {
        self.journal.stats()
    }

    /// Id of the store that the log belongs to.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.journal.store()
    }

    fn append_now(
        &self,
        proposals: &[Proposal],
        durability: Durability,
    ) -> Result<Append, AppendError> {
        if proposals.is_empty() {
            self.settle(self.journal.end(), durability)?;
            return Ok(Append::Appended(Vec::new()));
        }
        let bytes: u64 = proposals.iter().map(|proposal| proposal.len() as u64).sum();
        let limit = self.append_bytes_max;
        if bytes > limit || record::overhead(proposals.len()) > OVERHEAD_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        let (positions, end) = {
            let mut locked = Locked::lock(&self.shards, proposals);
            let moved = locked.advance(proposals);
            if !moved.is_empty() {
                return Ok(Append::Conflict(moved));
            }
            let encoded =
                record::encode(proposals).ok_or(AppendError::TooLarge { bytes, limit })?;
            let appended =
                self.journal.append(KIND_ENTRIES, &encoded.parts).map_err(append_error)?;
            locked.store();
            let at = |offset: &u64| appended.payload_position + offset;
            (encoded.offsets.iter().map(at).collect(), appended.end)
        };
        self.end.fetch_max(end, Ordering::AcqRel);
        self.settle(end, durability)?;
        self.note_heads_when_due(end);
        Ok(Append::Appended(positions))
    }

    /// Waits for what was asked; the thread sees to the rest: what nobody waits for, and the mark
    /// behind what somebody did.
    fn settle(&self, end: u64, durability: Durability) -> Result<(), AppendError> {
        if let Some(syncer) = &self.syncer {
            syncer.wake();
        }
        if durability == Durability::Synced && self.promise == Promise::Synced {
            return self.journal.sync_to(end).map_err(sync_error);
        }
        Ok(())
    }

    fn note_heads_when_due(&self, end: u64) {
        let is_due = self.hints.try_lock().is_some_and(|hints| end >= hints.next_at);
        if is_due {
            // A full disk or a poisoned journal is told to the next append; without these heads
            // reading begins further back, and truncation will write its own.
            let _ = self.note_heads();
        }
    }

    /// Writes a record of all heads as they are at its position.
    fn note_heads(&self) -> Result<(), AppendError> {
        let mut hints = self.hints.lock();
        // All locks in the order in which appends take theirs.
        let guards: Vec<MutexGuard<'_, u64>> =
            self.shards.iter().map(|shard| shard.head.lock()).collect();
        let heads: Vec<u64> = guards.iter().map(|head| **head).collect();
        let appended = self
            .journal
            .append(KIND_HEADS, &[record::encode_heads(&heads)])
            .map_err(append_error)?;
        let position = appended.payload_position - HEADER_BYTES;
        hints.places.push(Hint { position, heads: heads.into_iter().map(Some).collect() });
        hints.heads_at = Some(position);
        hints.next_at = appended.end.saturating_add(hints.every_bytes);
        Ok(())
    }

    fn shard(&self, shard: ShardId) -> &Shard {
        self.shards.get(usize::from(shard)).unwrap_or_else(|| no_such(shard, self.shards.len()))
    }

    fn truncate_now(&self, shard: ShardId, position: u64) -> Result<(), AppendError> {
        self.shard(shard).floor.fetch_max(position, Ordering::AcqRel);
        let floors = self.shards.iter().map(|shard| shard.floor.load(Ordering::Acquire));
        let floor = floors.min().unwrap_or(0);
        // Nothing to do is by far the most frequent case.
        let _one = self.truncation.lock();
        let droppable = |floor: u64| {
            let segments = self.journal.segments();
            let below = |s: &&journal::SegmentInfo| s.is_sealed && s.base + s.bytes <= floor;
            segments.iter().rfind(below).map(|segment| segment.base + segment.bytes)
        };
        let Some(mut until) = droppable(floor) else { return Ok(()) };
        // The heads must stand in what stays.
        let heads_at = self.hints.lock().heads_at;
        if heads_at.is_none_or(|at| at < until) {
            match self.note_heads() {
                Ok(()) => {}
                // Space is what this call is for: keep the segment with the newest heads instead.
                Err(AppendError::DiskFull) => match heads_at.and_then(droppable) {
                    Some(less) => until = less.min(until),
                    None => return Err(AppendError::DiskFull),
                },
                Err(other) => return Err(other),
            }
        }
        self.journal.sync_to(self.journal.end()).map_err(sync_error)?;
        self.journal
            .drop_before(until)
            .map_err(|error| AppendError::Unavailable(error.to_string()))?;
        let start = self.journal.start();
        self.hints.lock().places.retain(|hint| hint.position >= start);
        Ok(())
    }
}

impl Log for LocalLog {
    fn append<'a>(
        &'a self,
        proposals: &'a [Proposal],
        durability: Durability,
    ) -> LogFuture<'a, Result<Append, AppendError>> {
        Box::pin(async move { self.append_now(proposals, durability) })
    }

    fn read(
        &self,
        shard: ShardId,
        from: u64,
        bytes_max: usize,
    ) -> LogFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        Box::pin(async move { self.read_now(shard, from, bytes_max) })
    }

    fn head(&self, shard: ShardId) -> LogFuture<'_, Result<u64, ReadError>> {
        Box::pin(async move { Ok(*self.shard(shard).head.lock()) })
    }

    fn body(&self, _shard: ShardId, extent: Extent) -> Result<Bytes, ReadError> {
        self.journal.read(extent.position, u64::from(extent.len)).map_err(read_error)
    }

    fn is_near(&self, _shard: ShardId, position: u64) -> bool {
        // The journal leaves this much of the log in the system's page cache.
        position.saturating_add(journal::CACHED_BYTES) >= self.journal.end()
    }

    fn sync(&self) -> LogFuture<'_, Result<(), AppendError>> {
        Box::pin(async move { self.journal.sync_to(self.journal.end()).map_err(sync_error) })
    }

    fn truncate_before(&self, shard: ShardId, position: u64) -> Result<(), AppendError> {
        self.truncate_now(shard, position)
    }

    fn front(&self) -> Option<Front> {
        let Bounds { start, end, .. } = self.bounds();
        // The newest segments are still being filled and checkpointed. Positions are those of one
        // journal, so all shards share them.
        Front::of_one_order(start, end, self.segment_bytes.max(1), self.shards.len())
    }

    fn end_of(&self, _shard: ShardId) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    fn durable_to(&self, _shard: ShardId) -> u64 {
        self.bounds().synced
    }

    fn syncs(&self) -> Option<Syncs<'_>> {
        let failed = u64::from(self.journal.poison_cause().is_some());
        Some(Syncs { took: self.journal.sync_latency(), failed })
    }

    fn bounds(&self) -> Bounds {
        let end = self.end.load(Ordering::Acquire);
        let synced = self.journal.synced().min(end);
        Bounds { start: self.journal.start(), end, synced }
    }
}

impl Drop for LocalLog {
    fn drop(&mut self) {
        drop(self.syncer.take());
        // Best effort: nobody is left to be told, and nobody was promised more than is durable.
        let journal = &self.journal;
        if journal.sync_to(journal.end()).is_ok() && journal.mark().is_ok() {
            let _ = journal.sync_to(journal.end());
        }
    }
}

fn append_error(error: journal::AppendError) -> AppendError {
    match error {
        journal::AppendError::TooLarge { bytes, limit } => AppendError::TooLarge { bytes, limit },
        journal::AppendError::DiskFull { .. } => AppendError::DiskFull,
        error if error.is_retryable() => AppendError::Unavailable(error.to_string()),
        error => AppendError::Poisoned(error.to_string()),
    }
}

fn sync_error(error: journal::SyncError) -> AppendError {
    AppendError::Poisoned(error.to_string())
}

fn read_error(error: journal::ReadError) -> ReadError {
    use journal::ReadError as Journal;
    match error {
        Journal::TooOld { position, .. } => ReadError::TooOld(position),
        Journal::NotWritten { position, .. } => ReadError::PastEnd(position),
        Journal::NotOneSegment { position, .. } | Journal::Damaged { position } => {
            ReadError::Corrupt { position, reason: error.to_string() }
        }
        other => ReadError::Unavailable(other.to_string()),
    }
}
