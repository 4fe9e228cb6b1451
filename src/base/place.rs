//! Where a partition lives: its shard, its number, and the keyed hash that places its name.
//!
//! In: names and the store's secret key. Out: shard numbers, partition numbers, fingerprints.
//! Pure; called by `ingest` (placing a push) and by `state` (numbering a new partition).

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

/// Number of a shard: 0 to `shards - 1`; the catalog's shard is the number `shards` itself.
pub type ShardId = u16;

/// Public number of a partition: `local × shards + shard`, so that its shard is `number % shards`.
pub type PartitionNumber = u32;

/// Number that the catalog gave to a queue; never given twice, so a queue that is deleted and made
/// again is another queue.
pub type QueueId = u32;

/// The store's secret: keys every hash of client-chosen text, so that nobody can aim for collisions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoreKey(pub [u8; 16]);

/// How many shards a store has (without the catalog's); fixed when it is created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShardCount(u16);

impl ShardCount {
    /// Most shards a store can have: leaves 2²² partitions to each.
    pub const MAX: u16 = 1024;

    /// `None` outside 1..=[`Self::MAX`].
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&count).then_some(Self(count))
    }

    /// The number of shards.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// The shard of the catalog: one past the others.
    #[must_use]
    pub fn catalog(self) -> ShardId {
        self.0
    }

    /// The shard that a placed name belongs to.
    #[must_use]
    pub fn of_hash(self, hash: u64) -> ShardId {
        // The high half is used here and the low half by hash tables, so that the partitions of
        // one shard still spread over its table.
        ((hash >> 32) % u64::from(self.0)) as ShardId
    }

    /// The shard of a numbered partition.
    #[must_use]
    pub fn of_partition(self, number: PartitionNumber) -> ShardId {
        (number % u32::from(self.0)) as ShardId
    }

    /// Index of a partition inside its shard.
    #[must_use]
    pub fn local(self, number: PartitionNumber) -> u32 {
        number / u32::from(self.0)
    }

    /// Number of the partition at `local` in `shard`; `None` when 32 bits do not hold it.
    #[must_use]
    pub fn number(self, shard: ShardId, local: u32) -> Option<PartitionNumber> {
        local.checked_mul(u32::from(self.0))?.checked_add(u32::from(shard))
    }
}

impl StoreKey {
    /// Hash of a partition's full name; stable for the life of the store.
    #[must_use]
    pub fn place(&self, queue: QueueId, partition: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(&queue.to_le_bytes());
        hasher.write(partition.as_bytes());
        hasher.finish()
    }

    /// 128-bit fingerprint of a transaction id, never 0 (0 stands for "no id").
    #[must_use]
    pub fn fingerprint(&self, transaction_id: &str) -> u128 {
        self.fingerprint_of(&[transaction_id.as_bytes()])
    }

    /// The same for an id that this server made up for a message of its own: no client's id has it,
    /// whatever text that is, so nobody can have such a message taken for one that was there before.
    #[must_use]
    pub fn own_fingerprint(&self, transaction_id: &str) -> u128 {
        // A byte that no text has.
        self.fingerprint_of(&[&[0xff], transaction_id.as_bytes()])
    }

    fn fingerprint_of(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher128::new_with_key(&self.0);
        parts.iter().for_each(|part| hasher.write(part));
        let hash = hasher.finish128();
        ((u128::from(hash.h1) << 64) | u128::from(hash.h2)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_number_tells_its_shard_and_local_index() {
        let shards = ShardCount::new(64).unwrap();
        let number = shards.number(17, 1_000).unwrap();
        assert_eq!(shards.of_partition(number), 17);
        assert_eq!(shards.local(number), 1_000);
    }

    #[test]
    fn an_id_of_our_own_is_not_that_of_a_client() {
        let key = StoreKey([7; 16]);
        assert_eq!(key.own_fingerprint("p:1:2:3"), key.own_fingerprint("p:1:2:3"));
        for id in ["p:1:2:3", "\u{ff}p:1:2:3"] {
            assert_ne!(key.own_fingerprint("p:1:2:3"), key.fingerprint(id), "{id}");
        }
    }

    #[test]
    fn a_number_beyond_32_bits_is_refused() {
        let shards = ShardCount::new(64).unwrap();
        assert_eq!(shards.number(0, u32::MAX / 32), None);
    }

    #[test]
    fn names_spread_over_all_shards() {
        let (shards, key) = (ShardCount::new(64).unwrap(), StoreKey([7; 16]));
        let mut seen = std::collections::HashSet::new();
        for index in 0..2_000 {
            seen.insert(shards.of_hash(key.place(1, &format!("p{index}"))));
        }
        assert_eq!(seen.len(), 64);
    }
}
