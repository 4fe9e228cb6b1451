//! The desk of whoever runs queues: one message looked at and changed, pages of messages and of dead
//! letters, jobs over letters begun and stopped, queues listed and cleared.
//!
//! In: names and places. Out: what stands there, opened as it was pushed, or what was done, durably.
//! Both doors ask here, so what one refuses the other refuses too. Called by the doors.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};

use crate::base::place::PartitionNumber;
use crate::catalog::CatalogError;
use crate::delivery::{Delivery, carry};
use crate::sealing::{OpenError, Place};
use crate::shard::command::{CommandError, Wanted};
use crate::shard::look::figures::QueueFigures;
use crate::shard::look::letters::ShownLetter;
use crate::shard::look::messages::{Body, FoundMessage, MessageFilter, MessagePage};
use crate::shard::tend::{Ask, Tended};
use crate::state::care::job::{Action, Job, JobId, JobState, RUNNING_MAX};
use crate::state::catalog::QueueDefinition;
use crate::state::draft::care::{LetterBody, LetterMove};
use crate::state::effect::{DeadReason, Sequence};

/// Partitions that are emptied in one commit.
const CLEARED_PER_COMMIT: usize = 4_096;

/// Why nothing was done or shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DeskError {
    /// There is no such message, or not any more.
    #[error("Message not found")]
    NoMessage,
    /// It has no dead letter that could go back.
    #[error("Message is not a dead letter")]
    NotDead,
    /// Its letter cannot go back: the group that it is of was deleted.
    #[error(
        "the consumer group of its dead letter was deleted; requeue the letter, or let the group come again"
    )]
    NoGroup,
    /// Its letter cannot go back now.
    #[error("a consumer holds messages around it; try again later")]
    Held,
    /// Nobody is left for whom it could become a dead letter.
    #[error("every group is done with the message, or there is no group yet")]
    AllDone,
    /// There is no such job.
    #[error("there is no such job")]
    NoJob,
    /// As many jobs as may run do so.
    #[error("{limit} jobs are running; wait for one of them")]
    TooManyJobs {
        /// How many that is.
        limit: usize,
    },
    /// A queue could not be found, or not be made.
    #[error(transparent)]
    Queue(#[from] CatalogError),
    /// It was not carried out, or perhaps was: see the error.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// How a message of a partition is named.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MessageKey {
    /// By its place.
    Seq(Sequence),
    /// By its producer's id, or the text of its own.
    Id(Box<str>),
}

/// A message that is there.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its partition.
    pub partition: PartitionNumber,
    /// Its place in it.
    pub seq: Sequence,
    /// Its queue's name.
    pub queue: Box<str>,
    /// Its partition's name.
    pub partition_name: Box<str>,
}

/// One message with all that is known of it.
#[derive(Clone, Debug)]
pub struct Detail {
    /// How it stands with each group.
    pub found: FoundMessage,
    /// As it is kept, perhaps sealed; `None` where it cannot be read any more.
    pub body: Option<Body>,
    /// As it was pushed, where it is kept.
    pub opened: Option<Result<RecordBatch, OpenError>>,
    /// Its dead letters, one for each group that could not settle it.
    pub letters: Vec<ShownLetter>,
}

/// A dead letter's message.
#[derive(Clone, Debug)]
pub struct LetterMessage {
    /// As it is kept, perhaps sealed; `None` where it is no batch.
    pub kept: Option<RecordBatch>,
    /// As it was pushed.
    pub opened: Result<RecordBatch, OpenError>,
}

/// What a job is to do with letters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JobAim {
    /// Back to their groups.
    Redrive,
    /// Pushed as new messages.
    Requeue {
        /// To this queue, which is made where pushes make queues; `None` = to the one they were in.
        queue: Option<QueueName>,
        /// Into this partition; `None` = into the one of the same name.
        partition: Option<PartitionName>,
    },
    /// Gone for good.
    Delete,
}

/// A job as it is asked for.
#[derive(Clone, Debug)]
pub struct JobOrder {
    /// What it does.
    pub aim: JobAim,
    /// With letters of this queue.
    pub queue: QueueName,
    /// Only with those of this group.
    pub group: Option<GroupName>,
    /// Only with those of this partition.
    pub partition: Option<PartitionName>,
    /// Only with those whose error has this in it.
    pub error: Option<Box<str>>,
    /// With so many, at most; 0 = with all.
    pub limit: u64,
    /// So many a second, at most; 0 = as many as go.
    pub rate: u32,
    /// Only counts them.
    pub dry_run: bool,
}

