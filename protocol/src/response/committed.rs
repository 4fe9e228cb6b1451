//! Committed: the answer to a transaction that stands.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | count of acks, as many as the transaction has |
//! | 11 | each ack: as an item of `Acked`; its code is 0 |
//! | 2 | count of sections, as many as the transaction has |
//! | | each section: as a section of `Receipts`, with tag 0 or 1 |

use bytes::{Bytes, BytesMut};

use super::{AckedItem, SectionReceipt};
use crate::decode_error::DecodeError;
use crate::limits::TRANSACTION_PARTS_MAX;
use crate::primitive::{Reader, put_count16, put_count32};

/// Says what a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// One for each ack, in their order.
    pub acks: Vec<AckedItem>,
    /// One for each section, in their order.
    pub sections: Vec<SectionReceipt>,
}

impl Committed {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 65 535 sections; no transaction has more than 10 000.
    pub fn encode(&self, out: &mut BytesMut) {
        put_count32(out, self.acks.len());
        self.acks.iter().for_each(|item| item.encode(out));
        put_count16(out, self.sections.len());
        self.sections.iter().for_each(|section| section.encode(out));
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let count = reader.count32("acks", AckedItem::BYTES, TRANSACTION_PARTS_MAX)?;
        let mut acks = Vec::with_capacity(count);
        for _ in 0..count {
            acks.push(AckedItem::decode(&mut reader)?);
        }
        let count = reader.count16("sections", SectionReceipt::BYTES_MIN)?;
        let mut sections = Vec::with_capacity(count);
        for _ in 0..count {
            sections.push(SectionReceipt::decode(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { acks, sections })
    }
}
