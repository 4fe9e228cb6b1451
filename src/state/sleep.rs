//! Partitions that have work for a group whose time has not come: a failed message waits for its
//! delay, a pushed one for the queue's, a partition for its window to close.
//!
//! Why this is not in the log: when a gate opens depends on the queue's options, which may change at
//! any moment and which `apply` does not know, and on the clock, which `apply` must not know. So a
//! gate is found by whoever decides a pop, against the options and the time of that moment, and is
//! never an effect. What stays behind is only a hint for this engine: *do not look at this partition
//! for this group before T*. The hint may be lost (a restart, a commit that failed) or be too early;
//! then the next pop looks, finds the same gate and sleeps again. It may never be too late: whatever
//! can open a gate earlier takes the hint away, which is a change of the group's progress or lease, a
//! trim, or new options of the queue. A push cannot: it makes no older message younger, and no window
//! close sooner. What has to be durable of a gate, the delay of a failed message, is a time in the
//! group's progress, decided once.
//!
//! A sleeping partition is in no ready list, so that a million of them cost a pop nothing; each is
//! looked at once when it falls asleep and once when it wakes. The lane wakes those that are due, and
//! the consumers that wait for them.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::ShardState;
use crate::state::effect::GroupIndex;

/// A partition that a group is not to look at before a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sleeper {
    /// The partition.
    pub partition: PartitionNumber,
    /// The group.
    pub group: GroupIndex,
    /// Until when, unix milliseconds.
    pub until_ms: u64,
}

/// All that sleep, by local index and group.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    by_time: BTreeSet<(u64, u32, GroupIndex)>,
    until: HashMap<(u32, GroupIndex), u64, foldhash::fast::RandomState>,
}

impl Sleepers {
    fn add(&mut self, local: u32, group: GroupIndex, until_ms: u64) {
        self.forget(local, group);
        self.until.insert((local, group), until_ms);
        self.by_time.insert((until_ms, local, group));
    }

    pub(super) fn forget(&mut self, local: u32, group: GroupIndex) {
        if let Some(until_ms) = self.until.remove(&(local, group)) {
            self.by_time.remove(&(until_ms, local, group));
        }
    }

    fn first_due(&self, now_ms: u64) -> Option<(u32, GroupIndex)> {
        let (until_ms, local, group) = self.by_time.first()?;
        (*until_ms <= now_ms).then_some((*local, *group))
    }

    /// Everything in it, for tests of the whole.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, GroupIndex)> + '_ {
        assert_eq!(self.by_time.len(), self.until.len());
        self.by_time.iter().map(|(_, local, group)| (*local, *group))
    }
}

impl ShardState {
    /// When the first sleeper is due, unix milliseconds.
    #[must_use]
    pub fn next_waking_ms(&self) -> Option<u64> {
        self.sleepers.by_time.first().map(|(until_ms, ..)| *until_ms)
    }

    /// Takes a partition off a group's ready list until its time comes. One that has no work for the
    /// group any more, or that somebody holds, is left as it is.
    pub fn put_to_sleep(&mut self, sleeper: Sleeper) {
        let Sleeper { partition, group, until_ms } = sleeper;
        let local = self.shards.local(partition);
        let cursors = self.local(local).map_or(&[][..], |partition| partition.cursors.as_slice());
        let cursor = cursors.iter().find(|cursor| cursor.group == group);
        if !cursor.is_some_and(|cursor| cursor.ready || cursor.asleep) {
            return;
        }
        self.change_cursor(local, group, |cursor| cursor.asleep = true);
        self.sleepers.add(local, group, until_ms);
    }

    /// Wakes sleepers that are due, `most` at a time: they are ready again. Adds their queues.
    pub fn wake_due(&mut self, now_ms: u64, most: usize, queues: &mut BTreeSet<QueueId>) {
        for _ in 0..most {
            let Some((local, group)) = self.sleepers.first_due(now_ms) else { return };
            self.sleepers.forget(local, group);
            queues.extend(self.local(local).map(|partition| partition.queue));
            self.change_cursor(local, group, |_| {});
        }
    }

    /// Wakes all that sleeps of a queue: its options are others now.
    pub fn wake_queue(&mut self, queue: QueueId) {
        if self.sleepers.until.is_empty() {
            return;
        }
        let sleeps = |(local, _): &&(u32, GroupIndex)| {
            self.local(*local).is_some_and(|partition| partition.queue == queue)
        };
        let of_queue: Vec<_> = self.sleepers.until.keys().filter(sleeps).copied().collect();
        for (local, group) in of_queue {
            self.change_cursor(local, group, |_| {});
        }
    }
}
