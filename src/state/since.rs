//! Messages by time: the first one of a partition that was pushed at a time or later, and when a message
//! was pushed.
//!
//! In: a partition and a time, or a sequence. Out: a sequence, or a time. Times never go back from one
//! batch of a partition to the next, so a partition of any length takes a few look-ups. Called by `draft`,
//! and by the lane where somebody asks how old a lag is.

use crate::base::place::PartitionNumber;
use crate::state::ShardState;
use crate::state::effect::Sequence;
use crate::state::kv::{Kv, KvError};

impl ShardState {
    /// The first message of a partition that is kept and was pushed at `time_ms` or later; the head
    /// where there is none.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn first_since(
        &self,
        kv: &dyn Kv,
        number: PartitionNumber,
        time_ms: u64,
    ) -> Result<Sequence, KvError> {
        let Some(partition) = self.partition(number) else { return Ok(0) };
        let (mut low, mut high) = (partition.base_seq, partition.next_seq);
        // Mostly all of it is older, or none; the newest batch is in memory.
        let mut looks = [high.saturating_sub(1), low].into_iter();
        while low < high {
            let look = looks.next().unwrap_or(low + (high - low) / 2).clamp(low, high - 1);
            match self.runs(kv, number, look, look + 1)?.first() {
                Some(run) if run.time_ms >= time_ms => high = run.first_seq.clamp(low, look),
                Some(run) => low = run.end_seq().clamp(look + 1, high),
                None => low = look + 1,
            }
        }
        Ok(low)
    }

    /// When a message was pushed, unix milliseconds; `None` when it is not there.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn pushed_ms(
        &self,
        kv: &dyn Kv,
        number: PartitionNumber,
        seq: Sequence,
    ) -> Result<Option<u64>, KvError> {
        Ok(self.runs(kv, number, seq, seq + 1)?.first().map(|run| run.time_ms))
    }
}
