//! PV-18 in full: a long chain has exactly its slots, takes no memory for its length, and goes on after a
//! kill where it was.
//!
//! `CHAIN` says how long it is. For the figures of the README run it with 100,000 against a release build:
//! `CHAIN=100000 SERVER_BIN=target/release/onrush cargo test --test process_scale -- --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;
#[path = "support/seeds.rs"]
mod seeds;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use process::ServerProcess;
use seeds::number;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// What a chain may take for its length.
const GROWTH_MAX: u64 = 32 * MIB;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Without what is bounded by settings of its own: it would hide what a chain costs.
const SETTINGS: &[&str] = &["store.hot_tail_bytes=4MiB", "store.checkpoint_interval_ms=500"];

struct World {
    server: ServerProcess,
    url: String,
}

impl World {
    async fn start(folder: &Path) -> Self {
        let mut server = ServerProcess::spawn_with(folder, SETTINGS);
        server.listening().await;
        let url = server.http_url();
        Self { server, url }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    fn begin(&self, key: &str, slots: u64) -> String {
        let message = json!({ "start": true, "limit": slots - 2 });
        let body = json!({ "message": message, "await": "accepted" });
        let pushed = self.ask("POST", &format!("/api/v1/processes/chain/{key}/push"), &body);
        pushed["push_id"].as_str().unwrap().to_owned()
    }

    fn evaluated(&self, key: &str) -> u64 {
        let shown = self.ask("GET", &format!("/api/v1/processes/chain/{key}"), &Value::Null);
        shown["evaluated"].as_u64().unwrap()
    }

    fn check(&self, push: &str, slots: u64) {
        let path = format!("/api/v1/pushes/{push}?wait=60000");
        let done = self.ask("GET", &path, &Value::Null);
        assert_eq!((&done["complete"], &done["status"]), (&json!(true), &json!("ok")), "{done}");
        assert_eq!(done["stats"]["messages"], slots, "{done}");
        assert_eq!(done["stats"]["depth"], slots - 1, "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pv_18_a_chain_of_any_length_takes_no_memory_and_survives_a_kill() {
    let slots = number("CHAIN", 3_000_u64);
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path()).await;
    let limits = json!({ "hops": 0, "messages": 2 * slots });
    let class = json!({ "runtime": "native", "module": "pingpong", "limits": limits });
    world.ask("PUT", "/api/v1/processes/chain", &class);

    let (began, push) = (Instant::now(), world.begin("a", slots));
    let (mut early, mut late) = (0, 0);
    loop {
        let (done, memory) = (world.evaluated("a"), world.server.memory_bytes());
        match done <= slots / 10 {
            true => early = early.max(memory),
            false => late = late.max(memory),
        }
        if done == slots {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let took = began.elapsed();
    println!(
        "{slots} slots in {took:?}; {} MiB in the first tenth, {} MiB at most after it",
        early / MIB,
        late / MIB
    );
    world.check(&push, slots);
    assert!(late < early + GROWTH_MAX, "{early} and {late} bytes");

    let push = world.begin("b", slots);
    while world.evaluated("b") < slots / 4 {
        std::thread::sleep(LOOK);
    }
    world.server.kill();
    let began = Instant::now();
    let world = World::start(folder.path()).await;
    let listens = began.elapsed();
    let at_start = world.evaluated("b");
    assert!(at_start >= slots / 4, "{at_start} slots are left");
    while world.evaluated("b") == at_start {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("killed: listens after {listens:?}, evaluates on after {:?}", began.elapsed());
    while world.evaluated("b") < slots {
        std::thread::sleep(LOOK);
    }
    world.check(&push, slots);
}
