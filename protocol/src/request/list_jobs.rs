//! ListJobs: asks for the jobs over dead letters that are remembered; answered by `Jobs`.
//!
//! In: nothing. The body is empty.

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Asks for jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListJobs {}

impl ListJobs {
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
