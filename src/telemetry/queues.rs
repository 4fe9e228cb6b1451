//! What this server was asked of each queue, and did: by queue and group, up to a bound.
//!
//! In: one note per request and partition, from the lane. Out: copies of all counters. Queues and groups
//! beyond the bound are counted together. Called by `shard`, read by the HTTP door.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::base::place::QueueId;

/// Queues that are counted one by one: those that something happened to first.
pub const QUEUES_MAX: usize = 1_000;
/// Groups of all those queues that are counted one by one.
pub const GROUPS_MAX: usize = 2_000;
/// The name that what is not counted one by one goes by.
pub const OTHER: &str = "__other__";

/// What became of a message that was pushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PushFate {
    /// It is stored.
    Stored = 0,
    /// It was known already.
    Duplicate = 1,
    /// It was refused.
    Refused = 2,
}

/// Messages pushed, by QoS and by what became of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pushes([[u64; 3]; 3]);

impl Pushes {
    /// Adds messages of a QoS, 0 to 2.
    pub fn add(&mut self, qos: u8, fate: PushFate, count: u64) {
        let cell = self.0.get_mut(usize::from(qos)).and_then(|of| of.get_mut(fate as usize));
        cell.into_iter().for_each(|it| *it += count);
    }

    /// Messages of a QoS, 0 to 2.
    #[must_use]
    pub fn get(&self, qos: u8, fate: PushFate) -> u64 {
        let cell = self.0.get(usize::from(qos)).and_then(|of| of.get(fate as usize));
        cell.copied().unwrap_or(0)
    }

    fn add_all(&mut self, others: &Self) {
        for (own, other) in self.0.iter_mut().flatten().zip(others.0.iter().flatten()) {
            *own += other;
        }
    }
}

/// One group's part of a queue's counters, in messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GroupCount {
    /// Handed to its consumers.
    pub delivered: u64,
    /// Settled as completed.
    pub completed: u64,
    /// Said to have failed.
    pub failed: u64,
    /// Given back.
    pub retried: u64,
    /// Said never to be tried again.
    pub dead: u64,
}

impl GroupCount {
    fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.completed += other.completed;
        self.failed += other.failed;
        self.retried += other.retried;
        self.dead += other.dead;
    }
}

/// One queue's counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct QueueCount {
    /// Messages.
    pub pushes: Pushes,
    /// Requests to push, each counted once for every partition that it touches.
    pub push_requests: u64,
    /// Requests to pop that were answered.
    pub pop_requests: u64,
    /// Of those, answered with nothing.
    pub pop_empty: u64,
    /// Acks, each counted once for every partition that it touches.
    pub ack_requests: u64,
    /// Items of acks that were refused.
    pub ack_refused: u64,
    /// Transactions, each counted once for every push and every group's ack in it.
    pub transactions: u64,
    /// By group; a queue has few, so they are looked through.
    pub groups: Vec<(Box<str>, GroupCount)>,
}

impl QueueCount {
    fn add_numbers(&mut self, other: &Self) {
        self.pushes.add_all(&other.pushes);
        self.push_requests += other.push_requests;
        self.pop_requests += other.pop_requests;
        self.pop_empty += other.pop_empty;
        self.ack_requests += other.ack_requests;
        self.ack_refused += other.ack_refused;
        self.transactions += other.transactions;
    }

    /// The counters of a group; where there is no room for it, of all such.
    fn group(&mut self, name: &str, has_room: bool) -> (&mut GroupCount, bool) {
        let find = |all: &[(Box<str>, _)], name: &str| all.iter().position(|(it, _)| **it == *name);
        let known = find(&self.groups, name);
        let name = if has_room { name } else { OTHER };
        let known = known.or_else(|| find(&self.groups, name));
        let is_new = known.is_none();
        let at = known.unwrap_or(self.groups.len());
        if is_new {
            self.groups.push((name.into(), GroupCount::default()));
        }
        let found = self.groups.get_mut(at);
        // It was found or pushed a moment ago.
        let (_, count) = found.unwrap_or_else(|| unreachable!("a group that was just looked up"));
        (count, is_new)
    }
}

