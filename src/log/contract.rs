//! What every log must do, told as the same stories for all of them.
//!
//! In: a [`Subject`]: a log together with the power to crash and restart it. Out: a panic where a
//! promise of [`Log`] is broken. Called by the tests of each log, over many seeds.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Append, AppendError, Durability, Extent, Log, Proposal, ReadError, StoredEntry};
use crate::base::place::{ShardCount, ShardId};
use crate::base::random::SeededRandom;

/// Shards of every subject; number 4 is the catalog's.
pub(super) fn shards() -> ShardCount {
    ShardCount::new(4).unwrap()
}

const ALL: [ShardId; 5] = [0, 1, 2, 3, 4];

/// A log under test.
pub(super) trait Subject {
    /// The log as it is now.
    fn log(&self) -> Arc<dyn Log>;
    /// The machine dies and starts again: what was not synced may be lost.
    fn crash(&mut self);
    /// The process dies and starts again: nothing that was written is lost.
    fn restart(&mut self);
    /// Waits until the log has done what it does in its own time: pieces that are full are closed,
    /// and those that nobody needs are gone.
    fn settle(&self) {}
}

/// Runs every story, each on a new and empty log made from the seed.
pub(super) fn check_all(seed: u64, make: &dyn Fn(u64) -> Box<dyn Subject>) {
    let stories: [fn(&mut dyn Subject, u64); 17] = [
        entries_are_read_back_in_order_with_dense_numbers,
        a_conflict_changes_nothing_and_names_the_shards_that_moved,
        several_entries_of_one_shard_fit_into_one_append,
        an_append_or_an_entry_may_be_empty,
        positions_lead_to_the_bytes_of_bodies,
        an_entry_of_many_pages_is_read_whole_and_in_part,
        a_read_gives_about_as_many_bytes_as_asked_and_at_least_one_entry,
        an_append_over_the_limit_is_refused_and_changes_nothing,
        what_is_synced_survives_a_crash,
        sync_makes_everything_before_it_durable,
        a_crash_takes_only_the_newest_appends_and_each_as_a_whole,
        a_restart_loses_nothing_and_goes_on_counting,
        of_two_who_expect_the_same_head_one_wins,
        threads_on_different_shards_all_land_exactly_once,
        threads_on_one_shard_land_in_the_order_of_their_heads,
        entries_go_only_when_every_shard_let_go_of_them,
        heads_outlive_the_entries_that_made_them,
    ];
    for story in stories {
        story(&mut *make(seed), seed);
    }
}

/// Runs a future whose waker is never needed.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::yield_now();
    }
}

/// A proposal of one entry, its bytes cut into a rope of small slices.
pub(super) fn propose(shard: ShardId, expected_head: u64, bytes: &[u8]) -> Proposal {
    let parts = bytes.chunks(7).map(Bytes::copy_from_slice).collect();
    Proposal { shard, expected_head, parts, brief: None, relies_on: None, labels: Vec::new() }
}

fn append(log: &dyn Log, proposals: &[Proposal], durability: Durability) -> Append {
    block_on(log.append(proposals, durability)).unwrap()
}

fn append_all(log: &dyn Log, proposals: &[Proposal], durability: Durability) -> Vec<u64> {
    match append(log, proposals, durability) {
        Append::Appended(positions) => positions,
        Append::Conflict(shards) => panic!("conflict on {shards:?}"),
    }
}

fn head(log: &dyn Log, shard: ShardId) -> u64 {
    block_on(log.head(shard)).unwrap()
}

fn read_all(log: &dyn Log, shard: ShardId, from: u64) -> Vec<StoredEntry> {
    let mut found: Vec<StoredEntry> = Vec::new();
    loop {
        let next = found.last().map_or(from, |entry| entry.index + 1);
        let more = block_on(log.read(shard, next, 1_000)).unwrap();
        if more.is_empty() {
            return found;
        }
        for entry in more {
            let expected = found.last().map_or(from, |entry| entry.index + 1);
            assert_eq!((entry.shard, entry.index), (shard, expected));
            found.push(entry);
        }
    }
}

/// Saves a checkpoint of every shard as it is now, where the log gives back only what those cover.
fn cover(log: &dyn Log) {
    let Some(vault) = log.vault() else { return };
    for shard in ALL {
        let mut saving = vault.save(shard, head(log, shard));
        block_on(saving.add(Bytes::from_static(b"everything"))).unwrap();
        block_on(saving.finish()).unwrap();
    }
}

