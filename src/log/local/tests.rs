//! The local log on simulated and real disks: the contract, crashes, and what only it does.

use std::fs;
use std::sync::Arc;

use super::super::contract::{self, Subject, block_on, propose};
use super::*;
use crate::base::files::DiskFiles;
use crate::base::random::SeededRandom;
use crate::base::sim::{SimDisk, Survival};
use crate::journal::{Damage, RecoverError};

const SEGMENT: u64 = 16 << 10;

fn config(threads: Threads) -> LocalConfig {
    LocalConfig {
        segment_bytes: SEGMENT,
        threads,
        sync_interval_ms: 1,
        // Not random, so that a seed repeats to the byte.
        store: Some([3; 16]),
        ..LocalConfig::new(contract::shards())
    }
}

fn open_fresh(files: Arc<dyn Files>, threads: Threads) -> Result<LocalLog, OpenError> {
    LocalLog::open(files, &config(threads), &[], &mut |_| ()).map(|(log, _)| log)
}

struct OnSimDisk {
    disk: SimDisk,
    log: Arc<LocalLog>,
}

impl OnSimDisk {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let log = Arc::new(open_fresh(disk.files(), Threads::None).unwrap());
        Self { disk, log }
    }

    fn reopen(&mut self) {
        self.log = Arc::new(open_fresh(self.disk.files(), Threads::None).unwrap());
    }
}

impl Subject for OnSimDisk {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }

    fn crash(&mut self) {
        self.disk.crash();
        self.reopen();
    }

    fn restart(&mut self) {
        self.disk.crash_with(Survival::All);
        self.reopen();
    }
}

/// A log in a real folder. Dying leaves the files as they are, so a copy of them is what the next
/// process finds.
struct OnDisk {
    folder: tempfile::TempDir,
    lives: u32,
    log: Arc<LocalLog>,
}

impl OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Arc::new(DiskFiles::open(folder.path().join("0")).unwrap());
        let log = Arc::new(open_fresh(files, Threads::Background).unwrap());
        Self { folder, lives: 0, log }
    }
}

impl Subject for OnDisk {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }

    fn crash(&mut self) {
        self.restart();
    }

    fn restart(&mut self) {
        let from = self.folder.path().join(self.lives.to_string());
        self.lives += 1;
        let to = self.folder.path().join(self.lives.to_string());
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            // The thread may finish the next segment under its own name meanwhile.
            if entry.file_name().to_str().unwrap().ends_with(".seg") {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        let files = Arc::new(DiskFiles::open(to).unwrap());
        self.log = Arc::new(open_fresh(files, Threads::Background).unwrap());
    }
}

#[test]
fn keeps_the_contract_of_all_logs_on_a_disk_that_loses_power() {
    for seed in 0..30 {
        contract::check_all(seed, &|seed| Box::new(OnSimDisk::new(seed)));
    }
}

#[test]
fn keeps_the_contract_of_all_logs_in_a_real_folder() {
    contract::check_all(1, &|_| Box::new(OnDisk::new()));
}

fn append(log: &LocalLog, proposals: &[Proposal], durability: Durability) -> Vec<u64> {
    match block_on(log.append(proposals, durability)).unwrap() {
        Append::Appended(positions) => positions,
        Append::Conflict(shards) => panic!("conflict on {shards:?}"),
    }
}

/// One append of a random workload, as a model remembers it.
#[derive(Clone, Debug)]
struct Remembered {
    entries: Vec<(ShardId, u64, Vec<u8>)>,
    is_synced: bool,
}

/// Appends until the power goes; returns what was answered, and what was under way.
fn work(log: &LocalLog, random: &SeededRandom, heads: &mut [u64; 5]) -> Vec<Remembered> {
    let mut appended: Vec<Remembered> = Vec::new();
    for _ in 0..200 {
        let mut proposals = Vec::new();
        let mut entries = Vec::new();
        let mut next = *heads;
        for _ in 0..=random.below(4) {
            let shard = random.below(5) as usize;
            let bytes = vec![random.below(250) as u8 + 1; random.below(1_500) as usize];
            proposals.push(propose(shard as ShardId, next[shard], &bytes));
            entries.push((shard as ShardId, next[shard], bytes));
            next[shard] += 1;
        }
        let is_synced = random.chance(300);
        let durability = if is_synced { Durability::Synced } else { Durability::Written };
        let answer = block_on(log.append(&proposals, durability));
        // Without an answer it may stand or not, as long as it is whole.
        appended.push(Remembered { entries, is_synced: is_synced && answer.is_ok() });
        match answer {
            Ok(Append::Appended(_)) => *heads = next,
            Ok(Append::Conflict(shards)) => panic!("conflict on {shards:?}"),
            Err(_) => break,
        }
    }
    appended
}

