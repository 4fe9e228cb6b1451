//! Black box: several servers on one PostgreSQL. Any of them serves any request; one that is frozen
//! past its leases does no harm when it wakes; no message is in two hands at once; at the end all of them
//! know the same.

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

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checker::{Checker, QUEUE};
use load::{Load, PRODUCERS};
use onrush_client::{AckOutcome, Client, Code, Error, GroupStanding, Message, SubscriptionStart};
use onrush_pgharness::{Cluster, installations};
use process::ServerProcess;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// Makes some messages dead letters of a group of their own.
async fn bury_some(addr: SocketAddr) {
    let client = Client::connect(&addr.to_string()).await.unwrap();
    let pop = client.queue(QUEUE).pop().group("buries").start(SubscriptionStart::Beginning);
    let held = pop.batch(20).partitions(4).send().await.unwrap();
    assert!(!held.is_empty());
    let (dead, fine) = held.messages.split_at(held.len() / 2);
    client.settle(dead, AckOutcome::DeadLetter, "not wanted").await.unwrap();
    client.ack(fine).await.unwrap();
}

/// Everything that a server tells of its state: queues in numbers, partition by partition, groups with
/// what they lack, dead letters.
async fn known(server: &ServerProcess) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for path in [
        "/api/v1/resources/overview",
        "/api/v1/resources/queues",
        "/api/v1/resources/queues/crash?limit=10000",
        "/api/v1/dlq?queue=crash&limit=1000",
    ] {
        let mut told = get(server, path).await;
        if let Some(fields) = told.as_object_mut() {
            // When it was asked.
            fields.remove("timestamp");
        }
        known.insert(path.to_owned(), told.to_string());
    }
    let client = Client::connect(&server.listening_at().to_string()).await.unwrap();
    for standing in client.groups().await.unwrap() {
        // Pops that wait at one server are of that one.
        let standing = GroupStanding { members: 0, ..standing };
        let name = standing.group.as_str().to_owned();
        let lag = client.group(&name).queue(QUEUE).lag().await.unwrap();
        known.insert(format!("group {name}"), format!("{standing:?} {lag:?}"));
    }
    known
}

/// Waits until all servers tell the same.
async fn all_know_the_same(servers: &[ServerProcess]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut all = Vec::new();
        for server in servers {
            all.push(known(server).await);
        }
        assert!(all[0].len() > 4 + servers.len(), "hardly anything is compared: {:?}", all[0]);
        if all.iter().all(|known| *known == all[0]) {
            return;
        }
        if Instant::now() > deadline {
            for (name, told) in &all[0] {
                let others: Vec<_> = all.iter().map(|known| known.get(name)).collect();
                assert!(others.iter().all(|it| *it == Some(told)), "{name}: {others:#?}");
            }
            panic!("servers do not come to know the same");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn get(server: &ServerProcess, path: &str) -> Value {
    let url = server.http_url();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    serde_json::from_str(body).unwrap()
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
    bury_some(servers[0].listening_at()).await;
    all_know_the_same(&servers).await;
    let report = checker.report();
    assert!(report.problems.is_empty(), "{count} servers: {report:#?}");
    assert!(report.acknowledged > 500, "hardly any load: {report:#?}");
    assert!(report.acks_confirmed > 0, "no consumer got anything: {report:#?}");
    assert!(report.deliveries > 0, "no lease was looked at: {report:#?}");
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
