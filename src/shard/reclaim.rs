//! Giving the log's space back: what is dead at its front is dropped, and what lives there is written
//! again at its end, so that the front can be dropped.
//!
//! In: where runs and dead letters lie, from memory and rows. Out: relocations in the next commits,
//! and truncations. The log stays within twice of what lives in it, beside the newest segment and the
//! one before it: what dies behind a front that lives must not pile up. Called by the lane.

use std::collections::BTreeMap;

use crate::base::place::{PartitionNumber, ShardId};
use crate::log::{Extent, Front};
use crate::shard::lane::Lane;
use crate::shard::round::Work;
use crate::state::care::graves::DeadPlace;
use crate::state::kv::{KvError, Scan, Space};
use crate::state::model::Run;
use crate::state::{ShardState, codec, rows};

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
    /// Where something moved. Until their rows say so, they name the old places: they must reach
    /// behind these positions.
    rows_behind: BTreeMap<ShardId, u64>,
    /// What is waited for no longer than this, should it never come.
    give_up_at_us: u64,
}

/// What lives in the log but for its youngest part.
struct Survey {
    /// The lowest position where something lives, by shard.
    first: Vec<u64>,
    /// Bytes that live.
    bytes: u64,
    /// Where the oldest piece ends, by shard, and what lives in it.
    oldest_ends: Vec<u64>,
    oldest: Vec<Living>,
    oldest_bytes: u64,
}

impl Survey {
    fn note(&mut self, shard: ShardId, living: Living) {
        let Extent { position, len } = living.extent();
        if let Some(first) = self.first.get_mut(usize::from(shard)) {
            *first = (*first).min(position);
        }
        self.bytes += u64::from(len);
        if position < end_in(&self.oldest_ends, shard) {
            self.oldest_bytes += u64::from(len);
            self.oldest.push(living);
        }
    }
}

/// Where a part of the log ends for a shard.
fn end_in(ends: &[u64], shard: ShardId) -> u64 {
    ends.get(usize::from(shard)).copied().unwrap_or(0)
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
        self.moving.rows_behind.clear();
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
        let is_old = |(shard, behind): (&ShardId, &u64)| {
            let state = self.replica.shards.get(usize::from(*shard));
            state.is_some_and(|it| it.stored_position() <= *behind)
        };
        now_us < self.moving.give_up_at_us && self.moving.rows_behind.iter().any(is_old)
    }

    /// Looks at the log's front: drops it, or begins to move what lives in it, or leaves it.
    fn reclaim(&mut self) {
        let start = self.log.bounds().start;
        let Some(front) = self.log.front() else { return };
        let survey = match self.survey(&front) {
            Ok(survey) => survey,
            Err(error) => return tracing::warn!(%error, "the log's live part is unknown"),
        };
        if survey.oldest.is_empty() {
            self.truncate(&survey.first);
            if self.log.bounds().start == start {
                // Some shard's rows lack what it said: their checkpoint is due. Or it goes soon.
                let wait_us = self.config.checkpoint_interval_ms * 1000;
                self.schedule.reclaim_by(self.clock.monotonic_us() + wait_us.max(PAUSE_US));
            }
            return;
        }
        let piece = front.oldest_bytes;
        let is_sparse =
            (survey.oldest_bytes as f64) < piece as f64 * self.config.compaction_live_ratio;
        let is_large = front.old_bytes > 2 * survey.bytes + piece;
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

    /// What is kept in the old part of the log, by place.
    fn survey(&self, front: &Front) -> Result<Survey, KvError> {
        let mut survey = Survey {
            first: front.old_ends.clone(),
            bytes: 0,
            oldest_ends: front.oldest_ends.clone(),
            oldest: Vec::new(),
            oldest_bytes: 0,
        };
        let is_old = |shard, position| position < end_in(&front.old_ends, shard);
        for state in &self.replica.shards {
            let shard = state.shard();
            for (number, run) in state.recent_runs_before(end_in(&front.old_ends, shard)) {
                survey.note(shard, Living::Run(number, run));
            }
            let dead = state.recent_dead().values().flatten();
            let dead = dead.filter(|it| is_old(shard, it.position));
            dead.for_each(|place| survey.note(shard, Living::Dead(shard, *place)));
        }
        let count = self.replica.count();
        let shard_of = |number| self.replica.shards.get(usize::from(count.of_partition(number)));
        // What memory knows is newer than its row.
        self.kv.scan(Space::Runs, &[], &[], &mut |key, value| {
            if let Some((number, run)) = rows::parse_run(key, value)
                && let Some(state) = shard_of(number)
                && is_old(state.shard(), run.position)
                && state.is_row_only(number, &run)
            {
                survey.note(state.shard(), Living::Run(number, run));
            }
            Scan::Continue
        })?;
        self.kv.scan(Space::Dead, &[], &[], &mut |key, value| {
            if let Some((key, place)) = rows::parse_dead(key, value)
                && let Some(state) = shard_of(key.0)
                && is_old(state.shard(), place.position)
                && state.partition(key.0).is_some()
                && !state.recent_dead().contains_key(&key)
            {
                survey.note(state.shard(), Living::Dead(state.shard(), place));
            }
            Scan::Continue
        })?;
        Ok(survey)
    }

    fn move_some(&mut self, work: &mut Work) {
        let now_us = self.clock.monotonic_us();
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
            self.moving.rows_behind.insert(shard, self.log.end_of(shard));
        }
        if self.moving.left.is_empty() && !self.moving.rows_behind.is_empty() {
            self.schedule.reclaim_by(now_us + PAUSE_US);
        }
    }

    /// Lets go of the log before `ends`, by shard, as far as rows hold what it said. The rows are
    /// made durable first: from here on they cannot be rebuilt from the log alone.
    fn truncate(&mut self, ends: &[u64]) {
        if let Err(error) = self.kv.persist() {
            return tracing::warn!(%error, "the log keeps its oldest part: rows are not durable");
        }
        let stored = self.replica.shards.iter().map(ShardState::stored_position);
        let stored = stored.chain([self.replica.catalog.stored_position()]);
        for (shard, position) in (0..).zip(stored) {
            let floor = position.min(end_in(ends, shard));
            if let Err(error) = self.log.truncate_before(shard, floor) {
                return tracing::warn!(%error, "the log keeps its oldest part");
            }
        }
    }
}
