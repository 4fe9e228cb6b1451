//! Names that people know, and what is gone: what an entry brings into the world or takes out of it.
//!
//! A log is read by engines, which know everything by number, and never needs these. A log in a
//! database keeps them as rows beside its entries, so that people can ask for a queue by its name. In:
//! nothing; made by `shard` from an entry's effects. Pure.

use crate::base::place::{PartitionNumber, QueueId};

/// One thing with a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Label {
    /// A queue exists, or has other settings.
    Queue {
        /// Its number.
        queue: QueueId,
        /// Its name.
        name: Box<str>,
    },
    /// A partition exists, in the shard of the entry.
    Partition {
        /// Its number.
        number: PartitionNumber,
        /// Its queue.
        queue: QueueId,
        /// Its name in the queue.
        name: Box<str>,
    },
    /// Whether a queue's messages are also to be rows, from this entry on.
    Rows {
        /// Its number.
        queue: QueueId,
        /// Whether they are.
        on: bool,
    },
    /// Messages were deleted one by one, in the shard of the entry.
    Erased {
        /// Their partition's number.
        number: PartitionNumber,
        /// Sequence of the first one.
        first: u64,
        /// Sequence of the last one.
        last: u64,
    },
    /// A queue is gone with all it holds.
    Gone {
        /// Its number, which is never given again.
        queue: QueueId,
    },
}
