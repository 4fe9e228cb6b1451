//! Jobs over many dead letters: what they are to do, and how far they are.
//!
//! A job lives in the catalog's shard. Each of its steps is one append that moves some letters and
//! says so here, so whatever ends a step, every letter is in exactly one place, and whoever takes the
//! job up again goes on where the last step ended. Plain data, changed by catalog entries only.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::effect::{GroupIndex, Sequence};

/// Jobs that are remembered; the oldest that ended goes first.
pub const JOBS_MAX: usize = 200;
/// Jobs that may run at a time.
pub const RUNNING_MAX: usize = 16;

/// Number of a job; never given twice while the last one is remembered.
pub type JobId = u32;

/// A place among dead letters, in the order in which jobs walk: by shard, partition, group, sequence.
pub type LetterKey = (PartitionNumber, GroupIndex, Sequence);

/// What a job does with each letter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Back to its own group, with no attempt counted.
    Redrive,
    /// A new message at the end of a partition, for all groups of its queue.
    Requeue {
        /// The queue that gets it.
        queue: QueueId,
        /// The partition that gets it; `None` = the one of the same name.
        partition: Option<Box<str>>,
    },
    /// Gone for good.
    Delete,
}

/// How a job is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum JobState {
    /// It has more to do.
    Running = 0,
    /// It has looked at all letters that it was to look at.
    Done = 1,
    /// Somebody stopped it; what it had moved stays moved.
    Cancelled = 2,
    /// It cannot go on: see its error.
    Failed = 3,
}

/// A job and its progress.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What it does.
    pub action: Action,
    /// Letters of this queue.
    pub queue: QueueId,
    /// Its name when the job was made.
    pub queue_name: Box<str>,
    /// Only letters of this group.
    pub group: Option<Box<str>>,
    /// Only letters of this partition.
    pub partition: Option<Box<str>>,
    /// Only letters whose error contains this.
    pub error: Option<Box<str>>,
    /// At most so many; 0 = all.
    pub limit: u64,
    /// At most so many a second; 0 = as many as go.
    pub rate: u32,
    /// Count what would be moved, and move nothing.
    pub dry_run: bool,
    /// When it was made, unix milliseconds; letters that failed later are not its business.
    pub created_ms: u64,
    /// How it is.
    pub state: JobState,
    /// Letters that were moved, or would be.
    pub moved: u64,
    /// Letters that it looked at and left alone.
    pub skipped: u64,
    /// Letters that it will come back to: a consumer holds messages around them.
    pub deferred: u64,
    /// Where it goes on.
    pub cursor: Option<LetterKey>,
    /// Who took its last step.
    pub engine: u64,
    /// When its last step was taken, unix milliseconds.
    pub stepped_ms: u64,
    /// Why it failed.
    pub problem: Box<str>,
}

/// All jobs that are remembered.
#[derive(Clone, Debug, Default)]
pub struct Jobs(BTreeMap<JobId, Arc<Job>>);

impl Jobs {
    /// One by its number.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<&Arc<Job>> {
        self.0.get(&id)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        self.0.values()
    }

    /// Those that have more to do.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.0.values().filter(|job| job.state == JobState::Running)
    }

    /// The number that the next one gets.
    #[must_use]
    pub fn next_id(&self) -> JobId {
        self.0.last_key_value().map_or(1, |(id, _)| id.saturating_add(1))
    }

    /// Takes a job as it is now; tells which one is forgotten for it.
    pub(in crate::state) fn set(&mut self, job: Job) -> Option<JobId> {
        self.0.insert(job.id, Arc::new(job));
        if self.0.len() <= JOBS_MAX {
            return None;
        }
        let ended = self.0.iter().find(|(_, it)| it.state != JobState::Running);
        let oldest = ended.map(|(id, _)| *id)?;
        self.0.remove(&oldest);
        Some(oldest)
    }
}