#[test]
fn a_power_cut_at_any_step_keeps_what_was_synced_and_a_whole_prefix_of_the_rest() {
    let (mut lost, mut kept_unsynced, mut died_in_recovery) = (0, 0, 0);
    for seed in 0..250 {
        let random = SeededRandom::new(seed);
        let disk = SimDisk::new(seed);
        let mut model: Vec<Remembered> = Vec::new();
        for _life in 0..4 {
            // A start may die as well, any number of times.
            while random.chance(250) {
                disk.power_off_after(random.below(6));
                died_in_recovery += u32::from(open_fresh(disk.files(), Threads::None).is_err());
                disk.crash();
            }
            let mut found: Vec<StoredEntry> = Vec::new();
            let (log, report) =
                LocalLog::open(disk.files(), &config(Threads::None), &[], &mut |entry| {
                    found.push(entry);
                })
                .unwrap();
            assert_eq!(report.entries, found.len() as u64);

            let mut stands = found.iter();
            let mut kept = Vec::new();
            for append in &model {
                let entries: Vec<&StoredEntry> =
                    stands.by_ref().take(append.entries.len()).collect();
                if entries.is_empty() {
                    break;
                }
                assert_eq!(entries.len(), append.entries.len(), "seed {seed}: half an append");
                for (entry, (shard, index, bytes)) in entries.iter().zip(&append.entries) {
                    assert_eq!((entry.shard, entry.index), (*shard, *index), "seed {seed}");
                    assert_eq!(entry.bytes, bytes[..], "seed {seed}");
                    let extent = Extent { position: entry.position, len: bytes.len() as u32 };
                    assert_eq!(log.body(*shard, extent).unwrap(), bytes[..]);
                }
                kept.push(append.clone());
            }
            assert!(stands.next().is_none(), "seed {seed}: entries that nobody appended");
            let synced = model.iter().rposition(|append| append.is_synced).map_or(0, |at| at + 1);
            assert!(kept.len() >= synced, "seed {seed}: kept {} of {synced} synced", kept.len());
            lost += model.len() - kept.len();
            kept_unsynced += kept.len() - synced;
            for append in &mut kept {
                // What was handed over is durable from then on.
                append.is_synced = true;
            }
            model = kept;

            let mut heads = [0; 5];
            for (shard, head) in heads.iter_mut().enumerate() {
                *head = block_on(log.head(shard as ShardId)).unwrap();
            }
            disk.power_off_after(random.below(150));
            model.extend(work(&log, &random, &mut heads));
            disk.crash();
        }
    }
    assert!(lost > 50 && kept_unsynced > 50 && died_in_recovery > 20);
}

/// A log whose state lives beside it and is a little behind.
#[test]
fn opening_hands_over_what_is_not_applied_and_no_more() {
    for seed in 0..6 {
        let random = SeededRandom::new(seed);
        let disk = SimDisk::new(seed);
        let log = open_fresh(disk.files(), Threads::None).unwrap();
        let mut heads = [0; 5];
        let mut applied = [Applied::default(); 5];
        let mut after: Vec<(ShardId, u64)> = Vec::new();
        // Checkpoints at different times for different shards, idle ones moved along.
        for round in 0..6 {
            for append in work(&log, &random, &mut heads).iter() {
                after.extend(append.entries.iter().map(|(shard, index, _)| (*shard, *index)));
            }
            if round < 5 {
                let position = log.bounds().end;
                for shard in 0..5 {
                    if random.chance(700) {
                        applied[shard] = Applied { next_index: heads[shard], position };
                    }
                }
            }
        }
        after.retain(|(shard, index)| *index >= applied[usize::from(*shard)].next_index);
        block_on(log.sync()).unwrap();
        drop(log);

        let mut found = Vec::new();
        let (log, report) =
            LocalLog::open(disk.files(), &config(Threads::None), &applied, &mut |entry| {
                found.push((entry.shard, entry.index));
            })
            .unwrap();
        assert_eq!(found, after, "seed {seed}");
        let earliest = applied.iter().map(|shard| shard.position).min().unwrap();
        if earliest > 3 * SEGMENT {
            let all = log.journal.verify().unwrap().records;
            assert!(report.journal.records < all, "the scan began at the start");
        }
        for shard in 0..5u16 {
            assert_eq!(block_on(log.head(shard)).unwrap(), heads[usize::from(shard)]);
            assert_eq!(block_on(log.read(shard, 0, 1)).unwrap()[0].index, 0);
        }
    }
}

