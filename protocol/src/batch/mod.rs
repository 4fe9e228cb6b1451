//! The record batch: one shape from producer to disk to consumer.
//!
//! In: bytes of a frame or of a log. Out: a [`RecordBatch`], which proves that its structure,
//! checksum and limits were checked, and lends its records as slices. Partition, sequence and
//! time stand beside a batch, never inside. Named by every room; parsed once, at the door.

mod builder;
mod error;
mod header;
mod record;

use std::iter::FusedIterator;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

pub use builder::{BatchBuilder, NewRecord};
pub use error::BatchError;
pub use record::{Headers, Record};

use crate::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES, MESSAGE_BYTES_MAX, RECORDS_MAX};
use header::Head;
use record::Depth;

/// What a batch may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of the whole batch, its header included.
    pub batch_bytes_max: usize,
    /// Bytes of one payload.
    pub message_bytes_max: usize,
    /// Records in the batch.
    pub records_max: u32,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            batch_bytes_max: BATCH_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            records_max: RECORDS_MAX,
        }
    }
}

/// A checked batch of 1 to 1 000 000 records. Cheap to clone: it shares its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    bytes: Bytes,
    head: Head,
}

impl RecordBatch {
    /// Checks everything once: header, lengths, checksum, every record's structure and texts.
    /// Allocates nothing and copies nothing.
    ///
    /// # Errors
    /// [`BatchError`] naming field, offset, record and limit, the first that is found.
    pub fn parse(bytes: Bytes, limits: &BatchLimits) -> Result<Self, BatchError> {
        let head = header::read(&bytes, limits, false)?;
        let records = bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        let computed = crc32fast::hash(records);
        if computed != head.crc {
            return Err(BatchError::Checksum { announced: head.crc, computed });
        }
        let mut at = BATCH_HEADER_BYTES;
        let mut has_transaction_ids = false;
        for index in 0..head.count {
            let record = record::read(&bytes, at, index, Depth::Full)?;
            if record.payload.len() > limits.message_bytes_max {
                return Err(BatchError::TooLarge {
                    field: "payload",
                    record: Some(index),
                    bytes: record.payload.len(),
                    limit: limits.message_bytes_max,
                });
            }
            has_transaction_ids |= record.transaction_id.is_some();
            at = record.range.end;
        }
        if at != bytes.len() {
            let (need, have) = (at - BATCH_HEADER_BYTES, bytes.len() - BATCH_HEADER_BYTES);
            let field = "records_bytes";
            return Err(BatchError::Length { field, offset: 8, need, have, record: None });
        }
        if has_transaction_ids != head.has_transaction_ids {
            let value = u32::from(head.has_transaction_ids);
            let field = "has_transaction_ids";
            return Err(BatchError::Value { field, offset: 1, record: None, value });
        }
        Ok(Self { bytes, head })
    }

    /// Checks the header only: for bytes that were parsed before they were stored, read back from
    /// a log with checksums of its own. Should the records be damaged all the same, walking them
    /// ends early; nothing panics.
    ///
    /// # Errors
    /// [`BatchError`] when the header is not one, or does not fit the bytes.
    pub fn parse_trusted(bytes: Bytes) -> Result<Self, BatchError> {
        let limits = BatchLimits {
            batch_bytes_max: usize::MAX,
            message_bytes_max: usize::MAX,
            records_max: RECORDS_MAX,
        };
        let head = header::read(&bytes, &limits, true)?;
        Ok(Self { bytes, head })
    }

