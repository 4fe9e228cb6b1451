//! The end of the log: appends records, rolls to the next segment, makes what was written durable.
//!
//! In: payloads as ropes. Out: their positions, and durability when asked. Two locks: `tail` orders
//! the appends and is held while a record is written into the page cache, never during a sync;
//! `leader` says whether a thread syncs for all who wait. The first failed write or sync poisons
//! the writer for ever: what a disk says after that proves nothing. Called by the journal's door.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crc32fast::Hasher;
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use super::error::{AppendError, SyncError};
use super::prepare::Preparer;
use super::record::{
    CheckKey, HEADER_BYTES, Header, KIND_MARK, KIND_RESERVED_FROM, KIND_SEAL, span,
};
use super::segment::{CreateError, Segment};
use super::segments::Segments;
use crate::base::clock::{Clock, SystemClock};
use crate::telemetry::latency::Latency;

/// Where an appended record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Position of the payload's first byte, for [`super::Journal::read`].
    pub payload_position: u64,
    /// Position after the record, for [`super::Journal::sync_to`] and for a later scan.
    pub end: u64,
}

/// What a journal did since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Records appended, marks and seals not counted.
    pub appends: u64,
    /// Bytes written, headers included.
    pub bytes: u64,
    /// Groups made durable: one `fdatasync` each, and one more per segment sealed since the last.
    pub syncs: u64,
    /// Segments sealed.
    pub rolls: u64,
}

pub(super) struct Writer {
    key: CheckKey,
    record_bytes_max: u64,
    segments: Arc<Segments>,
    preparer: Arc<Preparer>,
    tail: Mutex<Tail>,
    leader: Mutex<Leader>,
    led: Condvar,
    end: AtomicU64,
    synced: AtomicU64,
    poison: OnceLock<Arc<str>>,
    counters: Counters,
    /// For figures: nothing is decided by it.
    clock: SystemClock,
}

struct Tail {
    active: Arc<Segment>,
    /// Position after the last record.
    end: u64,
    /// Sealed segments with bytes that no sync has covered, oldest first.
    unsynced: Vec<Arc<Segment>>,
}

struct Leader {
    is_syncing: bool,
}

#[derive(Default)]
struct Counters {
    appends: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    rolls: AtomicU64,
    sync_latency: Latency,
}

impl Writer {
    /// A writer after `end`, up to which everything is durable, in the last of `segments`.
    pub(super) fn new(
        key: CheckKey,
        record_bytes_max: u64,
        segments: Arc<Segments>,
        preparer: Arc<Preparer>,
        active: Arc<Segment>,
        end: u64,
    ) -> Self {
        Self {
            key,
            record_bytes_max,
            segments,
            preparer,
            tail: Mutex::new(Tail { active, end, unsynced: Vec::new() }),
            leader: Mutex::new(Leader { is_syncing: false }),
            led: Condvar::new(),
            end: AtomicU64::new(end),
            synced: AtomicU64::new(end),
            poison: OnceLock::new(),
            counters: Counters::default(),
            clock: SystemClock::new(),
        }
    }