#[test]
fn a_state_that_is_ahead_of_the_log_is_refused() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    append(&log, &[propose(2, 0, b"synced")], Durability::Synced);
    for n in 1..40 {
        append(&log, &[propose(2, n, &[1; 1_000])], Durability::Written);
    }
    let mut applied = [Applied { next_index: 0, position: log.bounds().end }; 5];
    applied[2].next_index = 40;
    disk.crash_with(Survival::None);
    let opened = |applied: &[Applied]| {
        LocalLog::open(disk.files(), &config(Threads::None), applied, &mut |_| ()).map(|_| ())
    };
    let refused = opened(&applied);
    assert!(matches!(refused, Err(OpenError::StateAhead { .. })), "{refused:?}");
    // Only one shard's rows are ahead, and by number only.
    let mut applied = [Applied::default(); 5];
    applied[2].next_index = 2;
    let refused = opened(&applied);
    assert!(matches!(refused, Err(OpenError::StateAhead { shard: 2, applied: 2 })), "{refused:?}");
    assert!(opened(&[]).is_ok());
}

#[test]
fn a_lost_entry_is_missed_even_if_its_shard_has_no_other_in_the_part_that_is_read() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    append(&log, &[propose(2, 0, b"in the first segment")], Durability::Synced);
    // Heads are written at the end of the first segment and not again so soon in the second.
    for (n, bytes) in [(0, 5_900), (1, 5_900), (2, 500)] {
        append(&log, &[propose(0, n, &vec![1; bytes])], Durability::Synced);
    }
    assert!(log.bounds().end > SEGMENT && log.hints.lock().heads_at < Some(SEGMENT));
    let synced = log.bounds().end;
    append(&log, &[propose(2, 1, b"lost")], Durability::Written);
    let mut applied = [Applied { next_index: 0, position: log.bounds().end }; 5];
    applied[0].next_index = 3;
    applied[2].next_index = 2;
    disk.crash_with(Survival::None);
    let open = |applied: &[Applied]| {
        LocalLog::open(disk.files(), &config(Threads::None), applied, &mut |_| ())
    };
    let Err(refused) = open(&applied) else { panic!("a lost entry was not missed") };
    assert!(matches!(refused, OpenError::StateAhead { .. }), "{refused}");

    // The same rows from before the lost entry are good, and its number is given again.
    let mut applied = [Applied { next_index: 0, position: synced }; 5];
    applied[0].next_index = 3;
    applied[2].next_index = 1;
    let (log, report) = open(&applied).unwrap();
    assert_eq!(report.first_index[2], None, "the part that is read has none of shard 2");
    append(&log, &[propose(2, 1, b"again")], Durability::Synced);
    assert_eq!(block_on(log.read(2, 0, 1_000)).unwrap().len(), 2);
}

#[test]
fn a_state_that_needs_dropped_entries_is_refused_and_a_new_one_begins_where_the_log_does() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    let mut middle = 0;
    for n in 0..100 {
        let at = append(&log, &[propose(0, n, &[1; 1_000])], Durability::Synced);
        middle = if n == 50 { at[0] } else { middle };
    }
    for shard in 0..5 {
        log.truncate_before(shard, middle).unwrap();
    }
    let start = log.bounds().start;
    assert!(start > 0);
    drop(log);
    let mut applied = [Applied { next_index: 0, position: 10 }; 5];
    applied[0].next_index = 3;
    let open = |applied: &[Applied], found: &mut Vec<u64>| {
        LocalLog::open(disk.files(), &config(Threads::None), applied, &mut |entry| {
            found.push(entry.index);
        })
    };
    let Err(refused) = open(&applied, &mut Vec::new()) else { panic!("a gap was accepted") };
    let OpenError::Gap { shard: 0, needed: 3, first } = refused else { panic!("{refused}") };

    let mut found = Vec::new();
    let (log, report) = open(&[], &mut found).unwrap();
    assert_eq!(found, (first..100).collect::<Vec<u64>>());
    assert_eq!(report.first_index, vec![Some(first), None, None, None, None]);
    assert_eq!(block_on(log.head(0)), Ok(100));
    assert!(matches!(block_on(log.read(0, first - 1, 1)), Err(ReadError::TooOld(_))));
    drop(log);

    // A shard that is idle since long before the start is no gap.
    let mut idle = [Applied { next_index: 0, position: 10 }; 5];
    idle[0] = Applied { next_index: 90, position: middle };
    let mut found = Vec::new();
    assert!(open(&idle, &mut found).is_ok());
    assert_eq!(found, (90..100).collect::<Vec<u64>>());
}

