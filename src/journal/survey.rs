//! Looks at a folder of segments and finds where the log truly ends. Changes nothing.
//!
//! In: a folder and the position that the caller's state already covers. Out: the records after
//! it, in order; the valid end; how far it was provably durable; what lies behind the end. Tells a
//! torn tail from damage: every record says how far the log was durable when it was written, so a
//! bad record is damage if, and only if, a later one says that it was durable. Called by `recovery`.

use std::sync::Arc;

use super::error::{Damage, RecoverError};
use super::page::{base_of_name, segment_name};
use super::reader::{Found, Record, record_at};
use super::record::{
    ALIGN_BYTES, CheckKey, HEADER_BYTES, HEADER_LEN, Header, KIND_RESERVED_FROM, KIND_SEAL, StoreId,
};
use super::segment::Segment;
use crate::base::files::Files;

/// Bytes looked at in one go behind the end.
const WINDOW_BYTES: u64 = 64 * 1_024;

static ZEROS: [u8; (WINDOW_BYTES + HEADER_BYTES) as usize] =
    [0; (WINDOW_BYTES + HEADER_BYTES) as usize];

/// What a folder holds.
pub(super) struct Survey {
    pub(super) store: StoreId,
    /// All segments, by position.
    pub(super) segments: Vec<Arc<Segment>>,
    /// Index of the segment in which the log ends.
    pub(super) tail: usize,
    /// Index of the first segment that holds anything not proven to be durable.
    pub(super) unproven_from: usize,
    /// Everything before this was durable once.
    pub(super) proven: u64,
    /// Where the log ends.
    pub(super) end: u64,
    /// Records handed to the visitor.
    pub(super) records: u64,
    /// What lies behind the end in the tail segment, then in each later segment.
    pub(super) behind: Vec<Traces>,
}

/// What lies in bytes that are no part of the log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Traces {
    /// Position after the last byte that is not zero; `None` when all are zero.
    pub(super) dirty_until: Option<u64>,
    /// Record headers that verify.
    pub(super) headers: u64,
    /// The furthest position that one of them says was durable.
    pub(super) durable: u64,
}

/// What a walk through one segment found.
struct Walk {
    end: u64,
    is_sealed: bool,
    proven: u64,
    records: u64,
    /// Whether the position to begin at is one where a record starts or the log ends.
    from_is_border: bool,
}

/// Surveys the folder; `None` when it holds no segment. `visit` gets every record that starts at
/// or after `scan_from` (all when `None`).
pub(super) fn survey(
    files: &dyn Files,
    scan_from: Option<u64>,
    visit: &mut dyn FnMut(Record),
) -> Result<Option<Survey>, RecoverError> {
    let Some((segments, store)) = open_segments(files)? else {
        return match scan_from {
            None | Some(0) => Ok(None),
            Some(from) => Err(RecoverError::ScanBeyondEnd { from, end: 0 }),
        };
    };
    let key = CheckKey::new(&store);
    let first = first_to_walk(&segments, scan_from)?;
    let mut survey = Survey {
        store,
        segments,
        tail: first,
        unproven_from: first,
        proven: 0,
        end: 0,
        records: 0,
        behind: Vec::new(),
    };
    survey.walk_chain(key, scan_from, visit)?;
    survey.look_behind(key)?;
    survey.look_before(key, scan_from)?;
    Ok(Some(survey))
}

type Opened = (Vec<Arc<Segment>>, StoreId);

/// Opens all segments, in order.
fn open_segments(files: &dyn Files) -> Result<Option<Opened>, RecoverError> {
    let names = files.list().map_err(|source| RecoverError::Io {
        action: "listing",
        name: "the log's folder".to_owned(),
        source,
    })?;
    let mut segments = Vec::new();
    let mut store = None;
    // Names have a fixed width, so their order is that of the positions.
    for base in names.iter().filter_map(|name| base_of_name(name)) {
        let (segment, found) = Segment::open(files, base)?;
        if *store.get_or_insert(found) != found {
            let damage = Damage::OtherStore;
            return Err(RecoverError::Corrupt { segment: base, position: base, damage });
        }
        segments.push(Arc::new(segment));
    }
    Ok(store.map(|store| (segments, store)))
}

/// Index of the segment that holds `scan_from`; the segments before it must have no gap.
fn first_to_walk(segments: &[Arc<Segment>], scan_from: Option<u64>) -> Result<usize, RecoverError> {
    let Some(from) = scan_from else { return Ok(0) };
    let Some(first) = segments.partition_point(|segment| segment.base() <= from).checked_sub(1)
    else {
        let start = segments.first().map_or(0, |segment| segment.first());
        return Err(RecoverError::ScanTooOld { from, start });
    };
    for pair in segments.get(..=first).unwrap_or_default().windows(2) {
        let [before, after] = pair else { continue };
        if before.limit() != after.base() {
            return Err(next_missing(before));
        }
    }
    Ok(first)
}

