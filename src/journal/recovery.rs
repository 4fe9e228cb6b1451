//! Opens a folder: settles where the log ends and makes that true on the disk. The only place that
//! cuts.
//!
//! In: a folder. Out: the segments, the end after which appends may go on, and a report. Every step
//! may be interrupted by a crash and is then done again by the next start: the end does not depend
//! on whether what lies behind it is there still. Called by `Journal::open`.

use std::io::IoSlice;
use std::sync::Arc;

use super::Config;
use super::error::RecoverError;
use super::page::{base_of_name, segment_name};
use super::reader::Record;
use super::record::StoreId;
use super::segment::{CreateError, Segment, UNFINISHED_SUFFIX};
use super::survey::{Survey, survey};
use crate::base::files::Files;

/// Bytes written in one go when the tail is cut or written again.
const CHUNK_BYTES: u64 = 1 << 20;

/// What opening a log found and did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecoveryReport {
    /// Position of the oldest record.
    pub start: u64,
    /// Where the log ends.
    pub end: u64,
    /// Records that were visited.
    pub records: u64,
    /// Segments of the log.
    pub segments: u64,
    /// What was cut off behind the end; `None` when nothing was there.
    pub torn: Option<TornTail>,
    /// Bytes before the end that no record proves to have been durable: written and synced again,
    /// because an earlier process may have seen their sync fail.
    pub unproven_bytes: u64,
    /// Whether the folder was empty and a new log was begun.
    pub created: bool,
}

/// Bytes behind the end of a log, none of which was ever durable together with all before it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TornTail {
    /// Bytes up to the last one that was not zero, in the segment where the log ends.
    pub bytes: u64,
    /// Record headers that would have verified, in all segments behind the end. After the death of
    /// a process alone this is at most 1; after a power cut it may be any number.
    pub headers: u64,
    /// Later segments that were removed.
    pub segments: u64,
}

pub(super) struct Recovered {
    pub(super) store: StoreId,
    /// Never empty; the last one holds the end.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) end: u64,
    /// An empty segment that follows the last one.
    pub(super) ready: Option<Arc<Segment>>,
    pub(super) report: RecoveryReport,
}

/// Recovers the log in `files`, or begins one with the id `store`.
pub(super) fn recover(
    files: &dyn Files,
    config: &Config,
    store: StoreId,
    scan_from: Option<u64>,
    visit: &mut dyn FnMut(Record),
) -> Result<Recovered, RecoverError> {
    let Some(found) = survey(files, scan_from, visit)? else {
        remove_unfinished(files)?;
        return begin(files, config, store);
    };
    let ready_base = ready_segment(&found);
    let torn = cut(files, &found, ready_base)?;
    let unproven_bytes = write_again(&found)?;
    remove_unfinished(files)?;

    let mut segments = found.segments;
    let mut later = segments.split_off(found.tail + 1);
    later.retain(|segment| Some(segment.base()) == ready_base);
    let report = RecoveryReport {
        start: segments.first().map_or(0, |segment| segment.first()),
        end: found.end,
        records: found.records,
        segments: segments.len() as u64,
        torn,
        unproven_bytes,
        created: false,
    };
    Ok(Recovered { store: found.store, segments, end: found.end, ready: later.pop(), report })
}

/// What [`recover`] would find and do, without doing it. `torn` and `unproven_bytes` say what it
/// would cut and write again.
pub(super) fn inspect(
    files: &dyn Files,
    visit: &mut dyn FnMut(Record),
) -> Result<RecoveryReport, RecoverError> {
    let Some(found) = survey(files, None, visit)? else { return Ok(RecoveryReport::default()) };
    Ok(RecoveryReport {
        start: found.segments.first().map_or(0, |segment| segment.first()),
        end: found.end,
        records: found.records,
        segments: found.tail as u64 + 1,
        torn: torn_tail(&found, ready_segment(&found)),
        unproven_bytes: unproven(&found).map(|(_, from, until)| until - from).sum(),
        created: false,
    })
}

fn begin(files: &dyn Files, config: &Config, store: StoreId) -> Result<Recovered, RecoverError> {
    let created = Segment::create(files, &store, 0, config.segment_bytes);
    let segment = created.map_err(|error| {
        let source = match error {
            CreateError::Full => std::io::ErrorKind::StorageFull.into(),
            CreateError::GivenUp(source) | CreateError::InDoubt(source) => source,
        };
        RecoverError::Io { action: "creating", name: segment_name(0), source }
    })?;
    let end = segment.first();
    let report =
        RecoveryReport { start: end, end, segments: 1, created: true, ..RecoveryReport::default() };
    Ok(Recovered { store, segments: vec![Arc::new(segment)], end, ready: None, report })
}

