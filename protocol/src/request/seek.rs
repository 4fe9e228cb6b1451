//! Seek: sends a group elsewhere in a queue; its leases there end, its attempts are forgotten.
//!
//! In: where, and where to. Answered by `Sought`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `queue`: a name |
//! | 1 + n | `group`: a name |
//! | 1 + n | `partition`: a name; of 0 bytes for all |
//! | 1 | `to`: 0 beginning, 1 end, 2 time |
//! | 8 | `to` 2 only: signed milliseconds since 1970 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::{GroupName, PartitionName, QueueName};
use crate::primitive::{Reader, put_short};

/// Sends a group elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seek {
    /// The queue.
    pub queue: QueueName,
    /// The group.
    pub group: GroupName,
    /// The partition; all of the queue's when `None`.
    pub partition: Option<PartitionName>,
    /// Where to.
    pub to: SeekTo,
}

/// Where a group is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// The oldest message that is kept.
    Beginning,
    /// Behind the newest message.
    End,
    /// The first message stamped at or after this time, in milliseconds since 1970.
    Time(i64),
}

impl Seek {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
        put_short(out, self.group.as_bytes());
        put_short(out, self.partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
        match self.to {
            SeekTo::Beginning => out.put_u8(0),
            SeekTo::End => out.put_u8(1),
            SeekTo::Time(unix_ms) => {
                out.put_u8(2);
                out.put_i64_le(unix_ms);
            }
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queue = reader.short("queue", QueueName::parse)?;
        let group = reader.short("group", GroupName::parse)?;
        let partition = reader.short("partition", |raw| match raw.is_empty() {
            true => Ok(None),
            false => PartitionName::parse(raw).map(Some),
        })?;
        let offset = reader.at();
        let to = match reader.u8("to")? {
            0 => SeekTo::Beginning,
            1 => SeekTo::End,
            2 => SeekTo::Time(reader.i64("to_ms")?),
            other => {
                let value = u64::from(other);
                return Err(DecodeError::Value { field: "to", offset, value, min: 0, max: 2 });
            }
        };
        reader.end()?;
        Ok(Self { queue, group, partition, to })
    }
}
