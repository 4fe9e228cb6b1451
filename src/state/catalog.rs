//! The catalog's state: which queues exist and what they ask for.
//!
//! Pure; changed only by entries of its own shard. Read by decisions (retry limits, leases)
//! and copied into the immutable view of the `catalog` room.

mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use onrush_protocol::options::QueueOptions;

pub use self::subscription::Subscription;

use self::subscription::{put_subscription, read_subscription};
use crate::base::place::{QueueId, ShardCount, ShardId};
use crate::state::care::Care;
use crate::state::care::job::{Job, JobId, Jobs};
use crate::state::care::rows::{self as care_rows, Kind};
use crate::state::care::trace::{EventNumber, TraceEvent, Traces};
use crate::state::checkpoint::{Checkpoint, LoadError};
use crate::state::classes::{Class, ClassVersion};
use crate::state::codec::EntryError;
use crate::state::effect::{Effect, Entry, GroupStart, Maintenance};
use crate::state::kv::{Kv, RowChange, Scan, Space};
use crate::state::ledger::Flushed;
use crate::state::queries::{Queries, QueryDefinition, QueryId};
use crate::state::rows;

/// One queue's settings as the catalog's log holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDefinition {
    /// Its number, never used twice.
    pub id: QueueId,
    /// Its name.
    pub name: Box<str>,
    /// Logical grouping.
    pub namespace: Box<str>,
    /// Task label.
    pub task: Box<str>,
    /// When it was first defined, unix milliseconds.
    pub created_ms: u64,
    /// The fifteen options.
    pub options: QueueOptions,
    /// Whether it ever asked for encryption: some of its messages may be sealed.
    pub sealed: bool,
    /// Whether somebody said how long its messages live, even if that is the default.
    pub ttl_asked: bool,
}

impl QueueDefinition {
    /// Whether messages are dropped when they are as old as the queue's `ttl`. The default of that
    /// option is an hour, and has never dropped anything for those who come from Queen: it counts
    /// only where it was asked for. Any other value was.
    #[must_use]
    pub fn has_ttl(&self) -> bool {
        let is_default = self.options.ttl_s == QueueOptions::default().ttl_s;
        self.options.ttl_s > 0 && (self.ttl_asked || !is_default)
    }
}

/// All queues and their consumer groups.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    by_id: BTreeMap<QueueId, Arc<QueueDefinition>>,
    by_name: BTreeMap<Box<str>, QueueId>,
    groups: BTreeMap<QueueId, BTreeMap<Box<str>, Subscription>>,
    /// Queues whose messages are also rows for people.
    projected: BTreeSet<QueueId>,
    /// Queues whose new messages must be sealed.
    sealing: BTreeSet<QueueId>,
    next_id: QueueId,
    maintenance: Maintenance,
    jobs: Jobs,
    queries: Queries,
    /// Queues whose messages are evaluated.
    classes: BTreeMap<QueueId, Arc<Class>>,
}

impl Catalog {
    /// The queries over queues.
    #[must_use]
    pub fn queries(&self) -> &Queries {
        &self.queries
    }

    /// The code that evaluates a queue's messages, where they are evaluated.
    #[must_use]
    pub fn class(&self, queue: QueueId) -> Option<&Arc<Class>> {
        self.classes.get(&queue)
    }

    /// All queues whose messages are evaluated.
    pub fn classes(&self) -> impl Iterator<Item = (QueueId, &Arc<Class>)> {
        self.classes.iter().map(|(queue, class)| (*queue, class))
    }

