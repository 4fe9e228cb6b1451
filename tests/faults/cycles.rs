//! Cycles of a query while the server is killed: the crash in the middle that the system before never
//! tested.
//!
//! `CRASHES` sets how often it is killed; 20 unless it says otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onrush::config::Settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::store;
use crate::process::ServerProcess;
use crate::seeds;

const SEED: u64 = 20_261_201;
const MESSAGES: u64 = 3_000;
const PARTITIONS: u64 = 4;
const MOVERS: u64 = 2;
/// Cycles that are answered before the next kill, at least: so that each comes in the middle of some.
const CYCLES_PER_LIFE: u64 = 3;
/// Short, so that what a killed mover held comes again within the run.
const LEASE_S: u64 = 1;

/// A server that is killed and started again on one store.
struct Life {
    folder: tempfile::TempDir,
    settings: Vec<String>,
}

impl Life {
    fn new() -> Self {
        let mut chosen = Settings::default();
        store::choose(&mut chosen);
        let mut settings = vec!["store.segment_bytes=4MiB".to_owned()];
        settings.push("store.checkpoint_interval_ms=100".to_owned());
        if chosen.database.url.is_set() {
            settings.push(format!("database.url={}", chosen.database.url.expose()));
            settings.push(format!("database.schema={}", chosen.database.schema));
        }
        Self { folder: tempfile::tempdir().unwrap(), settings }
    }

    async fn spawn(&self) -> (ServerProcess, Address) {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let mut server = ServerProcess::spawn_with(self.folder.path(), &settings);
        server.listening().await;
        let url = server.http_url();
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        (server, address)
    }
}

type Address = String;

/// Asks a server that may be killed meanwhile: `None` when nothing is known of what became of it.
async fn ask(address: &str, method: &str, path: &str, body: &Value) -> Option<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let is_whole = head.lines().find_map(|it| it.strip_prefix("content-length: "))
            == Some(&body.len().to_string());
        match head.split(' ').nth(1)? {
            "204" => Some(Value::Null),
            _ if is_whole => serde_json::from_str(body).ok(),
            _ => None,
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.ok().flatten()
}

/// One cycle over what one pop gives: counts it in the partition's state, hands it on and settles it, all in
/// one. `None` when the server is gone; whether there was anything to do.
async fn cycle(address: &str, query: &Value, most: u64) -> Option<bool> {
    let path = format!("/api/v1/pop/queue/in?batch={most}&leaseSeconds={LEASE_S}");
    let popped = ask(address, "GET", &path, &Value::Null).await?;
    let held = popped["messages"].as_array().cloned().unwrap_or_default();
    let Some(last) = held.last() else { return Some(false) };
    let partition = &last["partitionId"];
    let known = json!({ "query_id": query, "partition_id": partition, "keys": ["count"] });
    let known = ask(address, "POST", "/streams/v1/state/get", &known).await?;
    let before = known["rows"][0]["value"].as_u64().unwrap_or(0);
    let pushes = held
        .iter()
        .map(|it| json!({ "queue": "out", "partition": last["partition"], "payload": it["data"] }));
    let step = json!({
        "query_id": query, "partition_id": partition, "consumer_group": "__QUEUE_MODE__",
        "state_ops": [{ "type": "upsert", "key": "count", "value": before + held.len() as u64 }],
        "push_items": pushes.collect::<Vec<_>>(),
        "ack": { "transactionId": last["transactionId"], "leaseId": last["leaseId"],
                 "status": "completed", "count": held.len() },
    });
    let done = ask(address, "POST", "/streams/v1/cycle", &step).await?;
    Some(done["success"] == true)
}

