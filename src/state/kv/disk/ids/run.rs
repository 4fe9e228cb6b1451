//! A run: a file of transaction ids in order, which never changes.
//!
//! In: a partition and a fingerprint. Out: the id's row. In memory are a filter (2 bytes an id) and
//! the first rank of each page, so an id that is not there costs no read, and one that is there one.
//! Called by the shelf of runs; made by [`super::writer`].
//!
//! ```text
//! file:   page … | fence of each page | filter | footer
//! footer: magic u32 | generation u32 | shards u32 | rows u64 | pages u64 | blocks u64
//!         | CRC-32 of fences and filter, u32 | CRC-32 of the footer before, u32
//! ```

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::filter::{BLOCK_BYTES, Filter, hash_of};
use super::row::{Fence, PAGE_BYTES, Page, Rank, rank_of};
use crate::base::files::{File, read_exact_at};
use crate::base::place::{PartitionNumber, ShardCount};
use crate::state::kv::IdRow;

const MAGIC: u32 = u32::from_le_bytes(*b"oid1");
const FOOTER_BYTES: usize = 44;

/// What is known of a run without opening it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Label {
    /// Names its file; never used twice.
    pub(super) number: u64,
    /// Which of two runs is newer. A merged run is as new as the newest that went into it.
    pub(super) age: u64,
    /// The generation of its ids.
    pub(super) generation: u32,
    /// How many ids it has.
    pub(super) rows: u64,
}

/// An open run.
pub(super) struct Run {
    pub(super) label: Label,
    count: ShardCount,
    file: Arc<dyn File>,
    fences: Vec<Fence>,
    filter: Filter,
}

/// What stands in front of the footer, in memory.
pub(super) struct Tail {
    pub(super) fences: Vec<Fence>,
    pub(super) filter: Filter,
}

impl Run {
    /// A run that was just written.
    pub(super) fn new(label: Label, count: ShardCount, file: Arc<dyn File>, tail: Tail) -> Self {
        let Tail { fences, filter } = tail;
        Self { label, count, file, fences, filter }
    }

    /// Reads what is kept in memory.
    ///
    /// # Errors
    /// `InvalidData` when the file is not the run that the label names; the disk's error.
    pub(super) fn open(label: Label, count: ShardCount, file: Arc<dyn File>) -> io::Result<Self> {
        let end = file.len()?;
        let footer_at = end.checked_sub(FOOTER_BYTES as u64).ok_or_else(damaged)?;
        let mut footer = [0; FOOTER_BYTES];
        read_exact_at(&*file, &mut footer, footer_at)?;
        let footer = Footer::read(&footer).ok_or_else(damaged)?;
        let fence_bytes = footer.pages.checked_mul(Fence::BYTES as u64).ok_or_else(damaged)?;
        let filter_bytes = footer.blocks.checked_mul(BLOCK_BYTES as u64).ok_or_else(damaged)?;
        let tail_bytes = fence_bytes.checked_add(filter_bytes).ok_or_else(damaged)?;
        let is_whole =
            footer.pages.checked_mul(PAGE_BYTES as u64) == footer_at.checked_sub(tail_bytes);
        let is_it = (footer.generation, footer.rows) == (label.generation, label.rows);
        if !is_whole || !is_it || footer.shards != u32::from(count.get()) {
            return Err(damaged());
        }
        let mut tail = vec![0; tail_bytes as usize];
        read_exact_at(&*file, &mut tail, footer_at - tail_bytes)?;
        if crc32fast::hash(&tail) != footer.tail_check {
            return Err(damaged());
        }
        let (fences, filter) = tail.split_at_checked(fence_bytes as usize).ok_or_else(damaged)?;
        let fences = fences.chunks_exact(Fence::BYTES).filter_map(Fence::read).collect();
        Ok(Self::new(label, count, file, Tail { fences, filter: Filter::read(filter) }))
    }

    /// `false`: the id is surely not here.
    pub(super) fn may_hold(&self, partition: PartitionNumber, fingerprint: u128) -> bool {
        self.filter.may_hold(hash_of(partition, fingerprint))
    }

    /// The row of an id that may be here. Reads the disk.
    ///
    /// # Errors
    /// `InvalidData` for a damaged page; the disk's error.
    pub(super) fn find(
        &self,
        partition: PartitionNumber,
        fingerprint: u128,
    ) -> io::Result<Option<IdRow>> {
        let rank = Rank::of(self.count, partition, fingerprint);
        let mut bytes = [0; PAGE_BYTES];
        for index in self.pages_of(rank) {
            let page = self.read_page(index, &mut bytes)?;
            let found = page.get(page.lower_bound(self.count, rank));
            if let Some(row) = found.filter(|row| rank_of(self.count, row) == rank) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Pages that may hold a rank: nearly always one. Where fences are the same, several.
    fn pages_of(&self, rank: Rank) -> std::ops::Range<usize> {
        let fence = rank.fence();
        let before = self.fences.partition_point(|it| *it < fence).saturating_sub(1);
        before..self.fences.partition_point(|it| *it <= fence)
    }

    /// The first page that may hold ranks from `rank` on.
    pub(super) fn page_from(&self, rank: Rank) -> usize {
        self.pages_of(rank).start
    }

    pub(super) fn pages(&self) -> usize {
        self.fences.len()
    }

    fn read_page<'a>(&self, index: usize, bytes: &'a mut [u8]) -> io::Result<Page<'a>> {
        self.read_pages(index, bytes)?;
        Page::read(bytes, self.label.generation).ok_or_else(damaged)
    }

    /// Fills `bytes` with the pages from `index` on, unchecked.
    pub(super) fn read_pages(&self, index: usize, bytes: &mut [u8]) -> io::Result<()> {
        read_exact_at(&*self.file, bytes, index as u64 * PAGE_BYTES as u64)
    }
}

/// What is not as it was written.
pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a run of transaction ids is damaged")
}

struct Footer {
    generation: u32,
    shards: u32,
    rows: u64,
    pages: u64,
    blocks: u64,
    tail_check: u32,
}

impl Footer {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (mut body, mut check) = bytes.split_at_checked(FOOTER_BYTES - 4)?;
        let is_whole = check.try_get_u32_le().ok()? == crc32fast::hash(body);
        (is_whole && body.try_get_u32_le().ok()? == MAGIC).then_some(())?;
        Some(Self {
            generation: body.try_get_u32_le().ok()?,
            shards: body.try_get_u32_le().ok()?,
            rows: body.try_get_u64_le().ok()?,
            pages: body.try_get_u64_le().ok()?,
            blocks: body.try_get_u64_le().ok()?,
            tail_check: body.try_get_u32_le().ok()?,
        })
    }
}

impl Tail {
    /// Everything behind the pages, footer included.
    pub(super) fn put(&self, label: &Label, count: ShardCount, out: &mut Vec<u8>) {
        let start = out.len();
        for fence in &self.fences {
            fence.put(out);
        }
        self.filter.put(out);
        let tail_check = crc32fast::hash(out.get(start..).unwrap_or_default());
        let footer_at = out.len();
        out.put_u32_le(MAGIC);
        out.put_u32_le(label.generation);
        out.put_u32_le(u32::from(count.get()));
        out.put_u64_le(label.rows);
        out.put_u64_le(self.fences.len() as u64);
        out.put_u64_le(self.filter.blocks());
        out.put_u32_le(tail_check);
        out.put_u32_le(crc32fast::hash(out.get(footer_at..).unwrap_or_default()));
    }
}
