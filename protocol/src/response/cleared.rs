//! Cleared: messages of a queue are gone.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `messages`: that were let go |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Says how many messages were let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// Messages that were let go.
    pub messages: u64,
}

impl Cleared {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.messages);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let messages = reader.u64("messages")?;
        reader.end()?;
        Ok(Self { messages })
    }
}
