//! Looking at dead letters: a page of them, newest failure first; the next ones for a job; one
//! message's.
//!
//! The lane says which groups have any, how many, and what it knows newer than rows. The rows, which
//! may be many, and the letters themselves are read beside the lane, shard by shard in one merge, so a
//! page costs what it shows and skips and nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use onrush_protocol::name::{GroupName, PartitionName};

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::log::Extent;
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::shard::look::tour::STRIDE;
use crate::shard::look::{View, beside};
use crate::state::ShardState;
use crate::state::care::graves::{DeadKey, DeadPlace, IndexKey, scan_index};
use crate::state::care::job::LetterKey;
use crate::state::codec;
use crate::state::effect::{DeadLetter, GroupIndex, Sequence};
use crate::state::kv::{Kv, KvError, Scan};

/// Rows of one source that are read at a time.
const CHUNK: usize = 256;
/// Letters that are counted behind a page, at most.
const COUNTED_MAX: u64 = 100_000;
/// Groups of partitions that one look for a job's next letters passes.
const PASSED_MAX: usize = 20_000;

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// Of this queue; `None` = of all.
    pub queue: Option<QueueId>,
    /// Of this group.
    pub group: Option<GroupName>,
    /// Of this partition.
    pub partition: Option<PartitionName>,
    /// That failed no earlier, unix milliseconds.
    pub from_ms: Option<u64>,
    /// That failed no later, unix milliseconds.
    pub to_ms: Option<u64>,
}

/// A dead letter with its names.
#[derive(Clone, Debug)]
pub struct ShownLetter {
    /// The queue's number.
    pub queue: QueueId,
    /// The queue's name.
    pub queue_name: Box<str>,
    /// The partition's name.
    pub partition_name: Box<str>,
    /// The group's name.
    pub group_name: Box<str>,
    /// The letter.
    pub letter: DeadLetter,
}

/// A letter for a job.
#[derive(Clone, Copy, Debug)]
pub struct NextLetter {
    /// Which one.
    pub key: DeadKey,
    /// Where it lies.
    pub place: DeadPlace,
    /// Whether its message is no longer in its partition, or no longer its group's to open.
    pub is_gone: bool,
}

/// A page of dead letters.
#[derive(Clone, Debug, Default)]
pub struct LetterPage {
    /// Newest failure first.
    pub letters: Vec<ShownLetter>,
    /// How many there are in all, where that is known.
    pub total: Option<u64>,
    /// Whether there are more behind this page.
    pub has_more: bool,
}

/// One group with letters, and what the lane knows of them.
struct Source {
    shard: ShardId,
    group: GroupIndex,
    recent: BTreeMap<IndexKey, DeadPlace>,
    /// Letters whose rows are not to be believed.
    overlaid: BTreeSet<DeadKey>,
    stale: BTreeSet<IndexKey>,
}

/// A letter that was found, by rank.
type Found = (Reverse<(u64, u32, u64)>, usize);

impl Engine {
    /// A page of dead letters, newest failure first, leaving out `offset`.
    ///
    /// # Errors
    /// [`CommandError`] when rows cannot be read or the engine stops.
    pub async fn dead_letters(
        self: &Arc<Self>,
        filter: LetterFilter,
        offset: usize,
        limit: usize,
    ) -> Result<LetterPage, CommandError> {
        let asked = filter.clone();
        let mut wanted = self.look(move |view| partitions_called(view, &asked)).await?;
        let (mut sources, mut known) = (Vec::new(), 0);
        for shard in 0..self.shards().get() {
            let asked = filter.clone();
            let step = self.look(move |view| {
                if let Some(state) = view.replica.shards.get(usize::from(shard)) {
                    known += add_sources(state, &asked, &wanted, &mut sources);
                }
                (sources, known, wanted)
            });
            (sources, known, wanted) = step.await?;
        }
        let kv = self.rows();
        let range = filter.clone();
        let read = beside(move || page(&*kv, sources, &range, &wanted, offset, limit)).await?;
        let (places, counted) = read.map_err(|error| CommandError::Decide(error.into()))?;
        let is_bounded = filter.from_ms.is_some() || filter.to_ms.is_some();
        let seen = (offset + places.len()) as u64;
        let total = if is_bounded { counted } else { Some(known) };
        let has_more = total.is_none_or(|total| total > seen) && !places.is_empty();
        let letters = self.read_letters(places.iter().map(|it| (it.0, it.1)).collect()).await?;
        Ok(LetterPage { letters, total, has_more })
    }