/// A copy of all counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Queues that are counted one by one.
    pub queues: HashMap<QueueId, QueueCount>,
    /// All others together.
    pub others: QueueCount,
    /// Groups among `queues`.
    groups: usize,
}

impl Counts {
    /// Whether a queue is counted by itself, now that something happened to it.
    fn has_own(&self, queue: QueueId) -> bool {
        self.queues.len() < QUEUES_MAX || self.queues.contains_key(&queue)
    }

    fn of(&mut self, queue: QueueId) -> &mut QueueCount {
        match self.has_own(queue) {
            true => self.queues.entry(queue).or_default(),
            false => &mut self.others,
        }
    }
}

/// Counters of all queues.
#[derive(Debug, Default)]
pub struct QueueCounts(Mutex<Counts>);

impl QueueCounts {
    /// Counts something of a queue.
    pub fn note(&self, queue: QueueId, change: impl FnOnce(&mut QueueCount)) {
        change(self.0.lock().of(queue));
    }

    /// Adds messages that were pushed to a queue, by so many requests.
    pub fn note_pushes(&self, queue: QueueId, pushes: &Pushes, requests: u64) {
        self.note(queue, |it| {
            it.pushes.add_all(pushes);
            it.push_requests += requests;
        });
    }

    /// Adds to the counters of a queue's group.
    pub fn note_group(&self, queue: QueueId, group: &str, more: &GroupCount) {
        let mut counts = self.0.lock();
        let is_own = counts.has_own(queue);
        let has_room = is_own && counts.groups < GROUPS_MAX;
        let (count, is_new) = counts.of(queue).group(group, has_room);
        count.add(more);
        counts.groups += usize::from(is_new && is_own);
    }

    /// One queue's counters; `None` while it is not counted by itself.
    #[must_use]
    pub fn get(&self, queue: QueueId) -> Option<QueueCount> {
        self.0.lock().queues.get(&queue).cloned()
    }

    /// A copy of all counters.
    #[must_use]
    pub fn all(&self) -> Counts {
        self.0.lock().clone()
    }

    /// Queues that are gone make room for others; what was counted of them goes to the others.
    pub fn keep(&self, lives: impl Fn(QueueId) -> bool) {
        let mut counts = self.0.lock();
        let Counts { queues, others, groups } = &mut *counts;
        for (_, gone) in queues.extract_if(|queue, _| !lives(*queue)) {
            *groups -= gone.groups.len();
            others.add_numbers(&gone);
            gone.groups.iter().for_each(|(_, it)| others.group(OTHER, false).0.add(it));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(delivered: u64) -> GroupCount {
        GroupCount { delivered, ..GroupCount::default() }
    }

    fn sum(counts: &Counts) -> u64 {
        let all = counts.queues.values().chain([&counts.others]).flat_map(|it| &it.groups);
        all.map(|(_, it)| it.delivered).sum()
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_together_and_nothing_is_lost() {
        let counts = QueueCounts::default();
        let queues = 2 * QUEUES_MAX as u32;
        for queue in 0..queues {
            counts.note(queue, |it| it.pop_requests += 1);
            for group in ["a", "b", "c"] {
                counts.note_group(queue, group, &delivered(1));
            }
        }
        let all = counts.all();
        assert_eq!(all.queues.len(), QUEUES_MAX);
        assert_eq!(all.others.pop_requests, QUEUES_MAX as u64);
        assert_eq!(sum(&all), u64::from(queues) * 3);
        let named = all.queues.values().flat_map(|it| &it.groups).filter(|it| *it.0 != *OTHER);
        assert_eq!(named.count(), GROUPS_MAX);
        counts.keep(|queue| queue >= queues / 4);
        counts.note_group(queues, "late", &delivered(1));
        let kept = counts.all();
        assert_eq!(sum(&kept), sum(&all) + 1);
        assert_eq!(kept.queues.get(&queues).unwrap().groups, [("late".into(), delivered(1))]);
        assert_eq!(kept.others.groups.len(), 1, "{:?}", kept.others.groups);
    }
}
