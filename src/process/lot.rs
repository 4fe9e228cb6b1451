//! The hold on instances while they are evaluated: a lease, which is kept for as long as the work lasts
//! or waits, and a place of the work list, which only work has.
//!
//! Whatever ends the work on an instance early gives the lease back, so that it comes again at once.
//! What is stopped is kept, without a place: it would only be handed out again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::base::place::PartitionNumber;
use crate::process::Inner;
use crate::process::instance::values;
use crate::process::keys::{META, STOPPED};
use crate::process::places::Seat;
use crate::shard::command::{Command, GiveBack};
use crate::state::effect::LeaseToken;

/// Steps in a row of an instance on messages that it sent itself; then whoever waits for its place has it.
const TURNS_MAX: u32 = 64;
/// How long an instance rests that cannot go on now.
const REST: Duration = Duration::from_millis(500);

/// A hold on the instances of one pop; its copies share the lease and the place.
#[derive(Clone, Debug)]
pub(super) struct Lot {
    pub(super) token: LeaseToken,
    /// When the lease ends, as far as is known, unix milliseconds.
    until_ms: Arc<AtomicU64>,
    /// Kept until all of the pop are worked off, or wait.
    place: Option<Arc<Seat>>,
    /// Leases before it in a row, each of which was handed over with the step before.
    turns: u32,
}

/// How work on an instance ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    /// Its lease is over: all is settled, or it was lost.
    Over,
    /// With work that somebody may take at once.
    Work,
    /// It is stopped.
    Stopped,
    /// With work that cannot be done now: a queue is full, or the store cannot be read.
    Rest,
}

impl Lot {
    /// What a pop gave.
    pub(super) fn new(token: LeaseToken, until_ms: u64, place: Option<Seat>) -> Self {
        let until_ms = Arc::new(AtomicU64::new(until_ms));
        Self { token, until_ms, place: place.map(Arc::new), turns: 0 }
    }

    /// Whether an instance may go on in its place under another lease.
    pub(super) fn may_go_on(&self) -> bool {
        self.place.is_some() && self.turns < TURNS_MAX
    }

    /// The same place under another lease.
    pub(super) fn next(&self, token: LeaseToken, until_ms: u64) -> Self {
        let until_ms = Arc::new(AtomicU64::new(until_ms));
        Self { token, until_ms, place: self.place.clone(), turns: self.turns + 1 }
    }

    /// Somebody else may work meanwhile.
    pub(super) fn leave_place(&mut self) {
        self.place = None;
    }
}

impl Inner {
    /// Lets the lease end later where it is half over. Returns whether it lives, as far as is known.
    pub(super) async fn keep_lease(&self, lot: &Lot) -> bool {
        let (now_ms, lease_ms) = (self.engine.clock().now_ms(), self.config.lease_ms);
        if lot.until_ms.load(Ordering::Relaxed) >= now_ms + lease_ms / 2 {
            return true;
        }
        match self.delivery.extend(lot.token, lease_ms).await {
            Ok(Some(until_ms)) => {
                lot.until_ms.fetch_max(until_ms, Ordering::Relaxed);
                true
            }
            Ok(None) => false,
            // Whether it lives is found out when a step is offered.
            Err(_) => true,
        }
    }

    /// Waits for something and keeps the lease meanwhile: nobody else is to begin what it holds.
    pub(super) async fn keeping<T>(&self, lot: &Lot, waited: impl Future<Output = T>) -> T {
        let third = Duration::from_millis(self.config.lease_ms / 3);
        tokio::pin!(waited);
        loop {
            tokio::select! {
                done = &mut waited => return done,
                () = sleep(third) => {
                    self.keep_lease(lot).await;
                }
            }
        }
    }

    /// Does with an instance what the end of the work on it asks for.
    pub(super) async fn leave(&self, partition: PartitionNumber, left: Left, lot: &Lot) {
        match left {
            Left::Over => return,
            Left::Work => {}
            Left::Rest => self.keeping(lot, sleep(REST)).await,
            Left::Stopped => self.hold(partition, lot).await,
        }
        self.give_back(partition, lot);
    }

    /// Lets others have an instance at once.
    pub(super) fn give_back(&self, partition: PartitionNumber, lot: &Lot) {
        let back = GiveBack { token: lot.token, partition, from: 0 };
        self.engine.submit(Command::GiveBack(back));
    }

    /// Keeps an instance that is stopped until it is resumed, or this server stops.
    async fn hold(&self, partition: PartitionNumber, lot: &Lot) {
        let third = Duration::from_millis(self.config.lease_ms / 3);
        loop {
            let resumed = self.resumed.notified();
            tokio::pin!(resumed);
            resumed.as_mut().enable();
            if self.is_stopping() || !self.is_stopped(partition).await {
                return;
            }
            tokio::select! {
                () = resumed => {}
                () = sleep(third) => {}
            }
            if !self.keep_lease(lot).await {
                return;
            }
        }
    }

    /// Whether an instance is stopped; not where that cannot be read.
    async fn is_stopped(&self, partition: PartitionNumber) -> bool {
        let key = Bytes::from_static(STOPPED);
        let read = self.engine.look(move |look| values(look, META, partition, &[key]));
        matches!(read.await, Ok(Ok(found)) if !found.is_empty())
    }
}
