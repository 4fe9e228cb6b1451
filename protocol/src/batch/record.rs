//! One record: the single place that reads its bytes.
//!
//! In: a batch's bytes and the offset of a record. Out: its parts as slices of those bytes, or a
//! [`BatchError`]. The check of a received batch and the walk over a stored one both go through
//! [`read`], so they cannot disagree. Called by `batch` alone.

use std::ops::Range;

use super::BatchError;

/// The record has a transaction id.
pub(super) const FLAG_TRANSACTION_ID: u8 = 1 << 0;
/// The record has a trace id.
pub(super) const FLAG_TRACE_ID: u8 = 1 << 1;
/// The record has headers.
pub(super) const FLAG_HEADERS: u8 = 1 << 2;
/// The payload is JSON.
pub(super) const FLAG_JSON: u8 = 1 << 3;
/// Bytes of the field that a record begins with.
const LENGTH_BYTES: usize = 4;
/// Flags that this version knows.
pub(super) const FLAGS_KNOWN: u8 = FLAG_TRANSACTION_ID | FLAG_TRACE_ID | FLAG_HEADERS | FLAG_JSON;

/// One message of a batch, borrowed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The producer's id for the message, 1 to 255 bytes; decides what a duplicate is.
    pub transaction_id: Option<&'a str>,
    /// The trace that the message belongs to.
    pub trace_id: Option<[u8; 16]>,
    /// Key and value pairs.
    pub headers: Headers<'a>,
    /// Whether the payload is JSON; else it is just bytes.
    pub is_json: bool,
    /// The payload, never parsed on its way.
    pub payload: &'a [u8],
    /// Everything between the length field and the payload, as it stands: flags, ids, headers.
    pub clear: &'a [u8],
    /// Where the whole record stands in the batch's bytes, its length field included.
    pub range: Range<usize>,
}

/// The headers of one record: an iterator over `(key, value)`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// What is left of the section.
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Whether there are none left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The value of the first header with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a [u8]> {
        let mut walk = *self;
        walk.find(|(found, _)| *found == key).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut cursor = Cursor { bytes: self.rest, at: 0, record: 0 };
        // A section that is damaged ends here; a parsed batch has none.
        let entry = cursor.header(self.rest.len()).ok();
        self.rest = match entry {
            Some(_) => self.rest.get(cursor.at..).unwrap_or_default(),
            None => &[],
        };
        entry
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(*self).finish()
    }
}

/// How deep [`read`] looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Every header entry too: bytes from outside.
    Full,
    /// Headers are taken as they are: bytes that were checked before.
    Structure,
}

/// Reads the record that begins at `at`; `index` is named in errors.
pub(super) fn read(
    bytes: &[u8],
    at: usize,
    index: u32,
    depth: Depth,
) -> Result<Record<'_>, BatchError> {
    let mut cursor = Cursor { bytes, at, record: index };
    let length = u32::from_le_bytes(cursor.array("length", bytes.len())?) as usize;
    let have = bytes.len() - cursor.at;
    if length > have || length == 0 {
        let record = Some(index);
        let need = length.max(1);
        return Err(BatchError::Length { field: "length", offset: at, need, have, record });
    }
    let end = cursor.at + length;
    let [flags] = cursor.array("flags", end)?;
    if flags & !FLAGS_KNOWN != 0 {
        let (offset, record, value) = (cursor.at - 1, Some(index), u32::from(flags));
        return Err(BatchError::Value { field: "flags", offset, record, value });
    }
    let transaction_id = match flags & FLAG_TRANSACTION_ID {
        0 => None,
        _ => Some(cursor.short_text("transaction_id", end)?),
    };
    let trace_id = match flags & FLAG_TRACE_ID {
        0 => None,
        _ => Some(cursor.array("trace_id", end)?),
    };
    let headers = match flags & FLAG_HEADERS {
        0 => Headers::default(),
        _ => cursor.headers(end, depth)?,
    };
    let clear = bytes.get(at + LENGTH_BYTES..cursor.at).unwrap_or_default();
    let payload = cursor.take("payload", end - cursor.at, end)?;
    let is_json = flags & FLAG_JSON != 0;
    Ok(Record { transaction_id, trace_id, headers, is_json, payload, clear, range: at..end })
}

/// Whether any record from `at` on has headers, by lengths and flags alone.
pub(super) fn any_has_headers(bytes: &[u8], mut at: usize) -> bool {
    while let Some([a, b, c, d, flags]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        if flags & FLAG_HEADERS != 0 {
            return true;
        }
        at += LENGTH_BYTES + u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    }
    false
}

/// A place in a batch's bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    record: u32,
}

impl<'a> Cursor<'a> {
    /// The next `count` bytes, all before `end`.
    fn take(
        &mut self,
        field: &'static str,
        count: usize,
        end: usize,
    ) -> Result<&'a [u8], BatchError> {
        let rest = self.bytes.get(self.at..end).unwrap_or_default();
        let Some(found) = rest.get(..count) else {
            return Err(BatchError::Length {
                field,
                offset: self.at,
                need: count,
                have: rest.len(),
                record: Some(self.record),
            });
        };
        self.at += count;
        Ok(found)
    }

    fn array<const N: usize>(
        &mut self,
        field: &'static str,
        end: usize,
    ) -> Result<[u8; N], BatchError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N, end)?);
        Ok(out)
    }

    /// 1 to 255 bytes of UTF-8 behind a one-byte length.
    fn short_text(&mut self, field: &'static str, end: usize) -> Result<&'a str, BatchError> {
        let [count] = self.array(field, end)?;
        let offset = self.at;
        if count == 0 {
            let record = Some(self.record);
            return Err(BatchError::Value { field, offset: offset - 1, record, value: 0 });
        }
        std::str::from_utf8(self.take(field, usize::from(count), end)?).map_err(|error| {
            BatchError::Utf8 { field, offset: offset + error.valid_up_to(), record: self.record }
        })
    }

    /// One header's key and value.
    fn header(&mut self, end: usize) -> Result<(&'a str, &'a [u8]), BatchError> {
        let key = self.short_text("header_key", end)?;
        let count = u16::from_le_bytes(self.array("header_value", end)?);
        Ok((key, self.take("header_value", usize::from(count), end)?))
    }

    fn headers(&mut self, end: usize, depth: Depth) -> Result<Headers<'a>, BatchError> {
        let count = u16::from_le_bytes(self.array("headers", end)?);
        let from = self.at;
        let rest = self.take("headers", usize::from(count), end)?;
        if depth == Depth::Full {
            let mut walk = Cursor { bytes: self.bytes, at: from, record: self.record };
            while walk.at < self.at {
                walk.header(self.at)?;
            }
        }
        Ok(Headers { rest })
    }
}
