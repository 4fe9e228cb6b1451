//! Deterministic state: what the log's entries mean.
//!
//! `decide(state, commands, now) → effects or refusals` is [`draft::Draft`]; `apply(state, entry)` is
//! [`ShardState::apply`]. Both are pure: no clock, no randomness, no I/O beyond reading rows and
//! bodies that earlier entries put there. So two engines that applied the same entries are equal.
//!
//! [`effect`] the words, [`codec`] their bytes, [`model`] the data, [`draft`] decisions, [`apply`]
//! changes (`cursors` those of groups, `standing` their counters and ready lists), [`care`] dead letters
//! and what operators do, [`checkpoint`] rows of the key-value seam [`kv`], [`portable`] those rows for
//! another machine, [`ledger`] transaction ids, [`states`] state keys, [`tally`] those that are counted
//! on, `since` messages by time, [`catalog`] queues with [`classes`] of code, and [`queries`].

pub mod apply;
pub mod care;
pub mod catalog;
pub mod checkpoint;
pub mod classes;
pub mod codec;
mod cursors;
pub mod draft;
pub mod effect;
pub mod kv;
pub mod ledger;
pub mod model;
pub mod portable;
pub mod progress;
#[cfg(test)]
mod proofs;
pub mod queries;
pub mod rows;
mod since;
pub mod sleep;
mod standing;
pub mod states;
pub mod tally;
pub mod undone;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};

use hashbrown::{Equivalent, HashMap, HashTable};
use onrush_protocol::batch::RecordBatch;

use crate::base::place::{PartitionNumber, QueueId, ShardCount, ShardId, StoreKey};
use crate::state::care::erased::Erased;
use crate::state::care::graves::{DeadKey, DeadLetters, DeadPlace, Graves, IndexKey};
use crate::state::codec::Chunk;
use crate::state::effect::{GroupIndex, LeaseToken, ProducerSub, Sequence, SpillId};
use crate::state::kv::{Kv, KvError, Scan, Space};
use crate::state::ledger::Ledger;
use crate::state::model::{Cursor, Group, Partition, Run};

/// Runs that moved, by partition and first sequence.
type Moved = BTreeMap<(PartitionNumber, Sequence), Run>;

/// Partitions (local indexes) and groups that one token holds here.
type Holders = smallvec::SmallVec<[(u32, GroupIndex); 2]>;

/// A lease's place among those of its shard, by the time at which they end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseKey((u64, u32, GroupIndex));

/// Looks a group up without owning its name; hashes as the owning key does.
#[derive(Hash)]
struct GroupKey<'a>(QueueId, &'a str);

