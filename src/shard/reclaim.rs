//! Giving the log's space back: what is dead at its front is dropped, and what lives there is written
//! again at its end, so that the front can be dropped.
//!
//! In: where runs and dead letters lie, from memory and rows. Out: relocations in the next commits,
//! and truncations. The log stays within twice of what lives in it, beside the newest segment and the
//! one before it: what dies behind a front that lives must not pile up. Called by the lane.

use std::collections::BTreeSet;

use crate::base::place::{PartitionNumber, ShardId};
use crate::log::Extent;
use crate::shard::lane::Lane;
use crate::shard::round::Work;
use crate::state::kv::{KvError, Scan, Space};
use crate::state::model::Run;
use crate::state::{DeadPlace, ShardState, codec, rows};

/// Bytes written again in one commit: compaction goes on beside traffic, not in front of it.
const MOVED_BYTES_PER_COMMIT: u64 = 1 << 20;
/// Shortest pause between two looks at the log.
const PAUSE_US: u64 = 100_000;
/// A look may take this part of the lane's time.
const LOOK_SHARE: u64 = 20;
/// Checkpoint intervals after which rows that should have been written are not waited for.
const CHECKPOINTS_AWAITED: u64 = 10;

/// Something that lies in the log and is kept.
#[derive(Clone, Copy, Debug)]
enum Living {
    Run(PartitionNumber, Run),
    Dead(ShardId, DeadPlace),
}

impl Living {
    fn extent(&self) -> Extent {
        match self {
            Self::Run(_, run) => Extent { position: run.position, len: run.len },
            Self::Dead(_, place) => Extent { position: place.position, len: place.len },
        }
    }
}

/// What is being written again.
#[derive(Debug, Default)]
pub(super) struct Moving {
    left: Vec<Living>,
    /// Where something moved. Until their rows say so, they name the old places.
    shards: BTreeSet<ShardId>,
    /// The rows must reach behind this log position; or this time, should that never come.
    rows_behind: u64,
    give_up_at_us: u64,
}

/// What lives in the log but for its youngest part.
struct Survey {
    /// The lowest position where something lives.
    first: u64,
    /// Bytes that live.
    bytes: u64,
    /// Where the oldest part ends, and what lives in it.
    oldest_end: u64,
    oldest: Vec<Living>,
    oldest_bytes: u64,
}

impl Survey {
    fn note(&mut self, living: Living) {
        let Extent { position, len } = living.extent();
        self.first = self.first.min(position);
        self.bytes += u64::from(len);
        if position < self.oldest_end {
            self.oldest_bytes += u64::from(len);
            self.oldest.push(living);
        }
    }
}

impl Lane {
    /// Adds to a commit what is to be written again, and looks for more when it is time.
    pub(super) fn give_space_back(&mut self, work: &mut Work) {
        if self.stopping.is_some() {
            return;
        }
        if !self.moving.left.is_empty() {
            return self.move_some(work);
        }
        let now_us = self.clock.monotonic_us();
        if !self.schedule.take_reclaim(now_us) {
            return;
        }
        if self.awaits_rows(now_us) {
            return self.schedule.reclaim_by(now_us + PAUSE_US);
        }
        self.moving.shards.clear();
        let start = self.log.bounds().start;
        self.reclaim();
        let done_us = self.clock.monotonic_us();
        let pause_us = PAUSE_US.max((done_us - now_us) * LOOK_SHARE);
        if !self.moving.left.is_empty() || self.log.bounds().start > start {
            self.schedule.reclaim_by(done_us + pause_us);
        }
    }

    /// Whether rows still name places that something has moved away from.
    fn awaits_rows(&self, now_us: u64) -> bool {
        let is_old = |shard: &ShardId| {
            let state = self.replica.shards.get(usize::from(*shard));
            state.is_some_and(|it| it.stored_position() <= self.moving.rows_behind)
        };
        now_us < self.moving.give_up_at_us && self.moving.shards.iter().any(is_old)
    }

