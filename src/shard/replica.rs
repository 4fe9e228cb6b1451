//! Everything that the log says, as state: all shards and the catalog.
//!
//! Built at start from rows and the log's tail; then fed with what the lane appended and with what
//! other engines appended. Called by the lane, and by start-up.

use crate::base::place::{QueueId, ShardCount, ShardId, StoreKey};
use crate::log::{Followed, StoredEntry};
use crate::state::ShardState;
use crate::state::catalog::{CatalogChange, CatalogShard};
use crate::state::checkpoint::LoadError;
use crate::state::codec::{self, EntryError};
use crate::state::effect::{Effect, Entry};
use crate::state::kv::Kv;

/// Why the log cannot be applied to the state.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// The log begins behind what the state has: the state is older than the log's oldest part.
    #[error("shard {shard} has {head} entries and the log goes on with entry {index}")]
    Missing {
        /// The shard.
        shard: ShardId,
        /// Entries applied.
        head: u64,
        /// The entry found.
        index: u64,
    },
    /// An entry's bytes make no sense.
    #[error("entry {index} of shard {shard}: {error}")]
    Entry {
        /// The shard.
        shard: ShardId,
        /// The entry.
        index: u64,
        /// What is wrong.
        error: EntryError,
    },
}

/// All state of an engine.
#[derive(Debug)]
pub struct Replica {
    /// The shards, by number.
    pub shards: Vec<ShardState>,
    /// The catalog's shard.
    pub catalog: CatalogShard,
    /// What applied catalog entries ask of the shards; the lane takes it.
    pub chores: Vec<CatalogChange>,
    count: ShardCount,
    key: StoreKey,
}

impl Replica {
    /// Without a history.
    #[must_use]
    pub fn new(count: ShardCount, key: StoreKey) -> Self {
        let shards = (0..count.get()).map(|shard| ShardState::new(shard, count, key)).collect();
        Self { shards, catalog: CatalogShard::default(), chores: Vec::new(), count, key }
    }

    /// From rows; what the log has beyond them is to be applied next.
    ///
    /// # Errors
    /// [`LoadError`] when rows cannot be read: start from [`Self::new`] and the whole log.
    pub fn load(count: ShardCount, key: StoreKey, kv: &dyn Kv) -> Result<Self, LoadError> {
        let shards = (0..count.get()).map(|shard| ShardState::load(shard, count, key, kv));
        let shards = shards.collect::<Result<_, _>>()?;
        let catalog = CatalogShard::load(count.catalog(), kv)?;
        Ok(Self { shards, catalog, chores: Vec::new(), count, key })
    }

    /// Takes one shard from its rows again, whatever it was before.
    ///
    /// # Errors
    /// [`LoadError`] when the rows cannot be read; it is as it was then.
    pub fn reload(&mut self, shard: ShardId, kv: &dyn Kv) -> Result<(), LoadError> {
        if shard == self.count.catalog() {
            self.catalog = CatalogShard::load(shard, kv)?;
        } else if let Some(state) = self.shards.get_mut(usize::from(shard)) {
            *state = ShardState::load(shard, self.count, self.key, kv)?;
        }
        self.count_undone();
        Ok(())
    }

    /// How many shards, without the catalog's.
    #[must_use]
    pub fn count(&self) -> ShardCount {
        self.count
    }

    /// The store's key.
    #[must_use]
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Per shard, the catalog's last: entries applied, and the position behind them.
    #[must_use]
    pub fn applied(&self) -> Vec<(u64, u64)> {
        let shards = self.shards.iter().map(|shard| (shard.head(), shard.position()));
        shards.chain([(self.catalog.head(), self.catalog.position())]).collect()
    }

    /// Entries applied in one shard.
    #[must_use]
    pub fn head(&self, shard: ShardId) -> u64 {
        if shard == self.count.catalog() {
            return self.catalog.head();
        }
        self.shards.get(usize::from(shard)).map_or(0, ShardState::head)
    }

    /// Applies a shard's next entry.
    pub fn apply(&mut self, shard: ShardId, entry: &Entry, position: u64, len: u64) {
        self.apply_by(shard, entry, (position, len), |state| state.apply(entry, position, len));
    }

    fn apply_by(
        &mut self,
        shard: ShardId,
        entry: &Entry,
        (position, len): (u64, u64),
        apply: impl FnOnce(&mut ShardState),
    ) {
        if shard == self.count.catalog() {
            let changes = self.catalog.apply(entry, position, len);
            for change in &changes {
                self.heed(change);
            }
            self.chores.extend(changes);
        } else if let Some(state) = self.shards.get_mut(usize::from(shard)) {
            apply(state);
            // Whoever made a partition may not have known all groups of its queue.
            for effect in &entry.effects {
                if let Effect::CreatePartition { queue, .. } = effect {
                    self.chores.extend(unregistered(&self.catalog, state, *queue));
                }
            }
        }
    }

