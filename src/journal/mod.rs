#![doc = include_str!("FORMAT.md")]
//!
//! # This room
//!
//! Decides how records become bytes in segment files and how they are found again after a crash.
//! In: payloads as ropes, and positions. Out: positions, durability, and slices without a copy.
//! Knows bytes and positions only: what a record means is its caller's matter. Called by `log`.

mod error;
#[doc(hidden)]
pub mod fuzz;
mod helper;
mod page;
mod prepare;
mod reader;
mod record;
mod recovery;
mod retention;
mod segment;
mod segments;
mod survey;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub use self::error::{
    AppendError, CloseError, Damage, DropError, ReadError, RecoverError, SyncError,
};
pub use self::helper::CACHED_BYTES;
pub use self::page::{FORMAT_VERSION, PAGE_BYTES};
pub use self::reader::{Reader, Record};
pub use self::record::{ALIGN_BYTES, HEADER_BYTES, StoreId};
pub use self::recovery::{RecoveryReport, TornTail};
pub use self::writer::{Appended, Stats};

use self::helper::Helper;
use self::prepare::Preparer;
use self::record::CheckKey;
use self::segments::Segments;
use self::writer::Writer;
use crate::base::files::{Files, FolderLock};
use crate::base::random::{Random, SystemRandom};
use crate::telemetry::latency::Latency;

/// Name of the file that says that a process uses the folder.
const LOCK_NAME: &str = "LOCK";

/// How a log is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Bytes of a segment file, [`PAGE_BYTES`] times 2 to 16 GiB, a multiple of [`PAGE_BYTES`].
    /// Default 128 MiB: rolling is rare, and dropping old segments is not too coarse. Applies to
    /// segments that are made from now on.
    pub segment_bytes: u64,
    /// Bytes of one record's payload at most, 1 to 1 GiB. Default 64 MiB. A record that does not
    /// fit into a segment gets one of its own size.
    pub record_bytes_max: u64,
    /// Who makes the next segment.
    pub prepare: Prepare,
    /// Id of a log that is begun; random when `None`. A log that exists keeps its own.
    pub store: Option<StoreId>,
}

/// Who makes the next segment, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prepare {
    /// A thread, while the one before it is being filled; it also syncs sealed segments. For real
    /// disks: the segment's space is written before its time, which halves the time of a sync.
    Ahead,
    /// The append that needs it. Without a thread the order of disk operations is that of the
    /// calls, so that a simulated run can be repeated.
    WhenNeeded,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            record_bytes_max: 64 << 20,
            prepare: Prepare::Ahead,
            store: None,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), RecoverError> {
        let in_range = |field, value, min, max| {
            let fits = (min..=max).contains(&value);
            if fits { Ok(()) } else { Err(RecoverError::Config { field, value, min, max }) }
        };
        in_range("segment_bytes", self.segment_bytes, 2 * PAGE_BYTES, 16 << 30)?;
        in_range("segment_bytes mod 4096", self.segment_bytes % PAGE_BYTES, 0, 0)?;
        in_range("record_bytes_max", self.record_bytes_max, 1, 1 << 30)
    }
}

/// One segment of an open log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentInfo {
    /// Position of the file's first byte; its name.
    pub base: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes in use: all for a sealed segment, else up to the end of the log.
    pub used_bytes: u64,
    /// Whether it takes no more records.
    pub is_sealed: bool,
}

/// What [`Journal::verify`] read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// Valid records.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
}

/// An open log. Any number of threads may use it at once.
pub struct Journal {
    files: Arc<dyn Files>,
    store: StoreId,
    segments: Arc<Segments>,
    writer: Arc<Writer>,
    /// Held while segments are dropped: two droppers would want the same file.
    dropping: Mutex<()>,
    // Fields are dropped in this order: the thread ends before the folder is given back.
    helper: Option<Helper>,
    _lock: Box<dyn FolderLock>,
}

