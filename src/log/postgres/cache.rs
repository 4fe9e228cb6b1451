//! Entries read lately, in memory: a consumer that catches up takes an entry apart piece by piece, and
//! what other engines appended was read for following anyway.
//!
//! In: entries. Out: the same bytes, until newer ones have taken their room. Called under its lock by
//! `read`.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::base::place::ShardId;

/// Bookkeeping per entry, counted against the limit.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// The entries, bounded by bytes; the one that came first goes first.
#[derive(Debug)]
pub(super) struct Cache {
    entries: HashMap<(ShardId, u64), Bytes>,
    order: VecDeque<(ShardId, u64)>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&self, shard: ShardId, index: u64) -> Option<Bytes> {
        self.entries.get(&(shard, index)).cloned()
    }

    pub(super) fn contains(&self, shard: ShardId, index: u64) -> bool {
        self.entries.contains_key(&(shard, index))
    }

    /// Adds an entry. One that would push most others out is left outside.
    pub(super) fn add(&mut self, shard: ShardId, index: u64, bytes: Bytes) {
        let size = bytes.len() + ENTRY_OVERHEAD_BYTES;
        if size > self.bytes_max / 2 || self.contains(shard, index) {
            return;
        }
        self.entries.insert((shard, index), bytes);
        self.order.push_back((shard, index));
        self.bytes += size;
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else { break };
            let gone = self.entries.remove(&oldest).map_or(0, |it| it.len());
            self.bytes = self.bytes.saturating_sub(gone + ENTRY_OVERHEAD_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_make_room_and_the_limit_holds() {
        let mut cache = Cache::new(10_000);
        for index in 0..100 {
            cache.add(1, index, Bytes::from(vec![index as u8; 1_000]));
            assert!(cache.bytes <= 10_000);
        }
        assert_eq!(cache.get(1, 99).unwrap()[..], [99; 1_000]);
        assert!(cache.contains(1, 91) && !cache.contains(1, 90) && !cache.contains(2, 99));
        assert_eq!(cache.entries.len(), cache.order.len());
        cache.add(1, 99, Bytes::new());
        assert_eq!(cache.get(1, 99).unwrap().len(), 1_000);
        cache.add(1, 200, Bytes::from(vec![0; 6_000]));
        assert!(!cache.contains(1, 200), "it would have taken the place of nearly all others");
    }
}
