//! `apply(state, entry)`: the only place where a shard's state changes.
//!
//! Deterministic and total: an effect that does not fit (a partition that is gone) changes nothing,
//! the same on every engine. Called by `shard` after an append, when following, and at start.

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::care::Care;
use crate::state::care::graves::DeadPlace;
use crate::state::codec::{self, ENTRY_HEADER};
use crate::state::effect::{Effect, Entry, GroupIndex, Sequence};
use crate::state::ledger::First;
use crate::state::model::{Cursor, Lease, Partition, Run};
use crate::state::{ShardState, remove_range, rows};

impl ShardState {
    /// Applies the shard's next entry, whose first byte is at `position` of the log and which is
    /// `len` bytes long there.
    pub fn apply(&mut self, entry: &Entry, position: u64, len: u64) {
        self.apply_sized(entry, position, len, |_, effect| codec::encoded_len(effect) as u32);
    }

    /// The same of an entry without its batches: `lens` says how long each effect is in the log.
    pub fn apply_brief(&mut self, entry: &Entry, lens: &[u32], position: u64, len: u64) {
        self.apply_sized(entry, position, len, |at, _| lens.get(at).copied().unwrap_or(0));
    }

    fn apply_sized(
        &mut self,
        entry: &Entry,
        position: u64,
        len: u64,
        len_of: impl Fn(usize, &Effect) -> u32,
    ) {
        let mut at = position + ENTRY_HEADER as u64;
        for (index, effect) in entry.effects.iter().enumerate() {
            let effect_len = len_of(index, effect);
            self.apply_effect(effect, at, effect_len, entry.time_ms);
            at += u64::from(effect_len);
        }
        self.head += 1;
        self.position = position + len;
        self.last_ms = self.last_ms.max(entry.time_ms);
    }

    fn apply_effect(&mut self, effect: &Effect, position: u64, len: u32, now_ms: u64) {
        match effect {
            Effect::Append { partition, first_seq, count, fingerprints, .. } => {
                let run =
                    Run { first_seq: *first_seq, position, time_ms: now_ms, len, count: *count };
                self.append(*partition, run, fingerprints);
            }
            Effect::CreatePartition { number, queue, name } => {
                self.create_partition(*number, *queue, name);
            }
            Effect::RegisterGroup { group, queue, name, start } => {
                self.register_group(*group, *queue, name, *start);
            }
            Effect::Lease { partition, group, token, until_ms, from, to } => {
                let lease = Lease { token: *token, until_ms: *until_ms, from: *from, to: *to };
                self.set_lease(*partition, *group, Some(lease));
            }
            Effect::Extend { partition, group, until_ms } => {
                let held = self.cursor(*partition, *group).and_then(|it| it.lease.as_deref());
                if let Some(lease) = held.copied() {
                    let lease = Lease { until_ms: *until_ms, ..lease };
                    self.set_lease(*partition, *group, Some(lease));
                }
            }
            Effect::Settle { partition, group, progress, release } => {
                self.settle(*partition, *group, progress, *release);
            }
            Effect::Bury(dead) => {
                let key = (dead.partition, dead.group, dead.seq);
                let place = DeadPlace { position, len, failed_ms: dead.failed_ms };
                self.graves.bury(key, place, !dead.is_again);
            }
            Effect::Care(care) => self.care(care),
            Effect::Trim { partition, base_seq } => self.trim(*partition, *base_seq),
            Effect::Relocate { partition, first_seq, count, time_ms, .. } => {
                let run =
                    Run { first_seq: *first_seq, position, time_ms: *time_ms, len, count: *count };
                self.relocate(*partition, run);
            }
            Effect::DropQueue { queue } => self.drop_queue(*queue),
            Effect::Seek { group, moves } => self.seek(*group, moves),
            Effect::DropGroup { group } => self.drop_group(*group),
            Effect::Replayed { spill, position } => {
                let done = self.replayed.entry(*spill).or_default();
                *done = (*done).max(*position);
            }
            Effect::PutState { owner, partition, key, value } => {
                if self.partition(*partition).is_some() {
                    self.states.put(rows::state_key(*partition, *owner, key), value, now_ms);
                }
            }
            Effect::RemoveState { owner, partition, key } => {
                if self.partition(*partition).is_some() {
                    self.states.remove(rows::state_key(*partition, *owner, key));
                }
            }
            Effect::DropStates { owner } => self.states.drop_owner(*owner),
            Effect::DefineQueue(_)
            | Effect::DefineQuery(_)
            | Effect::DefineClass { .. }
            | Effect::ForgetQueue { .. }
            | Effect::DefineGroup { .. }
            | Effect::Subscribe { .. }
            | Effect::ForgetGroup { .. }
            | Effect::Project { .. }
            | Effect::Maintain(_) => {}
        }
    }