impl Journal {
    /// Opens the log in `files`, or begins one in an empty folder.
    ///
    /// Finds the valid end, cuts the torn tail behind it, and calls `visit` with every valid record
    /// that starts at or after `scan_from` (all when `None`), in order, without a copy. `scan_from`
    /// is an [`Appended::end`] or [`Record::end`] of before. What is visited is durable when this
    /// returns; when it fails, what was visited must be forgotten.
    ///
    /// Waits for reading everything after `scan_from`, and for a sync.
    ///
    /// # Errors
    /// [`RecoverError::Corrupt`] when a record that was once durable is damaged or a segment is
    /// missing: nothing is changed then. The other variants of [`RecoverError`] say why the log
    /// cannot serve this caller.
    pub fn open(
        files: Arc<dyn Files>,
        config: &Config,
        scan_from: Option<u64>,
        visit: &mut dyn FnMut(Record),
    ) -> Result<(Self, RecoveryReport), RecoverError> {
        config.check()?;
        let lock = lock(&*files)?;
        let new_store = config.store.unwrap_or_else(random_store);
        let found = recovery::recover(&*files, config, new_store, scan_from, visit)?;
        let key = CheckKey::new(&found.store);
        let Some(active) = found.segments.last().cloned() else {
            return Err(RecoverError::ScanBeyondEnd { from: 0, end: 0 });
        };
        let preparer = Arc::new(Preparer::new(
            Arc::clone(&files),
            found.store,
            config.segment_bytes,
            active.limit(),
            found.ready,
        ));
        let segments = Arc::new(Segments::new(found.segments));
        let writer = Arc::new(Writer::new(
            key,
            config.record_bytes_max,
            Arc::clone(&segments),
            Arc::clone(&preparer),
            active,
            found.end,
        ));
        let helper = match config.prepare {
            Prepare::WhenNeeded => None,
            Prepare::Ahead => {
                let started = Helper::start(Arc::clone(&writer), preparer, Arc::clone(&segments));
                let name = "the helper thread".to_owned();
                let failed = |source| RecoverError::Io { action: "starting", name, source };
                Some(started.map_err(failed)?)
            }
        };
        let (store, dropping) = (found.store, Mutex::new(()));
        let journal = Self { files, store, segments, writer, dropping, helper, _lock: lock };
        Ok((journal, found.report))
    }

    /// Writes one record; not durable until [`Journal::sync_to`] its end. Records of one thread and
    /// of several are in the order of their positions.
    ///
    /// `kind` is 1 to 239. The payload is the concatenation of `parts`, written straight from them.
    /// Waits for the page cache, and for the disk when a new segment must be made on the spot.
    ///
    /// # Errors
    /// See [`AppendError`]: nothing was written, except by `Write`, which poisons the journal.
    pub fn append<P: AsRef<[u8]>>(&self, kind: u8, parts: &[P]) -> Result<Appended, AppendError> {
        let (appended, has_grown) = self.writer.append(kind, parts)?;
        if let (true, Some(helper)) = (has_grown, &self.helper) {
            helper.wake();
        }
        Ok(appended)
    }

    /// Returns when everything before `end` is durable; at once when it is already. Callers at the
    /// same time share one sync, and appends go on meanwhile.
    ///
    /// # Errors
    /// [`SyncError::Failed`] and [`SyncError::Poisoned`]: what was not durable before may be lost,
    /// and this journal takes nothing more. [`SyncError::NotWritten`]: `end` is not of this log.
    pub fn sync_to(&self, end: u64) -> Result<(), SyncError> {
        self.writer.sync_to(end)
    }

    /// Everything before this position is durable.
    pub fn synced(&self) -> u64 {
        self.writer.synced()
    }

    /// Position after the last record that was written.
    pub fn end(&self) -> u64 {
        self.writer.end()
    }

    /// Position of the oldest record.
    pub fn start(&self) -> u64 {
        self.segments.start()
    }

