//! How groups stand: which partitions have work for them, and their counters, kept up with each change.
//!
//! A push must cost the same however many groups a queue has. So a partition knows how many of its
//! cursors have settled everything: a message changes nothing for all others, and each of those few is
//! visited once until it has caught up again. What a group lacks is a difference of two sums, the heads of
//! all partitions and what the group settled, so that nothing is counted per group when messages come.
//! Pure; called by `apply`, `cursors` and `checkpoint`.

use crate::base::place::QueueId;
use crate::state::ShardState;
use crate::state::effect::{GroupIndex, Sequence};
use crate::state::model::{Cursor, Group, Partition, Standing};

/// Stale entries that a ready list may hold beyond the number of its partitions.
const READY_SLACK: usize = 64;

/// What one cursor adds to its group's standing.
fn part_of(cursor: &Cursor, next_seq: Sequence) -> Standing {
    Standing {
        settled: cursor.settled(),
        open_partitions: u64::from(cursor.next < next_seq),
        leased: u64::from(cursor.lease.is_some()),
    }
}

impl Standing {
    fn add(&mut self, part: Self) {
        self.settled += part.settled;
        self.open_partitions += part.open_partitions;
        self.leased += part.leased;
    }

    fn take(&mut self, part: Self) {
        self.settled -= part.settled;
        self.open_partitions -= part.open_partitions;
        self.leased -= part.leased;
    }
}

/// Brings a cursor's place on its group's ready list up to date.
fn list(cursor: &mut Cursor, group: &mut Group, local: u32, next_seq: Sequence) {
    let has_work = cursor.lease.is_none() && cursor.next < next_seq && !cursor.asleep;
    if cursor.ready == has_work {
        return;
    }
    cursor.ready = has_work;
    if has_work {
        group.ready.push_back(local);
        group.ready_count += 1;
    } else {
        group.ready_count -= 1;
    }
}

impl ShardState {
    /// Messages that a group of a queue has not settled here.
    #[must_use]
    pub fn behind(&self, group: &Group) -> u64 {
        self.ends(group.queue).saturating_sub(group.standing.settled)
    }

    /// Messages that ever came into a queue's partitions here.
    #[must_use]
    pub fn ends(&self, queue: QueueId) -> u64 {
        self.ends.get(&queue).copied().unwrap_or(0)
    }

    /// Changes a cursor, and what is counted of it; tells whether there is such a cursor.
    pub(super) fn change_cursor(
        &mut self,
        local: u32,
        group: GroupIndex,
        change: impl FnOnce(&mut Cursor),
    ) -> bool {
        let Some(partition) = self.partitions.get_mut(local as usize) else { return false };
        let next_seq = partition.next_seq;
        let cursor = partition.cursors.iter_mut().find(|cursor| cursor.group == group);
        let (Some(cursor), Some(its)) = (cursor, self.groups.get_mut(group as usize)) else {
            return false;
        };
        let before = part_of(cursor, next_seq);
        if std::mem::take(&mut cursor.asleep) {
            // What changes may have opened the gate: whoever pops next looks again.
            self.sleepers.forget(local, group);
        }
        change(cursor);
        let after = part_of(cursor, next_seq);
        its.standing.take(before);
        its.standing.add(after);
        list(cursor, its, local, next_seq);
        partition.at_end += before.open_partitions as u32;
        partition.at_end -= after.open_partitions as u32;
        self.trim_ready(group);
        true
    }

    /// Gives a partition a cursor, and counts it.
    pub(super) fn add_cursor(&mut self, local: u32, mut cursor: Cursor) {
        let Some(partition) = self.partitions.get_mut(local as usize) else { return };
        let Some(its) = self.groups.get_mut(cursor.group as usize) else { return };
        let part = part_of(&cursor, partition.next_seq);
        its.standing.add(part);
        partition.at_end += u32::from(part.open_partitions == 0);
        list(&mut cursor, its, local, partition.next_seq);
        partition.cursors.push(cursor);
    }

    /// Counts what a partition's row says.
    pub(super) fn count_partition(&mut self, local: u32) {
        let Some(partition) = self.partitions.get_mut(local as usize) else { return };
        let cursors = std::mem::take(&mut partition.cursors);
        partition.at_end = 0;
        for cursor in cursors {
            self.add_cursor(local, cursor);
        }
    }

    /// Messages came into a partition whose head was `before`: they are work for those that had
    /// settled everything.
    pub(super) fn note_arrival(&mut self, local: u32, before: Sequence) {
        let Some(partition) = self.partitions.get_mut(local as usize) else { return };
        if partition.at_end == 0 {
            return;
        }
        partition.at_end = 0;
        let Partition { cursors, next_seq, .. } = partition;
        for cursor in cursors.iter_mut().filter(|cursor| cursor.next >= before) {
            if let Some(its) = self.groups.get_mut(cursor.group as usize) {
                its.standing.open_partitions += 1;
                list(cursor, its, local, *next_seq);
            }
        }
    }

    /// Forgets stale entries at the front of a ready list, and all of them where they pile up.
    fn trim_ready(&mut self, index: GroupIndex) {
        let (partitions, Some(group)) = (&self.partitions, self.groups.get_mut(index as usize))
        else {
            return;
        };
        let is_ready = |it: &u32| {
            let cursors = partitions.get(*it as usize).map(|it| it.cursors.as_slice());
            cursors.unwrap_or_default().iter().any(|it| it.group == index && it.ready)
        };
        while group.ready.front().is_some_and(|front| !is_ready(front)) {
            group.ready.pop_front();
        }
        if group.ready.len() > 2 * group.ready_count + READY_SLACK {
            let mut seen = std::collections::HashSet::new();
            group.ready.retain(|it| is_ready(it) && seen.insert(*it));
        }
    }

    /// A partition that was served without a lease and has more goes behind those that wait.
    pub(super) fn take_turns(&mut self, local: u32, group: GroupIndex) {
        let Some(group) = self.groups.get_mut(group as usize) else { return };
        if group.ready.front() == Some(&local) {
            group.ready.rotate_left(1);
        }
    }
}
