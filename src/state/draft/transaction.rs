//! What a command may ask of one shard that stands or falls as a whole: verdicts that must each change
//! something, state keys, leases that must live.
//!
//! A plain ack may be said twice. One that goes with pushes must not: said again after its answer was
//! lost it would push again. So here an ack names messages that are open, all of them. Between
//! [`Draft::mark`] and [`Draft::keep`] or [`Draft::undo`]; called by `shard`.

use bytes::Bytes;

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::draft::ack::{AckItem, AckRefusal, Acked, Verdict};
use crate::state::draft::{DecideError, Draft};
use crate::state::effect::{Effect, GroupIndex, LeaseToken, OwnerId, Sequence};
use crate::state::model::Lease;
use crate::state::tally::{Tally, TallyChange};

/// A change of a state key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StateOp {
    /// It has this value.
    Put {
        /// The key, 1 to [`STATE_KEY_BYTES_MAX`](crate::state::states::STATE_KEY_BYTES_MAX) bytes.
        key: Bytes,
        /// The value, at most
        /// [`STATE_VALUE_BYTES_MAX`](crate::state::states::STATE_VALUE_BYTES_MAX) bytes.
        value: Bytes,
    },
    /// It has none.
    Remove {
        /// The key.
        key: Bytes,
    },
    /// It has none, and must have had one: whoever takes it is alone with it.
    Take {
        /// The key.
        key: Bytes,
    },
    /// It is counted on. Only tallies are ever put under such a key.
    Tally {
        /// The key.
        key: Bytes,
        /// What is added, and on which conditions.
        change: TallyChange,
    },
}

/// Why state keys were not changed: undo what the draft holds of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StateRefusal {
    /// There is no such partition, or its queue is deleted.
    NoPartition,
    /// A key that was to be taken has no value, or somebody took it before.
    NoKey,
    /// A tally does not allow its change, and is this.
    Tally(Tally),
    /// It could not be decided.
    Decide(DecideError),
}