fn texts(log: &dyn Log, shard: ShardId) -> Vec<Vec<u8>> {
    read_all(log, shard, 0).into_iter().map(|entry| entry.bytes.to_vec()).collect()
}

fn entries_are_read_back_in_order_with_dense_numbers(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    for shard in ALL {
        assert_eq!(head(&*log, shard), 0);
        assert_eq!(block_on(log.read(shard, 0, 1_000)).unwrap(), vec![]);
    }
    for n in 0..50u64 {
        let bytes = format!("entry {n} of a shard that is long enough to be a rope");
        let shard = (n % 5) as ShardId;
        append_all(&*log, &[propose(shard, n / 5, bytes.as_bytes())], Durability::Written);
    }
    for shard in ALL {
        assert_eq!(head(&*log, shard), 10);
        let entries = read_all(&*log, shard, 0);
        assert_eq!(entries.len(), 10);
        for entry in &entries {
            let n = entry.index * 5 + u64::from(shard);
            assert!(entry.bytes.starts_with(format!("entry {n} ").as_bytes()));
        }
        assert_eq!(read_all(&*log, shard, 7), entries[7..]);
        assert!(block_on(log.read(shard, 10, 1_000)).unwrap().is_empty());
        assert!(block_on(log.read(shard, 99, 1_000)).unwrap().is_empty());
    }
}

fn a_conflict_changes_nothing_and_names_the_shards_that_moved(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    append_all(&*log, &[propose(0, 0, b"a"), propose(1, 0, b"b")], Durability::Synced);
    let end = log.bounds().end;
    let stale =
        [propose(2, 0, b"c"), propose(0, 0, b"d"), propose(1, 7, b"e"), propose(3, 0, b"f")];
    let Append::Conflict(mut moved) = append(&*log, &stale, Durability::Synced) else {
        panic!("stale heads were accepted")
    };
    moved.sort_unstable();
    assert_eq!(moved, vec![0, 1]);
    assert_eq!(ALL.map(|shard| head(&*log, shard)), [1, 1, 0, 0, 0]);
    assert_eq!(log.bounds().end, end);
    append_all(&*log, &[propose(2, 0, b"c"), propose(0, 1, b"d")], Durability::Synced);
    assert_eq!(texts(&*log, 0), vec![b"a".to_vec(), b"d".to_vec()]);
    assert_eq!(texts(&*log, 2), vec![b"c".to_vec()]);
}

fn several_entries_of_one_shard_fit_into_one_append(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    let three = [propose(1, 0, b"x"), propose(2, 0, b"between"), propose(1, 1, b"y")];
    let positions = append_all(&*log, &three, Durability::Written);
    assert_eq!(positions.len(), 3);
    assert_eq!(texts(&*log, 1), vec![b"x".to_vec(), b"y".to_vec()]);
    let twice = [propose(1, 2, b"z"), propose(1, 2, b"z")];
    assert_eq!(append(&*log, &twice, Durability::Written), Append::Conflict(vec![1]));
    assert_eq!(head(&*log, 1), 2);
}

fn an_append_or_an_entry_may_be_empty(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    assert_eq!(append_all(&*log, &[], Durability::Synced), Vec::<u64>::new());
    append_all(&*log, &[propose(0, 0, b""), propose(1, 0, b"full")], Durability::Synced);
    let hollow = Proposal {
        shard: 0,
        expected_head: 1,
        parts: vec![Bytes::new(), Bytes::new()],
        brief: None,
        relies_on: None,
        labels: Vec::new(),
    };
    append_all(&*log, &[hollow], Durability::Synced);
    assert_eq!(texts(&*log, 0), vec![Vec::<u8>::new(), Vec::new()]);
    subject.restart();
    assert_eq!(texts(&*subject.log(), 0), vec![Vec::<u8>::new(), Vec::new()]);
}

