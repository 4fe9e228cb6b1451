//! Black box: a real PostgreSQL is killed, stopped, frozen, cut off and started again under load, and
//! the server with it. Nothing acknowledged may be lost, nothing pushed at QoS 2 may stand twice,
//! nothing may come out of order, and nothing whose ack was confirmed may come again.
//!
//! `CYCLES` sets how often something happens, 10 unless it says otherwise: everything that can happen
//! once, in an order by lot, and then what is drawn; `SEED` sets the lots;
//! `FROZEN_MS` how long the database is frozen at most, 3,000 unless it says otherwise.

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
#[path = "support/look.rs"]
mod look;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;
#[path = "support/seeds.rs"]
mod seeds;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onrush_pgharness::{Cluster, Installation, Stop, installations};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use checker::Checker;
use load::Load;
use process::ServerProcess;
use seeds::number;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(60);

fn spawn(folder: &Path, url: &str) -> ServerProcess {
    let url = format!("database.url={url}");
    // Every commit that can be is parted in two, however small.
    let halves = "database.parts_bytes_min=1";
    ServerProcess::spawn_with(folder, &[&url, halves, "store.checkpoint_interval_ms=100"])
}

/// What may happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    DatabaseKilled,
    DatabaseStoppedAtOnce,
    DatabaseStopped,
    DatabaseFrozen,
    ConnectionsCut,
    ServerKilled,
    ServerKilledWhileItBufferedAndReplayed,
    DatabaseFlapped,
    ServerStartedWithoutTheDatabase,
}

const KINDS: [Kind; 9] = [
    Kind::DatabaseKilled,
    Kind::DatabaseStoppedAtOnce,
    Kind::DatabaseStopped,
    Kind::DatabaseFrozen,
    Kind::ConnectionsCut,
    Kind::ServerKilled,
    Kind::ServerKilledWhileItBufferedAndReplayed,
    Kind::DatabaseFlapped,
    Kind::ServerStartedWithoutTheDatabase,
];

/// What happens in so many cycles: each kind once, in an order drawn by lot, and then whatever is drawn.
fn draw(cycles: u64, random: &mut StdRng) -> Vec<Kind> {
    let mut all = KINDS.to_vec();
    all.shuffle(random);
    let more = (0..cycles).map(|_| KINDS[random.random_range(0..KINDS.len())]);
    all.extend(more);
    all.truncate(cycles as usize);
    all
}

/// A run: a database, a server on it, and a load on the server.
struct Run {
    cluster: Cluster,
    server: ServerProcess,
    load: Load,
    folder: tempfile::TempDir,
    random: StdRng,
    url: String,
    checker: Arc<Checker>,
}

impl Run {
    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(millis))).await;
    }

    fn start_database(&mut self) {
        self.cluster.start_again().unwrap();
    }

    /// The server dies and starts again; the database is there.
    async fn restart_server(&mut self) {
        self.server.kill();
        self.load.point_at(None);
        self.server = spawn(self.folder.path(), &self.url);
        let addr = self.server.listening().await;
        self.load.point_at(Some(addr));
    }

    fn cut_connections(&self) {
        let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                   where application_name like 'onrush%'";
        self.cluster.sql("postgres", sql).unwrap();
    }

    /// Both die, and the server starts again where nobody answers it: it takes pushes all the same.
    async fn start_without_the_database(&mut self) {
        self.cluster.kill();
        self.pause(0..1_000).await;
        self.server.kill();
        self.load.point_at(None);
        let before = self.checker.report().acknowledged;
        self.server = spawn(self.folder.path(), &self.url);
        let addr = self.server.listening().await;
        self.load.point_at(Some(addr));
        let taken = async {
            while self.checker.report().acknowledged == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("pushes are taken meanwhile");
        self.pause(0..500).await;
        self.start_database();
        // Perhaps while it is at it to find out what the database has.
        if self.random.random_bool(0.5) {
            self.pause(0..300).await;
            self.restart_server().await;
        }
    }

    async fn happens(&mut self, kind: Kind) {
        match kind {
            Kind::DatabaseKilled => {
                self.cluster.kill();
                self.pause(0..1_500).await;
                self.start_database();
            }
            Kind::DatabaseStoppedAtOnce => {
                self.cluster.stop(Stop::Immediate);
                self.pause(0..1_500).await;
                self.start_database();
            }
            Kind::DatabaseStopped => {
                self.cluster.stop(Stop::Fast);
                self.pause(0..500).await;
                self.start_database();
            }
            Kind::DatabaseFrozen => {
                let most = number("FROZEN_MS", 3_000).max(1_001);
                self.cluster.freeze();
                self.pause(1_000..most).await;
                self.cluster.thaw();
            }
            Kind::ConnectionsCut => {
                for _ in 0..5 {
                    self.cut_connections();
                    self.pause(0..30).await;
                }
            }
            Kind::ServerKilled => self.restart_server().await,
            Kind::ServerKilledWhileItBufferedAndReplayed => {
                self.cluster.kill();
                self.pause(600..1_200).await;
                // It dies with messages in its failover log.
                self.server.kill();
                self.load.point_at(None);
                self.start_database();
                self.restart_server().await;
                // And again while it pushes them to the database.
                self.pause(0..60).await;
                self.restart_server().await;
            }
            Kind::DatabaseFlapped => {
                for _ in 0..4 {
                    self.cluster.kill();
                    self.pause(0..700).await;
                    self.start_database();
                    self.pause(0..200).await;
                }
            }
            Kind::ServerStartedWithoutTheDatabase => self.start_without_the_database().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_reordered_by_a_database_that_fails() {
    fails_again_and_again(&installations().unwrap().remove(0), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_by_one_of_the_newest_major() {
    // Other things happen there, in another order.
    fails_again_and_again(&installations().unwrap().pop().unwrap(), 1).await;
}

async fn fails_again_and_again(installation: &Installation, salt: u64) {
    let cluster = Cluster::start(installation).unwrap();
    let (url, folder) = (cluster.url("postgres"), tempfile::tempdir().unwrap());
    let checker = Arc::new(Checker::default());
    let mut server = spawn(folder.path(), &url);
    let addr = server.listening().await;
    let load = Load::start(Arc::clone(&checker));
    load.point_at(Some(addr));
    let mut random = StdRng::seed_from_u64(number("SEED", 20_261_121) + salt);
    let cycles = number("CYCLES", 10);
    let kinds = draw(cycles, &mut random);
    let mut run = Run { cluster, server, load, folder, random, url, checker: Arc::clone(&checker) };
    for (cycle, kind) in kinds.into_iter().enumerate() {
        run.pause(100..500).await;
        println!("{cycle}: {kind:?}");
        run.happens(kind).await;
    }
    run.pause(500..600).await;
    run.restart_server().await;
    let addr = run.server.listening_at();
    run.load.finish().await;
    let client = onrush_client::Client::connect(&addr.to_string()).await.unwrap();
    look::drained(&client).await;
    checker.audit(addr).await;
    let report = checker.report();
    assert!(report.problems.is_empty(), "after {cycles} cycles: {report:#?}");
    assert!(report.acknowledged > cycles * 10, "hardly any load: {report:#?}");
    assert!(report.acks_confirmed > 0, "no consumer got anything: {report:#?}");
    assert!(report.deliveries > 0, "no lease was looked at: {report:#?}");
    println!("{cycles} cycles: {report:#?}");
}
