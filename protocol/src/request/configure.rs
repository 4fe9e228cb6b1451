//! Configure: creates a queue, or gives an existing one new options.
//!
//! In: the queue and all its options; one that is missing goes back to its default. Answered by
//! `Configured`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `queue`: a name |
//! | 1 + n | `namespace`: a short text |
//! | 1 + n | `task`: a short text |
//! | 2 | count of options |
//! | | each option: |
//! | 1 | its number |
//! | 8 | its value; bools are 0 or 1, `priority` is two's complement |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::QueueName;
use crate::options::QueueOptions;
use crate::primitive::{Reader, put_short};
use crate::text::ShortText;

/// Sets a queue up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configure {
    /// The queue.
    pub queue: QueueName,
    /// What the queue belongs to; may be empty.
    pub namespace: ShortText,
    /// What the queue is for; may be empty.
    pub task: ShortText,
    /// How it behaves from now on.
    pub options: QueueOptions,
    /// Whether its messages are also to be rows of the database that the store is in; refused by a
    /// server whose store is in none.
    pub sql_rows: bool,
}

impl Configure {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
        put_short(out, self.namespace.as_bytes());
        put_short(out, self.task.as_bytes());
        self.options.encode(self.sql_rows, out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field; an unknown option is refused, not skipped.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let queue = reader.short("queue", QueueName::parse)?;
        let namespace = reader.short("namespace", ShortText::parse)?;
        let task = reader.short("task", ShortText::parse)?;
        let (options, sql_rows) = QueueOptions::decode(&mut reader)?;
        reader.end()?;
        Ok(Self { queue, namespace, task, options, sql_rows })
    }
}
