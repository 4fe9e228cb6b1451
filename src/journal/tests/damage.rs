//! Bytes that change on their own, and files that go astray: never a wrong payload, never silence.

use super::*;

/// A cleanly closed log of three segments and a little, and what is in it.
fn closed_log() -> (SimDisk, Vec<Record>) {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 14, 900);
    journal.close().unwrap();
    let (_, records, report) = open(copy_of(&disk).files()).unwrap();
    assert!(report.segments >= 3 && report.torn.is_none());
    (disk, records)
}

fn seg(index: u64) -> String {
    page::segment_name(index * 2 * PAGE_BYTES)
}

#[test]
fn a_flipped_bit_anywhere_is_reported_or_harmless() {
    let (pristine, expected) = closed_log();
    let mut disk = copy_of(&pristine);
    let (mut reported, mut harmless) = (0, 0);
    for path in pristine.paths() {
        for byte in 0..pristine.contents(&path).unwrap_or_default().len() as u64 {
            let bit = (byte % 8) as u8;
            assert!(disk.flip_bit(&path, byte, bit));
            match open(disk.files()) {
                Err(RecoverError::Corrupt { .. }) => {
                    reported += 1;
                    // Nothing was changed: undoing the flip makes the log whole again.
                    assert!(disk.flip_bit(&path, byte, bit));
                    assert_eq!(disk.contents(&path), pristine.contents(&path));
                }
                Err(other) => panic!("{path} byte {byte}: {other}"),
                Ok((_, records, _)) => {
                    harmless += 1;
                    assert_eq!(records, expected, "{path} byte {byte}");
                    disk = copy_of(&pristine);
                }
            }
        }
    }
    let used: u64 = expected.iter().map(|record| HEADER_BYTES + record.payload.len() as u64).sum();
    assert!(reported >= used, "{reported} reported, {harmless} harmless, {used} bytes in use");
}

#[test]
fn a_flipped_bit_behind_an_open_journal_is_found_by_verify() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    let appended = fill(&journal, 0, 14, 900);
    let at = appended[2].payload_position;
    assert!(disk.flip_bit(&seg(0), at + 13, 5));
    let record_start = at - HEADER_BYTES;
    match journal.verify() {
        Err(ReadError::Damaged { position }) => assert_eq!(position, record_start),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_before_synced_records_names_segment_and_position() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    let first = fill(&journal, 0, 1, 200)[0];
    fill(&journal, 1, 1, 200);
    drop(journal);
    assert!(disk.flip_bit(&seg(0), first.payload_position, 0));
    match open(disk.files()) {
        Err(RecoverError::Corrupt { segment, position, damage }) => {
            assert_eq!((segment, position), (0, PAGE_BYTES));
            assert_eq!(damage, Damage::Record { durable: first.end });
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn segments_lost_cut_swapped_renamed_or_foreign_are_refused() {
    let refuse = |change: &dyn Fn(&SimDisk), expected: Damage| {
        let (disk, _) = closed_log();
        change(&disk);
        let before: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
        match open(disk.files()) {
            Err(RecoverError::Corrupt { damage, .. }) => assert_eq!(damage, expected),
            other => panic!("{expected:?}: {:?}", other.err()),
        }
        let after: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
        assert_eq!(before, after, "nothing is deleted because it could not be read");
    };
    let bytes = |disk: &SimDisk, index| disk.contents(&seg(index)).unwrap();
    let capacity = 2 * PAGE_BYTES;
    refuse(&|disk| disk.files().remove(&seg(1)).unwrap(), Damage::NextMissing);
    refuse(&|disk| disk.files().remove(&seg(3)).unwrap(), Damage::NextMissing);
    refuse(
        &|disk| disk.put(&seg(1), &bytes(disk, 1)[..5_000]),
        Damage::Length { found: 5_000, expected: capacity },
    );
    refuse(&|disk| disk.put(&seg(1), b""), Damage::Length { found: 0, expected: PAGE_BYTES });
    refuse(&|disk| disk.put(&seg(1), &[0; 8_192]), Damage::Page);
    refuse(
        &|disk| {
            let (one, two) = (bytes(disk, 1), bytes(disk, 2));
            disk.put(&seg(1), &two);
            disk.put(&seg(2), &one);
        },
        Damage::Misnamed { found: 2 * capacity },
    );
    refuse(
        &|disk| {
            let other = SimDisk::new(2);
            let config = Config { store: Some([9; 16]), ..small() };
            let (journal, _) = Journal::open(other.files(), &config, None, &mut |_| ()).unwrap();
            fill(&journal, 0, 14, 900);
            disk.put(&seg(1), &bytes(&other, 1));
        },
        Damage::OtherStore,
    );
}

#[test]
fn a_payload_that_is_itself_a_log_is_never_taken_for_records() {
    let (closed, _) = closed_log();
    let image = Bytes::from(closed.contents(&seg(0)).unwrap());
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 1, 100);
    // The same store and the same bytes, but elsewhere: every check must fail.
    let appended = journal.append(1, &[image]).unwrap();
    drop(journal);
    let base = page::base_of_name(disk.paths().last().unwrap()).unwrap();
    assert!(disk.flip_bit(&page::segment_name(base), appended.payload_position - base, 3));
    let (journal, records, report) = open(disk.files()).unwrap();
    assert_eq!((records.len(), report.torn.unwrap().headers), (1, 1));
    assert_eq!(journal.verify().unwrap().records, 1);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    let kept = fill(&journal, 0, 3, 100)[2].end;
    let last = journal.append(1, &payload(3, 301)).unwrap();
    drop(journal);
    let whole = disk.contents(&seg(0)).unwrap();
    for torn_at in kept..=last.payload_position + 301 {
        for filler in [0, 0xA5] {
            let mut bytes = whole.clone();
            bytes[torn_at as usize..last.end as usize].fill(filler);
            disk.put(&seg(0), &bytes);
            let (journal, records, report) = open(disk.files()).unwrap();
            let is_whole = torn_at == last.payload_position + 301;
            assert_eq!(records.len(), if is_whole { 4 } else { 3 }, "torn at {torn_at}");
            assert_eq!(report.torn.is_some(), !is_whole && (torn_at > kept || filler != 0));
            // The next record is shorter, so that leftovers of the torn one would follow it.
            fill(&journal, 9, 1, 50);
            drop(journal);
            let (_, again, report) = open(disk.files()).unwrap();
            assert_eq!(again[..records.len()], records);
            assert_eq!(again.last().unwrap().payload, joined(&payload(9, 50)));
            assert_eq!((again.len(), report.torn), (records.len() + 1, None));
        }
    }
}

#[test]
fn records_that_survived_behind_a_torn_one_never_come_back() {
    let disk = SimDisk::new(1);
    let (journal, _, _) = open(disk.files()).unwrap();
    fill(&journal, 0, 2, 100);
    let torn = journal.append(1, &payload(2, 100)).unwrap();
    for id in 3..6 {
        journal.append(1, &payload(id, 100)).unwrap();
    }
    drop(journal);
    assert!(disk.flip_bit(&seg(0), torn.payload_position, 1));
    let (journal, records, report) = open(disk.files()).unwrap();
    assert_eq!((records.len(), report.torn.unwrap().headers), (2, 4));
    // Of the torn record's size: the survivors would follow it without a gap.
    fill(&journal, 9, 1, 100);
    drop(journal);
    let (_, records, _) = open(disk.files()).unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(records[2].payload, joined(&payload(9, 100)));
}
