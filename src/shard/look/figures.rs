//! Looking at numbers: how many messages a queue, a partition and a group have, and how they stand.
//!
//! Some partitions at a time, so that commits go on between; so nothing here is of one moment. What a
//! queue has open is what the group that is furthest behind has open; without a group it is all of it.

use std::collections::BTreeMap;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::shard::look::View;
use crate::shard::look::tour::{STRIDE, Tour};
use crate::state::ShardState;
use crate::state::effect::GroupIndex;
use crate::state::model::{Cursor, Partition};

/// Partitions of one look whose oldest open message is looked for in rows, which the lane waits for;
/// beyond it the oldest time that memory knows stands for it.
const LOOKED_UP_MAX: usize = 64;
/// Partitions that are listed in one look.
const LISTED_MAX: usize = 512;

/// How many messages, by how they stand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// That are kept.
    pub total: u64,
    /// Still to be handed out.
    pub pending: u64,
    /// In consumers' hands.
    pub processing: u64,
    /// That are done.
    pub completed: u64,
    /// Failed at least once, and not settled.
    pub failed: u64,
    /// Dead letters, of all groups.
    pub dead: u64,
}

impl Counts {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.pending += other.pending;
        self.processing += other.processing;
        self.completed += other.completed;
        self.failed += other.failed;
        self.dead += other.dead;
    }
}

/// One group of a queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GroupFigures {
    /// Its messages.
    pub counts: Counts,
    /// Partitions that its consumers hold.
    pub leased_partitions: u64,
    /// Partitions in which it has work.
    pub behind: u64,
    /// When its oldest open message was pushed, unix milliseconds.
    pub oldest_ms: Option<u64>,
}

/// One queue.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct QueueFigures {
    /// Its partitions.
    pub partitions: u64,
    /// Messages ever pushed to them.
    pub pushed: u64,
    /// Messages that are kept.
    pub total: u64,
    /// Dead letters, also of groups that were deleted.
    pub dead: u64,
    /// Per group.
    pub groups: BTreeMap<Box<str>, GroupFigures>,
}

impl QueueFigures {
    /// The group that is furthest behind.
    fn furthest(&self) -> Option<&GroupFigures> {
        self.groups.values().max_by_key(|it| it.counts.pending + it.counts.processing)
    }

    /// Its messages as the group that is furthest behind has them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (total, dead) = (self.total, self.dead);
        match self.furthest() {
            Some(group) => Counts { total, dead, ..group.counts },
            None => Counts { total, pending: total, dead, ..Counts::default() },
        }
    }

    /// When the oldest open message was pushed, unix milliseconds.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.groups.values().filter_map(|it| it.oldest_ms).min()
    }

    /// Partitions that consumers hold, of all groups.
    #[must_use]
    pub fn leased_partitions(&self) -> u64 {
        self.groups.values().map(|it| it.leased_partitions).sum()
    }
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionFigures {
    /// Its number.
    pub number: PartitionNumber,
    /// Its queue.
    pub queue: QueueId,
    /// Its name.
    pub name: Box<str>,
    /// Its messages, as the group that is furthest behind has them.
    pub counts: Counts,
    /// Its messages as each group has them.
    pub groups: Vec<(Box<str>, Counts)>,
    /// Messages ever settled by the group that is furthest behind, whether they are kept or not.
    pub consumed: u64,
    /// When its first message came, unix milliseconds; `None` where that is not kept any more.
    pub first_ms: Option<u64>,
    /// When its oldest open message was pushed, unix milliseconds.
    pub open_ms: Option<u64>,
    /// When its oldest kept message was pushed, unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// When its newest message was pushed, unix milliseconds.
    pub newest_ms: Option<u64>,
}

