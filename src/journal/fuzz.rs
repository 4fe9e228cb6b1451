//! The body of the recovery fuzzer: any bytes may be in a folder, and opening it must not panic.
//!
//! In: arbitrary bytes. Out: nothing; a panic is a bug. Called by `fuzz/` and by tests on seeds.

use bytes::Bytes;

use super::page::{PAGE_BYTES, Page, segment_name};
use super::record::{CheckKey, HEADER_LEN, Header};
use super::{Config, Journal, Prepare};
use crate::base::sim::SimDisk;

/// Builds segment files from `data` and opens them; what opens must also be appended to and read.
///
/// The first byte steers: whether the page is a valid one, whether headers found in the data are
/// given valid checks (so that the fuzzer gets past them), and how many segments the bytes make.
pub fn fuzz_recovery(data: &[u8]) {
    let (steer, body) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let store = [7; 16];
    let disk = SimDisk::new(u64::from(steer));
    let count = usize::from(steer >> 6) + 1;
    let share = body.len().div_ceil(count).max(1);
    let capacity = (PAGE_BYTES + share as u64).next_multiple_of(PAGE_BYTES).max(2 * PAGE_BYTES);
    for (index, chunk) in body.chunks(share).enumerate() {
        let base = index as u64 * capacity;
        let mut file =
            if steer & 1 == 0 { Page { store, base, capacity }.encode() } else { Vec::new() };
        let records_from = file.len();
        file.extend_from_slice(chunk);
        if steer & 1 == 0 {
            file.resize(capacity as usize, 0);
        }
        if steer & 2 == 0 {
            repair_checks(&mut file, base, records_from, CheckKey::new(&store));
        }
        disk.put(&segment_name(base), &file);
    }
    let config = Config {
        segment_bytes: 2 * PAGE_BYTES,
        record_bytes_max: 1 << 20,
        prepare: Prepare::WhenNeeded,
        store: Some(store),
    };
    let mut records = 0;
    let opened = Journal::open(disk.files(), &config, None, &mut |_| records += 1);
    let Ok((journal, report)) = opened else { return };
    assert_eq!(report.records, records, "what is reported was visited");
    let appended = journal.append(1, &[Bytes::from_static(b"after")]);
    let Ok(appended) = appended else { return };
    let synced = journal.sync_to(appended.end);
    assert!(synced.is_ok(), "a disk without faults syncs");
    let verified = journal.verify().map(|verified| verified.records).ok();
    assert_eq!(verified, Some(records + 1), "what was recovered and appended can be read");
}

/// Gives the bytes at each place where a record would start the checks of a valid one, as far as
/// the lengths in them allow.
fn repair_checks(file: &mut [u8], base: u64, from: usize, key: CheckKey) {
    let mut at = from;
    while let Some(bytes) = file.get(at..at + HEADER_LEN) {
        let field = |start: usize| bytes.get(start).copied().unwrap_or(0);
        let length = u32::from(field(4)) | u32::from(field(5)) << 8;
        let kind = field(12);
        if kind == 0 {
            return;
        }
        let position = base + at as u64;
        let durable = position.saturating_sub(u64::from(field(16)) << 3);
        let start = at + HEADER_LEN;
        let Some(payload) = file.get(start..start + length as usize) else { return };
        let payload_crc = crc32fast::hash(payload);
        let header = Header { length, payload_crc, kind, durable };
        let encoded = header.encode(key, position);
        if let Some(target) = file.get_mut(at..start) {
            target.copy_from_slice(&encoded);
        }
        at += header.span() as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{Random, SeededRandom};

    #[test]
    fn opening_random_bytes_never_panics() {
        let seeds = std::env::var("ONRUSH_FUZZ_SEEDS").ok().and_then(|text| text.parse().ok());
        for seed in 0..seeds.unwrap_or(3_000) {
            let random = SeededRandom::new(seed);
            let mut data = vec![0; random.below(9_000) as usize];
            random.fill(&mut data);
            // Long runs of zeros are what real segments are full of.
            if random.chance(500) {
                let from = random.below(data.len() as u64 + 1) as usize;
                data[from..].fill(0);
            }
            fuzz_recovery(&data);
        }
    }

    #[test]
    fn a_record_that_leaves_no_room_for_a_seal_is_not_believed() {
        // One record of 4,072 bytes fills the 4,096 that the first page leaves.
        let mut data = vec![0; 1 + 4_096];
        (data[1 + 4], data[1 + 5], data[1 + 12]) = (0xE8, 0x0F, 1);
        fuzz_recovery(&data);
        // One that leaves just enough.
        data[1 + 4] -= 24;
        fuzz_recovery(&data);
    }
}
