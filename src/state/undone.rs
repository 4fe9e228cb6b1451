//! How many messages of a queue are not done: for queues that have a limit of them (`maxSize`).
//!
//! A message counts until every group of the queue has settled it and all before it in its partition;
//! without a group, as long as it is kept. The number is kept up to date with every change of a
//! partition, but only for queues that somebody asked it of: the others cost one look at an empty map.
//! Derived from the state and not in the log. Asked for by `shard`, which knows the options.

use hashbrown::HashMap;

use crate::base::place::QueueId;
use crate::state::ShardState;
use crate::state::model::Partition;

/// Counts of queues that have a limit.
#[derive(Debug, Default)]
pub(super) struct Undone(HashMap<QueueId, Count, foldhash::fast::RandomState>);

#[derive(Debug, Default)]
struct Count {
    total: u64,
    /// By local index.
    by_partition: HashMap<u32, u64, foldhash::fast::RandomState>,
}

impl ShardState {
    /// From now on counts what is not done of a queue, or no longer does.
    pub fn count_undone(&mut self, queue: QueueId, wanted: bool) {
        if !wanted {
            self.undone.0.remove(&queue);
        } else if !self.undone.0.contains_key(&queue) {
            self.undone.0.insert(queue, Count::default());
            for local in self.by_queue.get(&queue).cloned().unwrap_or_default() {
                self.recount(local);
            }
        }
    }

    /// Messages of a queue that are not done in this shard; 0 where nobody asked for the count.
    #[must_use]
    pub fn undone(&self, queue: QueueId) -> u64 {
        self.undone.0.get(&queue).map_or(0, |count| count.total)
    }

    /// A partition changed.
    pub(super) fn recount(&mut self, local: u32) {
        if self.undone.0.is_empty() {
            return;
        }
        let Some(partition) = self.partitions.get(local as usize) else { return };
        let Some(count) = self.undone.0.get_mut(&partition.queue) else { return };
        let now = undone_of(partition);
        let before = match now {
            0 => count.by_partition.remove(&local),
            _ => count.by_partition.insert(local, now),
        };
        count.total = count.total + now - before.unwrap_or(0);
    }
}

/// Messages of a partition that are not done.
pub(super) fn undone_of(partition: &Partition) -> u64 {
    let done = partition.cursors.iter().map(|cursor| cursor.next).min();
    match partition.live {
        true => partition.next_seq - done.unwrap_or(0).max(partition.base_seq),
        false => 0,
    }
}
