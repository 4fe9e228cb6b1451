//! ListMessages: asks for a page of messages, newest first.
//!
//! In: which messages, and which page of them. Answered by `MessagePage`.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `skip`: messages left out, at most 100 000 |
//! | 4 | `limit`: messages wanted, 1 to 1 000 |
//! | 1 | `status`: 0 any, else as in the answer |
//! | 8 | `from_ms`: pushed no earlier; milliseconds since 1970 |
//! | 8 | `to_ms`: pushed no later; 0 for no such limit |
//! | 1 + n | `partition`: a name; of 0 bytes for all |
//! | 1 | `scope`: 0 all queues, 1 one |
//! | 1 + n | `queue`: a name; only when `scope` is 1 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::{MESSAGES_SKIP_MAX, PAGE_ITEMS_MAX};
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, put_short};
use crate::request::scope::{put_scope, read_scope};
use crate::response::MessageStanding;

/// Asks for a page of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListMessages {
    /// Messages of the list that are left out: at most 100 000.
    pub skip: u32,
    /// Messages wanted: 1 to 1 000.
    pub limit: u32,
    /// Only those that stand so.
    pub status: Option<MessageStanding>,
    /// Pushed no earlier, in milliseconds since 1970.
    pub from_ms: u64,
    /// Pushed no later, in milliseconds since 1970; 0 for no such limit.
    pub to_ms: u64,
    /// Only of partitions called so.
    pub partition: Option<PartitionName>,
    /// The queue; all of them when `None`.
    pub queue: Option<QueueName>,
}

impl ListMessages {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.skip);
        out.put_u32_le(self.limit);
        out.put_u8(self.status.map_or(0, MessageStanding::number));
        out.put_u64_le(self.from_ms);
        out.put_u64_le(self.to_ms);
        put_short(out, self.partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
        put_scope(out, self.queue.as_ref());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let skip = reader.u32_in("skip", 0, MESSAGES_SKIP_MAX)?;
        let limit = reader.u32_in("limit", 1, PAGE_ITEMS_MAX)?;
        let offset = reader.at();
        let status = match reader.u8("status")? {
            0 => None,
            number => Some(MessageStanding::from_number(number).ok_or(DecodeError::Value {
                field: "status",
                offset,
                value: u64::from(number),
                min: 0,
                max: u64::from(MessageStanding::DeadLetter.number()),
            })?),
        };
        let (from_ms, to_ms) = (reader.u64("from_ms")?, reader.u64("to_ms")?);
        let partition = reader.optional("partition", PartitionName::parse)?;
        let queue = read_scope(&mut reader)?;
        reader.end()?;
        Ok(Self { skip, limit, status, from_ms, to_ms, partition, queue })
    }
}