impl Engine {
    /// All queues in numbers.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn figures(&self) -> Result<BTreeMap<QueueId, QueueFigures>, CommandError> {
        self.add_up(Tour::default()).await
    }

    /// One queue in numbers; all zero where there is none.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn queue_figures(&self, queue: QueueId) -> Result<QueueFigures, CommandError> {
        let mut all = self.add_up(Tour::of_queue(queue)).await?;
        Ok(all.remove(&queue).unwrap_or_default())
    }

    async fn add_up(&self, tour: Tour) -> Result<BTreeMap<QueueId, QueueFigures>, CommandError> {
        let mut sums = Sums { tour, all: BTreeMap::new() };
        while !sums.tour.is_over() {
            let step = self.look(move |view| {
                sums.go_on(view, STRIDE);
                sums
            });
            sums = step.await?;
        }
        Ok(sums.all)
    }

    /// Partitions of a queue in numbers, shard by shard in the order in which they were made, from `offset`
    /// on; and how many there are.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn partition_figures(
        &self,
        queue: QueueId,
        offset: usize,
        limit: usize,
    ) -> Result<(Vec<PartitionFigures>, u64), CommandError> {
        let begin = self.look(move |view| begin_list(view, queue, offset));
        let (mut tour, total) = begin.await?;
        let mut found = Vec::new();
        while found.len() < limit && !tour.is_over() {
            let most = LISTED_MAX.min(limit - found.len());
            let step = self.look(move |view| {
                let mut looked_up = 0;
                tour.go_on(view, most, |state, number, it| {
                    found.push(partition_figures(view, state, number, it, &mut looked_up));
                });
                (tour, found)
            });
            (tour, found) = step.await?;
        }
        Ok((found, total))
    }

    /// How many messages of a queue are open, and in how many partitions: for a group, or in each
    /// partition for the one that is furthest behind there. All partitions count, from what the lane has
    /// in memory.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn queue_depth(
        &self,
        queue: QueueId,
        group: Option<&str>,
    ) -> Result<(u64, u64), CommandError> {
        let mut depth = Depth { tour: Tour::of_queue(queue), open: 0, partitions: 0 };
        while !depth.tour.is_over() {
            let group: Option<Box<str>> = group.map(Into::into);
            let step = self.look(move |view| {
                depth.go_on(view, STRIDE, group.as_deref());
                depth
            });
            depth = step.await?;
        }
        Ok((depth.open, depth.partitions))
    }

    /// Partitions with messages that are kept, of a queue: all of them, or the one of this name.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn filled_partitions(
        &self,
        queue: QueueId,
        name: Option<&str>,
    ) -> Result<Vec<PartitionNumber>, CommandError> {
        let (mut tour, mut found) = (Tour::of_queue(queue), Vec::new());
        while !tour.is_over() {
            let name: Option<Box<str>> = name.map(Into::into);
            let step = self.look(move |view| {
                tour.go_on(view, STRIDE, |_, number, it| {
                    let is_wanted = name.as_ref().is_none_or(|name| *name == it.name);
                    found.extend((is_wanted && it.base_seq < it.next_seq).then_some(number));
                });
                (tour, found)
            });
            (tour, found) = step.await?;
        }
        Ok(found)
    }
}

/// A walk over a queue's partitions without the first `offset`, and how many there are.
fn begin_list(view: &View<'_>, queue: QueueId, offset: usize) -> (Tour, u64) {
    let (mut left, mut place, mut total) = (offset, None, 0);
    let shards = &view.replica.shards;
    for (shard, state) in shards.iter().enumerate() {
        let its = state.partitions_in(queue);
        total += its as u64;
        match left.checked_sub(its) {
            Some(further) => left = further,
            None => place = place.or(Some((shard, std::mem::take(&mut left)))),
        }
    }
    let (shard, at) = place.unwrap_or((shards.len(), 0));
    (Tour::from(queue, shard, at), total)
}

/// Queues that are being added up.
struct Sums {
    tour: Tour,
    all: BTreeMap<QueueId, QueueFigures>,
}

impl Sums {
    fn go_on(&mut self, view: &View<'_>, most: usize) -> usize {
        let mut groups: BTreeMap<(ShardId, GroupIndex), GroupFigures> = BTreeMap::new();
        let (Self { tour, all }, mut looked_up) = (self, 0);
        let passed = tour.go_on(view, most, |state, number, partition| {
            let figures = all.entry(partition.queue).or_default();
            figures.partitions += 1;
            figures.pushed += partition.next_seq;
            figures.total += partition.next_seq - partition.base_seq;
            figures.dead += dead_in(state, number);
            for cursor in &partition.cursors {
                let group = groups.entry((state.shard(), cursor.group)).or_default();
                group.counts.add(&counts_of(state, number, partition, cursor));
                group.leased_partitions += u64::from(cursor.lease.is_some());
                if cursor.next < partition.next_seq {
                    group.behind += 1;
                    let time = time_of(view, state, number, partition, cursor.next, &mut looked_up);
                    group.oldest_ms = [group.oldest_ms, time].into_iter().flatten().min();
                }
            }
        });
        for ((shard, index), its) in groups {
            let state = view.replica.shards.get(usize::from(shard));
            let Some(group) = state.and_then(|state| state.group_at(index)) else { continue };
            let figures = all.entry(group.queue).or_default();
            let sum = figures.groups.entry(group.name.clone()).or_default();
            sum.counts.add(&its.counts);
            sum.leased_partitions += its.leased_partitions;
            sum.behind += its.behind;
            sum.oldest_ms = [sum.oldest_ms, its.oldest_ms].into_iter().flatten().min();
        }
        passed
    }
}

/// A queue's open messages that are being counted.
struct Depth {
    tour: Tour,
    open: u64,
    partitions: u64,
}

