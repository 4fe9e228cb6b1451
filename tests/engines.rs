//! Several engines on one log that lies by seed: what one acknowledges the other keeps, an id stands
//! once whoever was asked, and a consumer of one engine is woken by a push through the other.
//!
//! `SEEDS` sets how many seeds, `SEED` runs one alone; `MESSAGES` how many messages each producer sends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: a panic is how it fails, and it names its seed"
)]

#[path = "engines/cluster.rs"]
mod cluster;
#[path = "support/engine.rs"]
mod engine;
#[path = "simulated/history.rs"]
mod history;
#[path = "support/seeds.rs"]
mod seeds;
#[path = "simulated/station.rs"]
mod station;
#[path = "simulated/transcript.rs"]
mod transcript;
#[path = "engines/transfers.rs"]
mod transfers;
#[path = "engines/workload.rs"]
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onrush::base::clock::ManualClock;
use onrush::log::simulated::{Fault, Faults};
use onrush::shard::command::Asked;
use onrush::state::draft::pop::PopBudget;
use onrush_protocol::options::QueueOptions;
use onrush_protocol::qos::Qos;

use cluster::Cluster;
use seeds::{number, runtime, seeds};
use station::{Ask, QUEUE, Sent};
use workload::Workload;

#[test]
fn engines_that_share_a_lying_log_keep_every_promise() {
    let mut struck = onrush::log::simulated::Struck::default();
    for seed in seeds(6) {
        println!("seed {seed}");
        let cluster = Cluster::start(seed, 2);
        cluster.log.set_faults(Faults {
            unavailable_per_mille: 20,
            answer_lost_per_mille: 40,
            request_lost_per_mille: 20,
            late_per_mille: 20,
            disk_full_per_mille: 5,
            read_unavailable_per_mille: 30,
            yields_max: 3,
        });
        let workload = Arc::new(Workload::new(seed, cluster, number("MESSAGES", 60)));
        runtime().block_on(Arc::clone(&workload).run());
        let seen = workload.check();
        struck.conflicts += seen.conflicts;
        struck.unavailable += seen.unavailable;
        struck.answers_lost += seen.answers_lost;
        struck.requests_lost += seen.requests_lost;
        struck.late += seen.late;
    }
    // A proof that saw no fault proves nothing.
    assert!(struck.conflicts > 0 && struck.unavailable > 0, "{struck:?}");
    assert!(struck.answers_lost > 0 && struck.requests_lost > 0 && struck.late > 0, "{struck:?}");
}

#[test]
fn a_consumer_that_waits_at_one_engine_is_woken_by_a_push_through_the_other() {
    runtime().block_on(async {
        let cluster = Cluster::start(1, 2);
        let (a, b) = (&cluster.stations[0], &cluster.stations[1]);
        // Both the queue and the group are unknown to the engine that waits.
        for round in 0..3 {
            let ask = Ask { wait_ms: 20_000, ..Ask::of("g", 10) };
            let (popped, pushed) = tokio::join!(b.pop(&ask), async {
                let payload = format!("m{round}");
                a.push("p", Qos::AtLeastOnce, &[(None, payload)]).await
            });
            assert!(matches!(pushed, Sent::Stored(..)), "{pushed:?}");
            let got = history::messages(&popped.unwrap());
            assert_eq!(got.len(), 1, "round {round}");
            assert_eq!(got[0].2, format!("m{round}"));
            let all = onrush::state::draft::ack::AckItem {
                first: got[0].1,
                last: got[0].1,
                verdict: onrush::state::draft::ack::Verdict::Completed,
                error: "".into(),
            };
            // Through the engine that did not hand it out.
            let acked = a.ack("g", None, vec![(got[0].0, all)]).await.unwrap();
            assert_eq!(acked[0].as_ref().unwrap().settled, 1);
        }
        cluster.stop().await;
    });
}

#[test]
fn a_pop_that_begins_after_a_push_was_answered_finds_it_at_any_engine() {
    runtime().block_on(async {
        let cluster = Cluster::start(2, 2);
        let (a, b) = (&cluster.stations[0], &cluster.stations[1]);
        for round in 0..20 {
            let (from, to) = if round % 2 == 0 { (a, b) } else { (b, a) };
            let partition = format!("p{}", round % 5);
            let pushed =
                from.push(&partition, Qos::AtLeastOnce, &[(None, format!("m{round}"))]).await;
            assert!(matches!(pushed, Sent::Stored(..)), "{pushed:?}");
            let ask = Ask { auto_ack: true, ..Ask::of("g", 10) };
            let got = history::messages(&to.pop(&ask).await.unwrap());
            assert_eq!(got.len(), 1, "round {round}");
        }
        cluster.stop().await;
    });
}

