//! What is counted of processes: slots, what they sent that did not go, and how long all that took.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::telemetry::Counter;
use crate::telemetry::latency::Latency;

/// Numbers by a word out of a few.
#[derive(Debug, Default)]
pub struct ByWord(Mutex<BTreeMap<Box<str>, u64>>);

impl ByWord {
    /// Counts one more. For what is rare: it takes a lock.
    pub fn add(&self, word: &str) {
        let mut counts = self.0.lock();
        match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(counts.insert(word.into(), 1)),
        }
    }

    /// All of them, in the order of their words.
    #[must_use]
    pub fn get(&self) -> Vec<(Box<str>, u64)> {
        self.0.lock().iter().map(|(word, count)| (word.clone(), *count)).collect()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct ProcessCounts {
    /// Slots that were evaluated and committed here.
    pub slots: Counter,
    /// Of those, the ones that did not end well, by the code of their error.
    pub failed: ByWord,
    /// Entries of outboxes that went nowhere, by why.
    pub refused: ByWord,
    /// Batches that were handed on with the step that sent them, without being popped.
    pub handed_on: Counter,
    /// Messages of processes that had been there before: none, but for a fault of ours.
    pub duplicates: Counter,
    /// Instances that are worked off now (gauge).
    pub working: Counter,
    /// Time in which the slots of one step were evaluated.
    pub evaluation: Latency,
    /// Time from the end of that until the step was durable.
    pub commit: Latency,
    /// Time from a message's commit to the end of its evaluation, in whole milliseconds.
    pub delay: Latency,
}
