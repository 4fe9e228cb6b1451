//! Extended: the answer to an extend.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `until_ms`: milliseconds since 1970 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Says how long the lease now holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    /// When the lease ends, in milliseconds since 1970 by the server's clock.
    pub until_ms: u64,
}

impl Extended {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.until_ms);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let until_ms = reader.u64("until_ms")?;
        reader.end()?;
        Ok(Self { until_ms })
    }
}
