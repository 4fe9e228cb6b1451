//! What may be asked about consumer groups, and the answers that need no entry: where they stand.
//!
//! Whatever asks for single partitions, how old a lag is among them, comes page by page, so that no
//! question about a million partitions stands between two commits: whoever asks, asks again with the
//! place that the page before ended at. Sums are [`super::look::standings`]. Called by the lane.

use std::collections::BTreeMap;

use onrush_protocol::name::{GroupName, PartitionName, QueueName};

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::shard::command::{CommandError, Reply};
use crate::shard::lane::Lane;
use crate::state::draft::group::SeekTo;
use crate::state::effect::{GroupIndex, GroupStart, LeaseToken, Sequence};
use crate::state::kv::KvError;
use crate::state::model::Partition;

/// Partitions that one page of a survey looks at.
const LOOKS_PER_PAGE: usize = 1024;

/// See [`Command::Seek`](crate::shard::command::Command::Seek).
#[derive(Debug)]
pub struct Seek {
    /// The queue.
    pub queue: QueueName,
    /// The group.
    pub group: GroupName,
    /// One partition, or all of them.
    pub partition: Option<PartitionName>,
    /// Where to.
    pub to: SeekTo,
    /// The shard to begin with: as many follow as one commit should move.
    pub from_shard: ShardId,
    /// The answer.
    pub reply: Reply<Result<Sought, CommandError>>,
}

/// What became of a seek.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sought {
    /// There is no such queue.
    NoQueue,
    /// The queue has no such group.
    NoGroup,
    /// The one partition asked for does not exist.
    NoPartition,
    /// Cursors were moved.
    Moved {
        /// In so many partitions.
        partitions: u32,
        /// Where the last of them is now.
        next: Option<Sequence>,
        /// The shard to go on with; `None` when that was all.
        goes_on: Option<ShardId>,
    },
}

/// See [`Command::ForgetGroup`](crate::shard::command::Command::ForgetGroup).
#[derive(Debug)]
pub struct ForgetGroup {
    /// One queue, or all of them.
    pub queue: Option<QueueName>,
    /// The group.
    pub group: GroupName,
    /// Whether it is remembered where the group begins when it comes again.
    pub keep_start: bool,
    /// The answer.
    pub reply: Reply<Result<Forgotten, CommandError>>,
}

/// What was forgotten of a group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Forgotten {
    /// Queues that knew it.
    pub queues: u32,
    /// Partitions in which it had a cursor.
    pub partitions: u64,
}

/// See [`Command::Subscribe`](crate::shard::command::Command::Subscribe).
#[derive(Debug)]
pub struct Subscribe {
    /// One queue, or all that know the group.
    pub queue: Option<QueueName>,
    /// The group.
    pub group: GroupName,
    /// Where it begins wherever it has no cursor.
    pub start: GroupStart,
    /// The answer: how many queues know the group.
    pub reply: Reply<Result<u32, CommandError>>,
}

/// See [`Command::Survey`](crate::shard::command::Command::Survey).
#[derive(Debug)]
pub struct Survey {
    /// The queue.
    pub queue: QueueId,
    /// One group, whose partitions are listed; or all of them, of which only the oldest message is told.
    pub group: Option<GroupName>,
    /// Whether only partitions with messages that are not settled are listed.
    pub only_lagging: bool,
    /// Where the page begins.
    pub from: SurveyPlace,
    /// Partitions on the page, at most.
    pub limit: usize,
    /// The answer.
    pub reply: Reply<Result<SurveyPage, CommandError>>,
}

/// A place between two partitions of a queue: in a shard, before its partition of this number there.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct SurveyPlace {
    /// The shard.
    pub shard: ShardId,
    /// How many of the queue's partitions in it are done with.
    pub at: u32,
}

/// Some partitions of a queue.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SurveyPage {
    /// Those of one group.
    pub partitions: Vec<PartitionStanding>,
    /// When the oldest message was pushed that a group has not settled, unix milliseconds, by group;
    /// of this page's partitions.
    pub oldest: BTreeMap<Box<str>, u64>,
    /// Where the next page begins; `None` when that was all.
    pub next: Option<SurveyPlace>,
}

/// How a group stands in a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionStanding {
    /// The partition.
    pub partition: PartitionNumber,
    /// Its name.
    pub name: Box<str>,
    /// Everything below is settled.
    pub next: Sequence,
    /// The partition's head.
    pub end: Sequence,
    /// Messages that are settled, from sequence 0 on.
    pub settled: u64,
    /// Messages that are not settled.
    pub behind: u64,
    /// When the oldest of them was pushed, unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// The lease on it, and when it ends, unix milliseconds.
    pub lease: Option<(LeaseToken, u64)>,
}

impl Lane {
    /// Answers [`Survey`].
    pub(super) fn survey_page(&self, asked: &Survey) -> Result<SurveyPage, KvError> {
        let mut page = SurveyPage::default();
        let SurveyPlace { shard: first, at: mut skip } = asked.from;
        let mut looks = 0;
        for (number, state) in (0..).zip(&self.replica.shards).skip(usize::from(first)) {
            let group = asked.group.as_ref().map(|it| state.group(asked.queue, it.as_str()));
            // A shard that does not know the one group that is asked for has nothing to tell.
            let is_told = group != Some(None);
            let partitions = state.partitions_from(asked.queue, skip as usize);
            for (partition, held) in partitions.take_while(|_| is_told) {
                if looks == LOOKS_PER_PAGE || page.partitions.len() >= asked.limit {
                    page.next = Some(SurveyPlace { shard: number, at: skip });
                    return Ok(page);
                }
                self.look(state, (partition, held), group.flatten(), asked, &mut page)?;
                (looks, skip) = (looks + 1, skip + 1);
            }
            skip = 0;
        }
        Ok(page)
    }

    fn look(
        &self,
        state: &crate::state::ShardState,
        (number, partition): (PartitionNumber, &Partition),
        group: Option<GroupIndex>,
        asked: &Survey,
        page: &mut SurveyPage,
    ) -> Result<(), KvError> {
        let is_asked = |it: &GroupIndex| group.is_none_or(|group| group == *it);
        for cursor in partition.cursors.iter().filter(|it| is_asked(&it.group)) {
            let behind = partition.next_seq - cursor.settled();
            let oldest_ms = match behind {
                0 => None,
                _ => state.pushed_ms(&*self.kv, number, cursor.next)?,
            };
            let Some(its) = state.group_at(cursor.group) else { continue };
            if let Some(oldest_ms) = oldest_ms {
                let oldest = page.oldest.entry(its.name.clone()).or_insert(oldest_ms);
                *oldest = (*oldest).min(oldest_ms);
            }
            if group.is_none() || (asked.only_lagging && behind == 0) {
                continue;
            }
            page.partitions.push(PartitionStanding {
                partition: number,
                name: partition.name.clone(),
                next: cursor.next,
                end: partition.next_seq,
                settled: cursor.settled(),
                behind,
                oldest_ms,
                lease: cursor.lease.as_deref().map(|it| (it.token, it.until_ms)),
            });
        }
        Ok(())
    }
}