    /// How many partitions have dead letters. Looks at some at a time.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn dead_partitions(&self) -> Result<u64, CommandError> {
        let mut count = 0;
        for shard in 0..self.shards().get() {
            let mut from = Some(0);
            while let Some(first) = from.take() {
                let step = self.look(move |view| dead_partitions(view, shard, first));
                let (some, next) = step.await?;
                (count, from) = (count + some, next);
            }
        }
        Ok(count)
    }

    /// Reads letters where they lie, with their names; those that moved or went meanwhile are asked
    /// for again or left out.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn read_letters(
        self: &Arc<Self>,
        places: Vec<(DeadKey, DeadPlace)>,
    ) -> Result<Vec<ShownLetter>, CommandError> {
        let engine = Arc::clone(self);
        let keys: Vec<DeadKey> = places.iter().map(|(key, _)| *key).collect();
        let letters = beside(move || {
            let read = places.iter().map(|(key, place)| engine.read_letter(key.0, place));
            read.collect::<Vec<Option<DeadLetter>>>()
        });
        let letters = letters.await?;
        let named = self.look(move |view| {
            let pairs = keys.into_iter().zip(letters);
            pairs.filter_map(|(key, letter)| shown(view, key, letter?)).collect::<Vec<_>>()
        });
        named.await
    }

    /// Reads one letter. Waits for the disk or the network.
    fn read_letter(&self, number: PartitionNumber, place: &DeadPlace) -> Option<DeadLetter> {
        let shard = self.count.of_partition(number);
        let extent = Extent { position: place.position, len: place.len };
        codec::decode_dead(self.log.body(shard, extent).ok()?).ok()
    }

    /// The letters of one message, with their groups' names.
    ///
    /// # Errors
    /// [`CommandError`] when rows cannot be read or the engine stops.
    pub async fn letters_of(
        self: &Arc<Self>,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> Result<Vec<ShownLetter>, CommandError> {
        let places = self.look(move |view| letters_of(view, partition, seq)).await?;
        let places = places.map_err(|error| CommandError::Decide(error.into()))?;
        self.read_letters(places).await
    }

    /// The next letters for a job, from a place on, in the order of jobs; and where it goes on, `None`
    /// at the end. Letters that failed after `until_ms` are not among them.
    ///
    /// # Errors
    /// As [`Self::dead_letters`].
    pub async fn next_letters(
        &self,
        filter: LetterFilter,
        from: Option<LetterKey>,
        until_ms: u64,
        most: usize,
    ) -> Result<(Vec<NextLetter>, Option<LetterKey>), CommandError> {
        let found =
            self.look(move |view| next_letters(view, &filter, from, until_ms, most)).await?;
        found.map_err(|error| CommandError::Decide(error.into()))
    }
}

fn shown(view: &View<'_>, key: DeadKey, letter: DeadLetter) -> Option<ShownLetter> {
    let (number, group, _) = key;
    let shard = usize::from(view.replica.count().of_partition(number));
    let state = view.replica.shards.get(shard)?;
    let partition = state.partition(number)?;
    let queue = view.replica.catalog.catalog().get(partition.queue)?;
    Some(ShownLetter {
        queue: queue.id,
        queue_name: queue.name.clone(),
        partition_name: partition.name.clone(),
        group_name: state.group_at(group)?.name.clone(),
        letter,
    })
}

fn letters_of(
    view: &View<'_>,
    number: PartitionNumber,
    seq: Sequence,
) -> Result<Vec<(DeadKey, DeadPlace)>, KvError> {
    let shard = usize::from(view.replica.count().of_partition(number));
    let mut found = Vec::new();
    let Some(state) = view.replica.shards.get(shard) else { return Ok(found) };
    // Also those of groups that were deleted.
    for (group, _) in state.dead_in(number) {
        let key = (number, group, seq);
        found.extend(state.dead_at(view.kv, key)?.map(|place| (key, place)));
    }
    Ok(found)
}

/// Partitions of a shard with dead letters from a number on, as many as one look passes; and the number
/// to go on with.
fn dead_partitions(
    view: &View<'_>,
    shard: ShardId,
    from: PartitionNumber,
) -> (u64, Option<PartitionNumber>) {
    let Some(state) = view.replica.shards.get(usize::from(shard)) else { return (0, None) };
    let (mut found, mut last) = (0, None);
    for (passed, (number, _)) in (0..).zip(state.dead_counts().range((from, 0)..).map(|it| *it.0)) {
        if last == Some(number) {
            continue;
        }
        if passed >= STRIDE {
            return (found, Some(number));
        }
        (found, last) = (found + 1, Some(number));
    }
    (found, None)
}

