//! Power cuts at every operation, over many seeds, again and again: what was synced survives, what
//! survives is a prefix, and no payload is ever wrong.
//!
//! `ONRUSH_CRASH_SEEDS` sets how many seeds are played; the default suits a daily run.

use super::*;
use crate::base::sim::Survival;

/// What one log should hold, as far as its caller was told.
struct Model {
    /// Records in order of appending; those before `first` may have been dropped.
    records: Vec<Written>,
    /// Records that a sync has covered.
    synced: usize,
    /// Position below which the caller gave leave to drop.
    droppable: u64,
    /// A record whose append failed: it may be there or not.
    attempted: Option<(u8, Bytes)>,
    next_id: u64,
}

#[derive(Clone)]
struct Written {
    kind: u8,
    payload: Bytes,
    position: u64,
    end: u64,
}

impl Model {
    fn new() -> Self {
        Self { records: Vec::new(), synced: 0, droppable: 0, attempted: None, next_id: 0 }
    }

    /// Does `steps` random things; stops at the first error, which only a power cut may cause.
    fn live(&mut self, journal: &Journal, random: &SeededRandom, steps: u64) -> bool {
        (0..steps).all(|_| match random.below(10) {
            0..=5 => self.append(journal, random),
            6 | 7 => self.sync(journal, random),
            8 => journal.mark().is_ok(),
            _ => self.drop_some(journal, random),
        })
    }

    fn append(&mut self, journal: &Journal, random: &SeededRandom) -> bool {
        let len = match random.below(12) {
            0 => random.below(12_000),
            1..=4 => random.below(1_500),
            _ => random.below(200),
        };
        let id = self.next_id;
        self.next_id += 1;
        let kind = 1 + (id % 7) as u8;
        let parts = payload(id, len as usize);
        let payload = joined(&parts);
        match journal.append(kind, &parts) {
            Ok(appended) => {
                let Appended { payload_position: position, end } = appended;
                self.records.push(Written { kind, payload, position, end });
                true
            }
            Err(_) => {
                self.attempted = Some((kind, payload));
                false
            }
        }
    }

    fn sync(&mut self, journal: &Journal, random: &SeededRandom) -> bool {
        let count = self.records.len() as u64;
        let upto = random.below(count + 1) as usize;
        let end = self.records[..upto].last().map_or(0, |record| record.end);
        let is_synced = journal.sync_to(end).is_ok();
        if is_synced {
            self.synced = self.synced.max(upto);
        }
        is_synced
    }

    fn drop_some(&mut self, journal: &Journal, random: &SeededRandom) -> bool {
        let durable = self.records[..self.synced].last().map_or(0, |record| record.end);
        let mark = random.below(durable + 1);
        if random.chance(700) {
            return true;
        }
        self.droppable = self.droppable.max(mark);
        journal.drop_before(mark).is_ok()
    }

    /// A position to begin the next scan at: now and then one that the caller's state covers.
    fn scan_from(&self, random: &SeededRandom) -> Option<u64> {
        let synced = &self.records[..self.synced];
        let covered = synced.get(random.below(synced.len() as u64) as usize)?;
        (random.chance(400) && covered.end > self.droppable).then_some(covered.end)
    }

    /// Compares with what a start found, and takes it as the truth from now on.
    fn settle(&mut self, start: u64, from: Option<u64>, found: &[Record], context: &str) {
        let first = start.max(from.unwrap_or(0));
        let skipped = self.records.iter().take_while(|record| record.end <= first).count();
        for record in self.records[..skipped].iter().filter(|record| record.position < start) {
            assert!(record.end <= self.droppable, "{context}: {} was dropped", record.position);
        }
        let mut expected = self.records[skipped..].iter();
        let mut kept = skipped;
        for record in found {
            match expected.next() {
                Some(written) => {
                    assert_eq!(record.position, written.position, "{context}");
                    assert_eq!(record.end, written.end, "{context}");
                    assert_eq!(record.kind, written.kind, "{context}");
                    assert_eq!(record.payload, written.payload, "{context}");
                }
                None => {
                    let attempted = self.attempted.take();
                    let seen = (record.kind, record.payload.clone());
                    assert_eq!(Some(seen), attempted, "{context}: a record out of nowhere");
                    let Record { position, end, kind, .. } = *record;
                    let payload = record.payload.clone();
                    self.records.push(Written { kind, payload, position, end });
                    kept += 1;
                    break;
                }
            }
            kept += 1;
        }
        assert!(kept >= self.synced, "{context}: {kept} of {} synced", self.synced);
        assert_eq!(kept - skipped, found.len(), "{context}: more records than were written");
        self.records.truncate(kept);
        // What a start shows is durable.
        self.synced = self.records.len();
        self.attempted = None;
    }
}

