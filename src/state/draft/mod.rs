//! `decide`: commands become effects, against the state as it is durable.
//!
//! A draft collects the decisions of one commit. It reads the state, and beside it what it decided
//! itself, but never changes the state: that happens by applying the entry once the log has it. If
//! the log says that somebody else was first, the draft is thrown away and nothing has happened.
//!
//! [`push`] places and appends, [`pop`] leases what [`gates`] let through, [`ack`] settles, [`care`] moves
//! dead letters and deletes messages, [`group`] lets groups begin, go elsewhere and end, [`upkeep`] lets
//! leases lapse and trims; [`transaction`] has what only commands ask for that stand or fall as a whole,
//! `hand_over` leases to them what they append.
//! Pure: `now` is an argument. Called by `shard`.

pub mod ack;
pub mod backlog;
pub mod care;
pub mod gates;
pub mod group;
mod hand_over;
pub mod pop;
pub mod push;
mod reversible;
pub mod transaction;
pub mod upkeep;

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::care::graves::DeadKey;
use crate::state::catalog::Catalog;
use crate::state::classes::OWN_NAME;
use crate::state::draft::gates::LetGo;
use crate::state::draft::reversible::Reversible;
use crate::state::effect::{Effect, Entry, GroupIndex, Origin, OwnerId, Progress, Sequence};
use crate::state::kv::{Kv, KvError};
use crate::state::ledger::{self, DedupPolicy};
use crate::state::model::{Cursor, Lease};
use crate::state::sleep::Sleeper;
use crate::state::tally::Tally;
use crate::state::{Bodies, ShardState};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What decisions may read besides the shard's own state.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Wall time, unix milliseconds.
    pub now_ms: u64,
    /// Rows that earlier checkpoints wrote.
    pub kv: &'a dyn Kv,
    /// Bodies that earlier entries carry.
    pub bodies: &'a dyn Bodies,
    /// Queues and their settings.
    pub catalog: &'a Catalog,
    /// How long transaction ids are remembered.
    pub dedup: DedupPolicy,
}

/// Why a command could not be decided though nothing is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecideError {
    /// Rows could not be read; nothing was decided.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A body that should be in the log could not be read; nothing was decided.
    #[error("message {seq} of partition {partition} could not be read from the log")]
    BodyMissing {
        /// Its partition.
        partition: PartitionNumber,
        /// Its sequence.
        seq: Sequence,
    },
    /// The queue was deleted.
    #[error("the queue was deleted")]
    QueueGone,
    /// The queue asks for encryption, and this batch is not sealed: it is never stored in clear.
    #[error("the queue asks for encryption and the message is not sealed")]
    NotSealed,
    /// The queue would hold more messages that are not done than it may: nothing of the batch is
    /// stored.
    #[error("the queue holds as many messages that are not done as its maxSize of {limit} allows")]
    QueueFull {
        /// Its limit.
        limit: u64,
    },
    /// As many messages wait for the process as may: nothing of the batch is stored.
    #[error("the process has {waiting} messages waiting, as many as may")]
    Backlog {
        /// How many wait.
        waiting: u64,
    },
    /// A verdict asks for more at once, or leaves more behind, than a group may have: nothing of it is
    /// decided.
    #[error("the verdict is over the limit of {limit} {of}")]
    OverLimit {
        /// What there is too much of.
        of: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// A name that processes use themselves.
    #[error("`{OWN_NAME}` is the name of what processes use themselves")]
    OwnName,
    /// The shard has as many partitions as numbers allow.
    #[error("the shard has no number left for a new partition")]
    NumbersExhausted,
}

impl DecideError {
    /// Whether the same may be decided a moment later, unchanged.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Kv(_) | Self::BodyMissing { .. })
    }
}

/// A cursor as this draft sees it.
#[derive(Clone, Debug)]
struct CursorDraft {
    progress: Progress,
    lease: Option<Lease>,
}

