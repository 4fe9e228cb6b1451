//! What an outage of the database costs whoever pushes, and how fast what was pushed meanwhile gets there.
//!
//! In: `RATE` (1,000 pushes of one message a second), `SECONDS` of each part (10); the server's binary and
//! `onrush-load` beside it, both built for release (`SERVER_BIN` names another server). Out, for a database
//! that is killed and for one that is frozen (answers nothing, closes nothing): the time from then until
//! the first push is answered from the failover log, and percentiles of pushes while it is away, in an open
//! loop, from the moment at which each was due. And how fast what waits is pushed to the database, held
//! against what `onrush-load` pushes before and after, with 100 messages of 100 bytes in a push.
//!
//! The database, the server and whoever pushes share the machine. Nobody pushes during the replay.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench may fail where it stands, and tells its figures"
)]

#[path = "../tests/support/look.rs"]
mod look;
#[path = "../tests/support/process.rs"]
#[allow(dead_code, reason = "shared with tests, which ask for more")]
mod process;
#[path = "../tests/support/seeds.rs"]
mod seeds;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use look::stat;
use onrush_client::{Client, Message, Queue};
use onrush_pgharness::{Cluster, installations};
use process::{ServerProcess, binary};
use seeds::number;
use serde_json::Value;
use tokio::task::JoinSet;

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(120);
const QUEUE: &str = "outage";
const PAYLOAD_BYTES: usize = 100;

/// How the database goes away.
#[derive(Clone, Copy, Debug)]
enum Away {
    Killed,
    Frozen,
}

/// A push that was answered; times since the stream began.
#[derive(Clone, Copy)]
struct Answered {
    due: Duration,
    at: Duration,
    from_failover: bool,
}

/// Pushes of one message each, at their times whatever became of those before.
struct Stream {
    began: Instant,
    is_over: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<Answered>>>,
    task: tokio::task::JoinHandle<u64>,
}

impl Stream {
    fn start(queue: Queue) -> Self {
        let (began, rate) = (Instant::now(), number("RATE", 1_000.0_f64));
        let (is_over, answered) =
            (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Answered>>>::default());
        let (ends, kept) = (Arc::clone(&is_over), Arc::clone(&answered));
        let task = tokio::spawn(async move {
            let (mut under_way, mut failed) = (JoinSet::new(), 0);
            for tick in 0_u32.. {
                let due = Duration::from_secs_f64(f64::from(tick) / rate);
                tokio::time::sleep_until((began + due).into()).await;
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let queue = queue.partition(&format!("p{}", tick % 100));
                under_way.spawn(async move {
                    let pushed = queue.push([Message::bytes(vec![b'x'; PAYLOAD_BYTES])]).await;
                    let at = began.elapsed();
                    let result = pushed.ok().filter(|result| result.is_complete())?;
                    Some(Answered { due, at, from_failover: !result.store_healthy })
                });
                while let Some(done) = under_way.try_join_next() {
                    note(&kept, &mut failed, done.unwrap());
                }
            }
            while let Some(done) = under_way.join_next().await {
                note(&kept, &mut failed, done.unwrap());
            }
            failed
        });
        Self { began, is_over, answered, task }
    }

