//! A log in memory that lies by seed: answers get lost, connections break, power goes.
//!
//! In: appends from one or several engines. Out: what a database or a disk may answer on a bad day,
//! and what it keeps. Each [`SimulatedLog`] is one engine's connection to a store shared by all;
//! the store lives as long as a connection does. The same seed and the same calls in the same order
//! give the same lies. Called by tests of `shard` and of whole engines.

mod store;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;

use self::store::{Fate, Store};
use super::{
    Append, AppendError, Bounds, Durability, Extent, Front, Log, LogFuture, Proposal, ReadError,
    StoredEntry,
};
use crate::base::place::{ShardCount, ShardId};

/// Most bytes that a simulated log takes in one append, as the local log by default.
pub const APPEND_BYTES_MAX: u64 = 64 << 20;
/// Bytes that a simulated log gives back at a time, as the local log by default.
const PIECE_BYTES: u64 = 128 << 20;

/// How often a simulated log fails, in chances per 1,000 calls each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// An append is refused with `Unavailable`; nothing happened.
    pub unavailable_per_mille: u64,
    /// An append is carried out and its answer lost.
    pub answer_lost_per_mille: u64,
    /// An append is lost on its way, and so is the answer.
    pub request_lost_per_mille: u64,
    /// An append's answer is lost, and the append arrives only later, between two other calls, or is
    /// too late.
    pub late_per_mille: u64,
    /// An append is refused with `DiskFull`; nothing happened.
    pub disk_full_per_mille: u64,
    /// Reading entries or heads is refused with `Unavailable`.
    pub read_unavailable_per_mille: u64,
    /// Yields before an append takes effect and again before its answer, 0 to this, so that other
    /// tasks get between.
    pub yields_max: u64,
}

/// One fault, for a test that wants it at a certain append.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// `Unavailable`; nothing happens.
    Unavailable,
    /// The append happens; `OutcomeUnknown` is answered.
    AnswerLost,
    /// Nothing happens; `OutcomeUnknown` is answered.
    RequestLost,
    /// `OutcomeUnknown` is answered, and the append happens later, if its heads still stand.
    Late,
    /// `DiskFull`; nothing happens.
    DiskFull,
    /// None: the append works.
    None,
}

/// How often each fault really struck, so that a test can prove that it saw them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Struck {
    /// Appends that stand.
    pub appended: u64,
    /// Appends refused because a head had moved.
    pub conflicts: u64,
    /// Appends and reads refused as `Unavailable`.
    pub unavailable: u64,
    /// Appends that stand and were answered by `OutcomeUnknown`.
    pub answers_lost: u64,
    /// Appends that do not stand and were answered by `OutcomeUnknown`.
    pub requests_lost: u64,
    /// Appends that arrived later than their `OutcomeUnknown`, and stand.
    pub late: u64,
    /// Appends refused as `DiskFull`.
    pub disk_full: u64,
    /// Times the power went.
    pub crashes: u64,
    /// Appends that a crash took away.
    pub appends_lost: u64,
}

/// One engine's connection to a simulated store.
#[derive(Debug)]
pub struct SimulatedLog {
    store: Arc<Mutex<Store>>,
    /// Connections of an earlier epoch died with the power.
    epoch: u64,
    is_cut: AtomicBool,
    is_frozen: AtomicBool,
    /// Appends that wait for it to thaw.
    frozen: AtomicU64,
}

impl SimulatedLog {
    /// A connection to a new, empty store of that many shards and a catalog, without faults.
    #[must_use]
    pub fn new(seed: u64, shards: ShardCount) -> Self {
        Self::with(Arc::new(Mutex::new(Store::new(seed, shards))), 0)
    }

    fn with(store: Arc<Mutex<Store>>, epoch: u64) -> Self {
        let (is_cut, is_frozen) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { store, epoch, is_cut, is_frozen, frozen: AtomicU64::new(0) }
    }

    /// Another connection to the same store, working even if this one is cut or from before a
    /// crash.
    #[must_use]
    pub fn connect(&self) -> Self {
        let epoch = self.store.lock().epoch;
        Self::with(Arc::clone(&self.store), epoch)
    }

    /// From now on the store fails this often.
    pub fn set_faults(&self, faults: Faults) {
        self.store.lock().faults = faults;
    }

    /// The next append meets this, whatever the chances; several wait in line.
    pub fn script(&self, fault: Fault) {
        self.store.lock().scripted.push_back(fault);
    }

    /// Whether every append meets a full disk, until told otherwise.
    pub fn set_disk_full(&self, is_full: bool) {
        self.store.lock().is_full = is_full;
    }

