//! How many messages may wait for a process: what one process sends to another is bounded too.

use crate::base::place::PartitionNumber;
use crate::state::classes::OWN_NAME;
use crate::state::draft::{DecideError, Draft};

impl Draft<'_> {
    /// Whether so many more messages may wait to be evaluated in a partition, where at most `most` may.
    ///
    /// # Errors
    /// [`DecideError::Backlog`].
    pub fn may_wait(
        &self,
        partition: PartitionNumber,
        count: u32,
        most: u64,
    ) -> Result<(), DecideError> {
        let found = self.state.partition(partition);
        let queue = found.map(|partition| partition.queue);
        let head = self.heads.get(&partition).copied();
        let head = head.unwrap_or_else(|| found.map_or(0, |partition| partition.next_seq));
        let group = queue.and_then(|queue| self.state.group(queue, OWN_NAME));
        let cursor = group.and_then(|group| self.cursor(partition, group));
        let base = || found.map_or(0, |partition| partition.base_seq);
        let done = cursor.map_or_else(base, |cursor| cursor.progress.next);
        let waiting = head.saturating_sub(done);
        match waiting.saturating_add(u64::from(count)) > most {
            true => Err(DecideError::Backlog { waiting }),
            false => Ok(()),
        }
    }
}
