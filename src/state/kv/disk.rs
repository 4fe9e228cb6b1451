//! Rows on disk: fjall, an LSM tree, kept small in memory.
//!
//! In: batches of row changes. Out: rows in key order. One keyspace per [`Space`]; a dedup
//! generation is a keyspace of its own, so that dropping it deletes files instead of rows.
//! Whole batches survive a crash in the order of writing; the newest ones not yet persisted may be
//! missing, and the log brings them back. Called by the server's composition, then by `state` and
//! `shard` through [`Kv`].

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::{
    BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Mutex, RwLock};

use super::{Kv, KvError, RowChange, Scan, Space, check_key};

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
/// Tables of the leveled trees: small ones keep a compaction's buffers and its write burst small. The
/// filter of a table being written takes 8 bytes a row, in a vector that doubles.
const TABLE_BYTES: u64 = 4 << 20;
/// 16 bits make one absent id in two thousand cost a block read, for 2 bytes an id. With 10 bits it is
/// one in a hundred, and the blocks that are read for nothing fill the cache within a million ids.
const BLOOM_BITS_PER_KEY: f32 = 16.0;
/// Files held open at once; fjall's own 900 would use up most of a default limit of 1,024.
const OPEN_FILES_MAX: usize = 256;
/// Written by fjall as the last step of making a database: without it there is none.
const VERSION_FILE: &str = "version";
/// How the names of dedup keyspaces begin.
const DEDUP_PREFIX: &str = "dedup-";

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
    database: Database,
    meta: Keyspace,
    partitions: Keyspace,
    groups: Keyspace,
    runs: Keyspace,
    dead: Keyspace,
    queues: Keyspace,
    dedup: RwLock<BTreeMap<u32, Keyspace>>,
    /// Held while one thread brings the rows in memory below the limit.
    relief: Mutex<()>,
    config: DiskKvConfig,
}

impl DiskKv {
    /// Opens rows that exist.
    ///
    /// # Errors
    /// [`OpenError::Missing`] where there are none, [`OpenError::Damaged`] where they cannot be
    /// read, [`OpenError::Locked`] while another process has them, [`OpenError::Io`] otherwise.
    pub fn open(folder: &Path, config: DiskKvConfig) -> Result<Self, OpenError> {
        let exists = folder.join(VERSION_FILE).try_exists().map_err(|e| io_error(folder, e))?;
        if !exists {
            return Err(OpenError::Missing(folder.to_path_buf()));
        }
        Self::start(folder, config)
    }