    /// Looks at the log's front: drops it, or begins to move what lives in it, or leaves it.
    fn reclaim(&mut self) {
        let bounds = self.log.bounds();
        let window = self.config.segment_bytes.max(1);
        // The newest segments are still being filled and checkpointed.
        let young = bounds.end.saturating_sub(window);
        let oldest_end = bounds.start.saturating_add(window);
        if oldest_end > young {
            return;
        }
        let survey = match self.survey(oldest_end, young) {
            Ok(survey) => survey,
            Err(error) => return tracing::warn!(%error, "the log's live part is unknown"),
        };
        if survey.oldest.is_empty() {
            self.truncate(survey.first);
            if self.log.bounds().start == bounds.start {
                // Some shard's rows lack what it said: their checkpoint is due.
                let wait_us = self.config.checkpoint_interval_ms * 1000;
                self.schedule.reclaim_by(self.clock.monotonic_us() + wait_us.max(PAUSE_US));
            }
            return;
        }
        let is_sparse =
            (survey.oldest_bytes as f64) < window as f64 * self.config.compaction_live_ratio;
        let is_large = young - bounds.start > 2 * survey.bytes + window;
        if is_sparse || is_large {
            // Taken from the end: the lowest sequences of each partition come first.
            let key = |living: &Living| match living {
                Living::Run(number, run) => (0, *number, run.first_seq),
                Living::Dead(_, place) => (1, 0, place.position),
            };
            self.moving.left = survey.oldest;
            self.moving.left.sort_unstable_by_key(|living| std::cmp::Reverse(key(living)));
        }
    }

    /// What is kept before the position `young`, by place.
    fn survey(&self, oldest_end: u64, young: u64) -> Result<Survey, KvError> {
        let (oldest, oldest_bytes) = (Vec::new(), 0);
        let mut survey = Survey { first: young, bytes: 0, oldest_end, oldest, oldest_bytes };
        for shard in &self.replica.shards {
            for (number, run) in shard.recent_runs_before(young) {
                survey.note(Living::Run(number, run));
            }
            let dead = shard.recent_dead().values().filter(|place| place.position < young);
            dead.for_each(|place| survey.note(Living::Dead(shard.shard(), *place)));
        }
        let count = self.replica.count();
        let shard_of = |number| self.replica.shards.get(usize::from(count.of_partition(number)));
        // What memory knows is newer than its row.
        self.kv.scan(Space::Runs, &[], &[], &mut |key, value| {
            if let Some((number, run)) = rows::parse_run(key, value)
                && run.position < young
                && shard_of(number).is_some_and(|shard| shard.is_row_only(number, &run))
            {
                survey.note(Living::Run(number, run));
            }
            Scan::Continue
        })?;
        self.kv.scan(Space::Dead, &[], &[], &mut |key, value| {
            if let Some((key, place)) = rows::parse_dead(key, value)
                && place.position < young
                && let Some(shard) = shard_of(key.0)
                && shard.partition(key.0).is_some()
                && !shard.recent_dead().contains_key(&key)
            {
                survey.note(Living::Dead(shard.shard(), place));
            }
            Scan::Continue
        })?;
        Ok(survey)
    }

    fn move_some(&mut self, work: &mut Work) {
        let now_us = self.clock.monotonic_us();
        self.moving.rows_behind = self.log.bounds().end;
        let patience_us = CHECKPOINTS_AWAITED * self.config.checkpoint_interval_ms * 1000;
        self.moving.give_up_at_us = now_us + patience_us;
        let mut room = MOVED_BYTES_PER_COMMIT;
        while room > 0 {
            let Some(living) = self.moving.left.pop() else { break };
            let shard = match living {
                Living::Run(number, _) => self.replica.count().of_partition(number),
                Living::Dead(shard, _) => shard,
            };
            let extent = living.extent();
            room = room.saturating_sub(u64::from(extent.len));
            // What cannot be read stays where it is, and the log's front with it.
            let Ok(bytes) = self.log.body(shard, extent) else { continue };
            match living {
                Living::Run(..) => {
                    let Ok(chunks) = codec::decode_chunks(bytes) else { continue };
                    work.relocations.extend(chunks.into_iter().map(|chunk| (shard, chunk)));
                }
                Living::Dead(..) => {
                    let Ok(letter) = codec::decode_dead(bytes) else { continue };
                    work.reburials.push((shard, letter));
                }
            }
            self.moving.shards.insert(shard);
        }
        if self.moving.left.is_empty() && !self.moving.shards.is_empty() {
            self.schedule.reclaim_by(now_us + PAUSE_US);
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
