//! Runs of transaction ids: many of them, merged while they are asked for, and damaged.

use std::sync::Arc;

use super::super::super::contract::{count, id};
use super::super::{DiskKv, DiskKvConfig};
use super::*;
use crate::state::kv::Kv;

fn kv(folder: &Path) -> DiskKv {
    DiskKv::create(&folder.join("rows"), count(), DiskKvConfig::default()).unwrap()
}

/// A row that its number tells.
fn numbered(n: u32) -> IdRow {
    let fingerprint = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    id(n / 400_000, n % 11, fingerprint, u64::from(n))
}

fn write(kv: &DiskKv, numbers: std::ops::Range<u32>) {
    kv.write_with_ids(&[], numbers.map(numbered).collect()).unwrap();
}

fn is_found(kv: &DiskKv, n: u32) -> bool {
    let row = numbered(n);
    let found = kv.find_id(row.partition, row.fingerprint, 0).unwrap();
    assert!(found.is_none_or(|found| found == row), "{n}");
    found.is_some()
}

#[test]
fn ids_are_found_before_while_and_after_runs_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let kv = Arc::new(kv(folder.path()));
    const IDS: u32 = 120_000;
    for start in (0..IDS).step_by(3_000) {
        write(&kv, start..start + 3_000);
        assert!((0..start + 3_000).step_by(997).all(|n| is_found(&kv, n)));
    }
    // 40 runs of 3,000 ids. The thread may be at it still; it needs no more than it can have.
    while kv.ids.runs() > 6 {
        std::thread::yield_now();
    }
    assert!((0..IDS).all(|n| is_found(&kv, n)));
    assert!((IDS..2 * IDS).all(|n| !is_found(&kv, n)));
}

#[test]
fn a_run_that_nothing_lists_is_removed_and_its_number_never_taken_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = kv(folder.path());
    write(&store, 0..10);
    let prepared = store.ids.prepare((10..20).map(numbered).collect()).unwrap();
    assert_eq!(prepared.0.len(), 1);
    assert!(!is_found(&store, 15));
    drop((prepared, store));
    let runs = || std::fs::read_dir(folder.path().join("rows/ids")).unwrap().count();
    assert_eq!(runs(), 2);
    let config = DiskKvConfig::default();
    let store = DiskKv::open(&folder.path().join("rows"), count(), config).unwrap();
    assert_eq!(runs(), 1);
    write(&store, 20..30);
    assert!((0..30).all(|n| is_found(&store, n) != (10..20).contains(&n)));
}

#[test]
fn a_merge_drops_what_was_forgotten_and_keeps_what_came_after() {
    let folder = tempfile::tempdir().unwrap();
    let store = kv(folder.path());
    write(&store, 0..100);
    store.forget_ids(1, count()).unwrap();
    let of_shard_one = |n: u32| count().of_partition(numbered(n).partition) == 1;
    for start in [100, 200, 300] {
        write(&store, start..start + 100);
    }
    while store.ids.runs() > 1 {
        std::thread::yield_now();
    }
    let shelf = Arc::clone(&store.ids.shared.shelf.read());
    let kept = (0..400).filter(|n| *n >= 100 || !of_shard_one(*n));
    assert_eq!(shelf.runs[0].label.rows, kept.clone().count() as u64);
    assert!((0..400).all(|n| is_found(&store, n) == (n >= 100 || !of_shard_one(n))));
}

#[test]
fn a_changed_byte_of_a_page_is_an_error_and_of_anything_else_found_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = kv(folder.path());
    write(&store, 0..500);
    drop(store);
    let rows = folder.path().join("rows");
    let file = std::fs::read_dir(rows.join(FOLDER)).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    let pages = 500usize.div_ceil(row::ROWS_PER_PAGE) * row::PAGE_BYTES;
    let open = || DiskKv::open(&rows, count(), DiskKvConfig::default());
    for at in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        std::fs::write(&file, &damaged).unwrap();
        match open() {
            Ok(store) => {
                assert!(at < pages, "byte {at}");
                let find = |n| store.find_id(numbered(n).partition, numbered(n).fingerprint, 0);
                assert!((0..500).any(|n| find(n).is_err()), "byte {at}");
            }
            Err(error) => {
                assert!(at >= pages && matches!(error, OpenError::Damaged { .. }), "byte {at}");
            }
        }
    }
    std::fs::write(&file, &whole).unwrap();
    let store = open().unwrap();
    assert!((0..500).all(|n| is_found(&store, n)));
}