impl Delivery {
    /// Finds a message by its place or one of its ids.
    ///
    /// # Errors
    /// [`DeskError::NoMessage`], [`DeskError::Command`].
    pub async fn named(
        &self,
        partition: PartitionNumber,
        key: MessageKey,
    ) -> Result<Named, DeskError> {
        let id = match key {
            MessageKey::Seq(seq) => {
                let found = self.engine.message(partition, seq).await?;
                let found = found.ok_or(DeskError::NoMessage)?;
                let (queue, partition_name) = (found.queue.name.clone(), found.partition_name);
                return Ok(Named { partition, seq, queue, partition_name });
            }
            MessageKey::Id(id) => id,
        };
        let wanted = Wanted { partition, token: None, id };
        let found = self.find(GroupName::queue_mode(), vec![wanted]).await?.pop().flatten();
        let found = found.ok_or(DeskError::NoMessage)?;
        let seq = found.seq.ok_or(DeskError::NoMessage)?;
        Ok(Named { partition, seq, queue: found.queue, partition_name: found.partition })
    }

    /// A page of messages, newest first, leaving out `offset`; beside each its body as it is kept, `None`
    /// where it cannot be read any more. Waits for disks or networks.
    ///
    /// # Errors
    /// [`CommandError`] when they could not be read.
    pub async fn messages(
        &self,
        filter: MessageFilter,
        offset: usize,
        limit: usize,
    ) -> Result<(MessagePage, Vec<Option<Body>>), CommandError> {
        let page = self.engine.messages(filter, offset, limit).await?;
        let wanted = page.messages.iter().filter_map(|it| Some((it.partition, it.seq, it.run?)));
        let bodies = self.bodies(wanted.collect()).await?;
        Ok((page, bodies))
    }

