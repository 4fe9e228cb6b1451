//! Rows on disk: the contract, deaths, damage, and the limit of rows in memory.

use std::fs;

use super::super::contract;
use super::*;

/// Small enough that the stories reach tables and compaction.
const SMALL: DiskKvConfig = DiskKvConfig {
    cache_bytes: 1 << 20,
    memtable_bytes: 16 << 10,
    write_buffer_bytes: 64 << 10,
    worker_threads: 1,
};

/// A store that takes its folder along when it is dropped.
struct Temporary {
    kv: DiskKv,
    _folder: tempfile::TempDir,
}

impl Kv for Temporary {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.kv.get(space, key)
    }
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), KvError> {
        self.kv.scan(space, from, to, visit)
    }
    fn last(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, KvError> {
        self.kv.last(space, from, to)
    }
    fn write(&self, changes: &[RowChange]) -> Result<(), KvError> {
        self.kv.write(changes)
    }
    fn persist(&self) -> Result<(), KvError> {
        self.kv.persist()
    }
    fn generations(&self) -> Vec<u32> {
        self.kv.generations()
    }
    fn drop_generations_before(&self, oldest_kept: u32) -> Result<(), KvError> {
        self.kv.drop_generations_before(oldest_kept)
    }
}

fn temporary(config: DiskKvConfig) -> Temporary {
    let folder = tempfile::tempdir().unwrap();
    let kv = DiskKv::create(&folder.path().join("rows"), config).unwrap();
    Temporary { kv, _folder: folder }
}

fn put(space: Space, key: &[u8], value: &[u8]) -> RowChange {
    RowChange { space, key: key.to_vec(), value: Some(value.to_vec()) }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Copies a folder that a background thread may still be tidying: again, until nothing moved
/// meanwhile, since only then is the copy what a killed process leaves.
fn copy_at_rest(from: &Path, to: &Path) {
    let lengths = || {
        let length = |path: &PathBuf| fs::metadata(path).map(|it| it.len()).ok();
        files_below(from).into_iter().map(|it| (length(&it), it)).collect::<Vec<_>>()
    };
    for _ in 0..1_000 {
        let before = lengths();
        let copied = copy_folder(from, to);
        if copied.is_ok() && lengths() == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the store never came to rest");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn keeps_the_contract_of_all_stores() {
    contract::check_all(&|| temporary(SMALL));
}

#[test]
fn rows_and_generations_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    {
        let kv = DiskKv::create(&rows, SMALL).unwrap();
        for n in 0..2_000u32 {
            let key = n.to_le_bytes();
            kv.write(&[put(Space::Runs, &key, &key), put(Space::Dedup(n % 3), &key, b"")]).unwrap();
        }
        kv.drop_generations_before(1).unwrap();
    }
    let kv = DiskKv::open(&rows, SMALL).unwrap();
    assert_eq!(kv.generations(), vec![1, 2]);
    for n in 0..2_000u32 {
        let key = n.to_le_bytes();
        assert_eq!(kv.get(Space::Runs, &key).unwrap().unwrap(), &key[..]);
        let dedup = kv.get(Space::Dedup(n % 3), &key).unwrap();
        assert_eq!(dedup.is_some(), n % 3 != 0);
    }
}

#[test]
fn a_process_that_dies_leaves_every_batch_whole() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    let kv = DiskKv::create(&rows, SMALL).unwrap();
    for n in 0..500u32 {
        let value = n.to_le_bytes();
        kv.write(&[
            put(Space::Meta, b"applied", &value),
            put(Space::Runs, &value, &[7; 100]),
            put(Space::Dead, &value, &[8; 100]),
        ])
        .unwrap();
    }
    // What a killed process leaves: the files as they are, nothing closed.
    let copy = folder.path().join("copy");
    copy_at_rest(&rows, &copy);
    drop(kv);
    let kv = DiskKv::open(&copy, SMALL).unwrap();
    let applied = kv.get(Space::Meta, b"applied").unwrap().unwrap();
    assert_eq!(applied, 499u32.to_le_bytes()[..]);
    for n in 0..500u32 {
        assert!(kv.get(Space::Runs, &n.to_le_bytes()).unwrap().is_some());
        assert!(kv.get(Space::Dead, &n.to_le_bytes()).unwrap().is_some());
    }
}

