//! Looking at messages: a page of them, newest first; one with all that is known of it.
//!
//! The lane finds where messages lie and how they stand with each group (`pager`), in as many looks as
//! it takes; bodies are read beside it. The order is by time, then partition, then sequence, all from the
//! newest, and does not change while messages stay, so pages neither repeat nor leave out what was there
//! all the time.

mod pager;

use std::sync::Arc;

use hashbrown::HashMap;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::name::PartitionName;

use crate::base::place::{PartitionNumber, QueueId};
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::shard::look::messages::pager::Pager;
use crate::shard::look::{View, beside};
use crate::state::ShardState;
use crate::state::catalog::QueueDefinition;
use crate::state::codec::Chunk;
use crate::state::effect::{ProducerSub, Sequence};
use crate::state::kv::KvError;
use crate::state::model::{Cursor, Partition, Run};

/// Messages whose standing is looked at again in one look, at most.
const AGAIN_MAX: usize = 128;

/// How a message stands with a group, or with all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// Somebody is still to get it, or has given it back.
    Pending,
    /// A consumer holds it.
    Processing,
    /// Every group is done with it.
    Completed,
    /// It is a dead letter.
    DeadLetter,
}

/// How a message stands with one group.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// The group.
    pub group: Box<str>,
    /// How it stands.
    pub status: Status,
    /// Failed attempts.
    pub attempts: u32,
    /// When the lease on it ends, unix milliseconds.
    pub lease_until_ms: Option<u64>,
}

/// A message, without its body.
#[derive(Clone, Debug)]
pub struct FoundMessage {
    /// Its queue.
    pub queue: Arc<QueueDefinition>,
    /// Its partition.
    pub partition: PartitionNumber,
    /// Its partition's name.
    pub partition_name: Box<str>,
    /// Its sequence.
    pub seq: Sequence,
    /// Where it lies; `None` where only its dead letter is left.
    pub run: Option<Run>,
    /// When it was pushed, unix milliseconds.
    pub time_ms: u64,
    /// Per group of its queue, and per group that was deleted and left a dead letter of it.
    pub groups: Vec<GroupStatus>,
}

impl FoundMessage {
    /// How it stands with all groups together.
    #[must_use]
    pub fn status(&self) -> Status {
        let any = |status| self.groups.iter().any(|group| group.status == status);
        match () {
            () if any(Status::DeadLetter) => Status::DeadLetter,
            () if any(Status::Processing) => Status::Processing,
            () if any(Status::Pending) || self.groups.is_empty() => Status::Pending,
            () => Status::Completed,
        }
    }
}

/// A message's body.
#[derive(Clone, Debug)]
pub struct Body {
    /// As a batch of one.
    pub batch: RecordBatch,
    /// Who pushed it, where that is known.
    pub sub: Option<ProducerSub>,
}

/// Which messages.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    /// Of these queues; `None` = of all.
    pub queues: Option<Vec<QueueId>>,
    /// Of partitions called so.
    pub partition: Option<PartitionName>,
    /// That stand so.
    pub status: Option<Status>,
    /// Pushed no earlier, unix milliseconds.
    pub from_ms: u64,
    /// Pushed no later, unix milliseconds.
    pub to_ms: u64,
}

/// A page of messages.
#[derive(Clone, Debug, Default)]
pub struct MessagePage {
    /// Newest first.
    pub messages: Vec<FoundMessage>,
    /// How many there are in all, where that is known.
    pub total: Option<u64>,
    /// Whether there are more behind this page.
    pub has_more: bool,
}

impl Engine {
    /// A page of messages, newest first, leaving out `offset`.
    ///
    /// # Errors
    /// [`CommandError`] when rows cannot be read or the engine stops.
    pub async fn messages(
        &self,
        filter: MessageFilter,
        offset: usize,
        limit: usize,
    ) -> Result<MessagePage, CommandError> {
        let status = filter.status;
        let (mut pager, mut looks) = (Pager::new(filter, offset, limit), 0);
        while !pager.is_over() {
            let step = self.look(move |view| {
                let worked = pager.go_on(view);
                (pager, worked)
            });
            let (went, worked) = step.await?;
            worked.map_err(|error| CommandError::Decide(error.into()))?;
            (pager, looks) = (went, looks + 1);
        }
        let page = pager.into_page();
        if looks <= 1 {
            return Ok(page);
        }
        Ok(MessagePage { messages: self.again(page.messages, status).await?, ..page })
    }

    /// Messages as they stand and lie now: finding them took longer than one look.
    async fn again(
        &self,
        messages: Vec<FoundMessage>,
        status: Option<Status>,
    ) -> Result<Vec<FoundMessage>, CommandError> {
        let mut found = Vec::with_capacity(messages.len());
        for some in messages.chunks(AGAIN_MAX) {
            let places: Vec<_> = some.iter().map(|it| (it.partition, it.seq)).collect();
            let read = self.look(move |view| {
                let read = places.into_iter().map(|(number, seq)| one(view, number, seq));
                read.collect::<Result<Vec<_>, KvError>>()
            });
            let read = read.await?.map_err(|error| CommandError::Decide(error.into()))?;
            found.extend(read.into_iter().flatten());
        }
        found.retain(|it: &FoundMessage| {
            it.run.is_some() && status.is_none_or(|status| status == it.status())
        });
        Ok(found)
    }

