//! Builds record batches one record at a time.
//!
//! In: [`NewRecord`]s. Out: a [`RecordBatch`] that every parser takes, because the builder holds
//! to the same limits. Called by producers: the client, the HTTP door, process outboxes.

use bytes::{BufMut, BytesMut};

use super::header::Head;
use super::record::{FLAG_HEADERS, FLAG_JSON, FLAG_TRACE_ID, FLAG_TRANSACTION_ID};
use super::{BatchError, BatchLimits, RecordBatch, header};
use crate::limits::{
    BATCH_HEADER_BYTES, RECORD_BYTES_MIN, RECORD_HEADERS_BYTES_MAX, TRANSACTION_ID_BYTES_MAX,
};

/// One message to be added to a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// The producer's id for the message, 1 to 255 bytes.
    pub transaction_id: Option<&'a str>,
    /// The trace that the message belongs to.
    pub trace_id: Option<[u8; 16]>,
    /// Keys of 1 to 255 bytes, values of at most 65 535, at most 65 535 bytes in all.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Whether the payload is JSON. Not checked.
    pub is_json: bool,
    /// The payload; it may be empty.
    pub payload: &'a [u8],
}

/// Collects records; [`Self::finish`] hands them over as a batch and leaves the builder empty,
/// ready for the next.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    /// A header's place, then the records. Empty until the first record.
    buffer: BytesMut,
    count: u32,
    has_transaction_ids: bool,
    limits: BatchLimits,
}

impl BatchBuilder {
    /// An empty builder with the default limits. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty builder with room for `bytes` of batch.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// An empty builder that holds to these limits, as a server's welcome announces them.
    #[must_use]
    pub fn with_limits(limits: BatchLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Adds one record.
    ///
    /// # Errors
    /// [`BatchError`] naming the field and the limit; the builder is as before. Where it is
    /// [`BatchError::Count`] or about `batch`, the record may fit the next batch.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BatchError> {
        let (record_bytes, headers_bytes) = self.check(record)?;
        if self.count == 0 {
            self.buffer.put_slice(&[0; BATCH_HEADER_BYTES]);
        }
        self.buffer.reserve(record_bytes);
        // `check` held the whole record against the batch limit, which a u32 holds.
        self.buffer.put_u32_le((record_bytes - 4) as u32);
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        self.buffer.put_u8(
            flag(record.transaction_id.is_some(), FLAG_TRANSACTION_ID)
                | flag(record.trace_id.is_some(), FLAG_TRACE_ID)
                | flag(!record.headers.is_empty(), FLAG_HEADERS)
                | flag(record.is_json, FLAG_JSON),
        );
        if let Some(id) = record.transaction_id {
            self.buffer.put_u8(id.len() as u8);
            self.buffer.put_slice(id.as_bytes());
            self.has_transaction_ids = true;
        }
        if let Some(trace) = record.trace_id {
            self.buffer.put_slice(&trace);
        }
        if !record.headers.is_empty() {
            self.buffer.put_u16_le(headers_bytes as u16);
            for (key, value) in record.headers {
                self.buffer.put_u8(key.len() as u8);
                self.buffer.put_slice(key.as_bytes());
                self.buffer.put_u16_le(value.len() as u16);
                self.buffer.put_slice(value);
            }
        }
        self.buffer.put_slice(record.payload);
        self.count += 1;
        Ok(())
    }

    /// How many records wait.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes the batch would have now, its header included; 0 while it is empty.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.buffer.len()
    }

    /// Hands over what was collected; `None` when there is nothing, as no batch is empty.
    pub fn finish(&mut self) -> Option<RecordBatch> {
        if self.count == 0 {
            return None;
        }
        let mut bytes = self.buffer.split();
        let (count, has_transaction_ids) = (self.count, self.has_transaction_ids);
        let head = Head { has_transaction_ids, is_sealed: false, count, crc: 0 };
        let head = header::seal(&mut bytes, head);
        self.count = 0;
        self.has_transaction_ids = false;
        Some(RecordBatch { bytes: bytes.freeze(), head })
    }

    /// Bytes of the whole record and of its headers section.
    fn check(&self, record: &NewRecord<'_>) -> Result<(usize, usize), BatchError> {
        let index = Some(self.count);
        let within = |field, bytes: usize, limit: usize| match bytes {
            bytes if bytes > limit => {
                Err(BatchError::TooLarge { field, record: index, bytes, limit })
            }
            _ => Ok(()),
        };
        let not_empty = |field, text: &str| match text {
            "" => Err(BatchError::Value { field, offset: 0, record: index, value: 0 }),
            _ => Ok(()),
        };
        if self.count >= self.limits.records_max {
            let limit = self.limits.records_max;
            return Err(BatchError::Count { count: self.count.saturating_add(1), limit });
        }
        within("payload", record.payload.len(), self.limits.message_bytes_max)?;
        let mut bytes = RECORD_BYTES_MIN + record.payload.len();
        if let Some(id) = record.transaction_id {
            not_empty("transaction_id", id)?;
            within("transaction_id", id.len(), TRANSACTION_ID_BYTES_MAX)?;
            bytes += 1 + id.len();
        }
        if record.trace_id.is_some() {
            bytes += 16;
        }
        let mut headers_bytes = 0;
        for (key, value) in record.headers {
            not_empty("header_key", key)?;
            within("header_key", key.len(), usize::from(u8::MAX))?;
            within("header_value", value.len(), usize::from(u16::MAX))?;
            headers_bytes += 3 + key.len() + value.len();
        }
        within("headers", headers_bytes, RECORD_HEADERS_BYTES_MAX)?;
        if !record.headers.is_empty() {
            bytes += 2 + headers_bytes;
        }
        let batch_bytes = self.buffer.len().max(BATCH_HEADER_BYTES) + bytes;
        within("batch", batch_bytes, self.limits.batch_bytes_max)?;
        Ok((bytes, headers_bytes))
    }
}
