//! DeleteQueue: removes a queue with all its messages, groups and dead letters.
//!
//! In: the queue. Answered by `Deleted`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `queue`: a name |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::QueueName;
use crate::primitive::{Reader, put_short};

/// Removes a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteQueue {
    /// The queue.
    pub queue: QueueName,
}

impl DeleteQueue {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queue = reader.short("queue", QueueName::parse)?;
        reader.end()?;
        Ok(Self { queue })
    }
}