    fn create_partition(&mut self, number: PartitionNumber, queue: QueueId, name: &str) {
        let local = self.shards.local(number);
        if local as usize != self.partitions.len() {
            return;
        }
        let groups = self.by_queue_groups.get(&queue).map_or(&[][..], Vec::as_slice);
        let cursors: smallvec::SmallVec<[Cursor; 1]> =
            groups.iter().map(|group| Cursor::at(0, *group)).collect();
        let at_end = cursors.len() as u32;
        self.partitions.push(Partition {
            name: name.into(),
            next_seq: 0,
            base_seq: 0,
            stored_seq: 0,
            newest_ms: 0,
            runs: smallvec::SmallVec::new(),
            cursors,
            at_end,
            queue,
            live: true,
            dirty: false,
        });
        self.index_partition(local);
        self.touch(local);
    }

    /// Makes a partition findable by name and queue.
    pub(super) fn index_partition(&mut self, local: u32) {
        let Some(partition) = self.partitions.get(local as usize) else { return };
        let (key, partitions) = (self.key, &self.partitions);
        let hash_of = |it: &u32| {
            let partition = partitions.get(*it as usize);
            partition.map_or(0, |partition| key.place(partition.queue, &partition.name))
        };
        let hash = key.place(partition.queue, &partition.name);
        self.names.insert_unique(hash, local, hash_of);
        self.by_queue.entry(partition.queue).or_default().push(local);
    }