fn is_asked(state: &ShardState, group: GroupIndex, filter: &LetterFilter) -> bool {
    // Also of a group that was deleted: its letters outlive it. Those of a deleted queue are gone.
    let Some(group) = state.group_at(group) else { return false };
    filter.queue.is_none_or(|queue| group.queue == queue)
        && filter.group.as_ref().is_none_or(|name| *name.as_str() == *group.name)
}

/// Partitions called so, of the queue or of all.
fn partitions_called(view: &View<'_>, filter: &LetterFilter) -> Option<BTreeSet<PartitionNumber>> {
    let name = filter.partition.as_ref()?;
    let (count, key) = (view.replica.count(), view.replica.key());
    let queues = view.replica.catalog.catalog().iter().map(|queue| queue.id);
    let queues = queues.filter(|id| filter.queue.is_none_or(|queue| *id == queue));
    let found = queues.filter_map(|queue| {
        let hash = key.place(queue, name.as_str());
        view.replica.shards.get(usize::from(count.of_hash(hash)))?.find(queue, name.as_str(), hash)
    });
    Some(found.collect())
}

type Wanted = Option<BTreeSet<PartitionNumber>>;

/// Adds the groups of a shard that have letters that are asked for; tells how many letters.
fn add_sources(
    state: &ShardState,
    filter: &LetterFilter,
    wanted: &Wanted,
    sources: &mut Vec<Source>,
) -> u64 {
    let totals = state.dead_totals().iter().filter(|(it, _)| is_asked(state, **it, filter));
    let mut groups: BTreeMap<GroupIndex, Source> = BTreeMap::new();
    let mut known = 0;
    for (group, total) in totals {
        known += match wanted {
            None => *total,
            Some(wanted) => {
                let count = |number| state.dead_counts().get(&(number, *group)).copied();
                wanted.iter().filter_map(|number| count(*number)).sum()
            }
        };
        groups.insert(*group, Source::new(state.shard(), *group));
    }
    for (key, place) in state.recent_dead() {
        let Some(source) = groups.get_mut(&key.1) else { continue };
        source.overlaid.insert(*key);
        source.recent.extend(place.map(|place| (IndexKey::new(*key, place.failed_ms), place)));
    }
    for index in state.stale_dead() {
        if let Some(source) = groups.get_mut(&index.group) {
            source.stale.insert(*index);
        }
    }
    sources.extend(groups.into_values());
    known
}

impl Source {
    fn new(shard: ShardId, group: GroupIndex) -> Self {
        let (recent, overlaid, stale) = Default::default();
        Self { shard, group, recent, overlaid, stale }
    }
}

/// One source being read, newest first.
struct Reading<'a> {
    source: &'a Source,
    kv: &'a dyn Kv,
    chunk: std::collections::VecDeque<(IndexKey, DeadPlace)>,
    next: Option<IndexKey>,
}

impl Reading<'_> {
    fn pop(&mut self) -> Result<Option<(IndexKey, DeadPlace)>, KvError> {
        if self.chunk.is_empty() {
            self.fill()?;
        }
        Ok(self.chunk.pop_front())
    }

    fn fill(&mut self) -> Result<(), KvError> {
        while let (true, Some(from)) = (self.chunk.is_empty(), self.next.take()) {
            let (mut rows, mut last) = (Vec::new(), None);
            scan_index(self.kv, self.source.shard, from, &mut |at, place| {
                if rows.len() == CHUNK {
                    last = Some(at);
                    return Scan::Stop;
                }
                rows.push((at, place));
                Scan::Continue
            })?;
            let Source { recent, overlaid, stale, .. } = self.source;
            let is_true = |at: &IndexKey| !overlaid.contains(&at.letter()) && !stale.contains(at);
            let rows = rows.into_iter().filter(|(at, _)| is_true(at));
            let newer = recent.range(from..).take_while(|(at, _)| last.is_none_or(|it| **at < it));
            let mut all: Vec<_> = rows.chain(newer.map(|(at, place)| (*at, *place))).collect();
            all.sort_unstable_by_key(|(at, _)| *at);
            self.chunk.extend(all);
            self.next = last;
        }
        Ok(())
    }
}

