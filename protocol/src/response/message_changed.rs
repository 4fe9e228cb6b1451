//! MessageChanged: what was asked was done to a message.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `groups`: those for which something changed; 0 for a delete, which is for all |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Says that something was done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageChanged {
    /// For how many groups something changed; 0 for a delete, which is for all.
    pub groups: u64,
}

impl MessageChanged {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.groups);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let groups = reader.u64("groups")?;
        reader.end()?;
        Ok(Self { groups })
    }
}
