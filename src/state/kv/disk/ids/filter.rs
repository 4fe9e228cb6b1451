//! A filter: whether a run may hold an id, without asking the disk.
//!
//! A split block Bloom filter: an id sets eight bits in one block of 32 bytes, so that asking costs one
//! miss of the processor's cache. The layout and the constants are those of the Apache Parquet format.
//! Pure. Called by runs and their writer.

use crate::base::place::PartitionNumber;

/// Bits of memory for each id: of a thousand absent ids about two cost a read for nothing.
const BITS_PER_ID: u64 = 16;
const WORDS: usize = 8;
/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = WORDS * 4;
const BLOCK_BITS: u64 = BLOCK_BYTES as u64 * 8;

/// Odd numbers, one for each word of a block: the salts of Parquet's `BloomFilter.md`.
const SALTS: [u32; WORDS] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

type Block = [u32; WORDS];

/// Ids of one run, about.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<Block>,
}

/// What the filter knows of an id. Fingerprints are keyed hashes already: nobody can choose them.
pub(super) fn hash_of(partition: PartitionNumber, fingerprint: u128) -> u64 {
    let (low, high) = (fingerprint as u64, (fingerprint >> 64) as u64);
    low ^ high.rotate_left(32) ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Filter {
    /// How many blocks serve so many ids.
    pub(super) fn blocks_for(ids: u64) -> u64 {
        ids.saturating_mul(BITS_PER_ID).div_ceil(BLOCK_BITS).max(1)
    }

    pub(super) fn with_blocks(blocks: u64) -> Self {
        Self { blocks: vec![[0; WORDS]; blocks.max(1) as usize] }
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let at = self.index(hash);
        if let Some(block) = self.blocks.get_mut(at) {
            for (word, salt) in block.iter_mut().zip(SALTS) {
                *word |= bit(hash, salt);
            }
        }
    }

    /// `false`: surely not. `true`: most likely.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.blocks.get(self.index(hash)).is_some_and(|block| {
            block.iter().zip(SALTS).all(|(word, salt)| word & bit(hash, salt) != 0)
        })
    }

    /// The high half chooses the block, the low half its bits.
    fn index(&self, hash: u64) -> usize {
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for word in self.blocks.iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// What [`Self::put`] wrote.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let block = |bytes: &[u8]| {
            let mut block = [0; WORDS];
            let (words, _) = bytes.as_chunks::<4>();
            for (to, from) in block.iter_mut().zip(words) {
                *to = word(from);
            }
            block
        };
        Self { blocks: bytes.chunks_exact(BLOCK_BYTES).map(block).collect() }
    }
}

fn bit(hash: u64, salt: u32) -> u32 {
    1 << ((hash as u32).wrapping_mul(salt) >> 27)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::place::StoreKey;

    fn hash(n: u32) -> u64 {
        hash_of(n % 7, StoreKey([1; 16]).fingerprint(&format!("order-{n}")))
    }

    #[test]
    fn holds_what_was_put_in_and_little_else() {
        const IDS: u32 = 100_000;
        let mut filter = Filter::with_blocks(Filter::blocks_for(u64::from(IDS)));
        (0..IDS).for_each(|n| filter.insert(hash(n)));
        let mut bytes = Vec::new();
        filter.put(&mut bytes);
        assert_eq!(bytes.len() as u64, u64::from(IDS) * BITS_PER_ID / 8);
        let read = Filter::read(&bytes);
        assert!((0..IDS).all(|n| filter.may_hold(hash(n)) && read.may_hold(hash(n))));
        let wrong = (IDS..2 * IDS).filter(|n| read.may_hold(hash(*n))).count();
        assert!(wrong < IDS as usize / 200, "{wrong} of {IDS}");
    }

    #[test]
    fn one_id_in_many_partitions_is_many() {
        let mut filter = Filter::with_blocks(Filter::blocks_for(1_000));
        let fingerprint = StoreKey([1; 16]).fingerprint("order-1");
        (0..1_000).for_each(|number| filter.insert(hash_of(number, fingerprint)));
        let wrong = (1_000..11_000).filter(|n| filter.may_hold(hash_of(*n, fingerprint))).count();
        assert!(wrong < 100, "{wrong}");
    }
}