    /// One message with all that is known of it but its body; `None` where there is none, or not any
    /// more.
    ///
    /// # Errors
    /// As [`Self::messages`].
    pub async fn message(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> Result<Option<FoundMessage>, CommandError> {
        let found = self.look(move |view| one(view, partition, seq)).await?;
        found.map_err(|error| CommandError::Decide(error.into()))
    }

    /// The bodies of messages; `None` where it cannot be read any more. Waits
    /// for disks or networks.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn bodies(
        self: &Arc<Self>,
        wanted: Vec<(PartitionNumber, Sequence, Run)>,
    ) -> Result<Vec<Option<Body>>, CommandError> {
        let engine = Arc::clone(self);
        beside(move || {
            let mut read: HashMap<(PartitionNumber, Sequence), Vec<Chunk>> = HashMap::new();
            let body = |(number, seq, run): &(PartitionNumber, Sequence, Run)| {
                let shard = engine.count.of_partition(*number);
                let chunks = read
                    .entry((*number, run.first_seq))
                    .or_insert_with(|| engine.read(shard, run).unwrap_or_default());
                cut(chunks, *seq)
            };
            wanted.iter().map(body).collect()
        })
        .await
    }
}

fn cut(chunks: &[Chunk], seq: Sequence) -> Option<Body> {
    let holds = |it: &&Chunk| it.first_seq <= seq && seq < it.first_seq + u64::from(it.count);
    let chunk = chunks.iter().find(holds)?;
    let batch = RecordBatch::parse_trusted(chunk.batch.clone()).ok()?;
    let at = u32::try_from(seq - chunk.first_seq).ok()?;
    Some(Body { batch: batch.slice(at, at + 1)?, sub: chunk.sub.clone() })
}

fn one(
    view: &View<'_>,
    number: PartitionNumber,
    seq: Sequence,
) -> Result<Option<FoundMessage>, KvError> {
    let shard = usize::from(view.replica.count().of_partition(number));
    let Some(state) = view.replica.shards.get(shard) else { return Ok(None) };
    let Some(partition) = state.partition(number) else { return Ok(None) };
    if seq >= partition.next_seq || state.erased().has(number, seq) {
        return Ok(None);
    }
    let run = match seq >= partition.base_seq {
        true => state.runs(view.kv, number, seq, seq + 1)?.first().copied(),
        false => None,
    };
    let found = found(view, state, (number, partition), seq, run)?;
    // What retention let go is known only as a dead letter.
    let is_dead = |it: &FoundMessage| it.status() == Status::DeadLetter;
    Ok(found.filter(|it| it.run.is_some() || is_dead(it)))
}

fn found(
    view: &View<'_>,
    state: &ShardState,
    (number, partition): (PartitionNumber, &Partition),
    seq: Sequence,
    run: Option<Run>,
) -> Result<Option<FoundMessage>, KvError> {
    let Some(queue) = view.replica.catalog.catalog().get(partition.queue) else { return Ok(None) };
    let mut groups = Vec::with_capacity(partition.cursors.len());
    for cursor in &partition.cursors {
        groups.push(standing(view, state, number, seq, cursor)?);
    }
    for (group, _) in state.dead_of_ended(number) {
        if state.dead_at(view.kv, (number, group, seq))?.is_some() {
            groups.push(GroupStatus {
                group: state.group_at(group).map(|it| it.name.clone()).unwrap_or_default(),
                status: Status::DeadLetter,
                attempts: 0,
                lease_until_ms: None,
            });
        }
    }
    Ok(Some(FoundMessage {
        queue: Arc::clone(queue),
        partition: number,
        partition_name: partition.name.clone(),
        seq,
        run,
        time_ms: run.map_or(0, |run| run.time_ms),
        groups,
    }))
}

fn standing(
    view: &View<'_>,
    state: &ShardState,
    number: PartitionNumber,
    seq: Sequence,
    cursor: &Cursor,
) -> Result<GroupStatus, KvError> {
    let beyond = cursor.beyond.as_deref();
    let ranges = beyond.map_or(&[][..], |beyond| beyond.settled.as_slice());
    let settled = seq < cursor.next || ranges.iter().any(|(a, b)| (*a..=*b).contains(&seq));
    let lease = cursor.lease.as_deref().filter(|it| !settled && (it.from..it.to).contains(&seq));
    let status = match (settled, lease) {
        (true, _) if state.dead_at(view.kv, (number, cursor.group, seq))?.is_some() => {
            Status::DeadLetter
        }
        (true, _) => Status::Completed,
        (false, Some(_)) => Status::Processing,
        (false, None) => Status::Pending,
    };
    let attempts = beyond.map_or(&[][..], |beyond| beyond.attempts.as_slice());
    let attempts = attempts.iter().find(|(at, _)| *at == seq).map_or(0, |(_, count)| *count);
    Ok(GroupStatus {
        group: state.group_at(cursor.group).map(|it| it.name.clone()).unwrap_or_default(),
        status,
        attempts,
        lease_until_ms: lease.map(|lease| lease.until_ms),
    })
}
