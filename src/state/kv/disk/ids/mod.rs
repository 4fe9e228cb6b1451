//! Transaction ids on disk: sorted runs in files of their own, listed in the rows' database.
//!
//! In: the ids of a checkpoint, as rows. Out: the row of an id. Each checkpoint's ids become one run,
//! durable before the batch that lists it is written, so ids and rows stand together or not at all.
//! A thread merges runs of one size, so that few have to be asked. A generation is dropped by dropping
//! its runs. Ids need neither order nor change nor removal one by one, and are mostly asked for in
//! vain; a tree for everything pays for all of these in memory. Called by the rows' store.

mod filter;
mod manifest;
mod merge;
mod row;
mod run;
mod writer;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use fjall::OwnedWriteBatch;
use parking_lot::{Mutex, RwLock};

use self::manifest::Listed;
pub(super) use self::manifest::Manifest;
use self::merge::Merged;
use self::row::{Rank, Ranked};
use self::run::{Label, Run};
use self::writer::RunWriter;
use super::{OpenError, classify, io_error};
use crate::base::files::{DiskFiles, Files};
use crate::base::place::{PartitionNumber, ShardCount, ShardId};
use crate::state::kv::{IdRow, KvError, Scan};

/// The folder of runs, inside that of the rows.
const FOLDER: &str = "ids";
/// How the names of runs begin.
const RUN_PREFIX: &str = "run-";
/// Rows merged between two looks at whether to stop.
const ROWS_PER_LOOK: u64 = 4_096;

fn file_name(number: u64) -> String {
    format!("{RUN_PREFIX}{number:016x}")
}

/// All ids of a store.
pub(super) struct Ids {
    shared: Arc<Shared>,
    /// Wakes the merger; `None` while the store closes.
    wake: Option<mpsc::Sender<()>>,
    merger: Option<JoinHandle<()>>,
}

struct Shared {
    files: Arc<dyn Files>,
    count: ShardCount,
    manifest: Manifest,
    shelf: RwLock<Arc<Shelf>>,
    /// Held while the list and the shelf change together.
    change: Mutex<()>,
    next_number: AtomicU64,
    stopping: AtomicBool,
}

/// The runs that count now; replaced whole.
#[derive(Clone, Default)]
struct Shelf {
    /// Newest first.
    runs: Vec<Arc<Run>>,
    /// By shard: its ids in runs older than this were forgotten.
    forgotten: Vec<u64>,
}

impl Shelf {
    fn is_forgotten(&self, shard: ShardId, age: u64) -> bool {
        self.forgotten.get(usize::from(shard)).is_some_and(|end| age < *end)
    }

    fn labels(&self) -> Vec<Label> {
        self.runs.iter().map(|run| run.label).collect()
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        drop(self.wake.take());
        if let Some(merger) = self.merger.take() {
            // A panic there was told by the panic hook.
            let _ = merger.join();
        }
    }
}

