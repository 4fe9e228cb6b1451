//! What every key-value store must do, told as the same stories for all of them.
//!
//! In: a function that makes something that leads to an empty store. Out: a panic where a promise of [`Kv`] is broken.
//! Called by the tests of each store.

use std::collections::BTreeMap;
use std::ops::Deref;

use bytes::Bytes;

use super::{IdRow, KEY_BYTES_MAX, Kv, RowChange, Scan, Space};
use crate::base::place::ShardCount;

/// Runs every story, each on a store of its own.
pub(super) fn check_all<K: Deref<Target: Kv + Sized>>(make: &dyn Fn() -> K) {
    a_written_row_is_read_back_and_a_removed_one_is_gone(&*make());
    a_batch_may_touch_one_row_twice_and_the_last_change_counts(&*make());
    spaces_do_not_see_each_other(&*make());
    a_scan_walks_in_key_order_within_its_bounds(&*make());
    a_scan_stops_when_told(&*make());
    an_upside_down_range_is_empty(&*make());
    the_last_row_is_found_with_both_bounds_included(&*make());
    ids_are_found_with_what_was_written_last(&*make());
    generations_of_ids_are_dropped_whole(&*make());
    ids_of_a_shard_are_walked_over_and_forgotten_together(&*make());
    ids_stand_with_the_rows_of_their_batch_or_not_at_all(&*make());
    ids_agree_with_a_plain_map_over_random_work(&*make());
    an_empty_value_or_batch_is_allowed_and_an_empty_or_endless_key_refused(&*make());
    a_visitor_may_remove_the_rows_that_it_walks_over(&*make());
    it_agrees_with_a_plain_map_over_random_work(&*make());
}

fn put(space: Space, key: &[u8], value: &[u8]) -> RowChange {
    RowChange { space, key: key.to_vec(), value: Some(value.to_vec()) }
}

fn remove(space: Space, key: &[u8]) -> RowChange {
    RowChange { space, key: key.to_vec(), value: None }
}

fn rows(kv: &dyn Kv, space: Space, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    kv.scan(space, from, to, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Scan::Continue
    })
    .unwrap();
    found
}

fn a_written_row_is_read_back_and_a_removed_one_is_gone(kv: &dyn Kv) {
    assert_eq!(kv.get(Space::Meta, b"a").unwrap(), None);
    kv.write(&[put(Space::Meta, b"a", b"1"), put(Space::Meta, b"b", b"2")]).unwrap();
    assert_eq!(kv.get(Space::Meta, b"a").unwrap(), Some(Bytes::from_static(b"1")));
    kv.write(&[remove(Space::Meta, b"a"), put(Space::Meta, b"b", b"3")]).unwrap();
    assert_eq!(kv.get(Space::Meta, b"a").unwrap(), None);
    assert_eq!(kv.get(Space::Meta, b"b").unwrap(), Some(Bytes::from_static(b"3")));
    kv.persist().unwrap();
    assert_eq!(kv.get(Space::Meta, b"b").unwrap(), Some(Bytes::from_static(b"3")));
}

fn a_batch_may_touch_one_row_twice_and_the_last_change_counts(kv: &dyn Kv) {
    let twice = [
        put(Space::Dead, b"k", b"1"),
        put(Space::Dead, b"k", b"2"),
        put(Space::Dead, b"gone", b"1"),
        remove(Space::Dead, b"gone"),
        remove(Space::Dead, b"back"),
        put(Space::Dead, b"back", b"1"),
    ];
    kv.write(&twice).unwrap();
    assert_eq!(
        rows(kv, Space::Dead, b"", b""),
        vec![(b"back".to_vec(), b"1".to_vec()), (b"k".to_vec(), b"2".to_vec())]
    );
}

fn spaces_do_not_see_each_other(kv: &dyn Kv) {
    let spaces =
        [Space::Meta, Space::Runs, Space::Dead, Space::Queues, Space::States, Space::Queries];
    let changes: Vec<RowChange> =
        spaces.iter().zip(0u8..).map(|(space, n)| put(*space, b"k", &[n])).collect();
    kv.write(&changes).unwrap();
    for (space, n) in spaces.iter().zip(0u8..) {
        assert_eq!(rows(kv, *space, b"", b""), vec![(b"k".to_vec(), vec![n])], "{space:?}");
    }
}

