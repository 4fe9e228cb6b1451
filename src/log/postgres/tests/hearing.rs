//! Engines hear of each other's appends without asking, and not of their own.

use super::*;
use crate::log::contract::{block_on, propose};

/// Counts how often a log is told of news.
fn counted(log: &PostgresLog) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    log.on_news(Box::new(move || {
        counting.fetch_add(1, Ordering::Relaxed);
    }));
    count
}

#[test]
fn an_append_is_heard_by_the_other_engine_and_by_no_engine_of_another_store() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let logs = [0; 2].map(|_| open_log(&config(&cluster, "s")));
        let stranger = open_log(&config(&cluster, "other"));
        await_that("hearing", || logs.iter().all(PostgresLog::hears_news));
        let [own, heard, strange] = [&logs[0], &logs[1], &stranger].map(counted);
        // The second one has heard that the first one is there, or the other way round; both count.
        let has_others = |log: &PostgresLog| log.shared.news.has_others();
        await_that("each other", || logs.iter().all(has_others));
        let before = own.load(Ordering::Relaxed);
        let mut head = 0;
        while heard.load(Ordering::Relaxed) == 0 || head < 5 {
            assert!(head < 1_000, "nothing is heard");
            block_on(logs[0].append(&[propose(1, head, b"x")], Durability::Synced)).unwrap();
            head += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(own.load(Ordering::Relaxed), before, "its own news are none");
        assert_eq!(strange.load(Ordering::Relaxed), 0);
        assert!(!has_others(&stranger));
        // And again after the connections broke.
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name LIKE '%ears'";
        cluster.sql("postgres", cut).unwrap();
        let heard_before = heard.load(Ordering::Relaxed);
        await_that("hearing again", || {
            block_on(logs[0].append(&[propose(1, head, b"x")], Durability::Synced)).unwrap();
            head += 1;
            heard.load(Ordering::Relaxed) > heard_before && logs.iter().all(PostgresLog::hears_news)
        });
    });
}
