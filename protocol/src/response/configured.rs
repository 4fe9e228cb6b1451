//! Configured: the answer to a configure; the queue as it is now.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `queue_id` |
//! | 2 + 9 n | options, as in the request |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::options::QueueOptions;
use crate::primitive::Reader;

/// Says how a queue now behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The queue's number; a queue that is deleted and made again gets another.
    pub queue_id: u64,
    /// Its options, defaults included.
    pub options: QueueOptions,
    /// Whether its messages are also rows of the database that the store is in.
    pub sql_rows: bool,
}

impl Configured {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.queue_id);
        self.options.encode(self.sql_rows, out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queue_id = reader.u64("queue_id")?;
        let (options, sql_rows) = QueueOptions::decode(&mut reader)?;
        reader.end()?;
        Ok(Self { queue_id, options, sql_rows })
    }
}
