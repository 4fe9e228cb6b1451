//! The store behind simulated connections: entries, positions, and what is durable.
//!
//! In: appends, reads and crashes, one at a time. Out: what a faultless store would answer, and the
//! fate that the seed gives to each call. Called by `simulated` under its lock.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::{APPEND_BYTES_MAX, Fault, Faults, Struck};
use crate::base::place::{ShardCount, ShardId};
use crate::base::random::SeededRandom;
use crate::log::{
    Append, AppendError, Bounds, Durability, Extent, Proposal, ReadError, StoredEntry,
};

/// Bytes between entries, so that a position computed from a neighbour's end is wrong here too.
const GAP_BYTES: u64 = 24;

/// What happens to an append.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Works,
    Unavailable,
    AnswerLost,
    RequestLost,
    Late,
    DiskFull,
}

#[derive(Debug)]
struct Shard {
    head: u64,
    /// Position of each entry that is still there, by its number.
    positions: BTreeMap<u64, u64>,
    /// Nothing below is needed.
    floor: u64,
}

#[derive(Debug)]
struct Entry {
    shard: ShardId,
    index: u64,
    bytes: Bytes,
}

#[derive(Debug)]
pub(super) struct Store {
    random: SeededRandom,
    shards: Vec<Shard>,
    entries: BTreeMap<u64, Entry>,
    start: u64,
    end: u64,
    synced: u64,
    /// Where the log ended before each append that is not synced.
    unsynced: Vec<u64>,
    pub(super) epoch: u64,
    pub(super) faults: Faults,
    pub(super) scripted: VecDeque<Fault>,
    pub(super) is_full: bool,
    /// An append on its way.
    pub(super) late: Option<(Vec<Proposal>, Durability)>,
    pub(super) struck: Struck,
}

impl Store {
    pub(super) fn new(seed: u64, shards: ShardCount) -> Self {
        let shard = || Shard { head: 0, positions: BTreeMap::new(), floor: 0 };
        Self {
            random: SeededRandom::new(seed),
            shards: (0..=shards.get()).map(|_| shard()).collect(),
            entries: BTreeMap::new(),
            start: 0,
            end: 0,
            synced: 0,
            unsynced: Vec::new(),
            epoch: 0,
            faults: Faults::default(),
            scripted: VecDeque::new(),
            is_full: false,
            late: None,
            struck: Struck::default(),
        }
    }

    /// Fate of the next append, and how often it yields before and after.
    pub(super) fn fate_of_append(&mut self) -> (Fate, u64, u64) {
        let faults = self.faults;
        let yields = |random: &SeededRandom| match faults.yields_max {
            0 => 0,
            most => random.below(most + 1),
        };
        let (before, after) = (yields(&self.random), yields(&self.random));
        let by_chance = [
            (faults.unavailable_per_mille, Fate::Unavailable),
            (faults.answer_lost_per_mille, Fate::AnswerLost),
            (faults.request_lost_per_mille, Fate::RequestLost),
            (faults.late_per_mille, Fate::Late),
            (faults.disk_full_per_mille, Fate::DiskFull),
        ];
        let mut fate = Fate::Works;
        for (per_mille, possible) in by_chance {
            if fate == Fate::Works && per_mille > 0 && self.random.chance(per_mille) {
                fate = possible;
            }
        }
        let fate = match self.scripted.pop_front() {
            Some(Fault::Unavailable) => Fate::Unavailable,
            Some(Fault::AnswerLost) => Fate::AnswerLost,
            Some(Fault::RequestLost) => Fate::RequestLost,
            Some(Fault::Late) => Fate::Late,
            Some(Fault::DiskFull) => Fate::DiskFull,
            Some(Fault::None) => Fate::Works,
            None if self.is_full => Fate::DiskFull,
            None => fate,
        };
        (fate, before, after)
    }

    /// Lets an append arrive whose answer was given up long ago, or lets it wait some more.
    pub(super) fn arrive_late(&mut self) {
        if self.late.is_some()
            && self.random.chance(400)
            && let Some((proposals, durability)) = self.late.take()
            && let Ok(Append::Appended(_)) = self.append(&proposals, durability)
        {
            self.struck.late += 1;
        }
    }

