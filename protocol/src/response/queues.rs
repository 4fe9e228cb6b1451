//! Queues: queues with their figures, newest first.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `has_more`: 0 or 1 |
//! | 4 | count of queues, at most 1 000, each: |
//! | 1 + n | `queue`: a name |
//! | 8 | `queue_id` |
//! | 1 + n | `namespace`: a short text |
//! | 1 + n | `task`: a short text |
//! | 8 | `created_ms` |
//! | 8 | `partitions` |
//! | 8 | `total`: messages that are kept |
//! | 8 | `pending`: of them, those that the group furthest behind has still to get |
//! | 8 | `processing`: those that its consumers hold |
//! | 8 | `completed`: those that it has settled |
//! | 8 | `dead_letters` |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::PAGE_ITEMS_MAX;
use crate::name::QueueName;
use crate::primitive::{Reader, put_count32, put_flag, put_short};
use crate::text::ShortText;

/// Fewest bytes of a queue: all but its texts.
const QUEUE_BYTES_MIN: usize = 3 + 8 * 8;

/// Shows queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Whether there are more behind these.
    pub has_more: bool,
    /// Newest first; at most 1 000.
    pub queues: Vec<QueueShown>,
}

/// One queue and its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueShown {
    /// Its name.
    pub queue: QueueName,
    /// A queue that is deleted and made again gets another.
    pub queue_id: u64,
    /// What it belongs to.
    pub namespace: ShortText,
    /// What it is for.
    pub task: ShortText,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// How many partitions it has.
    pub partitions: u64,
    /// Messages that are kept.
    pub total: u64,
    /// Of them, those that the group furthest behind has still to get.
    pub pending: u64,
    /// Those that its consumers hold.
    pub processing: u64,
    /// Those that it has settled.
    pub completed: u64,
    /// Dead letters of all its groups.
    pub dead_letters: u64,
}

impl Queues {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 queues.
    pub fn encode(&self, out: &mut BytesMut) {
        put_flag(out, self.has_more);
        put_count32(out, self.queues.len());
        for it in &self.queues {
            put_short(out, it.queue.as_bytes());
            out.put_u64_le(it.queue_id);
            put_short(out, it.namespace.as_bytes());
            put_short(out, it.task.as_bytes());
            let counts = [it.total, it.pending, it.processing, it.completed, it.dead_letters];
            for number in [it.created_ms, it.partitions].iter().chain(&counts) {
                out.put_u64_le(*number);
            }
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let has_more = reader.flag("has_more")?;
        let count = reader.count32("queues", QUEUE_BYTES_MIN, PAGE_ITEMS_MAX)?;
        let mut queues = Vec::with_capacity(count);
        for _ in 0..count {
            queues.push(QueueShown {
                queue: reader.short("queue", QueueName::parse)?,
                queue_id: reader.u64("queue_id")?,
                namespace: reader.short("namespace", ShortText::parse)?,
                task: reader.short("task", ShortText::parse)?,
                created_ms: reader.u64("created_ms")?,
                partitions: reader.u64("partitions")?,
                total: reader.u64("total")?,
                pending: reader.u64("pending")?,
                processing: reader.u64("processing")?,
                completed: reader.u64("completed")?,
                dead_letters: reader.u64("dead_letters")?,
            });
        }
        reader.end()?;
        Ok(Self { has_more, queues })
    }
}