    /// When the first push after `since` was answered from the failover log.
    async fn first_from_failover(&self, since: Duration) -> Duration {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answered = self.answered.lock().unwrap().clone();
            let late = answered.iter().filter(|it| it.from_failover && it.at > since);
            if let Some(first) = late.map(|it| it.at).min() {
                return first;
            }
            assert!(Instant::now() < deadline, "no push is taken while the database is away");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it; what was answered, and how many pushes failed.
    async fn end(self) -> (Vec<Answered>, u64) {
        self.is_over.store(true, Ordering::Relaxed);
        let failed = self.task.await.unwrap();
        (std::mem::take(&mut *self.answered.lock().unwrap()), failed)
    }
}

fn note(kept: &Mutex<Vec<Answered>>, failed: &mut u64, done: Option<Answered>) {
    match done {
        Some(answered) => kept.lock().unwrap().push(answered),
        None => *failed += 1,
    }
}

fn part() -> Duration {
    Duration::from_secs_f64(number("SECONDS", 10.0_f64))
}

/// Milliseconds by which answers came after they were due: half of them, 99 of 100, the latest.
fn percentiles(answered: impl Iterator<Item = Answered>) -> String {
    let late = answered.map(|it| it.at.saturating_sub(it.due).as_secs_f64() * 1000.0);
    let mut late: Vec<f64> = late.collect();
    late.sort_by(f64::total_cmp);
    if late.is_empty() {
        return "none".to_owned();
    }
    let at = |per_mille: usize| late[(late.len() - 1) * per_mille / 1000];
    format!("p50 {:.1} p99 {:.1} max {:.1} ms of {}", at(500), at(990), at(1000), late.len())
}

async fn outage(cluster: &mut Cluster, client: &Client, how: Away) {
    let stream = Stream::start(client.queue(QUEUE));
    tokio::time::sleep(part()).await;
    let gone = stream.began.elapsed();
    match how {
        Away::Killed => cluster.kill_all(),
        Away::Frozen => cluster.freeze(),
    }
    let noticed = stream.first_from_failover(gone).await;
    tokio::time::sleep(part()).await;
    let back = stream.began.elapsed();
    match how {
        Away::Killed => cluster.start_again().unwrap(),
        Away::Frozen => cluster.thaw(),
    }
    look::drained(client).await;
    let (answered, failed) = stream.end().await;
    let between = |from: Duration, to: Duration| {
        percentiles(answered.iter().copied().filter(|it| it.due >= from && it.due < to))
    };
    println!("{how:?}:");
    println!("  noticed after {:.2} s", (noticed - gone).as_secs_f64());
    println!("  pushes before      {}", between(Duration::ZERO, gone));
    println!("  until it is noticed {}", between(gone, noticed));
    println!("  while it is away   {}", between(noticed, back));
    println!("  failed             {failed}");
}

/// What the load generator pushes for a while, messages a second.
async fn load(server: &ServerProcess) -> f64 {
    let tool = binary().with_file_name("onrush-load");
    assert!(tool.is_file(), "{}: cargo build --release --workspace --bins", tool.display());
    let (addr, seconds) = (server.listening_at().to_string(), part().as_secs_f64().to_string());
    let run = move || {
        let mut command = Command::new(tool);
        command.args(["push", "--addr", &addr, "--queue", QUEUE, "--seconds", &seconds, "--json"]);
        command.args(["--no-verify", "--no-floor"]).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    report["rate"].as_f64().unwrap()
}

async fn replay(cluster: &mut Cluster, server: &ServerProcess, client: &Client) {
    let before = load(server).await;
    cluster.kill_all();
    let meanwhile = load(server).await;
    cluster.start_again().unwrap();
    let started = Instant::now();
    while stat(client, "store_away").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (met, waiting) = (Instant::now(), stat(client, "spill_waiting").await);
    look::drained(client).await;
    let took = met.elapsed().as_secs_f64();
    let after = load(server).await;
    let (rate, healthy) = (waiting as f64 / took, f64::midpoint(before, after));
    println!("replay:");
    println!("  pushed to the database     {before:.0} messages/s before, {after:.0} after");
    println!("  to the failover log        {meanwhile:.0} messages/s");
    println!("  the database is found      {:.2} s after its start", (met - started).as_secs_f64());
    println!(
        "  {waiting} replayed in {took:.2} s: {rate:.0} messages/s, {:.2} of the healthy rate",
        rate / healthy
    );
}

async fn measure() {
    for mut cluster in installations().unwrap().iter().map(|it| Cluster::start(it).unwrap()) {
        println!("PostgreSQL {}", cluster.installation().major());
        let folder = tempfile::tempdir().unwrap();
        let url = format!("database.url={}", cluster.url("postgres"));
        let mut server = ServerProcess::spawn_with(folder.path(), &[&url]);
        let addr = server.listening().await.to_string();
        let client = Client::builder().addr(&addr).retries(0).request_timeout(PATIENCE);
        let client = client.connect().await.unwrap();
        client.queue(QUEUE).create().await.unwrap();
        outage(&mut cluster, &client, Away::Killed).await;
        outage(&mut cluster, &client, Away::Frozen).await;
        replay(&mut cluster, &server, &client).await;
    }
}

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}