    /// Whether this connection is broken: everything but `body` and `bounds` is `Unavailable`.
    pub fn set_cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Release);
    }

    /// Whether appends over this connection are neither carried out nor answered, until told otherwise.
    pub fn set_frozen(&self, is_frozen: bool) {
        self.is_frozen.store(is_frozen, Ordering::Release);
    }

    /// Appends that wait for that now.
    #[must_use]
    pub fn frozen(&self) -> u64 {
        self.frozen.load(Ordering::Acquire)
    }

    /// The power goes: of the appends that were not synced, the newest some (by seed: none to all)
    /// are gone, each whole. All connections are dead; [`Self::connect`] makes new ones. Faults
    /// asked for are forgotten. Returns how many appends are gone.
    pub fn crash(&self) -> u64 {
        self.store.lock().crash()
    }

    /// What struck so far, over all connections.
    #[must_use]
    pub fn struck(&self) -> Struck {
        self.store.lock().struck
    }

    /// All entries that stand, by position: for a test's model, no fault touches it.
    #[must_use]
    pub fn entries(&self) -> Vec<StoredEntry> {
        self.store.lock().all()
    }

    fn check_reachable(&self, store: &Store) -> Result<(), String> {
        if self.epoch != store.epoch {
            return Err("the connection is from before the crash".to_owned());
        }
        if self.is_cut.load(Ordering::Acquire) {
            return Err("the connection is cut".to_owned());
        }
        Ok(())
    }

    async fn append_lying(
        &self,
        proposals: &[Proposal],
        durability: Durability,
    ) -> Result<Append, AppendError> {
        self.thawed().await;
        let (fate, before, after) = self.store.lock().fate_of_append();
        yields(before).await;
        let answer = {
            let store = &mut *self.store.lock();
            self.check_reachable(store)
                .inspect_err(|_| store.struck.unavailable += 1)
                .map_err(AppendError::Unavailable)?;
            store.arrive_late();
            carry_out(store, fate, proposals, durability)
        };
        yields(after).await;
        if answer.is_ok() && self.store.lock().epoch != self.epoch {
            return Err(AppendError::OutcomeUnknown);
        }
        answer
    }

    async fn thawed(&self) {
        self.frozen.fetch_add(1, Ordering::AcqRel);
        while self.is_frozen.load(Ordering::Acquire) {
            yields(1).await;
        }
        self.frozen.fetch_sub(1, Ordering::AcqRel);
    }

    fn reading(&self) -> Result<parking_lot::MutexGuard<'_, Store>, ReadError> {
        let mut store = self.store.lock();
        store.arrive_late();
        let reachable = self.check_reachable(&store).and_then(|()| store.fate_of_read());
        if let Err(reason) = reachable {
            store.struck.unavailable += 1;
            return Err(ReadError::Unavailable(reason));
        }
        Ok(store)
    }
}

fn carry_out(
    store: &mut Store,
    fate: Fate,
    proposals: &[Proposal],
    durability: Durability,
) -> Result<Append, AppendError> {
    match fate {
        Fate::Unavailable => {
            store.struck.unavailable += 1;
            Err(AppendError::Unavailable("the simulated store is away".to_owned()))
        }
        Fate::DiskFull => {
            store.struck.disk_full += 1;
            Err(AppendError::DiskFull)
        }
        Fate::RequestLost => {
            store.struck.requests_lost += 1;
            Err(AppendError::OutcomeUnknown)
        }
        Fate::Late => {
            store.late = Some((proposals.to_vec(), durability));
            Err(AppendError::OutcomeUnknown)
        }
        Fate::AnswerLost => {
            if matches!(store.append(proposals, durability)?, Append::Appended(_)) {
                store.struck.answers_lost += 1;
            }
            Err(AppendError::OutcomeUnknown)
        }
        Fate::Works => store.append(proposals, durability),
    }
}

/// Lets other tasks run `count` times, on any executor.
async fn yields(count: u64) {
    let mut left = count;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Log for SimulatedLog {
    fn width(&self) -> usize {
        2
    }

    fn append<'a>(
        &'a self,
        proposals: &'a [Proposal],
        durability: Durability,
    ) -> LogFuture<'a, Result<Append, AppendError>> {
        Box::pin(self.append_lying(proposals, durability))
    }

    fn read(
        &self,
        shard: ShardId,
        from: u64,
        bytes_max: usize,
    ) -> LogFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        Box::pin(async move { self.reading()?.read(shard, from, bytes_max) })
    }

    fn head(&self, shard: ShardId) -> LogFuture<'_, Result<u64, ReadError>> {
        Box::pin(async move { Ok(self.reading()?.head(shard)) })
    }

    fn body(&self, shard: ShardId, extent: Extent) -> Result<Bytes, ReadError> {
        self.store.lock().body(shard, extent)
    }

    fn is_near(&self, _shard: ShardId, _position: u64) -> bool {
        true
    }

    fn sync(&self) -> LogFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            let store = &mut *self.store.lock();
            self.check_reachable(store).map_err(AppendError::Unavailable)?;
            store.sync();
            Ok(())
        })
    }

    fn truncate_before(&self, shard: ShardId, position: u64) -> Result<(), AppendError> {
        let store = &mut *self.store.lock();
        self.check_reachable(store).map_err(AppendError::Unavailable)?;
        store.truncate_before(shard, position);
        Ok(())
    }

    fn front(&self) -> Option<Front> {
        let store = self.store.lock();
        let Bounds { start, end, .. } = store.bounds();
        Front::of_one_order(start, end, PIECE_BYTES, store.shards())
    }

    fn end_of(&self, _shard: ShardId) -> u64 {
        self.bounds().end
    }

    fn durable_to(&self, _shard: ShardId) -> u64 {
        self.bounds().synced
    }

    fn bounds(&self) -> Bounds {
        self.store.lock().bounds()
    }
}

#[cfg(test)]
mod tests;
