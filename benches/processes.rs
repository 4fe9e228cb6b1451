//! What processes get done over a real server with durable commits: chains, rings, fans, ledgers, and how
//! soon they go on after a kill.
//!
//! In: names of what is to be measured, all unless given (`chain ring fan hot many recovery`); sizes in
//! `CHAIN`, `LAPS`, `FANS`, `HOT` (slots of one ledger) and `MANY` (slots of each of a hundred). The
//! server is a process of its own: the release build beside this bench, or `SERVER_BIN`. Out: the machine,
//! the floor of its disk, and a row each. What came of it is checked: slots to the last one, balances,
//! answers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench may fail where it stands, and tells its figures"
)]

#[path = "rig/door.rs"]
mod door;
#[path = "../tests/support/process.rs"]
#[allow(dead_code, reason = "tests ask for more")]
mod process;
#[path = "../tests/support/seeds.rs"]
mod seeds;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use door::{Door, machine, syncs_per_second};
use onrush_client::{Client, Message};
use process::ServerProcess;
use seeds::number;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const LEDGER: &str = include_str!("../examples/processes/luau/ledger.luau");
/// The token of `alice`, who owns what the ledgers keep.
const TOKEN: &str = "a-token-of-this-bench-alone";
const SUPPLY: u64 = 1 << 50;
/// Ledgers beside each other.
const LEDGERS: usize = 100;
/// Messages of a push, and pushes under way, into ledgers.
const BATCH: usize = 256;
const IN_FLIGHT: usize = 8;
/// Processes of the ring, and of the fan.
const WIDTH: u64 = 1_000;
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of the smallest append that is measured.
const PAGE: usize = 4096;

/// A server, and ways to ask it.
struct World {
    server: ServerProcess,
    tcp: String,
    door: Door,
}

