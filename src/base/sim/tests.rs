//! The liar must lie in the ways that it says, and in no other.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use super::*;
use crate::base::files::{File, read_exact_at, write_all_at};

fn write(file: &dyn File, offset: u64, bytes: &[u8]) {
    write_all_at(file, &mut [IoSlice::new(bytes)], offset).unwrap();
}

/// A file `a` with 4 durable sectors of ones.
fn ones(disk: &SimDisk) -> Arc<dyn File> {
    let files = disk.files();
    let file = files.create_new("a").unwrap();
    write(&*file, 0, &[1; 2_048]);
    file.sync_data().unwrap();
    files.sync_dir().unwrap();
    file
}

#[test]
fn synced_bytes_and_names_survive_and_unsynced_ones_do_not() {
    let disk = SimDisk::new(1);
    let file = ones(&disk);
    write(&*file, 512, &[2; 2_048]);
    disk.files().create_new("b").unwrap();
    disk.crash_with(Survival::None);
    assert_eq!(disk.contents("a").unwrap(), [1; 2_048]);
    assert_eq!(disk.paths(), ["a"]);
}

#[test]
fn a_killed_process_keeps_what_it_wrote() {
    let disk = SimDisk::new(1);
    let file = ones(&disk);
    write(&*file, 512, &[2; 2_048]);
    disk.files().create_new("b").unwrap();
    disk.crash_with(Survival::All);
    assert_eq!(disk.contents("a").unwrap()[512..], [2; 2_048]);
    assert_eq!(disk.paths(), ["a", "b"]);
}

#[test]
fn each_pending_sector_survives_or_not_whole_and_in_any_combination() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let file = ones(&disk);
        write(&*file, 0, &[2; 2_048]);
        disk.crash_with(Survival::Each);
        let bytes = disk.contents("a").unwrap();
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        seen.insert(sectors);
    }
    assert_eq!(seen.len(), 16);
}

#[test]
fn a_sector_written_twice_may_survive_as_it_was_in_between() {
    let middle = (0..300).filter(|seed| {
        let disk = SimDisk::new(*seed);
        let file = ones(&disk);
        write(&*file, 0, &[2; 10]);
        write(&*file, 10, &[3; 10]);
        disk.crash_with(Survival::Each);
        disk.contents("a").unwrap()[9..11] == [2, 1]
    });
    assert!(middle.count() > 10);
}

#[test]
fn names_that_were_not_synced_may_vanish_or_come_back() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        ones(&disk);
        let files = disk.files();
        files.create_new("b").unwrap();
        files.rename("a", "c").unwrap();
        disk.crash_with(Survival::Each);
        seen.insert(disk.paths().join(" "));
    }
    // Renaming is one step: never both names, never none.
    let seen: Vec<String> = seen.into_iter().collect();
    assert_eq!(seen, ["a", "a b", "b c", "c"]);
}

#[test]
fn a_cut_that_was_not_synced_may_be_undone_and_a_synced_one_may_not() {
    let disk = SimDisk::new(1);
    let file = ones(&disk);
    file.set_len(700).unwrap();
    file.set_len(2_048).unwrap();
    let mut bytes = [9; 2_048];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    assert_eq!((bytes[699], &bytes[700..]), (1, [0; 1_348].as_slice()));
    disk.crash_with(Survival::None);
    assert_eq!(disk.contents("a").unwrap(), [1; 2_048]);
    let file = disk.files().open("a").unwrap();
    file.set_len(700).unwrap();
    file.sync_data().unwrap();
    disk.crash_with(Survival::None);
    assert_eq!(disk.contents("a").unwrap(), [1; 700]);
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_proves_nothing() {
    let lost = (0..50).filter(|seed| {
        let disk = SimDisk::new(*seed);
        let file = ones(&disk);
        write(&*file, 0, &[2; 512]);
        disk.fail_sync_at(1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.contents("a").unwrap()[0], 2, "readers still see it");
        disk.crash_with(Survival::All);
        disk.contents("a").unwrap()[0] == 1
    });
    assert!(lost.count() > 20);
}

#[test]
fn what_a_failed_sync_lost_is_saved_when_written_again() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = ones(&disk);
        write(&*file, 0, &[2; 512]);
        disk.fail_sync_at(1);
        assert!(file.sync_data().is_err());
        write(&*file, 0, &[2; 512]);
        file.sync_data().unwrap();
        disk.crash_with(Survival::None);
        assert_eq!(disk.contents("a").unwrap()[..512], [2; 512]);
    }
}