    fn append(&mut self, number: PartitionNumber, run: Run, fingerprints: &[u128]) {
        let local = self.shards.local(number);
        let Some(partition) = self.partitions.get_mut(local as usize) else { return };
        if !partition.live || partition.next_seq != run.first_seq {
            return;
        }
        // Runs join only within one entry: between entries there is always a header in the log. And
        // only behind another append: a batch that moved has a row of its own already.
        let follows = std::mem::replace(&mut self.append_end, run.position + u64::from(run.len));
        let last = partition.runs.last_mut().filter(|_| follows == run.position);
        if !last.is_some_and(|last| last.join(&run)) {
            partition.runs.push(run);
        }
        partition.next_seq = run.end_seq();
        partition.newest_ms = run.time_ms;
        let ends = self.ends.entry(partition.queue).or_default();
        *ends += u64::from(run.count);
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            if *fingerprint != 0 {
                let first = First { seq: run.first_seq + index as u64, time_ms: run.time_ms };
                self.ledger.insert(number, *fingerprint, first);
            }
        }
        self.touch(local);
        self.note_arrival(local, run.first_seq);
    }

    fn trim(&mut self, number: PartitionNumber, base_seq: Sequence) {
        let local = self.shards.local(number);
        let Some(partition) = self.partitions.get_mut(local as usize) else { return };
        if base_seq <= partition.base_seq || base_seq > partition.next_seq {
            return;
        }
        partition.base_seq = base_seq;
        partition.runs.retain(|run| run.end_seq() > base_seq);
        let behind = partition.cursors.iter().filter(|cursor| cursor.next < base_seq);
        let behind: smallvec::SmallVec<[GroupIndex; 8]> = behind.map(|it| it.group).collect();
        for group in behind {
            self.change_cursor(local, group, |cursor| {
                let mut progress = cursor.progress();
                progress.advance_to(base_seq);
                cursor.set_progress(progress);
            });
        }
        if self.erased.trim(number, base_seq) {
            self.changes.touch_erased(number);
        }
        self.changes.trim(number, base_seq);
        self.touch(local);
    }

    fn care(&mut self, care: &Care) {
        match care {
            Care::Reopen { partition, group, letters } => {
                let local = self.shards.local(*partition);
                self.change_cursor(local, *group, |cursor| {
                    let mut progress = cursor.progress();
                    letters.iter().for_each(|(seq, _)| progress.reopen(*seq));
                    cursor.set_progress(progress);
                });
                for (seq, failed_ms) in letters {
                    self.graves.exhume((*partition, *group, *seq), *failed_ms);
                }
                self.touch(local);
            }
            Care::Exhume { partition, group, letters } => {
                for (seq, failed_ms) in letters {
                    self.graves.exhume((*partition, *group, *seq), *failed_ms);
                }
            }
            Care::Erase { partition, seq } => {
                let local = self.shards.local(*partition);
                let Some(held) = self.partitions.get(local as usize).filter(|it| it.live) else {
                    return;
                };
                let groups = held.cursors.iter().map(|cursor| cursor.group);
                let groups: smallvec::SmallVec<[GroupIndex; 8]> = groups.collect();
                self.erased.add(*partition, *seq);
                self.changes.touch_erased(*partition);
                for group in groups {
                    self.change_cursor(local, group, |cursor| {
                        let mut progress = cursor.progress();
                        progress.settle(*seq, *seq);
                        cursor.set_progress(progress);
                    });
                }
                self.touch(local);
            }
            Care::SetJob(_) | Care::Trace(_) => {}
        }
    }

    fn relocate(&mut self, number: PartitionNumber, run: Run) {
        let local = self.shards.local(number);
        let Some(partition) = self.partitions.get_mut(local as usize).filter(|it| it.live) else {
            return;
        };
        if run.end_seq() <= partition.base_seq {
            return;
        }
        // A run of several batches moves batch by batch, all of them in one entry, and each becomes a
        // run of its own: joined over the end of the old run, its row would cover another run's row.
        let at = partition.runs.partition_point(|it| it.first_seq < run.first_seq);
        match partition.runs.get_mut(at) {
            Some(held) if held.first_seq == run.first_seq => *held = run,
            _ if at > 0 => partition.runs.insert(at, run),
            // Older than what memory holds of the partition.
            _ => {}
        }
        // Until its row says so, and also when memory lets go of it meanwhile.
        self.moved.insert((number, run.first_seq), run);
        self.touch(local);
    }

    fn drop_queue(&mut self, queue: QueueId) {
        self.ends.remove(&queue);
        for local in self.by_queue.remove(&queue).unwrap_or_default() {
            let Some(partition) = self.partitions.get_mut(local as usize) else { continue };
            let hash = self.key.place(queue, &partition.name);
            let entry = self.names.find_entry(hash, |it| *it == local);
            if let Ok(entry) = entry {
                entry.remove();
            }
            if let Some(number) = self.shards.number(self.shard, local) {
                self.changes.trim(number, partition.next_seq);
                self.changes.bury_partition(number);
                self.graves.drop_partition(number);
                if self.erased.forget(number) {
                    self.changes.touch_erased(number);
                }
                remove_range(&mut self.moved, (number, 0)..=(number, Sequence::MAX));
                self.states.drop_partition(number);
            }
            partition.live = false;
            partition.name = Box::default();
            partition.runs = smallvec::SmallVec::new();
            partition.at_end = 0;
            for cursor in std::mem::take(&mut partition.cursors) {
                if cursor.asleep {
                    self.sleepers.forget(local, cursor.group);
                }
                if let Some(lease) = cursor.lease {
                    self.forget_lease(&lease, local, cursor.group);
                }
            }
            self.touch(local);
        }
        for index in self.by_queue_groups.remove(&queue).unwrap_or_default() {
            let Some(group) = self.groups.get_mut(index as usize) else { continue };
            group.end();
            self.group_names.remove(&(queue, group.name.clone()));
            self.changes.touch_group(index);
        }
    }

    pub(super) fn touch(&mut self, local: u32) {
        self.recount(local);
        if let Some(partition) = self.partitions.get_mut(local as usize)
            && !partition.dirty
        {
            partition.dirty = true;
            self.changes.touch_partition(local);
        }
    }
}