    /// What is held back on purpose.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        self.maintenance
    }

    /// Jobs over dead letters.
    #[must_use]
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// A queue by its number.
    #[must_use]
    pub fn get(&self, id: QueueId) -> Option<&Arc<QueueDefinition>> {
        self.by_id.get(&id)
    }

    /// A queue by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<QueueDefinition>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// All queues in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<QueueDefinition>> {
        self.by_id.values()
    }

    /// How many queues there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is no queue.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A queue's group, if it is there.
    #[must_use]
    pub fn group(&self, queue: QueueId, name: &str) -> Option<Subscription> {
        self.subscription(queue, name).filter(|it| it.is_active)
    }

    /// The groups of a queue that are there.
    pub fn groups(&self, queue: QueueId) -> impl Iterator<Item = (&str, Subscription)> {
        self.subscriptions(queue).filter(|(_, it)| it.is_active)
    }

    /// What is remembered of a queue's group, whether it is there or not.
    #[must_use]
    pub fn subscription(&self, queue: QueueId, name: &str) -> Option<Subscription> {
        self.groups.get(&queue)?.get(name).copied()
    }

    /// What is remembered of the groups of a queue.
    pub fn subscriptions(&self, queue: QueueId) -> impl Iterator<Item = (&str, Subscription)> {
        let groups = self.groups.get(&queue).into_iter().flatten();
        groups.map(|(name, subscription)| (&**name, *subscription))
    }

    /// Whether a queue's messages are also rows for people who ask in SQL.
    #[must_use]
    pub fn is_projected(&self, queue: QueueId) -> bool {
        self.projected.contains(&queue)
    }

    /// Whether new messages of any queue must be sealed.
    #[must_use]
    pub fn has_sealing(&self) -> bool {
        !self.sealing.is_empty()
    }

    /// Whether new messages of a queue must be sealed.
    #[must_use]
    pub fn seals(&self, queue: QueueId) -> bool {
        self.sealing.contains(&queue)
    }

    /// The number that the next new queue gets.
    #[must_use]
    pub fn next_id(&self) -> QueueId {
        self.next_id
    }

    fn define(&mut self, definition: QueueDefinition) {
        self.next_id = self.next_id.max(definition.id.saturating_add(1));
        self.by_name.insert(definition.name.clone(), definition.id);
        match definition.options.encryption_enabled {
            true => self.sealing.insert(definition.id),
            false => self.sealing.remove(&definition.id),
        };
        self.by_id.insert(definition.id, Arc::new(definition));
    }

    fn project(&mut self, id: QueueId, on: bool) {
        match on {
            true => self.projected.insert(id),
            false => self.projected.remove(&id),
        };
    }

    /// A group is there from now on; the first word on where it begins counts.
    fn define_group(&mut self, queue: QueueId, name: &str, start: GroupStart, now_ms: u64) {
        let groups = self.groups.entry(queue).or_default();
        let new = Subscription { start, since_ms: now_ms, is_active: true };
        groups.entry(name.into()).or_insert(new).is_active = true;
    }

    fn subscribe(&mut self, queue: QueueId, name: &str, start: GroupStart, now_ms: u64) {
        if let Some(known) = self.groups.get_mut(&queue).and_then(|it| it.get_mut(name)) {
            (known.start, known.since_ms) = (start, now_ms);
        }
    }

    fn forget_group(&mut self, queue: QueueId, name: &str, keep_start: bool) {
        let Some(groups) = self.groups.get_mut(&queue) else { return };
        match groups.get_mut(name) {
            Some(known) if keep_start => known.is_active = false,
            _ => drop(groups.remove(name)),
        }
    }

    fn forget(&mut self, id: QueueId) {
        self.projected.remove(&id);
        self.sealing.remove(&id);
        if let Some(gone) = self.by_id.remove(&id) {
            self.by_name.remove(&gone.name);
        }
        self.groups.remove(&id);
        self.classes.remove(&id);
    }

    fn define_class(&mut self, queue: QueueId, version: ClassVersion) {
        Arc::make_mut(self.classes.entry(queue).or_default()).define(version);
    }
}

/// The catalog's shard: the catalog and how far its log is applied.
#[derive(Clone, Debug, Default)]
pub struct CatalogShard {
    catalog: Catalog,
    head: u64,
    position: u64,
    last_ms: u64,
    changed: BTreeSet<QueueId>,
    traces: Traces,
    changed_jobs: BTreeSet<JobId>,
    changed_traces: BTreeSet<EventNumber>,
    changed_queries: BTreeSet<QueryId>,
    /// Something that only the meta row says changed.
    is_meta_changed: bool,
    stored_position: u64,
    writing_position: u64,
}

/// What a catalog entry asks of the other shards.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CatalogChange {
    /// Settings of a queue changed, or it is new.
    Queue(QueueId),
    /// A group of a queue is there.
    Group(QueueId, Box<str>),
    /// A group of a queue is gone: its cursors are to be dropped.
    NoGroup(QueueId, Box<str>),
    /// A queue is gone: its partitions are to be dropped.
    Gone(QueueId),
}