    /// The bytes from `position` on, as they were appended (their checksum was verified when the log
    /// was opened, or just computed; [`Journal::reader`] verifies again). On a real disk this is a
    /// slice of the mapped file, which stays mapped while the slice lives.
    ///
    /// # Errors
    /// [`ReadError::TooOld`], [`ReadError::NotWritten`], [`ReadError::NotOneSegment`], and on a
    /// simulated disk [`ReadError::Io`].
    pub fn read(&self, position: u64, len: u64) -> Result<Bytes, ReadError> {
        let end = self.writer.end();
        if position.checked_add(len).is_none_or(|until| until > end) {
            return Err(ReadError::NotWritten { position, len, end });
        }
        let Some(segment) = self.segments.find(position) else {
            return Err(ReadError::TooOld { position, start: self.start() });
        };
        segment.slice(position, len)?.ok_or(ReadError::NotOneSegment { position, len })
    }

    /// Reads records from `from` on, where a record must start (or the log end).
    pub fn reader(&self, from: u64) -> Reader {
        let key = CheckKey::new(&self.store);
        Reader::new(key, Arc::clone(&self.segments), Arc::clone(&self.writer), from)
    }

    /// Reads everything and checks every checksum.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] at the first record that does not verify; [`ReadError::TooOld`] when
    /// segments are dropped meanwhile.
    pub fn verify(&self) -> Result<Verified, ReadError> {
        let mut reader = self.reader(self.start());
        let mut verified = Verified::default();
        while let Some(record) = reader.next_record()? {
            verified.records += 1;
            verified.payload_bytes += record.payload.len() as u64;
        }
        Ok(verified)
    }

    /// Removes the sealed segments that lie wholly before `position`; returns how many. Slices that
    /// were read from them stay valid.
    ///
    /// # Errors
    /// [`DropError`]: that segment and later ones are still there.
    pub fn drop_before(&self, position: u64) -> Result<usize, DropError> {
        let _one_at_a_time = self.dropping.lock();
        let (active_base, _) = self.writer.active();
        retention::drop_before(&*self.files, &self.segments, active_base, position)
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let all = self.segments.all();
        let end = self.end();
        let info = all.iter().map(|segment| {
            let is_sealed = segment.limit() <= end;
            let used = if is_sealed {
                segment.capacity()
            } else {
                end.max(segment.first()) - segment.base()
            };
            SegmentInfo {
                base: segment.base(),
                bytes: segment.capacity(),
                used_bytes: used,
                is_sealed,
            }
        });
        info.collect()
    }

    /// Id of this log.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// What was done since the log was opened.
    pub fn stats(&self) -> Stats {
        self.writer.stats()
    }

    /// How long syncs took since the log was opened.
    pub fn sync_latency(&self) -> &Latency {
        self.writer.sync_latency()
    }

    /// Why nothing more is accepted, if so.
    pub fn poison_cause(&self) -> Option<Arc<str>> {
        self.writer.poison_cause()
    }

    /// Writes a mark that proves how far the log is durable. Not itself synced. Worth its 24 bytes
    /// before a pause: damage done to the last records of a log can only be told from a torn tail
    /// when something after them proves that they were durable.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn mark(&self) -> Result<(), AppendError> {
        self.writer.append_mark().map(|_| ())
    }

    /// Makes everything durable and writes a durable mark behind it.
    ///
    /// # Errors
    /// [`CloseError`]; the folder is given back in any case.
    pub fn close(self) -> Result<(), CloseError> {
        self.sync_to(self.end())?;
        let end = self.writer.append_mark()?;
        Ok(self.sync_to(end)?)
    }
}

/// What opening the log in `files` would find and do, without changing anything. `visit` gets every
/// valid record.
///
/// # Errors
/// As [`Journal::open`].
pub fn inspect(
    files: &dyn Files,
    visit: &mut dyn FnMut(Record),
) -> Result<RecoveryReport, RecoverError> {
    let _lock = lock(files)?;
    recovery::inspect(files, visit)
}

fn lock(files: &dyn Files) -> Result<Box<dyn FolderLock>, RecoverError> {
    files.lock(LOCK_NAME).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => RecoverError::InUse,
        _ => RecoverError::Io { action: "locking", name: LOCK_NAME.to_owned(), source },
    })
}

fn random_store() -> StoreId {
    let mut store = [0; 16];
    SystemRandom.fill(&mut store);
    store
}
