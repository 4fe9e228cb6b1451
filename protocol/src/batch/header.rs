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
/// The payloads are sealed by a server, each for itself.
const FLAG_ENCRYPTED: u8 = 1 << 3;
const FLAGS_KNOWN: u8 = FLAG_HAS_TRANSACTION_IDS | COMPRESSION_MASK | FLAG_ENCRYPTED;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) has_transaction_ids: bool,
    pub(super) is_sealed: bool,
    pub(super) count: u32,
    pub(super) crc: u32,
}

/// Reads and checks the header; the records are not looked at. Sealed payloads are the server's own:
/// whether such a batch is taken at all is said by `takes_sealed`.
pub(super) fn read(
    bytes: &[u8],
    limits: &BatchLimits,
    takes_sealed: bool,
) -> Result<Head, BatchError> {
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
    let is_sealed = flags & FLAG_ENCRYPTED != 0;
    if is_sealed && !takes_sealed {
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
        let (field, offset, record) = ("records_bytes", 8, None);
        return Err(BatchError::Length { field, offset, need, have, record });
    }
    let need = (count as usize).saturating_mul(RECORD_BYTES_MIN);
    if need > have {
        let (field, offset, record) = ("record_count", 4, None);
        return Err(BatchError::Length { field, offset, need, have, record });
    }
    Ok(Head {
        has_transaction_ids: flags & FLAG_HAS_TRANSACTION_IDS != 0,
        is_sealed,
        count,
        crc: u32::from_le_bytes([s0, s1, s2, s3]),
    })
}

/// A header's bytes.
pub(super) fn write(head: Head, records_bytes: u32) -> [u8; BATCH_HEADER_BYTES] {
    let flags = if head.has_transaction_ids { FLAG_HAS_TRANSACTION_IDS } else { 0 }
        | if head.is_sealed { FLAG_ENCRYPTED } else { 0 };
    let [c0, c1, c2, c3] = head.count.to_le_bytes();
    let [b0, b1, b2, b3] = records_bytes.to_le_bytes();
    let [s0, s1, s2, s3] = head.crc.to_le_bytes();
    [VERSION, flags, 0, 0, c0, c1, c2, c3, b0, b1, b2, b3, s0, s1, s2, s3]
}

/// Writes the header of `bytes`, which are a header's place and then the records; the checksum of
/// `head` is made here.
pub(super) fn seal(bytes: &mut BytesMut, head: Head) -> Head {
    let Some((place, records)) = bytes.split_first_chunk_mut::<BATCH_HEADER_BYTES>() else {
        return head;
    };
    let head = Head { crc: crc32fast::hash(records), ..head };
    // Records come from a batch or a builder, both bounded far below 4 GiB.
    *place = write(head, records.len() as u32);
    head
}
