//! GetMessage: asks for one message with its payload and how each group stands with it.
//!
//! In: which one. Answered by `MessageDetail`.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `partition`: its number |
//! | 1 | `by`: 0 its sequence number, 1 its transaction id |
//! | 8 | `seq`; only when `by` is 0 |
//! | 2 + n | `id`: a long text; only when `by` is 1 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;
use crate::request::MessageKey;

/// Asks for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetMessage {
    /// The partition's number.
    pub partition: u32,
    /// Which of its messages.
    pub key: MessageKey,
}

impl GetMessage {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.partition);
        self.key.encode(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let partition = reader.u32("partition")?;
        let key = MessageKey::decode(&mut reader)?;
        reader.end()?;
        Ok(Self { partition, key })
    }
}