/// The decisions of one commit in one shard.
pub struct Draft<'a> {
    state: &'a ShardState,
    context: Context<'a>,
    now_ms: u64,
    effects: Vec<Effect>,
    /// Groups that this draft drops.
    gone_groups: Vec<GroupIndex>,
    /// Dead letters that this draft made, by when they failed, or took away.
    letters: Reversible<DeadKey, Option<u64>>,
    /// Messages that this draft deleted.
    erased: HashSet<(PartitionNumber, Sequence)>,
    heads: Reversible<PartitionNumber, Sequence>,
    new_partitions: Reversible<(QueueId, Box<str>), PartitionNumber>,
    new_groups: Reversible<(QueueId, Box<str>), GroupIndex>,
    new_ids: Reversible<ledger::Key, ledger::First>,
    cursors: Reversible<(PartitionNumber, GroupIndex), CursorDraft>,
    /// Partitions that were placed and take sealed batches only.
    sealed_only: Reversible<PartitionNumber, ()>,
    /// State keys that this draft took.
    taken: Reversible<(OwnerId, PartitionNumber, Bytes), ()>,
    /// Tallies that this draft counted on.
    tallies: Reversible<(OwnerId, PartitionNumber, Bytes), Tally>,
    /// How far this draft has gone through each group's ready list.
    ready_at: FastMap<GroupIndex, usize>,
    /// Partitions that this draft took something of, without a lease on them now, and that have
    /// more work.
    left_over: FastMap<GroupIndex, VecDeque<PartitionNumber>>,
    /// Where a part began that may yet be undone.
    mark: Option<Mark>,
    /// Partitions that were met before their time, each with the number of effects by then.
    sleepers: Vec<(usize, Sleeper)>,
    /// First sequences that are kept of partitions that this draft trimmed or emptied.
    trimmed: FastMap<PartitionNumber, Sequence>,
    let_go: LetGo,
}

/// See [`Draft::mark`].
#[derive(Debug, Default)]
struct Mark {
    effects: usize,
    /// The groups of what came into `left_over` since.
    left_over: Vec<GroupIndex>,
}

/// What a draft learned and did beside its entry.
#[derive(Debug)]
pub struct Aside {
    /// Partitions to be left alone until their time comes, once the entry is applied.
    pub sleepers: Vec<Sleeper>,
    /// Messages that it removes.
    pub let_go: LetGo,
}

impl<'a> Draft<'a> {
    /// A draft of the shard's next entry. Its time is `context.now_ms`, or the last entry's if the
    /// clock went back.
    #[must_use]
    pub fn new(state: &'a ShardState, context: Context<'a>) -> Self {
        Self {
            state,
            now_ms: context.now_ms.max(state.last_ms),
            context,
            effects: Vec::new(),
            gone_groups: Vec::new(),
            letters: Reversible::default(),
            erased: HashSet::new(),
            heads: Reversible::default(),
            new_partitions: Reversible::default(),
            new_groups: Reversible::default(),
            new_ids: Reversible::default(),
            cursors: Reversible::default(),
            sealed_only: Reversible::default(),
            tallies: Reversible::default(),
            taken: Reversible::default(),
            ready_at: FastMap::default(),
            left_over: FastMap::default(),
            sleepers: Vec::new(),
            trimmed: FastMap::default(),
            let_go: LetGo::default(),
            mark: None,
        }
    }

    /// What is decided from here on stands or falls together: [`Self::keep`] or [`Self::undo`] must
    /// follow. Pops have no place in between.
    pub fn mark(&mut self) {
        // Named one by one, so that a new field asks what undoing means to it.
        let Self {
            state: _,
            context: _,
            now_ms: _,
            effects,
            heads,
            new_partitions,
            new_groups,
            new_ids,
            cursors,
            letters,
            sealed_only,
            tallies,
            taken,
            // Nobody who may be refused deletes messages or groups.
            gone_groups: _,
            erased: _,
            ready_at: _,
            left_over: _,
            // Nor lets go of any; and it meets nobody before his time.
            sleepers: _,
            trimmed: _,
            let_go: _,
            mark,
        } = self;
        *mark = Some(Mark { effects: effects.len(), left_over: Vec::new() });
        heads.mark();
        new_partitions.mark();
        new_groups.mark();
        new_ids.mark();
        cursors.mark();
        letters.mark();
        sealed_only.mark();
        tallies.mark();
        taken.mark();
    }

    /// What was decided since the mark stands.
    pub fn keep(&mut self) {
        self.mark = None;
        self.heads.keep();
        self.new_partitions.keep();
        self.new_groups.keep();
        self.new_ids.keep();
        self.cursors.keep();
        self.letters.keep();
        self.sealed_only.keep();
        self.tallies.keep();
        self.taken.keep();
    }