impl Depth {
    fn go_on(&mut self, view: &View<'_>, most: usize, group: Option<&str>) {
        let Self { tour, open, partitions } = self;
        tour.go_on(view, most, |state, _, partition| {
            let its_name = |cursor: &&Cursor| {
                state.group_at(cursor.group).is_some_and(|it| group == Some(&*it.name))
            };
            let cursors = partition.cursors.iter();
            let of_group = |cursor: &Cursor| open_of(partition, cursor);
            let its_open = match group {
                None => cursors.map(of_group).max(),
                Some(_) => cursors.filter(its_name).map(of_group).next(),
            };
            // Whoever has not come yet has all of them open.
            let its_open = its_open.unwrap_or(partition.next_seq - partition.base_seq);
            *open += its_open;
            *partitions += u64::from(its_open > 0);
        });
    }
}

/// Dead letters of a partition, also of groups that were deleted.
fn dead_in(state: &ShardState, number: PartitionNumber) -> u64 {
    state.dead_in(number).map(|(_, count)| count).sum()
}

fn open_of(partition: &Partition, cursor: &Cursor) -> u64 {
    let settled = cursor.beyond.as_deref().map_or(&[][..], |beyond| beyond.settled.as_slice());
    let settled: u64 = settled.iter().map(|(first, last)| last - first + 1).sum();
    partition.next_seq.saturating_sub(cursor.next).saturating_sub(settled)
}

fn counts_of(
    state: &ShardState,
    number: PartitionNumber,
    partition: &Partition,
    cursor: &Cursor,
) -> Counts {
    let open = open_of(partition, cursor);
    let held = cursor.lease.as_deref().map_or(0, |lease| {
        let open = cursor.progress().open_ranges(lease.from, lease.to);
        open.iter().map(|(from, to)| to - from).sum::<u64>()
    });
    let total = partition.next_seq - partition.base_seq;
    Counts {
        total,
        pending: open.saturating_sub(held),
        processing: held,
        completed: total.saturating_sub(open),
        failed: cursor.beyond.as_deref().map_or(0, |beyond| beyond.attempts.len() as u64),
        dead: state.dead_counts().get(&(number, cursor.group)).copied().unwrap_or(0),
    }
}

fn time_of(
    view: &View<'_>,
    state: &ShardState,
    number: PartitionNumber,
    partition: &Partition,
    seq: u64,
    looked_up: &mut usize,
) -> Option<u64> {
    if partition.runs.first().is_none_or(|run| run.first_seq > seq) {
        if *looked_up >= LOOKED_UP_MAX {
            return partition.runs.first().map(|run| run.time_ms);
        }
        *looked_up += 1;
    }
    // Rows that cannot be read now cost a figure, nothing else.
    let runs = state.runs(view.kv, number, seq, seq + 1).unwrap_or_default();
    runs.first().map(|run| run.time_ms)
}

fn partition_figures(
    view: &View<'_>,
    state: &ShardState,
    number: PartitionNumber,
    partition: &Partition,
    looked_up: &mut usize,
) -> PartitionFigures {
    let all = partition.cursors.iter().map(|cursor| counts_of(state, number, partition, cursor));
    let names = partition.cursors.iter().map(|cursor| state.group_at(cursor.group));
    let names = names.map(|group| group.map(|it| it.name.clone()).unwrap_or_default());
    let groups = names.zip(all.clone()).collect();
    let dead = dead_in(state, number);
    let total = partition.next_seq - partition.base_seq;
    let none = Counts { total, pending: total, ..Counts::default() };
    let counts = all.max_by_key(|it| it.pending + it.processing).unwrap_or(none);
    let open = counts.pending + counts.processing;
    let has_groups = !partition.cursors.is_empty();
    let is_empty = partition.base_seq == partition.next_seq;
    let mut time = |seq| time_of(view, state, number, partition, seq, looked_up);
    let oldest = if is_empty { None } else { time(partition.base_seq) };
    // Everything before the cursor that is furthest behind is settled for all.
    let behind = partition.cursors.iter().map(|cursor| cursor.next).min();
    let open_ms = match behind.unwrap_or(partition.base_seq) {
        _ if open == 0 => None,
        seq if seq == partition.base_seq => oldest,
        seq => time(seq),
    };
    PartitionFigures {
        first_ms: oldest.filter(|_| partition.base_seq == 0),
        open_ms,
        number,
        queue: partition.queue,
        name: partition.name.clone(),
        counts: Counts { dead, ..counts },
        groups,
        consumed: if has_groups { partition.next_seq.saturating_sub(open) } else { 0 },
        oldest_ms: oldest,
        newest_ms: (!is_empty).then_some(partition.newest_ms),
    }
}