impl Equivalent<(QueueId, Box<str>)> for GroupKey<'_> {
    fn equivalent(&self, key: &(QueueId, Box<str>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

/// Everything one shard knows.
#[derive(Debug)]
pub struct ShardState {
    shard: ShardId,
    shards: ShardCount,
    key: StoreKey,
    /// Entries applied: the head that the next decision expects.
    head: u64,
    /// Everything of this shard before this log position is applied.
    position: u64,
    /// The same, as rows say; what they lack must stay in the log.
    stored_position: u64,
    /// Time of the last entry.
    last_ms: u64,
    /// Log position behind the last append applied.
    append_end: u64,
    partitions: Vec<Partition>,
    /// Local indexes by (queue, name).
    names: HashTable<u32>,
    by_queue: HashMap<QueueId, Vec<u32>, foldhash::fast::RandomState>,
    groups: Vec<Group>,
    group_names: HashMap<(QueueId, Box<str>), GroupIndex>,
    by_queue_groups: HashMap<QueueId, Vec<GroupIndex>, foldhash::fast::RandomState>,
    /// Messages that ever came, by queue: the sum of its partitions' heads.
    ends: HashMap<QueueId, u64, foldhash::fast::RandomState>,
    /// Ends of leases: (until, local index, group).
    timers: BTreeSet<(u64, u32, GroupIndex)>,
    /// Partitions with work whose time has not come. Not in the log: found out again when needed.
    sleepers: sleep::Sleepers,
    /// Messages that are not done, of queues that have a limit.
    undone: undone::Undone,
    /// Who holds what by fencing token.
    holders: HashMap<LeaseToken, Holders, foldhash::fast::RandomState>,
    /// Runs that moved and whose rows may still name the old place, which may be gone by now.
    moved: Moved,
    graves: Graves,
    erased: Erased,
    ledger: Ledger,
    /// State keys that are not rows yet.
    states: states::States,
    /// How far failover logs were replayed here.
    replayed: BTreeMap<SpillId, u64>,
    changes: checkpoint::Changes,
}

impl ShardState {
    /// A shard without a history.
    #[must_use]
    pub fn new(shard: ShardId, shards: ShardCount, key: StoreKey) -> Self {
        Self {
            shard,
            shards,
            key,
            head: 0,
            position: 0,
            stored_position: 0,
            last_ms: 0,
            append_end: 0,
            partitions: Vec::new(),
            names: HashTable::new(),
            by_queue: HashMap::default(),
            groups: Vec::new(),
            group_names: HashMap::default(),
            by_queue_groups: HashMap::default(),
            ends: HashMap::default(),
            timers: BTreeSet::new(),
            sleepers: sleep::Sleepers::default(),
            undone: undone::Undone::default(),
            holders: HashMap::default(),
            moved: BTreeMap::new(),
            graves: Graves::default(),
            erased: Erased::default(),
            ledger: Ledger::default(),
            states: states::States::default(),
            replayed: BTreeMap::new(),
            changes: checkpoint::Changes::default(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Entries applied so far.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Everything of this shard before this log position is applied.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Everything of this shard before this log position is in rows.
    #[must_use]
    pub fn stored_position(&self) -> u64 {
        self.stored_position
    }

    /// Nothing of this shard stands between the last entry applied and `position`.
    pub fn advance(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Time of the last entry applied, unix milliseconds.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// A partition by its public number; `None` when it never was or its queue is gone.
    #[must_use]
    pub fn partition(&self, number: PartitionNumber) -> Option<&Partition> {
        if self.shards.of_partition(number) != self.shard {
            return None;
        }
        self.local(self.shards.local(number)).filter(|partition| partition.live)
    }

    /// The number of the partition called `name`; `hash` is [`StoreKey::place`] of both.
    #[must_use]
    pub fn find(&self, queue: QueueId, name: &str, hash: u64) -> Option<PartitionNumber> {
        let local = self.names.find(hash, |local| {
            self.local(*local).is_some_and(|it| it.queue == queue && *it.name == *name)
        })?;
        self.shards.number(self.shard, *local)
    }

    /// Live partitions of a queue, by number.
    pub fn partitions_of(
        &self,
        queue: QueueId,
    ) -> impl Iterator<Item = (PartitionNumber, &Partition)> + Clone {
        self.partitions_from(queue, 0)
    }

    /// The same without the first `at` of them, which costs nothing.
    pub fn partitions_from(
        &self,
        queue: QueueId,
        at: usize,
    ) -> impl Iterator<Item = (PartitionNumber, &Partition)> + Clone {
        let locals = self.by_queue.get(&queue).and_then(|all| all.get(at..)).unwrap_or_default();
        locals.iter().filter_map(|local| {
            Some((self.shards.number(self.shard, *local)?, self.local(*local)?))
        })
    }

    /// Partitions of all queues without the first `at` that ever were; `None` for those that are gone.
    pub fn slots_from(
        &self,
        at: usize,
    ) -> impl Iterator<Item = Option<(PartitionNumber, &Partition)>> {
        let slots = self.partitions.get(at..).unwrap_or_default();
        (at..).zip(slots).map(|(local, partition)| {
            let number = self.shards.number(self.shard, u32::try_from(local).ok()?)?;
            partition.live.then_some((number, partition))
        })
    }

    /// How many live partitions a queue has here.
    #[must_use]
    pub fn partitions_in(&self, queue: QueueId) -> usize {
        self.by_queue.get(&queue).map_or(0, Vec::len)
    }

    /// Whether a queue has partitions here.
    #[must_use]
    pub fn has_partitions(&self, queue: QueueId) -> bool {
        self.partitions_in(queue) > 0
    }

    /// The numbers of all live partitions.
    pub fn partition_numbers(&self) -> impl Iterator<Item = PartitionNumber> + '_ {
        self.names.iter().filter_map(|local| self.shards.number(self.shard, *local))
    }

    /// How many partitions live here.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.names.len()
    }

    /// Queues that have partitions or groups here.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> {
        let with_groups = self.by_queue_groups.keys();
        let mut all: Vec<QueueId> = self.by_queue.keys().chain(with_groups).copied().collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }

    /// Whether anything of a queue is here.
    #[must_use]
    pub fn knows(&self, queue: QueueId) -> bool {
        self.by_queue.contains_key(&queue) || self.by_queue_groups.contains_key(&queue)
    }

    /// Whether a token holds anything here.
    #[must_use]
    pub fn holds(&self, token: LeaseToken) -> bool {
        self.holders.contains_key(&token)
    }

    /// How many leases there are.
    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.timers.len()
    }

    /// Leases behind one, by the time at which they end: each with its group and token.
    pub fn leases_behind(
        &self,
        one: Option<LeaseKey>,
    ) -> impl Iterator<Item = (LeaseKey, GroupIndex, LeaseToken)> + '_ {
        let from = one.map_or(Bound::Unbounded, |LeaseKey(key)| Bound::Excluded(key));
        self.timers.range((from, Bound::Unbounded)).filter_map(|key| {
            let (_, local, group) = *key;
            let cursors = self.local(local).map(|it| it.cursors.as_slice()).unwrap_or_default();
            let cursor = cursors.iter().find(|cursor| cursor.group == group)?;
            Some((LeaseKey(*key), group, cursor.lease.as_deref()?.token))
        })
    }

    /// A group's index.
    #[must_use]
    pub fn group(&self, queue: QueueId, name: &str) -> Option<GroupIndex> {
        self.group_names.get(&GroupKey(queue, name)).copied()
    }

    /// A group by its index.
    #[must_use]
    pub fn group_at(&self, group: GroupIndex) -> Option<&Group> {
        self.groups.get(group as usize)
    }

    /// When the next lease ends, unix milliseconds.
    #[must_use]
    pub fn next_timer_ms(&self) -> Option<u64> {
        self.timers.first().map(|(until, ..)| *until)
    }

    /// Runs that hold `[from, to)`, ascending. Older ones are read from the rows.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn runs(
        &self,
        kv: &dyn Kv,
        number: PartitionNumber,
        from: Sequence,
        to: Sequence,
    ) -> Result<Vec<Run>, KvError> {
        let Some(partition) = self.partition(number) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let memory_from = partition.runs.first().map_or(partition.next_seq, |run| run.first_seq);
        if from < memory_from {
            let first =
                kv.last(Space::Runs, &rows::run_key(number, 0), &rows::run_key(number, from))?;
            let start = first.map_or_else(|| rows::run_key(number, from), |(key, _)| key.to_vec());
            let end = rows::run_key(number, to.min(memory_from));
            kv.scan(Space::Runs, &start, &end, &mut |key, value| {
                found.extend(rows::read_run(key, value));
                Scan::Continue
            })?;
            self.lay_moved_over(number, to.min(memory_from), &mut found);
            found.retain(|run| run.end_seq() > from);
        }
        // A run that moved batch by batch may be held in part while its row still says the old place.
        let from = found.last().map_or(from, |run| run.end_seq().max(from));
        let skip = partition.runs.partition_point(|run| run.end_seq() <= from);
        let in_memory = partition.runs.iter().skip(skip).take_while(|run| run.first_seq < to);
        found.extend(in_memory.copied());
        Ok(found)
    }

    /// Puts what moved in the place of what its rows say, as far as it begins before `to`. A run moves
    /// batch by batch, all of them at once: the first takes the row's place, the others follow it.
    fn lay_moved_over(&self, number: PartitionNumber, to: Sequence, found: &mut Vec<Run>) {
        for (_, run) in self.moved.range((number, 0)..(number, to)) {
            match found.binary_search_by_key(&run.first_seq, |it| it.first_seq) {
                Ok(at) => found.get_mut(at).into_iter().for_each(|it| *it = *run),
                Err(at) => found.insert(at, *run),
            }
        }
    }

    /// A partition's dead letters, by group and sequence.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn dead_of(&self, kv: &dyn Kv, number: PartitionNumber) -> Result<DeadLetters, KvError> {
        let mut found = DeadLetters::new();
        let (from, to) = (rows::dead_key(number, 0, 0), rows::dead_key(number, u32::MAX, u64::MAX));
        kv.scan(Space::Dead, &from, &to, &mut |key, value| {
            found.extend(rows::parse_dead(key, value));
            Scan::Continue
        })?;
        let recent = self.graves.recent().range((number, 0, 0)..=(number, u32::MAX, u64::MAX));
        for (key, place) in recent {
            match place {
                Some(place) => found.insert(*key, *place),
                None => found.remove(key),
            };
        }
        Ok(found)
    }

    /// Where one dead letter lies; `None` where there is none.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn dead_at(&self, kv: &dyn Kv, key: DeadKey) -> Result<Option<DeadPlace>, KvError> {
        if let Some(place) = self.graves.recent().get(&key) {
            return Ok(*place);
        }
        let (partition, group, seq) = key;
        if !self.graves.counts().contains_key(&(partition, group)) {
            return Ok(None);
        }
        let key = rows::dead_key(partition, group, seq);
        let row = kv.get(Space::Dead, &key)?;
        Ok(row.and_then(|value| rows::parse_dead(&key, &value)).map(|(_, place)| place))
    }

    /// Up to `most` dead letters of one partition and group from a sequence on, ascending.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn dead_from(
        &self,
        kv: &dyn Kv,
        (partition, group, seq): DeadKey,
        most: usize,
    ) -> Result<Vec<(DeadKey, DeadPlace)>, KvError> {
        let recent = self.graves.recent();
        let mut found = DeadLetters::new();
        let from = rows::dead_key(partition, group, seq);
        let to = rows::dead_key(partition, group, u64::MAX);
        kv.scan(Space::Dead, &from, &to, &mut |key, value| {
            let letter = rows::parse_dead(key, value);
            found.extend(letter.filter(|(key, _)| !recent.contains_key(key)));
            if found.len() < most { Scan::Continue } else { Scan::Stop }
        })?;
        let newer = recent.range((partition, group, seq)..=(partition, group, u64::MAX));
        found.extend(newer.filter_map(|(key, place)| Some((*key, (*place)?))));
        Ok(found.into_iter().take(most).collect())
    }

    /// Dead letters whose rows are not written, or say something else than memory: where they lie, or
    /// `None` where they are gone.
    #[must_use]
    pub fn recent_dead(&self) -> &BTreeMap<DeadKey, Option<DeadPlace>> {
        self.graves.recent()
    }

    /// Rows of the index of dead letters that are not true any more.
    #[must_use]
    pub fn stale_dead(&self) -> &BTreeSet<IndexKey> {
        self.graves.stale()
    }

    /// How many dead letters there are, by partition and group; only those that have any.
    #[must_use]
    pub fn dead_counts(&self) -> &BTreeMap<(PartitionNumber, GroupIndex), u64> {
        self.graves.counts()
    }

    /// Groups with dead letters in a partition, and how many: also groups that were deleted, for their
    /// letters outlive them.
    pub fn dead_in(&self, number: PartitionNumber) -> impl Iterator<Item = (GroupIndex, u64)> + '_ {
        let its = self.graves.counts().range((number, 0)..=(number, GroupIndex::MAX));
        its.map(|((_, group), count)| (*group, *count))
    }

    /// The same for those that were deleted.
    pub fn dead_of_ended(
        &self,
        number: PartitionNumber,
    ) -> impl Iterator<Item = (GroupIndex, u64)> + '_ {
        let is_live = |group| self.group_at(group).is_some_and(|it| it.live);
        self.dead_in(number).filter(move |(group, _)| !is_live(*group))
    }

    /// How many dead letters there are, by group; only those that have any.
    #[must_use]
    pub fn dead_totals(&self) -> &BTreeMap<GroupIndex, u64> {
        self.graves.totals()
    }

    /// Messages that were deleted one by one.
    #[must_use]
    pub fn erased(&self) -> &Erased {
        &self.erased
    }

    /// The transaction ids that this shard remembers.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Up to where a failover log was replayed into this shard.
    #[must_use]
    pub fn replayed(&self, spill: &SpillId) -> u64 {
        self.replayed.get(spill).copied().unwrap_or(0)
    }

    fn local(&self, local: u32) -> Option<&Partition> {
        self.partitions.get(local as usize)
    }

    /// A group's place in a partition.
    #[must_use]
    pub fn cursor(&self, number: PartitionNumber, group: GroupIndex) -> Option<&Cursor> {
        self.partition(number)?.cursors.iter().find(|cursor| cursor.group == group)
    }
}