    /// What was decided since the mark never was.
    pub fn undo(&mut self) {
        let Some(mark) = self.mark.take() else { return };
        self.effects.truncate(mark.effects);
        for group in mark.left_over.into_iter().rev() {
            if let Some(list) = self.left_over.get_mut(&group) {
                list.pop_back();
            }
        }
        self.heads.undo();
        self.new_partitions.undo();
        self.new_groups.undo();
        self.new_ids.undo();
        self.cursors.undo();
        self.letters.undo();
        self.sealed_only.undo();
        self.tallies.undo();
        self.taken.undo();
    }

    /// The time that the entry will carry, unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Adds an effect that the shard only has to remember.
    pub fn note(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Whether nothing was decided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// All that later decisions of this draft rest on, in words.
    #[cfg(test)]
    pub(super) fn in_words(&self) -> String {
        fn sorted<K: std::fmt::Debug, V: std::fmt::Debug>(map: &Reversible<K, V>) -> Vec<String> {
            let mut all: Vec<String> = map.iter().map(|pair| format!("{pair:?}")).collect();
            all.sort();
            all
        }
        let mut left_over: Vec<_> = self.left_over.iter().filter(|it| !it.1.is_empty()).collect();
        left_over.sort();
        let (heads, partitions) = (sorted(&self.heads), sorted(&self.new_partitions));
        let (groups, ids) = (sorted(&self.new_groups), sorted(&self.new_ids));
        let (effects, cursors) = (&self.effects, sorted(&self.cursors));
        let (letters, tallies) = (sorted(&self.letters), sorted(&self.tallies));
        let taken = sorted(&self.taken);
        let known = format!("{heads:?} {partitions:?} {groups:?} {ids:?} {cursors:?} {letters:?}");
        format!("{effects:?} {known} {left_over:?} {tallies:?} {taken:?}")
    }

    /// What it learned and did beside its entry, once.
    pub fn take_aside(&mut self) -> Aside {
        let met = std::mem::take(&mut self.sleepers);
        let mut changed: FastMap<PartitionNumber, usize> = FastMap::default();
        if !met.is_empty() {
            for (at, effect) in self.effects.iter().enumerate() {
                if let Effect::Settle { partition, .. } | Effect::Trim { partition, .. } = effect {
                    changed.insert(*partition, at);
                }
            }
        }
        // What was decided later may have opened the gate.
        let holds = |(at, sleeper): &(usize, Sleeper)| {
            changed.get(&sleeper.partition).is_none_or(|changed| changed < at)
        };
        let sleepers = met.into_iter().map(|it| match holds(&it) {
            true => it.1,
            false => Sleeper { until_ms: self.now_ms, ..it.1 },
        });
        Aside { sleepers: sleepers.collect(), let_go: std::mem::take(&mut self.let_go) }
    }

    /// The entry; `None` when nothing was decided.
    #[must_use]
    pub fn finish(self, origin: Origin) -> Option<Entry> {
        let (time_ms, effects) = (self.now_ms, self.effects);
        (!effects.is_empty()).then_some(Entry { time_ms, origin, effects })
    }

    /// The cursor of a group in a partition with what this draft did to it.
    fn cursor(&self, number: PartitionNumber, group: GroupIndex) -> Option<CursorDraft> {
        if self.gone_groups.contains(&group) {
            return None;
        }
        let draft = self.cursors.get(&(number, group)).cloned();
        let of_state = |cursor: &Cursor| CursorDraft {
            progress: cursor.progress(),
            lease: cursor.lease.as_deref().copied(),
        };
        let cursor = draft.or_else(|| self.state.cursor(number, group).map(of_state));
        let mut cursor = cursor?;
        if let Some(base_seq) = self.trimmed.get(&number) {
            cursor.progress.advance_to(*base_seq);
        }
        Some(cursor)
    }

    fn put_cursor(&mut self, number: PartitionNumber, group: GroupIndex, cursor: CursorDraft) {
        self.cursors.insert((number, group), cursor);
    }

    fn settle(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        mut cursor: CursorDraft,
        release: bool,
    ) {
        cursor.progress.forget_waiting(self.now_ms);
        let progress = cursor.progress.clone();
        let lease = cursor.lease.filter(|_| !release);
        let visible = self.state.partition(partition).map_or(0, |it| it.next_seq);
        if lease.is_none() && progress.has_open(visible) {
            self.left_over.entry(group).or_default().push_back(partition);
            if let Some(mark) = &mut self.mark {
                mark.left_over.push(group);
            }
        }
        self.effects.push(Effect::Settle { partition, group, progress, release });
        self.put_cursor(partition, group, CursorDraft { lease, ..cursor });
    }
}
