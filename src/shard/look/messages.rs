//! Looking at messages: a page of them, newest first; one with all that is known of it.
//!
//! The lane finds where messages lie and how they stand with each group; bodies are read beside it.
//! The order is by time, then partition, then sequence, all from the newest, and does not change while
//! messages stay, so pages neither repeat nor leave out what was there all the time.

use std::collections::BinaryHeap;
use std::sync::Arc;

use hashbrown::HashMap;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::name::PartitionName;

use crate::base::place::{PartitionNumber, QueueId};
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::shard::look::{View, beside};
use crate::state::ShardState;
use crate::state::catalog::QueueDefinition;
use crate::state::codec::Chunk;
use crate::state::effect::{ProducerSub, Sequence};
use crate::state::kv::KvError;
use crate::state::model::{Cursor, Partition, Run};

/// Runs that one page looks at, at most.
const RUNS_MAX: usize = 100_000;
/// Messages whose status one page looks at, at most.
const STATUSES_MAX: u64 = 50_000;
/// Sequences whose runs are taken at a time.
const WINDOW: u64 = 1024;

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
    /// Per group of its queue.
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
        let found = self.look(move |view| page(view, &filter, offset, limit, RUNS_MAX)).await?;
        found.map_err(|error| CommandError::Decide(error.into()))
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

/// One partition being walked from its end.
struct Walk<'a> {
    state: &'a ShardState,
    partition: &'a Partition,
    /// Runs that are known, ascending.
    runs: Vec<Run>,
    /// Everything from here on was seen.
    end: Sequence,
    /// The run whose turn comes.
    found: Option<Run>,
}

impl<'a> Walk<'a> {
    /// From what memory knows of the partition on.
    fn new(state: &'a ShardState, partition: &'a Partition) -> Self {
        let (runs, end) = (partition.runs.to_vec(), partition.next_seq);
        Self { state, partition, runs, end, found: None }
    }

    /// When its newest message was pushed, or later.
    fn newest_ms(&self) -> u64 {
        self.partition.runs.last().map_or(u64::MAX, |run| run.time_ms)
    }

    /// The newest run that was not seen.
    fn next(&mut self, view: &View<'_>, number: PartitionNumber) -> Result<Option<Run>, KvError> {
        if self.runs.is_empty() && self.end > self.partition.base_seq {
            let from = self.end.saturating_sub(WINDOW).max(self.partition.base_seq);
            self.runs = self.state.runs(view.kv, number, from, self.end)?;
        }
        let run = self.runs.pop();
        self.end = run.map_or(self.partition.base_seq, |run| run.first_seq);
        Ok(run)
    }
}

/// A page on its way.
struct Pager<'a> {
    view: &'a View<'a>,
    filter: &'a MessageFilter,
    offset: u64,
    limit: usize,
    matched: u64,
    statuses: u64,
    messages: Vec<FoundMessage>,
}

fn walks<'a>(view: &View<'a>, filter: &MessageFilter) -> Vec<(PartitionNumber, Walk<'a>)> {
    let mut walks = Vec::new();
    let catalog = view.replica.catalog.catalog();
    let queues: Vec<QueueId> = match &filter.queues {
        Some(queues) => queues.clone(),
        None => catalog.iter().map(|queue| queue.id).collect(),
    };
    for state in &view.replica.shards {
        for queue in &queues {
            for (number, partition) in state.partitions_of(*queue) {
                let is_called = |name: &PartitionName| *name.as_str() == *partition.name;
                let walk = Walk::new(state, partition);
                let is_empty = partition.base_seq == partition.next_seq;
                if is_empty
                    || walk.newest_ms() < filter.from_ms
                    || !filter.partition.as_ref().is_none_or(is_called)
                {
                    continue;
                }
                walks.push((number, walk));
            }
        }
    }
    walks
}

fn page(
    view: &View<'_>,
    filter: &MessageFilter,
    offset: usize,
    limit: usize,
    runs_max: usize,
) -> Result<MessagePage, KvError> {
    let mut walks = walks(view, filter);
    // By time the newest first: a run, or the question what comes next of a partition, which is asked
    // only when nothing else can be newer. Rows are looked up for no other reason.
    let mut turns: BinaryHeap<(u64, bool, PartitionNumber, Sequence, usize)> = BinaryHeap::new();
    for (at, (number, walk)) in walks.iter().enumerate() {
        turns.push((walk.newest_ms(), true, *number, walk.end, at));
    }
    let mut pager = Pager {
        view,
        filter,
        offset: offset as u64,
        limit,
        matched: 0,
        statuses: 0,
        messages: Vec::new(),
    };
    let (mut looked, mut is_whole) = (0, true);
    while let Some((time_ms, is_question, number, _, at)) = turns.pop() {
        if time_ms < filter.from_ms {
            // And so is everything further.
            break;
        }
        let Some((_, walk)) = walks.get_mut(at) else { continue };
        if is_question {
            looked += 1;
            if looked > runs_max || pager.statuses > STATUSES_MAX {
                is_whole = false;
                break;
            }
            walk.found = walk.next(view, number)?;
            turns.extend(walk.found.map(|run| (run.time_ms, false, number, run.first_seq, at)));
        } else if let Some(run) = walk.found.take() {
            if time_ms <= filter.to_ms {
                pager.take(walk, number, &run)?;
            }
            turns.push((time_ms, true, number, run.first_seq, at));
        }
    }
    let seen = pager.offset + pager.messages.len() as u64;
    let total = is_whole.then_some(pager.matched);
    let has_more = !pager.messages.is_empty() && total.is_none_or(|total| total > seen);
    Ok(MessagePage { messages: pager.messages, total, has_more })
}