#[test]
fn an_append_whose_answer_is_lost_stands_once_and_is_answered() {
    runtime().block_on(async {
        let cluster = Cluster::start(3, 2);
        let (a, b) = (&cluster.stations[0], &cluster.stations[1]);
        assert!(matches!(
            a.push("p", Qos::AtLeastOnce, &[(None, "first".into())]).await,
            Sent::Stored(..)
        ));
        for (round, fault) in
            [Fault::AnswerLost, Fault::RequestLost, Fault::Late].into_iter().enumerate()
        {
            // Without an id, so that nothing but the engine's care keeps it from standing twice; and
            // the log cannot be read for a while, just when it would tell.
            cluster.log.script(fault);
            cluster.log.set_faults(Faults { read_unavailable_per_mille: 600, ..Faults::default() });
            let payload = format!("m{round}");
            let sent = a.push("p", Qos::AtLeastOnce, &[(None, payload)]).await;
            assert!(matches!(sent, Sent::Stored(..)), "{sent:?}");
            cluster.log.set_faults(Faults::default());
        }
        let got = history::messages(&b.pop(&Ask::of("g", 10)).await.unwrap());
        let payloads: Vec<&str> = got.iter().map(|it| it.2.as_str()).collect();
        assert_eq!(payloads, ["first", "m0", "m1", "m2"]);
        cluster.stop().await;
    });
}

#[test]
fn stopping_ends_though_the_log_is_gone() {
    runtime().block_on(async {
        let cluster = Cluster::start(4, 1);
        let station = &cluster.stations[0];
        let sent = station.push("p", Qos::AtLeastOnce, &[(None, "kept".into())]).await;
        assert!(matches!(sent, Sent::Stored(..)));
        cluster.log.set_disk_full(true);
        let buffered = station.push("p", Qos::Buffered, &[(None, "lost".into())]).await;
        assert!(matches!(buffered, Sent::Buffered));
        let began = Instant::now();
        station.stop().await;
        assert!(began.elapsed() < Duration::from_secs(20));
        // Lost, and not silently.
        assert_eq!(station.telemetry.buffered_lost.get(), 1);
        // Whoever asks now is told, and does not wait for ever.
        assert!(station.pop(&Ask::of("g", 1)).await.is_err());
    });
}

#[test]
fn an_engine_that_joins_later_knows_everything() {
    runtime().block_on(async {
        let cluster = Cluster::start(5, 1);
        let first = &cluster.stations[0];
        for number in 0..30 {
            let partition = format!("p{}", number % 7);
            let records = [(Some(format!("id{number}")), format!("m{number}"))];
            let sent = first.push(&partition, Qos::ExactlyOnce, &records).await;
            assert!(matches!(sent, Sent::Stored(..)), "{sent:?}");
        }
        let half = history::messages(&first.pop(&Ask::of("g", 10)).await.unwrap());
        let late = cluster.join(9);
        let again = [(Some("id3".to_owned()), "m3 again".to_owned())];
        let Sent::Stored(_, outcomes) = late.push("p3", Qos::ExactlyOnce, &again).await else {
            panic!("not stored");
        };
        assert_eq!(outcomes, [(0, true)]);
        // All but what the first one's consumer holds.
        let ask = Ask {
            budget: PopBudget { messages: 100, bytes: 1 << 20, partitions: 100 },
            ..Ask::of("g", 1)
        };
        let rest = history::messages(&late.pop(&ask).await.unwrap());
        let mut all: Vec<String> = half.into_iter().chain(rest).map(|it| it.2).collect();
        all.sort();
        let held = all.len();
        all.dedup();
        assert_eq!(held, all.len(), "something was handed out twice");
        // The rest of the partitions that the first pop did not empty stays behind its lease.
        assert!(held >= 20, "{all:?}");
        late.stop().await;
        cluster.stop().await;
    });
}