#[test]
fn heads_outlive_their_entries_wherever_in_a_segment_the_log_ends() {
    for appends in 20..70 {
        let disk = SimDisk::new(1);
        let log = open_fresh(disk.files(), Threads::None).unwrap();
        append(&log, &[propose(1, 0, b"only"), propose(2, 0, b"only")], Durability::Written);
        for n in 0..appends {
            append(&log, &[propose(0, n, &[5; 1_000])], Durability::Written);
        }
        let floor = log.bounds().end;
        for shard in 0..5 {
            log.truncate_before(shard, floor).unwrap();
        }
        assert!(log.bounds().start > SEGMENT);
        disk.crash_with(Survival::None);
        let log = open_fresh(disk.files(), Threads::None).unwrap();
        let heads = [0, 1, 2, 3, 4].map(|shard| block_on(log.head(shard)).unwrap());
        assert_eq!(heads, [appends, 1, 1, 0, 0]);
    }
}

#[test]
fn a_log_of_another_store_is_refused() {
    let disk = SimDisk::new(1);
    let config = LocalConfig { store: Some([7; 16]), ..config(Threads::None) };
    let open = |config: &LocalConfig| {
        LocalLog::open(disk.files(), config, &[], &mut |_| ()).map(|(log, _)| log.store())
    };
    assert_eq!(open(&config).unwrap(), [7; 16]);
    let other = LocalConfig { store: Some([8; 16]), ..config.clone() };
    assert!(matches!(open(&other), Err(OpenError::OtherStore)));
    assert_eq!(open(&LocalConfig { store: None, ..config }).unwrap(), [7; 16]);
}

#[test]
fn a_log_of_more_shards_than_asked_for_is_refused() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    append(&log, &[propose(4, 0, b"x")], Durability::Synced);
    drop(log);
    let fewer = LocalConfig { shards: ShardCount::new(3).unwrap(), ..config(Threads::None) };
    let refused = LocalLog::open(disk.files(), &fewer, &[], &mut |_| ()).map(|_| ());
    assert!(matches!(refused, Err(OpenError::Malformed { .. })), "{refused:?}");
}

#[test]
fn two_cannot_have_the_same_log_open() {
    let folder = tempfile::tempdir().unwrap();
    let files = || Arc::new(DiskFiles::open(folder.path()).unwrap());
    let first = open_fresh(files(), Threads::Background).unwrap();
    assert!(matches!(open_fresh(files(), Threads::None), Err(OpenError::InUse)));
    drop(first);
    assert!(open_fresh(files(), Threads::None).is_ok());
}

#[test]
fn a_failed_sync_poisons_the_log_until_it_is_opened_again() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    append(&log, &[propose(0, 0, b"good")], Durability::Synced);
    disk.fail_sync_at(1);
    let lost = block_on(log.append(&[propose(0, 1, b"lost")], Durability::Synced));
    assert!(matches!(lost, Err(AppendError::Poisoned(_))), "{lost:?}");
    for durability in [Durability::Written, Durability::Synced] {
        let head = block_on(log.head(1)).unwrap();
        let refused = block_on(log.append(&[propose(1, head, b"no")], durability));
        assert!(matches!(refused, Err(AppendError::Poisoned(_))), "{refused:?}");
    }
    assert!(matches!(block_on(log.sync()), Err(AppendError::Poisoned(_))));
    assert_eq!(block_on(log.read(0, 0, 1)).unwrap()[0].bytes, "good", "reading goes on");
    disk.crash_with(Survival::None);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    assert_eq!(block_on(log.head(0)), Ok(1));
    append(&log, &[propose(0, 1, b"again")], Durability::Synced);
}