    /// One message with its payload and its dead letters. Waits for disks or networks.
    ///
    /// # Errors
    /// [`DeskError::NoMessage`], [`DeskError::Command`].
    pub async fn detail(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> Result<Detail, DeskError> {
        let found = self.engine.message(partition, seq).await?;
        let mut found = found.ok_or(DeskError::NoMessage)?;
        let letters = self.letters_of(partition, seq).await?;
        let body = match found.run {
            Some(run) => self.bodies(vec![(partition, seq, run)]).await?.pop().flatten(),
            None => {
                // Its partition let it go; its letter has its own.
                let letter = &letters.first().ok_or(DeskError::NoMessage)?.letter;
                found.time_ms = letter.pushed_ms;
                kept(&letter.batch).map(|batch| Body { batch, sub: letter.sub.clone() })
            }
        };
        let (queue, name) = (found.queue.id, &*found.partition_name);
        let opened = body.as_ref().map(|body| self.reveal(queue, name, Some(&body.batch)));
        Ok(Detail { found, body, opened, letters })
    }

    /// The message of a dead letter, opened.
    #[must_use]
    pub fn letter_message(&self, letter: &ShownLetter) -> LetterMessage {
        let kept = kept(&letter.letter.batch);
        let opened = self.reveal(letter.queue, &letter.partition_name, kept.as_ref());
        LetterMessage { kept, opened }
    }

    /// Deletes a message for all groups. Answers when that is durable.
    ///
    /// # Errors
    /// [`DeskError::NoMessage`], [`DeskError::Command`].
    pub async fn erase(&self, partition: PartitionNumber, seq: Sequence) -> Result<(), DeskError> {
        match self.engine.tend(Ask::Erase { partition, seq }).await? {
            Tended::Count(Some(_)) => Ok(()),
            _ => Err(DeskError::NoMessage),
        }
    }

    /// Gives a message's dead letters back to their groups, or to one of them; returns for how many.
    /// Answers when that is durable.
    ///
    /// # Errors
    /// [`DeskError::NotDead`], [`DeskError::NoGroup`], [`DeskError::Held`], [`DeskError::NoMessage`],
    /// [`DeskError::Command`].
    pub async fn retry(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
        group: Option<GroupName>,
    ) -> Result<u64, DeskError> {
        // The letter's own message, for when its partition has let go of it.
        let letters = self.letters_of(partition, seq).await?;
        let body = letters.first().and_then(|it| {
            let place = Place { queue: it.queue, partition: &it.partition_name };
            let batch = carry(&self.engine, it, place).ok()?;
            Some(LetterBody { batch, sub: it.letter.sub.clone() })
        });
        let tended = self.engine.tend(Ask::Retry { partition, seq, group, body }).await?;
        let Tended::Moves(moves) = tended else { return Err(DeskError::NoMessage) };
        let count = |wanted: LetterMove| moves.iter().filter(|it| **it == wanted).count() as u64;
        match (count(LetterMove::Moved), count(LetterMove::Later)) {
            (0, 0) if count(LetterMove::NoGroup) > 0 => Err(DeskError::NoGroup),
            (0, 0) => Err(DeskError::NotDead),
            (0, _) => Err(DeskError::Held),
            (moved, _) => Ok(moved),
        }
    }

    /// Makes a dead letter of a message, for one group or for all that have not settled it; returns for
    /// how many. Answers when that is durable.
    ///
    /// # Errors
    /// [`DeskError::AllDone`], [`DeskError::NoMessage`], [`DeskError::Command`].
    pub async fn bury(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
        group: Option<GroupName>,
        error: Box<str>,
    ) -> Result<u64, DeskError> {
        match self.engine.tend(Ask::Bury { partition, seq, group, error }).await? {
            Tended::Count(Some(0)) => Err(DeskError::AllDone),
            Tended::Count(Some(groups)) => Ok(groups),
            _ => Err(DeskError::NoMessage),
        }
    }

    /// Lets go of all messages of a queue, or of one of its partitions; returns how many. Some partitions a
    /// commit: whatever comes between is cleared or kept as a whole. Answers when that is durable.
    ///
    /// # Errors
    /// [`DeskError::Queue`] where there is none; [`DeskError::Command`]: what fails halfway can be asked
    /// for again.
    pub async fn clear(
        &self,
        name: &QueueName,
        partition: Option<&PartitionName>,
    ) -> Result<u64, DeskError> {
        let queue = self.catalogs.find(name).ok_or(CatalogError::NotFound(name.detach()))?;
        let name = partition.map(PartitionName::as_str);
        let numbers = self.engine.filled_partitions(queue.id, name).await?;
        let mut messages = 0;
        for some in numbers.chunks(CLEARED_PER_COMMIT) {
            if let Tended::Count(Some(gone)) = self.engine.tend(Ask::Clear(some.to_vec())).await? {
                messages += gone;
            }
        }
        Ok(messages)
    }

    /// All queues with their figures, newest first.
    ///
    /// # Errors
    /// [`CommandError`] when they could not be counted.
    pub async fn queues(&self) -> Result<Vec<(Arc<QueueDefinition>, QueueFigures)>, CommandError> {
        let mut figures = self.engine.figures().await?;
        let mut queues = self.catalogs.list();
        queues.reverse();
        let with = |queue: Arc<QueueDefinition>| {
            let its = figures.remove(&queue.id).unwrap_or_default();
            (queue, its)
        };
        Ok(queues.into_iter().map(with).collect())
    }

    /// Begins a job; it goes on by itself, also after a restart. Answers when it is durable that it does.
    ///
    /// # Errors
    /// [`DeskError::Queue`], [`DeskError::TooManyJobs`], [`DeskError::Command`].
    pub async fn begin_job(&self, order: JobOrder) -> Result<Job, DeskError> {
        let JobOrder { aim, queue: name, group, partition, error, limit, rate, dry_run } = order;
        let queue = self.catalogs.find(&name).ok_or(CatalogError::NotFound(name.detach()))?;
        let action = match aim {
            JobAim::Redrive => Action::Redrive,
            JobAim::Delete => Action::Delete,
            JobAim::Requeue { queue: to, partition } => {
                let found = self.catalogs.find_or_create(&to.unwrap_or(name)).await?;
                let partition = partition.map(|it| it.as_str().into());
                Action::Requeue { queue: found.id, partition }
            }
        };
        let job = Job {
            id: 0,
            action,
            queue: queue.id,
            queue_name: queue.name.clone(),
            group: group.map(|name| name.as_str().into()),
            partition: partition.map(|name| name.as_str().into()),
            error,
            limit,
            rate,
            dry_run,
            created_ms: 0,
            state: JobState::Running,
            moved: 0,
            skipped: 0,
            deferred: 0,
            cursor: None,
            engine: 0,
            stepped_ms: 0,
            problem: Box::default(),
        };
        match self.engine.tend(Ask::Begin(Box::new(job))).await? {
            Tended::Job(Some(job)) => Ok(job),
            _ => Err(DeskError::TooManyJobs { limit: RUNNING_MAX }),
        }
    }

    /// Jobs that are remembered, newest first.
    #[must_use]
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.engine.catalog_now().jobs().iter().rev().cloned().collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`DeskError::NoJob`].
    pub fn job(&self, id: JobId) -> Result<Arc<Job>, DeskError> {
        self.engine.catalog_now().jobs().get(id).cloned().ok_or(DeskError::NoJob)
    }

    /// Lets a job take no more steps; what it has moved stays moved. Answers when that is durable.
    ///
    /// # Errors
    /// [`DeskError::NoJob`], [`DeskError::Command`].
    pub async fn cancel_job(&self, id: JobId) -> Result<Job, DeskError> {
        match self.engine.tend(Ask::Cancel(id)).await? {
            Tended::Job(Some(job)) => Ok(job),
            _ => Err(DeskError::NoJob),
        }
    }
}

/// The message of a letter as it is kept, perhaps sealed; `None` where it cannot be read.
fn kept(batch: &Bytes) -> Option<RecordBatch> {
    RecordBatch::parse_trusted(batch.clone()).ok()
}

/// What a letter says of its failure: its consumer's words, or else why it is one.
#[must_use]
pub fn words(letter: &ShownLetter) -> &str {
    match &*letter.letter.error {
        "" => reason(letter),
        error => error,
    }
}

/// Why a message became a dead letter, for people.
#[must_use]
pub fn reason(letter: &ShownLetter) -> &'static str {
    match letter.letter.reason {
        DeadReason::RetriesExhausted => "Retries exhausted",
        DeadReason::Asked => "Moved by the consumer",
        DeadReason::LeaseExpired => "Lease expired too often",
    }
}
