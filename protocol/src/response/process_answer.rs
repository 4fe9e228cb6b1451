//! ProcessAnswer: what is said of processes, whatever was asked.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | `status`: as HTTP numbers it: 200 as asked, 202 it goes on, 424 it failed and the push was strict |
//! | 4 + n | `json`: what HTTP would answer |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_blob};

/// Answers what was asked of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessAnswer {
    /// 200 as asked, 202 it goes on and is not yet as asked, 424 it failed and the push was strict.
    pub status: u16,
    /// The text of a JSON value: what HTTP would answer.
    pub json: Bytes,
}

impl ProcessAnswer {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 4 GiB of JSON.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(self.status);
        put_blob(out, &self.json);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let status = reader.u16("status")?;
        let json = reader.blob("json")?;
        reader.end()?;
        Ok(Self { status, json })
    }
}
