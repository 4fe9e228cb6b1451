//! The state keys of an instance while its slots are evaluated.
//!
//! What one slot writes lies over what the slots before it in the same step wrote, and that over what
//! the store has; of the store's, what was read stays here for the next steps. An instance whose
//! slots somebody else evaluated meanwhile is at another slot than it was left at, and then what is
//! known of it is forgotten. In: questions of guests. Out: answers, from the lane where nobody here
//! knows them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::base::place::PartitionNumber;
use crate::process::keys::{
    META, PASSED, SKIP, STATE, STATE_BYTES, STOPPED, VERSION, read_skip_key,
};
use crate::process::runtime::{StateFault, StateView};
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::shard::look::View as Look;
use crate::shard::transaction::{StateChanges, StateOwner, read_place};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::{OwnerId, Sequence};
use crate::state::kv::KvError;
use crate::state::states::{
    STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, StateAsk, StatePage, StateRow,
};

/// Keys that are read when an instance is first met: all of them, for most.
const FIRST_ROWS: usize = 512;
/// Bytes of them.
const FIRST_BYTES: usize = 256 << 10;
/// Keys, and bytes of them, that one look of the lane reads where all of a state may be wanted.
const READ_ROWS: usize = 4_096;
pub(super) const READ_BYTES: usize = 1 << 20;
/// Bytes of keys and values that one scan of a guest may find in rows: what a guest's memory is by default.
const SCANNED_BYTES_MAX: usize = 32 << 20;
/// Slots of an instance that may wait to be passed over one by one.
pub(super) const SKIPS_MAX: usize = 1_024;
/// What a key costs beside its bytes.
const KEY_OVERHEAD: usize = 64;

/// Changed keys; `None` is one that was removed.
pub(super) type Dirty = BTreeMap<Box<str>, Option<Bytes>>;

/// What is known of an instance.
#[derive(Debug, Default)]
pub(super) struct Instance {
    /// The slot that comes next.
    pub(super) at: Sequence,
    /// The version of its class that it is at; 0 before its first message.
    pub(super) version: u32,
    /// Why it is stopped, where it is.
    pub(super) stopped: Option<Box<str>>,
    /// Slots that are to be passed over.
    skips: BTreeSet<Sequence>,
    /// Slots before this one are, too.
    passed: Sequence,
    /// Keys whose values are known.
    keys: Dirty,
    /// Whether all that it has are.
    complete: bool,
    bytes: usize,
    /// Bytes of all its keys with their values, or more: what is written over without having been read
    /// counts on.
    pub(super) total: u64,
}

/// Bytes of state from which on the store keeps how many they are.
const TOTAL_KEPT: u64 = 128 << 10;

impl Instance {
    /// Reads what is needed of an instance. Waits for a turn of the lane.
    ///
    /// # Errors
    /// When the engine stops, or rows cannot be read.
    pub(super) async fn load(
        engine: &Engine,
        partition: PartitionNumber,
        at: Sequence,
    ) -> Result<Self, CommandError> {
        let mut instance = Self { at, ..Self::default() };
        let (told, page) = engine
            .look(move |look| {
                let told = Told::read(look, partition)?;
                Ok::<_, KvError>((told, first_rows(look, partition)?))
            })
            .await?
            .map_err(|error| CommandError::Decide(error.into()))?;
        instance.hear(told);
        instance.complete = page.more_after.is_none();
        let read = page.rows.iter().map(|row| size(row.key.len(), Some(&row.value))).sum();
        // Of one whose keys are all here it is known exactly; where nobody kept it, it is found out.
        instance.total = match instance.complete {
            true => read,
            false if instance.total == 0 => u64::MAX,
            false => instance.total,
        };
        for row in page.rows {
            instance.know(text(&row.key), Some(row.value));
        }
        Ok(instance)
    }

