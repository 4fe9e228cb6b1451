//! Pop: asks for messages of a queue on behalf of a group.
//!
//! In: where, how many, how long to wait. Answered by `Messages`, with no sections when there was
//! nothing in time.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `queue`: a name |
//! | 1 + n | `partition`: a name; of 0 bytes for any |
//! | 1 + n | `group`: a name |
//! | 4 | `messages_max`: 1 to 10 000 |
//! | 4 | `bytes_max`: 0 for the server's default |
//! | 2 | `partitions_max`: at least 1 |
//! | 4 | `wait_ms`: 0 for not waiting |
//! | 4 | `lease_ms`: 0 for the queue's |
//! | 1 | `auto_ack`: 0 or 1 |
//! | 1 | `start`: 0 default, 1 beginning, 2 new, 3 time |
//! | 8 | `start` 3 only: signed milliseconds since 1970 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::POP_MESSAGES_MAX;
use crate::name::{GroupName, PartitionName, QueueName};
use crate::primitive::{Reader, in_range, put_flag, put_short};

/// Takes messages out, under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pop {
    /// The queue.
    pub queue: QueueName,
    /// The partition; any of the queue's when `None`.
    pub partition: Option<PartitionName>,
    /// On whose behalf.
    pub group: GroupName,
    /// Most messages wanted: 1 to 10 000.
    pub messages_max: u32,
    /// Most payload bytes wanted; 0 for the server's default. One message may exceed it.
    pub bytes_max: u32,
    /// Most partitions that the answer may mix; at least 1.
    pub partitions_max: u16,
    /// How long to wait for the first message, in milliseconds; 0 for not at all.
    pub wait_ms: u32,
    /// How long to hold the messages, in milliseconds; 0 for what the queue says.
    pub lease_ms: u32,
    /// Whether the messages count as completed as soon as they are handed out.
    pub auto_ack: bool,
    /// Where the group begins, if it does not exist yet.
    pub start: SubscriptionStart,
}

/// Where a group begins when it is seen for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubscriptionStart {
    /// Where the server's configuration says.
    #[default]
    Default,
    /// With the oldest message that is kept.
    Beginning,
    /// With the first message that comes after.
    New,
    /// With the first message stamped at or after this time, in milliseconds since 1970.
    Time(i64),
}

impl Pop {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
        put_short(out, self.partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
        self.put_terms(out);
    }

    /// Appends what stands behind the partition.
    pub(super) fn put_terms(&self, out: &mut BytesMut) {
        put_short(out, self.group.as_bytes());
        out.put_u32_le(self.messages_max);
        out.put_u32_le(self.bytes_max);
        out.put_u16_le(self.partitions_max);
        out.put_u32_le(self.wait_ms);
        out.put_u32_le(self.lease_ms);
        put_flag(out, self.auto_ack);
        self.start.encode(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queue = reader.short("queue", QueueName::parse)?;
        let partition = reader.optional("partition", PartitionName::parse)?;
        let pop = Self::read_terms(&mut reader, queue, partition)?;
        reader.end()?;
        Ok(pop)
    }

    /// Reads what stands behind the partition.
    pub(super) fn read_terms(
        reader: &mut Reader<'_>,
        queue: QueueName,
        partition: Option<PartitionName>,
    ) -> Result<Self, DecodeError> {
        let group = reader.short("group", GroupName::parse)?;
        let offset = reader.at();
        let messages_max = reader.u32("messages_max")?;
        let limit = u64::from(POP_MESSAGES_MAX);
        in_range("messages_max", offset, u64::from(messages_max), 1, limit)?;
        let bytes_max = reader.u32("bytes_max")?;
        let offset = reader.at();
        let partitions_max = reader.u16("partitions_max")?;
        let limit = u64::from(u16::MAX);
        in_range("partitions_max", offset, u64::from(partitions_max), 1, limit)?;
        let wait_ms = reader.u32("wait_ms")?;
        let lease_ms = reader.u32("lease_ms")?;
        let auto_ack = reader.flag("auto_ack")?;
        let start = SubscriptionStart::decode(reader)?;
        Ok(Self {
            queue,
            partition,
            group,
            messages_max,
            bytes_max,
            partitions_max,
            wait_ms,
            lease_ms,
            auto_ack,
            start,
        })
    }
}

impl SubscriptionStart {
    pub(crate) fn encode(self, out: &mut BytesMut) {
        match self {
            Self::Default => out.put_u8(0),
            Self::Beginning => out.put_u8(1),
            Self::New => out.put_u8(2),
            Self::Time(unix_ms) => {
                out.put_u8(3);
                out.put_i64_le(unix_ms);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.at();
        match reader.u8("start")? {
            0 => Ok(Self::Default),
            1 => Ok(Self::Beginning),
            2 => Ok(Self::New),
            3 => reader.i64("start_ms").map(Self::Time),
            other => {
                let value = u64::from(other);
                Err(DecodeError::Value { field: "start", offset, value, min: 0, max: 3 })
            }
        }
    }
}
