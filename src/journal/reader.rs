//! Walks records from a position; stops at the first bad one; never writes.
//!
//! In: segments and a position where a record starts. Out: records whose checks hold. Called by
//! whoever replays the log, by `survey` at the start, and by the journal's `verify`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::error::ReadError;
use super::record::{
    CheckKey, HEADER_BYTES, HEADER_LEN, Header, KIND_RESERVED_FROM, KIND_SEAL, span,
};
use super::segment::Segment;
use super::segments::Segments;
use super::writer::Writer;

/// One record of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Position of the payload's first byte.
    pub position: u64,
    /// Position after the record: a scan may begin here.
    pub end: u64,
    /// The kind that it was appended with.
    pub kind: u8,
    /// The payload: a slice of the mapped segment, which it keeps mapped.
    pub payload: Bytes,
}

/// What a position holds.
pub(super) enum Found {
    Record(Header, Bytes),
    /// No record that verifies, or none at all.
    Nothing,
}

/// Looks for a record that starts at `position`.
pub(super) fn record_at(segment: &Segment, key: CheckKey, position: u64) -> io::Result<Found> {
    let Some(bytes) = segment.slice(position, HEADER_BYTES)? else { return Ok(Found::Nothing) };
    let Ok(bytes) = <&[u8; HEADER_LEN]>::try_from(&*bytes) else { return Ok(Found::Nothing) };
    let Some(header) = Header::decode(bytes, key, position) else { return Ok(Found::Nothing) };
    // Every record leaves room for a seal after it, or the log could not go on.
    let room = if header.kind == KIND_SEAL { 0 } else { span(0) };
    if position.saturating_add(header.span() + room) > segment.limit() {
        return Ok(Found::Nothing);
    }
    let start = position + HEADER_BYTES;
    let Some(payload) = segment.slice(start, u64::from(header.length))? else {
        return Ok(Found::Nothing);
    };
    if crc32fast::hash(&payload) != header.payload_crc {
        return Ok(Found::Nothing);
    }
    Ok(Found::Record(header, payload))
}

/// Reads an open log forwards, up to its end at the time of each call.
pub struct Reader {
    key: CheckKey,
    segments: Arc<Segments>,
    writer: Arc<Writer>,
    position: u64,
}

impl Reader {
    pub(super) fn new(
        key: CheckKey,
        segments: Arc<Segments>,
        writer: Arc<Writer>,
        position: u64,
    ) -> Self {
        Self { key, segments, writer, position }
    }

    /// Where the next record starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next record, or `None` at the end of the log; asking again later continues there.
    ///
    /// # Errors
    /// [`ReadError::TooOld`] when retention has overtaken this reader; [`ReadError::Damaged`] when
    /// no valid record starts here; [`ReadError::Io`].
    pub fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        while self.position < self.writer.end() {
            let start = self.segments.start();
            let too_old = ReadError::TooOld { position: self.position, start };
            let segment = self.segments.find(self.position).ok_or(too_old)?;
            let damaged = ReadError::Damaged { position: self.position };
            let Found::Record(header, payload) = record_at(&segment, self.key, self.position)?
            else {
                return Err(damaged);
            };
            let start = self.position;
            self.position = start + header.span();
            if header.kind == KIND_SEAL {
                self.position = segment.limit() + (segment.first() - segment.base());
            } else if header.kind < KIND_RESERVED_FROM {
                let position = start + HEADER_BYTES;
                let end = self.position;
                return Ok(Some(Record { position, end, kind: header.kind, payload }));
            }
        }
        Ok(None)
    }
}