#[test]
fn a_queue_that_one_engine_deletes_is_gone_at_the_other() {
    runtime().block_on(async {
        let cluster = Cluster::start(6, 2);
        let (a, b) = (&cluster.stations[0], &cluster.stations[1]);
        for round in 0..10 {
            let old = [(Some("same id".to_owned()), format!("old {round}"))];
            assert!(matches!(a.push("p", Qos::ExactlyOnce, &old).await, Sent::Stored(..)));
            let ask = Ask { auto_ack: true, ..Ask::of("g", 10) };
            assert_eq!(history::messages(&a.pop(&ask).await.unwrap()).len(), 1);
            assert!(b.catalogs.delete(&station::QUEUE.parse().unwrap()).await.unwrap());
            // A queue of that name is another one: it knows nothing of the old one's ids.
            let new = [(Some("same id".to_owned()), format!("new {round}"))];
            let Sent::Stored(_, outcomes) = b.push("p", Qos::ExactlyOnce, &new).await else {
                panic!("not stored");
            };
            assert_eq!(outcomes, [(0, false)]);
            let got = history::messages(&a.pop(&ask).await.unwrap());
            assert_eq!(got.len(), 1, "round {round}");
            assert_eq!(got[0].2, format!("new {round}"));
            assert!(a.catalogs.delete(&station::QUEUE.parse().unwrap()).await.unwrap());
        }
        cluster.stop().await;
    });
}

#[test]
fn a_lease_runs_out_though_the_wall_clock_was_set_back_by_years() {
    const YEARS_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
    runtime().block_on(async {
        let clock = ManualClock::new(1_000_000);
        let cluster = Cluster::start_by(Arc::new(clock.clone()), 7, 1);
        let station = &cluster.stations[0];
        clock.set_ms(1_000_000 + YEARS_MS);
        let sent = station.push("p", Qos::AtLeastOnce, &[(None, "m".into())]).await;
        assert!(matches!(sent, Sent::Stored(..)));
        let held = history::messages(&station.pop(&Ask::of("g", 1)).await.unwrap());
        assert_eq!(held.len(), 1);
        // Somebody noticed that the clock was wrong.
        clock.set_ms(1_001_000);
        let none = history::messages(&station.pop(&Ask::of("g", 1)).await.unwrap());
        assert_eq!(none.len(), 0);
        clock.advance_monotonic_us(301_000);
        station.engine.buffers().bell().ring();
        let mut got = Vec::new();
        // The commit that ends the lease is the one before that which finds the message.
        for _ in 0..100 {
            got = history::messages(&station.pop(&Ask::of("g", 1)).await.unwrap());
            if !got.is_empty() {
                break;
            }
        }
        assert_eq!(got, held);
        cluster.stop().await;
    });
}

#[test]
fn a_queue_with_a_limit_takes_no_more_than_that_however_fast_it_is_pushed_into() {
    const LIMIT: u64 = 400;
    runtime().block_on(async {
        let cluster = Arc::new(Cluster::start(9, 1));
        let station = &cluster.stations[0];
        let options = QueueOptions { max_size: LIMIT, ..QueueOptions::default() };
        let asked = Asked { options, ..Asked::default() };
        station.catalogs.configure(&QUEUE.parse().unwrap(), "", "", asked).await.unwrap();
        let auto_ack = Ask { auto_ack: true, ..Ask::of("g", 1_000) };
        for round in 1..=20 {
            let taken = Arc::new(AtomicU64::new(0));
            let pushers = (0..2).map(|pusher| {
                let (cluster, taken) = (Arc::clone(&cluster), Arc::clone(&taken));
                tokio::spawn(async move {
                    let station = &cluster.stations[0];
                    // All the time while commits turn what is buffered into what is there.
                    while station.telemetry.pushed.get() < round * LIMIT {
                        let record = [(None, format!("{pusher}"))];
                        if let Sent::Buffered = station.push("p", Qos::Buffered, &record).await {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            });
            for pusher in pushers.collect::<Vec<_>>() {
                pusher.await.unwrap();
            }
            assert_eq!(taken.load(Ordering::Relaxed), LIMIT, "round {round}");
            let mut popped = 0;
            while popped < LIMIT {
                popped += history::messages(&station.pop(&auto_ack).await.unwrap()).len() as u64;
            }
        }
        cluster.stop().await;
    });
}