fn positions_lead_to_the_bytes_of_bodies(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    let long: Vec<u8> = (0..5_000u32).map(|n| n as u8).collect();
    let mut last: Option<Vec<u64>> = None;
    let mut at_end = 0;
    for n in 0..20u64 {
        let two = [propose(0, n, b"header|payload|trailer"), propose(3, n, &long)];
        let positions = append_all(&*log, &two, Durability::Written);
        let grew = |before: &Vec<u64>| before.iter().zip(&positions).all(|(a, b)| a < b);
        assert!(last.as_ref().is_none_or(grew), "{last:?} {positions:?}");
        at_end = positions[1] + 4_000;
        let body = Extent { position: positions[0] + 7, len: 7 };
        assert_eq!(log.body(0, body).unwrap(), &b"payload"[..]);
        let body = Extent { position: positions[1] + 1_000, len: 4_000 };
        assert_eq!(log.body(3, body).unwrap(), &long[1_000..]);
        assert_eq!(block_on(log.read(3, n, 1)).unwrap()[0].position, positions[1]);
        assert_eq!(log.body(0, Extent { position: positions[0], len: 0 }).unwrap(), &b""[..]);
        assert!(log.end_of(3) >= positions[1] + 5_000 && log.end_of(0) >= positions[0] + 22);
        last = Some(positions);
    }
    let past = log.body(3, Extent { position: at_end, len: 2_000 });
    assert!(matches!(past, Err(ReadError::PastEnd(_))), "{past:?}");
    let past = log.body(0, Extent { position: u64::MAX - 2, len: u32::MAX });
    assert!(matches!(past, Err(ReadError::PastEnd(_))), "{past:?}");
}

fn an_entry_of_many_pages_is_read_whole_and_in_part(subject: &mut dyn Subject, _: u64) {
    const BYTES: usize = (1 << 20) + 50_000;
    let log = subject.log();
    let long: Vec<u8> = (0..BYTES as u32).map(|n| (n / 7) as u8).collect();
    let mut proposal = propose(3, 0, &long);
    proposal.parts = long.chunks(9_973).map(Bytes::copy_from_slice).collect();
    let positions = append_all(&*log, &[propose(1, 0, b"other"), proposal], Durability::Synced);
    append_all(&*log, &[propose(3, 1, b"next")], Durability::Synced);
    // What is read comes from where it is kept, not from memory.
    subject.restart();
    let log = subject.log();
    let edges = [0, 1, 7_999, 8_000, 8_001, 16_000, 1 << 20, BYTES - 8_001, BYTES - 1, BYTES];
    for from in edges {
        for len in [0, 1, 2, 8_000, 8_001, 100_000, BYTES] {
            if from + len > BYTES {
                continue;
            }
            let extent = Extent { position: positions[1] + from as u64, len: len as u32 };
            assert_eq!(log.body(3, extent).unwrap(), &long[from..from + len], "{from} {len}");
        }
    }
    assert_eq!(texts(&*log, 3), vec![long, b"next".to_vec()]);
}

fn a_read_gives_about_as_many_bytes_as_asked_and_at_least_one_entry(
    subject: &mut dyn Subject,
    _: u64,
) {
    let log = subject.log();
    for n in 0..10 {
        append_all(&*log, &[propose(2, n, &[1; 100])], Durability::Written);
    }
    let count = |from, bytes_max| block_on(log.read(2, from, bytes_max)).unwrap().len();
    assert_eq!(count(0, 0), 1);
    assert_eq!(count(0, 350), 3);
    assert_eq!(count(8, 10_000), 2);
    assert_eq!(count(0, usize::MAX), 10);
}

fn an_append_over_the_limit_is_refused_and_changes_nothing(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    let part = Bytes::from(vec![0; 1 << 20]);
    let big = Proposal {
        shard: 0,
        expected_head: 0,
        parts: vec![part; 65],
        brief: None,
        relies_on: None,
        labels: Vec::new(),
    };
    let refused = block_on(log.append(&[propose(1, 0, b"small"), big], Durability::Synced));
    let Err(AppendError::TooLarge { bytes, limit }) = refused else { panic!("{refused:?}") };
    assert!(bytes > limit && limit <= 64 << 20);
    assert_eq!(head(&*log, 1), 0);
    append_all(&*log, &[propose(1, 0, b"small")], Durability::Synced);
}

fn what_is_synced_survives_a_crash(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    append_all(&*log, &[propose(0, 0, b"written before")], Durability::Written);
    append_all(&*log, &[propose(1, 0, b"synced")], Durability::Synced);
    let bounds = log.bounds();
    assert_eq!(bounds.synced, bounds.end);
    append_all(&*log, &[propose(1, 1, b"written after")], Durability::Written);
    subject.crash();
    let log = subject.log();
    assert_eq!(texts(&*log, 0), vec![b"written before".to_vec()]);
    assert_eq!(texts(&*log, 1)[0], b"synced");
    let next = head(&*log, 1);
    append_all(&*log, &[propose(1, next, b"goes on")], Durability::Synced);
    subject.crash();
    assert_eq!(texts(&*subject.log(), 1).last().unwrap(), b"goes on");
}

