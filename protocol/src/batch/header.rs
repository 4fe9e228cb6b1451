//! The 16 bytes in front of a batch's records.
//!
//! In: a batch's bytes. Out: what the header says, held against the bytes that are there; and the
//! way back, a header for records that stand ready. Called by `batch` alone.

use bytes::BytesMut;

use super::{BatchError, BatchLimits};
use crate::limits::{BATCH_HEADER_BYTES, RECORD_BYTES_MIN};

/// The version of the batch format that this crate reads and writes.
pub(super) const VERSION: u8 = 1;
/// At least one record has a transaction id.
pub(super) const FLAG_HAS_TRANSACTION_IDS: u8 = 1 << 0;
/// Where the compression's number stands in the flags, and how many bits it has.
const COMPRESSION_SHIFT: u8 = 1;
const COMPRESSION_MASK: u8 = 0b11 << COMPRESSION_SHIFT;
const FLAG_ENCRYPTED: u8 = 1 << 3;
const FLAGS_KNOWN: u8 = FLAG_HAS_TRANSACTION_IDS | COMPRESSION_MASK | FLAG_ENCRYPTED;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) has_transaction_ids: bool,
    pub(super) count: u32,
    pub(super) crc: u32,
}

/// Reads and checks the header; the records are not looked at.
pub(super) fn read(bytes: &[u8], limits: &BatchLimits) -> Result<Head, BatchError> {
    if bytes.len() > limits.batch_bytes_max {
        let (bytes, limit) = (bytes.len(), limits.batch_bytes_max);
        return Err(BatchError::TooLarge { field: "batch", record: None, bytes, limit });
    }
    let Some(&head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
        return Err(BatchError::Length {
            field: "header",
            offset: 0,
            need: BATCH_HEADER_BYTES,
            have: bytes.len(),
            record: None,
        });
    };
    let [version, flags, r0, r1, c0, c1, c2, c3, b0, b1, b2, b3, s0, s1, s2, s3] = head;
    if version != VERSION {
        return Err(BatchError::Unsupported { field: "version", value: version });
    }
    if flags & !FLAGS_KNOWN != 0 {
        let value = u32::from(flags);
        return Err(BatchError::Value { field: "flags", offset: 1, record: None, value });
    }
    if flags & COMPRESSION_MASK != 0 {
        let value = (flags & COMPRESSION_MASK) >> COMPRESSION_SHIFT;
        return Err(BatchError::Unsupported { field: "compression", value });
    }
    if flags & FLAG_ENCRYPTED != 0 {
        return Err(BatchError::Unsupported { field: "encryption", value: 1 });
    }
    let reserved = u16::from_le_bytes([r0, r1]);
    if reserved != 0 {
        let value = u32::from(reserved);
        return Err(BatchError::Value { field: "reserved", offset: 2, record: None, value });
    }
    let count = u32::from_le_bytes([c0, c1, c2, c3]);
    if count == 0 || count > limits.records_max {
        return Err(BatchError::Count { count, limit: limits.records_max });
    }
    let need = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
    let have = bytes.len() - BATCH_HEADER_BYTES;
    if need != have {
        return Err(BatchError::Length {
            field: "records_bytes",
            offset: 8,
            need,
            have,
            record: None,
        });
    }
    if (count as usize).saturating_mul(RECORD_BYTES_MIN) > have {
        let need = (count as usize).saturating_mul(RECORD_BYTES_MIN);
        return Err(BatchError::Length {
            field: "record_count",
            offset: 4,
            need,
            have,
            record: None,
        });
    }
    Ok(Head {
        has_transaction_ids: flags & FLAG_HAS_TRANSACTION_IDS != 0,
        count,
        crc: u32::from_le_bytes([s0, s1, s2, s3]),
    })
}

/// A header's bytes.
pub(super) fn write(head: Head, records_bytes: u32) -> [u8; BATCH_HEADER_BYTES] {
    let flags = if head.has_transaction_ids { FLAG_HAS_TRANSACTION_IDS } else { 0 };
    let [c0, c1, c2, c3] = head.count.to_le_bytes();
    let [b0, b1, b2, b3] = records_bytes.to_le_bytes();
    let [s0, s1, s2, s3] = head.crc.to_le_bytes();
    [VERSION, flags, 0, 0, c0, c1, c2, c3, b0, b1, b2, b3, s0, s1, s2, s3]
}

/// Writes the header of `bytes`, which are a header's place and then the records.
pub(super) fn seal(bytes: &mut BytesMut, count: u32, has_transaction_ids: bool) -> Head {
    let Some((place, records)) = bytes.split_first_chunk_mut::<BATCH_HEADER_BYTES>() else {
        return Head { has_transaction_ids, count, crc: 0 };
    };
    let head = Head { has_transaction_ids, count, crc: crc32fast::hash(records) };
    // Records come from a batch or a builder, both bounded far below 4 GiB.
    *place = write(head, records.len() as u32);
    head
}
