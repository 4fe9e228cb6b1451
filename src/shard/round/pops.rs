//! Pops of one round: where a group's work is, and who gets it.
//!
//! A round with many consumers of one group looks through the shards once, not once for each. In:
//! pops, after everything else of the round is decided. Out: claims. Called by `round`.

use hashbrown::HashMap;

use crate::base::place::QueueId;
use crate::shard::command::Pop;
use crate::shard::round::{Outcome, Round};
use crate::state::catalog::Subscription;
use crate::state::draft::DecideError;
use crate::state::draft::pop::{Claim, PopAsk, PopBudget, PopStep};
use crate::state::effect::GroupIndex;

/// Where groups that this round met have work.
pub(super) type Outlooks<'a> = HashMap<(QueueId, &'a str), Outlook, foldhash::fast::RandomState>;

/// The shards that may have work for a group, in turn.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    shards: Vec<(usize, GroupIndex)>,
    /// The next one's place in `shards`.
    at: usize,
    /// Whether a shard with partitions did not know the group: the next round finds its work.
    is_new: bool,
}

/// What one pop got.
#[derive(Debug, Default)]
struct Haul {
    claims: Vec<Claim>,
    step: Option<PopStep>,
    /// What else there is, the next round finds.
    goes_on: bool,
}

impl<'a> Round<'a> {
    pub(super) fn pop(&mut self, pop: &'a Pop) -> Outcome {
        if pop.reply.is_closed() {
            return Outcome::None;
        }
        if self.maintenance().pop {
            return Outcome::Popped(Vec::new(), None);
        }
        let Some(queue) = self.catalog_state().find(pop.queue.as_str()) else {
            return Outcome::Popped(Vec::new(), None);
        };
        // Whether a message opens is not known here, and one that does not must stay.
        let auto_ack = pop.auto_ack && !queue.sealed;
        let (queue, group) = (queue.id, pop.group.as_str());
        let Some(known) = self.catalog_state().group(queue, group) else {
            return self.define_group(queue, pop);
        };
        if self.is_forgotten(queue, group) {
            return Outcome::Again;
        }
        let place = pop.partition.as_ref().map(|name| {
            let hash = self.replica.key().place(queue, name.as_str());
            (name.as_str(), hash)
        });
        let ask = PopAsk {
            queue,
            partition: place,
            group,
            token: pop.token,
            lease_ms: pop.lease_ms,
            auto_ack,
        };
        let taken = match place {
            Some((_, hash)) => self.take_from_one(&ask, pop.budget, known, hash),
            None => self.take_from_any(&ask, pop.budget, known),
        };
        let Haul { claims, step, goes_on } = match taken {
            Ok(haul) => haul,
            Err(error) => return Outcome::Failed(error),
        };
        if auto_ack && !claims.is_empty() {
            self.sync();
        }
        if goes_on && claims.is_empty() {
            return Outcome::Again;
        }
        let with_shard = |claim: Claim| (self.replica.count().of_partition(claim.partition), claim);
        Outcome::Popped(claims.into_iter().map(with_shard).collect(), step)
    }

    fn take_from_one(
        &mut self,
        ask: &PopAsk<'_>,
        mut budget: PopBudget,
        known: Subscription,
        hash: u64,
    ) -> Result<Haul, DecideError> {
        let (replica, mut haul) = (self.replica, Haul::default());
        let shard = replica.count().of_hash(hash);
        let Some(state) = replica.shards.get(usize::from(shard)) else { return Ok(haul) };
        let Some(group) = state.group(ask.queue, ask.group) else {
            haul.goes_on = self.register_where_missing(state, ask.queue, ask.group, known)?;
            return Ok(haul);
        };
        if let Some(draft) = self.draft(shard) {
            haul.step = Some(draft.pop(ask, group, &mut budget, &mut haul.claims)?);
        }
        Ok(haul)
    }

    /// From the shards in turn, each as far as it has work.
    fn take_from_any(
        &mut self,
        ask: &PopAsk<'a>,
        mut budget: PopBudget,
        known: Subscription,
    ) -> Result<Haul, DecideError> {
        let key = (ask.queue, ask.group);
        let mut outlook = match self.outlooks.remove(&key) {
            Some(outlook) => outlook,
            None => self.look_out(ask.queue, ask.group, known)?,
        };
        let mut haul = Haul { goes_on: outlook.is_new, ..Haul::default() };
        let (mut tried, mut failed) = (0, None);
        while !budget.is_spent() && tried < outlook.shards.len() {
            outlook.at %= outlook.shards.len();
            let Some((at, group)) = outlook.shards.get(outlook.at).copied() else { break };
            let Some(draft) = self.draft(at as u16) else { break };
            let before = haul.claims.len();
            match draft.pop(ask, group, &mut budget, &mut haul.claims) {
                Ok(step) => haul.step = Some(step),
                Err(error) => failed = Some(error),
            }
            haul.goes_on |= draft.has_seen_enough();
            if draft.has_work(group) {
                (outlook.at, tried) = (outlook.at + 1, tried + 1);
            } else {
                outlook.shards.remove(outlook.at);
            }
            if haul.claims.len() > before {
                self.turn = at + 1;
            }
        }
        self.outlooks.insert(key, outlook);
        match failed {
            // What was claimed is leased; the rest is asked again next time.
            Some(error) if haul.claims.is_empty() => Err(error),
            _ => Ok(haul),
        }
    }

    fn look_out(
        &mut self,
        queue: QueueId,
        group: &str,
        known: Subscription,
    ) -> Result<Outlook, DecideError> {
        let (replica, mut outlook) = (self.replica, Outlook::default());
        let count = replica.shards.len();
        let in_turn = (0..count).map(|step| (self.turn + step) % count.max(1));
        for at in in_turn.collect::<Vec<_>>() {
            let Some(state) = replica.shards.get(at) else { continue };
            let Some(index) = state.group(queue, group) else {
                outlook.is_new |= self.register_where_missing(state, queue, group, known)?;
                continue;
            };
            let has_ready = state.group_at(index).is_some_and(|it| it.ready_count > 0);
            let draft = self.drafts.get(at).and_then(Option::as_ref);
            if has_ready || draft.is_some_and(|draft| draft.has_work(index)) {
                outlook.shards.push((at, index));
            }
        }
        Ok(outlook)
    }
}
