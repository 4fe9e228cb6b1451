//! Ordinary days: append, read, roll, reopen, drop.

use super::*;
use crate::base::files::DiskFiles;

fn on_disk() -> (tempfile::TempDir, Arc<dyn Files>) {
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(DiskFiles::open(folder.path().join("log")).unwrap());
    (folder, files)
}

fn both_worlds(story: impl Fn(Arc<dyn Files>)) {
    story(SimDisk::new(1).files());
    let (_folder, files) = on_disk();
    story(files);
}

#[test]
fn records_come_back_in_order_after_reopening() {
    both_worlds(|files| {
        let (journal, records, report) = open(files.clone()).unwrap();
        assert!(records.is_empty() && report.created);
        let appended = fill(&journal, 0, 40, 700);
        drop(journal);
        let (journal, records, report) = open(files.clone()).unwrap();
        assert!(!report.created && report.torn.is_none());
        assert!(report.segments > 5, "40 records of 700 bytes roll");
        assert_eq!(records.len(), 40);
        for (id, record) in records.iter().enumerate() {
            assert_eq!(record.position, appended[id].payload_position);
            assert_eq!(record.end, appended[id].end);
            assert_eq!((record.kind, &record.payload), (1, &joined(&payload(id as u64, 700))));
        }
        assert_eq!(journal.verify().unwrap(), Verified { records: 40, payload_bytes: 28_000 });
    });
}

#[test]
fn a_payload_is_read_by_its_position_and_length() {
    both_worlds(|files| {
        let (journal, _, _) = open(files).unwrap();
        for (id, appended) in fill(&journal, 0, 20, 900).iter().enumerate() {
            let read = journal.read(appended.payload_position, 900).unwrap();
            assert_eq!(read, joined(&payload(id as u64, 900)));
        }
    });
}

#[test]
fn reading_on_a_real_disk_copies_nothing() {
    let (_folder, files) = on_disk();
    let (journal, _, _) = open(files).unwrap();
    let appended = fill(&journal, 0, 1, 100)[0];
    let (first, second) =
        [(); 2].map(|()| journal.read(appended.payload_position, 100).unwrap()).into();
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn a_record_of_any_size_up_to_the_limit_comes_back() {
    both_worlds(|files| {
        let sizes = [0, 1, 7, 8, 4_023, 4_024, 4_025, 4_048, 4_049, 8_192, 20_000, 3];
        let (journal, _, _) = open(files.clone()).unwrap();
        for (id, len) in sizes.iter().enumerate() {
            journal.append(2, &payload(id as u64, *len)).unwrap();
        }
        journal.sync_to(journal.end()).unwrap();
        drop(journal);
        let (_, records, _) = open(files.clone()).unwrap();
        let found: Vec<usize> = records.iter().map(|record| record.payload.len()).collect();
        assert_eq!(found, sizes);
        for (id, record) in records.iter().enumerate() {
            assert_eq!(record.payload, joined(&payload(id as u64, sizes[id])));
        }
    });
}

#[test]
fn a_rope_of_more_slices_than_one_write_takes_is_written_whole() {
    both_worlds(|files| {
        let (journal, _, _) = open(files).unwrap();
        let parts: Vec<Bytes> = (0..3_000_u32).map(|n| vec![n as u8, 9].into()).collect();
        let appended = journal.append(1, &parts).unwrap();
        assert_eq!(journal.read(appended.payload_position, 6_000).unwrap(), joined(&parts));
    });
}

#[test]
fn a_scan_from_any_end_visits_exactly_what_follows() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    let appended = fill(&journal, 0, 25, 600);
    drop(journal);
    for (index, from) in appended.iter().enumerate() {
        let (_, records, _) = open_from(disk.files(), Some(from.end)).unwrap();
        let found: Vec<u64> = records.iter().map(|record| record.position).collect();
        let expected: Vec<u64> =
            appended[index + 1..].iter().map(|appended| appended.payload_position).collect();
        assert_eq!(found, expected, "from the end of record {index}");
    }
}

#[test]
fn a_scan_from_where_no_record_starts_is_refused() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    let appended = fill(&journal, 0, 12, 600);
    let end = journal.end();
    drop(journal);
    let inside = open_from(disk.files(), Some(appended[3].payload_position));
    assert!(matches!(inside, Err(RecoverError::ScanNotARecord { .. })));
    for beyond in [end + 8, end + 4_096, end + (1 << 40)] {
        let result = open_from(disk.files(), Some(beyond));
        assert!(
            matches!(result, Err(RecoverError::ScanBeyondEnd { .. })),
            "{beyond}: {:?}",
            result.err()
        );
    }
}

