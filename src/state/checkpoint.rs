//! Checkpoints: a shard's changes as rows of the key-value seam, and the shard back from them.
//!
//! A checkpoint is begun (rows out, under no lock and without I/O), written by somebody else as one
//! atomic batch, and ended. In between, everything that it carries can still be read from memory.
//! Rows include what they have applied, so a start applies only what came later.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};

use crate::base::place::{PartitionNumber, ShardCount, ShardId, StoreKey};
use crate::state::care::graves;
use crate::state::care::rows::{Kind, key as care_key, range as care_range};
use crate::state::codec::EntryError;
use crate::state::effect::{GroupIndex, OwnerId, Sequence, SpillId};
use crate::state::kv::{Kv, KvError, RowChange, Scan, Space};
use crate::state::ledger::{DedupPolicy, Flushed};
use crate::state::model::{Partition, Run};
use crate::state::{ShardState, care, rows};

/// What changed since the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Changes {
    partitions: Vec<u32>,
    groups: BTreeSet<GroupIndex>,
    /// The first sequence that is kept, of partitions that lost some.
    trims: BTreeMap<PartitionNumber, Sequence>,
    graves: Vec<PartitionNumber>,
    /// Partitions in which messages were deleted, or such are forgotten.
    erased: BTreeSet<PartitionNumber>,
    /// Partitions of the checkpoint under way, with the sequence that their rows reach.
    writing: Vec<(u32, Sequence)>,
    writing_moved: Vec<(PartitionNumber, Run)>,
    writing_position: u64,
}

/// Rows of one shard, to be written as one batch.
#[derive(Debug)]
pub struct Checkpoint {
    /// The shard.
    pub shard: ShardId,
    /// How many there are.
    pub shards: ShardCount,
    /// Entries of the shard that the rows include.
    pub head: u64,
    /// Rows to put or remove.
    pub rows: Vec<RowChange>,
    /// Transaction ids to put.
    pub ids: Flushed,
    /// The first sequence that is kept, of partitions whose run rows before it are to go; see
    /// [`Checkpoint::resolve`].
    pub trims: BTreeMap<PartitionNumber, Sequence>,
    /// Partitions whose dead letters and state keys are gone.
    pub graves: Vec<PartitionNumber>,
    /// Owners whose state keys are gone.
    pub owners: Vec<OwnerId>,
    /// Log position that the rows include: it must be durable in the log before they are written.
    pub position: u64,
}

impl Checkpoint {
    /// Turns ranges into removals of the rows that are there now.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn resolve(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        for (partition, kept) in std::mem::take(&mut self.trims) {
            let (from, to) = (rows::run_key(partition, 0), rows::run_key(partition, kept));
            let rows = &mut self.rows;
            kv.scan(Space::Runs, &from, &to, &mut |key, value| {
                if rows::read_run(key, value).is_some_and(|run| run.end_seq() <= kept) {
                    rows.push(RowChange { space: Space::Runs, key: key.to_vec(), value: None });
                }
                Scan::Continue
            })?;
        }
        for partition in std::mem::take(&mut self.graves) {
            graves::removals(kv, self.shard, partition, &mut self.rows)?;
            let (from, to) = rows::keys_of_partition(partition);
            let rows = &mut self.rows;
            kv.scan(Space::States, &from, &to, &mut |key, _| {
                rows.push(RowChange { space: Space::States, key: key.to_vec(), value: None });
                Scan::Continue
            })?;
        }
        self.resolve_owners(kv)
    }

    /// An owner's keys stand partition by partition, so all are looked at; owners seldom go.
    fn resolve_owners(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        let owners = std::mem::take(&mut self.owners);
        if owners.is_empty() {
            return Ok(());
        }
        let (shard, shards, rows) = (self.shard, self.shards, &mut self.rows);
        kv.scan(Space::States, &[], &[], &mut |key, _| {
            let is_its = rows::parts_of_state_key(key).is_some_and(|(partition, owner, _)| {
                shards.of_partition(partition) == shard && owners.contains(&owner)
            });
            if is_its {
                rows.push(RowChange { space: Space::States, key: key.to_vec(), value: None });
            }
            Scan::Continue
        })
    }
}

