//! ClearQueue: lets go of all messages of a queue, or of one of its partitions; answered by `Cleared`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `queue`: a name |
//! | 1 + n | `partition`: a name; of 0 bytes for all |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, put_short};

/// Lets go of messages. Settings, groups and dead letters stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearQueue {
    /// The queue.
    pub queue: QueueName,
    /// Only this partition.
    pub partition: Option<PartitionName>,
}

impl ClearQueue {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
        put_short(out, self.partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queue = reader.short("queue", QueueName::parse)?;
        let partition = reader.optional("partition", PartitionName::parse)?;
        reader.end()?;
        Ok(Self { queue, partition })
    }
}