/// Removes a range of a map in as many steps as it is long, however large the map is.
fn remove_range<K: Copy + Ord, V>(map: &mut BTreeMap<K, V>, range: RangeInclusive<K>) {
    let keys: Vec<K> = map.range(range).map(|(key, _)| *key).collect();
    for key in keys {
        map.remove(&key);
    }
}

/// Reads bodies that earlier entries put into the log.
pub trait Bodies {
    /// The batches of a run; `None` when they are gone or cannot be read.
    fn chunks(&self, shard: ShardId, run: &Run) -> Option<Vec<Chunk>>;

    /// Whether reading a run will most likely not wait for a disk or a network.
    fn is_near(&self, shard: ShardId, run: &Run) -> bool {
        let _ = (shard, run);
        true
    }
}

/// One message read back from its place.
pub(crate) struct Single {
    /// The message, as a record batch of one.
    pub(crate) batch: RecordBatch,
    /// When it was pushed, unix milliseconds.
    pub(crate) time_ms: u64,
    /// Who pushed it, where that is known.
    pub(crate) sub: Option<ProducerSub>,
}

/// One message, if its batch can be read.
pub(crate) fn single(
    bodies: &dyn Bodies,
    shard: ShardId,
    run: &Run,
    seq: Sequence,
) -> Option<Single> {
    let chunks = bodies.chunks(shard, run)?;
    let holds =
        |chunk: &&Chunk| chunk.first_seq <= seq && seq < chunk.first_seq + u64::from(chunk.count);
    let chunk = chunks.iter().find(holds)?;
    let batch = RecordBatch::parse_trusted(chunk.batch.clone()).ok()?;
    let index = u32::try_from(seq - chunk.first_seq).ok()?;
    let batch = batch.slice(index, index + 1)?;
    Some(Single { batch, time_ms: chunk.time_ms, sub: chunk.sub.clone() })
}
