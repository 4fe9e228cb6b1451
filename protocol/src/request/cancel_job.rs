//! CancelJob: stops a job over dead letters where it is; answered by `JobCancelled`.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `id`: the job's number |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::Reader;

/// Stops a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelJob {
    /// The job's number.
    pub id: u32,
}

impl CancelJob {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.id);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let id = reader.u32("id")?;
        reader.end()?;
        Ok(Self { id })
    }
}