#[test]
fn a_torn_journal_loses_whole_batches_from_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    let kv = DiskKv::create(&rows, DiskKvConfig::default()).unwrap();
    for n in 0..200u32 {
        let value = n.to_le_bytes();
        kv.write(&[put(Space::Meta, b"applied", &value), put(Space::Runs, &value, b"run")])
            .unwrap();
    }
    let copy = folder.path().join("copy");
    copy_at_rest(&rows, &copy);
    drop(kv);
    let journal = files_below(&copy)
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap();
    let bytes = fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let torn = fs::OpenOptions::new().write(true).open(&journal).unwrap();
    torn.set_len(used as u64 / 2).unwrap();
    drop(torn);

    let kv = DiskKv::open(&copy, DiskKvConfig::default()).unwrap();
    let applied = kv.get(Space::Meta, b"applied").unwrap().unwrap();
    let applied = u32::from_le_bytes(applied[..].try_into().unwrap());
    assert!((50..150).contains(&applied), "{applied}");
    for n in 0..200u32 {
        let run = kv.get(Space::Runs, &n.to_le_bytes()).unwrap();
        assert_eq!(run.is_some(), n <= applied, "{n} of {applied}");
    }
}

#[test]
fn a_missing_folder_is_told_apart_from_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    assert!(matches!(DiskKv::open(&rows, SMALL), Err(OpenError::Missing(at)) if at == rows));
    fs::create_dir(&rows).unwrap();
    assert!(matches!(DiskKv::open(&rows, SMALL), Err(OpenError::Missing(_))));
    fs::write(rows.join(VERSION_FILE), b"nonsense").unwrap();
    assert!(matches!(DiskKv::open(&rows, SMALL), Err(OpenError::Damaged { .. })));
}

#[test]
fn creating_removes_what_an_interrupted_creation_left_but_never_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    fs::create_dir(&rows).unwrap();
    fs::write(rows.join("0.jnl"), b"half").unwrap();
    let kv = DiskKv::create(&rows, SMALL).unwrap();
    kv.write(&[put(Space::Meta, b"k", b"v")]).unwrap();
    drop(kv);
    assert!(matches!(DiskKv::create(&rows, SMALL), Err(OpenError::Io { .. })));
    assert!(DiskKv::open(&rows, SMALL).unwrap().get(Space::Meta, b"k").unwrap().is_some());
}

#[test]
fn a_second_opener_is_refused_while_the_first_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    let _first = DiskKv::create(&rows, SMALL).unwrap();
    assert!(matches!(DiskKv::open(&rows, SMALL), Err(OpenError::Locked(at)) if at == rows));
}

#[test]
fn any_removed_or_emptied_file_is_an_error_or_harmless_and_never_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    {
        let kv = DiskKv::create(&rows, SMALL).unwrap();
        for n in 0..1_000u32 {
            let key = n.to_le_bytes();
            kv.write(&[put(Space::Runs, &key, &[1; 60]), put(Space::Dedup(1), &key, b"1")])
                .unwrap();
        }
        kv.persist().unwrap();
    }
    let (mut damaged, mut opened) = (0, 0);
    for file in files_below(&rows) {
        let inside = file.strip_prefix(&rows).unwrap();
        for emptied in [true, false] {
            let copy = folder.path().join("copy");
            copy_folder(&rows, &copy).unwrap();
            if emptied {
                fs::write(copy.join(inside), b"").unwrap();
            } else {
                fs::remove_file(copy.join(inside)).unwrap();
            }
            match DiskKv::open(&copy, SMALL) {
                Ok(_) => opened += 1,
                Err(OpenError::Damaged { .. } | OpenError::Missing(_)) => damaged += 1,
                Err(other) => panic!("{}: {other}", inside.display()),
            }
            let aside = DiskKv::set_aside(&copy).unwrap();
            assert!(aside.ends_with("copy.damaged") && !copy.exists());
        }
    }
    assert!(damaged > 4, "damaged {damaged}, opened {opened}");
}

#[test]
fn rows_in_memory_stay_within_the_limit_over_many_generations() {
    let store = temporary(DiskKvConfig { memtable_bytes: 4 << 20, ..SMALL });
    let mut highest = 0;
    for n in 0..4_000u32 {
        let change = put(Space::Dedup(n % 16), &n.to_le_bytes(), &[3; 40]);
        store.write(&[change]).unwrap();
        highest = highest.max(store.kv.write_buffer_bytes());
    }
    // Without relief it would be 4,000 rows of more than 100 bytes. Sealed memtables that wait
    // for the one worker count too, so the limit may be passed for a while.
    assert!(highest < 4 * SMALL.write_buffer_bytes, "{highest}");
    for n in 0..4_000u32 {
        assert!(store.get(Space::Dedup(n % 16), &n.to_le_bytes()).unwrap().is_some());
    }
}