impl Ids {
    /// Opens the runs that the manifest lists, and removes files that it does not.
    pub(super) fn open(
        rows: &Path,
        count: ShardCount,
        manifest: Manifest,
    ) -> Result<Self, OpenError> {
        let folder = rows.join(FOLDER);
        let failed = |error: io::Error| classify(&folder, error);
        let files = DiskFiles::open(&folder).map_err(failed)?;
        let listed = manifest
            .read(count)
            .map_err(|error| OpenError::Damaged { folder: folder.clone(), reason: error.0 })?;
        let Listed { labels, forgotten, next_number } = listed;
        remove_unlisted(&files, &labels).map_err(failed)?;
        let mut runs = Vec::with_capacity(labels.len());
        for label in labels {
            let file = files.open(&file_name(label.number)).map_err(failed)?;
            runs.push(Arc::new(Run::open(label, count, file).map_err(failed)?));
        }
        runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.label.age));
        let shared = Arc::new(Shared {
            files: Arc::new(files),
            count,
            manifest,
            shelf: RwLock::new(Arc::new(Shelf { runs, forgotten })),
            change: Mutex::new(()),
            next_number: AtomicU64::new(next_number),
            stopping: AtomicBool::new(false),
        });
        let (wake, woken) = mpsc::channel();
        let merging = Arc::clone(&shared);
        let merger = std::thread::Builder::new().name("onrush-ids".into()).spawn(move || {
            while woken.recv().is_ok() {
                merging.merge_all();
            }
        });
        let merger = Some(merger.map_err(|source| io_error(&folder, source))?);
        let ids = Self { shared, wake: Some(wake), merger };
        ids.wake();
        Ok(ids)
    }

    fn wake(&self) {
        // The thread lives as long as this.
        let _ = self.wake.as_ref().map(|wake| wake.send(()));
    }

    /// Writes rows as runs that nobody sees yet, one for each generation. They are durable when this
    /// returns, and gone after the next start unless the manifest lists them.
    pub(super) fn prepare(&self, rows: Vec<IdRow>) -> Result<Prepared, KvError> {
        let Shared { count, files, .. } = &*self.shared;
        if rows.is_empty() {
            return Ok(Prepared::default());
        }
        let mut rows: Vec<Ranked> = rows.into_iter().map(|row| Ranked::new(*count, row)).collect();
        // Stable, so that of two rows of one id the later one is behind.
        rows.sort_by_key(|it| (it.row.generation, it.rank));
        let mut runs = Vec::new();
        for rows in rows.chunk_by(|one, other| one.row.generation == other.row.generation) {
            runs.push(Arc::new(self.shared.write_run(rows).map_err(failed)?));
        }
        files.sync_dir().map_err(failed)?;
        Ok(Prepared(runs))
    }

    /// Lists runs with a batch: they count when it is committed, and are seen when they are published.
    pub(super) fn list(&self, prepared: &Prepared, batch: &mut OwnedWriteBatch) {
        for run in &prepared.0 {
            self.shared.manifest.add(batch, &run.label);
        }
    }

    /// Shows runs that the manifest lists by now.
    pub(super) fn publish(&self, prepared: Prepared) {
        if prepared.0.is_empty() {
            return;
        }
        let _changing = self.shared.change.lock();
        self.shared.swap(|shelf| {
            shelf.runs.extend(prepared.0);
            shelf.runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.label.age));
        });
        self.wake();
    }

    /// The newest row of each id in a generation from `oldest` on. Run by run and not id by id: what is
    /// asked of one filter one after the other, the processor fetches side by side.
    pub(super) fn find(
        &self,
        partition: PartitionNumber,
        fingerprints: &[u128],
        oldest: u32,
    ) -> Result<Vec<Option<IdRow>>, KvError> {
        let shelf = Arc::clone(&self.shared.shelf.read());
        let shard = self.shared.count.of_partition(partition);
        let counts = |run: &&Arc<Run>| {
            run.label.generation >= oldest && !shelf.is_forgotten(shard, run.label.age)
        };
        let mut found = vec![None; fingerprints.len()];
        for run in shelf.runs.iter().filter(counts) {
            let open = fingerprints.iter().zip(&mut found).filter(|(_, found)| found.is_none());
            for (fingerprint, found) in open {
                if run.may_hold(partition, *fingerprint) {
                    *found = run.find(partition, *fingerprint).map_err(failed)?;
                }
            }
        }
        Ok(found)
    }

    /// The newest row of each id of a shard.
    pub(super) fn scan(
        &self,
        shard: ShardId,
        visit: &mut dyn FnMut(&IdRow) -> Scan,
    ) -> Result<(), KvError> {
        let shelf = Arc::clone(&self.shared.shelf.read());
        let count = self.shared.count;
        let end = Rank::first_of(shard.saturating_add(1));
        let mut rows = Merged::new(&shelf.runs, count, Rank::first_of(shard));
        while let Some((row, age)) = rows.next().map_err(failed)? {
            if row.rank >= end {
                break;
            }
            if !shelf.is_forgotten(shard, age) && visit(&row.row) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Forgets all ids of a shard. Their space comes back when their runs are merged.
    pub(super) fn forget(&self, shard: ShardId) -> Result<(), KvError> {
        let _changing = self.shared.change.lock();
        if self.shared.shelf.read().runs.is_empty() {
            return Ok(());
        }
        let end = self.shared.take_number();
        self.shared.manifest.forget(shard, end)?;
        self.shared.swap(|shelf| {
            if let Some(forgotten) = shelf.forgotten.get_mut(usize::from(shard)) {
                *forgotten = end;
            }
        });
        Ok(())
    }

    /// Drops the runs of generations before `oldest`.
    pub(super) fn drop_before(&self, oldest: u32) -> Result<(), KvError> {
        let is_old = |run: &Arc<Run>| run.label.generation < oldest;
        if !self.shared.shelf.read().runs.iter().any(is_old) {
            return Ok(());
        }
        let _changing = self.shared.change.lock();
        let shelf = Arc::clone(&self.shared.shelf.read());
        let old: Vec<Label> =
            shelf.runs.iter().filter(|it| is_old(it)).map(|it| it.label).collect();
        self.shared.manifest.replace(&old, None)?;
        self.shared.swap(|shelf| shelf.runs.retain(|run| !is_old(run)));
        self.shared.remove(&old);
        Ok(())
    }

    /// Runs that count now.
    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.shared.shelf.read().runs.len()
    }

    /// Bytes of the runs on disk, about.
    pub(super) fn disk_bytes(&self) -> u64 {
        let pages = self.shared.shelf.read().runs.iter().map(|run| run.pages() as u64).sum::<u64>();
        pages * row::PAGE_BYTES as u64
    }
}