    /// Reads anew what somebody may have said of an instance that is known otherwise. Waits for a turn of
    /// the lane.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(super) async fn ask_again(
        mut self,
        engine: &Engine,
        partition: PartitionNumber,
    ) -> Result<Self, CommandError> {
        let told = engine.look(move |look| Told::read(look, partition)).await?;
        self.hear(told.map_err(|error| CommandError::Decide(error.into()))?);
        Ok(self)
    }

    fn hear(&mut self, told: Told) {
        (self.stopped, self.passed, self.skips) = (None, 0, BTreeSet::new());
        for (key, value) in told.meta {
            match &*key {
                VERSION => self.version = read_version(&value),
                STATE_BYTES if self.total == 0 => {
                    self.total = (&*value).try_into().map_or(0, u64::from_le_bytes);
                }
                STATE_BYTES => {}
                PASSED => self.passed = read_place(&value).map_or(0, |(_, seq, _)| seq),
                _ => self.stopped = Some(String::from_utf8_lossy(&value).into()),
            }
        }
        self.skips = told.skips.rows.iter().filter_map(|row| read_skip_key(&row.key)).collect();
    }

    /// One that has nothing, and of which all is known.
    pub(super) fn fresh() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// Nothing is left of its state.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        (self.bytes, self.total, self.complete, self.version) = (0, 0, true, 0);
    }

    /// Whether a slot is to be passed over.
    pub(super) fn skips(&self, slot: Sequence) -> bool {
        slot < self.passed || self.skips.contains(&slot)
    }

    /// All its keys with their values, where all of them are known.
    pub(super) fn into_keys(self) -> Dirty {
        self.keys
    }

    /// Bytes of what is known of it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn know(&mut self, key: Box<str>, value: Option<Bytes>) {
        let size = |key: &str, value: &Option<Bytes>| {
            KEY_OVERHEAD + key.len() + value.as_ref().map_or(0, Bytes::len)
        };
        self.bytes += size(&key, &value);
        let key_len = key.len();
        if let Some(old) = self.keys.insert(key, value) {
            self.bytes -= KEY_OVERHEAD + key_len + old.map_or(0, |old| old.len());
        }
    }

    /// What was evaluated up to `next` stands, and made the state so much larger.
    pub(super) fn keep(&mut self, dirty: Dirty, grown: i64, next: Sequence) {
        self.at = next;
        self.total = self.total.saturating_add_signed(grown);
        for (key, value) in dirty {
            if value.is_none() && self.complete {
                if let Some(old) = self.keys.remove(&key) {
                    self.bytes -= KEY_OVERHEAD + key.len() + old.map_or(0, |old| old.len());
                }
                continue;
            }
            self.know(key, value);
        }
    }
}

/// What the room keeps of an instance beside its state.
struct Told {
    meta: Vec<(Bytes, Bytes)>,
    skips: StatePage,
}

impl Told {
    fn read(look: &Look<'_>, partition: PartitionNumber) -> Result<Self, KvError> {
        let keys = [VERSION, STOPPED, PASSED, STATE_BYTES].map(Bytes::from_static);
        let meta = values(look, META, partition, &keys)?;
        Ok(Self { meta, skips: page(look, &skips_of(partition))? })
    }
}

/// Which slots are to be passed over one by one.
pub(super) fn skips_of(partition: PartitionNumber) -> StateAsk {
    let prefix = Bytes::from_static(SKIP);
    let (rows_max, bytes_max) = (SKIPS_MAX, usize::MAX);
    StateAsk { owner: META, partition, prefix, after: None, rows_max, bytes_max }
}

/// The change that keeps how large a state is, where that is worth it.
pub(super) fn total_change(partition: PartitionNumber, total: u64) -> Option<StateChanges> {
    let value = Bytes::copy_from_slice(&total.to_le_bytes());
    let ops = vec![StateOp::Put { key: Bytes::from_static(STATE_BYTES), value }];
    let owner = StateOwner::Number(META);
    (total > TOTAL_KEPT).then_some(StateChanges { owner, partition, ops, may_miss: true })
}