type Places = Vec<(DeadKey, DeadPlace, IndexKey)>;

/// A page of places, and how many there are in the range where that is known.
fn page(
    kv: &dyn Kv,
    sources: Vec<Source>,
    filter: &LetterFilter,
    wanted: &Wanted,
    offset: usize,
    limit: usize,
) -> Result<(Places, Option<u64>), KvError> {
    let newest = filter.to_ms.unwrap_or(u64::MAX);
    let oldest = filter.from_ms.unwrap_or(0);
    let start = |group| IndexKey::new((PartitionNumber::MAX, group, Sequence::MAX), newest);
    let mut readings: Vec<Reading<'_>> = sources
        .iter()
        .map(|source| Reading {
            source,
            kv,
            chunk: Default::default(),
            next: Some(start(source.group)),
        })
        .collect();
    let mut heads: BinaryHeap<Found> = BinaryHeap::new();
    let mut ready: Vec<Option<(IndexKey, DeadPlace)>> = Vec::new();
    for (at, reading) in readings.iter_mut().enumerate() {
        let next = reading.pop()?;
        heads.extend(next.map(|(key, _)| (Reverse(key.rank()), at)));
        ready.push(next);
    }
    let (mut places, mut seen) = (Places::new(), 0_u64);
    let is_bounded = filter.from_ms.is_some() || filter.to_ms.is_some();
    while let Some((_, at)) = heads.pop() {
        let Some((key, place)) = ready.get_mut(at).and_then(Option::take) else { continue };
        if key.failed_ms() < oldest {
            continue;
        }
        if let Some(reading) = readings.get_mut(at) {
            let next = reading.pop()?;
            heads.extend(next.map(|(key, _)| (Reverse(key.rank()), at)));
            if let Some(slot) = ready.get_mut(at) {
                *slot = next;
            }
        }
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&key.letter().0)) {
            continue;
        }
        seen += 1;
        if seen > offset as u64 && places.len() < limit {
            places.push((key.letter(), place, key));
        }
        let is_full = places.len() >= limit;
        if is_full && (!is_bounded || seen >= offset as u64 + limit as u64 + COUNTED_MAX) {
            return Ok((places, None));
        }
    }
    Ok((places, Some(seen)))
}

/// The place behind a letter.
fn behind((partition, group, seq): LetterKey) -> LetterKey {
    (partition, group, seq.saturating_add(1))
}

type Next = (Vec<NextLetter>, Option<LetterKey>);

fn next_letters(
    view: &View<'_>,
    filter: &LetterFilter,
    from: Option<LetterKey>,
    until_ms: u64,
    most: usize,
) -> Result<Next, KvError> {
    let wanted = partitions_called(view, filter);
    let count = view.replica.count();
    let first = from.map_or(0, |(number, ..)| count.of_partition(number));
    let (mut found, mut passed) = (Vec::new(), 0);
    for state in view.replica.shards.iter().skip(usize::from(first)) {
        let start = from.filter(|it| count.of_partition(it.0) == state.shard());
        let start = start.unwrap_or((0, 0, 0));
        for (number, group) in state.dead_counts().range((start.0, start.1)..).map(|(it, _)| *it) {
            passed += 1;
            if found.len() >= most || passed > PASSED_MAX {
                return Ok((found, Some((number, group, 0))));
            }
            let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(&number));
            if !is_wanted || !is_asked(state, group, filter) {
                continue;
            }
            let seq = if (number, group) == (start.0, start.1) { start.2 } else { 0 };
            let room = most - found.len();
            let some = state.dead_from(view.kv, (number, group, seq), room)?;
            let is_more = some.len() == room;
            let last = some.last().map(|(key, _)| behind(*key));
            let base = state.partition(number).map_or(Sequence::MAX, |it| it.base_seq);
            let in_time = some.into_iter().filter(|(_, place)| place.failed_ms <= until_ms);
            let has_ended = state.group_at(group).is_none_or(|it| !it.live);
            found.extend(in_time.map(|(key, place)| {
                let is_gone = has_ended || key.2 < base || state.erased().has(number, key.2);
                NextLetter { key, place, is_gone }
            }));
            if let (true, Some(next)) = (is_more, last) {
                return Ok((found, Some(next)));
            }
        }
    }
    Ok((found, None))
}