impl Pager<'_> {
    fn take(&mut self, walk: &Walk<'_>, number: PartitionNumber, run: &Run) -> Result<(), KvError> {
        let (state, partition) = (walk.state, walk.partition);
        let first = run.first_seq.max(partition.base_seq);
        let end = run.end_seq();
        let has_gaps = !state.erased().of(number).is_empty();
        let is_plain = self.filter.status.is_none() && !has_gaps;
        let is_full = self.messages.len() >= self.limit;
        let skips_all = self.matched + (end - first) <= self.offset;
        if is_plain && (is_full || skips_all) {
            self.matched += end - first;
            return Ok(());
        }
        for seq in (first..end).rev() {
            if state.erased().has(number, seq) {
                continue;
            }
            let wants = self.matched >= self.offset && self.messages.len() < self.limit;
            if self.filter.status.is_none() && !wants {
                self.matched += 1;
                continue;
            }
            self.statuses += 1;
            let message = found(self.view, state, (number, partition), seq, Some(*run))?;
            let Some(message) = message else { continue };
            if self.filter.status.is_some_and(|status| status != message.status()) {
                continue;
            }
            if wants {
                self.messages.push(message);
            }
            self.matched += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use onrush_protocol::batch::{BatchBuilder, NewRecord};

    use super::*;
    use crate::base::place::{ShardCount, ShardId, StoreKey};
    use crate::shard::parked::Parked;
    use crate::shard::replica::Replica;
    use crate::state::effect::{Effect, Entry, Origin};
    use crate::state::kv::{IdRow, Kv, RowChange, Scan, Space};
    use crate::state::ledger::DedupPolicy;

    /// Rows that cannot be read.
    struct NoRows;

    fn refused<T>() -> Result<T, KvError> {
        Err(KvError("nobody should ask".into()))
    }

    impl Kv for NoRows {
        fn get(&self, _: Space, _: &[u8]) -> Result<Option<Bytes>, KvError> {
            refused()
        }
        fn scan(
            &self,
            _: Space,
            _: &[u8],
            _: &[u8],
            _: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
        ) -> Result<(), KvError> {
            refused()
        }
        fn last(&self, _: Space, _: &[u8], _: &[u8]) -> Result<Option<(Bytes, Bytes)>, KvError> {
            refused()
        }
        fn write_with_ids(&self, _: &[RowChange], _: Vec<IdRow>) -> Result<(), KvError> {
            refused()
        }
        fn persist(&self) -> Result<(), KvError> {
            refused()
        }
        fn find_id(&self, _: PartitionNumber, _: u128, _: u32) -> Result<Option<IdRow>, KvError> {
            refused()
        }
        fn scan_ids(
            &self,
            _: ShardId,
            _: ShardCount,
            _: &mut dyn FnMut(&IdRow) -> Scan,
        ) -> Result<(), KvError> {
            refused()
        }
        fn forget_ids(&self, _: ShardId, _: ShardCount) -> Result<(), KvError> {
            refused()
        }
        fn drop_generations_before(&self, _: u32) -> Result<(), KvError> {
            refused()
        }
    }

    fn apply(replica: &mut Replica, shard: ShardId, time_ms: u64, effects: Vec<Effect>) {
        // A place of its own for each, so that no two of them are one run.
        let entry = Entry { time_ms, origin: Origin::default(), effects };
        replica.apply(shard, &entry, 1_000 * time_ms, 10);
    }

    /// Partitions with a message at each of these times; the newest one alone is in memory.
    fn stored(partitions: &[&[u64]]) -> Replica {
        let count = ShardCount::new(1).unwrap();
        let mut replica = Replica::new(count, StoreKey([7; 16]));
        let queue = QueueDefinition {
            id: 0,
            name: "q".into(),
            namespace: Box::default(),
            task: Box::default(),
            created_ms: 0,
            options: Default::default(),
            sealed: false,
            ttl_asked: false,
        };
        apply(&mut replica, count.catalog(), 1, vec![Effect::DefineQueue(Box::new(queue))]);
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord { payload: b"1", ..NewRecord::default() }).unwrap();
        let batch = builder.finish().unwrap().bytes().clone();
        for (local, times) in (0..).zip(partitions) {
            let number = count.number(0, local).unwrap();
            let name = format!("p{local}").into();
            let made = Effect::CreatePartition { number, queue: 0, name };
            apply(&mut replica, 0, 1, vec![made]);
            for (first_seq, time_ms) in (0..).zip(*times) {
                let (count, sub, batch) = (1, None, batch.clone());
                let (partition, fingerprints) = (number, Vec::new());
                let append =
                    Effect::Append { partition, first_seq, count, fingerprints, sub, batch };
                apply(&mut replica, 0, *time_ms, vec![append]);
            }
        }
        let policy = DedupPolicy { horizon_ms: 60_000, generation_ms: 20_000 };
        let _rows = replica.shards[0].begin_checkpoint(policy);
        replica.shards[0].end_checkpoint();
        replica
    }

    #[test]
    fn a_page_looks_up_no_rows_of_partitions_whose_turn_does_not_come() {
        let replica = stored(&[&[10, 20, 50], &[30, 60], &[5, 40]]);
        let view = View { replica: &replica, kv: &NoRows, parked: &Parked::default(), now_ms: 70 };
        let filter = MessageFilter { to_ms: u64::MAX, ..MessageFilter::default() };
        let found = page(&view, &filter, 0, 1, 1).unwrap();
        assert_eq!(found.messages.iter().map(|it| it.time_ms).collect::<Vec<_>>(), [60]);
        assert!(found.total.is_none() && found.has_more);
        // What comes behind it has to be looked up.
        assert!(page(&view, &filter, 0, 1, 2).is_err());
    }
}
