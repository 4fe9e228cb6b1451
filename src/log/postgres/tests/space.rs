//! Pieces: closed when full, dropped when everybody let go, and what was left half done is finished.

use bytes::Bytes;

use super::*;
use crate::log::contract::{block_on, propose};

fn append(log: &PostgresLog, shard: ShardId, head: u64, bytes: usize) -> u64 {
    let proposals = [propose(shard, head, &vec![b'x'; bytes])];
    match block_on(log.append(&proposals, Durability::Synced)).unwrap() {
        Append::Appended(positions) => positions[0],
        Append::Conflict(shards) => panic!("conflict on {shards:?}"),
    }
}

fn save(log: &PostgresLog, shard: ShardId, head: u64, parts: &[&str]) {
    let mut saving = log.save(shard, head);
    for part in parts {
        block_on(saving.add(Bytes::copy_from_slice(part.as_bytes()))).unwrap();
    }
    block_on(saving.finish()).unwrap();
}

fn tables(cluster: &Cluster, schema: &str) -> Vec<String> {
    let sql = format!(
        "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
         WHERE nspname = '{schema}' AND relkind = 'p' AND relname LIKE 'log\\_%' ORDER BY relname"
    );
    cluster.sql("postgres", &sql).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn pieces_are_single_tables_where_the_database_spreads_them_and_go_the_same_way() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        // All that is asked of the extension is whether it is there.
        let citus = "SET allow_system_table_mods = on; \
                     INSERT INTO pg_extension SELECT 99999, 'citus', 10, 11, false, '1'";
        cluster.sql("postgres", citus).unwrap();
        let log = open_log(&config(&cluster, "s"));
        log.settle();
        let plain = "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
             WHERE nspname = 's' AND relkind = 'r' AND relname LIKE 'log\\_%' ORDER BY relname";
        assert_eq!(cluster.sql("postgres", plain).unwrap(), "log_0\nlog_1");
        assert_eq!(tables(&cluster, "s"), Vec::<String>::new());
        let entry = [propose(1, 0, b"entry")];
        let Append::Appended(at) = block_on(log.append(&entry, Durability::Synced)).unwrap() else {
            panic!("conflict")
        };
        assert_eq!(log.body(1, Extent { position: at[0], len: 5 }).unwrap(), "entry");
    });
}

#[test]
fn a_piece_goes_when_all_let_go_and_checkpoints_cover_it_and_its_table_with_it() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let log = open_log(&config(&cluster, "s"));
        log.settle();
        assert_eq!(log.front(), None);
        append(&log, 2, 0, 300);
        let last = append(&log, 0, 0, 3_000);
        log.settle();
        let front = log.front().unwrap();
        assert_eq!((front.oldest_bytes, front.old_bytes), (3_300, 3_300));
        assert_eq!(front.oldest_ends, [last + 3_000, 0, 300, 0, 0]);
        append(&log, 0, 1, 100);
        for shard in 0..5 {
            log.truncate_before(shard, front.oldest_ends[usize::from(shard)]).unwrap();
        }
        save(&log, 0, 2, &["of 0"]);
        log.settle();
        assert_eq!(log.bounds().start, 0, "no checkpoint covers shard 2");
        save(&log, 2, 1, &["of 2"]);
        log.settle();
        assert_eq!(log.bounds().start, 3_300);
        assert_eq!(tables(&cluster, "s"), ["log_1", "log_2"]);
        assert_eq!(block_on(log.read(0, 1, 9)).unwrap().len(), 1);
        assert_eq!(block_on(log.read(0, 0, 9)), Err(ReadError::TooOld(0)));
        assert_eq!(block_on(log.heads(5)).unwrap(), [2, 0, 1, 0, 0]);
    });
}

