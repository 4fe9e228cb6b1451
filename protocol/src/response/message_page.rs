//! MessagePage: messages as they stand, newest first, without their payloads.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `has_more`: 0 or 1 |
//! | 4 | count of messages, at most 1 000, each: |
//! | 1 + n | `queue`: a name |
//! | 4 | `partition`: its number |
//! | 1 + n | `partition_name`: a name |
//! | 8 | `seq` |
//! | 8 | `time_ms`: when it was stored |
//! | 1 | `status`: 1 pending, 2 processing, 3 completed, 4 dead letter |
//! | 4 | `groups`: of its queue |
//! | 4 | `groups_done`: those that have settled it |
//! | 8 | `lease_until_ms`: when the last lease on it ends; 0 when nobody holds it |
//! | 16 | `trace_id`: all zero for none |
//! | 2 + n | `transaction_id`: a long text; of 0 bytes when it has none but its own id |
//! | 2 + n | `producer`: a long text; of 0 bytes when nobody is known |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::PAGE_ITEMS_MAX;
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, numbered, put_count32, put_flag, put_long, put_short};
use crate::text::LongText;

numbered! {
    /// How a message stands, with one group or with all of them together.
    MessageStanding, "status",
    /// Somebody is still to get it, or has given it back.
    Pending = 1,
    /// A consumer holds it.
    Processing = 2,
    /// It is done with.
    Completed = 3,
    /// It is a dead letter.
    DeadLetter = 4,
}

/// Shows messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessagePage {
    /// Whether there are more behind these.
    pub has_more: bool,
    /// Newest first; at most 1 000.
    pub messages: Vec<MessageShown>,
}

/// One message without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageShown {
    /// Its queue.
    pub queue: QueueName,
    /// Its partition's number.
    pub partition: u32,
    /// Its partition's name.
    pub partition_name: PartitionName,
    /// Its place in the partition.
    pub seq: u64,
    /// When it was stored, in milliseconds since 1970 by the server's clock.
    pub time_ms: u64,
    /// How it stands with all groups together.
    pub status: MessageStanding,
    /// How many groups its queue has.
    pub groups: u32,
    /// How many of them have settled it.
    pub groups_done: u32,
    /// When the last lease on it ends, in milliseconds since 1970; 0 when nobody holds it.
    pub lease_until_ms: u64,
    /// The trace that it belongs to; all zero for none.
    pub trace_id: [u8; 16],
    /// The producer's id for it; empty when it has none but its own.
    pub transaction_id: LongText,
    /// Who pushed it, as the server knows it; empty when nobody is known.
    pub producer: LongText,
}

impl MessagePage {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 messages.
    pub fn encode(&self, out: &mut BytesMut) {
        put_flag(out, self.has_more);
        put_count32(out, self.messages.len());
        self.messages.iter().for_each(|message| message.encode(out));
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let has_more = reader.flag("has_more")?;
        let count = reader.count32("messages", MessageShown::BYTES_MIN, PAGE_ITEMS_MAX)?;
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(MessageShown::decode(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { has_more, messages })
    }
}

impl MessageShown {
    /// Fewest bytes of a message: all but its texts.
    const BYTES_MIN: usize = 1 + 4 + 2 + 8 + 8 + 1 + 4 + 4 + 8 + 16 + 2 + 2;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
        out.put_u32_le(self.partition);
        put_short(out, self.partition_name.as_bytes());
        out.put_u64_le(self.seq);
        out.put_u64_le(self.time_ms);
        out.put_u8(self.status.number());
        out.put_u32_le(self.groups);
        out.put_u32_le(self.groups_done);
        out.put_u64_le(self.lease_until_ms);
        out.put_slice(&self.trace_id);
        put_long(out, self.transaction_id.as_bytes());
        put_long(out, self.producer.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            queue: reader.short("queue", QueueName::parse)?,
            partition: reader.u32("partition")?,
            partition_name: reader.short("partition_name", PartitionName::parse)?,
            seq: reader.u64("seq")?,
            time_ms: reader.u64("time_ms")?,
            status: MessageStanding::read(reader)?,
            groups: reader.u32("groups")?,
            groups_done: reader.u32("groups_done")?,
            lease_until_ms: reader.u64("lease_until_ms")?,
            trace_id: reader.array("trace_id")?,
            transaction_id: reader.long("transaction_id", LongText::parse)?,
            producer: reader.long("producer", LongText::parse)?,
        })
    }
}
