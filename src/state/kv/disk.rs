//! Rows on disk: fjall, an LSM tree, kept small in memory.
//!
//! In: batches of row changes. Out: rows in key order. One keyspace per [`Space`]; transaction ids
//! stand in sorted runs of their own (`ids`), which a further keyspace lists.
//! Whole batches survive a crash in the order of writing; the newest ones not yet persisted may be
//! missing, and the log brings them back. Called by the server's composition, then by `state` and
//! `shard` through [`Kv`].

mod ids;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::{FilterPolicy, PinningPolicy};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::Mutex;

use self::ids::{Ids, Manifest};
use super::{IdRow, Kv, KvError, RowChange, Scan, Space, check_key};
use crate::base::place::{PartitionNumber, ShardCount, ShardId};

/// How much memory and disk the rows' store may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskKvConfig {
    /// Cache of blocks and filters read from disk, in bytes. Grows to this only by reading.
    pub cache_bytes: u64,
    /// Rows of one space kept in memory before they go to a table, in bytes.
    pub memtable_bytes: u64,
    /// Rows of all spaces kept in memory, in bytes: the fullest goes to disk first.
    pub write_buffer_bytes: u64,
    /// Threads that flush and compact.
    pub worker_threads: usize,
}

impl Default for DiskKvConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 20,
            memtable_bytes: 2 << 20,
            write_buffer_bytes: 4 << 20,
            worker_threads: 1,
        }
    }
}

/// fjall takes no less; sealed journals beyond it make it flush the rows that hold them.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Tables of the leveled trees: small ones keep a compaction's buffers and its write burst small.
const TABLE_BYTES: u64 = 4 << 20;
/// Files held open at once; fjall's own 900 would use up most of a default limit of 1,024.
const OPEN_FILES_MAX: usize = 256;
/// Written by fjall as the last step of making a database: without it there is none.
const VERSION_FILE: &str = "version";
/// How the names of keyspaces began that held transaction ids before they had runs.
const OLD_IDS_PREFIX: &str = "dedup-";
/// The keyspace that lists the runs of transaction ids.
const ID_RUNS: &str = "id-runs";

