//! Trace events: what consumers say that they did with a message.
//!
//! All events of a store stand in the catalog's shard, in memory and as rows. They are bounded in
//! number and bytes, in all and for one message and one name, and the oldest go first; so a name or a
//! message that is traced without end costs no more than its share. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::base::place::PartitionNumber;
use crate::state::effect::Sequence;

/// Events that are kept.
pub const EVENTS_MAX: usize = 50_000;
/// Bytes of their data that are kept.
pub const BYTES_MAX: usize = 32 << 20;
/// Events of one message that are kept.
pub const EVENTS_PER_MESSAGE: usize = 200;
/// Events of one name that are kept.
pub const EVENTS_PER_NAME: usize = 10_000;
/// Names of one event.
pub const NAMES_MAX: usize = 16;
/// Bytes of one event's data.
pub const DATA_BYTES_MAX: usize = 64 << 10;

/// One event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceEvent {
    /// Its id.
    pub id: [u8; 16],
    /// The message's partition.
    pub partition: PartitionNumber,
    /// The message's sequence.
    pub seq: Sequence,
    /// When it was told, unix milliseconds.
    pub time_ms: u64,
    /// The message's id as its consumer names it.
    pub transaction_id: Box<str>,
    /// The message's queue.
    pub queue: Box<str>,
    /// The name of the message's partition.
    pub partition_name: Box<str>,
    /// Who told it, possibly nobody by name.
    pub group: Box<str>,
    /// What kind it is.
    pub kind: Box<str>,
    /// The names that it can be found by.
    pub names: Vec<Box<str>>,
    /// What was told, as JSON.
    pub data: Bytes,
}

impl TraceEvent {
    fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| name.len()).sum();
        // About what it costs beside its data.
        200 + self.data.len() + names + self.transaction_id.len()
    }
}

/// Number of an event in the order in which they came.
pub type EventNumber = u64;

/// Events of one name.
#[derive(Clone, Debug, Default)]
struct Name {
    numbers: VecDeque<EventNumber>,
}

/// All events that are kept.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    events: BTreeMap<EventNumber, Arc<TraceEvent>>,
    by_message: HashMap<(PartitionNumber, Sequence), VecDeque<EventNumber>>,
    by_name: BTreeMap<Box<str>, Name>,
    bytes: usize,
    next: EventNumber,
}

/// A name in numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NameFigures {
    /// The name.
    pub name: Box<str>,
    /// Its events.
    pub events: u64,
    /// The messages that they are about.
    pub messages: u64,
    /// When the last one was told, unix milliseconds.
    pub last_ms: u64,
}

