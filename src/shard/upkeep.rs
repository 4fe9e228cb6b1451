//! What the lane does between commits: checkpoints, retention, and giving space back.

use std::collections::BTreeMap;

use crate::base::place::{PartitionNumber, ShardId};
use crate::log::Extent;
use crate::shard::checkpointer;
use crate::shard::lane::Lane;
use crate::shard::round::Work;
use crate::state::checkpoint::Checkpoint;
use crate::state::effect::Sequence;
use crate::state::kv::{KvError, Scan, Space};
use crate::state::model::Run;
use crate::state::{DeadPlace, ShardState, codec, rows};

/// Changes in one shard that make its checkpoint hurry: bounds what memory holds beside the rows.
const CHANGES_MAX: usize = 4096;
/// Bytes written again in one commit: compaction goes on beside traffic, not in front of it.
const RELOCATED_BYTES_PER_COMMIT: u64 = 1 << 20;

/// What is kept in some part of the log.
#[derive(Default)]
struct Live {
    runs: BTreeMap<(PartitionNumber, Sequence), Run>,
    dead: Vec<(ShardId, DeadPlace)>,
}

impl Live {
    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.dead.is_empty()
    }

    fn bytes(&self) -> u64 {
        let runs = self.runs.values().map(|run| u64::from(run.len));
        runs.chain(self.dead.iter().map(|(_, place)| u64::from(place.len))).sum()
    }
}

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
        let end = self.log.bounds().end;
        let Some(shard) = turns.find(|shard| self.wants_checkpoint(*shard, end)) else {
            return self.schedule.rest(now_us);
        };
        let checkpoint = self.checkpoint_of(shard, end);
        self.schedule.begin(shard, shards);
        self.checkpointer.write(checkpoint);
    }

    /// A shard with changes; or a quiet one whose rows say nothing of much of the log, so that a
    /// start would read it all for nothing.
    fn wants_checkpoint(&self, shard: u16, end: u64) -> bool {
        const QUIET_BYTES: u64 = 64 << 20;
        let (changed, stored) = match self.replica.shards.get(usize::from(shard)) {
            Some(state) => (state.change_count() > 0, state.stored_position()),
            None => {
                let catalog = &self.replica.catalog;
                (catalog.is_changed(), catalog.stored_position())
            }
        };
        changed || (self.config.sole_writer && end.saturating_sub(stored) > QUIET_BYTES)
    }

    fn checkpoint_of(&mut self, shard: u16, end: u64) -> Checkpoint {
        // This thread is the only one that appends, so all of the log up to its end is applied.
        let applied = if self.config.sole_writer { end } else { 0 };
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
        let end = self.log.bounds().end;
        for shard in 0..=self.replica.count().get() {
            let checkpoint = self.checkpoint_of(shard, end);
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
        if self.schedule.take_retention(self.clock.monotonic_us()) {
            let queues = self.replica.catalog.catalog().iter();
            let bounded = queues.filter(|queue| queue.options.retention_enabled);
            work.retention = bounded.map(|queue| queue.id).collect();
            let oldest = self.config.dedup.oldest(self.clock.now_ms());
            if let Err(error) = self.kv.drop_generations_before(oldest) {
                tracing::warn!(%error, "old transaction ids could not be dropped");
            }
            self.reclaim(work);
        }
    }

    /// Gives back the oldest part of the log: what is dead is dropped; what is left of it, if it is
    /// little, is written again so that it can be dropped next time.
    fn reclaim(&mut self, work: &mut Work) {
        let bounds = self.log.bounds();
        let window = self.config.segment_bytes.max(1);
        let end = bounds.start.saturating_add(window);
        // The newest segments are still being filled and checkpointed.
        if end.saturating_add(window) > bounds.end {
            return;
        }
        let live = match self.live_before(end) {
            Ok(live) => live,
            Err(error) => return tracing::warn!(%error, "the log's live part is unknown"),
        };
        if live.is_empty() {
            return self.truncate(end);
        }
        if (live.bytes() as f64) < window as f64 * self.config.compaction_live_ratio {
            self.relocate(live, work);
        }
    }

    /// What is kept and lies before a position, with its shard and partition.
    fn live_before(&self, end: u64) -> Result<Live, KvError> {
        let mut live = Live::default();
        for shard in &self.replica.shards {
            let recent = shard.recent_runs_before(end);
            live.runs.extend(recent.map(|(number, run)| ((number, run.first_seq), run)));
        }
        let count = self.replica.count();
        self.kv.scan(Space::Runs, &[], &[], &mut |key, value| {
            if let Some((number, run)) = rows::parse_run(key, value)
                && run.position < end
                && !live.runs.contains_key(&(number, run.first_seq))
                && let Some(shard) =
                    self.replica.shards.get(usize::from(count.of_partition(number)))
                && shard.is_live(number, &run)
            {
                // A run that moved is in memory until its row is written; memory is newer.
                live.runs.insert((number, run.first_seq), run);
            }
            Scan::Continue
        })?;
        for shard in &self.replica.shards {
            for number in shard.partition_numbers() {
                let dead = shard.dead_of(&*self.kv, number)?;
                let places = dead.into_values().filter(|place| place.position < end);
                live.dead.extend(places.map(|place| (shard.shard(), place)));
            }
        }
        Ok(live)
    }

    fn relocate(&mut self, live: Live, work: &mut Work) {
        let mut room = RELOCATED_BYTES_PER_COMMIT;
        for ((partition, _), run) in live.runs {
            let shard = self.replica.count().of_partition(partition);
            let place = self.log.body(shard, Extent { position: run.position, len: run.len });
            let Some(chunks) = place.ok().and_then(|place| codec::decode_chunks(place).ok()) else {
                continue;
            };
            work.relocations.extend(chunks.into_iter().map(|chunk| (shard, chunk)));
            room = room.saturating_sub(u64::from(run.len));
            if room == 0 {
                return;
            }
        }
        for (shard, place) in live.dead {
            let extent = Extent { position: place.position, len: place.len };
            let letter = self.log.body(shard, extent).ok();
            work.reburials.extend(
                letter.and_then(|it| codec::decode_dead(it).ok()).map(|letter| (shard, letter)),
            );
        }
    }

    /// Drops the log before `end`, as far as rows hold what it said. The rows are made durable
    /// first: from here on they cannot be rebuilt from the log alone.
    fn truncate(&mut self, end: u64) {
        if let Err(error) = self.kv.persist() {
            return tracing::warn!(%error, "the log keeps its oldest part: rows are not durable");
        }
        let stored = self.replica.shards.iter().map(ShardState::stored_position);
        let stored = stored.chain([self.replica.catalog.stored_position()]);
        for (shard, position) in (0..).zip(stored) {
            let floor = position.min(end);
            if let Err(error) = self.log.truncate_before(shard, floor) {
                return tracing::warn!(%error, "the log keeps its oldest part");
            }
        }
    }
}
