//! PopKnown: a pop whose answer says who pushed each batch; answered by `KnownMessages`.
//!
//! The body is that of a `Pop`.

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::request::Pop;

/// Takes messages out, under a lease, with who pushed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopKnown {
    /// What is asked.
    pub pop: Pop,
}

impl PopKnown {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        self.pop.encode(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// As [`Pop::decode`].
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        Pop::decode(body).map(|pop| Self { pop })
    }
}
