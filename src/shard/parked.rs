//! Consumers that wait: parked beside the commit loop that will bring their messages.
//!
//! They wait here and not in a task of their own, so that the commit which makes a message visible
//! hands it to a waiting consumer in the very next commit, without a race and without waking
//! anybody for nothing. Pure; called by the lane.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;
use onrush_protocol::name::{GroupName, QueueName};

use crate::shard::command::Pop;

type Line = VecDeque<(u64, Box<Pop>)>;

/// Parked pops by queue and group, first come first served.
#[derive(Debug, Default)]
pub struct Parked {
    lines: HashMap<QueueName, HashMap<GroupName, Line>>,
    deadlines: BTreeSet<(u64, u64, QueueName, GroupName)>,
    next: u64,
    is_closed: bool,
}

impl Parked {
    /// Parks a pop that may wait until `until_us`, behind those that wait longer; gives it back when
    /// nobody may wait any more.
    pub fn park(&mut self, mut pop: Box<Pop>, until_us: u64) -> Option<Box<Pop>> {
        if self.is_closed {
            return Some(pop);
        }
        // It may wait long, and the frame that brought its names should not wait with it.
        pop.queue = pop.queue.detach();
        pop.group = pop.group.detach();
        pop.partition = pop.partition.map(|name| name.detach());
        let ticket = pop.ticket.unwrap_or(self.next);
        if pop.ticket.replace(ticket).is_none() {
            self.next += 1;
        }
        let (queue, group) = (pop.queue.clone(), pop.group.clone());
        self.deadlines.insert((until_us, ticket, queue.clone(), group.clone()));
        let groups = self.lines.entry(queue).or_default();
        let line = groups.entry(group).or_default();
        // Whoever was called and got nothing stands where it stood.
        let at = line.partition_point(|(other, _)| *other < ticket);
        line.insert(at, (ticket, pop));
        None
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How many wait, by queue.
    pub fn counts(&self) -> impl Iterator<Item = (&QueueName, usize)> {
        let lines = self.lines.iter();
        lines.map(|(queue, groups)| (queue, groups.values().map(VecDeque::len).sum()))
    }

    /// The groups of a queue that have somebody waiting.
    pub fn groups(&self, queue: &QueueName) -> Vec<GroupName> {
        let groups = self.lines.get(queue).into_iter().flat_map(HashMap::keys);
        groups.cloned().collect()
    }

    /// How many wait on behalf of a group of a queue.
    #[must_use]
    pub fn count(&self, queue: &str, group: &str) -> u64 {
        let Ok(queue) = queue.parse::<QueueName>() else { return 0 };
        let Ok(group) = group.parse::<GroupName>() else { return 0 };
        let line = self.lines.get(&queue).and_then(|groups| groups.get(&group));
        line.map_or(0, |line| line.len() as u64)
    }

    /// Takes up to `most` pops of a group for which `can_run` holds, longest waiting first. Pops
    /// whose consumer hung up are dropped on the way.
    pub fn take(
        &mut self,
        queue: &QueueName,
        group: &GroupName,
        most: usize,
        can_run: impl Fn(&Pop) -> bool,
    ) -> Vec<Box<Pop>> {
        let mut taken = Vec::new();
        let Some(groups) = self.lines.get_mut(queue) else { return taken };
        let Some(line) = groups.get_mut(group) else { return taken };
        let mut kept = Line::new();
        while let Some((ticket, pop)) = line.pop_front() {
            let gone = pop.reply.is_closed();
            if !gone && (taken.len() == most || !can_run(&pop)) {
                kept.push_back((ticket, pop));
                if taken.len() == most {
                    break;
                }
                continue;
            }
            let until_us = pop.wait_until_us.unwrap_or(0);
            self.deadlines.remove(&(until_us, ticket, queue.clone(), group.clone()));
            if !gone {
                taken.push(pop);
            }
        }
        kept.append(line);
        *line = kept;
        if line.is_empty() {
            groups.remove(group);
            if groups.is_empty() {
                self.lines.remove(queue);
            }
        }
        taken
    }

    /// When the next pop has waited long enough, in the clock's microseconds.
    #[must_use]
    pub fn next_deadline_us(&self) -> Option<u64> {
        self.deadlines.first().map(|(until, ..)| *until)
    }

    /// Takes the pops that have waited long enough.
    pub fn expire(&mut self, now_us: u64) -> Vec<Box<Pop>> {
        let mut expired = Vec::new();
        while self.deadlines.first().is_some_and(|(until, ..)| *until <= now_us) {
            let Some((_, ticket, queue, group)) = self.deadlines.pop_first() else { break };
            let Some(groups) = self.lines.get_mut(&queue) else { continue };
            let Some(line) = groups.get_mut(&group) else { continue };
            if let Some(at) = line.iter().position(|(it, _)| *it == ticket) {
                expired.extend(line.remove(at).map(|(_, pop)| pop));
            }
            if line.is_empty() {
                groups.remove(&group);
            }
            if groups.is_empty() {
                self.lines.remove(&queue);
            }
        }
        expired
    }

    /// Takes everybody, and lets nobody wait from here on.
    pub fn close(&mut self) -> Vec<Box<Pop>> {
        self.is_closed = true;
        self.expire(u64::MAX)
    }
}
