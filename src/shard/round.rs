//! One commit, on paper: what waits becomes entries and answers. Pure; nothing is changed here.
//!
//! The lane hands in what it gathered and the state; out comes a [`Plan`]: proposals for the log and
//! an outcome for everything. If the log refuses, the plan is thrown away and made again.

mod classes;
mod define;
mod groups;
mod hand_over;
mod pops;
mod pushes;
mod replays;
mod tend;
mod transactions;
mod upkeep;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::buffer::receipt::{Accepted, Receipt, Stored};
use crate::buffer::ring::Ring;
use crate::log::label::Label;
use crate::log::{AppendError, Durability, Proposal};
use crate::shard::command::{Ack, Classed, Command, GiveBack, Maintain, Registered};
use crate::shard::groups::{Forgotten, Sought};
use crate::shard::labels;
use crate::shard::replica::Replica;
use crate::shard::round::pops::Outlooks;
pub use crate::shard::round::replays::{Replay, ReplayItem, Replayed};
pub use crate::shard::round::upkeep::Retention;
use crate::shard::tend::Tended;
use crate::shard::transaction::{Committed, Refusal};
use crate::state::catalog::{Catalog, CatalogChange, QueueDefinition};
use crate::state::codec::{self, Chunk};
use crate::state::draft::ack::{AckItem, AckRefusal, Acked};
use crate::state::draft::gates::LetGo;
use crate::state::draft::pop::{Claim, PopStep};
use crate::state::draft::push::{Pushed, RecordOutcome, Room};
use crate::state::draft::upkeep::Extended;
use crate::state::draft::{Context, DecideError, Draft};
use crate::state::effect::{DeadLetter, Effect, Entry, Maintenance, Origin};
use crate::state::sleep::Sleeper;

/// Leases that lapse in one commit of one shard.
const LAPSES_PER_COMMIT: usize = 256;
/// Bytes of what lapsed leases leave, of all shards together, after which the others wait for the next
/// commit: all of it must fit into one append beside what else is committed, and nothing can part it.
const LAPSED_BYTES_PER_COMMIT: usize = 4 << 20;

/// What a commit is to decide.
#[derive(Debug, Default)]
pub struct Work {
    /// What the failover log has to be pushed again, before anything in `rings`.
    pub replay: Replay,
    /// Rings by shard, in the order taken.
    pub rings: Vec<(ShardId, Vec<Ring>)>,
    /// Commands in order of arrival.
    pub commands: Vec<Command>,
    /// What catalog changes ask of the shards.
    pub chores: Vec<CatalogChange>,
    /// Messages that were answered and wait in rings, of queues that have a limit.
    pub reserved: Vec<(QueueId, u64)>,
    /// Where retention is to be looked at.
    pub retention: Retention,
    /// Batches to be written again.
    pub relocations: Vec<(ShardId, Chunk)>,
    /// Dead letters to be written again.
    pub reburials: Vec<(ShardId, DeadLetter)>,
}

impl Work {
    /// Whether it holds nothing but pushes that have just come.
    #[must_use]
    pub fn is_only_pushes(&self) -> bool {
        let Self { replay, rings: _, reserved: _, commands, chores, .. } = self;
        let Self { retention, relocations, reburials, .. } = self;
        let has_upkeep = !(retention.is_empty() && relocations.is_empty() && reburials.is_empty());
        replay.items.is_empty() && commands.is_empty() && chores.is_empty() && !has_upkeep
    }

    /// Whether there is nothing to decide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rings.is_empty() && self.is_only_pushes()
    }
}

