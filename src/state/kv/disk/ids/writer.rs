//! Writes a run: rows in order become a file that is durable when it is finished.
//!
//! In: rows, each of a higher rank than the one before. Out: an open [`Run`]. A file that was not
//! finished is named by nobody; the next start removes it. Called by the shelf of runs.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::file_name;
use super::filter::{Filter, hash_of};
use super::row::{PAGE_BYTES, ROWS_PER_PAGE, Ranked, put_page};
use super::run::{Label, Run, Tail};
use crate::base::files::{File, Files, write_all_at};
use crate::base::place::ShardCount;
use crate::state::kv::IdRow;

/// Bytes given to the file at once.
const WRITE_BYTES: usize = 32 * PAGE_BYTES;

/// A run that is being written.
pub(super) struct RunWriter {
    label: Label,
    count: ShardCount,
    file: Arc<dyn File>,
    tail: Tail,
    page: Vec<IdRow>,
    /// Pages on their way into the file.
    out: Vec<u8>,
    written: u64,
}

impl RunWriter {
    /// A new file; `label.rows` is the most that will come, and is what came in the end.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn create(files: &dyn Files, label: Label, count: ShardCount) -> io::Result<Self> {
        let file = files.create_new(&file_name(label.number))?;
        let filter = Filter::with_blocks(Filter::blocks_for(label.rows));
        let pages = (label.rows as usize).div_ceil(ROWS_PER_PAGE);
        let tail = Tail { fences: Vec::with_capacity(pages), filter };
        Ok(Self {
            label: Label { rows: 0, ..label },
            count,
            file,
            tail,
            page: Vec::with_capacity(ROWS_PER_PAGE),
            out: Vec::with_capacity(WRITE_BYTES),
            written: 0,
        })
    }

    /// The next row.
    ///
    /// # Errors
    /// The disk's error; the file is then of no use.
    pub(super) fn push(&mut self, Ranked { rank, row }: &Ranked) -> io::Result<()> {
        if self.page.is_empty() {
            self.tail.fences.push(rank.fence());
        }
        self.tail.filter.insert(hash_of(row.partition, row.fingerprint));
        self.page.push(*row);
        self.label.rows += 1;
        if self.page.len() == ROWS_PER_PAGE { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> io::Result<()> {
        put_page(&self.page, &mut self.out);
        self.page.clear();
        if self.out.len() >= WRITE_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> io::Result<()> {
        write_all_at(&*self.file, &mut [IoSlice::new(&self.out)], self.written)?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Makes the file durable. Its name is once the folder is synced.
    ///
    /// # Errors
    /// The disk's error; the file is then of no use.
    pub(super) fn finish(mut self) -> io::Result<Run> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        self.tail.put(&self.label, self.count, &mut self.out);
        self.write_out()?;
        self.file.sync_data()?;
        self.tail.fences.shrink_to_fit();
        Ok(Run::new(self.label, self.count, self.file, self.tail))
    }
}