impl CatalogShard {
    /// The queues.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What was told of messages.
    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Entries applied.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Log position behind the last entry applied.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Time of the last entry applied, unix milliseconds.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// Nothing of the catalog stands between the last entry applied and `position`.
    pub fn advance(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Everything of the catalog before this log position is in rows.
    #[must_use]
    pub fn stored_position(&self) -> u64 {
        self.stored_position
    }

    /// The checkpoint under way is written.
    pub fn end_checkpoint(&mut self) {
        self.stored_position = self.writing_position;
    }

    /// Whether a checkpoint would write anything.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        let is_care_changed = !self.changed_jobs.is_empty() || !self.changed_traces.is_empty();
        let has_new_queries = !self.changed_queries.is_empty();
        self.is_meta_changed || !self.changed.is_empty() || is_care_changed || has_new_queries
    }

    /// Applies the next entry; tells what the other shards have to do about it.
    pub fn apply(&mut self, entry: &Entry, position: u64, len: u64) -> Vec<CatalogChange> {
        let mut changes = Vec::new();
        for effect in &entry.effects {
            let (queue, change) = match effect {
                Effect::DefineQueue(definition) => {
                    self.catalog.define((**definition).clone());
                    (definition.id, CatalogChange::Queue(definition.id))
                }
                Effect::ForgetQueue { queue } => {
                    self.catalog.forget(*queue);
                    (*queue, CatalogChange::Gone(*queue))
                }
                Effect::DefineGroup { queue, name, start } => {
                    self.catalog.define_group(*queue, name, *start, entry.time_ms);
                    (*queue, CatalogChange::Group(*queue, name.clone()))
                }
                Effect::Subscribe { queue, name, start } => {
                    self.catalog.subscribe(*queue, name, *start, entry.time_ms);
                    (*queue, CatalogChange::Queue(*queue))
                }
                Effect::ForgetGroup { queue, name, keep_start } => {
                    self.catalog.forget_group(*queue, name, *keep_start);
                    (*queue, CatalogChange::NoGroup(*queue, name.clone()))
                }
                Effect::Project { queue, on } => {
                    self.catalog.project(*queue, *on);
                    (*queue, CatalogChange::Queue(*queue))
                }
                Effect::DefineClass { queue, version, text } => {
                    let (version, text) = (*version, text.clone());
                    let version = ClassVersion { version, since_ms: entry.time_ms, text };
                    self.catalog.define_class(*queue, version);
                    (*queue, CatalogChange::Queue(*queue))
                }
                Effect::DefineQuery(query) => {
                    self.catalog.queries.define((**query).clone());
                    self.changed_queries.insert(query.id);
                    continue;
                }
                Effect::Maintain(maintenance) => {
                    self.catalog.maintenance = *maintenance;
                    self.is_meta_changed = true;
                    continue;
                }
                Effect::Care(Care::SetJob(job)) => {
                    self.set_job((**job).clone());
                    continue;
                }
                Effect::Care(Care::Trace(event)) => {
                    self.add_trace((**event).clone(), entry.time_ms);
                    continue;
                }
                _ => continue,
            };
            self.changed.insert(queue);
            changes.push(change);
        }
        self.head += 1;
        self.position = position + len;
        self.last_ms = self.last_ms.max(entry.time_ms);
        changes
    }

    fn set_job(&mut self, job: Job) {
        self.changed_jobs.insert(job.id);
        self.changed_jobs.extend(self.catalog.jobs.set(job));
    }

    fn add_trace(&mut self, event: TraceEvent, now_ms: u64) {
        let (number, gone) = self.traces.add(event);
        self.changed_traces.insert(number);
        self.changed_traces.extend(gone);
        let old = self.traces.expire(now_ms.saturating_sub(TRACES_KEPT_MS));
        self.changed_traces.extend(old);
    }

    fn care_rows(&mut self, shard: ShardId, rows: &mut Vec<RowChange>) {
        let mut put = |kind, number, value: Option<BytesMut>| {
            let (key, value) = (care_rows::key(shard, kind, number), value.map(|it| it.to_vec()));
            rows.push(RowChange { space: Space::Care, key, value });
        };
        for id in std::mem::take(&mut self.changed_jobs) {
            let value = self.catalog.jobs.get(id).map(|job| {
                let mut value = BytesMut::new();
                care_rows::put_job(&mut value, job);
                value
            });
            put(Kind::Job, u64::from(id), value);
        }
        for number in std::mem::take(&mut self.changed_traces) {
            let value = self.traces.get(number).map(|event| {
                let mut value = BytesMut::new();
                care_rows::put_trace(&mut value, event);
                value
            });
            put(Kind::Trace, number, value);
        }
    }