impl Work {
    /// Two parts that may be taken where the whole is not, the first to be committed first; or the
    /// whole again, where parts would not help. On a full disk only what needs little space (acks,
    /// leases, deleting) parts from what needs much. What is [reserved](Self::reserved) stays with the
    /// first: for the second it is to be asked again by then.
    ///
    /// # Errors
    /// The work itself when there are no such parts.
    pub fn split(mut self, error: &AppendError) -> Result<(Self, Self), Box<Self>> {
        let has_upkeep = !self.retention.is_empty()
            || !self.relocations.is_empty()
            || !self.reburials.is_empty();
        // What was there first is committed first.
        let has_replay = !self.replay.items.is_empty();
        let has_commands = !self.commands.is_empty() || !self.chores.is_empty() || has_replay;
        let too_large = matches!(error, AppendError::TooLarge { .. });
        let second = if !self.rings.is_empty() && (has_commands || has_upkeep) {
            // Transactions come behind the rings, together or not.
            let rings = std::mem::take(&mut self.rings);
            let whole = self.commands.extract_if(.., |it| matches!(it, Command::Transact(_)));
            let commands = whole.collect();
            if self.is_empty() {
                self.rings = rings;
                Self { commands, ..Self::default() }
            } else {
                Self { rings, commands, ..Self::default() }
            }
        } else if has_upkeep && has_commands {
            let commands = std::mem::take(&mut self.commands);
            let chores = std::mem::take(&mut self.chores);
            let replay = std::mem::take(&mut self.replay);
            std::mem::replace(&mut self, Self { commands, chores, replay, ..Self::default() })
        } else if too_large && self.commands.len() > 1 {
            let half = self.commands.len() / 2;
            Self { commands: self.commands.split_off(half), ..Self::default() }
        } else {
            return Err(Box::new(self));
        };
        Ok((self, second))
    }
}

/// What became of a command, as decided.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing to say: another part of the lane answers it.
    None,
    /// Claims, each with its shard; or why there are none.
    Popped(Vec<(ShardId, Claim)>, Option<PopStep>),
    /// The group is being made known: decide again after this commit.
    Again,
    /// One result per item.
    Acked(Vec<Result<Acked, AckRefusal>>),
    /// When the lease ends now.
    Extended(Option<Extended>),
    /// The queue as it is now.
    Defined(Arc<QueueDefinition>),
    /// Whether there was such a queue.
    Deleted(bool),
    /// Where a group went.
    Sought(Sought),
    /// What was forgotten of a group.
    Forgotten(Forgotten),
    /// How many queues know the group.
    Subscribed(u32),
    /// What is held back now.
    Maintained(Maintenance),
    /// What became of what an operator asked.
    Tended(Tended),
    /// The transaction stands, or why it does not.
    Transacted(Result<Committed, Refusal>),
    /// The query as it is now.
    Registered(Registered),
    /// The class as it is now.
    Classed(Classed),
    /// How many leases ended.
    LetGo(usize),
    /// It could not be decided.
    Failed(DecideError),
}

/// Decisions of one commit.
#[derive(Debug)]
pub struct Plan {
    /// Who decided it, and which of his appends it is.
    pub origin: Origin,
    /// The entries, in the order of the proposals.
    pub entries: Vec<(ShardId, Entry)>,
    /// The same for the log.
    pub proposals: Vec<Proposal>,
    /// What the strictest decision needs.
    pub durability: Durability,
    /// One receipt per pending push, in the order of [`Work::rings`].
    pub receipts: Vec<Receipt>,
    /// One per command.
    pub outcomes: Vec<Outcome>,
    /// One per batch of [`Work::replay`]; fewer when one of them could not be decided now.
    pub replayed: Vec<Replayed>,
    /// How many leases lapsed.
    pub lapsed: usize,
    /// The shard that the next round's first pop begins with: behind the last one that gave.
    pub turn: usize,
    /// What retention has still to look at, where that was too much for one commit.
    pub retention_left: Retention,
    /// Partitions that were met before their time, by shard.
    pub asleep: Vec<Asleep>,
    /// Messages that it removes.
    pub let_go: LetGo,
    /// Chores that are too much for one commit: the rest of them.
    pub unfinished: Vec<CatalogChange>,
}

/// Partitions of one shard that were met before their time.
#[derive(Debug)]
pub struct Asleep {
    /// The shard.
    pub shard: ShardId,
    /// Its head when the plan is applied; any other one, and somebody else has changed it.
    pub head: u64,
    /// Which, and until when.
    pub sleepers: Vec<Sleeper>,
}

impl Plan {
    /// Adds what engines that follow read instead of the entries.
    pub(super) fn add_briefs(&mut self) {
        for (proposal, (_, entry)) in self.proposals.iter_mut().zip(&self.entries) {
            proposal.brief = codec::encode_brief(entry);
        }
    }

