//! What operators ask of a running engine: moves of dead letters, jobs, single messages, traces.
//!
//! Everything here is decided in a commit like any other command (`round::tend`) and answered when it
//! is durable. Looking only is [`super::look`].

use onrush_protocol::name::GroupName;

use crate::base::place::PartitionNumber;
use crate::shard::Engine;
use crate::shard::command::{Command, CommandError, Reply};
use crate::state::care::job::{Job, JobId, LetterKey};
use crate::state::care::trace::TraceEvent;
use crate::state::draft::care::{LetterAsk, LetterBody, LetterMove};
use crate::state::effect::{GroupIndex, Sequence};

/// Letters of one partition and group that are to be moved.
#[derive(Clone, Debug)]
pub struct LetterBatch {
    /// Their partition.
    pub partition: PartitionNumber,
    /// Their group.
    pub group: GroupIndex,
    /// Which, and their messages where these were read.
    pub letters: Vec<LetterAsk>,
}

/// One step of a job.
#[derive(Clone, Debug)]
pub struct JobStep {
    /// The job.
    pub job: JobId,
    /// What it is to move.
    pub batches: Vec<LetterBatch>,
    /// Letters that it looked at and leaves alone.
    pub skipped: u64,
    /// Where it was when it looked: a step that somebody else took meanwhile makes this one void.
    pub from: Option<LetterKey>,
    /// Where it goes on.
    pub cursor: Option<LetterKey>,
    /// Whether it has looked at everything.
    pub is_end: bool,
    /// Why it cannot go on, if it cannot.
    pub problem: Option<Box<str>>,
}

/// One thing asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A new job; its number and times are given to it here.
    Begin(Box<Job>),
    /// No more steps of a job.
    Cancel(JobId),
    /// The next step of a job.
    Step(Box<JobStep>),
    /// One message's letters back to their groups, or to one of them.
    Retry {
        /// The message's partition.
        partition: PartitionNumber,
        /// The message's sequence.
        seq: Sequence,
        /// One group, or all that have a letter of it.
        group: Option<GroupName>,
        /// The message, where it was read.
        body: Option<LetterBody>,
    },
    /// A message is deleted.
    Erase {
        /// Its partition.
        partition: PartitionNumber,
        /// Its sequence.
        seq: Sequence,
    },
    /// A message becomes a dead letter.
    Bury {
        /// Its partition.
        partition: PartitionNumber,
        /// Its sequence.
        seq: Sequence,
        /// For one group, or for all that have not settled it.
        group: Option<GroupName>,
        /// What the letter says.
        error: Box<str>,
    },
    /// All messages of some partitions go.
    Clear(Vec<PartitionNumber>),
    /// Something happened to a message.
    Trace(Box<TraceEvent>),
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Tended {
    /// The job as it is now; `None` where there is no such job, or no room for another.
    Job(Option<Job>),
    /// What became of each letter.
    Moves(Vec<LetterMove>),
    /// How many; `None` where there is nothing of that name.
    Count(Option<u64>),
}

/// See [`Command::Tend`].
#[derive(Debug)]
pub struct Tend {
    /// What is asked.
    pub ask: Ask,
    /// The answer.
    pub reply: Reply<Result<Tended, CommandError>>,
}

impl Engine {
    /// Carries out what is asked; answers when it is durable. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`CommandError`] when it was not carried out, or perhaps was: see the error.
    pub async fn tend(&self, ask: Ask) -> Result<Tended, CommandError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.submit(Command::Tend(Box::new(Tend { ask, reply })));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }
}
