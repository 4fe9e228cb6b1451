//! `decide`: commands become effects, against the state as it is durable.
//!
//! A draft collects the decisions of one commit. It reads the state, and beside it what it decided
//! itself, but never changes the state: that happens by applying the entry once the log has it. If
//! the log says that somebody else was first, the draft is thrown away and nothing has happened.
//!
//! [`push`] places and appends, [`pop`] leases, [`ack`] settles, [`care`] moves dead letters and deletes
//! messages, [`group`] lets groups begin, go elsewhere and end, [`upkeep`] lets leases lapse and trims.
//! Pure: `now` is an argument. Called by `shard`.

pub mod ack;
pub mod care;
pub mod group;
pub mod pop;
pub mod push;
pub mod upkeep;

use std::collections::{BTreeSet, VecDeque};

use hashbrown::{HashMap, HashSet};

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::care::graves::DeadKey;
use crate::state::catalog::Catalog;
use crate::state::effect::{Effect, Entry, GroupIndex, Origin, Progress, Sequence};
use crate::state::kv::{Kv, KvError};
use crate::state::ledger::{self, DedupPolicy};
use crate::state::model::Lease;
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
    /// The shard has as many partitions as numbers allow.
    #[error("the shard has no number left for a new partition")]
    NumbersExhausted,
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
    heads: FastMap<PartitionNumber, Sequence>,
    new_partitions: HashMap<(QueueId, Box<str>), PartitionNumber>,
    new_groups: HashMap<(QueueId, Box<str>), GroupIndex>,
    /// Groups that this draft drops.
    gone_groups: Vec<GroupIndex>,
    new_ids: FastMap<ledger::Key, ledger::First>,
    cursors: FastMap<(PartitionNumber, GroupIndex), CursorDraft>,
    /// Dead letters that this draft made, by when they failed, or took away.
    letters: FastMap<DeadKey, Option<u64>>,
    /// Messages that this draft deleted, and from where partitions are kept after it.
    erased: HashSet<(PartitionNumber, Sequence)>,
    cleared: FastMap<PartitionNumber, Sequence>,
    /// Partitions that were placed and take sealed batches only.
    sealed_only: BTreeSet<PartitionNumber>,
    /// How far this draft has gone through each group's ready list.
    ready_at: FastMap<GroupIndex, usize>,
    /// Partitions that this draft took something of, without a lease on them now, and that have
    /// more work.
    left_over: FastMap<GroupIndex, VecDeque<PartitionNumber>>,
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
            heads: FastMap::default(),
            new_partitions: HashMap::new(),
            new_groups: HashMap::new(),
            gone_groups: Vec::new(),
            new_ids: FastMap::default(),
            cursors: FastMap::default(),
            letters: FastMap::default(),
            erased: HashSet::new(),
            cleared: FastMap::default(),
            sealed_only: BTreeSet::new(),
            ready_at: FastMap::default(),
            left_over: FastMap::default(),
        }
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
        if let Some(draft) = self.cursors.get(&(number, group)) {
            return Some(draft.clone());
        }
        let cursor = self.state.cursor(number, group)?;
        Some(CursorDraft { progress: cursor.progress(), lease: cursor.lease.as_deref().copied() })
    }

    fn put_cursor(&mut self, number: PartitionNumber, group: GroupIndex, cursor: CursorDraft) {
        self.cursors.insert((number, group), cursor);
    }

    fn settle(
        &mut self,
        partition: PartitionNumber,
        group: GroupIndex,
        cursor: CursorDraft,
        release: bool,
    ) {
        let progress = cursor.progress.clone();
        let lease = cursor.lease.filter(|_| !release);
        let visible = self.state.partition(partition).map_or(0, |it| it.next_seq);
        if lease.is_none() && progress.has_open(visible) {
            self.left_over.entry(group).or_default().push_back(partition);
        }
        self.effects.push(Effect::Settle { partition, group, progress, release });
        self.put_cursor(partition, group, CursorDraft { lease, ..cursor });
    }
}
