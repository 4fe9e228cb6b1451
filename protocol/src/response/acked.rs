//! Acked: the answer to an ack, one item for each of its items, in their order.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | count of items, at most 100 000 |
//! | | each item: |
//! | 2 | `code`: 0 when it was done, else an error's number |
//! | 4 | `acked`: how many messages it settled |
//! | 4 | `dead_lettered`: how many of them went to the dead letters |
//! | 1 | `lease_released`: 0 or 1 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::ACK_ITEMS_MAX;
use crate::primitive::{Reader, put_count32, put_flag};

/// Says what an ack did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// One for each item of the ack, in their order.
    pub items: Vec<AckedItem>,
}

/// What one item of an ack did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckedItem {
    /// 0 when it was done, else the number of a [`Code`](crate::Code), maybe one that only a
    /// newer server knows.
    pub code: u16,
    /// How many messages it settled.
    pub acked: u32,
    /// How many of them went to the dead letters.
    pub dead_lettered: u32,
    /// Whether the partition's lease ended with it.
    pub lease_released: bool,
}

impl Acked {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 items; no ack has more than 100 000.
    pub fn encode(&self, out: &mut BytesMut) {
        put_count32(out, self.items.len());
        for item in &self.items {
            item.encode(out);
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let count = reader.count32("items", AckedItem::BYTES, ACK_ITEMS_MAX)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(AckedItem::decode(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { items })
    }
}

impl AckedItem {
    /// Bytes of an item.
    pub const BYTES: usize = 2 + 4 + 4 + 1;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(self.code);
        out.put_u32_le(self.acked);
        out.put_u32_le(self.dead_lettered);
        put_flag(out, self.lease_released);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            code: reader.u16("code")?,
            acked: reader.u32("acked")?,
            dead_lettered: reader.u32("dead_lettered")?,
            lease_released: reader.flag("lease_released")?,
        })
    }
}
