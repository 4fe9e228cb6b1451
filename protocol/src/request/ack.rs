//! Ack: says what became of messages that were popped. A «nack» is an ack with another outcome.
//!
//! In: a group, perhaps the lease, and ranges of messages. Answered by `Acked`, one for each
//! item, in their order.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `group`: a name |
//! | 16 | `lease`: all zero for none |
//! | 4 | count of items, at most 100 000 |
//! | | each item: |
//! | 4 | `partition`: its number |
//! | 8 | `first_seq` |
//! | 8 | `last_seq`: inclusive, not below `first_seq` |
//! | 1 | `outcome`: 0 completed, 1 failed, 2 retry, 3 dead letter |
//! | 2 + n | `error`: a long text, often empty |

use bytes::{BufMut, Bytes, BytesMut};

use crate::LeaseToken;
use crate::decode_error::DecodeError;
use crate::limits::ACK_ITEMS_MAX;
use crate::name::GroupName;
use crate::primitive::{Reader, in_range, put_count32, put_long, put_short};
use crate::text::LongText;

/// Settles messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// On whose behalf.
    pub group: GroupName,
    /// The lease under which they were popped, or [`NO_LEASE`](crate::NO_LEASE).
    pub lease: LeaseToken,
    /// Which messages, and what became of them; at most 100 000.
    pub items: Vec<AckItem>,
}

/// A range of messages of one partition that had the same fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckItem {
    /// The partition's number.
    pub partition: u32,
    /// The first message's sequence number.
    pub first_seq: u64,
    /// The last message's sequence number, inclusive.
    pub last_seq: u64,
    /// What became of them.
    pub outcome: AckOutcome,
    /// Why, if they failed.
    pub error: LongText,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AckOutcome {
    /// It was done.
    Completed = 0,
    /// It failed: counts as an attempt.
    Failed = 1,
    /// It shall be tried again, and nobody is to blame: counts no attempt.
    Retry = 2,
    /// It can never be done: to the dead letters.
    DeadLetter = 3,
}

impl AckOutcome {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The outcome with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Completed),
            1 => Some(Self::Failed),
            2 => Some(Self::Retry),
            3 => Some(Self::DeadLetter),
            _ => None,
        }
    }
}

impl Ack {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 items. A peer refuses long before, at 100 000.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.group.as_bytes());
        out.put_slice(&self.lease);
        put_count32(out, self.items.len());
        for item in &self.items {
            item.encode(out);
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let group = reader.short("group", GroupName::parse)?;
        let lease = reader.array("lease")?;
        let count = reader.count32("items", AckItem::BYTES_MIN, ACK_ITEMS_MAX)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(AckItem::decode(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { group, lease, items })
    }
}

impl AckItem {
    /// Fewest bytes of an item: all but the error's text.
    pub(super) const BYTES_MIN: usize = 4 + 8 + 8 + 1 + 2;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.partition);
        out.put_u64_le(self.first_seq);
        out.put_u64_le(self.last_seq);
        out.put_u8(self.outcome.number());
        put_long(out, self.error.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let partition = reader.u32("partition")?;
        let first_seq = reader.u64("first_seq")?;
        let offset = reader.at();
        let last_seq = reader.u64("last_seq")?;
        in_range("last_seq", offset, last_seq, first_seq, u64::MAX)?;
        let offset = reader.at();
        let number = reader.u8("outcome")?;
        let Some(outcome) = AckOutcome::from_number(number) else {
            let value = u64::from(number);
            return Err(DecodeError::Value { field: "outcome", offset, value, min: 0, max: 3 });
        };
        let error = reader.long("error", LongText::parse)?;
        Ok(Self { partition, first_seq, last_seq, outcome, error })
    }
}