fn sync_makes_everything_before_it_durable(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    for n in 0..20 {
        append_all(&*log, &[propose((n % 5) as ShardId, n / 5, b"w")], Durability::Written);
    }
    block_on(log.sync()).unwrap();
    assert_eq!(log.bounds().synced, log.bounds().end);
    subject.crash();
    assert_eq!(ALL.map(|shard| head(&*subject.log(), shard)), [4; 5]);
}

/// What an append left behind, for a model: number of the append, then shard and index of entries.
type Appended = Vec<(ShardId, u64)>;

fn a_crash_takes_only_the_newest_appends_and_each_as_a_whole(subject: &mut dyn Subject, seed: u64) {
    let random = SeededRandom::new(seed ^ 0xC0FFEE);
    let mut appends: Vec<Appended> = Vec::new();
    for _round in 0..6 {
        let log = subject.log();
        let mut synced = appends.len();
        let mut heads = ALL.map(|shard| head(&*log, shard));
        for _ in 0..random.below(30) {
            let mut proposals = Vec::new();
            for _ in 0..=random.below(5) {
                let shard = random.below(5) as usize;
                let mark = format!("{}:", appends.len());
                let mut bytes = mark.into_bytes();
                bytes.resize(bytes.len() + random.below(900) as usize, b'.');
                proposals.push(propose(ALL[shard], heads[shard], &bytes));
                heads[shard] += 1;
            }
            let durable = random.chance(200);
            let durability = if durable { Durability::Synced } else { Durability::Written };
            append_all(&*log, &proposals, durability);
            appends.push(proposals.iter().map(|one| (one.shard, one.expected_head)).collect());
            if durable {
                synced = appends.len();
            }
        }
        subject.crash();
        let stands = marks(&*subject.log());
        let kept = appends.iter().take_while(|append| stands.contains_key(&append[0])).count();
        assert!(kept >= synced, "kept {kept} appends, {synced} were synced");
        appends.truncate(kept);
        let expected: BTreeMap<(ShardId, u64), usize> = appends
            .iter()
            .enumerate()
            .flat_map(|(number, entries)| entries.iter().map(move |entry| (*entry, number)))
            .collect();
        assert_eq!(stands, expected);
    }
}

/// Which append each entry that stands came from.
fn marks(log: &dyn Log) -> BTreeMap<(ShardId, u64), usize> {
    let mut found = BTreeMap::new();
    for shard in ALL {
        let entries = read_all(log, shard, 0);
        assert_eq!(entries.len() as u64, head(log, shard));
        for entry in entries {
            let text = String::from_utf8(entry.bytes.to_vec()).unwrap();
            let number = text.split(':').next().unwrap().parse().unwrap();
            found.insert((shard, entry.index), number);
        }
    }
    found
}

fn a_restart_loses_nothing_and_goes_on_counting(subject: &mut dyn Subject, _: u64) {
    for round in 0..4u64 {
        let log = subject.log();
        for n in 0..10 {
            let two = [propose(0, round * 10 + n, b"zero"), propose(4, round * 10 + n, b"four")];
            append_all(&*log, &two, Durability::Written);
        }
        drop(log);
        subject.restart();
        let log = subject.log();
        assert_eq!(
            ALL.map(|shard| head(&*log, shard)),
            [round * 10 + 10, 0, 0, 0, round * 10 + 10]
        );
        assert_eq!(texts(&*log, 4).len() as u64, round * 10 + 10);
        let stale = append(&*log, &[propose(0, round * 10, b"stale")], Durability::Written);
        assert_eq!(stale, Append::Conflict(vec![0]));
    }
}

fn of_two_who_expect_the_same_head_one_wins(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    let first = [propose(0, 0, b"first"), propose(1, 0, b"first")];
    append_all(&*log, &first, Durability::Synced);
    let second = [propose(1, 0, b"second"), propose(2, 0, b"second")];
    assert_eq!(append(&*log, &second, Durability::Synced), Append::Conflict(vec![1]));
    assert_eq!(texts(&*log, 1), vec![b"first".to_vec()]);
    assert_eq!(head(&*log, 2), 0);
}