impl World {
    async fn start(folder: &Path) -> Self {
        let hash = digest(&SHA256, TOKEN.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let tokens = format!("auth.tokens=alice:admin:{hash}");
        let mut server = ServerProcess::spawn_with(folder, &[tokens.as_str()]);
        let tcp = server.listening().await.to_string();
        let door = Door::open(&server.http_url(), TOKEN);
        Self { server, tcp, door }
    }

    fn define(&mut self, class: &str, runtime: &str, module: &str) {
        let limits = json!({ "hops": 0, "messages": 10_000_000 });
        let body = json!({ "runtime": runtime, "module": module, "limits": limits });
        self.door.ask("PUT", &format!("/api/v1/processes/{class}"), &body);
    }

    fn push(&mut self, process: &str, message: &Value, level: &str) -> Value {
        let body = json!({ "message": message, "await": level, "timeoutMs": 600_000 });
        self.door.ask("POST", &format!("/api/v1/processes/{process}/push"), &body)
    }

    /// Slots of a process that are evaluated.
    fn evaluated(&mut self, process: &str) -> u64 {
        let shown = self.door.get(&format!("/api/v1/processes/{process}"));
        shown["evaluated"].as_u64().unwrap()
    }

    fn state(&mut self, process: &str, key: &str) -> Value {
        self.door.get(&format!("/api/v1/processes/{process}/state/{key}"))
    }

    /// Waits until a process is done with so many slots; returns the most memory that the server had of
    /// its own at the first tenth of them, and at any time after that, MiB.
    fn wait(&mut self, process: &str, slots: u64) -> (u64, u64) {
        let (mut early, mut late) = (0, 0);
        loop {
            let done = self.evaluated(process);
            let memory = self.server.memory_bytes() >> 20;
            match done <= slots / 10 {
                true => early = early.max(memory),
                false => late = late.max(memory),
            }
            if done >= slots {
                assert_eq!(done, slots, "{process}");
                return (early, late);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Appends to the log so far, and its bytes.
    fn log(&mut self) -> (u64, u64) {
        let figures = self.door.get("/metrics");
        let of = |name: &str| figures["log"][name].as_u64().unwrap();
        (of("commits"), of("bytes"))
    }

    /// The time from a message's push until its evaluation of slots all over a process, ms: p50, p99.
    fn delays(&mut self, process: &str, slots: u64) -> (i64, i64) {
        let mut delays = Vec::new();
        for from in (0..slots).step_by((slots as usize / 20).max(1)) {
            let path = format!("/api/v1/processes/{process}/slots?from={from}&limit=100");
            let page = self.door.get(&path);
            for slot in page["slots"].as_array().unwrap() {
                let of = |name: &str| slot["result"][name].as_i64().unwrap();
                delays.push(of("evaluated_ms") - of("pushed_ms"));
            }
        }
        delays.sort_unstable();
        (delays[(delays.len() - 1) / 2], delays[(delays.len() - 1) * 99 / 100])
    }
}

/// What was measured, and the floor beside it.
struct Measured<'a> {
    folder: &'a Path,
    what: String,
    slots: u64,
    took: Duration,
    log: ((u64, u64), (u64, u64)),
}

impl Measured<'_> {
    fn print(self, more: &str) {
        let Self { folder, what, slots, took, log: (before, after) } = self;
        let (seconds, appends) = (took.as_secs_f64(), after.0 - before.0);
        let bytes = (after.1 - before.1) / appends.max(1);
        let floor = syncs_per_second(folder, bytes as usize);
        let rate = appends as f64 / seconds;
        println!(
            "| {what} | {slots} | {seconds:.2} | {:.0} | {rate:.0} | {:.2} | {bytes} | {floor:.0} | {more} |",
            slots as f64 / seconds,
            slots as f64 / appends.max(1) as f64,
        );
    }
}

async fn chain(world: &mut World, folder: &Path) {
    let slots = number("CHAIN", 100_000_u64);
    world.define("pingpong", "native", "pingpong");
    let (log, began) = (world.log(), Instant::now());
    world.push("pingpong/chain", &json!({ "start": true, "limit": slots - 2 }), "accepted");
    let (early, late) = world.wait("pingpong/chain", slots);
    let (took, log) = (began.elapsed(), (log, world.log()));
    let (p50, p99) = world.delays("pingpong/chain", slots);
    let what = "a process that pings itself".to_owned();
    let memory = format!("{early} MiB in the first tenth, {late} MiB at most after it");
    let more = format!("{memory}; a hop p50 {p50} ms, p99 {p99} ms");
    Measured { folder, what, slots, took, log }.print(&more);
}

async fn ring(world: &mut World, folder: &Path) {
    let slots = WIDTH * number("LAPS", 20_u64) + 1;
    world.define("ring", "native", "ring");
    let (log, began) = (world.log(), Instant::now());
    let laps = (slots - 1) / WIDTH;
    let done = world.push("ring/0", &json!({ "size": WIDTH, "laps": laps }), "cascade");
    let (took, log) = (began.elapsed(), (log, world.log()));
    assert_eq!((&done["complete"], &done["stats"]["messages"]), (&json!(true), &json!(slots)));
    let what = format!("a ring of {WIDTH} processes, {laps} laps");
    Measured { folder, what, slots, took, log }.print("the first lap makes them");
}

async fn fan(world: &mut World, folder: &Path) {
    let fans = number("FANS", 10_u64);
    world.define("fan", "native", "fan");
    let message = json!({ "count": WIDTH, "class": "fan", "prefix": "leaf" });
    // The first one makes the processes.
    let mut took = Vec::new();
    let (mut log, mut began) = (world.log(), Instant::now());
    for at in 0..=fans {
        let one = Instant::now();
        let done = world.push("fan/root", &message, "cascade");
        assert_eq!((&done["complete"], &done["status"]), (&json!(true), &json!("ok")));
        assert_eq!(done["stats"]["messages"], json!(2 * WIDTH + 1));
        took.push(one.elapsed());
        if at == 0 {
            (log, began) = (world.log(), Instant::now());
        }
    }
    let (all, log) = (began.elapsed(), (log, world.log()));
    assert_eq!(world.state("fan/root", "back"), json!(WIDTH * (fans + 1)));
    let first = took.remove(0);
    took.sort_unstable();
    let what = format!("a fan 1 → {WIDTH} → 1, {fans} times");
    let more =
        format!("one fan {:?} in the middle, the very first {first:?}", took[took.len() / 2]);
    Measured { folder, what, slots: fans * (2 * WIDTH + 1), took: all, log }.print(&more);
}

/// Transfers in ledgers, whose accounts are filled from the root's.
async fn ledgers(world: &mut World, folder: &Path, class: &str, ledgers: usize, each: u64) {
    world.define(class, "luau", LEDGER);
    let root = format!("{class}/root");
    let mint = json!({ "action": "mint", "to": "alice", "quantity": SUPPLY });
    world.push(&root, &mint, "cascade");
    let mut keys = vec!["root".to_owned()];
    if ledgers > 1 {
        keys = (0..ledgers).map(|at| format!("l{at}")).collect();
        for key in &keys {
            let fund = json!({ "action": "transfer", "to": "alice", "quantity": each,
                "via": format!("{class}/{key}") });
            assert_eq!(world.push(&root, &fund, "cascade")["status"], "ok");
        }
    }
    let client = Client::builder().addr(&world.tcp).token(TOKEN).connect().await.unwrap();
    let transfer = Message::json(&json!({ "action": "transfer", "to": "bob", "quantity": 1 }));
    let (log, began) = (world.log(), Instant::now());
    let slots = each * ledgers as u64;
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    for from in (0..each).step_by(BATCH) {
        for key in &keys {
            let place = Arc::clone(&room).acquire_owned().await.unwrap();
            let count = BATCH.min((each - from) as usize);
            let partition = client.queue(class).partition(key);
            let messages = vec![transfer.clone(); count];
            tokio::spawn(async move {
                partition.push(messages).await.unwrap();
                drop(place);
            });
        }
    }
    let _all = room.acquire_many(IN_FLIGHT as u32).await.unwrap();
    let pushed = began.elapsed();
    for key in &keys {
        // The mint, or the credit, came first.
        world.wait(&format!("{class}/{key}"), each + 1);
    }
    let (took, log) = (began.elapsed(), (log, world.log()));
    let mut paid = 0;
    for key in &keys {
        let bob = world.state(&format!("{class}/{key}"), "account%2Fbob");
        paid += bob.as_u64().unwrap();
    }
    assert_eq!(paid, slots, "what bob has");
    let (p50, p99) = world.delays(&format!("{class}/{}", keys[0]), each);
    let what = format!("transfers in Luau, {ledgers} ledgers");
    let waited = format!("from push to evaluation p50 {p50} ms, p99 {p99} ms");
    let more = format!("all pushed after {:.2} s; {waited}", pushed.as_secs_f64());
    Measured { folder, what, slots, took, log }.print(&more);
}

/// A kill in the middle of a chain: how soon the server listens, and the chain goes on.
async fn recovery(mut world: World, folder: &Path) -> World {
    const SLOTS: u64 = 20_000;
    world.define("killed", "native", "pingpong");
    world.push("killed/a", &json!({ "start": true, "limit": SLOTS - 2 }), "accepted");
    while world.evaluated("killed/a") < SLOTS / 4 {
        std::thread::sleep(LOOK);
    }
    let (_, bytes) = world.log();
    let before = world.evaluated("killed/a");
    world.server.kill();
    drop(world);
    let began = Instant::now();
    let mut world = World::start(folder).await;
    let listens = began.elapsed();
    let at_start = world.evaluated("killed/a");
    assert!(at_start >= before, "{at_start} slots of {before}");
    while world.evaluated("killed/a") <= at_start {
        std::thread::sleep(Duration::from_millis(1));
    }
    let goes_on = began.elapsed();
    world.wait("killed/a", SLOTS);
    println!(
        "\nkilled after {} MiB of log: listens after {listens:?}, evaluates on after {goes_on:?}; \
         the chain ended with its {SLOTS} slots",
        bytes >> 20
    );
    world
}

async fn measure(asked: &[String]) {
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|it| it == name);
    let folder = tempfile::Builder::new().tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let mut world = World::start(folder.path()).await;
    let folder = folder.path();
    println!("{}; {}", machine(), process::binary().display());
    println!("fdatasync of {PAGE} bytes: {:.0} a second\n", syncs_per_second(folder, PAGE));
    println!(
        "| what | slots | s | slots/s | appends/s | slots an append | bytes an append | floor: such appends/s | more |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    if wants("chain") {
        chain(&mut world, folder).await;
    }
    if wants("ring") {
        ring(&mut world, folder).await;
    }
    if wants("fan") {
        fan(&mut world, folder).await;
    }
    if wants("hot") {
        ledgers(&mut world, folder, "hot", 1, number("HOT", 100_000_u64)).await;
    }
    if wants("many") {
        ledgers(&mut world, folder, "many", LEDGERS, number("MANY", 3_000_u64)).await;
    }
    if wants("recovery") {
        world = recovery(world, folder).await;
    }
    println!("{} MiB of memory in the end", world.server.memory_bytes() >> 20);
    world.server.terminate();
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with("--")).collect();
    tokio::runtime::Runtime::new().unwrap().block_on(measure(&asked));
}
