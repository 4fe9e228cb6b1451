//! What the lane does between commits: checkpoints and retention.

use crate::shard::checkpointer;
use crate::shard::lane::Lane;
use crate::shard::round::Work;
use crate::state::ShardState;
use crate::state::checkpoint::Checkpoint;

/// Changes in one shard that make its checkpoint hurry: bounds what memory holds beside the rows.
const CHANGES_MAX: usize = 4096;

impl Lane {
    /// Whether any shard has something for a checkpoint.
    pub(super) fn has_changes(&self) -> bool {
        self.replica.catalog.is_changed()
            || self.replica.shards.iter().any(|shard| shard.change_count() > 0)
    }

    /// Begins the next shard's checkpoint if it is time.
    pub(super) fn begin_checkpoint(&mut self) {
        let now_us = self.clock.monotonic_us();
        let is_large = |shard: &ShardState| shard.change_count() > CHANGES_MAX;
        if self.replica.shards.iter().any(is_large) {
            self.schedule.hurry(now_us);
        }
        let shards = self.replica.count().get() + 1;
        let Some(mut turns) = self.schedule.turns(shards, now_us) else { return };
        let Some(shard) = turns.find(|shard| self.wants_checkpoint(*shard)) else {
            return self.schedule.rest(now_us);
        };
        let checkpoint = self.checkpoint_of(shard);
        self.schedule.begin(shard, shards);
        self.checkpointer.write(checkpoint);
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
                self.replica.catalog.checkpoint(shard)
            }
        }
    }

    /// The checkpoint under way is written. One that failed is not ended: what it carried stays in
    /// memory, and there are no further checkpoints of this run.
    pub(super) fn end_checkpoint(&mut self, written: bool) {
        self.close_checkpoint(written);
        self.begin_checkpoint();
    }

    fn close_checkpoint(&mut self, written: bool) {
        self.checkpoints_failed |= !written;
        let Some(shard) = self.schedule.under_way().filter(|_| written) else { return };
        self.telemetry.checkpoints.add(1);
        match self.replica.shards.get_mut(usize::from(shard)) {
            Some(state) => state.end_checkpoint(),
            None => self.replica.catalog.end_checkpoint(),
        }
        self.schedule.end(self.clock.monotonic_us());
        let partitions: usize = self.replica.shards.iter().map(ShardState::partition_count).sum();
        self.telemetry.partitions.set(partitions as u64);
    }

    /// Writes everything that is not a row yet, in this thread: the next start has nothing to apply.
    pub(super) fn checkpoint_everything(&mut self) {
        let is_open = self.schedule.under_way().is_some();
        if self.checkpoints_failed || (is_open && !self.await_checkpoint()) {
            return;
        }
        for shard in 0..=self.replica.count().get() {
            let checkpoint = self.checkpoint_of(shard);
            if let Err(error) =
                checkpointer::write(&*self.log, &*self.kv, checkpoint, &self.runtime)
            {
                tracing::warn!(%error, "the last checkpoint failed; the next start reads the log");
                return;
            }
        }
    }

    fn await_checkpoint(&mut self) -> bool {
        // The writer answers through the inbox; commands that come with it are refused there.
        for _ in 0..1000 {
            for command in self.inbox.take() {
                if let crate::shard::command::Command::CheckpointDone { written } = command {
                    // Without beginning another: two of one shard at once would write what the
                    // later one knows without the changes that the earlier one carries.
                    self.close_checkpoint(written);
                    return written;
                }
                let stopping = crate::shard::command::CommandError::ShuttingDown;
                crate::shard::lane::fail_command(command, &stopping);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        false
    }

    /// Adds to a commit what time asks for.
    pub(super) fn plan_upkeep(&mut self, work: &mut Work) {
        self.give_space_back(work);
        let now_us = self.clock.monotonic_us();
        if self.schedule.take_retention(now_us) {
            let queues = self.replica.catalog.catalog().iter();
            let bounded = queues.filter(|queue| queue.options.retention_enabled);
            work.retention = bounded.map(|queue| queue.id).collect();
            let oldest = self.config.dedup.oldest(self.now_ms());
            if let Err(error) = self.kv.drop_generations_before(oldest) {
                tracing::warn!(%error, "old transaction ids could not be dropped");
            }
            // After this commit, when what retention lets go of is gone.
            self.schedule.reclaim_by(now_us);
        }
    }
}