fn a_scan_walks_in_key_order_within_its_bounds(kv: &dyn Kv) {
    let keys: [&[u8]; 5] = [b"a", b"ab", b"b", b"\x00\xff", b"\xff\xff"];
    let changes: Vec<RowChange> = keys.iter().map(|key| put(Space::Runs, key, key)).collect();
    kv.write(&changes).unwrap();
    let keys_of = |from: &[u8], to: &[u8]| -> Vec<Vec<u8>> {
        rows(kv, Space::Runs, from, to).into_iter().map(|(key, _)| key).collect()
    };
    let all: Vec<Vec<u8>> =
        [&b"\x00\xff"[..], b"a", b"ab", b"b", b"\xff\xff"].map(<[u8]>::to_vec).to_vec();
    assert_eq!(keys_of(b"", b""), all);
    assert_eq!(keys_of(b"a", b""), all[1..]);
    assert_eq!(keys_of(b"a", b"b"), all[1..3]);
    assert_eq!(keys_of(b"aa", b"b\x00"), all[2..4]);
    assert_eq!(keys_of(b"c", b"d"), Vec::<Vec<u8>>::new());
    assert!(rows(kv, Space::Dead, b"", b"").is_empty());
}

fn a_scan_stops_when_told(kv: &dyn Kv) {
    let changes: Vec<RowChange> = (0..100u8).map(|n| put(Space::Queues, &[n], &[n])).collect();
    kv.write(&changes).unwrap();
    let mut seen = Vec::new();
    kv.scan(Space::Queues, &[10], &[], &mut |key, _| {
        seen.push(key[0]);
        if key[0] == 12 { Scan::Stop } else { Scan::Continue }
    })
    .unwrap();
    assert_eq!(seen, vec![10, 11, 12]);
}

fn an_upside_down_range_is_empty(kv: &dyn Kv) {
    kv.write(&[put(Space::Runs, b"m", b"1")]).unwrap();
    assert!(rows(kv, Space::Runs, b"z", b"a").is_empty());
    assert!(rows(kv, Space::Runs, b"m", b"m").is_empty());
    assert_eq!(kv.last(Space::Runs, b"z", b"a").unwrap(), None);
}

fn the_last_row_is_found_with_both_bounds_included(kv: &dyn Kv) {
    assert_eq!(kv.last(Space::Runs, b"", b"\xff").unwrap(), None);
    for n in [10u8, 20, 30] {
        kv.write(&[put(Space::Runs, &[n], &[n])]).unwrap();
    }
    let last =
        |from: u8, to: u8| kv.last(Space::Runs, &[from], &[to]).unwrap().map(|(key, _)| key[0]);
    assert_eq!(last(0, 255), Some(30));
    assert_eq!(last(0, 30), Some(30));
    assert_eq!(last(0, 29), Some(20));
    assert_eq!(last(20, 20), Some(20));
    assert_eq!(last(21, 29), None);
    kv.write(&[remove(Space::Runs, &[30])]).unwrap();
    assert_eq!(last(0, 255), Some(20));
    assert_eq!(kv.last(Space::Dead, b"", b"\xff").unwrap(), None);
}

/// How many shards a store of these stories has.
pub(super) fn count() -> ShardCount {
    ShardCount::new(3).unwrap()
}

pub(super) fn id(generation: u32, partition: u32, fingerprint: u128, seq: u64) -> IdRow {
    IdRow { generation, partition, fingerprint, seq, time_ms: seq + 1_000 }
}

fn ids_of(kv: &dyn Kv, shard: u16) -> Vec<IdRow> {
    let mut found = Vec::new();
    kv.scan_ids(shard, count(), &mut |row| {
        found.push(*row);
        Scan::Continue
    })
    .unwrap();
    found.sort_by_key(|row| (row.partition, row.fingerprint));
    found
}

