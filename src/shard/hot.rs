//! The hot tail: the newest batches, still in memory for consumers that keep up.
//!
//! One queue per shard in log order, all together bounded by bytes: a shard's positions only grow, so
//! adding is at the back, forgetting at the front, and finding is a binary search.

use std::collections::VecDeque;

use crate::base::place::ShardId;
use crate::state::codec::Chunk;
use crate::state::model::Run;

/// Bookkeeping per batch, counted against the limit.
const CHUNK_OVERHEAD_BYTES: u64 = 96;

/// The newest batches.
#[derive(Debug)]
pub struct HotTail {
    /// By shard, as far as any was added to.
    shards: Vec<VecDeque<(u64, Chunk)>>,
    /// The shard of each batch, in the order of adding.
    order: VecDeque<ShardId>,
    bytes: u64,
    bytes_max: u64,
}

impl HotTail {
    /// An empty tail of at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { shards: Vec::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the batch at `position` of `shard`, which must be behind all of the shard before it.
    pub fn add(&mut self, shard: ShardId, position: u64, chunk: Chunk) {
        self.bytes += chunk.batch.len() as u64 + CHUNK_OVERHEAD_BYTES;
        let at = usize::from(shard);
        if self.shards.len() <= at {
            self.shards.resize_with(at + 1, VecDeque::new);
        }
        if let Some(chunks) = self.shards.get_mut(at) {
            chunks.push_back((position, chunk));
            self.order.push_back(shard);
        }
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else { break };
            let chunks = self.shards.get_mut(usize::from(oldest));
            let Some((_, gone)) = chunks.and_then(VecDeque::pop_front) else { break };
            self.bytes -= gone.batch.len() as u64 + CHUNK_OVERHEAD_BYTES;
        }
    }

    /// The batches of a run of `shard`, if all of them are still here.
    #[must_use]
    pub fn find(&self, shard: ShardId, run: &Run) -> Option<Vec<Chunk>> {
        let chunks = self.shards.get(usize::from(shard))?;
        let at = chunks.binary_search_by_key(&run.position, |(position, _)| *position).ok()?;
        let end = run.position + u64::from(run.len);
        let inside = chunks.range(at..).take_while(|(position, _)| *position < end);
        Some(inside.map(|(_, chunk)| chunk.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn chunk(first_seq: u64, bytes: usize) -> Chunk {
        let batch = Bytes::from(vec![0; bytes]);
        Chunk { partition: 1, first_seq, count: 1, time_ms: 0, sub: None, batch }
    }

    #[test]
    fn the_oldest_batches_go_when_the_limit_is_passed() {
        let mut hot = HotTail::new(3 * 1_100);
        for seq in 0..5 {
            hot.add(3, seq * 10_000, chunk(seq, 1_000));
        }
        let run = |seq: u64| Run {
            first_seq: seq,
            position: seq * 10_000,
            time_ms: 0,
            len: 1_100,
            count: 1,
        };
        assert_eq!(hot.find(3, &run(1)), None);
        assert_eq!(hot.find(3, &run(4)).unwrap()[0].first_seq, 4);
    }

    #[test]
    fn a_joined_run_brings_all_its_batches() {
        let mut hot = HotTail::new(1 << 20);
        hot.add(3, 100, chunk(0, 10));
        hot.add(3, 150, chunk(1, 10));
        hot.add(3, 300, chunk(0, 10));
        let run = Run { first_seq: 0, position: 100, time_ms: 0, len: 100, count: 2 };
        assert_eq!(hot.find(3, &run).unwrap().len(), 2);
    }

    #[test]
    fn one_position_of_two_shards_is_two_batches_and_the_older_goes_first() {
        let mut hot = HotTail::new(2 * 1_100);
        let run = Run { first_seq: 0, position: 100, time_ms: 0, len: 1_000, count: 1 };
        hot.add(7, 100, chunk(7, 1_000));
        hot.add(2, 100, chunk(2, 1_000));
        assert_eq!(hot.find(7, &run).unwrap()[0].first_seq, 7);
        assert_eq!(hot.find(2, &run).unwrap()[0].first_seq, 2);
        hot.add(2, 2_000, chunk(3, 1_000));
        assert_eq!(hot.find(7, &run), None);
        assert!(hot.find(2, &run).is_some());
        assert_eq!(hot.find(1, &run), None);
    }
}