    fn load_care(&mut self, shard: ShardId, kv: &dyn Kv) -> Result<(), LoadError> {
        let mut failed = None;
        for kind in [Kind::Job, Kind::Trace] {
            let (from, to) = care_rows::range(shard, kind);
            kv.scan(Space::Care, &from, &to, &mut |key, value| {
                let mut value = Bytes::copy_from_slice(value);
                let number = care_rows::number_of(key).unwrap_or(0);
                let read = match kind {
                    Kind::Job => care_rows::read_job(&mut value).map(|job| {
                        self.catalog.jobs.set(job);
                    }),
                    _ => care_rows::read_trace(&mut value)
                        .map(|event| self.traces.put(number, event)),
                };
                failed = read.err();
                if failed.is_none() { Scan::Continue } else { Scan::Stop }
            })?;
        }
        failed.map_or(Ok(()), |error| Err(LoadError::Row { shard, error }))
    }

    /// Rows that bring the store up to this state.
    #[must_use]
    pub fn checkpoint(&mut self, shard: ShardId, shards: ShardCount) -> Checkpoint {
        self.writing_position = self.position;
        let mut meta = Vec::with_capacity(28);
        meta.put_u64_le(self.head);
        meta.put_u64_le(self.position);
        meta.put_u64_le(self.last_ms);
        meta.put_u32_le(self.catalog.next_id);
        let Maintenance { push, pop } = self.catalog.maintenance;
        meta.put_u8(u8::from(push) | u8::from(pop) << 1);
        self.is_meta_changed = false;
        let key = rows::meta_key(shard);
        let mut rows = vec![RowChange { space: Space::Meta, key, value: Some(meta) }];
        for queue in std::mem::take(&mut self.changed) {
            let value = self.catalog.get(queue).map(|definition| {
                let mut value = BytesMut::new();
                rows::put_queue(&mut value, definition);
                if self.catalog.is_projected(queue) {
                    value.put_u8(PROJECTED);
                    value.put_u16_le(0);
                }
                if let Some(class) = self.catalog.class(queue) {
                    value.put_u8(CLASS);
                    value.put_u16_le(0);
                    class.put(&mut value);
                }
                for (name, subscription) in self.catalog.subscriptions(queue) {
                    value.put_u8(SUBSCRIPTION);
                    value.put_u16_le(name.len() as u16);
                    value.put_slice(name.as_bytes());
                    put_subscription(&mut value, subscription);
                }
                value.to_vec()
            });
            rows.push(RowChange {
                space: Space::Queues,
                key: rows::shard_key(shard, queue),
                value,
            });
        }
        self.care_rows(shard, &mut rows);
        for query in std::mem::take(&mut self.changed_queries) {
            let value = self.catalog.queries.get(query).map(|query| {
                let mut value = BytesMut::new();
                query.put(&mut value);
                value.to_vec()
            });
            let (space, key) = (Space::Queries, rows::shard_key(shard, query));
            rows.push(RowChange { space, key, value });
        }
        let (trims, graves, owners) = (BTreeMap::new(), Vec::new(), Vec::new());
        let (ids, head, position) = (Flushed::default(), self.head, self.position);
        Checkpoint { shard, shards, head, rows, ids, trims, graves, owners, position }
    }

