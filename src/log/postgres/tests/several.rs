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
                log.shared.is_keeper()
            })
        };
        assert_eq!(keepers().count(), 1);
        assert_eq!(opened.iter().filter(|(log, _)| log.front().is_some()).count(), 0);
    });
}

#[test]
fn an_engine_that_is_paused_does_not_stay_the_keeper() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        // It has a round only when it is told to, so it says nothing between: as one that is paused.
        let idle_timeout = Duration::from_millis(500);
        let paused = PostgresConfig { idle_timeout, ..config(&cluster, "s") };
        let (paused, other) = (open_log(&paused), open_log(&config(&cluster, "s")));
        paused.settle();
        assert!(paused.shared.is_keeper());
        other.settle();
        assert!(other.shared.is_keeper() && !paused.shared.is_keeper());
        await_that("its connection", || paused.round().is_ok());
        assert!(!paused.shared.is_keeper(), "the lock is taken");
    });
}

#[test]
fn what_relies_on_a_shard_that_others_changed_is_refused_for_it() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let (a, b) = (open_log(&config), open_log(&config));
        let relying = |shard, head, on| {
            let mut proposal = propose(shard, head, b"relies");
            proposal.relies_on = Some(on);
            proposal
        };
        append(&a, &[propose(4, 0, b"of a")]);
        let stale = [relying(1, 0, (4, 0)), propose(2, 0, b"goes with it")];
        assert_eq!(append(&b, &stale), Append::Conflict(vec![4]));
        assert_eq!(append(&b, &stale[..1]), Append::Conflict(vec![4]));
        assert_eq!(block_on(b.heads(5)).unwrap(), [0, 0, 0, 0, 1]);
        let fresh = [relying(1, 0, (4, 1)), relying(2, 0, (4, 1))];
        assert!(matches!(append(&b, &fresh), Append::Appended(_)));
        // What it relies on may be changed by the same append.
        let both = [relying(1, 1, (4, 1)), propose(4, 1, b"of b")];
        assert!(matches!(append(&b, &both), Append::Appended(_)));
        assert_eq!(append(&a, &[relying(1, 0, (4, 0))]), Append::Conflict(vec![1, 4]));
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
                            match block_on(log.append(&all, Durability::Synced)) {
                                Ok(Append::Appended(_)) => break,
                                Ok(Append::Conflict(_)) => {
                                    conflicts.fetch_add(1, Ordering::Relaxed);
                                }
                                // Somebody's commit took long on a busy disk; a ring says 40P01.
                                Err(AppendError::Unavailable(why)) if why.contains("55P03") => {}
                                Err(error) => panic!("{error}"),
                            }
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

#[test]
fn an_engine_that_takes_its_time_comes_to_its_turn_beside_one_that_never_rests() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let (hasty, slow) = (open_log(&config), open_log(&config));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let every = |heads: &[u64]| -> Vec<Proposal> {
            (0..5).map(|it| propose(it as ShardId, heads[it], b"entry")).collect()
        };
        let (mut by_hasty, mut tries) = (0, 0);
        std::thread::scope(|scope| {
            let hammering = scope.spawn(|| {
                let mut count = 0;
                let mut heads = block_on(hasty.heads(5)).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    // Who has won knows the heads, and loses no time.
                    match block_on(hasty.append(&every(&heads), Durability::Synced)).unwrap() {
                        Append::Appended(_) => {
                            count += 1;
                            heads.iter_mut().for_each(|head| *head += 1);
                        }
                        Append::Conflict(_) => heads = block_on(hasty.heads(5)).unwrap(),
                    }
                }
                count
            });
            for _ in 0..30 {
                loop {
                    tries += 1;
                    let heads = block_on(slow.heads(5)).unwrap();
                    // Far longer than an append of the other one takes.
                    std::thread::sleep(Duration::from_millis(30));
                    let asked = every(&heads);
                    let appended = block_on(slow.append(&asked, Durability::Synced)).unwrap();
                    if matches!(appended, Append::Appended(_)) {
                        break;
                    }
                }
            }
            is_over.store(true, Ordering::Relaxed);
            by_hasty = hammering.join().unwrap();
        });
        // Lost twice, then its turn.
        assert!(tries <= 30 * 4, "{tries} tries");
        assert!(by_hasty >= 30, "{by_hasty}");
        assert_eq!(block_on(slow.heads(5)).unwrap(), [30 + by_hasty; 5]);
    });
}

#[test]
fn a_turn_that_is_not_used_or_whose_engine_is_gone_holds_nobody_up_for_long() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let config = config(&cluster, "s");
    let (one, other) = (open_log(&config), open_log(&config));
    // It loses until it has the turn of all shards, and then has nothing to say.
    let stale = [0, 1, 2].map(|shard| propose(shard, 7, b"stale"));
    for _ in 0..3 {
        let lost = block_on(one.append(&stale, Durability::Synced)).unwrap();
        assert_eq!(lost, Append::Conflict(vec![0, 1, 2]));
    }
    // Over a connection that is there: a turn is short.
    let turns = || -> i64 {
        let session = other.shared.upkeep.session().unwrap();
        let asked = "SELECT count(*) FROM heads WHERE turn_until > clock_timestamp()";
        block_on(session.client.query_one(asked, &[])).unwrap().get(0)
    };
    assert_eq!(turns(), 3);
    let began = Instant::now();
    let appended = block_on(other.append(&[propose(1, 0, b"other")], Durability::Synced)).unwrap();
    assert!(matches!(appended, Append::Appended(_)), "{appended:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // What is left of a turn when its engine appends elsewhere is passed on at once.
    for _ in 0..3 {
        let _ = block_on(one.append(&stale, Durability::Synced)).unwrap();
    }
    assert_eq!(turns(), 3);
    block_on(one.append(&[propose(4, 0, b"elsewhere")], Durability::Synced)).unwrap();
    await_that("the turns' end", || turns() == 0);
}