    /// Whether it says no to somebody on the strength of a state that others may have changed: the log
    /// tells a stale decider only where it appends, or of what a proposal relies on.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        let is_no = |outcome: &Outcome| match outcome {
            Outcome::Popped(claims, _) => claims.is_empty(),
            Outcome::Acked(results) => results.iter().any(Result::is_err),
            Outcome::Extended(until) => until.is_none(),
            Outcome::Deleted(existed) => !existed,
            Outcome::Sought(sought) => !matches!(sought, Sought::Moved { .. }),
            Outcome::Forgotten(forgotten) => forgotten.queues == 0,
            Outcome::Subscribed(queues) => *queues == 0,
            Outcome::Defined(_)
            | Outcome::Failed(_)
            | Outcome::Tended(_)
            | Outcome::Classed(_)
            | Outcome::Registered(_) => true,
            Outcome::Transacted(decided) => decided.is_err(),
            Outcome::None | Outcome::Again | Outcome::Maintained(_) | Outcome::LetGo(_) => false,
        };
        self.outcomes.iter().any(is_no) || self.receipts.iter().any(Result::is_err)
    }
}

/// Decides all of `work` against `replica`; pops begin with shard `turn`.
#[must_use]
pub fn decide<'a>(
    replica: &'a Replica,
    context: Context<'a>,
    origin: Origin,
    turn: usize,
    work: &'a Work,
) -> Plan {
    let mut round = Round::new(replica, context, turn, origin.engine, work);
    let lapsed = round.lapse();
    let mut outcomes = round.commands(&work.commands);
    round.chores(&work.chores);
    let retention_left = round.upkeep(work);
    let replayed = round.replay(&work.replay);
    let mut receipts = Vec::new();
    for (shard, rings) in &work.rings {
        round.rings(*shard, rings, &mut receipts);
    }
    round.transactions(&work.commands, &mut outcomes);
    let Round { drafts, catalog, durability, turn, unfinished, .. } = round;
    let mut entries: Vec<(ShardId, Entry)> = Vec::new();
    let (mut asleep, mut let_go) = (Vec::new(), LetGo::default());
    for (shard, draft) in (0..).zip(drafts) {
        let Some(mut draft) = draft else { continue };
        let aside = draft.take_aside();
        let_go.add(aside.let_go);
        let entry = draft.finish(origin);
        if !aside.sleepers.is_empty() {
            let head = replica.head(shard) + u64::from(entry.is_some());
            asleep.push(Asleep { shard, head, sleepers: aside.sleepers });
        }
        entries.extend(entry.map(|entry| (shard, entry)));
    }
    let catalog_shard = replica.count().catalog();
    if !catalog.is_empty() {
        let time_ms = context.now_ms.max(replica.catalog.last_ms());
        entries.push((catalog_shard, Entry { time_ms, origin, effects: catalog }));
    }
    let catalog_head = replica.head(catalog_shard);
    let proposals = entries.iter().map(|(shard, entry)| {
        let labels = labels::of_entry(entry);
        // Each partition that is made has a label. In a queue that others deleted meanwhile, it would be
        // nobody's.
        let makes_partition = labels.iter().any(|it| matches!(it, Label::Partition { .. }));
        Proposal {
            shard: *shard,
            expected_head: replica.head(*shard),
            parts: codec::encode(entry),
            brief: None,
            relies_on: makes_partition.then_some((catalog_shard, catalog_head)),
            labels,
        }
    });
    let proposals = proposals.collect();
    Plan {
        origin,
        entries,
        proposals,
        durability,
        receipts,
        outcomes,
        replayed,
        lapsed,
        turn,
        retention_left,
        unfinished,
        asleep,
        let_go,
    }
}

struct Round<'a> {
    replica: &'a Replica,
    context: Context<'a>,
    /// By shard; made when first needed.
    drafts: Vec<Option<Draft<'a>>>,
    catalog: Vec<Effect>,
    durability: Durability,
    turn: usize,
    outlooks: Outlooks<'a>,
    /// The number of the engine that decides.
    engine: u64,
    /// Partitions in which this round looked for a time.
    looked: usize,
    unfinished: Vec<CatalogChange>,
    /// Shards that a command has drafts of whose decisions stand or fall together; `None` where
    /// nothing of the kind is being decided.
    marked: Option<BTreeSet<ShardId>>,
    /// What queues with a limit still take.
    rooms: HashMap<QueueId, Room>,
    /// As in [`Work::reserved`].
    reserved: &'a [(QueueId, u64)],
}

