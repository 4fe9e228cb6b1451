//! Disks that answer with errors: poison, full disks, short writes.

use super::*;
use crate::base::sim::Survival;

#[test]
fn after_a_failed_sync_everything_is_refused_and_nothing_is_tried_again() {
    for nth in 1..20 {
        let disk = SimDisk::new(nth);
        let (journal, _, _) = open(disk.files()).unwrap();
        disk.fail_sync_at(nth);
        let mut synced = 0;
        let must_be_poisoned = loop {
            match journal.append(1, &payload(synced, 900)) {
                // The name of a segment is in doubt: no more.
                Err(AppendError::Write { .. }) => break true,
                // A segment was given up; nothing of the log was touched.
                Err(AppendError::NextSegment { .. }) => break false,
                Err(other) => panic!("{other}"),
                Ok(appended) => match journal.sync_to(appended.end) {
                    Ok(()) => synced += 1,
                    Err(SyncError::Failed { .. }) => break true,
                    Err(other) => panic!("{other}"),
                },
            }
        };
        assert_eq!(journal.poison_cause().is_some(), must_be_poisoned);
        if !must_be_poisoned {
            fill(&journal, 100, 1, 900);
            continue;
        }
        let (counts, durable) = (disk.counts(), journal.synced());
        assert!(matches!(journal.append(1, &[b"x"]), Err(AppendError::Poisoned { .. })));
        assert!(matches!(journal.mark(), Err(AppendError::Poisoned { .. })));
        if journal.end() > durable {
            let result = journal.sync_to(journal.end());
            assert!(matches!(result, Err(SyncError::Poisoned { .. })), "{result:?}");
        }
        assert!(journal.sync_to(durable).is_ok(), "what was durable stays so");
        assert_eq!(disk.counts(), counts, "nothing is tried again");
        drop(journal);
        disk.crash();
        let (_, records, _) = open(disk.files()).unwrap();
        assert!(records.len() as u64 >= synced);
    }
}

#[test]
fn what_a_start_accepts_after_a_failed_sync_survives_the_next_power_cut() {
    let mut accepted_more = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (journal, _, _) = open(disk.files()).unwrap();
        fill(&journal, 0, 3, 500);
        for id in 3..9 {
            journal.append(1, &payload(id, 900)).unwrap();
        }
        disk.fail_sync_at(1);
        assert!(journal.sync_to(journal.end()).is_err());
        drop(journal);
        // The process starts again, the machine did not: bytes that never reached the medium are
        // still shown, and their sync would not fail again.
        let (journal, accepted, _) = open(disk.files()).unwrap();
        drop(journal);
        disk.crash_with(Survival::None);
        let (_, kept, _) = open(disk.files()).unwrap();
        assert_eq!(kept, accepted, "seed {seed}");
        accepted_more += accepted.len() - 3;
    }
    assert!(accepted_more > 0);
}

#[test]
fn a_start_that_reads_the_last_segment_only_makes_those_before_it_durable_too() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 3, 900);
    // Four segments of which no sync knows.
    for id in 3..18 {
        journal.append(1, &payload(id, 900)).unwrap();
    }
    let last = journal.segments().last().unwrap().base;
    let end = journal.end();
    drop(journal);
    let (journal, records, report) = open_from(disk.files(), Some(last)).unwrap();
    assert!(records.len() < 4 && report.unproven_bytes > 12 * 900);
    assert_eq!(journal.synced(), end);
    drop(journal);
    disk.crash_with(Survival::None);
    let (_, records, _) = open(disk.files()).unwrap();
    assert_eq!(records.len(), 18);
}

#[test]
fn a_start_from_beyond_what_a_power_cut_left_is_refused() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    let kept = fill(&journal, 0, 3, 900)[2];
    let lost = journal.append(1, &payload(3, 900)).unwrap();
    for id in 4..10 {
        journal.append(1, &payload(id, 900)).unwrap();
    }
    let last = journal.segments().last().unwrap().base;
    drop(journal);
    // The power cut took one unsynced record and left those after it.
    assert!(disk.flip_bit("00000000000000000000.seg", lost.payload_position, 0));
    let refused = open_from(disk.files(), Some(last));
    match refused {
        Err(RecoverError::ScanBeyondEnd { from, end }) => assert_eq!((from, end), (last, kept.end)),
        other => panic!("{:?}", other.err()),
    }
    let (_, records, report) = open(disk.files()).unwrap();
    assert_eq!((records.len(), report.torn.unwrap().segments), (3, 2));
}