/// Why a shard could not be read from its rows. They are derived: rebuild them from the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A row does not hold what it should.
    #[error("a row of shard {shard} is damaged: {error}")]
    Row {
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        error: EntryError,
    },
}

impl Changes {
    pub(super) fn touch_partition(&mut self, local: u32) {
        self.partitions.push(local);
    }

    pub(super) fn touch_group(&mut self, group: GroupIndex) {
        self.groups.insert(group);
    }

    pub(super) fn trim(&mut self, partition: PartitionNumber, kept: Sequence) {
        let before = self.trims.entry(partition).or_default();
        *before = kept.max(*before);
    }

    pub(super) fn touch_erased(&mut self, partition: PartitionNumber) {
        self.erased.insert(partition);
    }

    pub(super) fn bury_partition(&mut self, partition: PartitionNumber) {
        self.graves.push(partition);
    }
}

impl ShardState {
    /// Whether a run belongs to a partition that is there and keeps it.
    #[must_use]
    pub fn is_live(&self, number: PartitionNumber, run: &Run) -> bool {
        self.partition(number).is_some_and(|partition| run.end_seq() > partition.base_seq)
    }

    /// Whether a run that was read from a row is live, and memory knows nothing newer of it.
    #[must_use]
    pub fn is_row_only(&self, number: PartitionNumber, run: &Run) -> bool {
        let is_in_memory = |partition: &Partition| {
            partition.runs.binary_search_by_key(&run.first_seq, |it| it.first_seq).is_ok()
        };
        let has_moved = self.moved.contains_key(&(number, run.first_seq));
        self.is_live(number, run) && !has_moved && !self.partition(number).is_some_and(is_in_memory)
    }

