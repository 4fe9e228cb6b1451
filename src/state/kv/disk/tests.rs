//! Rows on disk: the contract, deaths, damage, and the limit of rows in memory.

use std::fs;
use std::ops::Deref;

use super::super::contract::{self, count, id};
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

impl Deref for Temporary {
    type Target = DiskKv;

    fn deref(&self) -> &DiskKv {
        &self.kv
    }
}

fn temporary(config: DiskKvConfig) -> Temporary {
    let folder = tempfile::tempdir().unwrap();
    let kv = DiskKv::create(&folder.path().join("rows"), count(), config).unwrap();
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
fn rows_and_ids_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    let id = |n: u32| id(n % 3, n % 7, u128::from(n), u64::from(n));
    {
        let kv = DiskKv::create(&rows, count(), SMALL).unwrap();
        for n in 0..2_000u32 {
            let key = n.to_le_bytes();
            kv.write_with_ids(&[put(Space::Runs, &key, &key)], vec![id(n)]).unwrap();
        }
        kv.drop_generations_before(1).unwrap();
        kv.forget_ids(2, count()).unwrap();
    }
    let kv = DiskKv::open(&rows, count(), SMALL).unwrap();
    for n in 0..2_000u32 {
        let key = n.to_le_bytes();
        assert_eq!(kv.get(Space::Runs, &key).unwrap().unwrap(), &key[..]);
        let is_kept = n % 3 != 0 && n % 7 % 3 != 2;
        assert_eq!(kv.find_id(n % 7, n.into(), 0).unwrap(), is_kept.then_some(id(n)));
    }
    drop(kv);
    let other = ShardCount::new(4).unwrap();
    assert!(matches!(DiskKv::open(&rows, other, SMALL), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_process_that_dies_leaves_every_batch_whole() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    let kv = DiskKv::create(&rows, count(), SMALL).unwrap();
    for n in 0..500u32 {
        let value = n.to_le_bytes();
        let rows = [
            put(Space::Meta, b"applied", &value),
            put(Space::Runs, &value, &[7; 100]),
            put(Space::Dead, &value, &[8; 100]),
        ];
        kv.write_with_ids(&rows, vec![id(1, n, 5, 6)]).unwrap();
    }
    // What a killed process leaves: the files as they are, nothing closed.
    let copy = folder.path().join("copy");
    copy_at_rest(&rows, &copy);
    drop(kv);
    let kv = DiskKv::open(&copy, count(), SMALL).unwrap();
    let applied = kv.get(Space::Meta, b"applied").unwrap().unwrap();
    assert_eq!(applied, 499u32.to_le_bytes()[..]);
    for n in 0..500u32 {
        assert!(kv.get(Space::Runs, &n.to_le_bytes()).unwrap().is_some());
        assert!(kv.get(Space::Dead, &n.to_le_bytes()).unwrap().is_some());
        assert_eq!(kv.find_id(n, 5, 1).unwrap(), Some(id(1, n, 5, 6)));
    }
}

#[test]
fn a_torn_journal_loses_whole_batches_from_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    let kv = DiskKv::create(&rows, count(), DiskKvConfig::default()).unwrap();
    for n in 0..200u32 {
        let value = n.to_le_bytes();
        let rows = [put(Space::Meta, b"applied", &value), put(Space::Runs, &value, b"run")];
        // Few enough that no runs are merged: a merged list is durable, and would not be torn.
        let ids = if n % 80 == 20 { vec![id(0, n, 1, 1)] } else { Vec::new() };
        kv.write_with_ids(&rows, ids).unwrap();
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

    let kv = DiskKv::open(&copy, count(), DiskKvConfig::default()).unwrap();
    let applied = kv.get(Space::Meta, b"applied").unwrap().unwrap();
    let applied = u32::from_le_bytes(applied[..].try_into().unwrap());
    assert!((50..150).contains(&applied), "{applied}");
    for n in 0..200u32 {
        let run = kv.get(Space::Runs, &n.to_le_bytes()).unwrap();
        assert_eq!(run.is_some(), n <= applied, "{n} of {applied}");
        let is_id = n % 80 == 20 && n <= applied;
        assert_eq!(kv.find_id(n, 1, 0).unwrap().is_some(), is_id, "{n} of {applied}");
    }
    // What the lost batches would have listed is gone from the disk too.
    let runs = files_below(&copy.join("ids")).len();
    assert_eq!(runs as u32, (0..=applied).filter(|n| n % 80 == 20).count() as u32);
}

#[test]
fn a_missing_folder_is_told_apart_from_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    assert!(
        matches!(DiskKv::open(&rows, count(), SMALL), Err(OpenError::Missing(at)) if at == rows)
    );
    fs::create_dir(&rows).unwrap();
    assert!(matches!(DiskKv::open(&rows, count(), SMALL), Err(OpenError::Missing(_))));
    fs::write(rows.join(VERSION_FILE), b"nonsense").unwrap();
    assert!(matches!(DiskKv::open(&rows, count(), SMALL), Err(OpenError::Damaged { .. })));
}

#[test]
fn creating_removes_what_an_interrupted_creation_left_but_never_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    fs::create_dir(&rows).unwrap();
    fs::write(rows.join("0.jnl"), b"half").unwrap();
    let kv = DiskKv::create(&rows, count(), SMALL).unwrap();
    kv.write(&[put(Space::Meta, b"k", b"v")]).unwrap();
    drop(kv);
    assert!(matches!(DiskKv::create(&rows, count(), SMALL), Err(OpenError::Io { .. })));
    assert!(DiskKv::open(&rows, count(), SMALL).unwrap().get(Space::Meta, b"k").unwrap().is_some());
}

#[test]
fn a_second_opener_is_refused_while_the_first_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    let _first = DiskKv::create(&rows, count(), SMALL).unwrap();
    assert!(
        matches!(DiskKv::open(&rows, count(), SMALL), Err(OpenError::Locked(at)) if at == rows)
    );
}

#[test]
fn any_removed_or_emptied_file_is_an_error_or_harmless_and_never_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    {
        let kv = DiskKv::create(&rows, count(), SMALL).unwrap();
        for n in 0..1_000u32 {
            let key = n.to_le_bytes();
            kv.write(&[put(Space::Runs, &key, &[1; 60])]).unwrap();
            if n % 400 == 0 {
                kv.write_with_ids(&[], vec![id(1, n, 1, 1)]).unwrap();
            }
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
            match DiskKv::open(&copy, count(), SMALL) {
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
fn rows_in_memory_stay_within_the_limit_over_many_spaces() {
    let store = temporary(DiskKvConfig { memtable_bytes: 4 << 20, ..SMALL });
    let spaces = [Space::Partitions, Space::Groups, Space::Runs, Space::Dead, Space::Queues];
    let space = |n: u32| spaces[n as usize % spaces.len()];
    let mut highest = 0;
    for n in 0..4_000u32 {
        store.write(&[put(space(n), &n.to_le_bytes(), &[3; 40])]).unwrap();
        highest = highest.max(store.write_buffer_bytes());
    }
    // Without relief it would be 4,000 rows of more than 100 bytes. Sealed memtables that wait
    // for the one worker count too, so the limit may be passed for a while.
    assert!(highest < 4 * SMALL.write_buffer_bytes, "{highest}");
    for n in 0..4_000u32 {
        assert!(store.get(space(n), &n.to_le_bytes()).unwrap().is_some());
    }
}
