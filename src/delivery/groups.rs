//! Consumer groups as somebody who runs them sees them: sent elsewhere, forgotten, and how they stand.
//!
//! In: names. Out: what was done, durably, or numbers that are exact as of a commit. What touches many
//! partitions is asked for in pieces, so that messages go on meanwhile; whoever drops the future has asked
//! for less. Called by the doors.

use std::collections::BTreeMap;

use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use tokio::sync::oneshot;

use crate::base::place::QueueId;
use crate::catalog::not_own;
use crate::delivery::Delivery;
use crate::shard::command::{Command, CommandError};
use crate::shard::groups::{
    ForgetGroup, Forgotten, PartitionStanding, Seek, Sought, Subscribe, Survey, SurveyPage,
    SurveyPlace,
};
use crate::shard::look::standings::GroupStanding;
use crate::state::draft::group::SeekTo;
use crate::state::effect::{GroupStart, Sequence};

/// Why a group was not changed or not told of.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GroupError {
    /// There is no such queue.
    #[error("Queue '{0}' does not exist")]
    NoQueue(QueueName),
    /// The queue has no such group.
    #[error("Consumer group '{0}' is not known in this queue")]
    NoGroup(GroupName),
    /// The queue has no such partition.
    #[error("Partition not found")]
    NoPartition,
    /// It was not carried out, or not wholly.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Which cursors a seek moved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moved {
    /// In so many partitions.
    pub partitions: u64,
    /// Where the last of them is now.
    pub next: Option<Sequence>,
}

impl Delivery {
    /// Sends a group elsewhere in a queue, in one partition or in all of them: leases there end, and
    /// attempts are forgotten. Answers when that is durable. A large queue takes several commits:
    /// what fails halfway can be asked for again.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn seek(
        &self,
        queue: &QueueName,
        group: &GroupName,
        partition: Option<&PartitionName>,
        to: SeekTo,
    ) -> Result<Moved, GroupError> {
        not_own(group.as_str())?;
        let mut moved = Moved::default();
        let mut from_shard = 0;
        loop {
            let (reply, answer) = oneshot::channel();
            let seek = Seek {
                queue: queue.detach(),
                group: group.detach(),
                partition: partition.map(PartitionName::detach),
                to,
                from_shard,
                reply,
            };
            self.engine.submit(Command::Seek(Box::new(seek)));
            match answer.await.unwrap_or(Err(CommandError::ShuttingDown))? {
                Sought::NoQueue => return Err(GroupError::NoQueue(queue.detach())),
                Sought::NoGroup => return Err(GroupError::NoGroup(group.detach())),
                Sought::NoPartition => return Err(GroupError::NoPartition),
                Sought::Moved { partitions, next, goes_on } => {
                    moved.partitions += u64::from(partitions);
                    moved.next = next.or(moved.next);
                    match goes_on {
                        Some(shard) => from_shard = shard,
                        None => return Ok(moved),
                    }
                }
            }
        }
    }

    /// Forgets a group's cursors and leases, in one queue or in all; with `keep_start` it is remembered
    /// where it begins when it comes again. Its dead letters stay. Answers when that is durable.
    ///
    /// # Errors
    /// [`CommandError`] when it was not carried out.
    pub async fn forget_group(
        &self,
        queue: Option<&QueueName>,
        group: &GroupName,
        keep_start: bool,
    ) -> Result<Forgotten, CommandError> {
        not_own(group.as_str())?;
        let (reply, answer) = oneshot::channel();
        let (queue, group) = (queue.map(QueueName::detach), group.detach());
        self.engine.submit(Command::ForgetGroup(ForgetGroup { queue, group, keep_start, reply }));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// Changes where a group begins wherever it has no cursor, in one queue or in all that know it;
    /// returns how many do. Cursors stay. Answers when that is durable.
    ///
    /// # Errors
    /// [`CommandError`] when it was not carried out.
    pub async fn subscribe(
        &self,
        queue: Option<&QueueName>,
        group: &GroupName,
        start: GroupStart,
    ) -> Result<u32, CommandError> {
        not_own(group.as_str())?;
        let (reply, answer) = oneshot::channel();
        let (queue, group) = (queue.map(QueueName::detach), group.detach());
        self.engine.submit(Command::Subscribe(Subscribe { queue, group, start, reply }));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// How all groups stand, in one queue or in all, by queue and name; see
    /// [`Engine::group_standings`](crate::shard::Engine::group_standings).
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn group_standings(
        &self,
        queue: Option<QueueId>,
    ) -> Result<Vec<GroupStanding>, CommandError> {
        self.engine.group_standings(queue).await
    }

    /// For each group of a queue that lags, when the oldest message was pushed that it has not
    /// settled, unix milliseconds. Looks at every partition, some at a time.
    ///
    /// # Errors
    /// [`CommandError`] when rows could not be read.
    pub async fn oldest_unsettled(
        &self,
        queue: QueueId,
    ) -> Result<BTreeMap<Box<str>, u64>, CommandError> {
        let (mut oldest, mut from) = (BTreeMap::<Box<str>, u64>::new(), SurveyPlace::default());
        loop {
            let page = self.survey(queue, None, false, from, usize::MAX).await?;
            for (group, at_ms) in page.oldest {
                let known = oldest.entry(group).or_insert(at_ms);
                *known = (*known).min(at_ms);
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(oldest),
            }
        }
    }

    /// How a group stands in a queue's partitions from a place on, `limit` of them; and the place where
    /// the next ones are.
    ///
    /// # Errors
    /// [`CommandError`] when rows could not be read.
    pub async fn group_partitions(
        &self,
        queue: QueueId,
        group: &GroupName,
        only_lagging: bool,
        mut from: SurveyPlace,
        limit: usize,
    ) -> Result<(Vec<PartitionStanding>, Option<SurveyPlace>), CommandError> {
        let mut found = Vec::new();
        loop {
            let left = limit.saturating_sub(found.len());
            let page = self.survey(queue, Some(group), only_lagging, from, left).await?;
            found.extend(page.partitions);
            match page.next {
                Some(next) if found.len() < limit => from = next,
                next => return Ok((found, next)),
            }
        }
    }

    async fn survey(
        &self,
        queue: QueueId,
        group: Option<&GroupName>,
        only_lagging: bool,
        from: SurveyPlace,
        limit: usize,
    ) -> Result<SurveyPage, CommandError> {
        let (reply, answer) = oneshot::channel();
        let group = group.map(GroupName::detach);
        let survey = Survey { queue, group, only_lagging, from, limit, reply };
        self.engine.submit(Command::Survey(Box::new(survey)));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }
}