    /// Makes an empty store. Whatever an interrupted creation left in the folder is removed.
    ///
    /// # Errors
    /// [`OpenError::Io`] when the folder cannot be made, or has rows already.
    pub fn create(folder: &Path, config: DiskKvConfig) -> Result<Self, OpenError> {
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
        Self::start(folder, config)
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

    fn start(folder: &Path, config: DiskKvConfig) -> Result<Self, OpenError> {
        // fjall asserts some of its assumptions about files while it recovers; a failed one says
        // that the folder is damaged, and rows can be rebuilt, so it must not end the process.
        catch_unwind(AssertUnwindSafe(|| Self::start_or_panic(folder, config))).unwrap_or_else(
            |panic| {
                let reason = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("recovery panicked");
                Err(OpenError::Damaged { folder: folder.to_path_buf(), reason: reason.to_owned() })
            },
        )
    }

    fn start_or_panic(folder: &Path, config: DiskKvConfig) -> Result<Self, OpenError> {
        let failed = |error: fjall::Error| open_error(folder, error);
        let database = Database::builder(folder)
            .cache_size(config.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(config.worker_threads.max(1))
            .open()
            .map_err(failed)?;
        let fixed = |space: Space| {
            database.keyspace(&name_of(space), || options_of(space, &config)).map_err(failed)
        };
        let mut dedup = BTreeMap::new();
        for name in database.list_keyspace_names() {
            let Some(digits) = name.strip_prefix(DEDUP_PREFIX) else { continue };
            let generation = digits.parse::<u32>().map_err(|_| OpenError::Damaged {
                folder: folder.to_path_buf(),
                reason: format!("keyspace {:?} is not a generation", &*name),
            })?;
            dedup.insert(generation, fixed(Space::Dedup(generation))?);
        }
        Ok(Self {
            meta: fixed(Space::Meta)?,
            partitions: fixed(Space::Partitions)?,
            groups: fixed(Space::Groups)?,
            runs: fixed(Space::Runs)?,
            dead: fixed(Space::Dead)?,
            queues: fixed(Space::Queues)?,
            dedup: RwLock::new(dedup),
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
        self.database.disk_space().map_err(kv_error)
    }

    /// Bytes of rows in memory that no table holds yet.
    #[must_use]
    pub fn write_buffer_bytes(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// The keyspace of a space, `None` for a generation that does not exist.
    fn keyspace(&self, space: Space) -> Option<Keyspace> {
        match space {
            Space::Dedup(generation) => self.dedup.read().get(&generation).cloned(),
            other => Some(self.fixed(other).clone()),
        }
    }

    fn fixed(&self, space: Space) -> &Keyspace {
        match space {
            Space::Meta | Space::Dedup(_) => &self.meta,
            Space::Partitions => &self.partitions,
            Space::Groups => &self.groups,
            Space::Runs => &self.runs,
            Space::Dead => &self.dead,
            Space::Queues => &self.queues,
        }
    }

    fn keyspace_or_make(&self, space: Space) -> Result<Keyspace, KvError> {
        if let Some(keyspace) = self.keyspace(space) {
            return Ok(keyspace);
        }
        let Space::Dedup(generation) = space else { return Ok(self.fixed(space).clone()) };
        let mut dedup = self.dedup.write();
        if let Some(made_meanwhile) = dedup.get(&generation) {
            return Ok(made_meanwhile.clone());
        }
        let made = self
            .database
            .keyspace(&name_of(space), || options_of(space, &self.config))
            .map_err(kv_error)?;
        dedup.insert(generation, made.clone());
        Ok(made)
    }

    /// Sends the fullest space's rows to disk when all together are over the limit. fjall bounds
    /// each space alone, and there may be many generations.
    fn relieve(&self) -> Result<(), KvError> {
        if self.database.write_buffer_size() <= self.config.write_buffer_bytes {
            return Ok(());
        }
        // Another thread is at it: it will see our rows, or the next write does.
        let Some(_guard) = self.relief.try_lock() else { return Ok(()) };
        let fixed =
            [&self.meta, &self.partitions, &self.groups, &self.runs, &self.dead, &self.queues];
        let generations: Vec<Keyspace> = self.dedup.read().values().cloned().collect();
        let fullest = fixed
            .into_iter()
            .chain(generations.iter())
            .max_by_key(|keyspace| keyspace.tree.active_memtable().size());
        if let Some(keyspace) = fullest {
            keyspace.rotate_memtable().map_err(kv_error)?;
        }
        Ok(())
    }
}

impl Kv for DiskKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let Some(keyspace) = self.keyspace(space) else { return Ok(None) };
        let value = keyspace.get(key).map_err(kv_error)?;
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
        let Some(keyspace) = self.keyspace(space) else { return Ok(()) };
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
        let Some(keyspace) = self.keyspace(space) else { return Ok(None) };
        let Some(row) = keyspace.range(from..=to).next_back() else { return Ok(None) };
        let (key, value) = row.into_inner().map_err(kv_error)?;
        Ok(Some((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))))
    }

    fn write(&self, changes: &[RowChange]) -> Result<(), KvError> {
        if changes.is_empty() {
            return Ok(());
        }
        // Changes of one batch share a sequence number inside fjall, where two of one row would be
        // in no order: only the last one goes in.
        let mut last: BTreeMap<(Space, &[u8]), Option<&[u8]>> = BTreeMap::new();
        for change in changes {
            check_key(&change.key)?;
            last.insert((change.space, &change.key), change.value.as_deref());
        }
        let mut batch = self.database.batch();
        let mut current: Option<(Space, Keyspace)> = None;
        for ((space, key), value) in last {
            let keyspace = match &current {
                Some((known, keyspace)) if *known == space => keyspace,
                _ => &current.insert((space, self.keyspace_or_make(space)?)).1,
            };
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit().map_err(kv_error)?;
        self.relieve()
    }

    fn persist(&self) -> Result<(), KvError> {
        self.database.persist(PersistMode::SyncData).map_err(kv_error)
    }

    fn generations(&self) -> Vec<u32> {
        self.dedup.read().keys().copied().collect()
    }

    fn drop_generations_before(&self, oldest_kept: u32) -> Result<(), KvError> {
        let mut dedup = self.dedup.write();
        while let Some(entry) = dedup.first_entry() {
            if *entry.key() >= oldest_kept {
                break;
            }
            // Forgotten here only when fjall forgot it, so that a failed drop can be tried again.
            self.database.delete_keyspace(entry.get().clone()).map_err(kv_error)?;
            entry.remove();
        }
        Ok(())
    }
}

fn name_of(space: Space) -> String {
    match space {
        Space::Meta => "meta".to_owned(),
        Space::Partitions => "partitions".to_owned(),
        Space::Groups => "groups".to_owned(),
        Space::Runs => "runs".to_owned(),
        Space::Dead => "dead".to_owned(),
        Space::Queues => "queues".to_owned(),
        Space::Dedup(generation) => format!("{DEDUP_PREFIX}{generation}"),
    }
}

/// How a space's tree is built. Stored by fjall when the space is made; later changes of the
/// configuration do not reach spaces that exist.
fn options_of(space: Space, config: &DiskKvConfig) -> KeyspaceCreateOptions {
    let leveled = Leveled::default().with_table_target_size(TABLE_BYTES);
    let options = KeyspaceCreateOptions::default()
        .max_memtable_size(config.memtable_bytes)
        .compaction_strategy(Arc::new(leveled))
        // Index blocks live in the bounded cache, not beside it.
        .index_block_pinning_policy(PinningPolicy::all(false))
        .filter_block_pinning_policy(PinningPolicy::all(false));
    match space {
        // Nearly every look-up here is for an id that is absent, so the filters are the whole
        // answer: kept in memory they cost 2 bytes per id, and a look-up takes less than half
        // the time it takes with filters in cached pages. Indexes are seldom needed.
        Space::Dedup(_) => options
            .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(
                BloomConstructionPolicy::BitsPerKey(BLOOM_BITS_PER_KEY),
            )))
            .filter_block_pinning_policy(PinningPolicy::all(true))
            .filter_block_partitioning_policy(PartitioningPolicy::all(false))
            .index_block_partitioning_policy(PartitioningPolicy::all(true))
            .expect_point_read_hits(false),
        // Read by range, or by keys that exist: filters would be memory for nothing.
        _ => options.filter_policy(FilterPolicy::disabled()).expect_point_read_hits(true),
    }
}

fn kv_error(error: fjall::Error) -> KvError {
    KvError(error.to_string())
}

fn io_error(folder: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io { folder: folder.to_path_buf(), source }
}

fn open_error(folder: &Path, error: fjall::Error) -> OpenError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    let damaged = |reason: String| OpenError::Damaged { folder: folder.to_path_buf(), reason };
    // A file that is absent, cut short or nonsense (which makes fjall seek before its start) is
    // damage; a disk that says no is not.
    let classify = |source: std::io::Error| match source.kind() {
        NotFound | UnexpectedEof | InvalidData | InvalidInput => damaged(source.to_string()),
        _ => io_error(folder, source),
    };
    match error {
        fjall::Error::Locked => OpenError::Locked(folder.to_path_buf()),
        fjall::Error::Io(source) => classify(source),
        fjall::Error::Storage(fjall::LsmError::Io(source)) => classify(source),
        other => damaged(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