    /// Runs in memory that begin before a log position, those that moved among them. Older ones are
    /// rows.
    pub fn recent_runs_before(
        &self,
        end: u64,
    ) -> impl Iterator<Item = (PartitionNumber, Run)> + '_ {
        let live = self.partitions.iter().enumerate().filter(|(_, partition)| partition.live);
        let in_partitions = live.flat_map(move |(local, partition)| {
            let number = self.shards.number(self.shard, local as u32);
            let runs = partition.runs.iter().filter(move |run| run.position < end);
            runs.filter_map(move |run| Some((number?, *run)))
        });
        let moved = self.moved.iter().filter(move |((number, _), run)| {
            let partition = self.partition(*number).filter(|_| self.is_live(*number, run));
            let is_apart = |it: &Partition| {
                it.runs.binary_search_by_key(&run.first_seq, |it| it.first_seq).is_err()
            };
            run.position < end && partition.is_some_and(is_apart)
        });
        in_partitions.chain(moved.map(|((number, _), run)| (*number, *run)))
    }

    /// How many rows a checkpoint would write, about.
    #[must_use]
    pub fn change_count(&self) -> usize {
        let care = self.graves.change_count() + self.changes.erased.len();
        let states = self.states.weight();
        self.changes.partitions.len() + self.ledger.recent_len() + care + states
    }

    /// Begins a checkpoint; exactly one may be under way.
    #[must_use]
    pub fn begin_checkpoint(&mut self, policy: DedupPolicy) -> Checkpoint {
        let mut out = vec![self.meta_row()];
        self.changes.writing_position = self.position;
        for local in std::mem::take(&mut self.changes.partitions) {
            self.partition_rows(local, &mut out);
        }
        for index in std::mem::take(&mut self.changes.groups) {
            if let Some(group) = self.groups.get(index as usize) {
                let (key, value) = (rows::shard_key(self.shard, index), rows::group_value(group));
                out.push(RowChange { space: Space::Groups, key, value: Some(value) });
            }
        }
        for ((partition, _), run) in &self.moved {
            let row = run_row(*partition, run);
            // One that was trimmed meanwhile would leave a row that nobody removes; and the row that
            // is there may name a run that was longer.
            let value = row.value.filter(|_| self.is_live(*partition, run));
            out.push(RowChange { value, ..row });
            self.changes.writing_moved.push((*partition, *run));
        }
        self.graves.begin(self.shard, &mut out);
        for partition in std::mem::take(&mut self.changes.erased) {
            let ranges = self.erased.of(partition);
            let value = (!ranges.is_empty()).then(|| care::rows::ranges_value(ranges));
            let key = care_key(self.shard, Kind::Erased, u64::from(partition));
            out.push(RowChange { space: Space::Care, key, value });
        }
        let owners = self.states.begin_flush(&mut out);
        let ids = self.ledger.begin_flush(policy);
        let trims = std::mem::take(&mut self.changes.trims);
        let graves = std::mem::take(&mut self.changes.graves);
        let (shard, shards, head) = (self.shard, self.shards, self.head);
        let position = self.position;
        Checkpoint { shard, shards, head, rows: out, ids, trims, graves, owners, position }
    }

    /// Ends the checkpoint under way: its rows can be read, so memory lets go of them.
    pub fn end_checkpoint(&mut self) {
        for (local, stored_seq) in std::mem::take(&mut self.changes.writing) {
            let Some(partition) = self.partitions.get_mut(local as usize) else { continue };
            partition.stored_seq = stored_seq;
            // The newest run stays: it costs nothing (it is inline) and most pops want it.
            let stored = partition.runs.partition_point(|run| run.end_seq() <= stored_seq);
            let surplus = stored.min(partition.runs.len().saturating_sub(1));
            partition.runs.drain(..surplus);
            partition.runs.shrink_to_fit();
        }
        for (partition, run) in std::mem::take(&mut self.changes.writing_moved) {
            let key = (partition, run.first_seq);
            // It may have moved again.
            if self.moved.get(&key) == Some(&run) {
                self.moved.remove(&key);
            }
        }
        self.graves.end();
        self.stored_position = self.changes.writing_position;
        self.ledger.end_flush();
        self.states.end_flush();
    }

    fn meta_row(&self) -> RowChange {
        let mut value = Vec::with_capacity(24);
        value.put_u64_le(self.head);
        value.put_u64_le(self.position);
        value.put_u64_le(self.last_ms);
        for (spill, position) in &self.replayed {
            value.put_slice(spill);
            value.put_u64_le(*position);
        }
        RowChange { space: Space::Meta, key: rows::meta_key(self.shard), value: Some(value) }
    }

    fn partition_rows(&mut self, local: u32, out: &mut Vec<RowChange>) {
        let number = self.shards.number(self.shard, local);
        let Some((number, partition)) = number.zip(self.partitions.get_mut(local as usize)) else {
            return;
        };
        partition.dirty = false;
        let fresh = partition.runs.partition_point(|run| run.first_seq < partition.stored_seq);
        out.extend(partition.runs.iter().skip(fresh).map(|run| run_row(number, run)));
        let key = rows::shard_key(self.shard, local);
        let value = Some(rows::partition_value(partition));
        out.push(RowChange { space: Space::Partitions, key, value });
        self.changes.writing.push((local, partition.next_seq));
    }

    /// Reads a shard from its rows; without any, a shard without a history.
    ///
    /// # Errors
    /// [`LoadError`] when rows cannot be read or hold something else.
    pub fn load(
        shard: ShardId,
        shards: ShardCount,
        key: StoreKey,
        kv: &dyn Kv,
    ) -> Result<Self, LoadError> {
        let mut state = Self::new(shard, shards, key);
        let wrong = |error| LoadError::Row { shard, error };
        let Some(meta) = kv.get(Space::Meta, &rows::meta_key(shard))? else { return Ok(state) };
        let cut_off = EntryError { field: "meta row", problem: "cut off" };
        state.read_meta(meta).map_err(|_| wrong(cut_off))?;
        state.stored_position = state.position;
        state.load_rows(Space::Groups, kv, &mut |state, value| {
            state.groups.push(rows::read_group(value)?);
            Ok(state.groups.len())
        })?;
        state.load_rows(Space::Partitions, kv, &mut |state, value| {
            state.partitions.push(rows::read_partition(value, state.last_ms)?);
            Ok(state.partitions.len())
        })?;
        state.partitions.shrink_to_fit();
        for group in 0..state.groups.len() as u32 {
            state.index_group(group);
        }
        for local in 0..state.partitions.len() as u32 {
            state.index_loaded(local);
        }
        state.load_care(kv)?;
        Ok(state)
    }

    fn load_care(&mut self, kv: &dyn Kv) -> Result<(), LoadError> {
        let (shards, shard) = (self.shards, self.shard);
        self.graves.load(shard, kv, &|number| shards.of_partition(number) == shard)?;
        let ((from, to), mut failed) = (care_range(shard, Kind::Erased), None);
        kv.scan(Space::Care, &from, &to, &mut |key, value| {
            let ranges = care::rows::read_ranges(Bytes::copy_from_slice(value));
            match (care::rows::number_of(key), ranges) {
                (Some(number), Ok(ranges)) => {
                    self.erased.put(number as PartitionNumber, ranges);
                    Scan::Continue
                }
                (_, ranges) => {
                    failed = ranges.err();
                    Scan::Stop
                }
            }
        })?;
        failed.map_or(Ok(()), |error| Err(LoadError::Row { shard, error }))
    }

    fn read_meta(&mut self, mut value: Bytes) -> Result<(), bytes::TryGetError> {
        self.head = value.try_get_u64_le()?;
        self.position = value.try_get_u64_le()?;
        self.last_ms = value.try_get_u64_le()?;
        while value.has_remaining() {
            let mut spill = SpillId::default();
            value.try_copy_to_slice(&mut spill)?;
            self.replayed.insert(spill, value.try_get_u64_le()?);
        }
        Ok(())
    }

    fn load_rows(
        &mut self,
        space: Space,
        kv: &dyn Kv,
        read: &mut dyn FnMut(&mut Self, Bytes) -> Result<usize, EntryError>,
    ) -> Result<(), LoadError> {
        let shard = self.shard;
        let (from, to) = (rows::shard_key(shard, 0), rows::shard_key(shard + 1, 0));
        let (mut expected, mut failed) = (0, None);
        kv.scan(space, &from, &to, &mut |key, value| {
            // Indexes are dense: a row out of turn means that one is missing.
            let in_turn = rows::index_of_key(key) == Some(expected);
            let result = match in_turn {
                true => read(self, Bytes::copy_from_slice(value)),
                false => Err(EntryError { field: "row index", problem: "not dense" }),
            };
            expected += 1;
            match result {
                Ok(_) => Scan::Continue,
                Err(error) => {
                    failed = Some(error);
                    Scan::Stop
                }
            }
        })?;
        failed.map_or(Ok(()), |error| Err(LoadError::Row { shard, error }))
    }

    fn index_loaded(&mut self, local: u32) {
        let Some(partition) = self.partitions.get(local as usize).filter(|it| it.live) else {
            return;
        };
        let (queue, next_seq) = (partition.queue, partition.next_seq);
        let leases = partition.cursors.iter();
        let leases: Vec<_> =
            leases.filter_map(|it| Some((*it.lease.as_deref()?, it.group))).collect();
        for (lease, group) in leases {
            self.note_lease(&lease, local, group);
        }
        *self.ends.entry(queue).or_default() += next_seq;
        self.index_partition(local);
        self.count_partition(local);
    }
}

