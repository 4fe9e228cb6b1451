//! Whole runs over HTTP against a server in memory: that a sound server passes, and that each broken
//! promise is found and fails the run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and should say where"
)]

#[path = "runs/command.rs"]
mod command;
#[path = "http/door.rs"]
mod door;
#[path = "../../client/tests/support/store.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod store;

use command::run;
use door::Door;
use store::Mischief;

/// A run of each kind, short.
const COMMANDS: &[&str] = &["push", "pop --messages 3000", "mixed --rate 5000", "mixed"];

fn line(command: &str, door: &Door, more: &str) -> String {
    format!(
        "{command} --http --addr {} --no-floor --seconds 0.4 --warmup 0.1 --connections 3 \
         --partitions 4 --batch 10 --pop-connections 3 --pop-batch 40 --idle 0.5 {more}",
        door.addr
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_server_passes_at_every_promise() {
    for command in COMMANDS {
        for qos in ["--qos 0", "--qos 1", "--qos 2 --duplicates 5%"] {
            let door = Door::open().await;
            let (code, report) = run(&line(command, &door, qos)).await;
            assert_eq!(code, 0, "{command} {qos}: {report:#}");
            for field in ["errors", "lost", "duplicated", "reordered", "damaged", "sequence_gaps"] {
                assert_eq!(report[field], 0, "{command} {qos}: {field}");
            }
            assert_eq!(report["verified"], true);
            let count = |field: &str| report[field].as_u64().unwrap();
            assert!(report["rate"].as_f64().unwrap() > 0.0, "{command} {qos}: {report:#}");
            assert!(count("received") > 0, "{command} {qos}: {report:#}");
            if !command.starts_with("pop") {
                let is_repeating = qos.contains("duplicates");
                assert_eq!(count("answered_duplicate") > 0, is_repeating, "{command}: {report:#}");
            }
            let is_mixed = command.starts_with("mixed");
            assert_eq!(report["end_to_end"].is_object(), is_mixed);
            assert_eq!(report["pop_rate"].is_number(), is_mixed);
            if is_mixed {
                // All that was taken came out, repetitions aside.
                let stored = count("messages") - count("answered_duplicate");
                assert_eq!(count("received"), stored, "{qos}: {report:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_promise_fails_the_run_by_its_name() {
    for command in ["push", "mixed"] {
        for (mischief, field) in [
            (Mischief::Lose, "lost"),
            (Mischief::Repeat, "duplicated"),
            (Mischief::Swap, "reordered"),
            (Mischief::Damage, "damaged"),
        ] {
            let door = Door::open().await;
            door.store.lock().unwrap().mischief = Some(mischief);
            let (code, report) = run(&line(command, &door, "--qos 2")).await;
            assert_eq!(code, 1, "{command} {mischief:?}: {report:#}");
            assert!(report[field].as_u64().unwrap() > 0, "{command} {mischief:?}: {report:#}");
            assert_eq!(report["ok"], false);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_a_run_is_gone_after_it_unless_it_is_kept() {
    let door = Door::open().await;
    run(&line("mixed", &door, "")).await;
    assert_eq!(door.store.lock().unwrap().count(), 0);
    run(&line("mixed", &door, "--keep")).await;
    assert!(door.store.lock().unwrap().count() > 0);
}