/// What a key with its value counts.
fn size(key: usize, value: Option<&Bytes>) -> u64 {
    value.map_or(0, |value| (key + value.len()) as u64)
}

/// The value of the version key.
pub(super) fn version_value(version: u32) -> Bytes {
    Bytes::copy_from_slice(&version.to_le_bytes())
}

fn read_version(value: &[u8]) -> u32 {
    value.try_into().map_or(0, u32::from_le_bytes)
}

/// Values of some keys of an owner, by key; those without one are left out.
pub(super) fn values(
    look: &Look<'_>,
    owner: OwnerId,
    partition: PartitionNumber,
    keys: &[Bytes],
) -> Result<Vec<(Bytes, Bytes)>, KvError> {
    let at = usize::from(look.replica.count().of_partition(partition));
    let Some(shard) = look.replica.shards.get(at) else { return Ok(Vec::new()) };
    let rows = shard.states_at(look.kv, owner, partition, keys)?;
    Ok(rows.into_iter().map(|row| (row.key, row.value)).collect())
}

fn first_rows(look: &Look<'_>, partition: PartitionNumber) -> Result<StatePage, KvError> {
    let (rows_max, bytes_max) = (FIRST_ROWS, FIRST_BYTES);
    let ask = StateAsk { owner: STATE, partition, rows_max, bytes_max, ..StateAsk::default() };
    page(look, &ask)
}

/// A page of state keys.
pub(super) fn page(look: &Look<'_>, ask: &StateAsk) -> Result<StatePage, KvError> {
    let at = usize::from(look.replica.count().of_partition(ask.partition));
    match look.replica.shards.get(at) {
        Some(shard) => shard.states(look.kv, ask),
        None => Ok(StatePage::default()),
    }
}

fn text(key: &[u8]) -> Box<str> {
    String::from_utf8_lossy(key).into()
}

/// Instances that were met lately.
pub(super) struct Cache {
    known: Mutex<Known>,
    bytes_max: usize,
}

#[derive(Default)]
struct Known {
    instances: HashMap<PartitionNumber, Instance>,
    bytes: usize,
}

impl Cache {
    /// Of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { known: Mutex::default(), bytes_max }
    }

    /// Takes out what is known of an instance that is at this slot.
    pub(super) fn take(&self, partition: PartitionNumber, at: Sequence) -> Option<Instance> {
        let mut known = self.known.lock();
        let instance = known.instances.remove(&partition)?;
        known.bytes -= instance.bytes;
        Some(instance).filter(|instance| instance.at == at)
    }

    /// Keeps what is known of an instance, and forgets of others what is too much.
    pub(super) fn put(&self, partition: PartitionNumber, instance: Instance) {
        let mut known = self.known.lock();
        known.bytes += instance.bytes;
        if let Some(old) = known.instances.insert(partition, instance) {
            known.bytes -= old.bytes;
        }
        while known.bytes > self.bytes_max {
            // Any will do: those that are needed come back with one read.
            let Some(victim) = known.instances.keys().next().copied() else { break };
            if let Some(gone) = known.instances.remove(&victim) {
                known.bytes -= gone.bytes;
            }
        }
    }

    /// Forgets an instance.
    pub(super) fn forget(&self, partition: PartitionNumber) {
        let mut known = self.known.lock();
        if let Some(gone) = known.instances.remove(&partition) {
            known.bytes -= gone.bytes;
        }
    }
}

/// How guests on a thread of their own reach the lane.
#[derive(Clone)]
pub(super) struct Fetch {
    engine: Arc<Engine>,
    handle: Handle,
    /// Microseconds that guests waited for it.
    pub(super) waited_us: Arc<AtomicU64>,
}