#[test]
fn a_scan_of_an_empty_folder_that_should_hold_records_is_refused() {
    let result = open_from(SimDisk::new(1).files(), Some(5_000));
    assert!(matches!(result, Err(RecoverError::ScanBeyondEnd { from: 5_000, end: 0 })));
}

#[test]
fn dropping_removes_whole_sealed_segments_below_the_mark_and_slices_stay() {
    both_worlds(|files| {
        let (journal, _, _) = open(files.clone()).unwrap();
        let appended = fill(&journal, 0, 30, 900);
        let oldest = journal.read(appended[0].payload_position, 900).unwrap();
        let before = journal.segments();
        assert_eq!(journal.drop_before(before[3].base).unwrap(), 3);
        assert_eq!(journal.segments(), before[3..]);
        assert_eq!(oldest, joined(&payload(0, 900)));
        let gone = journal.read(appended[0].payload_position, 900);
        assert!(matches!(gone, Err(ReadError::TooOld { .. })));
        // A mark inside a segment keeps it, and the active one always stays.
        assert_eq!(journal.drop_before(before[3].base + 5_000).unwrap(), 0);
        let rest = before.len() - 4;
        assert_eq!(journal.drop_before(u64::MAX).unwrap(), rest);
        assert_eq!(journal.segments().len(), 1);
        let start = journal.start();
        drop(journal);
        let (_, _, report) = open(files.clone()).unwrap();
        assert_eq!(report.start, start);
        let too_old = open_from(files.clone(), Some(before[2].base + PAGE_BYTES));
        assert!(matches!(too_old, Err(RecoverError::ScanTooOld { .. })));
    });
}

#[test]
fn segments_say_what_they_hold() {
    let (journal, _, _) = open(SimDisk::new(1).files()).unwrap();
    fill(&journal, 0, 7, 1_000);
    let segments = journal.segments();
    let sealed: Vec<bool> = segments.iter().map(|segment| segment.is_sealed).collect();
    assert_eq!(sealed, [true, true, false]);
    assert_eq!(segments[1].base, segments[0].base + segments[0].bytes);
    let last = segments[2];
    assert_eq!(last.base + last.used_bytes, journal.end());
}

#[test]
fn refused_records_leave_no_trace() {
    let (journal, _, _) = open(SimDisk::new(1).files()).unwrap();
    let end = journal.end();
    let too_large = journal.append(1, &payload(1, 20_001));
    assert!(matches!(too_large, Err(AppendError::TooLarge { bytes: 20_001, limit: 20_000 })));
    for kind in [0, 240, 255] {
        let reserved = journal.append(kind, &payload(1, 10));
        assert!(matches!(reserved, Err(AppendError::ReservedKind { .. })));
    }
    assert_eq!((journal.end(), journal.stats().appends), (end, 0));
}

#[test]
fn positions_that_were_never_written_cannot_be_read_or_synced() {
    let (journal, _, _) = open(SimDisk::new(1).files()).unwrap();
    let appended = fill(&journal, 0, 1, 100)[0];
    let beyond = journal.read(appended.payload_position, 105);
    assert!(matches!(beyond, Err(ReadError::NotWritten { .. })));
    assert!(matches!(journal.read(u64::MAX, 2), Err(ReadError::NotWritten { .. })));
    let unsyncable = journal.sync_to(appended.end + 1);
    assert!(matches!(unsyncable, Err(SyncError::NotWritten { .. })));
    fill(&journal, 1, 8, 1_000);
    let across = journal.read(appended.payload_position, 9_000);
    assert!(matches!(across, Err(ReadError::NotOneSegment { .. })));
}

#[test]
fn a_reader_follows_the_log_as_it_grows_and_stops_when_retention_overtakes_it() {
    let (journal, _, _) = open(SimDisk::new(1).files()).unwrap();
    let mut reader = journal.reader(journal.start());
    assert_eq!(reader.next_record().unwrap(), None);
    for id in 0..20 {
        journal.append(1, &payload(id, 700)).unwrap();
        let record = reader.next_record().unwrap().unwrap();
        assert_eq!(record.payload, joined(&payload(id, 700)));
        assert_eq!(reader.next_record().unwrap(), None);
    }
    let mut late = journal.reader(journal.start());
    journal.drop_before(u64::MAX).unwrap();
    assert!(matches!(late.next_record(), Err(ReadError::TooOld { .. })));
}

#[test]
fn a_reader_that_starts_between_records_says_so() {
    let (journal, _, _) = open(SimDisk::new(1).files()).unwrap();
    let appended = fill(&journal, 0, 3, 100)[1];
    let mut reader = journal.reader(appended.payload_position);
    assert!(matches!(reader.next_record(), Err(ReadError::Damaged { .. })));
}

