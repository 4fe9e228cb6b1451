//! Several engines on one schema: they start together, and of two who expect one head one wins.

use super::*;
use crate::log::contract::{block_on, propose};

#[test]
fn engines_that_start_at_once_share_one_store() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let opened: Vec<(PostgresLog, Loaded)> = std::thread::scope(|scope| {
            let open = || PostgresLog::open(config.clone(), &newcomer()).unwrap();
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let created = opened.iter().filter(|(_, loaded)| matches!(loaded, Loaded::Created(_)));
        assert_eq!(created.count(), 1);
        let first = opened[0].1.identity();
        assert!(opened.iter().all(|(_, loaded)| loaded.identity() == first));
        let keepers = || {
            opened.iter().filter(|(log, _)| {
                log.round().unwrap();
                log.shared.is_keeper.load(Ordering::Acquire)
            })
        };
        assert_eq!(keepers().count(), 1);
        assert_eq!(opened.iter().filter(|(log, _)| log.front().is_some()).count(), 0);
    });
}

#[test]
fn appends_of_several_engines_to_many_shards_never_wait_in_a_ring_and_all_stand_once() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let logs = [0; 3].map(|_| open_log(&config));
        let conflicts = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for (engine, log) in logs.iter().enumerate() {
                let conflicts = &conflicts;
                scope.spawn(move || {
                    for number in 0..60 {
                        let text = format!("{engine} {number}");
                        loop {
                            let heads = block_on(log.heads(5)).unwrap();
                            // Each in an order of its own; the log must not care.
                            let all = (0..5).map(|at| (at + engine) % 5);
                            let all: Vec<Proposal> = all
                                .map(|it| propose(it as ShardId, heads[it], text.as_bytes()))
                                .collect();
                            match block_on(log.append(&all, Durability::Synced)).unwrap() {
                                Append::Appended(_) => break,
                                Append::Conflict(_) => conflicts.fetch_add(1, Ordering::Relaxed),
                            };
                        }
                    }
                });
            }
        });
        assert!(conflicts.load(Ordering::Relaxed) > 0, "they never met");
        let texts = |shard| -> Vec<Bytes> {
            let entries = block_on(logs[0].read(shard, 0, usize::MAX)).unwrap();
            entries.into_iter().map(|entry| entry.bytes).collect()
        };
        let mut all = texts(0);
        assert!((1..5).all(|shard| texts(shard) == all), "an append stands in part");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 180);
    });
}

#[test]
fn what_one_engine_appends_the_other_reads_at_the_same_positions() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let (a, b) = (open_log(&config), open_log(&config));
        a.settle();
        let mut positions = Vec::new();
        for head in 0..20 {
            let one = [propose(1, head, format!("entry {head} {}", "-".repeat(900)).as_bytes())];
            match block_on(a.append(&one, Durability::Synced)).unwrap() {
                Append::Appended(at) => positions.extend(at),
                Append::Conflict(shards) => panic!("conflict on {shards:?}"),
            }
            // The other one has never heard of these pieces.
            a.round().unwrap();
        }
        let pieces = cluster.sql("postgres", "SELECT max(piece) FROM s.pieces").unwrap();
        assert!(pieces.parse::<u32>().unwrap() > 3, "{pieces}");
        let read = block_on(b.read(1, 0, usize::MAX)).unwrap();
        let read: Vec<u64> = read.iter().map(|entry| entry.position).collect();
        assert_eq!(read, positions);
        let c = open_log(&config);
        for (head, position) in positions.iter().enumerate() {
            let extent = Extent { position: position + 6, len: 2 };
            let body = c.body(1, extent).unwrap();
            assert!(body.starts_with(head.to_string().as_bytes()), "{head}: {body:?}");
            assert_eq!(b.body(1, extent).unwrap(), body);
            assert!(c.is_near(1, *position));
        }
    });
}