    pub(super) fn sync_latency(&self) -> &Latency {
        &self.counters.sync_latency
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Base of the segment that takes the appends, and how many of its bytes are in use.
    pub(super) fn active(&self) -> (u64, u64) {
        let tail = self.tail.lock();
        let base = tail.active.base();
        (base, tail.end.saturating_sub(base))
    }

    pub(super) fn poison_cause(&self) -> Option<Arc<str>> {
        self.poison.get().cloned()
    }

    pub(super) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            appends: read(&self.counters.appends),
            bytes: read(&self.counters.bytes),
            syncs: read(&self.counters.syncs),
            rolls: read(&self.counters.rolls),
        }
    }

    /// Writes one record of the caller's. Returns true beside it when the helper should know.
    pub(super) fn append<P: AsRef<[u8]>>(
        &self,
        kind: u8,
        parts: &[P],
    ) -> Result<(Appended, bool), AppendError> {
        if kind == 0 || kind >= KIND_RESERVED_FROM {
            return Err(AppendError::ReservedKind { kind });
        }
        let bytes = parts.iter().map(|part| part.as_ref().len() as u64).sum();
        let limit = self.record_bytes_max;
        let too_large = AppendError::TooLarge { bytes, limit };
        if bytes > limit {
            return Err(too_large);
        }
        let length = u32::try_from(bytes).map_err(|_| too_large)?;
        // Before the lock: the longest part of an append that does not depend on its place.
        let mut hasher = Hasher::new();
        for part in parts {
            hasher.update(part.as_ref());
        }
        let payload_crc = hasher.finalize();

        let mut tail = self.tail.lock();
        let needed = span(u64::from(length));
        self.check_poison().map_err(|cause| AppendError::Poisoned { cause })?;
        // The seal must always find room.
        let rolls = tail.end + needed + span(0) > tail.active.limit();
        if rolls {
            self.roll(&mut tail, needed)?;
        }
        let header = Header { length, payload_crc, kind, durable: self.synced() };
        let start = tail.end;
        self.write(&mut tail, header, parts)?;
        self.counters.appends.fetch_add(1, Ordering::Relaxed);
        let appended = Appended { payload_position: start + HEADER_BYTES, end: tail.end };
        let step_bytes = self.preparer.step_bytes();
        Ok((appended, rolls || start / step_bytes != tail.end / step_bytes))
    }

    /// Writes an empty record that proves how far the log is durable.
    pub(super) fn append_mark(&self) -> Result<u64, AppendError> {
        let mut tail = self.tail.lock();
        self.check_poison().map_err(|cause| AppendError::Poisoned { cause })?;
        if tail.end + 2 * span(0) > tail.active.limit() {
            self.roll(&mut tail, span(0))?;
        }
        let header = Header { length: 0, payload_crc: 0, kind: KIND_MARK, durable: self.synced() };
        self.write::<&[u8]>(&mut tail, header, &[])?;
        Ok(tail.end)
    }

    /// Ends the active segment and goes on in the next one, which exists before the seal is written.
    fn roll(&self, tail: &mut Tail, needed: u64) -> Result<(), AppendError> {
        let next = self.preparer.take(needed).map_err(|error| match error {
            CreateError::Full => {
                AppendError::DiskFull { segment_bytes: self.preparer.bytes_for(needed) }
            }
            CreateError::GivenUp(source) => AppendError::NextSegment { source },
            CreateError::InDoubt(source) => {
                self.poison("creating a segment", &source);
                AppendError::Write { source }
            }
        })?;
        let seal = Header { length: 0, payload_crc: 0, kind: KIND_SEAL, durable: self.synced() };
        self.write::<&[u8]>(tail, seal, &[])?;
        self.segments.push(&next);
        let sealed = std::mem::replace(&mut tail.active, next);
        tail.unsynced.push(sealed);
        tail.end = tail.active.first();
        self.end.store(tail.end, Ordering::Release);
        self.counters.rolls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a record at the end of the active segment, straight from the caller's slices.
    fn write<P: AsRef<[u8]>>(
        &self,
        tail: &mut Tail,
        header: Header,
        parts: &[P],
    ) -> Result<(), AppendError> {
        let bytes = header.encode(self.key, tail.end);
        let mut slices: SmallVec<[IoSlice<'_>; 16]> = SmallVec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&bytes));
        slices.extend(parts.iter().map(|part| IoSlice::new(part.as_ref())));
        if let Err(source) = tail.active.write(&mut slices, tail.end) {
            self.poison("writing", &source);
            return Err(AppendError::Write { source });
        }
        tail.end += header.span();
        self.end.store(tail.end, Ordering::Release);
        self.counters.bytes.fetch_add(header.span(), Ordering::Relaxed);
        Ok(())
    }

    /// Returns when everything before `end` is durable. One thread syncs for all who wait.
    pub(super) fn sync_to(&self, end: u64) -> Result<(), SyncError> {
        let written = self.end();
        if end > written {
            return Err(SyncError::NotWritten { end, written });
        }
        let mut leader = self.leader.lock();
        loop {
            if self.synced() >= end {
                return Ok(());
            }
            self.check_poison().map_err(|cause| SyncError::Poisoned { cause })?;
            if leader.is_syncing {
                self.led.wait(&mut leader);
                continue;
            }
            leader.is_syncing = true;
            drop(leader);
            let outcome = self.sync_group();
            leader = self.leader.lock();
            leader.is_syncing = false;
            self.led.notify_all();
            outcome?;
        }
    }

    /// Syncs everything that is written by now, oldest segment first.
    fn sync_group(&self) -> Result<(), SyncError> {
        let (sealed, active, end) = {
            let tail = self.tail.lock();
            (tail.unsynced.clone(), Arc::clone(&tail.active), tail.end)
        };
        let started_us = self.clock.monotonic_us();
        for segment in sealed.iter().chain([&active]) {
            if let Err(source) = segment.sync() {
                self.poison("syncing", &source);
                return Err(SyncError::Failed { source });
            }
        }
        self.check_poison().map_err(|cause| SyncError::Poisoned { cause })?;
        self.tail.lock().unsynced.drain(..sealed.len());
        self.synced.store(end, Ordering::Release);
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.sync_latency.record(self.clock.monotonic_us() - started_us, 1);
        Ok(())
    }

    pub(super) fn poison(&self, action: &str, error: &io::Error) {
        // The first cause is the one to tell.
        let _ = self.poison.set(format!("{action}: {error}").into());
    }

    fn check_poison(&self) -> Result<(), Arc<str>> {
        self.poison.get().map_or(Ok(()), |cause| Err(Arc::clone(cause)))
    }
}
