//! The heads of the local log's shards: one lock each, and how an append takes several of them.
//!
//! In: proposals. Out: the shards whose heads are not where the proposals expect them, or new heads.
//! Called by `local` around each append.

use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::base::place::ShardId;
use crate::log::Proposal;

/// What the open log knows of one shard.
pub(super) struct Shard {
    /// Number of the next entry; locked while an entry is being appended.
    pub(super) head: Mutex<u64>,
    /// Nothing below this position is needed.
    pub(super) floor: AtomicU64,
    /// Where the last read stopped: number of the next entry, and where a record starts.
    pub(super) resume: Mutex<(u64, u64)>,
}

impl Shard {
    pub(super) fn new(head: u64) -> Self {
        Self { head: Mutex::new(head), floor: AtomicU64::new(0), resume: Mutex::new((u64::MAX, 0)) }
    }
}

/// The shards of one append, locked in order, with the heads that they will have.
pub(super) struct Locked<'a> {
    shards: SmallVec<[ShardId; 8]>,
    guards: SmallVec<[MutexGuard<'a, u64>; 8]>,
    heads: SmallVec<[u64; 8]>,
}

impl<'a> Locked<'a> {
    /// In the order of their numbers, so that two appends never wait for each other.
    pub(super) fn lock(all: &'a [Shard], proposals: &[Proposal]) -> Self {
        let mut shards: SmallVec<[ShardId; 8]> = proposals.iter().map(|one| one.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let lock = |shard: &ShardId| match all.get(usize::from(*shard)) {
            Some(found) => found.head.lock(),
            None => no_such(*shard, all.len()),
        };
        let guards: SmallVec<[MutexGuard<'a, u64>; 8]> = shards.iter().map(lock).collect();
        let heads = guards.iter().map(|guard| **guard).collect();
        Self { shards, guards, heads }
    }

    /// Counts the proposals in; returns the shards whose heads are not where they expect them.
    pub(super) fn advance(&mut self, proposals: &[Proposal]) -> Vec<ShardId> {
        let mut moved = Vec::new();
        for proposal in proposals {
            let Ok(at) = self.shards.binary_search(&proposal.shard) else { continue };
            let Some(head) = self.heads.get_mut(at) else { continue };
            if *head != proposal.expected_head && !moved.contains(&proposal.shard) {
                moved.push(proposal.shard);
            }
            *head += 1;
        }
        moved
    }

    pub(super) fn store(&mut self) {
        for (guard, head) in self.guards.iter_mut().zip(&self.heads) {
            **guard = *head;
        }
    }
}

/// A shard that the log does not have is a fault of the caller that no answer could mend.
pub(super) fn no_such(shard: ShardId, count: usize) -> ! {
    panic!("shard {shard} of a log of {count} shards, the catalog's included")
}
