//! The first page of a segment file: which store, which part of the log. Pure.
//!
//! In: a store id, a base and a capacity. Out: 4,096 bytes, or the fields of a page that verifies.
//! Byte table: `FORMAT.md`. Called by `segment`.

use bytes::{Buf, BufMut};

use super::error::Damage;
use super::record::StoreId;

/// Bytes before a segment's first record.
pub const PAGE_BYTES: u64 = 4_096;

/// The format that this code writes and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"ONRUSHSG";

/// Bytes that the page's check covers; the check follows, then zeros.
const CHECKED_BYTES: usize = 48;

/// What a segment's first page says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Page {
    pub(super) store: StoreId,
    /// Position of the file's first byte.
    pub(super) base: u64,
    /// Bytes of the file, this page included.
    pub(super) capacity: u64,
}

impl Page {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGE_BYTES as usize);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(FORMAT_VERSION);
        bytes.put_u32_le(PAGE_BYTES as u32);
        bytes.put_u64_le(self.base);
        bytes.put_u64_le(self.capacity);
        bytes.put_slice(&self.store);
        bytes.put_u32_le(crc32fast::hash(&bytes));
        bytes.resize(PAGE_BYTES as usize, 0);
        bytes
    }

    /// # Errors
    /// [`Damage::Page`] when the bytes are not a segment's page; [`Damage::Version`] when they are,
    /// from another version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let (checked, mut rest) = bytes.split_at_checked(CHECKED_BYTES).ok_or(Damage::Page)?;
        let mut fields = checked.strip_prefix(MAGIC).ok_or(Damage::Page)?;
        if rest.len() < 4 || rest.get_u32_le() != crc32fast::hash(checked) {
            return Err(Damage::Page);
        }
        let version = fields.get_u32_le();
        let page_bytes = fields.get_u32_le();
        if version != FORMAT_VERSION || u64::from(page_bytes) != PAGE_BYTES {
            return Err(Damage::Version { found: version, supported: FORMAT_VERSION });
        }
        let (base, capacity) = (fields.get_u64_le(), fields.get_u64_le());
        let store = fields.try_into().map_err(|_| Damage::Page)?;
        let page = Self { store, base, capacity };
        if page.is_possible() { Ok(page) } else { Err(Damage::Page) }
    }

    /// Whether base and capacity are whole pages whose end is a position.
    fn is_possible(&self) -> bool {
        let whole =
            self.base.is_multiple_of(PAGE_BYTES) && self.capacity.is_multiple_of(PAGE_BYTES);
        whole && self.base.checked_add(self.capacity).is_some()
    }
}

/// Name of the segment file whose first byte has this position.
pub(super) fn segment_name(base: u64) -> String {
    format!("{base:020}.seg")
}

/// The base that a segment file's name says; `None` for a name that we never give.
pub(super) fn base_of_name(name: &str) -> Option<u64> {
    let base = name.strip_suffix(".seg")?.parse().ok()?;
    (segment_name(base) == name).then_some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page { store: [9; 16], base: 1 << 27, capacity: 1 << 27 };

    #[test]
    fn a_page_decodes_to_what_was_encoded() {
        let bytes = PAGE.encode();
        assert_eq!(bytes.len() as u64, PAGE_BYTES);
        assert_eq!(Page::decode(&bytes).unwrap(), PAGE);
    }

    #[test]
    fn every_single_bit_flip_in_the_used_part_is_noticed() {
        let bytes = PAGE.encode();
        for bit in 0..(CHECKED_BYTES + 4) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Page::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_short_page_and_a_page_of_another_version_are_refused() {
        let mut bytes = PAGE.encode();
        assert!(matches!(Page::decode(&bytes[..51]), Err(Damage::Page)));
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..CHECKED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Page::decode(&bytes), Err(Damage::Version { found: 2, supported: 1 })));
    }

    #[test]
    fn names_give_their_base_back_and_foreign_names_none() {
        assert_eq!(base_of_name(&segment_name(4_096)), Some(4_096));
        for foreign in ["1.seg", "LOCK", "+0000000000000000001.seg", "00000000000000000001.tmp"] {
            assert_eq!(base_of_name(foreign), None, "{foreign}");
        }
    }
}
