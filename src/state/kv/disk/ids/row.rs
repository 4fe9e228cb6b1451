//! Rows of transaction ids as bytes, and pages of them.
//!
//! In: rows in the order of [`Rank`]. Out: pages of [`PAGE_BYTES`], each with its own check, and rows
//! back. Pure. Called by runs, their writer and their cursors.
//!
//! ```text
//! page: row … | zeros | rows u16 | CRC-32 of everything before, u32
//! row:  partition u32 | fingerprint u128 | sequence u64 | unix milliseconds u64
//! ```

use bytes::{Buf, BufMut};

use crate::base::place::{PartitionNumber, ShardCount, ShardId};
use crate::state::kv::IdRow;

/// Bytes of a page: what a disk reads at once.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a row.
pub(super) const ROW_BYTES: usize = 36;
/// Bytes behind a page's rows.
const TRAILER_BYTES: usize = 6;
/// Rows of a full page.
pub(super) const ROWS_PER_PAGE: usize = (PAGE_BYTES - TRAILER_BYTES) / ROW_BYTES;

/// What rows are ordered by: those of one shard stand together, and in it those of one partition.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rank {
    /// Shard, then the partition's index in it.
    place: u64,
    fingerprint: u128,
}

impl Rank {
    pub(super) fn of(count: ShardCount, partition: PartitionNumber, fingerprint: u128) -> Self {
        let (shard, local) = (count.of_partition(partition), count.local(partition));
        Self { place: (u64::from(shard) << 32) | u64::from(local), fingerprint }
    }

    /// Lower than any row of the shard, and not lower than any of the shards before it.
    pub(super) fn first_of(shard: ShardId) -> Self {
        Self { place: u64::from(shard) << 32, fingerprint: 0 }
    }

    /// As much of it as is kept in memory for each page.
    pub(super) fn fence(self) -> Fence {
        Fence { place: self.place, high: (self.fingerprint >> 64) as u64 }
    }
}

/// A rank without its last bits, so two ranks in order may have one fence.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Fence {
    place: u64,
    high: u64,
}

impl Fence {
    /// Bytes in a file.
    pub(super) const BYTES: usize = 16;

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u64_le(self.place);
        out.put_u64_le(self.high);
    }

    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let place = bytes.try_get_u64_le().ok()?;
        Some(Self { place, high: bytes.try_get_u64_le().ok()? })
    }
}

/// Appends a page; no more than [`ROWS_PER_PAGE`] rows.
pub(super) fn put_page(rows: &[IdRow], out: &mut Vec<u8>) {
    let start = out.len();
    for row in rows {
        out.put_u32_le(row.partition);
        out.put_u128_le(row.fingerprint);
        out.put_u64_le(row.seq);
        out.put_u64_le(row.time_ms);
    }
    out.resize(start + PAGE_BYTES - TRAILER_BYTES, 0);
    out.put_u16_le(rows.len() as u16);
    let check = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.put_u32_le(check);
}

/// A page that was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    rows: &'a [u8],
    generation: u32,
}

impl<'a> Page<'a> {
    /// `None` when the bytes are not those that were written.
    pub(super) fn read(bytes: &'a [u8], generation: u32) -> Option<Self> {
        let (body, mut check) = bytes.split_at_checked(PAGE_BYTES - 4)?;
        if check.try_get_u32_le().ok()? != crc32fast::hash(body) {
            return None;
        }
        let (rows, mut count) = body.split_at_checked(PAGE_BYTES - TRAILER_BYTES)?;
        let count = usize::from(count.try_get_u16_le().ok()?);
        Some(Self { rows: rows.get(..count * ROW_BYTES)?, generation })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len() / ROW_BYTES
    }

    pub(super) fn get(&self, index: usize) -> Option<IdRow> {
        let mut row = self.rows.chunks_exact(ROW_BYTES).nth(index)?;
        Some(IdRow {
            generation: self.generation,
            partition: row.try_get_u32_le().ok()?,
            fingerprint: row.try_get_u128_le().ok()?,
            seq: row.try_get_u64_le().ok()?,
            time_ms: row.try_get_u64_le().ok()?,
        })
    }

    /// Index of the first row that is not before `rank`.
    pub(super) fn lower_bound(&self, count: ShardCount, rank: Rank) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let row = self.get(middle);
            match row.is_some_and(|row| rank_of(count, &row) < rank) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

/// A row with its rank, which takes two divisions to find: worth keeping where rows are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    pub(super) rank: Rank,
    pub(super) row: IdRow,
}

impl Ranked {
    pub(super) fn new(count: ShardCount, row: IdRow) -> Self {
        Self { rank: rank_of(count, &row), row }
    }
}

/// The rank of a row.
pub(super) fn rank_of(count: ShardCount, row: &IdRow) -> Rank {
    Rank::of(count, row.partition, row.fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: u64) -> Vec<IdRow> {
        let row = |at: u64| IdRow {
            generation: 3,
            partition: at as u32 / 40,
            fingerprint: u128::from(at) << 70 | u128::from(at),
            seq: at * 3,
            time_ms: at + 5,
        };
        (0..n).map(row).collect()
    }

    #[test]
    fn a_page_gives_back_its_rows_and_finds_them() {
        let count = ShardCount::new(1).unwrap();
        let rows = rows(ROWS_PER_PAGE as u64);
        let mut bytes = Vec::new();
        put_page(&rows, &mut bytes);
        assert_eq!(bytes.len(), PAGE_BYTES);
        let page = Page::read(&bytes, 3).unwrap();
        assert_eq!(page.len(), ROWS_PER_PAGE);
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(page.get(index), Some(*row));
            assert_eq!(page.lower_bound(count, rank_of(count, row)), index);
        }
        assert_eq!(page.get(ROWS_PER_PAGE), None);
    }

    #[test]
    fn no_changed_byte_of_a_page_goes_unnoticed() {
        let mut bytes = Vec::new();
        put_page(&rows(5), &mut bytes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(Page::read(&damaged, 3).is_none(), "byte {at}");
        }
    }

    #[test]
    fn ranks_keep_a_shard_together_whatever_the_numbers_of_its_partitions() {
        let count = ShardCount::new(3).unwrap();
        let shard_two = [2, 5, 8, u32::MAX - 1].map(|number| Rank::of(count, number, u128::MAX));
        assert!(shard_two.is_sorted());
        for rank in shard_two {
            assert!(Rank::first_of(2) < rank && rank < Rank::first_of(3));
            assert!(Rank::of(count, u32::MAX - 2, u128::MAX) < Rank::first_of(2));
        }
    }
}