    /// Reads the catalog from its rows; empty without any.
    ///
    /// # Errors
    /// [`LoadError`] when rows cannot be read or hold something else.
    pub fn load(shard: ShardId, kv: &dyn Kv) -> Result<Self, LoadError> {
        let mut state = Self::default();
        let wrong = |error| LoadError::Row { shard, error };
        let Some(meta) = kv.get(Space::Meta, &rows::meta_key(shard))? else { return Ok(state) };
        state.read_meta(meta).map_err(|_| wrong(ROW))?;
        let mut failed = None;
        kv.scan(Space::Queues, &rows::shard_key(shard, 0), &[], &mut |_, value| match state
            .read_row(Bytes::copy_from_slice(value))
        {
            Ok(()) => Scan::Continue,
            Err(error) => {
                failed = Some(error);
                Scan::Stop
            }
        })?;
        let queries = &mut state.catalog.queries;
        kv.scan(Space::Queries, &rows::shard_key(shard, 0), &[], &mut |_, value| {
            match QueryDefinition::read(&mut Bytes::copy_from_slice(value)) {
                Ok(query) => queries.define(query),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() { Scan::Stop } else { Scan::Continue }
        })?;
        if let Some(error) = failed {
            return Err(wrong(error));
        }
        state.load_care(shard, kv)?;
        Ok(state)
    }

    fn read_meta(&mut self, mut value: Bytes) -> Result<(), bytes::TryGetError> {
        self.head = value.try_get_u64_le()?;
        self.position = value.try_get_u64_le()?;
        self.last_ms = value.try_get_u64_le()?;
        self.catalog.next_id = value.try_get_u32_le()?;
        if value.has_remaining() {
            let flags = value.try_get_u8()?;
            self.catalog.maintenance = Maintenance { push: flags & 1 != 0, pop: flags & 2 != 0 };
        }
        self.stored_position = self.position;
        Ok(())
    }

    fn read_row(&mut self, mut value: Bytes) -> Result<(), EntryError> {
        let definition = rows::read_queue(&mut value)?;
        let queue = definition.id;
        self.catalog.define(definition);
        while value.has_remaining() {
            let kind = value.try_get_u8().map_err(|_| ROW)?;
            let len = value.try_get_u16_le().map_err(|_| ROW)? as usize;
            if len > value.len() {
                return Err(ROW);
            }
            let name = rows::rest_text(&mut value.split_to(len))?;
            match kind {
                PROJECTED => {
                    self.catalog.project(queue, true);
                    continue;
                }
                CLASS => {
                    let class = Class::read(&mut value)?;
                    self.catalog.classes.insert(queue, Arc::new(class));
                    continue;
                }
                _ => {}
            }
            let subscription = match kind {
                SUBSCRIPTION => read_subscription(&mut value)?,
                // As an earlier version wrote it.
                _ => {
                    let start = if kind != 0 { GroupStart::New } else { GroupStart::Beginning };
                    Subscription { start, since_ms: 0, is_active: true }
                }
            };
            self.catalog.groups.entry(queue).or_default().insert(name, subscription);
        }
        Ok(())
    }
}

/// How long trace events are kept, milliseconds.
const TRACES_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Stands in a queue's row where a group's start would: its messages are rows for people too.
const PROJECTED: u8 = 2;
/// Stands there too: what is remembered of a group follows its name.
const SUBSCRIPTION: u8 = 3;
/// And there: its messages are evaluated, by code of these versions.
const CLASS: u8 = 4;

const ROW: EntryError = EntryError { field: "queue row", problem: "cut off" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::kv::memory::MemoryKv;

    #[test]
    fn that_a_queue_is_projected_survives_its_row_beside_its_groups() {
        let mut state = CatalogShard::default();
        let definition = |id: QueueId| QueueDefinition {
            id,
            name: format!("q{id}").into(),
            namespace: Box::default(),
            task: Box::default(),
            created_ms: 1,
            options: QueueOptions { encryption_enabled: id == 3, ..QueueOptions::default() },
            sealed: id > 1,
            ttl_asked: false,
        };
        let group = |queue| Effect::DefineGroup { queue, name: "g".into(), start: GroupStart::New };
        let mut effects: Vec<Effect> =
            (0..4).map(|id| Effect::DefineQueue(Box::new(definition(id)))).collect();
        effects.extend([0, 1, 2].map(|queue| Effect::Project { queue, on: true }));
        effects.extend([group(1), Effect::Project { queue: 2, on: false }]);
        let class = |version| Effect::DefineClass { queue: 1, version, text: "{}".into() };
        effects.extend([1, 2].map(class));
        state.apply(&Entry { time_ms: 1, origin: Default::default(), effects }, 0, 10);
        let kv = MemoryKv::new();
        kv.write(&state.checkpoint(4, ShardCount::new(4).unwrap()).rows).unwrap();
        let loaded = CatalogShard::load(4, &kv).unwrap();
        for catalog in [state.catalog(), loaded.catalog()] {
            let projected: Vec<bool> = (0..4).map(|id| catalog.is_projected(id)).collect();
            assert_eq!(projected, [true, true, false, false]);
            let expected = Subscription { start: GroupStart::New, since_ms: 1, is_active: true };
            assert_eq!(catalog.group(1, "g"), Some(expected));
            let sealed = (0..4).filter_map(|id| catalog.get(id)).map(|it| it.sealed);
            assert_eq!(sealed.collect::<Vec<_>>(), [false, false, true, true]);
            let sealing = (0..4).map(|id| catalog.seals(id));
            assert_eq!(sealing.collect::<Vec<_>>(), [false, false, false, true]);
            assert_eq!(catalog.groups(0).count(), 0);
            let newest =
                |queue| catalog.class(queue).and_then(|it| it.newest()).map(|it| it.version);
            assert_eq!([0, 1, 2].map(newest), [None, Some(2), None]);
        }
    }
}