impl Traces {
    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event as the newest; returns the numbers of it and of those that go for it.
    pub(in crate::state) fn add(&mut self, event: TraceEvent) -> (EventNumber, Vec<EventNumber>) {
        let number = self.next;
        self.put(number, event);
        let mut gone = Vec::new();
        if let Some(event) = self.events.get(&number).cloned() {
            let message = self.by_message.get(&(event.partition, event.seq));
            gone.extend(surplus(message, EVENTS_PER_MESSAGE));
            for name in &event.names {
                let name = self.by_name.get(name).map(|it| &it.numbers);
                gone.extend(surplus(name, EVENTS_PER_NAME));
            }
        }
        gone.iter().for_each(|old| self.remove(*old));
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.events.keys().next().copied() else { break };
            self.remove(oldest);
            gone.push(oldest);
        }
        (number, gone)
    }

    /// Lets go of events older than `before_ms`; returns their numbers.
    pub(in crate::state) fn expire(&mut self, before_ms: u64) -> Vec<EventNumber> {
        let old = self.events.iter().take_while(|(_, event)| event.time_ms < before_ms);
        let old: Vec<EventNumber> = old.map(|(number, _)| *number).collect();
        old.iter().for_each(|number| self.remove(*number));
        old
    }

    /// Takes an event as a row says it.
    pub(in crate::state) fn put(&mut self, number: EventNumber, event: TraceEvent) {
        self.next = self.next.max(number + 1);
        self.bytes += event.bytes();
        self.by_message.entry((event.partition, event.seq)).or_default().push_back(number);
        for name in &event.names {
            self.by_name.entry(name.clone()).or_default().numbers.push_back(number);
        }
        self.events.insert(number, Arc::new(event));
    }

    pub(in crate::state) fn get(&self, number: EventNumber) -> Option<&Arc<TraceEvent>> {
        self.events.get(&number)
    }

    fn remove(&mut self, number: EventNumber) {
        let Some(event) = self.events.remove(&number) else { return };
        self.bytes = self.bytes.saturating_sub(event.bytes());
        let message = (event.partition, event.seq);
        if let Some(numbers) = self.by_message.get_mut(&message) {
            numbers.retain(|it| *it != number);
            if numbers.is_empty() {
                self.by_message.remove(&message);
            }
        }
        for name in &event.names {
            let Some(numbers) = self.by_name.get_mut(name).map(|it| &mut it.numbers) else {
                continue;
            };
            // The oldest of all is the oldest of its name.
            match numbers.front() == Some(&number) {
                true => drop(numbers.pop_front()),
                false => numbers.retain(|it| *it != number),
            }
            if numbers.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// The events of a message, oldest first.
    pub fn of_message(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> impl Iterator<Item = &Arc<TraceEvent>> {
        let numbers = self.by_message.get(&(partition, seq)).into_iter().flatten();
        numbers.filter_map(|number| self.events.get(number))
    }

    /// The events of a name, newest first, and how many there are.
    #[must_use]
    pub fn of_name(&self, name: &str, offset: usize, limit: usize) -> (Vec<Arc<TraceEvent>>, u64) {
        let Some(name) = self.by_name.get(name) else { return (Vec::new(), 0) };
        let page = name.numbers.iter().rev().skip(offset).take(limit);
        let page = page.filter_map(|number| self.events.get(number).cloned()).collect();
        (page, name.numbers.len() as u64)
    }

    /// A page of names, the one that was used last first, and how many there are.
    #[must_use]
    pub fn names(&self, offset: usize, limit: usize) -> (Vec<NameFigures>, u64) {
        let last = |name: &Name| name.numbers.back().copied().unwrap_or(0);
        let mut all: Vec<(EventNumber, &Box<str>, &Name)> =
            self.by_name.iter().map(|(text, name)| (last(name), text, name)).collect();
        all.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let page = all.iter().skip(offset).take(limit).map(|(newest, text, name)| {
            let about = |number: &EventNumber| {
                self.events.get(number).map(|event| (event.partition, event.seq))
            };
            let messages: hashbrown::HashSet<_> = name.numbers.iter().filter_map(about).collect();
            NameFigures {
                name: (*text).clone(),
                events: name.numbers.len() as u64,
                messages: messages.len() as u64,
                last_ms: self.events.get(newest).map_or(0, |event| event.time_ms),
            }
        });
        (page.collect(), all.len() as u64)
    }
}

fn surplus(numbers: Option<&VecDeque<EventNumber>>, most: usize) -> Option<EventNumber> {
    numbers.filter(|it| it.len() > most)?.front().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, names: &[&str], bytes: usize) -> TraceEvent {
        TraceEvent {
            id: [1; 16],
            partition: 3,
            seq,
            time_ms: 1_000 + seq,
            transaction_id: "t".into(),
            queue: "q".into(),
            partition_name: "p".into(),
            group: "g".into(),
            kind: "info".into(),
            names: names.iter().map(|name| Box::from(*name)).collect(),
            data: vec![b'1'; bytes].into(),
        }
    }

    #[test]
    fn a_message_keeps_its_newest_events_only() {
        let mut traces = Traces::default();
        for round in 0..EVENTS_PER_MESSAGE + 5 {
            let (_, gone) = traces.add(event(7, &[], 1));
            assert_eq!(gone.len(), usize::from(round >= EVENTS_PER_MESSAGE));
        }
        assert_eq!(traces.of_message(3, 7).count(), EVENTS_PER_MESSAGE);
        assert_eq!(traces.len(), EVENTS_PER_MESSAGE);
    }

    #[test]
    fn bytes_are_bounded_and_the_oldest_go_first() {
        let mut traces = Traces::default();
        for seq in 0..1_000 {
            traces.add(event(seq, &["a", "b"], DATA_BYTES_MAX));
        }
        assert!(traces.bytes <= BYTES_MAX && traces.len() < 600);
        assert_eq!(traces.of_message(3, 0).count(), 0);
        assert_eq!(traces.of_message(3, 999).count(), 1);
        let (page, total) = traces.of_name("a", 1, 2);
        assert_eq!((page.len(), total), (2, traces.len() as u64));
        assert_eq!(page[0].seq, 998, "newest first");
    }

    #[test]
    fn names_are_listed_by_their_last_use_with_their_figures() {
        let mut traces = Traces::default();
        for (seq, name) in [(1, "old"), (2, "new"), (3, "old"), (4, "new"), (4, "new")] {
            traces.add(event(seq, &[name], 1));
        }
        let (page, total) = traces.names(0, 1);
        assert_eq!(total, 2);
        assert_eq!(
            page,
            [NameFigures { name: "new".into(), events: 3, messages: 2, last_ms: 1_004 }]
        );
        assert_eq!(traces.expire(1_003), [0, 1]);
        assert_eq!(traces.names(0, 9).0[1].events, 1);
    }
}
