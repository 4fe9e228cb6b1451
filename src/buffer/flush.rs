//! Flush policy: when a shard wants its next commit.
//!
//! A producer that waits for durability wants it now: the lane commits as soon as the commit before
//! is done, and batches grow under load by themselves. Without one, a shard waits for `bufferMs`
//! after the oldest message or for `bufferMax` messages in a partition. Pure but for one atomic.

use std::sync::atomic::{AtomicU64, Ordering};

/// How long a partition that has `bufferMax` messages lets other partitions join its commit.
/// Nobody waits for it; without it a busy lane makes thousands of small commits a second, each of
/// which costs more than what it carries (QoS 0 was slower than QoS 1).
pub const LINGER_US: u64 = 4_000;

/// When a push wants to be committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlushWish {
    /// As soon as possible: somebody waits.
    Now,
    /// QoS 0: whichever comes first.
    Later {
        /// Milliseconds after it came.
        buffer_ms: u32,
        /// Messages waiting in its partition.
        buffer_max: u32,
    },
}

impl FlushWish {
    /// When the push is due, in the clock's microseconds, with `waiting` messages in its ring.
    #[must_use]
    pub fn due_us(self, waiting: u32, now_us: u64) -> u64 {
        match self {
            Self::Now => 0,
            Self::Later { buffer_ms, buffer_max } => {
                let timer_us = u64::from(buffer_ms) * 1000;
                let wait_us =
                    if waiting >= buffer_max { timer_us.min(LINGER_US) } else { timer_us };
                (now_us + wait_us).max(1)
            }
        }
    }
}

const NEVER: u64 = u64::MAX;

/// When a shard is due; readable without its lock.
#[derive(Debug)]
pub struct DueAt(AtomicU64);

impl Default for DueAt {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

impl DueAt {
    /// The time, if anything waits.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|at| *at != NEVER)
    }

    /// Makes it due at `at_us` unless it is due before; tells whether that changed anything.
    pub fn bring_forward(&self, at_us: u64) -> bool {
        // A load first: under load a shard is due already, and a read does not take the line away
        // from the other producers.
        self.0.load(Ordering::Acquire) > at_us && self.0.fetch_min(at_us, Ordering::AcqRel) > at_us
    }

    /// Nothing waits any more.
    pub fn clear(&self) {
        self.0.store(NEVER, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: FlushWish = FlushWish::Later { buffer_ms: 100, buffer_max: 10 };

    #[test]
    fn a_waiting_producer_makes_a_shard_due_at_once() {
        assert_eq!(FlushWish::Now.due_us(1, 5_000), 0);
    }

    #[test]
    fn a_buffered_push_is_due_buffer_ms_after_it_came() {
        assert_eq!(WISH.due_us(9, 5_000), 105_000);
    }

    #[test]
    fn a_buffered_push_is_due_after_lingering_when_buffer_max_messages_wait() {
        assert_eq!(WISH.due_us(10, 5_000), 5_000 + LINGER_US);
    }

    #[test]
    fn lingering_never_outlasts_buffer_ms() {
        let wish = FlushWish::Later { buffer_ms: 1, buffer_max: 10 };
        assert_eq!(wish.due_us(10, 5_000), 6_000);
    }

    #[test]
    fn a_later_wish_never_delays_an_earlier_one() {
        let due = DueAt::default();
        assert!(due.bring_forward(100));
        assert!(!due.bring_forward(200));
        assert_eq!(due.get(), Some(100));
        due.clear();
        assert_eq!(due.get(), None);
    }
}
