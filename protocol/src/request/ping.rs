//! Ping: Asks whether the other end is there; answered by `Pong`.
//!
//! In: nothing. The body is empty.

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Keeps a connection alive and measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ping {}

impl Ping {
    /// Appends the body, which is empty.
    pub fn encode(&self, _: &mut BytesMut) {}

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when the body is not empty.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        Reader::new(&body).end()?;
        Ok(Self {})
    }
}
