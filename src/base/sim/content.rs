//! One simulated file: what readers see, what the medium holds, and what lies between.
//!
//! In: writes, cuts, syncs and crashes. Out: bytes. Sparse, so that a large empty file costs
//! nothing. Pure but for the random source it is handed. Called by `sim`.

use std::collections::BTreeMap;

use super::{SECTOR_BYTES, Survival};
use crate::base::random::SeededRandom;

type Sector = [u8; SECTOR_BYTES as usize];

/// Versions of one sector between two syncs that a crash may choose from.
const VERSIONS_MAX: usize = 4;

/// A missing sector reads as zeros, in either map.
#[derive(Debug, Default)]
pub(super) struct Content {
    seen: BTreeMap<u64, Sector>,
    durable: BTreeMap<u64, Sector>,
    /// Sectors changed since the last sync, with the versions they had in between.
    pending: BTreeMap<u64, Vec<Sector>>,
    len: u64,
    durable_len: u64,
    allocated: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    pub(super) fn reserve(&mut self, bytes: u64) {
        self.allocated = self.allocated.max(bytes);
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = bytes.len().min(left);
        let mut done = 0;
        while done < count {
            let (sector, start) = place(offset + done as u64);
            let chunk = (SECTOR_BYTES as usize - start).min(count - done);
            let target = bytes.get_mut(done..done + chunk).unwrap_or_default();
            match self.seen.get(&sector).and_then(|bytes| bytes.get(start..start + chunk)) {
                Some(source) => target.copy_from_slice(source),
                None => target.fill(0),
            }
            done += chunk;
        }
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let (sector, start) = place(offset + done as u64);
            let chunk = (SECTOR_BYTES as usize - start).min(bytes.len() - done);
            let mut changed = self.seen.get(&sector).copied().unwrap_or([0; 512]);
            let source = bytes.get(done..done + chunk).unwrap_or_default();
            if let Some(target) = changed.get_mut(start..start + chunk) {
                target.copy_from_slice(source);
            }
            self.change(sector, changed);
            done += chunk;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Cuts or extends; bytes beyond a cut become zero, one sector at a time as far as a crash is
    /// concerned, which is worse than real file systems do.
    pub(super) fn set_len(&mut self, bytes: u64) {
        if bytes < self.len {
            let (first, start) = place(bytes);
            let cut: Vec<u64> = self.seen.range(first..).map(|(sector, _)| *sector).collect();
            for sector in cut {
                let mut kept = self.seen.get(&sector).copied().unwrap_or([0; 512]);
                let from = if sector == first { start } else { 0 };
                kept.get_mut(from..).unwrap_or_default().fill(0);
                self.change(sector, kept);
            }
            self.allocated = self.allocated.min(bytes.next_multiple_of(SECTOR_BYTES));
        }
        self.len = bytes;
    }

    fn change(&mut self, sector: u64, changed: Sector) {
        let versions = self.pending.entry(sector);
        let first_change = matches!(versions, std::collections::btree_map::Entry::Vacant(_));
        let versions = versions.or_default();
        // The version before the first change is the durable one, or was lost by a failed sync.
        if !first_change && versions.len() < VERSIONS_MAX {
            versions.push(self.seen.get(&sector).copied().unwrap_or([0; 512]));
        }
        self.seen.insert(sector, changed);
    }

    pub(super) fn sync(&mut self) {
        for (sector, _) in std::mem::take(&mut self.pending) {
            if let Some(bytes) = self.seen.get(&sector) {
                self.durable.insert(sector, *bytes);
            }
        }
        self.durable_len = self.len;
    }

    /// A failed sync: each pending sector reached the medium or never will; none is pending.
    pub(super) fn lose_pending(&mut self, random: &SeededRandom) {
        for (sector, _) in std::mem::take(&mut self.pending) {
            if let (true, Some(bytes)) = (random.chance(300), self.seen.get(&sector)) {
                self.durable.insert(sector, *bytes);
            }
        }
    }

    pub(super) fn crash(&mut self, survival: Survival, random: &SeededRandom) {
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let survives = match survival {
                Survival::None => false,
                Survival::All => true,
                Survival::Each => random.chance(500),
            };
            let Some(newest) = self.seen.get(&sector) else { continue };
            if survives {
                let older = random.below(versions.len() as u64 + 3);
                let older = usize::try_from(older).unwrap_or(usize::MAX);
                let choice = if survival == Survival::All { None } else { versions.get(older) };
                self.durable.insert(sector, *choice.unwrap_or(newest));
            }
        }
        let new_len = match survival {
            Survival::None => false,
            Survival::All => true,
            Survival::Each => random.chance(500),
        };
        if new_len {
            self.durable_len = self.len;
        }
        self.len = self.durable_len;
        let (first, start) = place(self.len);
        if let Some(last) = self.durable.get_mut(&first) {
            last.get_mut(start..).unwrap_or_default().fill(0);
        }
        self.durable.split_off(&(first + 1));
        self.seen = self.durable.clone();
        self.allocated = self.len.next_multiple_of(SECTOR_BYTES);
    }

    pub(super) fn flip_bit(&mut self, byte: u64, bit: u8) -> bool {
        if byte >= self.len {
            return false;
        }
        let (sector, start) = place(byte);
        for map in [&mut self.seen, &mut self.durable] {
            let bytes = map.entry(sector).or_insert([0; 512]);
            if let Some(value) = bytes.get_mut(start) {
                *value ^= 1 << (bit % 8);
            }
        }
        true
    }
}

/// Sector of a byte, and where the byte is inside it.
fn place(offset: u64) -> (u64, usize) {
    (offset / SECTOR_BYTES, usize::try_from(offset % SECTOR_BYTES).unwrap_or(0))
}