    /// Lets shards do at once what needs no entry: look again at what waits, count what has a limit.
    fn heed(&mut self, change: &CatalogChange) {
        let (CatalogChange::Queue(queue) | CatalogChange::Gone(queue)) = change else { return };
        let wanted = self.catalog.catalog().get(*queue).is_some_and(|it| it.options.max_size > 0);
        for shard in &mut self.shards {
            shard.wake_queue(*queue);
            shard.count_undone(*queue, wanted);
        }
    }

    /// Counts what is not done in all queues that have a limit.
    pub fn count_undone(&mut self) {
        let queues: Vec<QueueId> = self.limited().collect();
        for shard in &mut self.shards {
            queues.iter().for_each(|queue| shard.count_undone(*queue, true));
        }
    }

    /// Messages that are not done, of all queues that have a limit.
    pub fn undone(&self) -> impl Iterator<Item = (QueueId, u64)> + '_ {
        self.limited().map(|queue| (queue, self.undone_of(queue)))
    }

    /// The same of one of them.
    #[must_use]
    pub fn undone_of(&self, queue: QueueId) -> u64 {
        self.shards.iter().map(|shard| shard.undone(queue)).sum()
    }

    fn limited(&self) -> impl Iterator<Item = QueueId> + '_ {
        let queues = self.catalog.catalog().iter();
        queues.filter(|queue| queue.options.max_size > 0).map(|queue| queue.id)
    }

    /// Applies an entry that was read from the log; returns it decoded. One that is applied
    /// already is left alone.
    ///
    /// # Errors
    /// [`ReplayError`] when the entry makes no sense or entries before it are missing: this engine
    /// cannot go on.
    pub fn apply_stored(&mut self, stored: &StoredEntry) -> Result<Option<Entry>, ReplayError> {
        if !self.is_next(stored)? {
            return Ok(None);
        }
        let entry =
            codec::decode(stored.bytes.clone()).map_err(|error| senseless(stored, error))?;
        self.apply(stored.shard, &entry, stored.position, stored.bytes.len() as u64);
        Ok(Some(entry))
    }

    /// The same of an entry as whoever follows the log gets it. Where it is a brief, the batches of the
    /// entry returned are empty.
    ///
    /// # Errors
    /// As [`Self::apply_stored`].
    pub fn apply_followed(&mut self, followed: &Followed) -> Result<Option<Entry>, ReplayError> {
        let Followed { entry: stored, is_brief: true, len } = followed else {
            return self.apply_stored(&followed.entry);
        };
        if !self.is_next(stored)? {
            return Ok(None);
        }
        let decoded = codec::decode_brief(stored.bytes.clone());
        let (entry, lens) = decoded.map_err(|error| senseless(stored, error))?;
        let (at, len) = (stored.position, *len);
        self.apply_by(stored.shard, &entry, (at, len), |state| {
            state.apply_brief(&entry, &lens, at, len);
        });
        Ok(Some(entry))
    }

    /// Whether an entry is the next one of its shard, and not one that is applied already.
    fn is_next(&self, stored: &StoredEntry) -> Result<bool, ReplayError> {
        let (shard, index, head) = (stored.shard, stored.index, self.head(stored.shard));
        match index > head {
            true => Err(ReplayError::Missing { shard, head, index }),
            false => Ok(index == head),
        }
    }

    /// Plans what a crash left half done: queues that the catalog forgot are dropped from shards,
    /// and its groups are made known where partitions are. To be called with a catalog that is not
    /// older than the shards.
    pub fn tidy(&mut self) {
        let mut chores: Vec<CatalogChange> =
            self.orphans().into_iter().map(CatalogChange::Gone).collect();
        for shard in &self.shards {
            for queue in shard.queues() {
                chores.extend(unregistered(&self.catalog, shard, queue));
            }
        }
        chores.extend(std::mem::take(&mut self.chores));
        for chore in chores {
            if !self.chores.contains(&chore) {
                self.chores.push(chore);
            }
        }
    }

    /// Queues that shards still hold though the catalog forgot them: a crash came between.
    fn orphans(&self) -> Vec<QueueId> {
        let mut orphans: Vec<QueueId> = self
            .shards
            .iter()
            .flat_map(ShardState::queues)
            .filter(|queue| self.catalog.catalog().get(*queue).is_none())
            .collect();
        orphans.sort_unstable();
        orphans.dedup();
        orphans
    }
}

fn senseless(stored: &StoredEntry, error: EntryError) -> ReplayError {
    ReplayError::Entry { shard: stored.shard, index: stored.index, error }
}

/// Groups of a queue that a shard does not know though it has partitions of the queue.
fn unregistered<'a>(
    catalog: &'a CatalogShard,
    shard: &'a ShardState,
    queue: QueueId,
) -> impl Iterator<Item = CatalogChange> + 'a {
    let has_partitions = shard.partitions_of(queue).next().is_some();
    let groups = catalog.catalog().groups(queue).filter(move |_| has_partitions);
    let missing = groups.filter(move |(name, _)| shard.group(queue, name).is_none());
    missing.map(move |(name, _)| CatalogChange::Group(queue, name.into()))
}
