//! Where pushes wait for the next commit: rings per partition, locked by shard.
//!
//! In: checked batches with the wish when to flush. Out: everything that a shard has waiting, taken
//! as a whole by the one lane that commits it. Every QoS walks this corridor; it decides only when
//! the receipt is signed. Knows no log and no consumer.
//!
//! [`ring`] one partition, [`shelf`] one lock's worth of rings, [`flush`] when to commit, [`budget`]
//! bytes over all rings, [`allowance`] places in queues that have a limit, [`receipt`] the way back to
//! the producer, [`doorbell`] waking the lane.

pub mod allowance;
pub mod budget;
pub mod doorbell;
pub mod flush;
pub mod receipt;
pub mod ring;
pub mod shelf;

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::place::ShardId;
use crate::buffer::allowance::Allowances;
use crate::buffer::budget::Budget;
use crate::buffer::doorbell::Doorbell;
use crate::buffer::flush::DueAt;
use crate::buffer::ring::{Placed, Ring, RingLimits};
use crate::buffer::shelf::Shelf;

/// How much may wait, and how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Config {
    /// Most that one partition's ring holds.
    pub ring: RingLimits,
    /// Most bytes in all rings together.
    pub budget_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        let ring = RingLimits { messages_max: 65_536, bytes_max: 16 << 20 };
        Self { ring, budget_bytes: 32 << 20 }
    }
}

/// Why a push was not taken into its ring; nothing of it waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Full {
    /// The partition's ring is full.
    #[error("the partition's ring holds its limit of {messages_max} messages or {bytes_max} bytes")]
    Ring {
        /// Its limit of messages.
        messages_max: u32,
        /// Its limit of bytes.
        bytes_max: u64,
    },
    /// All rings together are full.
    #[error("all rings together hold their limit of {limit} bytes")]
    Budget {
        /// Their limit of bytes.
        limit: u64,
    },
}

/// All rings of an engine.
#[derive(Debug)]
pub struct Buffers {
    shelves: Vec<Mutex<Shelf>>,
    due: Vec<DueAt>,
    limits: RingLimits,
    budget: Budget,
    allowances: Allowances,
    bell: Doorbell,
    /// Until when the lane sleeps, in the clock's microseconds; 0 while it is awake.
    asleep_until_us: AtomicU64,
}

impl Buffers {
    /// Rings for `shards` shards, all empty.
    #[must_use]
    pub fn new(shards: u16, config: Config) -> Self {
        Self {
            shelves: (0..shards).map(|_| Mutex::default()).collect(),
            due: (0..shards).map(|_| DueAt::default()).collect(),
            limits: config.ring,
            budget: Budget::new(config.budget_bytes),
            allowances: Allowances::default(),
            bell: Doorbell::default(),
            asleep_until_us: AtomicU64::new(0),
        }
    }

    /// How many shards it has rings for.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shelves.len() as u16
    }

    /// Puts a push into its partition's ring; never waits beyond the shard's lock. What stands in
    /// its way is due at once: a full ring gains nothing by waiting for company.
    ///
    /// # Errors
    /// [`Full`]: the push comes back untouched with the reason.
    pub fn push(&self, shard: ShardId, push: Placed, now_us: u64) -> Result<(), (Placed, Full)> {
        let (Some(shelf), Some(due)) =
            (self.shelves.get(usize::from(shard)), self.due.get(usize::from(shard)))
        else {
            return Err((push, Full::Budget { limit: 0 }));
        };
        let bytes = push.bytes();
        if !self.budget.take(bytes) {
            self.hurry();
            return Err((push, Full::Budget { limit: self.budget.limit() }));
        }
        let wish = push.flush;
        let count = {
            let mut shelf = shelf.lock();
            match shelf.push(push, self.limits) {
                Ok(messages_waiting) => messages_waiting,
                Err((push, full)) => {
                    drop(shelf);
                    self.budget.give_back(bytes);
                    if due.bring_forward(0) {
                        self.bell.ring();
                    }
                    return Err((push, full));
                }
            }
        };
        let due_us = wish.due_us(count, now_us);
        if due.bring_forward(due_us) {
            // Orders our store of `due` before this load; `sleep` does the same the other way round,
            // so that one of the two sees the other.
            fence(Ordering::SeqCst);
            if due_us < self.asleep_until_us.load(Ordering::Relaxed) {
                self.bell.ring();
            }
        }
        Ok(())
    }

    /// When the first shard wants its commit, in the clock's microseconds.
    #[must_use]
    pub fn first_due_us(&self) -> Option<u64> {
        self.due.iter().filter_map(DueAt::get).min()
    }

    /// The lane sleeps until `until_us`, unless a push is due before, or the bell rings.
    pub fn sleep(&self, now_us: u64, until_us: u64) {
        self.asleep_until_us.store(until_us, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let until_us = self.first_due_us().map_or(until_us, |due| due.min(until_us));
        if until_us > now_us {
            self.bell.sleep(Duration::from_micros(until_us - now_us));
        }
        // Awake, the lane looks at everything anyway: nobody needs to ring.
        self.asleep_until_us.store(0, Ordering::Relaxed);
    }

    /// Makes everything due that waits, in whatever shard it does.
    fn hurry(&self) {
        let waiting = self.due.iter().filter(|due| due.get().is_some());
        if waiting.filter(|due| due.bring_forward(0)).count() > 0 {
            self.bell.ring();
        }
    }

    /// Takes what waits in a shard, oldest partition first, up to about `bytes_max`. What does not
    /// fit stays and is due at once. The bytes count against the budget until
    /// [`Self::give_back`].
    #[must_use]
    pub fn drain(&self, shard: ShardId, bytes_max: u64) -> Vec<Ring> {
        let (Some(shelf), Some(due)) =
            (self.shelves.get(usize::from(shard)), self.due.get(usize::from(shard)))
        else {
            return Vec::new();
        };
        let mut shelf = shelf.lock();
        due.clear();
        let rings = shelf.drain(bytes_max);
        if !shelf.is_empty() {
            due.bring_forward(0);
        }
        rings
    }

    /// The bytes that wait in a shard.
    #[must_use]
    pub fn waiting_bytes(&self, shard: ShardId) -> u64 {
        self.shelves.get(usize::from(shard)).map_or(0, |shelf| shelf.lock().bytes())
    }

    /// When a shard wants its next commit, in the clock's microseconds: 0 = now.
    #[must_use]
    pub fn due_us(&self, shard: ShardId) -> Option<u64> {
        self.due.get(usize::from(shard)).and_then(DueAt::get)
    }

    /// Frees budget: the bytes are in the log, or refused.
    pub fn give_back(&self, bytes: u64) {
        self.budget.give_back(bytes);
    }

    /// The bytes over all rings.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Places in queues that have a limit.
    #[must_use]
    pub fn allowances(&self) -> &Allowances {
        &self.allowances
    }

    /// What wakes the lane.
    #[must_use]
    pub fn bell(&self) -> &Doorbell {
        &self.bell
    }
}