/// What the rows of a shard, or of the catalog, include.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// How many entries.
    pub head: u64,
    /// Log position behind the last one, or further where nothing of the shard follows.
    pub position: u64,
    /// Time of the last one, unix milliseconds.
    pub last_ms: u64,
}

/// What the rows of a shard, or of the catalog, include; nothing without rows.
///
/// # Errors
/// [`LoadError`] when the row that says so cannot be read.
pub fn applied(shard: ShardId, kv: &dyn Kv) -> Result<Applied, LoadError> {
    let Some(meta) = kv.get(Space::Meta, &rows::meta_key(shard))? else {
        return Ok(Applied::default());
    };
    let error = EntryError { field: "meta row", problem: "cut off" };
    read_applied(meta).map_err(|_| LoadError::Row { shard, error })
}

fn read_applied(mut meta: Bytes) -> Result<Applied, bytes::TryGetError> {
    let (head, position) = (meta.try_get_u64_le()?, meta.try_get_u64_le()?);
    Ok(Applied { head, position, last_ms: meta.try_get_u64_le()? })
}

fn run_row(partition: PartitionNumber, run: &Run) -> RowChange {
    RowChange {
        space: Space::Runs,
        key: rows::run_key(partition, run.first_seq),
        value: Some(rows::run_value(run)),
    }
}