#[test]
fn syncs_fail_when_told_and_all_of_them_when_told_so() {
    let disk = SimDisk::new(1);
    let file = ones(&disk);
    disk.fail_sync_at(2);
    let results: Vec<bool> = (0..4).map(|_| file.sync_data().is_ok()).collect();
    assert_eq!(results, [true, false, true, true]);
    disk.fail_every_sync();
    assert!((0..3).all(|_| file.sync_data().is_err() && disk.files().sync_dir().is_err()));
}

#[test]
fn handles_and_locks_from_before_a_crash_are_dead() {
    let disk = SimDisk::new(1);
    let (file, files) = (ones(&disk), disk.files());
    let lock = files.lock("LOCK").unwrap();
    let again = files.lock("LOCK").map(|_| ());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::WouldBlock);
    disk.crash();
    assert!(file.read_at(&mut [0], 0).is_err() && file.sync_data().is_err());
    assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err());
    assert!(files.list().is_err() && files.create_new("b").is_err() && files.sync_dir().is_err());
    let held = disk.files().lock("LOCK").unwrap();
    // The dead lock's end must not free the living one.
    drop(lock);
    assert!(disk.files().lock("LOCK").is_err());
    drop(held);
    assert!(disk.files().lock("LOCK").is_ok());
}

#[test]
fn power_goes_after_as_many_operations_as_said() {
    let disk = SimDisk::new(1);
    let file = ones(&disk);
    disk.power_off_after(2);
    write(&*file, 0, &[2; 512]);
    file.sync_data().unwrap();
    assert!(!disk.is_off());
    assert!(file.write_at(&[IoSlice::new(&[3; 512])], 0).is_err());
    assert!(disk.is_off() && file.read_at(&mut [0], 0).is_err());
    disk.crash_with(Survival::None);
    assert_eq!(disk.contents("a").unwrap()[..512], [2; 512]);
}

#[test]
fn space_ends_for_allocations_and_for_writes_beyond_them_only() {
    let disk = SimDisk::new(1);
    let files = disk.files();
    let file = files.create_new("a").unwrap();
    disk.set_capacity(Some(4_096));
    file.allocate(2_048).unwrap();
    assert_eq!((disk.allocated(), file.len().unwrap()), (2_048, 2_048));
    let full = files.create_new("b").unwrap().allocate(2_049).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    disk.set_capacity(Some(2_048));
    write(&*file, 0, &[1; 2_048]);
    let beyond = file.write_at(&[IoSlice::new(b"x")], 2_048).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::StorageFull);
    files.remove("a").unwrap();
    assert_eq!(disk.allocated(), 0);
    files.open("b").unwrap().allocate(2_048).unwrap();
}

#[test]
fn flipped_bits_are_there_before_and_after_a_crash() {
    let disk = SimDisk::new(1);
    ones(&disk);
    assert!(disk.flip_bit("a", 600, 1));
    assert!(!disk.flip_bit("a", 2_048, 1) && !disk.flip_bit("b", 0, 1));
    assert_eq!(disk.contents("a").unwrap()[600], 3);
    disk.crash_with(Survival::None);
    assert_eq!(disk.contents("a").unwrap()[600], 3);
}

#[test]
fn folders_keep_their_names_apart() {
    let disk = SimDisk::new(1);
    let (top, inner) = (disk.files(), disk.files().folder("inner").unwrap());
    top.create_new("a").unwrap();
    inner.create_new("a").unwrap();
    inner.create_new("b").unwrap();
    inner.sync_dir().unwrap();
    assert_eq!(top.list().unwrap(), ["a"]);
    assert_eq!(inner.list().unwrap(), ["a", "b"]);
    disk.crash_with(Survival::None);
    assert_eq!(disk.paths(), ["inner/a", "inner/b"]);
}

#[test]
fn counts_tell_writes_syncs_and_all_operations() {
    let disk = SimDisk::new(1);
    let file = ones(&disk);
    file.allocate(4_096).unwrap();
    assert_eq!(disk.counts(), Counts { operations: 5, writes: 1, syncs: 2 });
}

#[test]
fn short_writes_are_short_or_interrupted_now_and_then() {
    let disk = SimDisk::new(1);
    let file = ones(&disk);
    disk.set_short_writes(true);
    let (mut short, mut interrupted) = (0, 0);
    for _ in 0..200 {
        match file.write_at(&[IoSlice::new(b"abcd")], 0) {
            Ok(4) => {}
            Ok(_) => short += 1,
            Err(error) if error.kind() == ErrorKind::Interrupted => interrupted += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(short > 0 && interrupted > 0);
}
