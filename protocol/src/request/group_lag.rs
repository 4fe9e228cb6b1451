//! GroupLag: asks how a group stands in the partitions of a queue, some at a time.
//!
//! In: the group, and where to begin. Answered by `GroupPartitions`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `queue`: a name |
//! | 1 + n | `group`: a name |
//! | 1 | `only_lagging`: 0 or 1: whether partitions without open messages are left out |
//! | 8 | `from`: 0 for the first partition, else the `next` of an answer |
//! | 4 | `limit`: partitions wanted, 1 to 10 000 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::PARTITIONS_PER_ANSWER_MAX;
use crate::name::{GroupName, QueueName};
use crate::primitive::{Reader, in_range, put_flag, put_short};

/// Asks how a group stands in partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLag {
    /// The queue.
    pub queue: QueueName,
    /// The group.
    pub group: GroupName,
    /// Whether partitions without open messages are left out.
    pub only_lagging: bool,
    /// 0 for the first partition, else what an answer gave as `next`.
    pub from: u64,
    /// Partitions wanted: 1 to 10 000.
    pub limit: u32,
}

impl GroupLag {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
        put_short(out, self.group.as_bytes());
        put_flag(out, self.only_lagging);
        out.put_u64_le(self.from);
        out.put_u32_le(self.limit);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queue = reader.short("queue", QueueName::parse)?;
        let group = reader.short("group", GroupName::parse)?;
        let only_lagging = reader.flag("only_lagging")?;
        let from = reader.u64("from")?;
        let offset = reader.at();
        let limit = reader.u32("limit")?;
        in_range("limit", offset, u64::from(limit), 1, u64::from(PARTITIONS_PER_ANSWER_MAX))?;
        reader.end()?;
        Ok(Self { queue, group, only_lagging, from, limit })
    }
}
