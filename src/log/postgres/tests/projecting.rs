//! What projecting asks of the database: one engine at a time, and rows with their position or neither.

use super::*;
use crate::log::contract::{block_on, propose};
use crate::log::label::Label;

/// A log whose queue 1 asks for rows, and two entries of shard 2 after that.
fn open_with_entries(cluster: &Cluster) -> PostgresLog {
    let log = open_log(&config(cluster, "s"));
    let labels =
        vec![Label::Queue { queue: 1, name: "q".into() }, Label::Rows { queue: 1, on: true }];
    let before = propose(2, 0, b"before");
    block_on(log.append(&[before], Durability::Synced)).unwrap();
    let asks = Proposal { labels, ..propose(4, 0, b"asks") };
    block_on(log.append(&[asks], Durability::Synced)).unwrap();
    let after = [propose(2, 1, b"one"), propose(2, 2, b"two")];
    block_on(log.append(&after, Durability::Synced)).unwrap();
    log
}

/// What a store that has its connection by now says.
fn locked(log: &PostgresLog) -> (ProjectionStore, Lock) {
    let store = log.projection();
    let mut lock = None;
    await_that("the connection", || {
        lock = block_on(store.take_lock()).ok();
        lock.is_some()
    });
    (store, lock.unwrap())
}

fn row(seq: u64) -> MessageRow {
    MessageRow {
        queue: "q".into(),
        partition: "p".into(),
        seq,
        id: [seq as u8; 16],
        transaction_id: "t".into(),
        time_ms: 1_000,
        is_json: true,
        payload: Some(Bytes::from_static(b"{\"a\": 1}")),
    }
}

fn rows(seqs: &[u64]) -> RowChanges {
    RowChanges { rows: seqs.iter().map(|seq| row(*seq)).collect(), ..RowChanges::default() }
}

#[test]
fn rows_and_their_position_stand_together_and_once() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let log = open_with_entries(&cluster);
        let (store, lock) = locked(&log);
        assert_eq!(lock, Lock::Taken);
        assert_eq!(block_on(store.take_lock()).unwrap(), Lock::Held);
        let orders = block_on(store.orders()).unwrap();
        assert_eq!(orders.queues[0].from, [0, 0, 1, 0, 0]);
        let place = Place { shard: 2, was: 0, next: 1, head: 3 };
        assert_eq!((orders.places[2], orders.entries), (place, 2));
        let (skipped, entries) = block_on(store.read(place, 1 << 20)).unwrap();
        let bytes: Vec<&[u8]> = entries.iter().map(|entry| &entry.bytes[..]).collect();
        assert_eq!((skipped, bytes), (0, vec![&b"one"[..], b"two"]));
        let step = [Step { shard: 2, was: 0, next: 3, skipped: 0 }];
        // A row that cannot be, in the middle: nothing stands.
        let twice = rows(&[0, 1, 1]);
        block_on(store.commit(&twice, &step)).unwrap_err();
        let seen = || cluster.sql("postgres", "SELECT count(*) FROM s.message_rows").unwrap();
        assert_eq!((seen().as_str(), block_on(store.orders()).unwrap().entries), ("0", 2));
        block_on(store.commit(&rows(&[0, 1]), &step)).unwrap();
        assert_eq!((seen().as_str(), block_on(store.orders()).unwrap().entries), ("2", 0));
        // Decided by what was before: others have moved it since.
        let late = block_on(store.commit(&rows(&[7]), &step));
        assert!(matches!(late, Err(ProjectionError::Moved)), "{late:?}");
        assert_eq!(seen(), "2");
    });
}

#[test]
fn another_engine_writes_nothing_until_the_first_one_is_gone() {
    let cluster = Cluster::start(&installations().unwrap()[0]).unwrap();
    let log = open_with_entries(&cluster);
    let (first, lock) = locked(&log);
    let (second, refused) = locked(&log);
    assert_eq!((lock, refused), (Lock::Taken, Lock::Others));
    let step = [Step { shard: 2, was: 0, next: 2, skipped: 0 }];
    block_on(second.commit(&rows(&[0]), &step)).unwrap_err();
    block_on(second.sweep(1, Some("q"))).unwrap_err();
    drop(first);
    await_that("the lock", || block_on(second.take_lock()).unwrap() == Lock::Taken);
    block_on(second.commit(&rows(&[0]), &step)).unwrap();
    assert_eq!(block_on(second.orders()).unwrap().entries, 1);
}

#[test]
fn what_comes_behind_the_head_is_left_to_later_orders() {
    let cluster = Cluster::start(&installations().unwrap()[0]).unwrap();
    let log = open_with_entries(&cluster);
    let (store, _) = locked(&log);
    let place = Place { shard: 2, was: 0, next: 1, head: 2 };
    let (_, entries) = block_on(store.read(place, 1 << 20)).unwrap();
    let bytes: Vec<&[u8]> = entries.iter().map(|entry| &entry.bytes[..]).collect();
    assert_eq!(bytes, [b"one"]);
}

#[test]
fn orders_know_every_queue_that_asked_before_an_entry_of_theirs() {
    let cluster = Cluster::start(&installations().unwrap()[0]).unwrap();
    let log = open_with_entries(&cluster);
    let (store, _) = locked(&log);
    let orders = std::thread::scope(|scope| {
        // Who reads positions waits until a second queue has asked, and something has come for it.
        let wait = "DO $$ BEGIN LOCK TABLE s.projected IN ACCESS EXCLUSIVE MODE; \
             FOR i IN 1..1000 LOOP \
               EXIT WHEN EXISTS (SELECT FROM s.heads WHERE shard = 2 AND head > 3); \
               PERFORM pg_sleep(0.02); \
             END LOOP; END $$";
        scope.spawn(|| cluster.sql("postgres", wait).unwrap());
        let waiting = |granted: bool| {
            let sql = format!(
                "SELECT count(*) FROM pg_locks WHERE relation = 's.projected'::regclass \
                 AND (mode = 'AccessExclusiveLock' OR NOT granted) AND granted = {granted}"
            );
            cluster.sql("postgres", &sql).unwrap() == "1"
        };
        await_that("the lock", || waiting(true));
        let orders = scope.spawn(|| block_on(store.orders()).unwrap());
        await_that("somebody who reads positions", || waiting(false));
        let labels =
            vec![Label::Queue { queue: 2, name: "r".into() }, Label::Rows { queue: 2, on: true }];
        let asks = Proposal { labels, ..propose(4, 1, b"asks") };
        block_on(log.append(&[asks], Durability::Synced)).unwrap();
        block_on(log.append(&[propose(2, 3, b"its first")], Durability::Synced)).unwrap();
        orders.join().unwrap()
    });
    let place = orders.places.iter().find(|place| place.shard == 2).unwrap();
    let asked = orders.queues.iter().find(|it| it.queue == 2).map(|it| it.from[2]);
    assert!(place.head < 4 || asked == Some(3), "{orders:?}");
    // Nobody would have waited for it otherwise.
    assert_eq!((place.head, asked), (4, Some(3)));
}
