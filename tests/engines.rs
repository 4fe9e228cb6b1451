//! Several engines on one log that lies by seed: what one acknowledges the other keeps, an id stands
//! once whoever was asked, and a consumer of one engine is woken by a push through the other.
//!
//! `SEEDS` sets how many seeds, `SEED` runs one alone; `MESSAGES` how many messages each producer sends.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: a panic is how it fails, and it names its seed"
)]

#[path = "engines/cluster.rs"]
mod cluster;
#[path = "simulated/history.rs"]
mod history;
#[path = "simulated/station.rs"]
mod station;
#[path = "simulated/transcript.rs"]
mod transcript;
#[path = "engines/workload.rs"]
mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use onrush::log::simulated::{Fault, Faults};
use onrush_protocol::qos::Qos;

use cluster::Cluster;
use station::{Ask, Sent};
use workload::Workload;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// As many seeds as `SEEDS` says, or `default`; or the one that `SEED` names.
fn seeds(default: u64) -> std::ops::Range<u64> {
    match number("SEED", u64::MAX) {
        u64::MAX => 0..number("SEEDS", default),
        one => one..one + 1,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

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
    }
    // A proof that saw no fault proves nothing.
    assert!(struck.conflicts > 0 && struck.unavailable > 0, "{struck:?}");
    assert!(struck.answers_lost > 0 && struck.requests_lost > 0, "{struck:?}");
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
        for (round, fault) in [Fault::AnswerLost, Fault::RequestLost].into_iter().enumerate() {
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
        assert_eq!(payloads, ["first", "m0", "m1"]);
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