/// Takes cycles until everything is settled.
async fn run(
    mover: u64,
    mut place: watch::Receiver<Option<Address>>,
    query: Value,
    cycles: Arc<AtomicU64>,
) {
    let mut random = StdRng::seed_from_u64(SEED + mover);
    let mut quiet_since = Instant::now();
    loop {
        let asked = Instant::now();
        let address = place.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        quiet_since += asked.elapsed();
        match cycle(&address, &query, random.random_range(1..6)).await {
            Some(true) => {
                cycles.fetch_add(1, Ordering::AcqRel);
                quiet_since = Instant::now();
            }
            // What somebody held who was killed comes again.
            Some(false) if quiet_since.elapsed() > Duration::from_secs(3 * LEASE_S) => return,
            Some(false) => tokio::time::sleep(Duration::from_millis(20)).await,
            None => {
                quiet_since = Instant::now();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

async fn fill(address: &str) -> Value {
    let options = json!({ "retryLimit": 1_000_000, "retryDelay": 0 });
    let body = json!({ "queue": "in", "options": options });
    ask(address, "POST", "/api/v1/configure", &body).await.unwrap();
    let items: Vec<Value> = (0..MESSAGES)
        .map(|it| json!({ "queue": "in", "partition": format!("p{}", it % PARTITIONS), "payload": it }))
        .collect();
    for some in items.chunks(1000) {
        ask(address, "POST", "/api/v1/push", &json!({ "items": some })).await.unwrap();
    }
    let query =
        json!({ "name": "count", "source_queue": "in", "sink_queue": "out", "config_hash": "h" });
    let query = ask(address, "POST", "/streams/v1/queries", &query).await.unwrap();
    query["query_id"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_cycles_under_sigkill_count_hand_on_and_settle_every_message_once() {
    let life = Life::new();
    let (mut server, address) = life.spawn().await;
    let query = fill(&address).await;
    let (place, watching) = watch::channel(Some(address));
    let (cycles, mut movers) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for mover in 0..MOVERS {
        movers.spawn(run(mover, watching.clone(), query.clone(), Arc::clone(&cycles)));
    }
    let mut random = StdRng::seed_from_u64(SEED);
    for killed in 0..seeds::number("CRASHES", 20) {
        let enough = cycles.load(Ordering::Acquire) + CYCLES_PER_LIFE;
        let goes_on = async {
            while cycles.load(Ordering::Acquire) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let went_on = tokio::time::timeout(Duration::from_secs(60), goes_on).await;
        went_on.unwrap_or_else(|_| panic!("no cycle is taken after {killed} kills"));
        tokio::time::sleep(Duration::from_micros(random.random_range(0..10_000))).await;
        server.kill();
        place.send_replace(None);
        let (next, address) = life.spawn().await;
        server = next;
        place.send_replace(Some(address));
    }
    let done = async {
        while let Some(ended) = movers.join_next().await {
            ended.unwrap()
        }
    };
    tokio::time::timeout(Duration::from_secs(120), done).await.expect("cycles end");
    let address = watching.borrow().clone().unwrap();
    let groups = ask(&address, "GET", "/api/v1/consumer-groups", &Value::Null).await.unwrap();
    assert_eq!(groups[0]["totalLag"], 0, "everything is settled: {groups}");
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let path = "/api/v1/pop/queue/out?batch=1000&partitions=10&autoAck=true";
    loop {
        let popped = ask(&address, "GET", path, &Value::Null).await.unwrap();
        let Some(messages) = popped["messages"].as_array().filter(|it| !it.is_empty()) else {
            break;
        };
        for it in messages {
            let partition = it["partition"].as_str().unwrap().to_owned();
            found.entry(partition).or_default().push(it["data"].as_u64().unwrap());
        }
    }
    let path = "/api/v1/resources/partitions?queue=in";
    let listed = ask(&address, "GET", path, &Value::Null).await.unwrap();
    assert_eq!(listed["partitions"].as_array().unwrap().len() as u64, PARTITIONS);
    for partition in listed["partitions"].as_array().unwrap() {
        let name = partition["name"].as_str().unwrap();
        let first: u64 = name.trim_start_matches('p').parse().unwrap();
        let all: Vec<u64> = (first..MESSAGES).step_by(PARTITIONS as usize).collect();
        assert_eq!(found[name], all, "each once and in order in {name}");
        let ask_for =
            json!({ "query_id": query, "partition_id": partition["id"], "keys": ["count"] });
        let state = ask(&address, "POST", "/streams/v1/state/get", &ask_for).await.unwrap();
        assert_eq!(state["rows"][0]["value"], all.len(), "counted once each in {name}: {state}");
    }
}
