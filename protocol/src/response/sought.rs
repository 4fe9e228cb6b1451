//! Sought: the answer to a seek.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `partitions`: in which a cursor was moved |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Says that a group goes on elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Partitions in which a cursor was moved.
    pub partitions: u64,
}

impl Sought {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.partitions);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let partitions = reader.u64("partitions")?;
        reader.end()?;
        Ok(Self { partitions })
    }
}