#[test]
fn a_full_disk_refuses_appends_changes_nothing_and_heals_when_there_is_space() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    disk.set_capacity(Some(disk.allocated() + 2 * SEGMENT));
    let mut head = 0;
    let refused = loop {
        match block_on(log.append(&[propose(0, head, &[1; 3_000])], Durability::Synced)) {
            Ok(Append::Appended(_)) => head += 1,
            other => break other,
        }
    };
    assert_eq!(refused, Err(AppendError::DiskFull));
    assert!(head > 5);
    assert_eq!(block_on(log.head(0)), Ok(head));
    // Space comes back by letting go of entries, on the full disk itself.
    let floor = log.bounds().end;
    for shard in 0..5 {
        log.truncate_before(shard, floor).unwrap();
    }
    assert!(log.bounds().start > 0);
    append(&log, &[propose(0, head, &[2; 3_000])], Durability::Synced);
    disk.crash();
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    assert_eq!(block_on(log.head(0)), Ok(head + 1));
}

#[test]
fn damage_to_what_was_durable_is_told_and_nothing_is_cut() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    for n in 0..10 {
        append(&log, &[propose(0, n, &[0xAB; 100])], Durability::Synced);
    }
    drop(log);
    let name = disk.paths().into_iter().find(|path| path.ends_with(".seg")).unwrap();
    let before = disk.contents(&name).unwrap();
    let last_entry = before.windows(100).rposition(|bytes| bytes == [0xAB; 100]);
    let at = last_entry.unwrap() as u64 + 50;
    assert!(disk.flip_bit(&name, at, 3));
    let damaged = disk.contents(&name).unwrap();
    let refused = open_fresh(disk.files(), Threads::None).map(|_| ());
    let Err(OpenError::Journal(RecoverError::Corrupt { damage, .. })) = refused else {
        panic!("{refused:?}")
    };
    assert!(matches!(damage, Damage::Record { .. }), "the mark proves the last entry: {damage}");
    assert_eq!(disk.contents(&name).unwrap(), damaged);
    assert!(disk.flip_bit(&name, at, 3));
    assert!(open_fresh(disk.files(), Threads::None).is_ok());
}

#[test]
fn a_promise_of_the_system_only_answers_before_any_sync() {
    let disk = SimDisk::new(1);
    let config = LocalConfig { promise: Promise::Written, ..config(Threads::None) };
    let (log, _) = LocalLog::open(disk.files(), &config, &[], &mut |_| ()).unwrap();
    let before = disk.syncs();
    append(&log, &[propose(0, 0, b"x")], Durability::Synced);
    assert_eq!(disk.syncs(), before);
    assert!(log.bounds().synced < log.bounds().end);
    block_on(log.sync()).unwrap();
    assert_eq!(log.bounds().synced, log.bounds().end);
}

#[test]
fn the_thread_makes_durable_what_nobody_waits_for_and_marks_the_end() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::Background).unwrap();
    append(&log, &[propose(0, 0, b"nobody waits")], Durability::Written);
    // Not a bound on time: it ends when the thread has done it, however long that takes.
    while log.bounds().synced < log.bounds().end || log.journal.end() == log.bounds().end {
        std::thread::yield_now();
    }
    disk.crash_with(Survival::None);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    assert_eq!(block_on(log.head(0)), Ok(1));
}

#[test]
fn dropping_the_log_makes_everything_durable() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    append(&log, &[propose(0, 0, b"x")], Durability::Written);
    drop(log);
    disk.crash_with(Survival::None);
    assert_eq!(block_on(open_fresh(disk.files(), Threads::None).unwrap().head(0)), Ok(1));
}

#[test]
fn a_reader_that_keeps_up_does_not_walk_the_log_again() {
    let disk = SimDisk::new(1);
    let log = open_fresh(disk.files(), Threads::None).unwrap();
    for n in 0..400 {
        append(&log, &[propose(1, n, &[1; 500]), propose(2, n, &[2; 10])], Durability::Written);
    }
    let end = log.bounds().end;
    // Random access begins at a record of heads, at most half a segment and a record before.
    for from in [100, 250, 399] {
        let at = block_on(log.read(2, from, 1)).unwrap()[0].position;
        *log.shard(2).resume.lock() = (u64::MAX, 0);
        assert!(at - log.reader_for(2, from).position() < SEGMENT, "{from}");
    }
    let mut next = 0;
    while next < 400 {
        let entries = block_on(log.read(1, next, 3_000)).unwrap();
        next = entries.last().unwrap().index + 1;
        let behind = entries.last().unwrap().position + 500;
        let begins = log.reader_for(1, next).position();
        assert!(begins >= behind.min(end) || end - begins < 100, "{begins} {behind}");
    }
}
