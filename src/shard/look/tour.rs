//! A walk over partitions, some at a time, so that no question about a million of them stands between
//! two commits.
//!
//! In: which queues, and how many partitions may be passed in one look. Out: each partition that was
//! there all the time, once. What is made or goes meanwhile may be met or not. Called by looks, which
//! keep a tour between two of them.

use crate::base::place::{PartitionNumber, QueueId};
use crate::shard::look::View;
use crate::state::ShardState;
use crate::state::model::Partition;

/// Partitions that one look passes, at most: less than a millisecond of the lane's time.
pub(in crate::shard) const STRIDE: usize = 4096;

/// Where a walk is.
#[derive(Clone, Debug, Default)]
pub(in crate::shard) struct Tour {
    /// The queues whose partitions are visited; `None` = all.
    queues: Option<Vec<QueueId>>,
    /// The shard that it is in.
    shard: usize,
    /// The place of its queue among those that are visited.
    queue: usize,
    /// Partitions of the queue in the shard, or of the shard, that it is done with.
    at: usize,
    is_over: bool,
}

impl Tour {
    /// Over the partitions of these queues, or of all.
    pub(in crate::shard) fn of(queues: Option<Vec<QueueId>>) -> Self {
        Self { queues, ..Self::default() }
    }

    /// Over nothing.
    pub(in crate::shard) fn nowhere() -> Self {
        Self { is_over: true, ..Self::default() }
    }

    /// Over the partitions of one queue.
    pub(in crate::shard) fn of_queue(queue: QueueId) -> Self {
        Self::of(Some(vec![queue]))
    }

    /// Over the partitions of one queue, from a place on: a shard, and how many of its are left out.
    pub(in crate::shard) fn from(queue: QueueId, shard: usize, at: usize) -> Self {
        Self { shard, at, ..Self::of_queue(queue) }
    }

    /// Whether there is nothing further.
    pub(in crate::shard) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Visits what comes next and passes at most about so many partitions, or empty places where some
    /// would be; tells how many it passed.
    pub(in crate::shard) fn go_on(
        &mut self,
        view: &View<'_>,
        most: usize,
        mut visit: impl FnMut(&ShardState, PartitionNumber, &Partition),
    ) -> usize {
        let mut passed = 0;
        while passed < most && !self.is_over {
            let Some(state) = view.replica.shards.get(self.shard) else {
                self.is_over = true;
                break;
            };
            let room = most - passed;
            let seen = match self.queues.as_deref().map(|queues| queues.get(self.queue)) {
                None => {
                    let slots = state.slots_from(self.at).take(room);
                    slots.map(|it| it.map(|(number, it)| visit(state, number, it))).count()
                }
                Some(Some(queue)) => {
                    let some = state.partitions_from(*queue, self.at).take(room);
                    some.map(|(number, it)| visit(state, number, it)).count()
                }
                Some(None) => 0,
            };
            self.at += seen;
            // Where there is nothing, looking for it counts.
            passed += seen.max(1);
            if seen < room {
                self.pass_on();
            }
        }
        passed
    }

    /// On to the next queue, or to the next shard.
    fn pass_on(&mut self) {
        self.at = 0;
        self.queue += 1;
        if self.queue >= self.queues.as_ref().map_or(1, Vec::len) {
            (self.queue, self.shard) = (0, self.shard + 1);
        }
    }
}
