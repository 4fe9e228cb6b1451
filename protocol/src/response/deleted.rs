//! Deleted: the answer to a delete of a queue.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `existed`: 0 or 1 |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_flag};

/// Says that the queue does not exist any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether it did before.
    pub existed: bool,
}

impl Deleted {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_flag(out, self.existed);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let existed = reader.flag("existed")?;
        reader.end()?;
        Ok(Self { existed })
    }
}
