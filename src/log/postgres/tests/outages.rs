//! What happens to appends and reads when the database is killed, frozen or away.

use super::*;
use crate::log::contract::{block_on, propose};
use crate::log::postgres::session::Session;

fn append(log: &PostgresLog, head: u64) -> Result<Append, AppendError> {
    block_on(
        log.append(&[propose(0, head, b"entry"), propose(1, head, b"entry")], Durability::Synced),
    )
}

#[test]
fn a_killed_server_is_noticed_at_once_and_comes_back_by_itself() {
    on_every_major(|installation| {
        let mut cluster = Cluster::start(installation).unwrap();
        let log = open_log(&config(&cluster, "s"));
        append(&log, 0).unwrap();
        assert_eq!(log.health(), Ok(()));
        cluster.kill();
        let began = Instant::now();
        await_that("the end of the connection", || log.health().is_err());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // Nothing is sent any more, so it is known that nothing stands, and nobody waits.
        let began = Instant::now();
        assert!(matches!(append(&log, 1), Err(AppendError::Unavailable(_))));
        assert!(matches!(block_on(log.heads(5)), Err(ReadError::Unavailable(_))));
        let body = log.body(0, Extent { position: 0, len: 1 });
        assert!(matches!(body, Err(ReadError::Unavailable(_))), "{body:?}");
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        cluster.start_again().unwrap();
        await_that("the database", || log.health().is_ok() && block_on(log.heads(5)).is_ok());
        assert_eq!(block_on(log.heads(5)).unwrap(), [1, 1, 0, 0, 0]);
        assert!(matches!(append(&log, 1), Ok(Append::Appended(_))));
    });
}

/// Appends until one fails; returns how many stood, and why the last did not.
fn append_until_it_fails(log: &PostgresLog) -> (u64, AppendError) {
    let mut head = 0;
    loop {
        match append(log, head) {
            Ok(Append::Appended(_)) => head += 1,
            Ok(Append::Conflict(shards)) => panic!("conflict on {shards:?} at {head}"),
            Err(error) => return (head, error),
        }
    }
}

#[test]
fn an_append_under_way_when_the_server_dies_is_never_called_failed_if_it_stands() {
    on_every_major(|installation| {
        let mut cluster = Cluster::start(installation).unwrap();
        let mut unknown = 0;
        for round in 0..20 {
            if unknown > 1 {
                break;
            }
            let config = config(&cluster, &format!("round_{round}"));
            let log = open_log(&config);
            let (stood, error) = std::thread::scope(|scope| {
                let appending = scope.spawn(|| append_until_it_fails(&log));
                std::thread::sleep(Duration::from_millis(150 + 37 * round));
                cluster.kill_all();
                appending.join().unwrap()
            });
            cluster.start_again().unwrap();
            let found = block_on(open_log(&config).heads(5)).unwrap();
            assert_eq!(found[0], found[1], "an append stands in part");
            match error {
                AppendError::OutcomeUnknown => {
                    unknown += 1;
                    assert!(found[0] == stood || found[0] == stood + 1, "{found:?} {stood}");
                }
                AppendError::Unavailable(_) => assert_eq!(found[0], stood),
                other => panic!("{other}"),
            }
        }
        assert!(unknown > 0, "no append was under way in any round");
    });
}

#[test]
fn a_frozen_server_is_given_up_within_the_deadline_and_the_outcome_is_unknown() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let limit = Duration::from_millis(1_500);
        let config =
            PostgresConfig { append_timeout: limit, read_timeout: limit, ..config(&cluster, "s") };
        let log = open_log(&config);
        append(&log, 0).unwrap();
        cluster.freeze();
        let began = Instant::now();
        assert_eq!(append(&log, 1), Err(AppendError::OutcomeUnknown));
        assert!(began.elapsed() < limit + Duration::from_secs(1), "{:?}", began.elapsed());
        let read = block_on(log.read(0, 0, 9));
        assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
        // It is known by now; the next ones do not wait.
        let began = Instant::now();
        assert!(matches!(append(&log, 1), Err(AppendError::Unavailable(_))));
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        cluster.thaw();
        await_that("the database", || block_on(log.heads(5)).is_ok() && log.health().is_ok());
        // The append was sent, so it may arrive after all; then the same entry is not added again.
        let again = append(&log, 1).unwrap();
        let stands = matches!(again, Append::Appended(_)) || again == Append::Conflict(vec![0, 1]);
        assert!(stands, "{again:?}");
        assert_eq!(block_on(log.heads(5)).unwrap(), [2, 2, 0, 0, 0]);
    });
}

