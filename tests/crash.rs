//! Black box: the real binary is killed with SIGKILL again and again under load, also while it
//! recovers, and started again on the same folder. Nothing acknowledged may be lost, nothing pushed
//! at QoS 2 may stand twice, nothing may come out of order, and nothing whose ack was confirmed may
//! come again.
//!
//! `CRASHES` sets how often; 200 unless it says otherwise.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "crash/checker.rs"]
mod checker;
#[path = "crash/load.rs"]
#[allow(dead_code, reason = "one load is enough here")]
mod load;
#[path = "support/process.rs"]
mod process;
#[path = "support/seeds.rs"]
mod seeds;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use checker::Checker;
use load::Load;
use process::ServerProcess;

const SEED: u64 = 20_261_121;

fn crashes() -> usize {
    seeds::number("CRASHES", 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_reordered_by_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let checker = Arc::new(Checker::default());
    let load = Load::start(Arc::clone(&checker));
    let mut random = StdRng::seed_from_u64(SEED);
    let mut kills = 0;
    while kills < crashes() {
        let mut server = ServerProcess::spawn(folder.path());
        if random.random_ratio(1, 4) {
            // Killed again while it recovers, before it says a word.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..25))).await;
            server.kill();
            kills += 1;
            continue;
        }
        load.point_at(Some(server.listening().await));
        tokio::time::sleep(Duration::from_millis(random.random_range(5..250))).await;
        server.kill();
        load.point_at(None);
        kills += 1;
    }
    let mut server = ServerProcess::spawn(folder.path());
    let addr = server.listening().await;
    load.point_at(Some(addr));
    load.finish().await;
    checker.audit(addr).await;
    let report = checker.report();
    assert!(report.problems.is_empty(), "after {kills} kills: {report:#?}");
    assert!(report.acknowledged > crashes() as u64, "hardly any load: {report:#?}");
    assert!(report.acks_confirmed > 0, "no consumer got anything: {report:#?}");
    assert!(report.deliveries > 0, "no lease was looked at: {report:#?}");
    println!("{kills} kills: {report:#?}");
}