/// Why a folder of rows was not opened. The log is not touched by any of these.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No rows were ever kept here: create them and apply the whole log.
    #[error("no rows in {}", .0.display())]
    Missing(PathBuf),
    /// What is there cannot be trusted: set it aside, create anew, and apply the whole log.
    #[error("damaged rows in {}: {reason}", folder.display())]
    Damaged {
        /// Where.
        folder: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another process has it open.
    #[error("the rows in {} are in use by another process", .0.display())]
    Locked(PathBuf),
    /// The folder could not be read or made; trying again may help, rebuilding does not.
    #[error("rows in {}: {source}", folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Ordered rows on disk.
pub struct DiskKv {
    // First, because its thread is to end before the database is closed.
    ids: Ids,
    count: ShardCount,
    database: Database,
    meta: Keyspace,
    partitions: Keyspace,
    groups: Keyspace,
    runs: Keyspace,
    dead: Keyspace,
    queues: Keyspace,
    letters: Keyspace,
    care: Keyspace,
    states: Keyspace,
    queries: Keyspace,
    /// Held while one thread brings the rows in memory below the limit.
    relief: Mutex<()>,
    config: DiskKvConfig,
}

impl DiskKv {
    /// Opens rows that exist, of a store with `count` shards.
    ///
    /// # Errors
    /// [`OpenError::Missing`] where there are none, [`OpenError::Damaged`] where they cannot be
    /// read, [`OpenError::Locked`] while another process has them, [`OpenError::Io`] otherwise.
    pub fn open(folder: &Path, count: ShardCount, config: DiskKvConfig) -> Result<Self, OpenError> {
        let exists = folder.join(VERSION_FILE).try_exists().map_err(|e| io_error(folder, e))?;
        if !exists {
            return Err(OpenError::Missing(folder.to_path_buf()));
        }
        Self::start(folder, count, config)
    }

    /// Makes an empty store. Whatever an interrupted creation left in the folder is removed.
    ///
    /// # Errors
    /// [`OpenError::Io`] when the folder cannot be made, or has rows already.
    pub fn create(
        folder: &Path,
        count: ShardCount,
        config: DiskKvConfig,
    ) -> Result<Self, OpenError> {
        if folder.join(VERSION_FILE).try_exists().map_err(|e| io_error(folder, e))? {
            let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(io_error(folder, source));
        }
        match std::fs::remove_dir_all(folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error(folder, source));
            }
            _ => {}
        }
        std::fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
        Self::start(folder, count, config)
    }

    /// Moves a damaged folder away, to `<folder>.damaged`, so that it can be looked into; one that
    /// was moved there earlier is removed. Afterwards [`Self::create`] can start anew.
    ///
    /// # Errors
    /// [`OpenError::Io`] when the folder cannot be moved.
    pub fn set_aside(folder: &Path) -> Result<PathBuf, OpenError> {
        let mut name = folder.as_os_str().to_owned();
        name.push(".damaged");
        let aside = PathBuf::from(name);
        match std::fs::remove_dir_all(&aside) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error(&aside, source));
            }
            _ => {}
        }
        std::fs::rename(folder, &aside).map_err(|source| io_error(folder, source))?;
        Ok(aside)
    }

    fn start(folder: &Path, count: ShardCount, config: DiskKvConfig) -> Result<Self, OpenError> {
        // fjall asserts some of its assumptions about files while it recovers; a failed one says
        // that the folder is damaged, and rows can be rebuilt, so it must not end the process.
        let start = AssertUnwindSafe(|| Self::start_or_panic(folder, count, config));
        catch_unwind(start).unwrap_or_else(|panic| {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("recovery panicked");
            Err(OpenError::Damaged { folder: folder.to_path_buf(), reason: reason.to_owned() })
        })
    }

    fn start_or_panic(
        folder: &Path,
        count: ShardCount,
        config: DiskKvConfig,
    ) -> Result<Self, OpenError> {
        let failed = |error: fjall::Error| open_error(folder, error);
        let database = Database::builder(folder)
            .cache_size(config.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(config.worker_threads.max(1))
            .open()
            .map_err(failed)?;
        if database.list_keyspace_names().iter().any(|name| name.starts_with(OLD_IDS_PREFIX)) {
            // Forgetting ids would let duplicates in.
            let reason = "its transaction ids are of an earlier layout".to_owned();
            return Err(OpenError::Damaged { folder: folder.to_path_buf(), reason });
        }
        let open = |name| database.keyspace(name, || options(&config)).map_err(failed);
        let manifest = Manifest::new(database.clone(), open(ID_RUNS)?);
        Ok(Self {
            ids: Ids::open(folder, count, manifest)?,
            count,
            meta: open("meta")?,
            partitions: open("partitions")?,
            groups: open("groups")?,
            runs: open("runs")?,
            dead: open("dead")?,
            queues: open("queues")?,
            letters: open("letters")?,
            care: open("care")?,
            states: open("states")?,
            queries: open("queries")?,
            relief: Mutex::new(()),
            config,
            database,
        })
    }

    /// Bytes that the rows use on disk, journals included.
    ///
    /// # Errors
    /// [`KvError`] when the files cannot be asked.
    pub fn disk_bytes(&self) -> Result<u64, KvError> {
        let rows = self.database.disk_space().map_err(kv_error)?;
        Ok(rows.saturating_add(self.ids.disk_bytes()))
    }

    /// Bytes of rows in memory that no table holds yet.
    #[must_use]
    pub fn write_buffer_bytes(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// Ids are laid out by shard.
    fn check_count(&self, count: ShardCount) -> Result<(), KvError> {
        let (known, asked) = (self.count.get(), count.get());
        match known == asked {
            true => Ok(()),
            false => Err(KvError(format!("{asked} shards, where rows are of {known}"))),
        }
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Meta => &self.meta,
            Space::Partitions => &self.partitions,
            Space::Groups => &self.groups,
            Space::Runs => &self.runs,
            Space::Dead => &self.dead,
            Space::Queues => &self.queues,
            Space::Letters => &self.letters,
            Space::Care => &self.care,
            Space::States => &self.states,
            Space::Queries => &self.queries,
        }
    }

    /// Sends the fullest space's rows to disk when all together are over the limit. fjall bounds
    /// each space alone.
    fn relieve(&self) -> Result<(), KvError> {
        if self.database.write_buffer_size() <= self.config.write_buffer_bytes {
            return Ok(());
        }
        // Another thread is at it: it will see our rows, or the next write does.
        let Some(_guard) = self.relief.try_lock() else { return Ok(()) };
        let all = [
            &self.meta,
            &self.partitions,
            &self.groups,
            &self.runs,
            &self.dead,
            &self.queues,
            &self.letters,
            &self.care,
            &self.states,
            &self.queries,
        ];
        let fullest = all.into_iter().max_by_key(|keyspace| keyspace.tree.active_memtable().size());
        if let Some(keyspace) = fullest {
            keyspace.rotate_memtable().map_err(kv_error)?;
        }
        Ok(())
    }
}