fn ids_are_found_with_what_was_written_last(kv: &dyn Kv) {
    assert_eq!(kv.find_id(1, 2, 0).unwrap(), None);
    let ids = vec![id(5, 1, 2, 10), id(5, 1, 3, 11), id(5, 4, 2, 12), id(5, 1, 2, 13)];
    kv.write_with_ids(&[], ids).unwrap();
    assert_eq!(kv.find_id(1, 2, 0).unwrap(), Some(id(5, 1, 2, 13)), "the last of a batch");
    assert_eq!(kv.find_id(1, 3, 5).unwrap(), Some(id(5, 1, 3, 11)));
    assert_eq!(kv.find_id(4, 2, 5).unwrap(), Some(id(5, 4, 2, 12)));
    assert_eq!(kv.find_id(1, 2, 6).unwrap(), None, "its generation is too old");
    assert_eq!(kv.find_id(4, 3, 0).unwrap(), None);
    kv.write_with_ids(&[], vec![id(5, 1, 3, 20), id(6, 1, 2, 21)]).unwrap();
    assert_eq!(kv.find_id(1, 3, 0).unwrap(), Some(id(5, 1, 3, 20)));
    assert_eq!(kv.find_id(1, 2, 0).unwrap(), Some(id(6, 1, 2, 21)));
    assert_eq!(kv.find_id(4, 2, 0).unwrap(), Some(id(5, 4, 2, 12)));
}

fn generations_of_ids_are_dropped_whole(kv: &dyn Kv) {
    kv.drop_generations_before(9).unwrap();
    for n in [12, 3, 700, 5] {
        kv.write_with_ids(&[], vec![id(n, n, 1, 1), id(n, 1, u128::from(n), 1)]).unwrap();
    }
    kv.drop_generations_before(12).unwrap();
    for n in [3, 5] {
        assert_eq!(kv.find_id(n, 1, 0).unwrap(), None);
        assert_eq!(kv.find_id(1, u128::from(n), 0).unwrap(), None);
    }
    for n in [12, 700] {
        assert_eq!(kv.find_id(n, 1, n).unwrap(), Some(id(n, n, 1, 1)));
    }
    kv.write_with_ids(&[], vec![id(5, 8, 8, 2)]).unwrap();
    assert_eq!(kv.find_id(8, 8, 0).unwrap(), Some(id(5, 8, 8, 2)));
    assert_eq!(kv.find_id(5, 1, 0).unwrap(), None, "an old number starts empty");
    kv.drop_generations_before(u32::MAX).unwrap();
    assert!((0..3).all(|shard| ids_of(kv, shard).is_empty()));
}

fn ids_of_a_shard_are_walked_over_and_forgotten_together(kv: &dyn Kv) {
    let all: Vec<IdRow> = (0..1_000).map(|n| id(n / 400, n % 10, u128::from(n), 7)).collect();
    for some in all.chunks(300) {
        kv.write_with_ids(&[], some.to_vec()).unwrap();
    }
    let of_shard = |shard: u16| {
        let mut rows = all.clone();
        rows.retain(|row| count().of_partition(row.partition) == shard);
        rows.sort_by_key(|row| (row.partition, row.fingerprint));
        rows
    };
    assert!((0..3).all(|shard| ids_of(kv, shard) == of_shard(shard)));
    let mut seen = 0;
    kv.scan_ids(1, count(), &mut |_| {
        seen += 1;
        if seen == 5 { Scan::Stop } else { Scan::Continue }
    })
    .unwrap();
    assert_eq!(seen, 5);
    kv.forget_ids(1, count()).unwrap();
    assert!(ids_of(kv, 1).is_empty());
    assert!([0, 2].into_iter().all(|shard| ids_of(kv, shard) == of_shard(shard)));
    for row in &all {
        let is_gone = count().of_partition(row.partition) == 1;
        let found = kv.find_id(row.partition, row.fingerprint, 0).unwrap();
        assert_eq!(found, (!is_gone).then_some(*row));
    }
    kv.write_with_ids(&[], vec![id(2, 1, 999_999, 8)]).unwrap();
    assert_eq!(ids_of(kv, 1), vec![id(2, 1, 999_999, 8)]);
}

fn ids_stand_with_the_rows_of_their_batch_or_not_at_all(kv: &dyn Kv) {
    kv.write_with_ids(&[put(Space::Meta, b"a", b"1")], vec![id(1, 1, 1, 1)]).unwrap();
    assert_eq!(kv.get(Space::Meta, b"a").unwrap(), Some(Bytes::from_static(b"1")));
    assert_eq!(kv.find_id(1, 1, 0).unwrap(), Some(id(1, 1, 1, 1)));
    kv.write_with_ids(&[put(Space::Meta, b"", b"1")], vec![id(1, 1, 2, 2)]).unwrap_err();
    assert_eq!(kv.find_id(1, 2, 0).unwrap(), None);
}

