//! Deciding where groups are: made known, sent elsewhere, dropped.
//!
//! A group begins in a shard with a cursor in every partition that its queue has there, and from then on
//! in every new one. Where it begins at a time, and where it is sent to one, the sequences are looked up
//! here and stand in the effect: applying them needs no look-up. Only a seek moves a cursor back. Pure;
//! called by `shard`, and by `push` before a shard's new partition.

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::draft::{CursorDraft, DecideError, Draft};
use crate::state::effect::{Effect, GroupIndex, GroupStart, Sequence};

/// Where a group is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SeekTo {
    /// The oldest message that is kept.
    Beginning,
    /// Behind the newest message.
    End,
    /// The first message that was pushed at this time or later, unix milliseconds.
    Time(u64),
}

impl Draft<'_> {
    /// Makes a group known in this shard, with a cursor in every partition that its queue has here.
    /// Nothing happens where it is known, or begins at a time that has not come yet.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when rows cannot be read: the group is not made known.
    pub fn register(
        &mut self,
        queue: QueueId,
        name: &str,
        start: GroupStart,
    ) -> Result<(), DecideError> {
        let key = (queue, Box::from(name));
        let is_known =
            self.state.group(queue, name).is_some() || self.new_groups.contains_key(&key);
        if is_known || !start.is_due(self.now_ms) {
            return Ok(());
        }
        let moves = match start {
            GroupStart::Beginning | GroupStart::New => Vec::new(),
            GroupStart::Time(time_ms) => self.starts(queue, time_ms)?,
        };
        let group = (self.state.groups.len() + self.new_groups.len()) as GroupIndex;
        self.effects.push(Effect::RegisterGroup { group, queue, name: name.into(), start });
        if !moves.is_empty() {
            self.effects.push(Effect::Seek { group, moves });
        }
        self.new_groups.insert(key, group);
        Ok(())
    }

    /// Where a group begins at a time, in the partitions that have something for it.
    fn starts(
        &self,
        queue: QueueId,
        time_ms: u64,
    ) -> Result<Vec<(PartitionNumber, Sequence)>, DecideError> {
        let mut moves = Vec::new();
        for (number, partition) in self.state.partitions_of(queue) {
            let next = self.state.first_since(self.context.kv, number, time_ms)?;
            let next = next.max(self.cut_to(number));
            // What this draft pushes stands before the group in its entry and comes after it in time.
            if next < partition.next_seq || self.heads.contains_key(&number) {
                moves.push((number, next));
            }
        }
        Ok(moves)
    }

    /// Makes the queue's groups known before its first partition here, so that none misses it.
    pub(super) fn register_known_groups(&mut self, queue: QueueId) -> Result<(), DecideError> {
        let catalog = self.context.catalog;
        for (name, subscription) in catalog.groups(queue) {
            self.register(queue, name, subscription.late_start())?;
        }
        Ok(())
    }

    /// Sends a group elsewhere, in one partition or in all of its queue here; its leases there end and
    /// its attempts are forgotten. Returns how many partitions it has a cursor in among them, and where
    /// the last one's is now.
    ///
    /// # Errors
    /// [`DecideError::Kv`] when rows cannot be read: nothing is moved.
    pub fn seek(
        &mut self,
        queue: QueueId,
        group: GroupIndex,
        only: Option<PartitionNumber>,
        to: SeekTo,
    ) -> Result<(u32, Option<Sequence>), DecideError> {
        let mut moves = Vec::new();
        let all = self.state.partitions_of(queue).map(|(number, _)| number);
        let numbers: Vec<PartitionNumber> = match only {
            Some(number) => vec![number],
            None => all.collect(),
        };
        for number in numbers {
            let Some(partition) = self.state.partition(number) else { continue };
            if self.cursor(number, group).is_none() {
                continue;
            }
            let next = match to {
                SeekTo::Beginning => partition.base_seq,
                SeekTo::End => partition.next_seq,
                SeekTo::Time(time_ms) => {
                    self.state.first_since(self.context.kv, number, time_ms)?
                }
            };
            moves.push((number, next.max(self.cut_to(number))));
        }
        let (count, last) = (moves.len() as u32, moves.last().map(|(_, next)| *next));
        for (number, next) in &moves {
            let mut progress = self.state.progress_at(*number, *next);
            let erased = self.erased.iter().filter(|(of, _)| of == number);
            erased.for_each(|(_, seq)| progress.settle(*seq, *seq));
            self.put_cursor(*number, group, CursorDraft { progress, lease: None });
        }
        if !moves.is_empty() {
            self.effects.push(Effect::Seek { group, moves });
        }
        Ok((count, last))
    }

    /// Where a partition begins that this draft cuts: what is before is not there to go on with.
    fn cut_to(&self, number: PartitionNumber) -> Sequence {
        self.trimmed.get(&number).copied().unwrap_or(0)
    }

    /// Forgets a group's cursors in this shard. Returns how many partitions it had one in.
    pub fn drop_group(&mut self, queue: QueueId, name: &str) -> u64 {
        let Some(group) = self.state.group(queue, name) else { return 0 };
        if self.gone_groups.contains(&group) {
            return 0;
        }
        self.effects.push(Effect::DropGroup { group });
        self.gone_groups.push(group);
        self.state.partitions_in(queue) as u64
    }
}