fn threads_on_different_shards_all_land_exactly_once(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    std::thread::scope(|scope| {
        for shard in ALL {
            let log = &log;
            scope.spawn(move || {
                for n in 0..40u64 {
                    let bytes = format!("{shard} {n}");
                    let durability =
                        if n % 4 == 0 { Durability::Synced } else { Durability::Written };
                    append_all(&**log, &[propose(shard, n, bytes.as_bytes())], durability);
                }
            });
        }
    });
    subject.restart();
    let log = subject.log();
    for shard in ALL {
        let expected: Vec<Vec<u8>> = (0..40).map(|n| format!("{shard} {n}").into_bytes()).collect();
        assert_eq!(texts(&*log, shard), expected);
    }
}

fn threads_on_one_shard_land_in_the_order_of_their_heads(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..15u64 {
                    // Each append touches a shard of its own too, so that threads overlap in part.
                    let own = (thread % 3) as ShardId + 1;
                    loop {
                        let heads = (head(&**log, 0), head(&**log, own));
                        let bytes = format!("{thread} {n} {}", heads.0);
                        let two = [
                            propose(own, heads.1, bytes.as_bytes()),
                            propose(0, heads.0, bytes.as_bytes()),
                        ];
                        match append(&**log, &two, Durability::Written) {
                            Append::Appended(_) => break,
                            Append::Conflict(moved) => assert!(!moved.is_empty()),
                        }
                    }
                }
            });
        }
    });
    let mut next_of_thread = [0u64; 4];
    let entries = read_all(&*log, 0, 0);
    assert_eq!(entries.len(), 60);
    for entry in entries {
        let text = String::from_utf8(entry.bytes.to_vec()).unwrap();
        let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
        let next = &mut next_of_thread[numbers[0] as usize];
        assert_eq!((numbers[1], numbers[2]), (*next, entry.index));
        *next += 1;
    }
    assert_eq!([1, 2, 3].map(|shard| head(&*log, shard)), [30, 15, 15]);
}

fn entries_go_only_when_every_shard_let_go_of_them(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    let began = log.bounds().start;
    let mut positions: Vec<Vec<u64>> = Vec::new();
    for n in 0..40 {
        let all: Vec<Proposal> = ALL.iter().map(|shard| propose(*shard, n, &[9; 200])).collect();
        positions.push(append_all(&*log, &all, Durability::Written));
        if n % 8 == 0 {
            subject.settle();
        }
    }
    cover(&*log);
    for shard in [0, 1, 2, 4] {
        log.truncate_before(shard, positions[30][usize::from(shard)]).unwrap();
    }
    subject.settle();
    assert_eq!(read_all(&*log, 3, 0).len(), 40, "shard 3 still needs everything");
    log.truncate_before(3, positions[20][3]).unwrap();
    log.truncate_before(3, positions[10][3]).unwrap();
    subject.settle();
    let bounds = log.bounds();
    assert!(began < bounds.start && bounds.start < bounds.end, "{began} {bounds:?}");
    for shard in ALL {
        let needed = if shard == 3 { 20 } else { 30 };
        assert_eq!(read_all(&*log, shard, needed).len() as u64, 40 - needed);
        assert_eq!(head(&*log, shard), 40);
    }
    assert!(matches!(block_on(log.read(3, 0, 10)), Err(ReadError::TooOld(_))));
    let body = log.body(0, Extent { position: positions[0][0], len: 1 });
    assert!(matches!(body, Err(ReadError::TooOld(_))), "{body:?}");
}

fn heads_outlive_the_entries_that_made_them(subject: &mut dyn Subject, _: u64) {
    let log = subject.log();
    append_all(&*log, &[propose(1, 0, b"only"), propose(2, 0, b"only")], Durability::Synced);
    for n in 0..60 {
        append_all(&*log, &[propose(0, n, &[5; 500])], Durability::Synced);
    }
    subject.settle();
    cover(&*log);
    for shard in ALL {
        log.truncate_before(shard, log.end_of(shard)).unwrap();
    }
    subject.settle();
    assert!(log.bounds().start > 0);
    assert_eq!(head(&*log, 1), 1);
    drop(log);
    subject.crash();
    let log = subject.log();
    assert_eq!(ALL.map(|shard| head(&*log, shard)), [60, 1, 1, 0, 0]);
    let again = append(&*log, &[propose(1, 0, b"again")], Durability::Synced);
    assert_eq!(again, Append::Conflict(vec![1]));
    append_all(&*log, &[propose(1, 1, b"next")], Durability::Synced);
    assert_eq!(read_all(&*log, 1, 1).len(), 1);
}