/// Base of the segment after the tail if it is empty and can be used when the log goes on.
fn ready_segment(found: &Survey) -> Option<u64> {
    let tail = found.segments.get(found.tail)?;
    let next = found.segments.get(found.tail + 1)?;
    let is_clean = found.behind.get(1)?.dirty_until.is_none();
    (is_clean && next.base() == tail.limit()).then(|| next.base())
}

fn torn_tail(found: &Survey, ready_base: Option<u64>) -> Option<TornTail> {
    let dirty_until = found.behind.first().and_then(|traces| traces.dirty_until);
    let later = found.segments.get(found.tail + 1..).unwrap_or_default();
    let torn = TornTail {
        bytes: dirty_until.map_or(0, |until| until.saturating_sub(found.end)),
        headers: found.behind.iter().map(|traces| traces.headers).sum(),
        segments: later.iter().filter(|segment| Some(segment.base()) != ready_base).count() as u64,
    };
    (torn != TornTail::default()).then_some(torn)
}

/// Removes the segments behind the tail, and turns what is behind the end into zeros, so that no
/// record of before can ever follow one of tomorrow.
fn cut(
    files: &dyn Files,
    found: &Survey,
    ready_base: Option<u64>,
) -> Result<Option<TornTail>, RecoverError> {
    let torn = torn_tail(found, ready_base);
    let later = found.segments.get(found.tail + 1..).unwrap_or_default();
    for segment in later.iter().rev().filter(|segment| Some(segment.base()) != ready_base) {
        let name = segment_name(segment.base());
        let removed = files.remove(&name).and_then(|()| files.sync_dir());
        removed.map_err(|source| RecoverError::Io { action: "removing", name, source })?;
    }
    let bytes = torn.map_or(0, |torn| torn.bytes);
    if let Some(tail) = found.segments.get(found.tail).filter(|_| bytes > 0) {
        let zeros = vec![0; CHUNK_BYTES.min(bytes) as usize];
        let until = found.end + bytes;
        let mut position = found.end;
        while position < until {
            let count = CHUNK_BYTES.min(until - position) as usize;
            let chunk = zeros.get(..count).unwrap_or_default();
            let written = tail.write(&mut [IoSlice::new(chunk)], position);
            written.map_err(|source| failed("cutting", tail, source))?;
            position += count as u64;
        }
    }
    Ok(torn)
}

/// The ranges that no record proves to have been durable: segment, from, until.
fn unproven(found: &Survey) -> impl Iterator<Item = (&Arc<Segment>, u64, u64)> {
    let chain = found.segments.get(found.unproven_from..=found.tail).unwrap_or_default();
    chain.iter().map(|segment| {
        let from = found.proven.max(segment.first());
        let until = found.end.min(segment.limit());
        (segment, from.min(until), until)
    })
}

/// Writes what is not proven durable again, and syncs it. After a failed sync the system may show
/// bytes that the disk never got, and a sync without a write would change nothing.
fn write_again(found: &Survey) -> Result<u64, RecoverError> {
    let mut bytes = 0;
    for (segment, from, until) in unproven(found) {
        let mut position = from;
        while position < until {
            let len = CHUNK_BYTES.min(until - position);
            let slice = segment.slice(position, len);
            let slice = slice.map_err(|source| failed("reading", segment, source))?;
            // A copy, because the source must not be the map of the file that is written.
            let copy = slice.unwrap_or_default().to_vec();
            let written = segment.write(&mut [IoSlice::new(&copy)], position);
            written.map_err(|source| failed("writing", segment, source))?;
            position += len;
            bytes += len;
        }
        segment.sync().map_err(|source| failed("syncing", segment, source))?;
    }
    Ok(bytes)
}

/// Removes segment files that were never finished; they hold no record.
fn remove_unfinished(files: &dyn Files) -> Result<(), RecoverError> {
    let io = |action, name: &str, source| {
        let name = name.to_owned();
        RecoverError::Io { action, name, source }
    };
    let names = files.list().map_err(|source| io("listing", "the log's folder", source))?;
    // Of our own making only: what somebody else put there is not ours to delete.
    let is_segment = |name: &str| base_of_name(name).is_some();
    let unfinished = |name: &&String| name.strip_suffix(UNFINISHED_SUFFIX).is_some_and(is_segment);
    for name in names.iter().filter(unfinished) {
        files.remove(name).map_err(|source| io("removing", name, source))?;
    }
    Ok(())
}

fn failed(action: &'static str, segment: &Segment, source: std::io::Error) -> RecoverError {
    RecoverError::Io { action, name: segment_name(segment.base()), source }
}