fn ids_agree_with_a_plain_map_over_random_work(kv: &dyn Kv) {
    let mut model = BTreeMap::new();
    let mut random = random();
    for round in 0..200 {
        // Later rounds reach later generations, as time does.
        let generation = round / 50;
        let rows: Vec<IdRow> = (0..=random(60))
            .map(|n| {
                id(
                    generation,
                    random(6) as u32,
                    u128::from(random(400)) << 64,
                    u64::from(round) << 8 | n,
                )
            })
            .collect();
        for row in &rows {
            model.insert((row.partition, row.fingerprint), *row);
        }
        kv.write_with_ids(&[], rows).unwrap();
        for _ in 0..20 {
            let key = (random(6) as u32, u128::from(random(400)) << 64);
            let expected = model.get(&key).filter(|row| row.generation + 1 >= generation).copied();
            assert_eq!(kv.find_id(key.0, key.1, generation.saturating_sub(1)).unwrap(), expected);
        }
        if round % 67 == 0 {
            kv.forget_ids(2, count()).unwrap();
            model.retain(|(partition, _), _| count().of_partition(*partition) != 2);
        }
    }
    for shard in 0..3 {
        let of_shard = |row: &&IdRow| count().of_partition(row.partition) == shard;
        let expected: Vec<IdRow> = model.values().filter(of_shard).copied().collect();
        assert_eq!(ids_of(kv, shard), expected);
    }
}

/// The same numbers at every run.
fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

fn an_empty_value_or_batch_is_allowed_and_an_empty_or_endless_key_refused(kv: &dyn Kv) {
    kv.write(&[]).unwrap();
    let longest = vec![1; KEY_BYTES_MAX];
    kv.write(&[put(Space::Groups, b"k", b""), put(Space::Groups, &longest, b"v")]).unwrap();
    assert_eq!(kv.get(Space::Groups, b"k").unwrap(), Some(Bytes::new()));
    assert_eq!(kv.get(Space::Groups, &longest).unwrap(), Some(Bytes::from_static(b"v")));
    for key in [vec![], vec![1; KEY_BYTES_MAX + 1]] {
        let refused =
            kv.write(&[put(Space::Groups, b"other", b"1"), put(Space::Groups, &key, b"1")]);
        assert!(refused.is_err());
        assert_eq!(kv.get(Space::Groups, b"other").unwrap(), None, "nothing of the batch stands");
    }
}

fn a_visitor_may_remove_the_rows_that_it_walks_over(kv: &dyn Kv) {
    let key_of = |n: u32| [(n >> 8) as u8, n as u8];
    let changes: Vec<RowChange> =
        (0..3_000).map(|n| put(Space::Partitions, &key_of(n), &n.to_le_bytes())).collect();
    kv.write(&changes).unwrap();
    let mut seen = 0u32;
    kv.scan(Space::Partitions, b"", b"", &mut |key, value| {
        assert_eq!(key, key_of(seen));
        assert_eq!(value, seen.to_le_bytes());
        kv.write(&[remove(Space::Partitions, key)]).unwrap();
        seen += 1;
        Scan::Continue
    })
    .unwrap();
    assert_eq!(seen, 3_000);
    assert!(rows(kv, Space::Partitions, b"", b"").is_empty());
}

fn it_agrees_with_a_plain_map_over_random_work(kv: &dyn Kv) {
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut random = random();
    for round in 0..400u32 {
        let mut changes = Vec::new();
        for _ in 0..=random(20) {
            let key = vec![random(16) as u8; 1 + random(3) as usize];
            let value = (random(3) > 0).then(|| round.to_le_bytes().to_vec());
            match &value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(&key),
            };
            changes.push(RowChange { space: Space::Dead, key, value });
        }
        kv.write(&changes).unwrap();
        let (from, to) = (vec![random(16) as u8], vec![random(16) as u8, random(16) as u8]);
        let expected: Vec<(Vec<u8>, Vec<u8>)> = if from < to {
            model.range(from.clone()..to.clone()).map(|(k, v)| (k.clone(), v.clone())).collect()
        } else {
            Vec::new()
        };
        assert_eq!(rows(kv, Space::Dead, &from, &to), expected);
        let expected =
            if from <= to { model.range(from.clone()..=to.clone()).next_back() } else { None };
        let last = kv.last(Space::Dead, &from, &to).unwrap();
        assert_eq!(
            last.map(|(k, v)| (k.to_vec(), v.to_vec())),
            expected.map(|(k, v)| (k.clone(), v.clone()))
        );
    }
}