#[test]
fn an_open_transaction_does_not_keep_anybody_from_appending_while_a_piece_goes() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let log = open_log(&config(&cluster, "s"));
        append(&log, 0, 0, 3_000);
        log.settle();
        save(&log, 0, 1, &["of 0"]);
        // As a dump of the database does, for as long as it takes.
        let dump = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM s.log; \
                    SELECT pg_sleep(4)";
        std::thread::scope(|scope| {
            let dumping = scope.spawn(|| cluster.sql("postgres", dump).unwrap());
            await_that("the dump's lock", || {
                let locks = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
                cluster.sql("postgres", locks).unwrap() == "1"
            });
            log.truncate_before(0, 3_000).unwrap();
            let dropping = scope.spawn(|| log.round());
            let mut head = 1;
            while !dumping.is_finished() {
                let began = Instant::now();
                append(&log, 0, head, 10);
                head += 1;
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
                assert_eq!(block_on(log.read(0, head - 1, 9)).unwrap().len(), 1);
            }
            assert!(head > 20);
            // Whether it came through or gave up does not matter yet.
            let _ = dropping.join().unwrap();
        });
        await_that("the table's end", || {
            let _ = log.round();
            tables(&cluster, "s").first().is_some_and(|oldest| oldest != "log_0")
        });
    });
}

#[test]
fn the_newest_whole_checkpoint_counts_and_parts_come_back_in_order() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let log = open_log(&config(&cluster, "s"));
        assert_eq!(block_on(log.kept()).unwrap(), []);
        save(&log, 3, 7, &["a", "", "c"]);
        let kept = block_on(log.kept()).unwrap()[0];
        assert_eq!((kept.shard, kept.head, kept.parts, kept.bytes), (3, 7, 3, 2));
        let part = |kept, number| block_on(log.part(kept, number));
        assert_eq!(
            [part(kept, 0), part(kept, 1), part(kept, 2)].map(Result::unwrap),
            ["a", "", "c"]
        );
        // One that is older than what is kept changes nothing, and one that is not finished neither.
        save(&log, 3, 6, &["old"]);
        let mut unfinished = log.save(3, 9);
        block_on(unfinished.add(Bytes::from_static(b"half"))).unwrap();
        drop(unfinished);
        assert_eq!(block_on(log.kept()).unwrap(), [kept]);
        // And one of more parts than are taken away at a time.
        save(&log, 3, 7, &["x"; 150]);
        save(&log, 3, 8, &["new"]);
        let newer = block_on(log.kept()).unwrap()[0];
        assert_eq!((newer.head, part(newer, 0).unwrap()), (8, Bytes::from_static(b"new")));
        assert_eq!(part(kept, 0), Err(ReadError::TooOld(0)));
        let left = cluster.sql("postgres", "SELECT count(*) FROM s.checkpoint_parts").unwrap();
        assert_eq!(left, "1", "parts of others were left behind");
    });
}

#[test]
fn a_checkpoint_is_due_when_the_log_has_outgrown_its_price() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let log = open_log(&config(&cluster, "s"));
    assert!(!log.is_due(0, 1), "nobody is the keeper yet");
    log.settle();
    append(&log, 0, 0, 1_000);
    assert!(!log.is_due(0, 1), "a small log is no reason");
    append(&log, 0, 1, 70_000);
    assert!(log.is_due(0, 2) && !log.is_due(1, 0), "nothing to say of shard 1");
    save(&log, 0, 2, &["x"]);
    assert!(!log.is_due(0, 2) && !log.is_due(0, 3));
    // Shard 1 has little to say, but in the end it holds everybody's oldest piece.
    append(&log, 1, 0, 10);
    assert!(!log.is_due(1, 1));
    append(&log, 0, 2, 400_000);
    assert!(log.is_due(1, 1));
    // A large checkpoint waits until the log has grown by four times as much.
    save(&log, 0, 3, &[&"x".repeat(1 << 20)]);
    append(&log, 0, 3, 4_000_000);
    assert!(!log.is_due(0, 4));
    append(&log, 0, 4, 300_000);
    assert!(log.is_due(0, 5));
}
