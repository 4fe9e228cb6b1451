//! What the lane does between commits: checkpoints and retention.

use crate::base::place::ShardId;
use crate::shard::checkpointer;
use crate::shard::lane::Lane;
use crate::shard::round::{Retention, Work};
use crate::state::ShardState;
use crate::state::checkpoint::Checkpoint;
use crate::state::draft::gates::Rules;

/// Pause of a retention that has more to look at than one commit should.
const RETENTION_PAUSE_US: u64 = 200_000;
/// Changes in all shards that make their checkpoint hurry: bounds what memory holds beside the rows.
const CHANGES_MAX: usize = 32 << 10;
/// Changes that go into one batch of rows; the shard that exceeds it is still taken along.
const CHANGES_PER_BATCH: usize = 32 << 10;

impl Lane {
    /// What a checkpoint would write, about.
    fn change_count(&self) -> usize {
        self.replica.shards.iter().map(ShardState::change_count).sum()
    }

    /// Whether any shard has something for a checkpoint.
    pub(super) fn has_changes(&self) -> bool {
        self.replica.catalog.is_changed() || self.change_count() > 0
    }

    /// When the lane should wake for upkeep, in the clock's microseconds. While the store is down there
    /// are checkpoints at most: what needs a commit comes when it is back.
    pub(super) fn next_upkeep_us(&self) -> Option<u64> {
        match self.is_down() {
            true if self.is_before_contact() => None,
            true => self.schedule.next_checkpoint_us(self.has_changes()),
            false => self.schedule.next_us(self.has_changes()),
        }
    }

    /// Begins the next checkpoint if it is time.
    pub(super) fn begin_checkpoint(&mut self) {
        if self.is_before_contact() {
            return;
        }
        let now_us = self.clock.monotonic_us();
        if self.change_count() > CHANGES_MAX {
            self.schedule.hurry(now_us);
        }
        let shards = self.replica.count().get() + 1;
        let Some(turns) = self.schedule.turns(shards, now_us) else { return };
        let wanted = turns.filter(|shard| self.wants_checkpoint(*shard)).collect();
        let (batch, next) = self.checkpoint_of_some(wanted);
        if batch.is_empty() {
            return self.schedule.rest(now_us);
        }
        self.schedule.begin(next, shards);
        self.checkpointer.write(batch);
    }

    /// Begins checkpoints of the first of some shards, as many as one batch takes; and the shard that
    /// the next batch begins with. Several shards at once, because a batch costs a file of transaction
    /// ids and a sync of it, whatever its size.
    fn checkpoint_of_some(&mut self, shards: Vec<u16>) -> (Vec<Checkpoint>, u16) {
        let (mut batch, mut changes, mut next) = (Vec::new(), 0, 0);
        for shard in shards {
            let state = self.replica.shards.get(usize::from(shard));
            changes += state.map_or(0, ShardState::change_count);
            batch.push(self.checkpoint_of(shard));
            next = shard + 1;
            if changes >= CHANGES_PER_BATCH {
                break;
            }
        }
        (batch, next)
    }

    /// A shard with changes, or one whose checkpoint the log's vault waits for; or a quiet one whose
    /// rows say nothing of much of the log, so that a start would read it all for nothing.
    fn wants_checkpoint(&self, shard: u16) -> bool {
        const QUIET_BYTES: u64 = 64 << 20;
        // And no more than half a segment, or it would keep segments that nobody needs.
        let quiet_bytes = QUIET_BYTES.min(self.config.segment_bytes / 2);
        let (changed, stored) = match self.replica.shards.get(usize::from(shard)) {
            Some(state) => (state.change_count() > 0, state.stored_position()),
            None => {
                let catalog = &self.replica.catalog;
                (catalog.is_changed(), catalog.stored_position())
            }
        };
        let unsaid = || self.log.end_of(shard).saturating_sub(stored);
        let awaited = || {
            let vault = self.log.vault();
            vault.is_some_and(|vault| vault.is_due(shard, self.replica.head(shard)))
        };
        changed || (self.config.sole_writer && unsaid() > quiet_bytes) || awaited()
    }