impl Draft<'_> {
    /// Whether a live lease has this token, in the eyes of what this draft did so far.
    #[must_use]
    pub fn has_lease(&self, token: LeaseToken) -> bool {
        let Some(holders) = self.state.holders.get(&token) else { return false };
        holders.iter().any(|(local, group)| {
            let number = self.state.shards.number(self.state.shard, *local);
            let cursor = number.and_then(|number| self.cursor(number, *group));
            cursor.and_then(|it| it.lease).is_some_and(|lease| lease.token == token)
        })
    }

    /// Decides all items of a command for one partition and lease, each of which must change
    /// something.
    ///
    /// # Errors
    /// The first item that is refused, by its index, and why: undo what the draft holds of it.
    pub fn ack_whole(
        &mut self,
        partition: PartitionNumber,
        group: &str,
        token: Option<LeaseToken>,
        items: &[AckItem],
    ) -> Result<Vec<Acked>, (usize, AckRefusal)> {
        for (index, item) in items.iter().enumerate() {
            self.must_be_open(partition, group, token, item).map_err(|it| (index, it))?;
        }
        let results = self.ack(partition, group, token, items);
        let numbered = results.into_iter().enumerate();
        numbered.map(|(index, result)| result.map_err(|it| (index, it))).collect()
    }

    /// Gives a verdict on everything that a lease holds up to the last message of `item`: that is how
    /// a consumer speaks that works through its batch as one. A failure counts against that message
    /// only. With `release` the lease ends whatever it still holds. Without a token the group's live
    /// lease is meant.
    ///
    /// # Errors
    /// [`AckRefusal`]: undo what the draft holds of it.
    pub fn ack_through(
        &mut self,
        partition: PartitionNumber,
        group: &str,
        token: Option<LeaseToken>,
        item: &AckItem,
        release: bool,
    ) -> Result<Acked, AckRefusal> {
        let (index, lease) = self.lease_of(partition, group)?;
        let lease = lease.filter(|lease| token.is_none_or(|token| lease.token == token));
        let lease = lease.ok_or(AckRefusal::LeaseExpired)?;
        let last = AckItem { first: item.last, ..item.clone() };
        self.must_be_open(partition, group, Some(lease.token), &last)?;
        let item = match item.verdict {
            Verdict::Completed => AckItem { first: lease.from, ..item.clone() },
            Verdict::Failed | Verdict::Retry | Verdict::Dead => last,
        };
        let mut results = self.ack(partition, group, Some(lease.token), &[item]);
        let mut acked = results.pop().unwrap_or(Err(AckRefusal::LeaseExpired))?;
        if release && !acked.released {
            self.let_others_have(partition, index);
            acked.released = true;
        }
        Ok(acked)
    }

    /// Gives a verdict on everything that a lease still holds, and ends it; the messages that `item` names
    /// do not count. So a consumer that did nothing with its batch gives it back as if the lease had run
    /// out. Without a token the group's live lease is meant.
    ///
    /// # Errors
    /// [`AckRefusal`]: undo what the draft holds of it.
    pub fn ack_held(
        &mut self,
        partition: PartitionNumber,
        group: &str,
        token: Option<LeaseToken>,
        item: &AckItem,
    ) -> Result<Acked, AckRefusal> {
        let (index, lease) = self.lease_of(partition, group)?;
        let lease = lease.filter(|lease| token.is_none_or(|token| lease.token == token));
        let lease = lease.ok_or(AckRefusal::LeaseExpired)?;
        let cursor = self.cursor(partition, index);
        let open = cursor.map(|it| it.progress.open_ranges(lease.from, lease.to));
        let named =
            |(first, end): (Sequence, Sequence)| AckItem { first, last: end - 1, ..item.clone() };
        let items: Vec<AckItem> = open.into_iter().flatten().map(named).collect();
        let mut whole = Acked { released: true, ..Acked::default() };
        for acked in self.ack(partition, group, Some(lease.token), &items) {
            let Acked { settled, buried, .. } = acked?;
            whole.settled += settled;
            whole.buried += buried;
        }
        self.let_others_have(partition, index);
        Ok(whole)
    }

    /// Changes state keys of one owner and partition. Their sizes were checked. Returns the tallies
    /// that were counted on, in the order of their changes.
    ///
    /// # Errors
    /// [`StateRefusal`].
    pub fn change_states(
        &mut self,
        owner: OwnerId,
        partition: PartitionNumber,
        ops: &[StateOp],
    ) -> Result<Vec<Tally>, StateRefusal> {
        // One that this draft makes is as good.
        let is_new = self.new_partitions.values().any(|number| *number == partition);
        if !is_new && self.queue_of(partition).is_err() {
            return Err(StateRefusal::NoPartition);
        }
        let mut tallies = Vec::new();
        for op in ops.iter().cloned() {
            let effect = match op {
                StateOp::Put { key, value } => Effect::PutState { owner, partition, key, value },
                StateOp::Remove { key } => Effect::RemoveState { owner, partition, key },
                StateOp::Take { key } => {
                    self.take((owner, partition, key.clone()))?;
                    Effect::RemoveState { owner, partition, key }
                }
                StateOp::Tally { key, change } => {
                    let place = (owner, partition, key);
                    let tally = self.tally(&place)?.after(&change, self.now_ms);
                    let tally = tally.map_err(StateRefusal::Tally)?;
                    self.tallies.insert(place.clone(), tally);
                    tallies.push(tally);
                    let (owner, partition, key) = place;
                    Effect::PutState { owner, partition, key, value: tally.to_value() }
                }
            };
            self.effects.push(effect);
        }
        Ok(tallies)
    }

    /// Takes a key that no part of this draft has taken.
    fn take(&mut self, place: (OwnerId, PartitionNumber, Bytes)) -> Result<(), StateRefusal> {
        let (owner, partition, key) = &place;
        let keys = std::slice::from_ref(key);
        let rows = self.state.states_at(self.context.kv, *owner, *partition, keys);
        let rows = rows.map_err(|error| StateRefusal::Decide(error.into()))?;
        if rows.is_empty() || self.taken.contains_key(&place) {
            return Err(StateRefusal::NoKey);
        }
        self.taken.insert(place, ());
        Ok(())
    }

    /// A tally with what this draft counted.
    fn tally(&self, place: &(OwnerId, PartitionNumber, Bytes)) -> Result<Tally, StateRefusal> {
        if let Some(tally) = self.tallies.get(place) {
            return Ok(*tally);
        }
        let (owner, partition, key) = place;
        let keys = std::slice::from_ref(key);
        let rows = self.state.states_at(self.context.kv, *owner, *partition, keys);
        let rows = rows.map_err(|error| StateRefusal::Decide(error.into()))?;
        Ok(rows.first().and_then(|row| Tally::from_value(&row.value)).unwrap_or_default())
    }

    /// Ends all leases of groups of this name: whoever held them is gone. No attempt is counted.
    /// Returns how many ended.
    pub fn let_all_go(&mut self, group: &str) -> usize {
        let is_its =
            |index: &GroupIndex| self.state.group_at(*index).is_some_and(|it| *it.name == *group);
        let held = self.state.timers.iter().filter(|(_, _, index)| is_its(index));
        let held: Vec<(u32, GroupIndex)> = held.map(|(_, local, index)| (*local, *index)).collect();
        for (local, index) in &held {
            if let Some(number) = self.state.shards.number(self.state.shard, *local) {
                self.let_others_have(number, *index);
            }
        }
        held.len()
    }

    /// The queue of a partition, unless it is deleted: what it holds may go with this very entry.
    fn queue_of(&self, partition: PartitionNumber) -> Result<QueueId, AckRefusal> {
        let queue = self.state.partition(partition).map(|it| it.queue);
        let queue = queue.filter(|queue| self.context.catalog.get(*queue).is_some());
        queue.ok_or(AckRefusal::NoPartition(partition))
    }

    fn lease_of(
        &self,
        partition: PartitionNumber,
        group: &str,
    ) -> Result<(GroupIndex, Option<Lease>), AckRefusal> {
        let queue = self.queue_of(partition)?;
        let index = self.state.group(queue, group).ok_or(AckRefusal::NoGroup(partition))?;
        let cursor = self.cursor(partition, index).ok_or(AckRefusal::NoGroup(partition))?;
        Ok((index, cursor.lease))
    }

    fn must_be_open(
        &self,
        partition: PartitionNumber,
        group: &str,
        token: Option<LeaseToken>,
        item: &AckItem,
    ) -> Result<(), AckRefusal> {
        let AckItem { first, last, .. } = *item;
        let (index, lease) = self.lease_of(partition, group)?;
        if let Some(token) = token {
            let lease = lease.filter(|lease| lease.token == token);
            let lease = lease.ok_or(AckRefusal::LeaseExpired)?;
            if first < lease.from || last >= lease.to {
                return Err(AckRefusal::NoMessage { first, last });
            }
        }
        let end = self.state.partition(partition).map_or(0, |it| it.next_seq);
        if first > last || last >= end {
            return Err(AckRefusal::NoMessage { first, last });
        }
        let open = self.cursor(partition, index).map(|it| it.progress.open_ranges(first, last + 1));
        match open.as_deref() {
            Some([(from, to)]) if (*from, *to) == (first, last + 1) => Ok(()),
            _ => Err(AckRefusal::Settled { first, last }),
        }
    }

    fn let_others_have(&mut self, partition: PartitionNumber, group: GroupIndex) {
        if let Some(cursor) = self.cursor(partition, group).filter(|it| it.lease.is_some()) {
            self.settle(partition, group, cursor, true);
        }
    }
}
