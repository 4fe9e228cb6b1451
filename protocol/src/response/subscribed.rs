//! Subscribed: the answer to a change of where a group begins.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `queues`: that know the group |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Says where a change of a group's beginning was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Queues that know the group.
    pub queues: u32,
}

impl Subscribed {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.queues);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queues = reader.u32("queues")?;
        reader.end()?;
        Ok(Self { queues })
    }
}
