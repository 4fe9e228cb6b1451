//! `apply(state, entry)`: the only place where a shard's state changes.
//!
//! Deterministic and total: an effect that does not fit (a partition that is gone) changes nothing,
//! the same on every engine. Called by `shard` after an append, when following, and at start.

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::ShardState;
use crate::state::care::Care;
use crate::state::care::graves::DeadPlace;
use crate::state::codec::{self, ENTRY_HEADER};
use crate::state::effect::{Effect, Entry, GroupIndex, GroupStart, Progress, Sequence};
use crate::state::ledger::First;
use crate::state::model::{Cursor, Group, Lease, Partition, Run};

/// Stale entries that a ready list may hold beyond the number of its partitions.
const READY_SLACK: usize = 64;

impl ShardState {
    /// Applies the shard's next entry, whose first byte is at `position` of the log and which is
    /// `len` bytes long there.
    pub fn apply(&mut self, entry: &Entry, position: u64, len: u64) {
        let mut at = position + ENTRY_HEADER as u64;
        for effect in &entry.effects {
            let effect_len = codec::encoded_len(effect) as u64;
            self.apply_effect(effect, at, effect_len as u32, entry.time_ms);
            at += effect_len;
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
            Effect::Replayed { spill, position } => {
                let done = self.replayed.entry(*spill).or_default();
                *done = (*done).max(*position);
            }
            Effect::DefineQueue(_)
            | Effect::ForgetQueue { .. }
            | Effect::DefineGroup { .. }
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
        let cursors = groups.iter().map(|group| Cursor {
            next: 0,
            group: *group,
            ready: false,
            lease: None,
            beyond: None,
        });
        self.partitions.push(Partition {
            name: name.into(),
            next_seq: 0,
            base_seq: 0,
            stored_seq: 0,
            runs: smallvec::SmallVec::new(),
            cursors: cursors.collect(),
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
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            if *fingerprint != 0 {
                let first = First { seq: run.first_seq + index as u64, time_ms: run.time_ms };
                self.ledger.insert(number, *fingerprint, first);
            }
        }
        self.touch(local);
        self.refresh_ready(local);
    }

    /// Puts a partition on the ready list of every group that it has work for.
    pub(super) fn refresh_ready(&mut self, local: u32) {
        let Some(partition) = self.partitions.get_mut(local as usize) else { return };
        let (next_seq, live) = (partition.next_seq, partition.live);
        for cursor in &mut partition.cursors {
            let has_work = live && cursor.lease.is_none() && cursor.next < next_seq;
            if cursor.ready == has_work {
                continue;
            }
            cursor.ready = has_work;
            let Some(group) = self.groups.get_mut(cursor.group as usize) else { continue };
            if has_work {
                group.ready.push_back(local);
                group.ready_count += 1;
            } else {
                group.ready_count -= 1;
            }
        }
        self.trim_ready(local);
    }

    /// Forgets stale entries at the front of ready lists, and all of them where they pile up.
    fn trim_ready(&mut self, local: u32) {
        let Some(partition) = self.partitions.get(local as usize) else { return };
        let partitions = &self.partitions;
        for cursor in &partition.cursors {
            let Some(group) = self.groups.get_mut(cursor.group as usize) else { continue };
            let is_ready = |it: &u32| {
                let cursors = partitions.get(*it as usize).map(|it| it.cursors.as_slice());
                cursors.unwrap_or_default().iter().any(|it| it.group == cursor.group && it.ready)
            };
            while group.ready.front().is_some_and(|front| !is_ready(front)) {
                group.ready.pop_front();
            }
            if group.ready.len() > 2 * group.ready_count + READY_SLACK {
                let mut seen = std::collections::HashSet::new();
                group.ready.retain(|it| is_ready(it) && seen.insert(*it));
            }
        }
    }

    fn register_group(&mut self, group: GroupIndex, queue: QueueId, name: &str, start: GroupStart) {
        if group as usize != self.groups.len() {
            return;
        }
        let name: Box<str> = name.into();
        let (ready, ready_count) = (Default::default(), 0);
        self.groups.push(Group { queue, name, start, ready, ready_count, live: true });
        self.index_group(group);
        self.changes.touch_group(group);
        for local in self.by_queue.get(&queue).cloned().unwrap_or_default() {
            if let Some(partition) = self.partitions.get_mut(local as usize) {
                let next = match start {
                    GroupStart::Beginning => partition.base_seq,
                    GroupStart::New => partition.next_seq,
                };
                let (ready, lease, beyond) = (false, None, None);
                let mut cursor = Cursor { next, group, ready, lease, beyond };
                let number = self.shards.number(self.shard, local);
                let mut progress = cursor.progress();
                if number.is_some_and(|number| self.erased.lay_over(number, &mut progress)) {
                    cursor.set_progress(progress);
                }
                partition.cursors.push(cursor);
            }
            self.touch(local);
            self.refresh_ready(local);
        }
    }

    /// Makes a group findable by name and queue.
    pub(super) fn index_group(&mut self, index: GroupIndex) {
        let Some(group) = self.groups.get(index as usize).filter(|it| it.live) else { return };
        self.group_names.insert((group.queue, group.name.clone()), index);
        self.by_queue_groups.entry(group.queue).or_default().push(index);
    }

    fn cursor_mut(&mut self, local: u32, group: GroupIndex) -> Option<&mut Cursor> {
        let partition = self.partitions.get_mut(local as usize).filter(|it| it.live)?;
        partition.cursors.iter_mut().find(|cursor| cursor.group == group)
    }

    fn set_lease(&mut self, number: PartitionNumber, group: GroupIndex, lease: Option<Lease>) {
        let local = self.shards.local(number);
        let Some(cursor) = self.cursor_mut(local, group) else { return };
        let before = std::mem::replace(&mut cursor.lease, lease.map(Box::new));
        if let Some(before) = before {
            self.forget_lease(&before, local, group);
        }
        if let Some(lease) = lease {
            self.note_lease(&lease, local, group);
        }
        self.touch(local);
        self.refresh_ready(local);
    }

    /// Makes a lease findable by its end and by its token.
    pub(super) fn note_lease(&mut self, lease: &Lease, local: u32, group: GroupIndex) {
        self.timers.insert((lease.until_ms, local, group));
        self.holders.entry(lease.token).or_default().push((local, group));
    }

    fn forget_lease(&mut self, lease: &Lease, local: u32, group: GroupIndex) {
        self.timers.remove(&(lease.until_ms, local, group));
        if let Some(holders) = self.holders.get_mut(&lease.token) {
            holders.retain(|holder| *holder != (local, group));
            if holders.is_empty() {
                self.holders.remove(&lease.token);
            }
        }
    }

    fn settle(
        &mut self,
        number: PartitionNumber,
        group: GroupIndex,
        progress: &Progress,
        release: bool,
    ) {
        let local = self.shards.local(number);
        let Some(cursor) = self.cursor_mut(local, group) else { return };
        cursor.set_progress(progress.clone());
        if release {
            self.set_lease(number, group, None);
        } else {
            self.touch(local);
            self.refresh_ready(local);
            self.take_turns(local, group);
        }
    }

    /// A partition that was served without a lease and has more goes behind those that wait.
    fn take_turns(&mut self, local: u32, group: GroupIndex) {
        let Some(group) = self.groups.get_mut(group as usize) else { return };
        if group.ready.front() == Some(&local) {
            group.ready.rotate_left(1);
        }
    }

    fn trim(&mut self, number: PartitionNumber, base_seq: Sequence) {
        let local = self.shards.local(number);
        let Some(partition) = self.partitions.get_mut(local as usize) else { return };
        let from = partition.base_seq;
        if base_seq <= from || base_seq > partition.next_seq {
            return;
        }
        partition.base_seq = base_seq;
        for cursor in &mut partition.cursors {
            if cursor.next < base_seq {
                let mut progress = cursor.progress();
                progress.advance_to(base_seq);
                cursor.set_progress(progress);
            }
        }
        partition.runs.retain(|run| run.end_seq() > base_seq);
        if self.erased.trim(number, base_seq) {
            self.changes.touch_erased(number);
        }
        self.changes.trim(number, from, base_seq);
        self.touch(local);
        self.refresh_ready(local);
    }

    fn care(&mut self, care: &Care) {
        match care {
            Care::Reopen { partition, group, letters } => {
                let local = self.shards.local(*partition);
                if let Some(cursor) = self.cursor_mut(local, *group) {
                    let mut progress = cursor.progress();
                    letters.iter().for_each(|(seq, _)| progress.reopen(*seq));
                    cursor.set_progress(progress);
                }
                for (seq, failed_ms) in letters {
                    self.graves.exhume((*partition, *group, *seq), *failed_ms);
                }
                self.touch(local);
                self.refresh_ready(local);
            }
            Care::Exhume { partition, group, letters } => {
                for (seq, failed_ms) in letters {
                    self.graves.exhume((*partition, *group, *seq), *failed_ms);
                }
            }
            Care::Erase { partition, seq } => {
                let local = self.shards.local(*partition);
                let Some(held) = self.partitions.get_mut(local as usize).filter(|it| it.live)
                else {
                    return;
                };
                self.erased.add(*partition, *seq);
                self.changes.touch_erased(*partition);
                for cursor in &mut held.cursors {
                    let mut progress = cursor.progress();
                    progress.settle(*seq, *seq);
                    cursor.set_progress(progress);
                }
                self.touch(local);
                self.refresh_ready(local);
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
        for local in self.by_queue.remove(&queue).unwrap_or_default() {
            let Some(partition) = self.partitions.get_mut(local as usize) else { continue };
            let hash = self.key.place(queue, &partition.name);
            let entry = self.names.find_entry(hash, |it| *it == local);
            if let Ok(entry) = entry {
                entry.remove();
            }
            if let Some(number) = self.shards.number(self.shard, local) {
                self.changes.trim(number, partition.base_seq, partition.next_seq);
                self.changes.bury_partition(number);
                self.graves.drop_partition(number);
                if self.erased.forget(number) {
                    self.changes.touch_erased(number);
                }
                self.moved.retain(|(moved, _), _| *moved != number);
            }
            partition.live = false;
            partition.name = Box::default();
            partition.runs = smallvec::SmallVec::new();
            for cursor in std::mem::take(&mut partition.cursors) {
                if let Some(lease) = cursor.lease {
                    self.forget_lease(&lease, local, cursor.group);
                }
            }
            self.touch(local);
        }
        for index in self.by_queue_groups.remove(&queue).unwrap_or_default() {
            let Some(group) = self.groups.get_mut(index as usize) else { continue };
            group.live = false;
            (group.ready, group.ready_count) = (Default::default(), 0);
            self.group_names.remove(&(queue, group.name.clone()));
            self.changes.touch_group(index);
        }
    }

    fn touch(&mut self, local: u32) {
        if let Some(partition) = self.partitions.get_mut(local as usize)
            && !partition.dirty
        {
            partition.dirty = true;
            self.changes.touch_partition(local);
        }
    }
}