impl Kv for DiskKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.keyspace(space).get(key).map_err(kv_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), KvError> {
        if !to.is_empty() && from >= to {
            return Ok(());
        }
        let keyspace = self.keyspace(space);
        let rows = if to.is_empty() { keyspace.range(from..) } else { keyspace.range(from..to) };
        for row in rows {
            let (key, value) = row.into_inner().map_err(kv_error)?;
            if visit(&key, &value) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn last(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, KvError> {
        if from > to {
            return Ok(None);
        }
        let Some(row) = self.keyspace(space).range(from..=to).next_back() else { return Ok(None) };
        let (key, value) = row.into_inner().map_err(kv_error)?;
        Ok(Some((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))))
    }

    fn write_with_ids(&self, changes: &[RowChange], ids: Vec<IdRow>) -> Result<(), KvError> {
        if changes.is_empty() && ids.is_empty() {
            return Ok(());
        }
        // Changes of one batch share a sequence number inside fjall, where two of one row would be
        // in no order: only the last one goes in.
        let mut last: BTreeMap<(Space, &[u8]), Option<&[u8]>> = BTreeMap::new();
        for change in changes {
            check_key(&change.key)?;
            last.insert((change.space, &change.key), change.value.as_deref());
        }
        // Durable before the batch that lists them.
        let prepared = self.ids.prepare(ids)?;
        let mut batch = self.database.batch();
        for ((space, key), value) in last {
            match value {
                Some(value) => batch.insert(self.keyspace(space), key, value),
                None => batch.remove(self.keyspace(space), key),
            }
        }
        self.ids.list(&prepared, &mut batch);
        batch.commit().map_err(kv_error)?;
        self.ids.publish(prepared);
        self.relieve()
    }

    fn persist(&self) -> Result<(), KvError> {
        self.database.persist(PersistMode::SyncData).map_err(kv_error)
    }

    fn find_id(
        &self,
        partition: PartitionNumber,
        fingerprint: u128,
        oldest: u32,
    ) -> Result<Option<IdRow>, KvError> {
        let found = self.ids.find(partition, &[fingerprint], oldest)?;
        Ok(found.into_iter().next().flatten())
    }

    fn find_ids(
        &self,
        partition: PartitionNumber,
        fingerprints: &[u128],
        oldest: u32,
    ) -> Result<Vec<Option<IdRow>>, KvError> {
        self.ids.find(partition, fingerprints, oldest)
    }

    fn scan_ids(
        &self,
        shard: ShardId,
        count: ShardCount,
        visit: &mut dyn FnMut(&IdRow) -> Scan,
    ) -> Result<(), KvError> {
        self.check_count(count)?;
        self.ids.scan(shard, visit)
    }

    fn forget_ids(&self, shard: ShardId, count: ShardCount) -> Result<(), KvError> {
        self.check_count(count)?;
        self.ids.forget(shard)
    }

    fn drop_generations_before(&self, oldest_kept: u32) -> Result<(), KvError> {
        self.ids.drop_before(oldest_kept)
    }
}

/// How a space's tree is built. Stored by fjall when the space is made; later changes of the
/// configuration do not reach spaces that exist.
fn options(config: &DiskKvConfig) -> KeyspaceCreateOptions {
    let leveled = Leveled::default().with_table_target_size(TABLE_BYTES);
    KeyspaceCreateOptions::default()
        .max_memtable_size(config.memtable_bytes)
        .compaction_strategy(Arc::new(leveled))
        // Index blocks live in the bounded cache, not beside it.
        .index_block_pinning_policy(PinningPolicy::all(false))
        // Read by range, or by keys that exist: filters would be memory for nothing.
        .filter_policy(FilterPolicy::disabled())
        .expect_point_read_hits(true)
}

fn kv_error(error: fjall::Error) -> KvError {
    KvError(error.to_string())
}

fn io_error(folder: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io { folder: folder.to_path_buf(), source }
}

/// A file that is absent, cut short or nonsense (which makes fjall seek before its start) is damage; a
/// disk that says no is not.
fn classify(folder: &Path, source: std::io::Error) -> OpenError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    match source.kind() {
        NotFound | UnexpectedEof | InvalidData | InvalidInput => {
            OpenError::Damaged { folder: folder.to_path_buf(), reason: source.to_string() }
        }
        _ => io_error(folder, source),
    }
}

fn open_error(folder: &Path, error: fjall::Error) -> OpenError {
    match error {
        fjall::Error::Locked => OpenError::Locked(folder.to_path_buf()),
        fjall::Error::Io(source) => classify(folder, source),
        fjall::Error::Storage(fjall::LsmError::Io(source)) => classify(folder, source),
        other => OpenError::Damaged { folder: folder.to_path_buf(), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
