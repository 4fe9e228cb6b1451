//! The log in a database, on real servers of every major that is here: the contract of all logs, and
//! what only a database can do to it.

mod following;
mod hearing;
mod named;
mod outages;
mod projecting;
mod several;
mod space;
#[cfg(feature = "tls")]
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onrush_pgharness::{Cluster, Installation, installations};

use super::*;
use crate::base::random::{SeededRandom, SystemRandom};
use crate::log::contract::{self, Subject, shards};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a story on a server of every major.
fn on_every_major(story: impl Fn(&Installation)) {
    for installation in installations().unwrap() {
        // A panic inside names the line, and this the server.
        let _told = Told(installation.version());
        story(&installation);
    }
}

/// Tells which server a story failed on.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on PostgreSQL {}", self.0);
        }
    }
}

fn config(cluster: &Cluster, schema: &str) -> PostgresConfig {
    let database = Database::parse(&cluster.url("postgres")).unwrap();
    PostgresConfig {
        schema: SchemaName::parse(schema).unwrap(),
        // Pieces of a few entries, closed when a test says so.
        piece_bytes: 2_000,
        upkeep_interval: Duration::from_secs(3_600),
        idle_timeout: Duration::from_secs(3_600),
        ..PostgresConfig::new(database, shards())
    }
}

fn newcomer() -> Identity {
    Identity::new(&SystemRandom, shards(), 77)
}

fn open_log(config: &PostgresConfig) -> PostgresLog {
    PostgresLog::open(config.clone(), &newcomer()).unwrap().0
}

fn append(log: &PostgresLog, proposals: &[Proposal]) -> Append {
    contract::block_on(log.append(proposals, Durability::Synced)).unwrap()
}

/// Waits until something is so.
#[track_caller]
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl PostgresLog {
    /// Upkeep, now.
    fn round(&self) -> Result<bool, String> {
        let (answer, answered) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        self.shared.runtime().spawn(async move {
            let _ = answer.send(shared.upkeep_round().await.map_err(|error| error.to_string()));
        });
        answered.recv_timeout(PATIENCE).unwrap()
    }

    /// Upkeep until there is nothing left to do. The keeper's lock may have to be waited for.
    fn settle(&self) {
        await_that("the keeper's lock", || self.round().is_ok() && self.shared.is_keeper());
        while self.round().unwrap() {}
    }
}

/// A log on a server that can crash.
struct Server {
    cluster: Arc<parking_lot::Mutex<Cluster>>,
    config: PostgresConfig,
    log: Option<Arc<PostgresLog>>,
}

impl Subject for Server {
    fn log(&self) -> Arc<dyn Log> {
        let log: Arc<dyn Log> = Arc::clone(self.log.as_ref().unwrap()) as Arc<dyn Log>;
        log
    }

    fn crash(&mut self) {
        self.log = None;
        let mut cluster = self.cluster.lock();
        cluster.kill();
        cluster.start_again().unwrap();
        self.log = Some(Arc::new(open_log(&self.config)));
    }

    fn restart(&mut self) {
        self.log = None;
        self.log = Some(Arc::new(open_log(&self.config)));
    }

    fn settle(&self) {
        self.log.as_ref().unwrap().settle();
    }
}

#[test]
fn keeps_the_contract_of_all_logs() {
    on_every_major(|installation| {
        let cluster = Arc::new(parking_lot::Mutex::new(Cluster::start(installation).unwrap()));
        let count = AtomicU64::new(0);
        contract::check_all(5, &|_| {
            let schema = format!("story_{}", count.fetch_add(1, Ordering::Relaxed));
            let config = config(&cluster.lock(), &schema);
            let log = Some(Arc::new(open_log(&config)));
            Box::new(Server { cluster: Arc::clone(&cluster), config, log })
        });
    });
}

#[test]
fn commits_are_durable_whatever_the_cluster_prefers_but_never_less_than_it_asks_for() {
    let installation = installations().unwrap().remove(0);
    for (asked, got) in [("off", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")] {
        let setting = format!("synchronous_commit={asked}");
        let cluster = Cluster::start_with(&installation, &[&setting]).unwrap();
        let log = open_log(&config(&cluster, "s"));
        let session = log.shared.writers[0].session().unwrap();
        let asking = session.client.query_one("SHOW synchronous_commit", &[]);
        let shown: String = contract::block_on(asking).unwrap().get(0);
        assert_eq!(shown, got);
    }
}

#[test]
fn a_store_stays_who_it_is_and_a_newer_schema_is_refused() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "one");
        let made = Identity::new(&SeededRandom::new(1), shards(), 77);
        let (log, loaded) = PostgresLog::open(config.clone(), &made).unwrap();
        assert_eq!(loaded, Loaded::Created(made));
        drop(log);
        let many = crate::base::place::ShardCount::new(9).unwrap();
        let other = Identity::new(&SeededRandom::new(2), many, 78);
        let (log, loaded) = PostgresLog::open(config.clone(), &other).unwrap();
        assert_eq!(loaded, Loaded::Existing(made));
        drop(log);
        cluster.sql("postgres", "INSERT INTO one.steps (step) VALUES (99)").unwrap();
        let Err(refused) = PostgresLog::open(config, &made) else { panic!("it was opened") };
        assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    });
}

#[test]
fn what_cannot_be_opened_says_why_and_does_not_wait_where_that_is_vain() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let patient = config(&cluster, "s");
    let open = |config: PostgresConfig| match PostgresLog::open(config, &newcomer()) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    };
    let began = Instant::now();
    let nowhere = Database::parse(&cluster.url("nowhere")).unwrap();
    let refused = open(PostgresConfig { database: nowhere, ..patient.clone() });
    assert!(refused.contains("\"nowhere\" does not exist"), "{refused}");
    assert!(began.elapsed() < patient.open_patience, "it waited in vain");
    let away = Database::parse("postgresql://postgres:s3cr3t@127.0.0.1:1/d").unwrap();
    let open_patience = Duration::from_millis(300);
    let refused = open(PostgresConfig { database: away, open_patience, ..patient });
    assert!(refused.contains("127.0.0.1:1/d") && !refused.contains("s3cr3t"), "{refused}");
}

#[test]
fn a_server_without_room_for_our_connections_is_given_up_with_its_words() {
    let installation = installations().unwrap().remove(0);
    let cluster = Cluster::start_with(&installation, &["max_connections=14"]).unwrap();
    let open_patience = Duration::from_secs(1);
    let config = PostgresConfig { open_patience, ..config(&cluster, "s") };
    let first = open_log(&config);
    for _ in 0..2 {
        let began = Instant::now();
        let Err(refused) = PostgresLog::open(config.clone(), &newcomer()) else {
            panic!("it was opened")
        };
        assert!(refused.to_string().contains("too many clients"), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    // What it had taken is given back, and whoever was there is not disturbed.
    assert_eq!(contract::block_on(first.heads(5)).unwrap(), [0; 5]);
    await_that("room", || cluster.sql("postgres", "SELECT 1").is_ok());
}
