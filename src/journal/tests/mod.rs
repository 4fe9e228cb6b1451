//! Stories about the whole journal, on a simulated disk and on a real one.
//!
//! In: seeds and faults. Out: passes or fails. This file holds what the stories share: small
//! segments, a store id, and records that can be told apart.

mod crash;
mod damage;
mod faults;
mod stories;
mod together;

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::base::random::SeededRandom;
use crate::base::sim::SimDisk;

/// Two pages: one for the header, 4,096 bytes for records, so that every story rolls.
fn small() -> Config {
    Config {
        segment_bytes: 2 * PAGE_BYTES,
        record_bytes_max: 20_000,
        prepare: Prepare::WhenNeeded,
        store: Some([3; 16]),
    }
}

fn open(files: Arc<dyn Files>) -> Result<(Journal, Vec<Record>, RecoveryReport), RecoverError> {
    open_from(files, None)
}

fn open_from(
    files: Arc<dyn Files>,
    from: Option<u64>,
) -> Result<(Journal, Vec<Record>, RecoveryReport), RecoverError> {
    let mut records = Vec::new();
    let (journal, report) =
        Journal::open(files, &small(), from, &mut |record| records.push(record))?;
    assert_eq!(report.records, records.len() as u64);
    assert_eq!((report.start, report.end), (journal.start(), journal.end()));
    Ok((journal, records, report))
}

/// A payload whose bytes are never zero and depend on `id`, in up to four parts.
fn payload(id: u64, len: usize) -> Vec<Bytes> {
    let random = SeededRandom::new(id);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    for byte in &mut bytes {
        *byte |= 1;
    }
    let bytes = Bytes::from(bytes);
    let cut = random.below(len as u64 + 1) as usize;
    match random.below(3) {
        0 => vec![bytes],
        1 => vec![bytes.slice(..cut), bytes.slice(cut..)],
        _ => vec![Bytes::new(), bytes.slice(..cut), Bytes::new(), bytes.slice(cut..)],
    }
}

fn joined(parts: &[Bytes]) -> Bytes {
    parts.concat().into()
}

/// Appends `count` records of `len` bytes, kind 1, ids from `first` on; syncs; returns the ends.
fn fill(journal: &Journal, first: u64, count: u64, len: usize) -> Vec<Appended> {
    let ids = first..first + count;
    let appended: Vec<Appended> =
        ids.map(|id| journal.append(1, &payload(id, len)).unwrap()).collect();
    journal.sync_to(journal.end()).unwrap();
    appended
}

/// A disk with the same files, all durable.
fn copy_of(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new(0);
    for path in disk.paths() {
        copy.put(&path, &disk.contents(&path).unwrap());
    }
    copy
}