impl Fetch {
    /// From the lane of `engine`, waited for on a thread that may.
    pub(super) fn new(engine: &Arc<Engine>, handle: Handle) -> Self {
        Self { engine: Arc::clone(engine), handle, waited_us: Arc::default() }
    }

    fn wait<T>(&self, asked: impl Future<Output = T>) -> T {
        let began_us = self.engine.clock().monotonic_us();
        let answer = self.handle.block_on(asked);
        let waited_us = self.engine.clock().monotonic_us().saturating_sub(began_us);
        self.waited_us.fetch_add(waited_us, Ordering::Relaxed);
        answer
    }

    fn get(&self, partition: PartitionNumber, key: &str) -> Result<Option<Bytes>, StateFault> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let asked = self.engine.look(move |look| values(look, STATE, partition, &[key]));
        let found = self.wait(asked).map_err(unavailable)?.map_err(unavailable)?;
        Ok(found.into_iter().next().map(|(_, value)| value))
    }

    /// Bytes of all state keys of an instance, read from the first to the last.
    fn total(&self, partition: PartitionNumber) -> Result<u64, StateFault> {
        let (mut total, mut after) = (0, None);
        loop {
            let page = self.page(partition, "", after, READ_ROWS)?;
            total += page.rows.iter().map(|row| size(row.key.len(), Some(&row.value))).sum::<u64>();
            match page.more_after {
                Some(key) => after = Some(key),
                None => return Ok(total),
            }
        }
    }

    /// What one look reads of the keys that begin so, behind `after`.
    fn page(
        &self,
        partition: PartitionNumber,
        prefix: &str,
        after: Option<Bytes>,
        rows_max: usize,
    ) -> Result<StatePage, StateFault> {
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        let bytes_max = READ_BYTES;
        let ask = StateAsk { owner: STATE, partition, prefix, after, rows_max, bytes_max };
        let asked = self.engine.look(move |look| page(look, &ask));
        self.wait(asked).map_err(unavailable)?.map_err(unavailable)
    }

    /// The first keys that begin so, read by as many looks as they need.
    fn scan(
        &self,
        partition: PartitionNumber,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<StateRow>, StateFault> {
        let (mut found, mut bytes, mut after) = (Vec::new(), 0, None);
        while found.len() < limit {
            let page = self.page(partition, prefix, after, READ_ROWS.min(limit - found.len()))?;
            bytes += page.rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
            if bytes > SCANNED_BYTES_MAX {
                let (what, limit) = ("bytes that a scan finds", SCANNED_BYTES_MAX as u64);
                return Err(StateFault::Limit { what, limit });
            }
            found.extend(page.rows);
            match page.more_after {
                Some(key) => after = Some(key),
                None => break,
            }
        }
        Ok(found)
    }
}

fn unavailable(error: impl std::fmt::Display) -> StateFault {
    StateFault::Unavailable(error.to_string())
}

/// The keys of an instance as one slot sees them.
pub(super) struct Overlay<'a> {
    pub(super) partition: PartitionNumber,
    pub(super) instance: &'a mut Instance,
    /// What earlier slots of the step wrote.
    pub(super) step: &'a Dirty,
    /// What this slot wrote.
    pub(super) slot: Dirty,
    /// How much larger the state was made by earlier slots of the step, and by this one.
    pub(super) grown: (i64, i64),
    /// Bytes that the state may have.
    pub(super) bytes_max: u64,
    pub(super) fetch: &'a Fetch,
}