    /// How many records there are; at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.head.count
    }

    /// The whole batch, header and records: what goes to the wire and to the log.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records without the header, sharing the batch's memory.
    #[must_use]
    pub fn records_section(&self) -> Bytes {
        self.bytes.slice(BATCH_HEADER_BYTES..)
    }

    /// CRC-32 of the records section.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.head.crc
    }

    /// Whether at least one record has a transaction id.
    #[must_use]
    pub fn has_transaction_ids(&self) -> bool {
        self.head.has_transaction_ids
    }

    /// Whether at least one record has headers. Looks at the lengths and flags of records, and at
    /// nothing else.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        record::any_has_headers(&self.bytes, BATCH_HEADER_BYTES)
    }

    /// Whether a server has sealed the payloads. [`Self::parse`] takes no such batch, so nobody can
    /// push one.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.head.is_sealed
    }

    /// The records from first to last.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records { bytes: &self.bytes, at: BATCH_HEADER_BYTES, index: 0, count: self.head.count }
    }

    /// A batch of the records from index `from` up to and without index `to`. Copies their bytes
    /// once; the whole range shares them instead. `None` when the range is empty or goes beyond
    /// the batch.
    #[must_use]
    pub fn slice(&self, from: u32, to: u32) -> Option<Self> {
        if from >= to || to > self.head.count {
            return None;
        }
        if to - from == self.head.count {
            return Some(self.clone());
        }
        self.filter(|index| (from as usize..to as usize).contains(&index))
    }

    /// A batch of the records whose index `keep` takes, in their order. Copies their bytes once;
    /// when all are kept it shares them instead. `None` when none is kept.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Option<Self> {
        let mut kept = Kept::default();
        for (index, record) in self.records().enumerate() {
            if keep(index) {
                kept.add(&record);
            }
        }
        (kept.count > 0).then(|| self.keep(kept))
    }

    /// A batch of one of its [records](Self::records) alone. Copies its bytes once; the only record
    /// shares them instead.
    #[must_use]
    pub fn of_one(&self, record: &Record<'_>) -> Self {
        let mut kept = Kept::default();
        kept.add(record);
        self.keep(kept)
    }

    fn keep(&self, kept: Kept) -> Self {
        if kept.count == self.head.count {
            return self.clone();
        }
        let mut bytes = BytesMut::with_capacity(BATCH_HEADER_BYTES + kept.bytes);
        bytes.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
        for run in kept.runs {
            bytes.extend_from_slice(self.bytes.get(run).unwrap_or_default());
        }
        let Kept { count, has_transaction_ids, .. } = kept;
        let head = header::seal(&mut bytes, Head { has_transaction_ids, count, ..self.head });
        Self { bytes: bytes.freeze(), head }
    }

    /// The same records with other payloads, sealed or not as `is_sealed` says. For each record
    /// `write` adds the new payload to what is there of the new batch, which has room for `bytes` in
    /// all from the start; everything else of the record is copied before it is called. No limit is
    /// held against: the result may be larger than what [`Self::parse`] takes.
    ///
    /// # Errors
    /// The index of the record whose payload `write` had none for, and what it said.
    pub fn rewrite<E>(
        &self,
        is_sealed: bool,
        bytes: usize,
        mut write: impl FnMut(&Record<'_>, &mut BytesMut) -> Result<(), E>,
    ) -> Result<Self, (u32, E)> {
        let mut out = BytesMut::with_capacity(bytes);
        out.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
        let mut count = 0;
        for record in self.records() {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(record.clear);
            write(&record, &mut out).map_err(|error| (count, error))?;
            // A payload has a limit far below 4 GiB, and so has what a seal adds to it.
            let length = (out.len() - start - 4) as u32;
            if let Some(place) = out.get_mut(start..start + 4) {
                place.copy_from_slice(&length.to_le_bytes());
            }
            count += 1;
        }
        let head = header::seal(&mut out, Head { is_sealed, count, ..self.head });
        Ok(Self { bytes: out.freeze(), head })
    }

    /// The header of the batch that these parts make when their
    /// [records sections](Self::records_section) stand one after the other. No payload is read:
    /// the checksum is combined from the parts' own.
    ///
    /// # Errors
    /// [`BatchError::Count`] without parts or over [`RECORDS_MAX`] records,
    /// [`BatchError::TooLarge`] over [`BATCH_BYTES_MAX`], [`BatchError::Unsupported`] where sealed
    /// parts meet others.
    pub fn joined_header<'a>(
        parts: impl IntoIterator<Item = &'a Self>,
    ) -> Result<[u8; BATCH_HEADER_BYTES], BatchError> {
        let mut crc = crc32fast::Hasher::new();
        let mut head = Head { has_transaction_ids: false, is_sealed: false, count: 0, crc: 0 };
        let mut bytes = BATCH_HEADER_BYTES;
        for part in parts {
            let records_bytes = part.bytes.len() - BATCH_HEADER_BYTES;
            if head.count > 0 && part.head.is_sealed != head.is_sealed {
                return Err(BatchError::Unsupported { field: "encryption", value: 1 });
            }
            head.is_sealed = part.head.is_sealed;
            crc.combine(&crc32fast::Hasher::new_with_initial_len(
                part.head.crc,
                records_bytes as u64,
            ));
            head.has_transaction_ids |= part.head.has_transaction_ids;
            head.count = head.count.saturating_add(part.head.count);
            bytes = bytes.saturating_add(records_bytes);
        }
        if head.count == 0 || head.count > RECORDS_MAX {
            return Err(BatchError::Count { count: head.count, limit: RECORDS_MAX });
        }
        if bytes > BATCH_BYTES_MAX {
            let (field, limit) = ("batch", BATCH_BYTES_MAX);
            return Err(BatchError::TooLarge { field, record: None, bytes, limit });
        }
        head.crc = crc.finalize();
        Ok(header::write(head, (bytes - BATCH_HEADER_BYTES) as u32))
    }
}

/// Records that a new batch keeps: neighbours are copied as one run.
#[derive(Default)]
struct Kept {
    runs: Vec<Range<usize>>,
    bytes: usize,
    count: u32,
    has_transaction_ids: bool,
}

impl Kept {
    fn add(&mut self, record: &Record<'_>) {
        self.bytes += record.range.len();
        self.count += 1;
        self.has_transaction_ids |= record.transaction_id.is_some();
        match self.runs.last_mut() {
            Some(run) if run.end == record.range.start => run.end = record.range.end,
            _ => self.runs.push(record.range.clone()),
        }
    }
}

/// Walks a batch's records. Ends early, and for good, where a trusted batch turns out damaged.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    index: u32,
    count: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.index >= self.count {
            return None;
        }
        match record::read(self.bytes, self.at, self.index, Depth::Structure) {
            Ok(record) => {
                self.index += 1;
                self.at = record.range.end;
                Some(record)
            }
            Err(_) => {
                self.index = self.count;
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some((self.count - self.index) as usize))
    }
}

impl FusedIterator for Records<'_> {}
