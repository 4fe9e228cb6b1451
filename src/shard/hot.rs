//! The hot tail: the newest batches, still in memory for consumers that keep up.
//!
//! One queue over all partitions in log order, bounded by bytes: positions only grow, so adding is
//! at the back, forgetting at the front, and finding is a binary search.

use std::collections::VecDeque;

use crate::state::codec::Chunk;
use crate::state::model::Run;

/// Bookkeeping per batch, counted against the limit.
const CHUNK_OVERHEAD_BYTES: u64 = 96;

/// The newest batches.
#[derive(Debug)]
pub struct HotTail {
    chunks: VecDeque<(u64, Chunk)>,
    bytes: u64,
    bytes_max: u64,
}

impl HotTail {
    /// An empty tail of at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the batch at `position`, which must be behind all before it.
    pub fn add(&mut self, position: u64, chunk: Chunk) {
        self.bytes += chunk.batch.len() as u64 + CHUNK_OVERHEAD_BYTES;
        self.chunks.push_back((position, chunk));
        while self.bytes > self.bytes_max {
            let Some((_, gone)) = self.chunks.pop_front() else { break };
            self.bytes -= gone.batch.len() as u64 + CHUNK_OVERHEAD_BYTES;
        }
    }

    /// The batches of a run, if all of them are still here.
    #[must_use]
    pub fn find(&self, run: &Run) -> Option<Vec<Chunk>> {
        let at = self.chunks.binary_search_by_key(&run.position, |(position, _)| *position).ok()?;
        let end = run.position + u64::from(run.len);
        let inside = self.chunks.range(at..).take_while(|(position, _)| *position < end);
        Some(inside.map(|(_, chunk)| chunk.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn chunk(first_seq: u64, bytes: usize) -> Chunk {
        let batch = Bytes::from(vec![0; bytes]);
        Chunk { partition: 1, first_seq, count: 1, time_ms: 0, batch }
    }

    #[test]
    fn the_oldest_batches_go_when_the_limit_is_passed() {
        let mut hot = HotTail::new(3 * 1_100);
        for seq in 0..5 {
            hot.add(seq * 10_000, chunk(seq, 1_000));
        }
        let run = |seq: u64| Run {
            first_seq: seq,
            position: seq * 10_000,
            time_ms: 0,
            len: 1_100,
            count: 1,
        };
        assert_eq!(hot.find(&run(1)), None);
        assert_eq!(hot.find(&run(4)).unwrap()[0].first_seq, 4);
    }

    #[test]
    fn a_joined_run_brings_all_its_batches() {
        let mut hot = HotTail::new(1 << 20);
        hot.add(100, chunk(0, 10));
        hot.add(150, chunk(1, 10));
        hot.add(300, chunk(0, 10));
        let run = Run { first_seq: 0, position: 100, time_ms: 0, len: 100, count: 2 };
        assert_eq!(hot.find(&run).unwrap().len(), 2);
    }
}