#[test]
fn a_row_that_another_engine_holds_is_waited_for_no_longer_than_the_lock_timeout() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let lock_timeout = Duration::from_millis(300);
        let log = open_log(&PostgresConfig { lock_timeout, ..config(&cluster, "s") });
        std::thread::scope(|scope| {
            let hold = "BEGIN; UPDATE s.heads SET head = head WHERE shard = 1; SELECT pg_sleep(2)";
            let holding = scope.spawn(|| cluster.sql("postgres", hold).unwrap());
            await_that("the lock", || {
                let locks = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
                cluster.sql("postgres", locks).unwrap() == "1"
            });
            let began = Instant::now();
            let refused = append(&log, 0);
            // The server's own word: it does not stand.
            assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            holding.join().unwrap();
        });
        assert!(matches!(append(&log, 0), Ok(Append::Appended(_))));
    });
}

#[test]
fn an_append_that_others_hold_up_ends_when_its_time_is_over_however_long_each_look_takes() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let config = PostgresConfig { append_timeout: Duration::from_secs(2), ..config(&cluster, "s") };
    let log = open_log(&config);
    // It is somebody else's turn for ever, and each look at that waits for a lock.
    let turn = "UPDATE s.heads SET turn_of = 7, turn_until = 'infinity' WHERE shard = 1";
    cluster.sql("postgres", turn).unwrap();
    let hold = "DO $$ BEGIN FOR round IN 1..40 LOOP \
                    PERFORM FROM s.heads WHERE shard = 1 FOR UPDATE; \
                    PERFORM pg_sleep(0.4); COMMIT; \
                END LOOP; END $$";
    std::thread::scope(|scope| {
        let holding = scope.spawn(|| cluster.sql("postgres", hold).unwrap());
        await_that("the lock", || {
            let locks = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            cluster.sql("postgres", locks).unwrap() == "1"
        });
        let refused = append(&log, 0);
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        assert!(!holding.is_finished(), "it went on until nobody held it up any more");
        holding.join().unwrap();
    });
}

#[test]
fn a_connection_that_is_missing_is_passed_by() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        cluster.sql("postgres", "CREATE ROLE app LOGIN").unwrap();
        cluster.sql("postgres", "GRANT CREATE ON DATABASE postgres TO app").unwrap();
        let url = cluster.url("postgres").replace("postgres@", "app@");
        let database = Database::parse(&url).unwrap();
        let log = open_log(&PostgresConfig { database, ..config(&cluster, "s") });
        // No new connection is let in, as where all places are taken.
        cluster.sql("postgres", "ALTER ROLE app NOLOGIN").unwrap();
        let pid = |session: &Session| {
            let asking = session.client.query_one("SELECT pg_backend_pid()", &[]);
            block_on(asking).unwrap().get::<_, i32>(0)
        };
        for (head, missing) in (0..).zip(&log.shared.writers[..shared::LINES - 1]) {
            let pid = pid(&missing.session().unwrap());
            cluster.sql("postgres", &format!("SELECT pg_terminate_backend({pid})")).unwrap();
            await_that("the connection's end", || missing.session().is_err());
            assert!(matches!(append(&log, head), Ok(Append::Appended(_))), "{head}");
        }
        let last = &log.shared.writers[shared::LINES - 1];
        let pid = pid(&last.session().unwrap());
        cluster.sql("postgres", &format!("SELECT pg_terminate_backend({pid})")).unwrap();
        await_that("the connection's end", || last.session().is_err());
        assert!(!log.is_reachable());
        let reason = append(&log, 7).unwrap_err();
        assert!(matches!(&reason, AppendError::Unavailable(_)), "{reason:?}");
        cluster.sql("postgres", "ALTER ROLE app LOGIN").unwrap();
        await_that("the database", || matches!(append(&log, 7), Ok(Append::Appended(_))));
    });
}

#[test]
fn a_database_that_forgot_entries_or_has_others_is_not_used_again() {
    on_every_major(|installation| {
        let mut cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let log = open_log(&config);
        for head in 0..3 {
            append(&log, head).unwrap();
        }
        let other = open_log(&config);
        // As a standby has it that lagged by one when it took over.
        let back = "DELETE FROM s.log WHERE head = 2; UPDATE s.heads SET head = 2 WHERE head = 3";
        cluster.sql("postgres", back).unwrap();
        cluster.stop(onrush_pgharness::Stop::Fast);
        cluster.start_again().unwrap();
        let says = |word: &str| log.health().is_err_and(|reason| reason.contains(word));
        await_that("its refusal", || says("taken back"));
        assert!(matches!(append(&log, 3), Err(AppendError::Unavailable(_))));
        assert!(matches!(block_on(log.heads(5)), Err(ReadError::Unavailable(_))));
        // Somebody who saw nothing of what is gone goes on; the gap closes with another history.
        await_that("the database", || other.health().is_ok());
        let entry = |shard| propose(shard, 2, b"other");
        let appended = block_on(other.append(&[entry(0), entry(1)], Durability::Synced));
        assert!(matches!(appended, Ok(Append::Appended(_))), "{appended:?}");
        await_that("its refusal", || says("another history"));
        assert!(matches!(append(&log, 3), Err(AppendError::Unavailable(_))));
        assert!(matches!(append(&other, 3), Ok(Append::Appended(_))));
    });
}
