//! Who wants to hear of work in any queue of a namespace or task, whether the queue exists yet or not.
//!
//! A pop that names no queue cannot be parked on one. Whoever carries it out says first what it waits for,
//! then looks into the queues that there are, and sleeps until it is told: so nothing that comes between
//! the two is missed. Told once; several are told of the same work, and the first takes it. Called by the
//! lane.

use onrush_protocol::name::GroupName;

use crate::base::place::QueueId;
use crate::shard::command::Reply;
use crate::shard::lane::Lane;
use crate::shard::replica::Replica;
use crate::state::ShardState;
use crate::state::catalog::QueueDefinition;

/// See [`Command::Watch`](crate::shard::command::Command::Watch).
#[derive(Debug)]
pub struct Watch {
    /// Only queues of this namespace.
    pub namespace: Option<Box<str>>,
    /// Only queues of this task.
    pub task: Option<Box<str>>,
    /// On whose behalf.
    pub group: GroupName,
    /// Told when there may be work; dropped when there will be none any more.
    pub reply: Reply<()>,
}

impl Watch {
    fn fits(&self, queue: &QueueDefinition) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| *wanted == queue.namespace)
            && self.task.as_ref().is_none_or(|wanted| *wanted == queue.task)
    }
}

/// Everybody who waits to be told.
#[derive(Debug, Default)]
pub struct Watches {
    waiting: Vec<Watch>,
    /// How many there may be before those are looked for who have hung up.
    sweep_at: usize,
    is_closed: bool,
}

impl Watches {
    /// Fewest that are worth a look for those who have hung up.
    const SWEPT_MIN: usize = 64;

    /// Adds one; it is dropped where nobody may wait any more.
    pub fn add(&mut self, watch: Watch) {
        if self.is_closed {
            return;
        }
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|watch| !watch.reply.is_closed());
            self.sweep_at = (2 * self.waiting.len()).max(Self::SWEPT_MIN);
        }
        self.waiting.push(watch);
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nobody may wait from here on.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }
}

impl Lane {
    /// Tells those that watch for work in a queue, where there may be some for them.
    pub(super) fn tell_watchers(&mut self, queue: QueueId) {
        if self.watches.is_empty() {
            return;
        }
        let Some(definition) = self.replica.catalog.catalog().get(queue) else { return };
        let replica = &self.replica;
        let is_told =
            |watch: &mut Watch| watch.fits(definition) && has_work(replica, queue, &watch.group);
        for watch in self.watches.waiting.extract_if(.., is_told) {
            // Whoever hung up leaves the work to the others, who are told too.
            let _ = watch.reply.send(());
        }
    }
}

/// Whether a group may have work in a queue: it has, or it is new somewhere.
fn has_work(replica: &Replica, queue: QueueId, group: &GroupName) -> bool {
    if replica.catalog.catalog().group(queue, group.as_str()).is_none() {
        return true;
    }
    let in_shard = |shard: &ShardState| match shard.group(queue, group.as_str()) {
        Some(index) => shard.group_at(index).is_some_and(|it| it.ready_count > 0),
        None => shard.has_partitions(queue),
    };
    replica.shards.iter().any(in_shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_hung_up_is_not_kept_for_ever() {
        let mut watches = Watches::default();
        for _ in 0..10_000 {
            let (reply, _) = tokio::sync::oneshot::channel();
            let group = GroupName::queue_mode();
            watches.add(Watch { namespace: None, task: None, group, reply });
            assert!(watches.waiting.len() <= Watches::SWEPT_MIN);
        }
    }
}