    /// Whether a read is answered.
    pub(super) fn fate_of_read(&mut self) -> Result<(), String> {
        let per_mille = self.faults.read_unavailable_per_mille;
        if per_mille > 0 && self.random.chance(per_mille) {
            return Err("the simulated store is away".to_owned());
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        proposals: &[Proposal],
        durability: Durability,
    ) -> Result<Append, AppendError> {
        let bytes = proposals.iter().map(|proposal| proposal.len() as u64).sum();
        if bytes > APPEND_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes, limit: APPEND_BYTES_MAX });
        }
        let conflicts = self.conflicts(proposals);
        if !conflicts.is_empty() {
            self.struck.conflicts += 1;
            return Ok(Append::Conflict(conflicts));
        }
        self.unsynced.push(self.end);
        let mut positions = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let mut bytes = BytesMut::with_capacity(proposal.len());
            for part in &proposal.parts {
                bytes.extend_from_slice(part);
            }
            let position = self.end + GAP_BYTES;
            self.end = position + bytes.len() as u64;
            let shard = self.shard_mut(proposal.shard);
            let index = shard.head;
            shard.positions.insert(index, position);
            shard.head += 1;
            let entry = Entry { shard: proposal.shard, index, bytes: bytes.freeze() };
            self.entries.insert(position, entry);
            positions.push(position);
        }
        if durability == Durability::Synced {
            self.sync();
        }
        self.struck.appended += 1;
        Ok(Append::Appended(positions))
    }

    /// Shards whose heads are not where the proposals expect them, or rely on them to be, each once.
    /// Several proposals of one shard follow each other.
    fn conflicts(&self, proposals: &[Proposal]) -> Vec<ShardId> {
        let mut expected: BTreeMap<ShardId, u64> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for proposal in proposals {
            let next = expected.entry(proposal.shard).or_insert_with(|| self.head(proposal.shard));
            if proposal.expected_head != *next && !conflicts.contains(&proposal.shard) {
                conflicts.push(proposal.shard);
            }
            *next += 1;
        }
        for (shard, head) in proposals.iter().filter_map(|proposal| proposal.relies_on) {
            if self.head(shard) != head && !conflicts.contains(&shard) {
                conflicts.push(shard);
            }
        }
        conflicts
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.end;
        self.unsynced.clear();
    }

    pub(super) fn crash(&mut self) -> u64 {
        let kept = self.random.below(self.unsynced.len() as u64 + 1) as usize;
        let lost = (self.unsynced.len() - kept) as u64;
        if let Some(end) = self.unsynced.get(kept).copied() {
            self.end = end;
            for (position, entry) in self.entries.split_off(&end) {
                debug_assert!(position >= end);
                let shard = self.shard_mut(entry.shard);
                shard.positions.remove(&entry.index);
                shard.head = shard.head.min(entry.index);
            }
        }
        self.sync();
        self.epoch += 1;
        self.faults = Faults::default();
        self.scripted.clear();
        self.late = None;
        self.is_full = false;
        self.struck.crashes += 1;
        self.struck.appends_lost += lost;
        lost
    }

    /// How many shards it has, the catalog's included.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn head(&self, shard: ShardId) -> u64 {
        self.shard(shard).head
    }

    pub(super) fn read(
        &self,
        shard: ShardId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let known = self.shard(shard);
        let mut found = Vec::new();
        if from >= known.head {
            return Ok(found);
        }
        if !known.positions.contains_key(&from) {
            return Err(ReadError::TooOld(self.start));
        }
        let mut bytes = 0;
        for (index, position) in known.positions.range(from..) {
            let Some(entry) = self.entries.get(position) else { continue };
            bytes += entry.bytes.len();
            if !found.is_empty() && bytes > bytes_max {
                break;
            }
            let (index, position, bytes) = (*index, *position, entry.bytes.clone());
            found.push(StoredEntry { shard, index, position, bytes });
        }
        Ok(found)
    }

    pub(super) fn body(&self, shard: ShardId, extent: Extent) -> Result<Bytes, ReadError> {
        let Extent { position, len } = extent;
        if position < self.start {
            return Err(ReadError::TooOld(position));
        }
        let until = position.saturating_add(u64::from(len));
        if until > self.end {
            return Err(ReadError::PastEnd(position));
        }
        let corrupt = |reason: &str| ReadError::Corrupt { position, reason: reason.to_owned() };
        let (start, entry) = self
            .entries
            .range(..=position)
            .next_back()
            .ok_or_else(|| corrupt("no entry holds this position"))?;
        if entry.shard != shard {
            return Err(corrupt("the entry there belongs to another shard"));
        }
        let offset = (position - start) as usize;
        let end = offset + len as usize;
        if end > entry.bytes.len() {
            return Err(corrupt("the extent is not inside one entry"));
        }
        Ok(entry.bytes.slice(offset..end))
    }

    pub(super) fn truncate_before(&mut self, shard: ShardId, position: u64) {
        let shard = self.shard_mut(shard);
        shard.floor = shard.floor.max(position);
        let floor = self.shards.iter().map(|shard| shard.floor).min().unwrap_or(0).min(self.end);
        if floor <= self.start {
            return;
        }
        self.start = floor;
        let kept = self.entries.split_off(&floor);
        for (_, entry) in std::mem::replace(&mut self.entries, kept) {
            self.shard_mut(entry.shard).positions.remove(&entry.index);
        }
        // Whoever lets go of entries has rows that are durable, so a crash may not take back
        // anything that they rest on.
        self.sync();
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { start: self.start, end: self.end, synced: self.synced }
    }

    pub(super) fn all(&self) -> Vec<StoredEntry> {
        let stored = |(position, entry): (&u64, &Entry)| StoredEntry {
            shard: entry.shard,
            index: entry.index,
            position: *position,
            bytes: entry.bytes.clone(),
        };
        self.entries.iter().map(stored).collect()
    }

    /// # Panics
    /// On a shard that the store does not have: a caller's fault that no answer could mend.
    fn shard(&self, shard: ShardId) -> &Shard {
        let found = self.shards.get(usize::from(shard));
        found.unwrap_or_else(|| panic!("shard {shard} of {}", self.shards.len()))
    }

    fn shard_mut(&mut self, shard: ShardId) -> &mut Shard {
        let count = self.shards.len();
        let found = self.shards.get_mut(usize::from(shard));
        found.unwrap_or_else(|| panic!("shard {shard} of {count}"))
    }
}
