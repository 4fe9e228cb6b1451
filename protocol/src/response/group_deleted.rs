//! GroupDeleted: the answer to a delete of a group.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `queues`: that knew the group |
//! | 8 | `partitions`: in which it had a cursor |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Says what was forgotten of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDeleted {
    /// Queues that knew the group.
    pub queues: u32,
    /// Partitions in which it had a cursor.
    pub partitions: u64,
}

impl GroupDeleted {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queues);
        out.put_u64_le(self.partitions);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queues = reader.u32("queues")?;
        let partitions = reader.u64("partitions")?;
        reader.end()?;
        Ok(Self { queues, partitions })
    }
}
