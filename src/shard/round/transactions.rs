//! Transactions of one round: each is decided over the drafts of all its shards, and undone in all of
//! them where any part of it is refused.
//!
//! They come after the rings: what their producers pushed before them stands before them. In: commands
//! of the round. Out: outcomes. Called by `round`.

use std::collections::BTreeSet;

use bytes::{BufMut, BytesMut};

use crate::base::place::{PartitionNumber, ShardId};
use crate::buffer::receipt::Stored;
use crate::shard::command::{Command, Register, Registered};
use crate::shard::round::{Outcome, Round, tally_pushed};
use crate::shard::transaction::{
    Committed, OnDuplicate, PlaceNote, Reach, Refusal, StateChanges, StateOwner, Transaction,
    TransactionAck, TransactionAppend, place_value,
};
use crate::state::ShardState;
use crate::state::draft::DecideError;
use crate::state::draft::ack::{AckItem, AckRefusal, Acked};
use crate::state::draft::push::Pushed;
use crate::state::draft::transaction::{StateOp, StateRefusal};
use crate::state::effect::{Effect, OwnerId};
use crate::state::queries::{QueryDefinition, QueryId};
use crate::state::tally::Tally;

impl Round<'_> {
    pub(super) fn transactions(&mut self, commands: &[Command], outcomes: &mut [Outcome]) {
        for (command, outcome) in commands.iter().zip(outcomes) {
            if let Command::Transact(transaction) = command {
                *outcome =
                    Outcome::Transacted(self.whole(true, |round| round.decide_whole(transaction)));
            }
        }
    }

    fn decide_whole(&mut self, transaction: &Transaction) -> Result<Committed, Refusal> {
        let Transaction { leases, acks, states, appends, notes, on_duplicate, .. } = transaction;
        let replica = self.replica;
        for (index, token) in leases.iter().enumerate() {
            let holding = replica.shards.iter().filter(|state| state.holds(*token));
            let mut holding = holding.map(ShardState::shard);
            let lives = holding.any(|at| self.draft(at).is_some_and(|it| it.has_lease(*token)));
            if !lives {
                return Err(Refusal::Lease(index));
            }
        }
        let acks = self.ack_all(acks)?;
        let mut tallies = Vec::new();
        for (index, states) in states.iter().enumerate() {
            let changed = self.change_states(index, states)?;
            tallies.extend(changed.into_iter().map(|tally| (index, tally)));
        }
        let appends = appends.iter().enumerate();
        let appends = appends.map(|(index, append)| {
            let error = |error| Refusal::Append { index, error };
            let stored = self.append_one(append).map_err(error)?;
            match first_duplicate(&stored.pushed) {
                Some(record) if *on_duplicate == OnDuplicate::Fail => {
                    Err(Refusal::Duplicate { index, record })
                }
                _ => Ok(stored),
            }
        });
        let appends = appends.collect::<Result<Vec<_>, _>>()?;
        for note in notes {
            self.note_place(note, &appends);
        }
        let claims = self.hand_over(&transaction.appends, &appends);
        self.sync();
        Ok(Committed { acks, appends, claims, tallies })
    }

    fn ack_all(&mut self, acks: &[TransactionAck]) -> Result<Vec<Acked>, Refusal> {
        let mut results: Vec<Acked> = vec![Acked::default(); acks.len()];
        let mut done: BTreeSet<usize> = BTreeSet::new();
        for (index, ack) in acks.iter().enumerate() {
            if done.contains(&index) {
                continue;
            }
            // All of one partition and lease at once, so that they are decided together.
            let same = acks.iter().enumerate().skip(index).filter(|(_, other)| is_same(ack, other));
            let places: Vec<usize> = match ack.reach {
                Reach::Named => same.map(|(place, _)| place).collect(),
                Reach::Through { .. } | Reach::Held => vec![index],
            };
            let items = places.iter().filter_map(|at| acks.get(*at));
            let items: Vec<AckItem> = items.map(|ack| ack.item.clone()).collect();
            let decided = self.ack_some(ack, &items);
            let decided = decided.map_err(|(at, refusal)| Refusal::Ack {
                index: places.get(at).copied().unwrap_or(index),
                refusal,
            })?;
            for (place, acked) in places.iter().zip(decided) {
                results.get_mut(*place).into_iter().for_each(|it| *it = acked);
            }
            done.extend(places);
        }
        Ok(results)
    }

    fn ack_some(
        &mut self,
        ack: &TransactionAck,
        items: &[AckItem],
    ) -> Result<Vec<Acked>, (usize, AckRefusal)> {
        let missing = (0, AckRefusal::NoPartition(ack.partition));
        let shard = self.shard_of(ack.partition);
        let draft = self.draft(shard).ok_or(missing)?;
        let (partition, group, token) = (ack.partition, ack.group.as_str(), ack.token);
        match ack.reach {
            Reach::Named => draft.ack_whole(partition, group, token, items),
            Reach::Through { release } => {
                let acked = draft.ack_through(partition, group, token, &ack.item, release);
                acked.map(|acked| vec![acked]).map_err(|refusal| (0, refusal))
            }
            Reach::Held => {
                let acked = draft.ack_held(partition, group, token, &ack.item);
                acked.map(|acked| vec![acked]).map_err(|refusal| (0, refusal))
            }
        }
    }

    fn change_states(
        &mut self,
        index: usize,
        states: &StateChanges,
    ) -> Result<Vec<Tally>, Refusal> {
        let owner = self.owner(states.owner).ok_or(Refusal::NoQuery)?;
        let missing = Refusal::NoPartition(states.partition);
        let shard = self.shard_of(states.partition);
        let draft = self.draft(shard).ok_or(missing.clone())?;
        match draft.change_states(owner, states.partition, &states.ops) {
            Ok(tallies) => Ok(tallies),
            Err(StateRefusal::NoPartition) if states.may_miss => Ok(Vec::new()),
            Err(StateRefusal::NoPartition) => Err(missing),
            Err(StateRefusal::NoKey) => Err(Refusal::NoKey(index)),
            Err(StateRefusal::Tally(tally)) => Err(Refusal::Tally { index, tally }),
            Err(StateRefusal::Decide(error)) => Err(Refusal::States(error)),
        }
    }

    /// Notes where a record stands, if the partition of the note is there.
    fn note_place(&mut self, note: &PlaceNote, appends: &[Stored]) {
        let Some(Stored { partition: to, pushed }) = appends.get(note.append) else { return };
        let (seq, time_ms) = match pushed {
            Pushed::Stored { first_seq, time_ms, .. } => (first_seq + note.record as u64, *time_ms),
            Pushed::Mixed(outcomes) => match outcomes.get(note.record) {
                Some(outcome) => (outcome.message.seq, outcome.message.time_ms),
                None => return,
            },
        };
        let key = match note.partition {
            Some(_) => note.key.clone(),
            None => {
                let mut key = BytesMut::from(&*note.key);
                key.put_u64(seq);
                key.freeze()
            }
        };
        let partition = note.partition.unwrap_or(*to);
        let op = StateOp::Put { key, value: place_value(*to, seq, time_ms) };
        if let Some(draft) = self.draft(self.shard_of(partition)) {
            // A partition that is gone has nobody left who would ask.
            let _ = draft.change_states(note.owner, partition, &[op]);
        }
    }

    fn append_one(&mut self, append: &TransactionAppend) -> Result<Stored, DecideError> {
        let shard = self.replica.count().of_hash(append.hash);
        self.register_new_groups(shard, append.queue)?;
        let room = self.room(append.queue);
        let draft = self.draft(shard).ok_or(DecideError::QueueGone)?;
        let partition = draft.place(append.queue, append.partition.as_str(), append.hash)?;
        if append.backlog_max > 0 {
            draft.may_wait(partition, append.push.batch.count(), append.backlog_max)?;
        }
        let pushed = draft.push_within(partition, &append.push, room)?;
        if let Some(room) = self.rooms.get_mut(&append.queue) {
            room.left = room.left.saturating_sub(tally_pushed(&pushed).0);
        }
        Ok(Stored { partition, pushed })
    }

    fn shard_of(&self, partition: PartitionNumber) -> ShardId {
        self.replica.count().of_partition(partition)
    }

    fn owner(&self, owner: StateOwner) -> Option<OwnerId> {
        match owner {
            StateOwner::Number(owner) => Some(owner),
            StateOwner::Query(id) => self.query(|query| query.id == id).map(|query| query.owner),
        }
    }

    /// A query with what this round did to it.
    fn query(&self, is_it: impl Fn(&QueryDefinition) -> bool) -> Option<QueryDefinition> {
        let new = self.catalog.iter().rev().find_map(|effect| match effect {
            Effect::DefineQuery(query) if is_it(query) => Some((**query).clone()),
            _ => None,
        });
        let known = || self.catalog_state().queries().iter().find(|query| is_it(query));
        new.or_else(|| known().map(|query| (**query).clone()))
    }

    /// Makes a query known. One that is reset loses its state in every shard with one append: no
    /// engine can write a key of the old state after that without noticing.
    pub(super) fn register_query(&mut self, register: &Register) -> Registered {
        let Register { name, source, sink, config_hash, reset, .. } = register;
        let Some(found) = self.query(|query| query.name == *name) else {
            let (id, owner) = self.next_query();
            let query = QueryDefinition {
                id,
                owner,
                created_ms: self.context.now_ms,
                name: name.clone(),
                source: source.clone(),
                sink: sink.clone(),
                config_hash: config_hash.clone(),
            };
            self.define_query(query.clone());
            return Registered::Fresh(query);
        };
        if !reset && found.config_hash != *config_hash {
            return Registered::Changed(found);
        }
        let (source, sink) = (source.clone(), sink.clone());
        let config_hash = config_hash.clone();
        let mut query = QueryDefinition { source, sink, config_hash, ..found.clone() };
        if *reset {
            query.owner = self.next_query().1;
            for shard in 0..self.replica.count().get() {
                if let Some(draft) = self.draft(shard) {
                    draft.note(Effect::DropStates { owner: found.owner });
                }
            }
        }
        if query != found {
            self.define_query(query.clone());
        }
        if *reset { Registered::Reset(query) } else { Registered::Known(query) }
    }

    fn define_query(&mut self, query: QueryDefinition) {
        self.sync();
        self.catalog.push(Effect::DefineQuery(Box::new(query)));
    }

    /// The next numbers of a query and of an owner, after those that this round gave.
    fn next_query(&self) -> (QueryId, OwnerId) {
        let queries = self.catalog_state().queries();
        let mut next = (queries.next_id(), queries.next_owner());
        for effect in &self.catalog {
            if let Effect::DefineQuery(query) = effect {
                next.0 = next.0.max(query.id.saturating_add(1));
                next.1 = next.1.max(query.owner.saturating_add(1));
            }
        }
        next
    }
}

fn is_same(ack: &TransactionAck, other: &TransactionAck) -> bool {
    let of = |it: &TransactionAck| (it.partition, it.token, it.reach);
    of(ack) == of(other) && ack.group == other.group
}

fn first_duplicate(pushed: &Pushed) -> Option<usize> {
    match pushed {
        Pushed::Stored { .. } => None,
        Pushed::Mixed(outcomes) => outcomes.iter().position(|outcome| outcome.duplicate),
    }
}
