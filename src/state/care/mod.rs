//! What operators do to single messages: dead letters that go back or go away, messages that are
//! deleted, jobs that do so to many, and traces.
//!
//! In: decisions of [`super::draft::care`]. Out: their effects, what a shard remembers of them, and
//! the rows that keep it. [`graves`] dead letters, [`erased`] deleted messages, [`job`] jobs,
//! [`trace`] events, [`codec`] the bytes of the effects. Pure.

pub mod codec;
pub mod erased;
pub mod graves;
pub mod job;
pub(in crate::state) mod rows;
pub mod trace;

use crate::base::place::PartitionNumber;
use crate::state::care::job::Job;
use crate::state::care::trace::TraceEvent;
use crate::state::effect::{GroupIndex, Sequence};

/// A dead letter of a known partition and group: its sequence, and when it failed, unix milliseconds.
pub type LetterAt = (Sequence, u64);

/// One decided change of this kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Care {
    /// Dead letters are messages of their group again, with no attempt counted.
    Reopen {
        /// Their partition.
        partition: PartitionNumber,
        /// Their group.
        group: GroupIndex,
        /// Which, ascending.
        letters: Vec<LetterAt>,
    },
    /// Dead letters are gone.
    Exhume {
        /// Their partition.
        partition: PartitionNumber,
        /// Their group.
        group: GroupIndex,
        /// Which, ascending.
        letters: Vec<LetterAt>,
    },
    /// A message was deleted: no group gets it any more, whenever the group comes.
    Erase {
        /// Its partition.
        partition: PartitionNumber,
        /// Its sequence.
        seq: Sequence,
    },
    /// Catalog: a job as it is from now on.
    SetJob(Box<Job>),
    /// Catalog: something that happened to a message.
    Trace(Box<TraceEvent>),
}