    fn checkpoint_of(&mut self, shard: u16) -> Checkpoint {
        // This thread is the only one that appends, so all of the log up to its end is applied.
        let applied = if self.config.sole_writer { self.log.end_of(shard) } else { 0 };
        match self.replica.shards.get_mut(usize::from(shard)) {
            Some(state) => {
                state.advance(applied);
                state.begin_checkpoint(self.config.dedup)
            }
            None => {
                self.replica.catalog.advance(applied);
                self.replica.catalog.checkpoint(shard, self.replica.count())
            }
        }
    }

    /// The checkpoint under way is written, of these shards. One that failed is not ended: what it
    /// carried stays in memory, and there are no further checkpoints of this run.
    pub(super) fn end_checkpoint(&mut self, shards: &[ShardId], written: bool) {
        self.close_checkpoint(shards, written);
        self.begin_checkpoint();
    }

    fn close_checkpoint(&mut self, shards: &[ShardId], written: bool) {
        self.checkpoints_failed |= !written;
        if !written {
            return;
        }
        for shard in shards {
            self.telemetry.checkpoints.add(1);
            match self.replica.shards.get_mut(usize::from(*shard)) {
                Some(state) => state.end_checkpoint(),
                None => self.replica.catalog.end_checkpoint(),
            }
        }
        self.schedule.end(self.clock.monotonic_us());
        let partitions: usize = self.replica.shards.iter().map(ShardState::partition_count).sum();
        self.telemetry.partitions.set(partitions as u64);
    }

    /// Writes everything that is not a row yet, in this thread: the next start has nothing to apply.
    pub(super) fn checkpoint_everything(&mut self) {
        let is_open = self.schedule.is_under_way();
        if self.checkpoints_failed || (is_open && !self.await_checkpoint()) {
            return;
        }
        let shards = self.replica.count().get() + 1;
        let mut next = 0;
        while next < shards {
            let batch;
            (batch, next) = self.checkpoint_of_some((next..shards).collect());
            if let Err(error) = checkpointer::write(&*self.log, &*self.kv, batch, &self.runtime) {
                tracing::warn!(%error, "the last checkpoint failed; the next start reads the log");
                return;
            }
        }
    }

    fn await_checkpoint(&mut self) -> bool {
        // The writer answers through the inbox; commands that come with it are refused there.
        for _ in 0..1000 {
            for command in self.inbox.take() {
                if let crate::shard::command::Command::CheckpointDone { shards, written } = command
                {
                    // Without beginning another: two of one shard at once would write what the
                    // later one knows without the changes that the earlier one carries.
                    self.close_checkpoint(&shards, written);
                    return written;
                }
                let stopping = crate::shard::command::CommandError::ShuttingDown;
                crate::shard::lane::fail_command(command, &stopping);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        false
    }

    /// Retention looks at the rest soon, and not at once: others want to commit too.
    pub(super) fn go_on_with_retention(&mut self, left: Retention) {
        if !left.is_empty() {
            self.schedule.retain_by(self.clock.monotonic_us() + RETENTION_PAUSE_US);
        }
        self.retention = left;
    }

    /// Adds to a commit what time asks for.
    pub(super) fn plan_upkeep(&mut self, work: &mut Work) {
        self.give_space_back(work);
        let now_us = self.clock.monotonic_us();
        if self.schedule.take_retention(now_us) {
            work.retention = std::mem::take(&mut self.retention);
            if work.retention.is_empty() {
                let queues = self.replica.catalog.catalog().iter();
                let bounded = queues.filter(|queue| Rules::of(queue).lets_go());
                work.retention.queues = bounded.map(|queue| queue.id).collect();
            }
            let oldest = self.config.dedup.oldest(self.now_ms());
            if let Err(error) = self.kv.drop_generations_before(oldest) {
                tracing::warn!(%error, "old transaction ids could not be dropped");
            }
            // After this commit, when what retention lets go of is gone.
            self.schedule.reclaim_by(now_us);
        }
    }
}
