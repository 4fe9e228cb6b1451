//! The byte budget over all rings: what keeps a fast producer from filling memory.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that wait, against their limit.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    limit: u64,
    waiting: AtomicUsize,
    room: Notify,
}

impl Budget {
    /// A budget of `limit` bytes, none used.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit, waiting: AtomicUsize::new(0), room: Notify::new() }
    }

    /// Its limit in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes bytes if they fit; something larger than the whole budget fits when nothing is used.
    #[must_use]
    pub fn take(&self, bytes: u64) -> bool {
        // One step, and none to take back: bytes that were counted for a moment only would turn
        // others away, and giving them back would wake everybody who waits, for nothing.
        let with = |used: u64| {
            let after = used.saturating_add(bytes);
            (used == 0 || after <= self.limit).then_some(after)
        };
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, with).is_ok()
    }

    /// Takes bytes whether they fit or not: something that is counted already has grown.
    pub fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives bytes back and wakes whoever waits for room, once there is some.
    pub fn give_back(&self, bytes: u64) {
        let used = self.used.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        // Not at the first free byte: everybody would wake for room that one of them takes.
        if used <= self.limit / 4 * 3 && self.waiting.load(Ordering::Acquire) > 0 {
            self.room.notify_waiters();
        }
    }

    /// Waits until there is room again, a quarter of the limit at least: the caller tries again and
    /// waits again. Dropping the future changes nothing.
    pub async fn wait_for_room(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _leave = Leave(&self.waiting);
        let room = self.room.notified();
        tokio::pin!(room);
        room.as_mut().enable();
        if self.used() <= self.limit / 4 * 3 {
            return;
        }
        room.await;
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refuses_what_does_not_fit_and_takes_it_when_room_came_back() {
        let budget = Budget::new(100);
        assert!(budget.take(80));
        assert!(!budget.take(30));
        budget.give_back(80);
        assert!(budget.take(30));
        assert_eq!(budget.used(), 30);
    }

    #[test]
    fn something_larger_than_the_whole_budget_passes_alone() {
        let budget = Budget::new(100);
        assert!(budget.take(500));
        assert!(!budget.take(1));
    }
}
