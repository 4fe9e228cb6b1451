//! Black box: several servers on one PostgreSQL. Any of them serves any request; one that is frozen
//! past its leases does no harm when it wakes; at the end all of them know the same.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "crash/checker.rs"]
#[allow(dead_code, reason = "these tests audit by groups of their own")]
mod checker;
#[path = "crash/load.rs"]
#[allow(dead_code, reason = "these tests number their producers")]
mod load;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checker::Checker;
use load::{Load, PRODUCERS};
use onrush_client::{Client, Code, Error, Message};
use onrush_pgharness::{Cluster, installations};
use process::ServerProcess;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of the oldest major that is here, or of the newest.
fn cluster(is_newest: bool) -> Cluster {
    let mut all = installations().unwrap();
    let installation = if is_newest { all.pop().unwrap() } else { all.remove(0) };
    Cluster::start(&installation).unwrap()
}

fn spawn(folder: &Path, number: usize, cluster: &Cluster) -> ServerProcess {
    let url = format!("database.url={}", cluster.url("postgres"));
    // Every commit that can be is parted in two, however small.
    let halves = "database.parts_bytes_min=1";
    let settings = [url.as_str(), halves, "store.checkpoint_interval_ms=100"];
    ServerProcess::spawn_with(&folder.join(number.to_string()), &settings)
}

async fn client(server: &mut ServerProcess) -> Client {
    let addr = server.listening().await.to_string();
    Client::builder().addr(&addr).retries(0).request_timeout(PATIENCE).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_slept_past_its_leases_cannot_settle_what_another_took() {
    let (cluster, folder) = (cluster(false), tempfile::tempdir().unwrap());
    let mut sleeper = spawn(folder.path(), 0, &cluster);
    let mut other = spawn(folder.path(), 1, &cluster);
    let (at_sleeper, at_other) = (client(&mut sleeper).await, client(&mut other).await);
    at_sleeper.queue("jobs").push([Message::json(&1)]).await.unwrap();
    let lease = Duration::from_secs(1);
    let held = at_sleeper.queue("jobs").pop().lease(lease).send().await.unwrap();
    assert_eq!(held.len(), 1);
    // Nobody else gets it while the lease lasts, whoever is asked.
    assert!(at_other.queue("jobs").pop().send().await.unwrap().is_empty());
    sleeper.freeze();
    let taken = at_other.queue("jobs").pop().wait(PATIENCE).send().await.unwrap();
    assert_eq!((taken.len(), taken.messages[0].attempts), (1, 1), "the lease ran out");
    sleeper.thaw();
    match at_sleeper.ack(&held).await {
        Err(Error::Ack(report)) => {
            let codes: Vec<_> = report.refused.iter().map(|it| it.refusal.code()).collect();
            assert_eq!(codes, [Some(Code::LeaseExpired)]);
        }
        answer => panic!("a late ack was answered {answer:?}"),
    }
    at_other.ack(&taken).await.unwrap();
    assert!(at_sleeper.queue("jobs").pop().send().await.unwrap().is_empty());
    assert!(at_other.queue("jobs").pop().send().await.unwrap().is_empty());
}

async fn under_load(count: usize) {
    let (cluster, folder) = (cluster(count > 2), tempfile::tempdir().unwrap());
    let checker = Arc::new(Checker::default());
    let (mut servers, mut loads) = (Vec::new(), Vec::new());
    for number in 0..count {
        let mut server = spawn(folder.path(), number, &cluster);
        let addr = server.listening().await;
        let load = Load::start_from(Arc::clone(&checker), number as u32 * PRODUCERS);
        load.point_at(Some(addr));
        servers.push(server);
        loads.push(load);
    }
    for server in servers.iter().take(2) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        // Longer than the leases of its consumers.
        server.freeze();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        server.thaw();
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    for load in loads {
        load.finish().await;
    }
    for (number, server) in servers.iter().enumerate() {
        checker.audit_as(&format!("audit {number}"), server.listening_at()).await;
    }
    let report = checker.report();
    assert!(report.problems.is_empty(), "{count} servers: {report:#?}");
    assert!(report.acknowledged > 500, "hardly any load: {report:#?}");
    assert!(report.acks_confirmed > 0, "no consumer got anything: {report:#?}");
    println!("{count} servers: {report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_under_load_keep_every_promise_though_one_is_frozen() {
    under_load(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_servers_under_load_keep_every_promise_though_one_is_frozen() {
    under_load(4).await;
}
