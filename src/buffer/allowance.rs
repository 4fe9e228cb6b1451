//! What may still come into a queue that holds only so many messages, for producers who are answered
//! before anybody decides.
//!
//! A durable push is held against the queue's limit when it is decided, with the state before it. One
//! at QoS 0 is answered when its ring has it, so it is held against the count as of the last commit
//! and everything else that was so answered and is not committed: it takes its place here and gives it
//! back when it leaves its ring. In: counts from the lane. Out: places, or a refusal. Queues without a
//! limit are not here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::base::place::QueueId;

/// The queues that have a limit.
#[derive(Debug, Default)]
pub struct Allowances(Mutex<HashMap<QueueId, Arc<Allowance>>>);

/// One queue's count.
#[derive(Debug, Default)]
struct Allowance {
    /// Messages that are not done, as of the last commit.
    undone: AtomicU64,
    /// Messages that were answered and wait in rings.
    waiting: AtomicU64,
}

/// Places in a queue; dropped, they are free again.
#[derive(Debug)]
pub struct Places {
    allowance: Arc<Allowance>,
    count: u64,
}

impl Drop for Places {
    fn drop(&mut self) {
        self.allowance.waiting.fetch_sub(self.count, Ordering::AcqRel);
    }
}

impl Allowances {
    /// Takes places for `count` messages in a queue that holds `limit`; `None` where it has less. A
    /// queue that nobody has counted yet takes anything.
    ///
    /// # Errors
    /// [`NoPlace`] when there are fewer: none is taken.
    pub fn take(&self, queue: QueueId, count: u32, limit: u64) -> Result<Option<Places>, NoPlace> {
        let Some(allowance) = self.0.lock().get(&queue).cloned() else { return Ok(None) };
        let count = u64::from(count);
        let places = Places { allowance, count };
        let waiting = places.allowance.waiting.fetch_add(count, Ordering::AcqRel);
        let undone = places.allowance.undone.load(Ordering::Acquire);
        // What was taken is given back by dropping it.
        if undone.saturating_add(waiting).saturating_add(count) > limit {
            return Err(NoPlace);
        }
        Ok(Some(places))
    }

    /// Sets the counts as of now; returns, per queue, the messages that were answered and wait in
    /// rings.
    pub fn refresh(&self, undone: impl Fn(QueueId) -> u64) -> Vec<(QueueId, u64)> {
        let queues = self.0.lock();
        let refreshed = queues.iter().map(|(queue, allowance)| {
            allowance.undone.store(undone(*queue), Ordering::Release);
            (*queue, allowance.waiting.load(Ordering::Acquire))
        });
        refreshed.collect()
    }

    /// Sets the counts of all queues that have a limit; others are forgotten.
    pub fn publish(&self, counts: impl Iterator<Item = (QueueId, u64)>) {
        let mut queues = self.0.lock();
        let mut before = std::mem::take(&mut *queues);
        for (queue, undone) in counts {
            let allowance = before.remove(&queue).unwrap_or_default();
            allowance.undone.store(undone, Ordering::Release);
            queues.insert(queue, allowance);
        }
    }
}

/// A queue has too few places.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoPlace;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_with_what_is_not_done_and_come_back() {
        let allowances = Allowances::default();
        assert!(allowances.take(1, 1_000, 1).unwrap().is_none(), "nobody counts");
        allowances.publish([(1, 5)].into_iter());
        let held = allowances.take(1, 3, 10).unwrap();
        assert_eq!(allowances.refresh(|_| 5), [(1, 3)]);
        assert_eq!(allowances.take(1, 3, 10).unwrap_err(), NoPlace);
        assert_eq!(allowances.refresh(|_| 5), [(1, 3)], "a refusal takes nothing");
        let last = allowances.take(1, 2, 10).unwrap();
        drop((held, last));
        assert_eq!(allowances.refresh(|_| 8), [(1, 0)]);
        assert!(allowances.take(1, 3, 10).is_err());
        allowances.publish(std::iter::empty());
        assert!(allowances.take(1, 3, 10).unwrap().is_none());
    }
}