impl Survey {
    /// Walks from seal to seal; where one is missing, the log ends.
    fn walk_chain(
        &mut self,
        key: CheckKey,
        scan_from: Option<u64>,
        visit: &mut dyn FnMut(Record),
    ) -> Result<(), RecoverError> {
        loop {
            let Some(segment) = self.segments.get(self.tail) else { return Ok(()) };
            let walk = walk(segment, key, scan_from, visit)?;
            self.proven = self.proven.max(walk.proven);
            self.records += walk.records;
            self.end = walk.end;
            if walk.is_sealed {
                let next = self.segments.get(self.tail + 1);
                if next.is_none_or(|next| next.base() != segment.limit()) {
                    return Err(next_missing(segment));
                }
                self.tail += 1;
            }
            if let Some(from) = scan_from.filter(|_| !walk.from_is_border) {
                if from > walk.end && !walk.is_sealed {
                    return Err(RecoverError::ScanBeyondEnd { from, end: walk.end });
                }
                return Err(RecoverError::ScanNotARecord { from });
            }
            if !walk.is_sealed {
                return Ok(());
            }
        }
    }

    /// Looks for proof behind the end that there was more.
    fn look_behind(&mut self, key: CheckKey) -> Result<(), RecoverError> {
        for segment in self.segments.iter().skip(self.tail) {
            let from = self.end.max(segment.first());
            self.behind.push(traces(segment, key, from)?);
        }
        let durable = self.behind.iter().map(|traces| traces.durable).max().unwrap_or(0);
        if durable <= self.end {
            return Ok(());
        }
        let segment = self.segments.get(self.tail).map_or(0, |segment| segment.base());
        let damage = Damage::Record { durable };
        Err(RecoverError::Corrupt { segment, position: self.end, damage })
    }

    /// Walks older segments until one is proven to have been durable before what follows it.
    fn look_before(&mut self, key: CheckKey, scan_from: Option<u64>) -> Result<(), RecoverError> {
        while let Some(segment) = self.segments.get(self.unproven_from) {
            if self.unproven_from == 0 || self.proven > segment.base() {
                break;
            }
            self.unproven_from -= 1;
            let Some(before) = self.segments.get(self.unproven_from) else { break };
            let walk = walk(before, key, None, &mut |_| ())?;
            if !walk.is_sealed {
                // The caller's state covers records that the log lost before they were durable, or
                // that were durable and are damaged now.
                let (segment, position) = (before.base(), walk.end);
                let damage = Damage::Record { durable: self.proven };
                return Err(match scan_from {
                    Some(from) if self.proven <= walk.end => {
                        RecoverError::ScanBeyondEnd { from, end: walk.end }
                    }
                    _ => RecoverError::Corrupt { segment, position, damage },
                });
            }
            self.proven = self.proven.max(walk.proven);
        }
        Ok(())
    }
}

fn walk(
    segment: &Segment,
    key: CheckKey,
    from: Option<u64>,
    visit: &mut dyn FnMut(Record),
) -> Result<Walk, RecoverError> {
    let mut walk = Walk {
        end: segment.first(),
        is_sealed: false,
        proven: 0,
        records: 0,
        from_is_border: from.is_none_or(|from| from <= segment.first()),
    };
    while !walk.is_sealed {
        let start = walk.end;
        walk.from_is_border |= from == Some(start);
        let found = record_at(segment, key, start).map_err(|source| reading(segment, source))?;
        let Found::Record(header, payload) = found else { break };
        walk.end = start + header.span();
        walk.proven = header.durable;
        walk.is_sealed = header.kind == KIND_SEAL;
        if header.kind < KIND_RESERVED_FROM && from.is_none_or(|from| start >= from) {
            walk.records += 1;
            let position = start + HEADER_BYTES;
            visit(Record { position, end: walk.end, kind: header.kind, payload });
        }
    }
    Ok(walk)
}

/// Looks at every byte from `from` to the segment's end.
fn traces(segment: &Segment, key: CheckKey, from: u64) -> Result<Traces, RecoverError> {
    let mut traces = Traces::default();
    let mut position = from;
    while position < segment.limit() {
        let stride = WINDOW_BYTES.min(segment.limit() - position);
        // Longer than the stride, so that a header on the border is seen whole.
        let len = (stride + HEADER_BYTES - ALIGN_BYTES).min(segment.limit() - position);
        let window = segment.slice(position, len).map_err(|source| reading(segment, source))?;
        let window = window.unwrap_or_default();
        look_through(&window, key, position, &mut traces);
        position += stride;
    }
    Ok(traces)
}

fn look_through(window: &[u8], key: CheckKey, position: u64, traces: &mut Traces) {
    // Nearly all that lies behind the end is zeros: compare them in one go.
    if ZEROS.get(..window.len()).is_some_and(|zeros| zeros == window) {
        return;
    }
    let Some(last) = window.iter().rposition(|byte| *byte != 0) else { return };
    let dirty_until = position + last as u64 + 1;
    traces.dirty_until = traces.dirty_until.max(Some(dirty_until));
    let candidates = window.windows(HEADER_LEN).step_by(ALIGN_BYTES as usize);
    for (index, bytes) in candidates.enumerate() {
        let start = position + index as u64 * ALIGN_BYTES;
        let header = <&[u8; HEADER_LEN]>::try_from(bytes).ok();
        if let Some(header) = header.and_then(|bytes| Header::decode(bytes, key, start)) {
            traces.headers += 1;
            traces.durable = traces.durable.max(header.durable);
        }
    }
}

fn next_missing(segment: &Segment) -> RecoverError {
    let (segment, position) = (segment.base(), segment.limit());
    RecoverError::Corrupt { segment, position, damage: Damage::NextMissing }
}

fn reading(segment: &Segment, source: std::io::Error) -> RecoverError {
    RecoverError::Io { action: "reading", name: segment_name(segment.base()), source }
}
