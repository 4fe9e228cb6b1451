//! Black box: the real binary is killed with SIGKILL again and again while tokens are moved between two
//! queues by transactions. Whatever a client was answered, or not, every token is in one queue once.
//!
//! `CRASHES` sets how often it is killed; 20 unless it says otherwise.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/process.rs"]
mod process;
#[path = "support/seeds.rs"]
mod seeds;
#[path = "support/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onrush::config::Settings;
use onrush_client::{Client, Message, QueueOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use process::ServerProcess;

const SEED: u64 = 20_261_201;
const QUEUES: [&str; 2] = ["left", "right"];
const TOKENS: u32 = 60;
const MOVERS: u64 = 3;
/// Short, so that what a killed mover held comes again within the run.
const LEASE: Duration = Duration::from_secs(1);

type Where = watch::Receiver<Option<SocketAddr>>;

/// A client of the server that is there now; waits until there is one.
async fn connect(place: &mut Where) -> Client {
    loop {
        let now = *place.wait_for(Option::is_some).await.unwrap();
        let builder = Client::builder().addr(&now.unwrap().to_string()).retries(0);
        let builder = builder.request_timeout(Duration::from_secs(5));
        match builder.circuit_breaker(u32::MAX, Duration::from_secs(1)).connect().await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// Moves tokens until it is told to stop.
async fn run(mover: u64, mut place: Where, goes_on: Arc<AtomicBool>, moved: Arc<AtomicU64>) {
    let mut random = StdRng::seed_from_u64(SEED + mover);
    let mut client = connect(&mut place).await;
    while goes_on.load(Ordering::Acquire) {
        let from = usize::from(random.random_bool(0.5));
        let (from, to) = (client.queue(QUEUES[from]), client.queue(QUEUES[1 - from]));
        let most = random.random_range(1..6);
        let pop = from.pop().batch(most).partitions(2).wait(Duration::from_millis(50)).lease(LEASE);
        let Ok(popped) = pop.send().await else {
            client = connect(&mut place).await;
            continue;
        };
        if popped.is_empty() {
            continue;
        }
        let tokens = popped.messages.iter().map(|it| Message::json(&it.json::<u32>().unwrap()));
        let to = to.partition(&format!("p{}", random.random_range(0..4)));
        match client.transaction().ack(&popped.messages).push(&to, tokens).commit().await {
            Ok(_) => drop(moved.fetch_add(popped.len() as u64, Ordering::Relaxed)),
            Err(_) => client = connect(&mut place).await,
        }
    }
}

/// Of the store that is asked for.
fn settings() -> Vec<String> {
    let mut chosen = Settings::default();
    store::choose(&mut chosen);
    let mut settings = vec!["store.segment_bytes=4MiB".to_owned()];
    settings.push("store.checkpoint_interval_ms=100".to_owned());
    if chosen.database.url.is_set() {
        settings.push(format!("database.url={}", chosen.database.url.expose()));
        settings.push(format!("database.schema={}", chosen.database.schema));
    }
    settings
}

/// How often each token is there, when nothing is left.
async fn drain(client: &Client) -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    let (began, mut quiet_since) = (Instant::now(), Instant::now());
    // Quiet for longer than the last lease of the run.
    while quiet_since.elapsed() < 2 * LEASE {
        for queue in QUEUES {
            let pop = client.queue(queue).pop().batch(1000).partitions(100).auto_ack(true);
            for message in pop.send().await.unwrap().messages {
                *found.entry(message.json().unwrap()).or_default() += 1;
                quiet_since = Instant::now();
            }
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no end of it: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_moved_under_sigkill_are_neither_lost_nor_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let crashes = seeds::number("CRASHES", 20);
    let settings = settings();
    let spawn = || {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        ServerProcess::spawn_with(folder.path(), &settings)
    };
    let mut server = spawn();
    let client = Client::connect(&server.listening().await.to_string()).await.unwrap();
    for queue in QUEUES {
        let options = QueueOptions { retry_limit: 10_000, ..QueueOptions::default() };
        client.queue(queue).config(options).create().await.unwrap();
    }
    let tokens = (0..TOKENS).map(|token| Message::json(&token));
    assert!(client.queue(QUEUES[0]).push(tokens).await.unwrap().is_complete());
    let (place, watching) = watch::channel(None);
    let (goes_on, moved) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let mut movers = JoinSet::new();
    for mover in 0..MOVERS {
        movers.spawn(run(mover, watching.clone(), Arc::clone(&goes_on), Arc::clone(&moved)));
    }
    server.kill();
    let mut random = StdRng::seed_from_u64(SEED);
    for _ in 0..crashes {
        let mut server = spawn();
        place.send_replace(Some(server.listening().await));
        tokio::time::sleep(Duration::from_millis(random.random_range(5..250))).await;
        server.kill();
        place.send_replace(None);
    }
    let mut server = spawn();
    let addr = server.listening().await;
    place.send_replace(Some(addr));
    goes_on.store(false, Ordering::Release);
    let done = async { while movers.join_next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("movers still move");
    let client = Client::connect(&addr.to_string()).await.unwrap();
    let found = drain(&client).await;
    assert_eq!(found, (0..TOKENS).map(|token| (token, 1)).collect(), "after {crashes} kills");
    let moved = moved.load(Ordering::Relaxed);
    assert!(moved > u64::from(TOKENS), "hardly anything was moved: {moved}");
    println!("{crashes} kills, {moved} moves answered");
}
