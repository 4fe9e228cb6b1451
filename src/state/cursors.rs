//! Applying what happens to groups and their cursors: made known, leased, settled, moved, dropped.
//!
//! In: one effect. Out: the state with it, its counters and indexes included. Deterministic as all of
//! `apply`, which calls it and nobody else.

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::ShardState;
use crate::state::effect::{GroupIndex, GroupStart, Progress, Sequence};
use crate::state::model::{Cursor, Group, Lease};

impl ShardState {
    pub(super) fn register_group(
        &mut self,
        group: GroupIndex,
        queue: QueueId,
        name: &str,
        start: GroupStart,
    ) {
        if group as usize != self.groups.len() {
            return;
        }
        let name: Box<str> = name.into();
        let (ready, ready_count, standing) = Default::default();
        self.groups.push(Group { queue, name, start, ready, ready_count, standing, live: true });
        self.index_group(group);
        self.changes.touch_group(group);
        for local in self.by_queue.get(&queue).cloned().unwrap_or_default() {
            let Some(partition) = self.partitions.get(local as usize) else { continue };
            let next = match start {
                GroupStart::Beginning => partition.base_seq,
                // With a time, a seek beside it says where it is not behind everything.
                GroupStart::New | GroupStart::Time(_) => partition.next_seq,
            };
            let mut cursor = Cursor::at(next, group);
            if let Some(number) = self.shards.number(self.shard, local) {
                cursor.set_progress(self.progress_at(number, next));
            }
            self.add_cursor(local, cursor);
            self.touch(local);
        }
    }

    /// Makes a group findable by name and queue.
    pub(super) fn index_group(&mut self, index: GroupIndex) {
        let Some(group) = self.groups.get(index as usize).filter(|it| it.live) else { return };
        self.group_names.insert((group.queue, group.name.clone()), index);
        self.by_queue_groups.entry(group.queue).or_default().push(index);
    }

    /// Gives a group a lease on a partition, or takes it away.
    pub(super) fn set_lease(
        &mut self,
        number: PartitionNumber,
        group: GroupIndex,
        lease: Option<Lease>,
    ) {
        let local = self.shards.local(number);
        let mut before = None;
        let is_there = self.change_cursor(local, group, |cursor| {
            before = std::mem::replace(&mut cursor.lease, lease.map(Box::new));
        });
        if !is_there {
            return;
        }
        if let Some(before) = before {
            self.forget_lease(&before, local, group);
        }
        if let Some(lease) = lease {
            self.note_lease(&lease, local, group);
        }
        self.touch(local);
    }

    /// Makes a lease findable by its end and by its token.
    pub(super) fn note_lease(&mut self, lease: &Lease, local: u32, group: GroupIndex) {
        self.timers.insert((lease.until_ms, local, group));
        self.holders.entry(lease.token).or_default().push((local, group));
    }

    pub(super) fn forget_lease(&mut self, lease: &Lease, local: u32, group: GroupIndex) {
        self.timers.remove(&(lease.until_ms, local, group));
        if let Some(holders) = self.holders.get_mut(&lease.token) {
            holders.retain(|holder| *holder != (local, group));
            if holders.is_empty() {
                self.holders.remove(&lease.token);
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        number: PartitionNumber,
        group: GroupIndex,
        progress: &Progress,
        release: bool,
    ) {
        let local = self.shards.local(number);
        if !self.change_cursor(local, group, |cursor| cursor.set_progress(progress.clone())) {
            return;
        }
        if release {
            self.set_lease(number, group, None);
        } else {
            self.touch(local);
            self.take_turns(local, group);
        }
    }

    /// Moves cursors, also back; never before what is kept, never behind what is there.
    pub(super) fn seek(&mut self, group: GroupIndex, moves: &[(PartitionNumber, Sequence)]) {
        for (number, next) in moves {
            let local = self.shards.local(*number);
            self.set_lease(*number, group, None);
            let Some(partition) = self.partition(*number) else { continue };
            let next = (*next).clamp(partition.base_seq, partition.next_seq);
            let progress = self.progress_at(*number, next);
            if self.change_cursor(local, group, |cursor| cursor.set_progress(progress)) {
                self.touch(local);
            }
        }
    }

    /// The progress of a group that goes on with a message: what was deleted is settled.
    pub(super) fn progress_at(&self, number: PartitionNumber, next: Sequence) -> Progress {
        let mut progress = Progress { next, ..Progress::default() };
        self.erased.lay_over(number, &mut progress);
        progress
    }

    /// Takes a group's cursors away. Its name stays with its index, for its dead letters.
    pub(super) fn drop_group(&mut self, index: GroupIndex) {
        let Some(group) = self.groups.get_mut(index as usize).filter(|it| it.live) else { return };
        let (queue, name) = (group.queue, group.name.clone());
        group.end();
        self.group_names.remove(&(queue, name));
        self.changes.touch_group(index);
        if let Some(groups) = self.by_queue_groups.get_mut(&queue) {
            groups.retain(|it| *it != index);
            if groups.is_empty() {
                self.by_queue_groups.remove(&queue);
            }
        }
        for local in self.by_queue.get(&queue).cloned().unwrap_or_default() {
            let Some(partition) = self.partitions.get_mut(local as usize) else { continue };
            let at = partition.cursors.iter().position(|cursor| cursor.group == index);
            let Some(cursor) = at.map(|at| partition.cursors.remove(at)) else { continue };
            partition.at_end -= u32::from(cursor.next >= partition.next_seq);
            if cursor.asleep {
                self.sleepers.forget(local, index);
            }
            if let Some(lease) = cursor.lease {
                self.forget_lease(&lease, local, index);
            }
            self.touch(local);
        }
    }
}
