//! Consumer groups in a round: made known in the shards, sent elsewhere, forgotten.
//!
//! In: commands, and what the catalog asks of the shards. Out: effects of shards and of the catalog, in
//! one append. What has to look into many partitions is done a commit at a time, shard by shard. Called by
//! `round`.

use crate::base::place::{QueueId, ShardId};
use crate::shard::command::Pop;
use crate::shard::groups::{ForgetGroup, Forgotten, Seek, Sought, Subscribe};
use crate::shard::round::{Outcome, Round};
use crate::state::ShardState;
use crate::state::catalog::{CatalogChange, QueueDefinition, Subscription};
use crate::state::draft::DecideError;
use crate::state::draft::group::SeekTo;
use crate::state::effect::{Effect, GroupStart};

/// Partitions in which one commit looks for a time, or moves a cursor; the shard that exceeds it is
/// still taken along.
const LOOKS_PER_COMMIT: usize = 4096;

impl Round<'_> {
    /// Groups that this round makes known come before a partition that it may create: they were
    /// there first, and would miss what is pushed into it.
    pub(super) fn register_new_groups(
        &mut self,
        shard: ShardId,
        queue: QueueId,
    ) -> Result<(), DecideError> {
        let new = self.catalog.iter().filter_map(|effect| match effect {
            Effect::DefineGroup { queue: it, name, start } if *it == queue => {
                Some((name.clone(), *start))
            }
            _ => None,
        });
        let new: Vec<(Box<str>, GroupStart)> = new.collect();
        for (name, start) in new {
            if let Some(draft) = self.draft(shard) {
                draft.register(queue, &name, start)?;
            }
        }
        Ok(())
    }

    /// Carries out what catalog changes ask of the shards.
    pub(super) fn chores(&mut self, chores: &[CatalogChange]) {
        for chore in chores {
            match chore {
                CatalogChange::Queue(_) => {}
                CatalogChange::Group(queue, name) => {
                    let known = self.catalog_state().group(*queue, name);
                    // One that was forgotten meanwhile is not made known, and one that cannot be now
                    // is when somebody asks for it.
                    let Some(known) = known.filter(|_| !self.is_forgotten(*queue, name)) else {
                        continue;
                    };
                    let goes_on = self.register_everywhere(*queue, name, known.late_start());
                    if goes_on.unwrap_or(false) {
                        self.unfinished.push(chore.clone());
                    }
                }
                CatalogChange::NoGroup(queue, name) => {
                    if self.catalog_state().group(*queue, name).is_none() {
                        self.drop_everywhere(*queue, name);
                    }
                }
                CatalogChange::Gone(queue) => {
                    for state in &self.replica.shards {
                        if state.knows(*queue)
                            && let Some(draft) = self.draft(state.shard())
                        {
                            draft.drop_queue(*queue);
                        }
                    }
                }
            }
        }
    }

    /// Makes a group known where there are partitions; tells whether some are left for the next round.
    fn register_everywhere(
        &mut self,
        queue: QueueId,
        name: &str,
        start: GroupStart,
    ) -> Result<bool, DecideError> {
        for state in &self.replica.shards {
            if !state.has_partitions(queue) || state.group(queue, name).is_some() {
                continue;
            }
            if !self.may_look(state, queue, start) {
                return Ok(true);
            }
            if let Some(draft) = self.draft(state.shard()) {
                draft.register(queue, name, start)?;
            }
        }
        Ok(false)
    }

    /// Makes a group known where there are partitions made by somebody who did not know it yet; tells
    /// whether that was so.
    pub(super) fn register_where_missing(
        &mut self,
        state: &ShardState,
        queue: QueueId,
        name: &str,
        known: Subscription,
    ) -> Result<bool, DecideError> {
        let start = known.late_start();
        let is_missing = state.has_partitions(queue) && start.is_due(self.context.now_ms);
        if is_missing
            && self.may_look(state, queue, start)
            && let Some(draft) = self.draft(state.shard())
        {
            draft.register(queue, name, start)?;
        }
        Ok(is_missing)
    }

    /// Whether this round may still look for a time in a shard's partitions; it is taken to do so.
    fn may_look(&mut self, state: &ShardState, queue: QueueId, start: GroupStart) -> bool {
        if !matches!(start, GroupStart::Time(_)) {
            return true;
        }
        let may = self.looked < LOOKS_PER_COMMIT;
        if may {
            self.looked += state.partitions_in(queue);
        }
        may
    }

    /// The first contact of a group with a queue: what the consumer asks for is remembered, unless the
    /// group was there before and is remembered.
    pub(super) fn define_group(&mut self, queue: QueueId, pop: &Pop) -> Outcome {
        let name = pop.group.as_str();
        let is_it = |effect: &Effect| {
            matches!(effect, Effect::DefineGroup { queue: it, name: its, .. }
                if *it == queue && **its == *name)
        };
        if self.catalog.iter().any(is_it) || self.is_forgotten(queue, name) {
            return Outcome::Again;
        }
        let remembered = self.catalog_state().subscription(queue, name);
        let start = remembered.map_or(pop.start, Subscription::late_start);
        let noted = remembered.map_or(pop.start, |it| it.start);
        self.catalog.push(Effect::DefineGroup { queue, name: name.into(), start: noted });
        self.sync();
        match self.register_everywhere(queue, name, start) {
            // What is left is asked for by the catalog's own word, once it is applied.
            Ok(_) => Outcome::Again,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Whether this round forgets a group.
    pub(super) fn is_forgotten(&self, queue: QueueId, name: &str) -> bool {
        self.catalog.iter().any(|effect| {
            matches!(effect, Effect::ForgetGroup { queue: it, name: its, .. }
                if *it == queue && **its == *name)
        })
    }

    pub(super) fn seek(&mut self, seek: &Seek) -> Outcome {
        let Some(queue) = self.catalog_state().find(seek.queue.as_str()).map(|it| it.id) else {
            return Outcome::Sought(Sought::NoQueue);
        };
        let name = seek.group.as_str();
        if self.catalog_state().group(queue, name).is_none() || self.is_forgotten(queue, name) {
            return Outcome::Sought(Sought::NoGroup);
        }
        self.sync();
        let sought = match &seek.partition {
            Some(partition) => self.seek_one(queue, name, partition.as_str(), seek.to),
            None => self.seek_all(queue, name, seek.to, seek.from_shard),
        };
        sought.map_or_else(Outcome::Failed, Outcome::Sought)
    }

    fn seek_one(
        &mut self,
        queue: QueueId,
        group: &str,
        partition: &str,
        to: SeekTo,
    ) -> Result<Sought, DecideError> {
        let hash = self.replica.key().place(queue, partition);
        let shard = self.replica.count().of_hash(hash);
        let state = self.replica.shards.get(usize::from(shard));
        let number = state.and_then(|it| it.find(queue, partition, hash));
        let (Some(state), Some(number)) = (state, number) else { return Ok(Sought::NoPartition) };
        let mut moved = (0, None);
        if let Some(index) = state.group(queue, group)
            && let Some(draft) = self.draft(shard)
        {
            moved = draft.seek(queue, index, Some(number), to)?;
        }
        Ok(Sought::Moved { partitions: moved.0, next: moved.1, goes_on: None })
    }

    fn seek_all(
        &mut self,
        queue: QueueId,
        group: &str,
        to: SeekTo,
        from_shard: ShardId,
    ) -> Result<Sought, DecideError> {
        let (mut partitions, mut next) = (0, None);
        for state in self.replica.shards.iter().skip(usize::from(from_shard)) {
            let Some(index) = state.group(queue, group) else { continue };
            let shard = state.shard();
            if self.looked >= LOOKS_PER_COMMIT {
                return Ok(Sought::Moved { partitions, next, goes_on: Some(shard) });
            }
            let Some(draft) = self.draft(shard) else { continue };
            let (moved, last) = draft.seek(queue, index, None, to)?;
            self.looked += moved as usize;
            partitions += moved;
            next = last.or(next);
        }
        Ok(Sought::Moved { partitions, next, goes_on: None })
    }

    /// The queues that a command about a group means, of those that remember it.
    fn queues_of(&self, queue: Option<&str>, group: &str) -> Vec<QueueId> {
        let catalog = self.catalog_state();
        let is_meant = |it: &QueueDefinition| queue.is_none_or(|name| *it.name == *name);
        let meant = catalog.iter().filter(|it| is_meant(it)).map(|it| it.id);
        meant.filter(|it| catalog.subscription(*it, group).is_some()).collect()
    }

    pub(super) fn forget_group(&mut self, forget: &ForgetGroup) -> Outcome {
        let name = forget.group.as_str();
        let mut forgotten = Forgotten::default();
        for queue in self.queues_of(forget.queue.as_ref().map(|it| it.as_str()), name) {
            let keep_start = forget.keep_start;
            forgotten.queues += 1;
            forgotten.partitions += self.drop_everywhere(queue, name);
            self.catalog.push(Effect::ForgetGroup { queue, name: name.into(), keep_start });
            self.sync();
        }
        Outcome::Forgotten(forgotten)
    }

    /// Drops a group's cursors; returns how many there were.
    fn drop_everywhere(&mut self, queue: QueueId, name: &str) -> u64 {
        let mut partitions = 0;
        for state in &self.replica.shards {
            if state.group(queue, name).is_some()
                && let Some(draft) = self.draft(state.shard())
            {
                partitions += draft.drop_group(queue, name);
            }
        }
        partitions
    }

    pub(super) fn subscribe(&mut self, subscribe: &Subscribe) -> Outcome {
        let name = subscribe.group.as_str();
        let queues = self.queues_of(subscribe.queue.as_ref().map(|it| it.as_str()), name);
        for queue in &queues {
            let (queue, name, start) = (*queue, name.into(), subscribe.start);
            self.catalog.push(Effect::Subscribe { queue, name, start });
            self.sync();
        }
        Outcome::Subscribed(queues.len() as u32)
    }
}