#[test]
fn one_folder_serves_one_journal_at_a_time() {
    both_worlds(|files| {
        let (journal, _, _) = open(files.clone()).unwrap();
        assert!(matches!(open(files.clone()), Err(RecoverError::InUse)));
        drop(journal);
        assert!(open(files).is_ok());
    });
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let refused = |config: Config, name: &str| {
        let result = Journal::open(SimDisk::new(1).files(), &config, None, &mut |_| ());
        match result {
            Err(RecoverError::Config { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {:?}", other.err()),
        }
    };
    refused(Config { segment_bytes: 4_096, ..small() }, "segment_bytes");
    refused(Config { segment_bytes: 8_193, ..small() }, "segment_bytes mod 4096");
    refused(Config { record_bytes_max: 0, ..small() }, "record_bytes_max");
    refused(Config { record_bytes_max: (1 << 30) + 1, ..small() }, "record_bytes_max");
}

#[test]
fn a_log_keeps_its_id_and_takes_new_settings_for_new_segments() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 3, 1_000);
    drop(journal);
    let larger = Config { segment_bytes: 4 * PAGE_BYTES, store: Some([4; 16]), ..small() };
    let (journal, _) = Journal::open(disk.files(), &larger, None, &mut |_| ()).unwrap();
    assert_eq!(journal.store(), [3; 16]);
    fill(&journal, 3, 3, 1_000);
    let sizes: Vec<u64> = journal.segments().iter().map(|segment| segment.bytes).collect();
    assert_eq!(sizes, [2 * PAGE_BYTES, 4 * PAGE_BYTES]);
}

#[test]
fn a_segment_made_ahead_is_used_after_a_restart_or_replaced_when_too_small() {
    let (_folder, files) = on_disk();
    let config = Config { prepare: Prepare::Ahead, ..small() };
    let (journal, _) = Journal::open(files.clone(), &config, None, &mut |_| ()).unwrap();
    fill(&journal, 0, 3, 1_000);
    drop(journal);
    for len in [20_000, 1_000, 20_000] {
        let (journal, _) = Journal::open(files.clone(), &config, None, &mut |_| ()).unwrap();
        fill(&journal, len as u64, 4, len);
        journal.close().unwrap();
    }
    let (journal, records, _) = open(files).unwrap();
    assert_eq!(records.len(), 15);
    assert_eq!(journal.verify().unwrap().records, 15);
}

#[test]
fn inspecting_tells_what_opening_would_do_and_does_nothing() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 9, 700);
    let end = journal.end();
    journal.append(1, &payload(9, 700)).unwrap();
    drop(journal);
    // Tear the last record.
    let path = disk.paths().into_iter().rfind(|path| path.ends_with(".seg")).unwrap();
    let base = page::base_of_name(&path).unwrap();
    assert!(disk.flip_bit(&path, end - base + 100, 0));
    let before = disk.contents(&path);
    let mut visited = 0;
    let inspected = inspect(&*disk.files(), &mut |_| visited += 1).unwrap();
    assert_eq!((visited, disk.contents(&path)), (9, before));
    let (_, _, report) = open(disk.files()).unwrap();
    assert_eq!(inspected, report);
    assert_eq!(report.torn.unwrap().headers, 1);
}

#[test]
fn leftovers_of_an_unfinished_segment_are_removed_and_other_files_left_alone() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 3, 500);
    drop(journal);
    disk.put("00000000000000008192.seg.tmp", b"half a page");
    disk.put("notes.txt", b"a human's");
    let (journal, records, _) = open(disk.files()).unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(disk.paths(), ["00000000000000000000.seg", "notes.txt"]);
    fill(&journal, 3, 9, 500);
}

#[test]
fn a_sync_costs_one_disk_sync_and_one_more_per_segment_sealed_since_the_last() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 3, 900);
    for id in 3..11 {
        journal.append(1, &payload(id, 900)).unwrap();
    }
    assert_eq!(journal.stats().rolls, 2);
    let syncs_of = |act: &dyn Fn()| {
        let before = disk.syncs();
        act();
        disk.syncs() - before
    };
    assert_eq!(syncs_of(&|| journal.sync_to(journal.end()).unwrap()), 3);
    assert_eq!(syncs_of(&|| journal.sync_to(journal.end()).unwrap()), 0);
    journal.append(1, &[b"one more"]).unwrap();
    assert_eq!(syncs_of(&|| journal.sync_to(journal.end()).unwrap()), 1);
}
