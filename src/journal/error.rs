//! What can go wrong with the log: one type per operation, each saying how the world looks after.
//!
//! In: nothing. Out: errors. They are returned, never logged here. Called by every file of this
//! room and matched by `log`.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Why a record was not appended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The payload is longer than `record_bytes_max`; nothing was written.
    #[error("record payload of {bytes} bytes: record_bytes_max is {limit}")]
    TooLarge {
        /// Bytes of the refused payload.
        bytes: u64,
        /// The configured limit.
        limit: u64,
    },
    /// Kind 0 and kinds from 0xF0 up are the journal's own; nothing was written.
    #[error("record kind {kind}: kinds 1 to 239 are the caller's")]
    ReservedKind {
        /// The refused kind.
        kind: u8,
    },
    /// There is no space for another segment; nothing was written, and it may succeed later.
    #[error("the disk is full: no space for a segment of {segment_bytes} bytes")]
    DiskFull {
        /// Bytes that were asked for.
        segment_bytes: u64,
    },
    /// Another segment could not be made; nothing was written, and it may succeed later.
    #[error("the next segment could not be made: {source}")]
    NextSegment {
        /// The disk's error.
        source: io::Error,
    },
    /// The write failed; the record may be there in part and is not part of the log. From now on
    /// everything answers `Poisoned`.
    #[error("writing the log failed: {source}")]
    Write {
        /// The disk's error.
        source: io::Error,
    },
    /// An earlier write or sync failed: nothing more is accepted until the log is opened again.
    #[error("the log takes nothing more since it failed: {cause}")]
    Poisoned {
        /// The earlier failure.
        cause: Arc<str>,
    },
}

impl AppendError {
    /// Whether the same record may be appended again, later, to this open journal.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::NextSegment { .. })
    }
}

/// Why durability is not known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SyncError {
    /// Nothing was written up to there, so nothing can be made durable.
    #[error("position {end} is beyond the end of the log, {written}")]
    NotWritten {
        /// The position asked for.
        end: u64,
        /// The end of what was written.
        written: u64,
    },
    /// The sync failed: what was not durable before may be lost. From now on everything answers
    /// `Poisoned`.
    #[error("syncing the log failed: {source}")]
    Failed {
        /// The disk's error.
        source: io::Error,
    },
    /// An earlier write or sync failed.
    #[error("the log takes nothing more since it failed: {cause}")]
    Poisoned {
        /// The earlier failure.
        cause: Arc<str>,
    },
}

/// Why bytes of the log cannot be had. Reading changes nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The position was dropped by retention, or never was.
    #[error("position {position} is before the start of the log, {start}")]
    TooOld {
        /// The position asked for.
        position: u64,
        /// The first position that is still there.
        start: u64,
    },
    /// Nothing was written there yet.
    #[error("bytes {position} to {} are beyond the end of the log, {end}", position.saturating_add(*len))]
    NotWritten {
        /// The position asked for.
        position: u64,
        /// How many bytes were asked for.
        len: u64,
        /// The end of what was written.
        end: u64,
    },
    /// The range crosses the border of a segment: no payload does.
    #[error("bytes {position} to {} are not inside one segment", position.saturating_add(*len))]
    NotOneSegment {
        /// The position asked for.
        position: u64,
        /// How many bytes were asked for.
        len: u64,
    },
    /// No valid record starts there: the bytes are damaged, or the position is not a record's.
    #[error("no valid record at position {position}")]
    Damaged {
        /// Where the record should start.
        position: u64,
    },
    /// The disk failed.
    #[error("reading the log failed: {source}")]
    Io {
        /// The disk's error.
        #[from]
        source: io::Error,
    },
}

/// Why a log was not opened. Nothing of it was deleted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// A setting is out of range.
    #[error("{field} = {value}: allowed is {min} to {max}")]
    Config {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The smallest allowed value.
        min: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// Another process, or another journal of this one, has the folder.
    #[error("the log is in use")]
    InUse,
    /// The disk failed.
    #[error("{action} {name}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        name: String,
        /// The disk's error.
        source: io::Error,
    },
    /// The log is damaged where it was once durable.
    #[error("the log is damaged at position {position}, in segment {segment:020}: {damage}")]
    Corrupt {
        /// Base of the segment.
        segment: u64,
        /// First position that cannot be believed.
        position: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The scan should begin before the oldest record: the records between are gone.
    #[error("the log starts at {start}, after position {from} which it should be read from")]
    ScanTooOld {
        /// Where the scan should begin.
        from: u64,
        /// The oldest position.
        start: u64,
    },
    /// The scan should begin after the end: the log lost records, or belongs to other state.
    #[error("the log ends at {end}, before position {from} which it should be read from")]
    ScanBeyondEnd {
        /// Where the scan should begin.
        from: u64,
        /// The valid end.
        end: u64,
    },
    /// The scan should begin where no record starts.
    #[error("no record starts at position {from}")]
    ScanNotARecord {
        /// Where the scan should begin.
        from: u64,
    },
}

/// What is wrong with a damaged log.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Damage {
    /// The first page does not verify.
    #[error("its first page does not verify")]
    Page,
    /// The first page is of another version.
    #[error("format version {found}, supported is {supported}")]
    Version {
        /// What the page says.
        found: u32,
        /// What this code reads.
        supported: u32,
    },
    /// The page belongs to another segment than the file's name.
    #[error("its first page is that of segment {found:020}")]
    Misnamed {
        /// The base that the page says.
        found: u64,
    },
    /// The page belongs to another store.
    #[error("it belongs to another store")]
    OtherStore,
    /// The file is shorter or longer than its page says.
    #[error("the file has {found} bytes instead of {expected}")]
    Length {
        /// Bytes that the file has.
        found: u64,
        /// Bytes that it should have.
        expected: u64,
    },
    /// A record does not verify, though a later one proves that it was durable.
    #[error("a record that was durable does not verify ({durable} was reached)")]
    Record {
        /// The log was durable up to here at least.
        durable: u64,
    },
    /// A segment says that another follows, and it is not there.
    #[error("the segment that follows is missing")]
    NextMissing,
}

/// Why old segments were not all dropped. Those that remain are dropped by the next attempt.
#[derive(Debug, Error)]
#[error("dropping segment {segment:020}: {source}")]
pub struct DropError {
    /// Base of the segment that could not be dropped.
    pub segment: u64,
    /// The disk's error.
    pub source: io::Error,
}

/// Why a log was not closed cleanly. What was synced before stays durable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The closing mark was not written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The last records may not be durable.
    #[error(transparent)]
    Sync(#[from] SyncError),
}
