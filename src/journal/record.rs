//! One record of the log: what its header says and whether it may be believed. Pure.
//!
//! In: lengths, kinds, checksums and positions. Out: 24 header bytes, or the fields of a header
//! that verifies *here*: the check covers the store's id and the record's own position, so bytes
//! that were left over, moved, or planted inside a payload never verify. Byte table: `FORMAT.md`.
//! Called by `writer`, `reader` and `survey`.

use bytes::{Buf, BufMut};
use crc32fast::Hasher;

/// Bytes of a record's header; the payload follows at once.
pub const HEADER_BYTES: u64 = 24;

/// Records start at multiples of this.
pub const ALIGN_BYTES: u64 = 8;

/// Kinds from here up are the journal's own; 0 means nothing was written.
pub(super) const KIND_RESERVED_FROM: u8 = 0xF0;

/// Nothing follows in this segment; the log goes on in the next one, which exists.
pub(super) const KIND_SEAL: u8 = 0xFF;

/// Nothing but a proof, by its `durable` field, that everything before it was durable.
pub(super) const KIND_MARK: u8 = 0xFE;

pub(super) const HEADER_LEN: usize = HEADER_BYTES as usize;

/// Who a store is; in every segment's header and in every check.
pub type StoreId = [u8; 16];

/// Ties the checks to one store.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckKey {
    seed: u32,
}

impl CheckKey {
    pub(super) fn new(store: &StoreId) -> Self {
        Self { seed: crc32fast::hash(store) }
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    /// Bytes of payload.
    pub(super) length: u32,
    /// CRC-32 of the payload.
    pub(super) payload_crc: u32,
    /// What the payload is; never 0.
    pub(super) kind: u8,
    /// Everything below this position was durable when the record was written.
    pub(super) durable: u64,
}

impl Header {
    /// The header's bytes for a record that starts at `position`.
    pub(super) fn encode(&self, key: CheckKey, position: u64) -> [u8; HEADER_LEN] {
        let mut fields = [0; HEADER_LEN - 4];
        {
            let mut target = fields.as_mut_slice();
            target.put_u32_le(self.length);
            target.put_u32_le(self.payload_crc);
            target.put_u8(self.kind);
            target.put_bytes(0, 3);
            target.put_u64_le(self.durable);
        }
        let mut header = [0; HEADER_LEN];
        let mut target = header.as_mut_slice();
        target.put_u32_le(check(key, position, &fields));
        target.put_slice(&fields);
        header
    }

    /// The header at `position`, or `None` when these bytes are not one that belongs here.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN], key: CheckKey, position: u64) -> Option<Self> {
        let mut source = bytes.as_slice();
        let expected = source.get_u32_le();
        let fields = source;
        let length = source.get_u32_le();
        let payload_crc = source.get_u32_le();
        let kind = source.get_u8();
        let reserved = source.get_uint_le(3);
        let durable = source.get_u64_le();
        // The cheap tests first: the search beyond a torn tail asks this of every eighth byte.
        let plausible = kind != 0 && reserved == 0 && durable <= position;
        let valid = plausible && check(key, position, fields) == expected;
        valid.then_some(Self { length, payload_crc, kind, durable })
    }

    /// Bytes from this record's start to the next record's.
    pub(super) fn span(&self) -> u64 {
        span(u64::from(self.length))
    }
}

/// Bytes that a record with a payload of `length` bytes takes, padding included.
pub(super) fn span(length: u64) -> u64 {
    HEADER_BYTES.saturating_add(length).saturating_add(ALIGN_BYTES - 1) & !(ALIGN_BYTES - 1)
}

fn check(key: CheckKey, position: u64, fields: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(key.seed);
    hasher.update(&position.to_le_bytes());
    hasher.update(fields);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CheckKey = CheckKey { seed: 7 };
    const HEADER: Header = Header { length: 5, payload_crc: 9, kind: 3, durable: 4_096 };

    #[test]
    fn a_header_decodes_to_what_was_encoded() {
        let bytes = HEADER.encode(KEY, 8_192);
        assert_eq!(Header::decode(&bytes, KEY, 8_192), Some(HEADER));
    }

    #[test]
    fn a_header_verifies_at_its_own_position_and_in_its_own_store_only() {
        let bytes = HEADER.encode(KEY, 8_192);
        assert_eq!(Header::decode(&bytes, KEY, 8_200), None);
        assert_eq!(Header::decode(&bytes, CheckKey { seed: 8 }, 8_192), None);
    }

    #[test]
    fn every_single_bit_flip_in_a_header_is_noticed() {
        let bytes = HEADER.encode(KEY, 8_192);
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, KEY, 8_192), None, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_header() {
        for position in (0..1 << 20).step_by(8) {
            assert_eq!(Header::decode(&[0; HEADER_LEN], KEY, position), None);
        }
    }

    #[test]
    fn spans_are_multiples_of_eight_and_hold_header_and_payload() {
        assert_eq!((span(0), span(1), span(8), span(9)), (24, 32, 32, 40));
        assert_eq!(span(u64::from(u32::MAX)) % ALIGN_BYTES, 0);
    }
}