impl<'a> Round<'a> {
    fn new(
        replica: &'a Replica,
        context: Context<'a>,
        turn: usize,
        engine: u64,
        work: &'a Work,
    ) -> Self {
        Self {
            replica,
            context,
            drafts: replica.shards.iter().map(|_| None).collect(),
            catalog: Vec::new(),
            durability: Durability::Written,
            turn,
            outlooks: Outlooks::default(),
            engine,
            looked: 0,
            unfinished: Vec::new(),
            marked: None,
            rooms: HashMap::new(),
            reserved: &work.reserved,
        }
    }

    fn draft(&mut self, shard: ShardId) -> Option<&mut Draft<'a>> {
        let state = self.replica.shards.get(usize::from(shard))?;
        let (slot, context) = (self.drafts.get_mut(usize::from(shard))?, self.context);
        let draft = slot.get_or_insert_with(|| Draft::new(state, context));
        if self.marked.as_mut().is_some_and(|marked| marked.insert(shard)) {
            draft.mark();
        }
        Some(draft)
    }

    fn sync(&mut self) {
        self.durability = Durability::Synced;
    }

    fn lapse(&mut self) -> usize {
        let now_ms = self.context.now_ms;
        let due = self.replica.shards.iter().filter_map(|shard| {
            let due_ms = shard.next_timer_ms().filter(|due_ms| *due_ms <= now_ms)?;
            Some((due_ms, shard.shard()))
        });
        // Who has waited longest comes first, so that none is passed by for ever.
        let mut due: Vec<(u64, ShardId)> = due.collect();
        due.sort_unstable();
        let (mut lapsed, mut bytes_left) = (0, LAPSED_BYTES_PER_COMMIT);
        for (_, shard) in due {
            if bytes_left == 0 {
                break;
            }
            if let Some(draft) = self.draft(shard) {
                lapsed += draft.lapse(LAPSES_PER_COMMIT, &mut bytes_left);
            }
        }
        lapsed
    }

    /// Pops come last, so that they find what the others of this round let go: a partition that is
    /// acknowledged and popped again costs one commit and not two.
    fn commands(&mut self, commands: &'a [Command]) -> Vec<Outcome> {
        let is_pop = |command: &Command| matches!(command, Command::Pop(_));
        let mut outcomes: Vec<Outcome> = commands
            .iter()
            .map(|it| if is_pop(it) { Outcome::None } else { self.command(it) })
            .collect();
        for (command, outcome) in commands.iter().zip(&mut outcomes) {
            if let Command::Pop(pop) = command {
                *outcome = self.pop(pop);
            }
        }
        outcomes
    }

    fn command(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Ack(ack) => self.ack(ack),
            Command::Extend(extend) => {
                let until_ms = self.context.now_ms + extend.extend_ms;
                let shards = 0..self.replica.count().get();
                let ends = shards.filter_map(|shard| {
                    self.replica
                        .shards
                        .get(usize::from(shard))?
                        .holds(extend.token)
                        .then_some(())?;
                    self.draft(shard)?.extend(extend.token, until_ms)
                });
                Outcome::Extended(ends.reduce(Extended::with))
            }
            Command::GiveBack(GiveBack { token, partition, from }) => {
                let shard = self.replica.count().of_partition(*partition);
                if let Some(draft) = self.draft(shard) {
                    draft.give_back(*partition, *token, *from);
                }
                Outcome::None
            }
            Command::Define(define) => self.define(define),
            Command::Delete(delete) => {
                let is_meant = |id| delete.class.is_none_or(|it| self.newest_class(id) == it);
                let found = self.find(delete.name.as_str()).filter(|queue| is_meant(queue.id));
                if let Some(queue) = &found {
                    self.sync();
                    self.catalog.push(Effect::ForgetQueue { queue: queue.id });
                }
                Outcome::Deleted(found.is_some())
            }
            Command::Maintain(maintain) => {
                let now = self.maintenance();
                let Maintain { push, pop, .. } = maintain;
                let asked =
                    Maintenance { push: push.unwrap_or(now.push), pop: pop.unwrap_or(now.pop) };
                if asked != now {
                    self.sync();
                    self.catalog.push(Effect::Maintain(asked));
                }
                Outcome::Maintained(asked)
            }
            Command::Tend(tend) => self.tend(&tend.ask),
            Command::Seek(seek) => self.seek(seek),
            Command::ForgetGroup(forget) => self.forget_group(forget),
            Command::Subscribe(subscribe) => self.subscribe(subscribe),
            Command::Register(register) => Outcome::Registered(self.register_query(register)),
            Command::DefineClass(define) => Outcome::Classed(self.define_class(define)),
            Command::LetGo(let_go) => Outcome::LetGo(self.let_go(let_go.group.as_str())),
            Command::Pop(_)
            | Command::Transact(_)
            | Command::ReadStates(_)
            | Command::Find(_)
            | Command::Look(_)
            | Command::Watch(_)
            | Command::Survey(_)
            | Command::CheckpointDone { .. }
            | Command::Release
            | Command::Stop(_) => Outcome::None,
        }
    }

    /// A queue with what this round did to it.
    fn find(&self, name: &str) -> Option<Arc<QueueDefinition>> {
        let mut found = self.catalog_state().find(name).cloned();
        for effect in &self.catalog {
            match effect {
                Effect::DefineQueue(it) if *it.name == *name => {
                    found = Some(Arc::new((**it).clone()));
                }
                Effect::ForgetQueue { queue } => found = found.filter(|it| it.id != *queue),
                _ => {}
            }
        }
        found
    }

    /// What is held back, with what this round changed of it.
    fn maintenance(&self) -> Maintenance {
        let changed = self.catalog.iter().rev().find_map(|effect| match effect {
            Effect::Maintain(maintenance) => Some(*maintenance),
            _ => None,
        });
        changed.unwrap_or(self.catalog_state().maintenance())
    }

    /// Whether a queue's messages are rows too, with what this round changed of it.
    fn is_projected(&self, id: QueueId) -> bool {
        let changed = self.catalog.iter().rev().find_map(|effect| match effect {
            Effect::Project { queue, on } if *queue == id => Some(*on),
            _ => None,
        });
        changed.unwrap_or(self.catalog_state().is_projected(id))
    }

    fn catalog_state(&self) -> &'a Catalog {
        self.replica.catalog.catalog()
    }

    fn ack(&mut self, ack: &Ack) -> Outcome {
        let mut results: Vec<Option<Result<Acked, AckRefusal>>> =
            ack.items.iter().map(|_| None).collect();
        // All items of a partition at once, so that they are decided together.
        let mut by_partition: BTreeMap<PartitionNumber, Vec<usize>> = BTreeMap::new();
        for (at, (partition, _)) in ack.items.iter().enumerate() {
            by_partition.entry(*partition).or_default().push(at);
        }
        for (partition, places) in by_partition {
            let items = places.iter().filter_map(|at| ack.items.get(*at));
            let items: Vec<AckItem> = items.map(|(_, item)| item.clone()).collect();
            let shard = self.replica.count().of_partition(partition);
            let Some(draft) = self.draft(shard) else { continue };
            let decided = draft.ack(partition, ack.group.as_str(), ack.token, &items);
            for (place, result) in places.into_iter().zip(decided) {
                if let Some(slot) = results.get_mut(place) {
                    *slot = Some(result);
                }
            }
        }
        self.sync();
        let missing = |partition| Err(AckRefusal::NoPartition(partition));
        let pairs = results.into_iter().zip(&ack.items);
        Outcome::Acked(
            pairs.map(|(it, (partition, _))| it.unwrap_or(missing(*partition))).collect(),
        )
    }
}

/// Messages of a receipt that are new, and those that are duplicates.
#[must_use]
pub fn tally(receipt: &Receipt) -> (u64, u64) {
    receipt.as_ref().map_or((0, 0), tally_accepted)
}

fn tally_accepted(accepted: &Accepted) -> (u64, u64) {
    match accepted {
        Accepted::Stored(Stored { pushed, .. }) => tally_pushed(pushed),
        Accepted::Spilled { .. } => (0, 0),
    }
}

/// As [`tally`].
#[must_use]
pub fn tally_pushed(pushed: &Pushed) -> (u64, u64) {
    match pushed {
        Pushed::Stored { count, .. } => (u64::from(*count), 0),
        Pushed::Mixed(outcomes) => {
            let duplicate = |outcome: &&RecordOutcome| outcome.duplicate;
            let duplicates = outcomes.iter().filter(duplicate).count();
            ((outcomes.len() - duplicates) as u64, duplicates as u64)
        }
    }
}

#[cfg(test)]
mod tests;