impl Overlay<'_> {
    fn known(&self, key: &str) -> Option<&Option<Bytes>> {
        let written = self.slot.get(key).or_else(|| self.step.get(key));
        written.or_else(|| self.instance.keys.get(key))
    }

    fn is_known(&self, key: &str) -> bool {
        self.known(key).is_some()
    }

    /// Bytes by which a key's new value makes the state larger, as far as its old one is known.
    fn growth(&self, key: &str, value: Option<&Bytes>) -> i64 {
        let old = self.known(key).and_then(Option::as_ref);
        size(key.len(), value) as i64 - size(key.len(), old) as i64
    }

    fn is_over(&self, grows: i64) -> bool {
        let (step, slot) = self.grown;
        let total = self.instance.total.saturating_add_signed(step);
        total.saturating_add_signed(slot + grows) > self.bytes_max
    }

    /// Writes or removes a key, if the state is not too large then.
    fn set(&mut self, key: &str, value: Option<Bytes>) -> Result<(), StateFault> {
        let mut grows = self.growth(key, value.as_ref());
        if grows > 0 && self.is_over(grows) {
            if !self.instance.complete {
                // It may be less: what is written over unread counts as new.
                if !self.is_known(key) {
                    let old = self.fetch.get(self.partition, key)?;
                    self.instance.know(key.into(), old);
                    grows = self.growth(key, value.as_ref());
                }
                self.instance.total = self.fetch.total(self.partition)?;
            }
            if grows > 0 && self.is_over(grows) {
                let (what, limit) = ("bytes of state", self.bytes_max);
                return Err(StateFault::Limit { what, limit });
            }
        }
        self.grown.1 += grows;
        self.slot.insert(key.into(), value);
        Ok(())
    }
}

impl StateView for Overlay<'_> {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, StateFault> {
        may_be_key(key)?;
        if let Some(value) = self.slot.get(key).or_else(|| self.step.get(key)) {
            return Ok(value.clone());
        }
        if let Some(value) = self.instance.keys.get(key) {
            return Ok(value.clone());
        }
        if self.instance.complete {
            return Ok(None);
        }
        let value = self.fetch.get(self.partition, key)?;
        self.instance.know(key.into(), value.clone());
        Ok(value)
    }

    fn put(&mut self, key: &str, value: Bytes) -> Result<(), StateFault> {
        may_be_key(key)?;
        if value.len() > STATE_VALUE_BYTES_MAX {
            let (what, limit) = ("bytes of a state value", STATE_VALUE_BYTES_MAX as u64);
            return Err(StateFault::Limit { what, limit });
        }
        self.set(key, Some(value))
    }

    fn remove(&mut self, key: &str) -> Result<(), StateFault> {
        may_be_key(key)?;
        self.set(key, None)
    }

    fn scan(&mut self, prefix: &str, limit: usize) -> Result<Vec<(String, Bytes)>, StateFault> {
        may_be_key(prefix)?;
        let mut merged: BTreeMap<Box<str>, Option<Bytes>> = BTreeMap::new();
        if !self.instance.complete {
            // So many more as lie below what was removed.
            let removed = self.step.values().chain(self.slot.values()).filter(|it| it.is_none());
            for row in self.fetch.scan(self.partition, prefix, limit + removed.count())? {
                self.instance.know(text(&row.key), Some(row.value.clone()));
                merged.insert(text(&row.key), Some(row.value));
            }
        } else {
            merged.extend(below(&self.instance.keys, prefix));
        }
        merged.extend(below(self.step, prefix));
        merged.extend(below(&self.slot, prefix));
        let found = merged.into_iter().filter_map(|(key, value)| Some((key.into(), value?)));
        Ok(found.take(limit).collect())
    }
}

/// Whatever wrote it: the log and the rows have no room for a longer one.
fn may_be_key(key: &str) -> Result<(), StateFault> {
    let (what, limit) = ("bytes of a state key", STATE_KEY_BYTES_MAX as u64);
    match key.len() > STATE_KEY_BYTES_MAX {
        true => Err(StateFault::Limit { what, limit }),
        false => Ok(()),
    }
}

fn below<'a>(
    keys: &'a Dirty,
    prefix: &'a str,
) -> impl Iterator<Item = (Box<str>, Option<Bytes>)> + 'a {
    let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
    let keys = keys.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix));
    keys.map(|(key, value)| (key.clone(), value.clone()))
}
