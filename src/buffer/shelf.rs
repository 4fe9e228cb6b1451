//! The rings of one shard, behind one lock.
//!
//! A ring exists only while something waits in it, so a million quiet partitions cost nothing here.

use hashbrown::HashTable;

use crate::buffer::Full;
use crate::buffer::ring::{Placed, Ring, RingLimits};

/// The rings of one shard.
#[derive(Debug, Default)]
pub struct Shelf {
    rings: Vec<Ring>,
    /// Of all rings together.
    bytes: u64,
    by_name: HashTable<usize>,
}

impl Shelf {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// The bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a push; returns how many messages wait in its ring.
    ///
    /// # Errors
    /// [`Full::Ring`], with the push.
    pub fn push(&mut self, push: Placed, limits: RingLimits) -> Result<u32, (Placed, Full)> {
        let rings = &self.rings;
        let is_it = |at: &usize| rings.get(*at).is_some_and(|ring| ring.is_for(&push));
        let at = match self.by_name.find(push.hash, is_it) {
            Some(at) => *at,
            None => {
                let at = self.rings.len();
                let hash = push.hash;
                self.rings.push(Ring::new(&push));
                let rings = &self.rings;
                let hash_of = |at: &usize| rings.get(*at).map_or(0, |ring| ring.hash);
                self.by_name.insert_unique(hash, at, hash_of);
                at
            }
        };
        // The index was just found or made; a missing ring would be refused as a full one.
        let RingLimits { messages_max, bytes_max } = limits;
        let Some(ring) = self.rings.get_mut(at) else {
            return Err((push, Full::Ring { messages_max, bytes_max }));
        };
        let bytes = push.bytes();
        ring.push(push, limits)?;
        self.bytes += bytes;
        Ok(ring.messages())
    }

    /// Takes rings, the longest waiting first, up to about `bytes_max`; at least one batch.
    pub fn drain(&mut self, bytes_max: u64) -> Vec<Ring> {
        let mut bytes = 0;
        let whole = self.rings.iter().take_while(|ring| {
            bytes += ring.bytes();
            bytes <= bytes_max
        });
        let whole = whole.count();
        if whole == self.rings.len() {
            self.by_name.clear();
            self.bytes = 0;
            return std::mem::take(&mut self.rings);
        }
        let mut taken: Vec<Ring> = self.rings.drain(..whole).collect();
        if taken.is_empty()
            && let Some(first) = self.rings.first_mut()
        {
            taken.push(first.split(bytes_max));
        }
        self.rings.retain(|ring| !ring.pending.is_empty());
        self.bytes = self.rings.iter().map(Ring::bytes).sum();
        self.reindex();
        taken
    }

    fn reindex(&mut self) {
        self.by_name.clear();
        let rings = &self.rings;
        let hash_of = |at: &usize| rings.get(*at).map_or(0, |ring| ring.hash);
        for (at, ring) in rings.iter().enumerate() {
            self.by_name.insert_unique(ring.hash, at, hash_of);
        }
    }
}