/// Runs that are durable, but not listed.
#[derive(Default)]
pub(super) struct Prepared(Vec<Arc<Run>>);

impl Shared {
    fn take_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn swap(&self, change: impl FnOnce(&mut Shelf)) {
        let mut shelf = Shelf::clone(&self.shelf.read());
        change(&mut shelf);
        *self.shelf.write() = Arc::new(shelf);
    }

    /// A run of rows of one generation, in order; of several of one id the last one counts.
    fn write_run(&self, rows: &[Ranked]) -> io::Result<Run> {
        let number = self.take_number();
        let generation = rows.first().map_or(0, |it| it.row.generation);
        let label = Label { number, age: number, generation, rows: rows.len() as u64 };
        let write = || {
            let mut writer = RunWriter::create(&*self.files, label, self.count)?;
            let mut rows = rows.iter().peekable();
            while let Some(row) = rows.next() {
                if rows.peek().is_none_or(|next| next.rank != row.rank) {
                    writer.push(row)?;
                }
            }
            writer.finish()
        };
        write().inspect_err(|_| self.discard(number))
    }

    /// Removes what was written in vain, perhaps for want of space.
    fn discard(&self, number: u64) {
        // Or the next start does.
        let _ = self.files.remove(&file_name(number));
    }

    /// Merges until nothing is worth it.
    fn merge_all(&self) {
        while !self.stopping.load(Ordering::Relaxed) {
            let shelf = Arc::clone(&self.shelf.read());
            let Some(picked) = merge::pick(&shelf.labels()) else { return };
            if let Err(error) = self.merge(&shelf, &picked) {
                tracing::warn!(%error, "transaction ids could not be merged; they stay as they are");
                return;
            }
        }
    }

    fn merge(&self, shelf: &Shelf, picked: &[Label]) -> Result<(), KvError> {
        let of_run = |run: &&Arc<Run>| picked.contains(&run.label);
        let inputs: Vec<Arc<Run>> = shelf.runs.iter().filter(of_run).cloned().collect();
        let number = self.take_number();
        let written = self.write_merged(shelf, &inputs, number);
        let written = written.inspect_err(|_| self.discard(number)).map_err(failed)?;
        let Some(output) = written else { return Ok(()) };
        let _changing = self.change.lock();
        let is_there = |label: &Label| self.shelf.read().labels().contains(label);
        if !picked.iter().all(is_there) {
            // Dropped meanwhile, all that there was with them.
            self.discard(number);
            return Ok(());
        }
        self.manifest.replace(picked, Some(&output.label))?;
        self.swap(|shelf| {
            shelf.runs.retain(|run| !picked.contains(&run.label));
            shelf.runs.push(Arc::new(output));
            shelf.runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.label.age));
        });
        self.remove(picked);
        Ok(())
    }

    /// `None` when the store closes meanwhile.
    fn write_merged(
        &self,
        shelf: &Shelf,
        inputs: &[Arc<Run>],
        number: u64,
    ) -> io::Result<Option<Run>> {
        let label = Label {
            number,
            age: inputs.iter().map(|run| run.label.age).max().unwrap_or(0),
            generation: inputs.first().map_or(0, |run| run.label.generation),
            rows: inputs.iter().map(|run| run.label.rows).sum(),
        };
        let mut writer = RunWriter::create(&*self.files, label, self.count)?;
        let mut rows = Merged::new(inputs, self.count, Rank::first_of(0));
        let mut seen = 0u64;
        while let Some((row, age)) = rows.next()? {
            if !shelf.is_forgotten(self.count.of_partition(row.row.partition), age) {
                writer.push(&row)?;
            }
            seen += 1;
            if seen.is_multiple_of(ROWS_PER_LOOK) && self.stopping.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        let run = writer.finish()?;
        self.files.sync_dir()?;
        Ok(Some(run))
    }

    /// Removes files that nothing lists any more; whoever still reads one keeps it open.
    fn remove(&self, labels: &[Label]) {
        for label in labels {
            if let Err(error) = self.files.remove(&file_name(label.number)) {
                tracing::warn!(%error, "an old run of transaction ids stays until the next start");
            }
        }
    }
}

fn remove_unlisted(files: &dyn Files, labels: &[Label]) -> io::Result<()> {
    let listed: std::collections::HashSet<String> =
        labels.iter().map(|label| file_name(label.number)).collect();
    for name in files.list()? {
        if name.starts_with(RUN_PREFIX) && !listed.contains(&name) {
            files.remove(&name)?;
        }
    }
    Ok(())
}

fn failed(error: io::Error) -> KvError {
    KvError(format!("transaction ids: {error}"))
}

#[cfg(test)]
mod tests;
