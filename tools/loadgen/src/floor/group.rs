//! Group commit in its plainest form: one writer, one file, one sync for all who wait.
//!
//! In: bytes from any thread. Out: the number of the group they went with, and later the news
//! that it is on disk. While one group is written and synced the next one fills. The file is
//! preallocated, as any engine would: a sync then has no growing file to record. Called by the
//! sink.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, fallocate};
use tempfile::TempDir;

use crate::error::LoadError;

/// Bytes of one preallocated file.
const FILE_BYTES: u64 = 256 * 1024 * 1024;

/// The group that fills, and the thread that writes it.
pub(super) struct Group {
    filling: Mutex<Filling>,
    /// Bytes came, or the end.
    came: Condvar,
    /// The last group that is on disk.
    synced: AtomicU64,
    syncs: AtomicU64,
    folder: TempDir,
}

struct Filling {
    bytes: Vec<u8>,
    number: u64,
    is_over: bool,
}

impl Group {
    /// Files go to a folder of their own in `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self, LoadError> {
        let folder = tempfile::Builder::new()
            .prefix("onrush-floor-")
            .tempdir_in(folder)
            .map_err(LoadError::io("making a folder for the floor"))?;
        let filling = Filling { bytes: Vec::new(), number: 1, is_over: false };
        Ok(Self {
            filling: Mutex::new(filling),
            came: Condvar::new(),
            synced: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            folder,
        })
    }

    /// Appends bytes to the group that fills and says which it is.
    pub(super) fn append(&self, bytes: &[u8]) -> u64 {
        let mut filling = self.filling.lock();
        let was_empty = filling.bytes.is_empty();
        filling.bytes.extend_from_slice(bytes);
        let number = filling.number;
        drop(filling);
        if was_empty {
            self.came.notify_one();
        }
        number
    }

    /// The last group that is on disk.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Acquire)
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Relaxed)
    }

    pub(super) fn stop(&self) {
        self.filling.lock().is_over = true;
        self.came.notify_one();
    }

    /// Starts the writer; it writes a byte to each of `bells` after each sync.
    pub(super) fn start(
        self: std::sync::Arc<Self>,
        mut bells: Vec<UnixStream>,
    ) -> JoinHandle<Result<(), LoadError>> {
        // When it fails, nothing is answered any more; its result tells why.
        std::thread::spawn(move || self.write_groups(&mut bells))
    }

    fn write_groups(&self, bells: &mut [UnixStream]) -> Result<(), LoadError> {
        let (mut files, mut at, mut writing) = (0, 0, Vec::new());
        let mut file = self.next_file(&mut files)?;
        while let Some(number) = self.take(&mut writing) {
            if at + writing.len() as u64 > FILE_BYTES {
                file = self.next_file(&mut files)?;
                at = 0;
            }
            file.write_all_at(&writing, at).map_err(LoadError::io("writing"))?;
            file.sync_data().map_err(LoadError::io("fdatasync"))?;
            at += writing.len() as u64;
            writing.clear();
            self.syncs.fetch_add(1, Relaxed);
            self.synced.store(number, Release);
            for bell in bells.iter_mut() {
                // A bell that is full has rung already.
                drop(bell.write(&[1]));
            }
        }
        Ok(())
    }

    /// Waits for bytes and takes them all; `None` at the end.
    fn take(&self, writing: &mut Vec<u8>) -> Option<u64> {
        let mut filling = self.filling.lock();
        while filling.bytes.is_empty() {
            if filling.is_over {
                return None;
            }
            self.came.wait(&mut filling);
        }
        std::mem::swap(&mut filling.bytes, writing);
        filling.number += 1;
        Some(filling.number - 1)
    }

    fn next_file(&self, files: &mut u32) -> Result<File, LoadError> {
        let path = self.folder.path().join(format!("{files}.floor"));
        *files += 1;
        let file = File::create_new(path).map_err(LoadError::io("making a file"))?;
        fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)
            .map_err(|error| LoadError::io("reserving space")(error.into()))?;
        file.sync_all().map_err(LoadError::io("fsync"))?;
        Ok(file)
    }
}