#[test]
fn a_failed_write_poisons_and_its_record_is_never_seen_in_part() {
    let mut poisoned = 0;
    for nth in 1..40 {
        let disk = SimDisk::new(nth);
        let (journal, _, _) = open(disk.files()).unwrap();
        disk.fail_write_at(nth);
        let mut whole = Vec::new();
        for id in 0..60 {
            match journal.append(1, &payload(id, 900)) {
                Ok(_) => whole.push(id),
                Err(AppendError::NextSegment { .. }) => {}
                Err(AppendError::Write { .. }) => {
                    poisoned += 1;
                    assert!(journal.poison_cause().is_some());
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        if journal.poison_cause().is_some() {
            assert!(matches!(journal.append(1, &[b"x"]), Err(AppendError::Poisoned { .. })));
            let end = journal.end();
            assert!(end == journal.synced() || journal.sync_to(end).is_err());
        }
        drop(journal);
        let (_, records, _) = open(disk.files()).unwrap();
        for (index, id) in whole.iter().enumerate() {
            assert_eq!(records[index].payload, joined(&payload(*id, 900)), "write {nth}");
        }
        // The record whose write failed may have been written whole.
        assert!(records.len() <= whole.len() + 1);
    }
    assert!(poisoned > 20);
}

#[test]
fn a_full_disk_refuses_appends_only_and_is_forgiven_when_there_is_space() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(5 * 2 * PAGE_BYTES));
    let (journal, _, _) = open(disk.files()).unwrap();
    let mut appended = Vec::new();
    let error = loop {
        match journal.append(1, &payload(appended.len() as u64, 900)) {
            Ok(record) => appended.push(record),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::DiskFull { segment_bytes: 8_192 }), "{error}");
    assert!(error.is_retryable() && journal.poison_cause().is_none());
    assert!(appended.len() >= 20, "five segments of four records");
    assert!(disk.paths().iter().all(|path| !path.ends_with(".tmp")));
    journal.sync_to(journal.end()).unwrap();
    let last = appended.last().unwrap();
    let id = appended.len() as u64 - 1;
    let read = journal.read(last.payload_position, 900).unwrap();
    assert_eq!(read, joined(&payload(id, 900)));
    // What fits into the last segment is still taken.
    journal.append(1, &[b"small"]).unwrap();
    assert!(matches!(journal.append(1, &payload(1, 900)), Err(AppendError::DiskFull { .. })));
    journal.drop_before(journal.segments()[1].base).unwrap();
    fill(&journal, 100, 1, 900);
    disk.set_capacity(None);
    fill(&journal, 101, 9, 900);
    let expected = journal.verify().unwrap();
    drop(journal);
    let (journal, _, _) = open(disk.files()).unwrap();
    assert_eq!(journal.verify().unwrap(), expected);
}

#[test]
fn a_disk_too_full_to_begin_says_so_and_leaves_nothing() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(PAGE_BYTES));
    match open(disk.files()) {
        Err(RecoverError::Io { source, .. }) => {
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(disk.paths(), Vec::<String>::new());
}

#[test]
fn short_and_interrupted_writes_are_carried_on() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        disk.set_short_writes(true);
        let (journal, _, _) = open(disk.files()).unwrap();
        fill(&journal, 0, 20, 900);
        assert!(disk.writes() > 30, "some writes were short");
        drop(journal);
        let (_, records, _) = open(disk.files()).unwrap();
        assert_eq!(records.len(), 20);
        for (id, record) in records.iter().enumerate() {
            assert_eq!(record.payload, joined(&payload(id as u64, 900)));
        }
    }
}
