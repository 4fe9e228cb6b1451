//! Batches of the failover log in a round: decided as any push, before what came later, and marked
//! as done in the very entries that hold them.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::place::ShardId;
use crate::buffer::receipt::Stored;
use crate::failover::record::Spilled;
use crate::shard::round::Round;
use crate::state::draft::DecideError;
use crate::state::draft::push::Pushed;
use crate::state::effect::{Effect, SpillId};

/// What is to be pushed again.
#[derive(Debug, Default)]
pub struct Replay {
    /// The failover log that it comes from.
    pub spill: SpillId,
    /// Where the first of `items` stands.
    pub from: u64,
    /// In the order in which they came.
    pub items: Vec<ReplayItem>,
    /// Engine and number of appends whose answer was lost and that stand: what they hold is done.
    pub standing: BTreeSet<(u64, u64)>,
    /// Whether nothing waits behind these.
    pub is_last: bool,
}

/// One batch.
#[derive(Debug)]
pub struct ReplayItem {
    /// Its place in the failover log.
    pub position: u64,
    /// The place behind it.
    pub end: u64,
    /// Its shard.
    pub shard: ShardId,
    /// The placing hash of its partition.
    pub hash: u64,
    /// The batch.
    pub spilled: Spilled,
    /// The record that holds it.
    pub bytes: bytes::Bytes,
}

/// What became of one batch.
#[derive(Debug)]
pub enum Replayed {
    /// It is marked as done.
    Before,
    /// The append whose answer was lost had stored it.
    Stood,
    /// It is pushed.
    Done(Pushed),
    /// It will never be taken, and this is why: it is to be set aside.
    Refused(DecideError),
}

impl Round<'_> {
    /// Decides batches in order. Ends at the first that cannot be decided now: neither it nor what
    /// comes behind it has changed anything.
    pub(super) fn replay(&mut self, replay: &Replay) -> Vec<Replayed> {
        let mut outcomes = Vec::with_capacity(replay.items.len());
        let mut ends: BTreeMap<ShardId, u64> = BTreeMap::new();
        for item in &replay.items {
            let Ok(outcome) = self.replay_one(replay, item) else { break };
            if !matches!(outcome, Replayed::Before) {
                ends.insert(item.shard, item.end);
            }
            outcomes.push(outcome);
        }
        for (shard, position) in ends {
            self.sync();
            if let Some(draft) = self.draft(shard) {
                draft.note(Effect::Replayed { spill: replay.spill, position });
            }
        }
        outcomes
    }

    fn replay_one(&mut self, replay: &Replay, item: &ReplayItem) -> Result<Replayed, DecideError> {
        let state = self.replica.shards.get(usize::from(item.shard));
        let is_marked = state.is_some_and(|it| it.replayed(&replay.spill) >= item.end);
        let stands = item.spilled.doubt.is_some_and(|doubt| {
            replay.standing.contains(&(doubt.origin.engine, doubt.origin.append))
        });
        if is_marked {
            return Ok(Replayed::Before);
        }
        if stands {
            return Ok(Replayed::Stood);
        }
        let Spilled { queue, partition, push, .. } = &item.spilled;
        self.register_new_groups(item.shard, *queue)?;
        let Some(draft) = self.draft(item.shard) else { return Err(DecideError::QueueGone) };
        let pushed = draft
            .place(*queue, partition.as_str(), item.hash)
            .and_then(|partition| Ok(Stored { partition, pushed: draft.push(partition, push)? }));
        match pushed {
            Ok(Stored { pushed, .. }) => Ok(Replayed::Done(pushed)),
            // Tried again it would be refused again, and all behind it would wait for ever.
            Err(error) if !error.is_passing() => Ok(Replayed::Refused(error)),
            Err(error) => Err(error),
        }
    }
}