/// Starts until a start survives; each earlier one may lose power in the middle.
fn start(
    disk: &SimDisk,
    random: &SeededRandom,
    from: Option<u64>,
    context: &str,
) -> (Journal, Vec<Record>) {
    for _ in 0..4 {
        if random.chance(600) {
            disk.power_off_after(random.below(12));
        }
        match open_from(disk.files(), from) {
            Ok((journal, records, _)) if !disk.is_off() => {
                disk.power_off_after(u64::MAX);
                return (journal, records);
            }
            Ok(_) => {}
            Err(error) => assert!(disk.is_off(), "{context}: {error}"),
        }
        disk.crash();
    }
    let (journal, records, _) = open_from(disk.files(), from).unwrap_or_else(|error| {
        panic!("{context}: {error}");
    });
    (journal, records)
}

/// One disk, several lives; power goes after `operations` in the first, at random in the others.
/// Returns false when the first life ended before the power did.
fn play(seed: u64, operations: u64) -> bool {
    let random = SeededRandom::new(seed ^ operations << 32);
    let workload = SeededRandom::new(seed);
    let disk = SimDisk::new(seed ^ operations << 20);
    let mut model = Model::new();
    let mut power_was_cut = false;
    for life in 0..4 {
        let context = format!("seed {seed}, operation {operations}, life {life}");
        let from = model.scan_from(&random);
        let opened = if life == 0 {
            disk.power_off_after(operations);
            open(disk.files()).ok().map(|(journal, records, _)| (journal, records))
        } else {
            Some(start(&disk, &random, from, &context))
        };
        if let Some((journal, records)) = opened {
            model.settle(journal.start(), from, &records, &context);
            if life > 0 {
                disk.power_off_after(random.below(60));
                disk.set_short_writes(random.chance(300));
            }
            let random = if life == 0 { &workload } else { &random };
            model.live(&journal, random, 30);
        }
        power_was_cut |= life == 0 && disk.is_off();
        disk.crash();
    }
    let (journal, records, _) = open(disk.files()).unwrap();
    model.settle(
        journal.start(),
        None,
        &records,
        &format!("seed {seed}, operation {operations}, at the end"),
    );
    assert_eq!(journal.verify().unwrap().records, records.len() as u64);
    power_was_cut
}

fn seeds(default: u64) -> u64 {
    std::env::var("ONRUSH_CRASH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_synced() {
    let mut cuts = 0_u64;
    for seed in 0..seeds(25) {
        for operations in 0.. {
            if !play(seed, operations) {
                break;
            }
            cuts += 1;
        }
    }
    assert!(cuts > 25 * 30);
}

#[test]
fn a_killed_process_loses_nothing_that_was_appended() {
    for seed in 0..seeds(50) {
        let disk = SimDisk::new(seed);
        let random = SeededRandom::new(seed);
        let mut model = Model::new();
        for life in 0..5 {
            let (journal, records, _) = open(disk.files()).unwrap();
            model.synced = model.records.len();
            model.settle(journal.start(), None, &records, &format!("seed {seed}, life {life}"));
            assert!(model.live(&journal, &random, 40));
            drop(journal);
            disk.crash_with(Survival::All);
        }
    }
}

#[test]
fn a_run_is_repeated_exactly_by_its_seed() {
    let run = || {
        let disk = SimDisk::new(5);
        let random = SeededRandom::new(5);
        let mut model = Model::new();
        for _ in 0..5 {
            let (journal, records, _) = open(disk.files()).unwrap();
            model.settle(journal.start(), None, &records, "repeated");
            disk.power_off_after(random.below(50));
            model.live(&journal, &random, 60);
            drop(journal);
            disk.crash();
        }
        let files: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
        (disk.counts(), disk.paths(), files)
    };
    assert_eq!(run(), run());
}
