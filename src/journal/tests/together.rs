//! Several threads at one journal: one order, shared syncs, appends that do not wait for a sync.

use std::io::IoSlice;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::base::files::{DiskFiles, File};

#[test]
fn positions_are_in_the_order_of_each_threads_appends_and_all_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(DiskFiles::open(folder.path()).unwrap());
    let config = Config { prepare: Prepare::Ahead, segment_bytes: 16 * PAGE_BYTES, ..small() };
    let (journal, _) = Journal::open(files.clone(), &config, None, &mut |_| ()).unwrap();
    let mut all: Vec<(u64, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let journal = &journal;
                scope.spawn(move || {
                    let mut positions = Vec::new();
                    for id in thread * 1_000..thread * 1_000 + 150 {
                        let appended = journal.append(1, &payload(id, 700)).unwrap();
                        if id % 3 == 0 {
                            journal.sync_to(appended.end).unwrap();
                            assert!(journal.synced() >= appended.end);
                        }
                        positions.push((appended.payload_position, id));
                    }
                    assert!(positions.is_sorted());
                    positions
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    journal.close().unwrap();
    let (_, records, _) = open(files).unwrap();
    assert_eq!(records.len(), 600);
    for (record, (position, id)) in records.iter().zip(all) {
        assert_eq!(record.position, position);
        assert_eq!(record.payload, joined(&payload(id, 700)));
    }
}

#[test]
fn all_who_wait_while_a_sync_runs_share_the_next_one() {
    let gate = Arc::new(Gate::default());
    let files: Arc<dyn Files> =
        Arc::new(GatedFiles { inner: SimDisk::new(1).files(), gate: Arc::clone(&gate) });
    let config = Config { segment_bytes: 16 * PAGE_BYTES, ..small() };
    let (journal, _) = Journal::open(files, &config, None, &mut |_| ()).unwrap();
    let first = journal.append(1, &payload(0, 100)).unwrap();
    gate.close();
    thread::scope(|scope| {
        let journal = &journal;
        scope.spawn(move || journal.sync_to(first.end).unwrap());
        gate.wait_until_somebody_is_held();
        // Appends go on while the sync runs, and none of these is durable yet.
        let later: Vec<Appended> =
            (1..9).map(|id| journal.append(1, &payload(id, 100)).unwrap()).collect();
        assert!(journal.synced() < first.end);
        for appended in later {
            scope.spawn(move || journal.sync_to(appended.end).unwrap());
        }
        gate.open();
    });
    assert_eq!(journal.synced(), journal.end());
    let stats = journal.stats();
    assert_eq!((stats.appends, stats.syncs), (9, 2));
}

#[test]
fn a_write_that_fails_while_a_sync_runs_poisons_the_sync_too() {
    let gate = Arc::new(Gate::default());
    let disk = SimDisk::new(1);
    let files = Arc::new(GatedFiles { inner: disk.files(), gate: Arc::clone(&gate) });
    let (journal, _) = Journal::open(files, &small(), None, &mut |_| ()).unwrap();
    let first = journal.append(1, &payload(0, 100)).unwrap();
    gate.close();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| journal.sync_to(first.end));
        gate.wait_until_somebody_is_held();
        disk.fail_write_at(1);
        let failed = journal.append(1, &payload(1, 100));
        gate.open();
        assert!(matches!(failed, Err(AppendError::Write { .. })));
        let synced = waiting.join().unwrap();
        assert!(matches!(synced, Err(SyncError::Poisoned { .. })), "{synced:?}");
    });
    assert!(journal.synced() < first.end);
}

#[test]
fn droppers_at_the_same_time_drop_each_segment_once() {
    for seed in 0..20 {
        let (journal, _, _) = open(SimDisk::new(seed).files()).unwrap();
        fill(&journal, 0, 40, 900);
        let sealed = journal.segments().len() - 1;
        let dropped: usize = thread::scope(|scope| {
            let droppers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| journal.drop_before(u64::MAX).unwrap())).collect();
            droppers.into_iter().map(|dropper| dropper.join().unwrap()).sum()
        });
        assert_eq!((dropped, journal.segments().len()), (sealed, 1));
    }
}

/// Holds syncs back while closed.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    held: usize,
}

impl Gate {
    fn close(&self) {
        self.state.lock().is_closed = true;
    }

    fn open(&self) {
        self.state.lock().is_closed = false;
        self.changed.notify_all();
    }

    fn wait_until_somebody_is_held(&self) {
        let mut state = self.state.lock();
        while state.held == 0 {
            self.changed.wait(&mut state);
        }
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.held += 1;
        self.changed.notify_all();
        while state.is_closed {
            self.changed.wait(&mut state);
        }
        state.held -= 1;
    }
}

struct GatedFiles {
    inner: Arc<dyn Files>,
    gate: Arc<Gate>,
}

struct GatedFile {
    inner: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl GatedFiles {
    fn gated(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GatedFile { inner: file, gate: Arc::clone(&self.gate) })
    }
}

impl Files for GatedFiles {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.inner.create_new(name).map(|file| self.gated(file))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.inner.open(name).map(|file| self.gated(file))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
    fn exists(&self, name: &str) -> io::Result<bool> {
        self.inner.exists(name)
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn FolderLock>> {
        self.inner.lock(name)
    }
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Files>> {
        self.inner.folder(name)
    }
}

impl File for GatedFile {
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.inner.write_at(parts, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(bytes, offset)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.inner.allocate(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn os_file(&self) -> Option<&std::fs::File> {
        None
    }
}
