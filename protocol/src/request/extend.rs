//! Extend: asks to hold a lease for longer.
//!
//! In: the lease and the time from now. Answered by `Extended`.
//!
//! | bytes | field |
//! |---|---|
//! | 16 | `lease` |
//! | 4 | `extend_ms` |

use bytes::{BufMut, Bytes, BytesMut};

use crate::LeaseToken;
use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Holds a lease for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extend {
    /// The lease.
    pub lease: LeaseToken,
    /// For how long from now, in milliseconds.
    pub extend_ms: u32,
}

impl Extend {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.lease);
        out.put_u32_le(self.extend_ms);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let lease = reader.array("lease")?;
        let extend_ms = reader.u32("extend_ms")?;
        reader.end()?;
        Ok(Self { lease, extend_ms })
    }
}
