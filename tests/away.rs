//! Servers whose database is away: what they say over HTTP meanwhile, that they start without it, and
//! what is there once it is back. On real servers of PostgreSQL.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

#[path = "http/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the HTTP door, which use all of it")]
mod client;
#[path = "support/proxy.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod proxy;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{Answer, World};
use onrush::config::{Secret, Settings};
use onrush_pgharness::{Cluster, Stop, installations};
use proxy::{Door, Proxy};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(60);
const MAINTENANCE: &str = "/api/v1/system/maintenance";

/// A cluster of each major.
fn clusters() -> Vec<Cluster> {
    installations().unwrap().iter().map(|it| Cluster::start(it).unwrap()).collect()
}

fn settings(url: &str) -> impl FnOnce(&mut Settings) + Send + use<> {
    let url = Secret::new(url);
    move |settings| {
        settings.database.url = url;
        settings.store.segment_bytes = 8 << 20;
    }
}

/// A server with a data folder of its own on a cluster's store.
async fn world(cluster: &Cluster) -> World {
    World::with(settings(&cluster.url("postgres"))).await
}

/// A message of the partition that these tests are about.
fn item(number: u64) -> Value {
    json!({ "queue": "q", "partition": "p", "transactionId": format!("t-{number}"),
            "payload": number })
}

/// Pushes a message; the status that it got.
async fn push(world: &World, number: u64) -> String {
    let told = world.push(json!([item(number)])).await;
    assert_eq!(told.status, 201, "{}", told.text());
    told.json()["messages"][0]["status"].as_str().unwrap().to_owned()
}

/// What became of a push.
struct Told {
    sent: Instant,
    took: Duration,
    status: String,
}

/// Producers that push one message after the other into partitions of their own, from number `from` on,
/// and somebody who asks after the server's health all the time, until it is over.
struct Load {
    is_over: Arc<AtomicBool>,
    producers: Vec<JoinHandle<Vec<Told>>>,
    asking: JoinHandle<()>,
}

impl Load {
    fn begin(world: &Arc<World>, from: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let producer = |producer: u64| {
            let (world, is_over) = (Arc::clone(world), Arc::clone(&is_over));
            tokio::spawn(async move {
                let (mut told, mut wire) = (Vec::new(), world.connect().await);
                while !is_over.load(Ordering::Relaxed) {
                    let number = from + producer * 1_000_000 + told.len() as u64;
                    let mut item = item(number);
                    item["partition"] = json!(format!("p{producer}"));
                    let body = json!({ "items": [item] }).to_string();
                    let sent = Instant::now();
                    let answer = wire.ask("POST", "/api/v1/push", &body).await;
                    let took = sent.elapsed();
                    assert_eq!(answer.status, 201, "{}", answer.text());
                    let status = answer.json()["messages"][0]["status"].as_str().unwrap().into();
                    told.push(Told { sent, took, status });
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                told
            })
        };
        let producers = (0..8).map(producer).collect();
        let (world, over) = (Arc::clone(world), Arc::clone(&is_over));
        let asking = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                world.get("/readyz?verbose").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { is_over, producers, asking }
    }

    /// Ends it; what became of all pushes, in the order of their answers.
    async fn end(self) -> Vec<Told> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for producer in self.producers {
            all.extend(producer.await.unwrap());
        }
        self.asking.await.unwrap();
        all.sort_by_key(|told| told.sent + told.took);
        all
    }
}

/// When the server knows that its store is away.
async fn when_noticed(world: &World) -> Instant {
    let deadline = Instant::now() + PATIENCE;
    while world.server.rooms().telemetry.store_away.get() == 0 {
        assert!(Instant::now() < deadline, "it is never noticed");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

/// Messages that wait in the failover log.
fn waiting(world: &World) -> u64 {
    world.server.rooms().telemetry.spill_waiting.get()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the store is there and nothing waits any more.
async fn drained(world: &World) {
    let away = &world.server.rooms().telemetry.store_away;
    until("the end of what waits", async || away.get() + waiting(world) == 0).await;
}

/// Numbers of the messages that are there for a group, settled at once.
async fn take(world: &World, group: &str) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let path = format!(
            "/api/v1/pop/queue/q?batch=100&partitions=10&autoAck=true&consumerGroup={group}\
             &subscriptionMode=all"
        );
        let popped = world.get(&path).await;
        if popped.status == 204 {
            return all;
        }
        assert_eq!(popped.status, 200, "{}", popped.text());
        let messages = popped.json()["messages"].as_array().unwrap().clone();
        if messages.is_empty() {
            return all;
        }
        all.extend(messages.iter().map(|it| it["data"].as_u64().unwrap()));
    }
}

/// That a request was refused for the store's sake, and says when to come back.
#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.head.to_lowercase().contains("retry-after:"), "{}", answer.head);
    assert_eq!(answer.json()["retryable"], json!(true), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_buffered_and_say_so_and_everything_else_is_refused() {
    for mut cluster in clusters() {
        let world = world(&cluster).await;
        assert_eq!(push(&world, 0).await, "pushed");
        let held = world.get("/api/v1/pop/queue/q?batch=1").await.json();
        let held = held["messages"][0].clone();
        cluster.kill_all();
        for (number, qos) in [(1, 1), (2, 2)] {
            let body = json!({ "items": [item(number)], "qos": qos });
            let told = world.post("/api/v1/push", &body).await;
            let json = told.json();
            assert_eq!((told.status, &json["pushed"]), (201, &json!(true)), "{json}");
            assert_eq!((&json["dbHealthy"], &json["qos0"]), (&json!(false), &json!(false)));
            let message = &json["messages"][0];
            assert_eq!(message["status"], "buffered");
            assert_eq!(message["transaction_id"], format!("t-{number}"));
        }
        // One that has no name gets one that it can be asked for by.
        let told =
            world.push(json!([{ "queue": "q", "partition": "p", "payload": 3 }])).await.json();
        let named = told["messages"][0]["transaction_id"].as_str().unwrap().to_owned();
        assert_eq!((&told["messages"][0]["status"], named.len()), (&json!("buffered"), 36));
        // And what is only promised to be flushed is flushed, to the failover log.
        let body = json!({ "items": [item(4)], "qos0": true });
        let told = world.post("/api/v1/push", &body).await.json();
        assert_eq!(
            (&told["qos0"], &told["messages"][0]["status"]),
            (&json!(true), &json!("buffered"))
        );
        until("the flush of QoS 0", async || waiting(&world) == 4).await;
        let metrics = world.get("/metrics").await.json();
        assert_eq!(metrics["database"]["healthy"], json!(false));
        assert_eq!(metrics["file_buffer"]["pending"], json!(4));
        let ready = world.get("/readyz?verbose").await;
        let checks = ready.json()["checks"].clone();
        assert_eq!((ready.status, &checks["failover"]), (200, &json!("in use")), "{checks}");
        assert_eq!(checks["store"], "failed");
        assert_eq!(world.get("/health").await.json()["database"], "disconnected");
        assert_unavailable(&world.get("/api/v1/pop/queue/q").await);
        let ack = json!({ "transactionId": held["transactionId"], "status": "completed",
            "partitionId": held["partitionId"], "leaseId": held["leaseId"] });
        assert_unavailable(&world.post("/api/v1/ack", &ack).await);
        assert_unavailable(&world.post("/api/v1/configure", &json!({ "queue": "new" })).await);
        cluster.start_again().unwrap();
        drained(&world).await;
        assert_eq!(world.post("/api/v1/ack", &ack).await.status, 200, "it is still held");
        assert_eq!(push(&world, 5).await, "pushed");
        assert_eq!(push(&world, 1).await, "duplicate");
        assert_eq!(take(&world, "new").await, [0, 1, 2, 3, 4, 5]);
        let path = "/api/v1/pop/queue/q?batch=100&autoAck=true";
        let rest = world.get(path).await.json();
        let rest = rest["messages"].as_array().unwrap().clone();
        assert_eq!(
            rest.iter().map(|it| it["data"].as_u64().unwrap()).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5]
        );
        let by_name = rest.iter().find(|it| it["data"] == 3).unwrap();
        assert_eq!(by_name["transactionId"], named);
        assert_eq!(world.get("/metrics").await.json()["database"]["healthy"], json!(true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_while_its_database_is_away_takes_pushes() {
    for mut cluster in clusters() {
        let first = world(&cluster).await;
        for number in 0..3 {
            assert_eq!(push(&first, number).await, "pushed");
        }
        let resting = first.stop().await;
        cluster.stop(Stop::Fast);
        let second = resting.start().await;
        for number in 3..5 {
            assert_eq!(push(&second, number).await, "buffered");
        }
        let told = second.push(json!([item(5)])).await.json();
        assert_eq!(told["dbHealthy"], json!(false), "{told}");
        assert_eq!(second.get("/readyz").await.status, 200);
        assert_unavailable(&second.get("/api/v1/pop/queue/q").await);
        assert_unavailable(&second.push(json!([{ "queue": "unknown", "payload": 1 }])).await);
        // And once more, with what waits.
        let third = second.stop().await.start().await;
        assert_eq!(waiting(&third), 3);
        assert_eq!(push(&third, 6).await, "buffered");
        cluster.start_again().unwrap();
        drained(&third).await;
        assert_eq!(push(&third, 4).await, "duplicate");
        assert_eq!(push(&third, 7).await, "pushed");
        assert_eq!(take(&third, "a").await, (0..8).collect::<Vec<_>>());
        // What it wrote down since is what the store has.
        let fourth = third.stop().await.start().await;
        assert_eq!(take(&fourth, "b").await, (0..8).collect::<Vec<_>>());
        fourth.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_did_before_is_known_when_the_database_is_back() {
    let mut cluster = clusters().remove(0);
    let sleeper = world(&cluster).await;
    for number in 0..3 {
        assert_eq!(push(&sleeper, number).await, "pushed");
    }
    let resting = sleeper.stop().await;
    let other = world(&cluster).await;
    for number in 3..6 {
        assert_eq!(push(&other, number).await, "pushed");
    }
    assert_eq!(take(&other, "g").await, (0..6).collect::<Vec<_>>());
    other.post("/api/v1/configure", &json!({ "queue": "new" })).await;
    other.stop().await;
    cluster.kill_all();
    let sleeper = resting.start().await;
    // One that it cannot know to be there, and one that nobody has seen.
    assert_eq!(push(&sleeper, 4).await, "buffered");
    assert_eq!(push(&sleeper, 6).await, "buffered");
    assert_unavailable(&sleeper.push(json!([{ "queue": "new", "payload": 1 }])).await);
    cluster.start_again().unwrap();
    drained(&sleeper).await;
    let told = sleeper.push(json!([{ "queue": "new", "payload": 1 }])).await.json();
    assert_eq!(told["messages"][0]["status"], "pushed");
    assert_eq!(take(&sleeper, "g").await, [6]);
    assert_eq!(take(&sleeper, "h").await, (0..7).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_never_met_the_store_waits_for_the_database() {
    let mut cluster = clusters().remove(0);
    let url = cluster.url("postgres");
    cluster.stop(Stop::Fast);
    let mut starting = tokio::spawn(World::with(settings(&url)));
    // Longer than it takes one that has.
    let early = tokio::time::timeout(Duration::from_secs(4), &mut starting).await;
    assert!(early.is_err(), "it began with nothing");
    cluster.start_again().unwrap();
    let world = starting.await.unwrap();
    assert_eq!(push(&world, 0).await, "pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_for_a_store_in_whose_place_there_is_another() {
    let mut cluster = clusters().remove(0);
    let first = world(&cluster).await;
    assert_eq!(push(&first, 0).await, "pushed");
    let mut resting = first.stop().await;
    for is_there in [false, true] {
        cluster.sql("postgres", "DROP SCHEMA IF EXISTS onrush CASCADE").unwrap();
        if is_there {
            let other = world(&cluster).await;
            assert_eq!(push(&other, 90).await, "pushed");
            other.stop().await;
        }
        cluster.stop(Stop::Fast);
        let ours = resting.start().await;
        assert_eq!(push(&ours, 1).await, "buffered");
        let kept = waiting(&ours);
        cluster.start_again().unwrap();
        let telemetry = ours.server.rooms().telemetry.clone();
        until("word of another store", async || telemetry.store_other.get() == 1).await;
        let told = ours.push(json!([item(2)])).await;
        assert_eq!((told.status, &told.json()["code"]), (500, &json!("poisoned")));
        assert!(
            told.json()["error"].as_str().unwrap().contains("another store"),
            "{}",
            told.text()
        );
        assert_eq!(ours.get("/readyz").await.status, 503);
        assert_eq!(waiting(&ours), kept, "what was answered for is kept");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'onrush'";
        let tables: u64 = cluster.sql("postgres", tables).unwrap().parse().unwrap();
        assert_eq!(tables > 0, is_there, "nothing was made in its place");
        resting = ours.stop().await;
    }
    // Started while the other one can be reached, it works on that one.
    let ours = resting.start().await;
    assert_eq!(take(&ours, "g").await, [90]);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_is_seen_by_other_servers_and_lasts_over_restarts() {
    let cluster = clusters().remove(0);
    let (one, two) = (world(&cluster).await, world(&cluster).await);
    assert_eq!(push(&one, 0).await, "pushed");
    let pop_path = format!("{MAINTENANCE}/pop");
    let set = async |world: &World, path: &str, enabled: bool| {
        assert_eq!(world.post(path, &json!({ "enabled": enabled })).await.status, 200);
    };
    let both = async |world: &World| {
        let (push, pop) = (world.get(MAINTENANCE).await, world.get(&pop_path).await);
        (push.json()["maintenanceMode"] == true, pop.json()["popMaintenanceMode"] == true)
    };
    set(&one, MAINTENANCE, true).await;
    set(&one, &pop_path, true).await;
    until("word at the other server", async || both(&two).await == (true, true)).await;
    let told = two.push(json!([item(1)])).await.json();
    assert_eq!(
        (&told["messages"][0]["status"], &told["dbHealthy"]),
        (&json!("buffered"), &json!(true))
    );
    assert!(take(&two, "g").await.is_empty());
    // Of all servers, none of which is there in between.
    let (one, two) = (one.stop().await, two.stop().await);
    let (one, two) = (one.start().await, two.start().await);
    assert_eq!((both(&one).await, both(&two).await), ((true, true), (true, true)));
    assert_eq!((take(&one, "g").await, waiting(&two)), (vec![], 1));
    set(&two, &pop_path, false).await;
    until("word at the other server", async || both(&one).await == (true, false)).await;
    assert_eq!(take(&one, "g").await, [0]);
    set(&one, MAINTENANCE, false).await;
    until("word at the other server", async || both(&two).await == (false, false)).await;
    drained(&two).await;
    assert_eq!(take(&one, "g").await, [1]);
    assert_eq!(push(&two, 2).await, "pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_noticed_in_time_and_then_nobody_waits_for_it() {
    // As long as it may take until the server knows.
    let outages = [(Door::Shut, Duration::from_secs(1)), (Door::Swallows, Duration::from_secs(5))];
    for cluster in clusters() {
        let proxy = Proxy::open(([127, 0, 0, 1], cluster.port()).into()).await;
        let url = format!("postgresql://postgres@{}/postgres", proxy.addr);
        let world = Arc::new(World::with(settings(&url)).await);
        let mut count = 1;
        assert_eq!(push(&world, 0).await, "pushed");
        for (round, (door, limit)) in (1_u64..).zip(outages) {
            // While nothing is asked of it but what it asks by itself.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let began = Instant::now();
            proxy.set(door);
            if door == Door::Swallows {
                // By now it may be at that.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let (status, noticed) = tokio::join!(push(&world, count), when_noticed(&world));
            assert_eq!(status, "buffered");
            assert!(noticed <= began + limit, "{door:?}, idle: {:?}", noticed - began);
            count += 1;
            proxy.set(Door::Open);
            drained(&world).await;

            let load = Load::begin(&world, round * 10_000_000);
            tokio::time::sleep(Duration::from_millis(1_000)).await;
            let began = Instant::now();
            proxy.set(door);
            let noticed = when_noticed(&world).await;
            assert!(noticed <= began + limit, "{door:?}, loaded: {:?}", noticed - began);
            tokio::time::sleep(limit + Duration::from_secs(3)).await;
            let told = load.end().await;
            proxy.set(Door::Open);
            drained(&world).await;
            let after: Vec<&Told> = told.iter().filter(|it| it.sent > noticed).collect();
            assert!(after.iter().all(|it| it.status == "buffered"));
            let slowest = after.iter().map(|it| it.took).max().unwrap();
            // A question to the database that nobody answers would take longer than that.
            assert!(slowest < Duration::from_secs(2), "{door:?}: {slowest:?} for one push");
            count += told.len() as u64;
        }
        assert_eq!(take(&world, "g").await.len() as u64, count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_can_only_be_read_is_not_back() {
    for cluster in clusters() {
        let world = world(&cluster).await;
        assert_eq!(push(&world, 0).await, "pushed");
        // As the guard of a disk that is nearly full does: connections stay.
        let read_only = |is_on: bool| {
            let how = if is_on { "on" } else { "off" };
            let set = format!("ALTER SYSTEM SET default_transaction_read_only = {how}");
            cluster.sql("postgres", &set).unwrap();
            cluster.sql("postgres", "SELECT pg_reload_conf()").unwrap();
        };
        read_only(true);
        let telemetry = world.server.rooms().telemetry.clone();
        let (mut number, mut buffered) = (1, 0);
        let over = Instant::now() + Duration::from_secs(5);
        while Instant::now() < over {
            buffered += u64::from(push(&world, number).await == "buffered");
            number += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let outages = telemetry.outages.get();
        assert!(buffered > 0 && outages <= 3, "{buffered} buffered, away {outages} times");
        assert_eq!(telemetry.store_away.get(), 1);
        read_only(false);
        drained(&world).await;
        assert_eq!(take(&world, "g").await, (0..number).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_cannot_be_made_again_does_not_make_the_database_away() {
    let cluster = clusters().remove(0);
    cluster.sql("postgres", "CREATE ROLE app LOGIN").unwrap();
    cluster.sql("postgres", "GRANT CREATE ON DATABASE postgres TO app").unwrap();
    let url = cluster.url("postgres").replace("postgres@", "app@");
    let world = World::with(settings(&url)).await;
    assert_eq!(push(&world, 0).await, "pushed");
    // As on a server that has no room left. All that append are gone but the one that came last.
    cluster.sql("postgres", "ALTER ROLE app NOLOGIN").unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM ( \
                   SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%writer' \
                    ORDER BY backend_start DESC OFFSET 1) AS most";
    assert_eq!(cluster.sql("postgres", end).unwrap(), "7");
    let open = async || {
        let database = world.get("/metrics").await.json()["database"].clone();
        let of = |kind: &str| database[kind].as_u64().unwrap();
        of("connections_active") + of("connections_idle")
    };
    until("word of that", async || open().await <= 4).await;
    let over = Instant::now() + Duration::from_secs(2);
    let mut number = 1;
    while Instant::now() < over {
        assert_eq!(push(&world, number).await, "pushed");
        number += 1;
    }
    assert_eq!(world.server.rooms().telemetry.outages.get(), 0);
    cluster.sql("postgres", "ALTER ROLE app LOGIN").unwrap();
    until("the others", async || open().await > 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_taken_back_is_not_used_and_whoever_looks_is_told() {
    let mut cluster = clusters().remove(0);
    let world = world(&cluster).await;
    for number in 0..4 {
        assert_eq!(push(&world, number).await, "pushed");
    }
    // As a standby has it that lagged by one commit when it took over.
    let newest = "(SELECT max(head) FROM onrush.heads)";
    let back = format!(
        "DELETE FROM onrush.log USING onrush.heads \
          WHERE heads.head = {newest} AND log.shard = heads.shard AND log.head = heads.head - 1; \
         UPDATE onrush.heads SET head = head - 1 WHERE head = {newest}"
    );
    cluster.sql("postgres", &back).unwrap();
    cluster.stop(Stop::Fast);
    assert_eq!(push(&world, 4).await, "buffered");
    cluster.start_again().unwrap();
    let telemetry = world.server.rooms().telemetry.clone();
    until("word of that", async || telemetry.store_taken_back.get() == 1).await;
    let ready = world.get("/readyz?verbose").await;
    let checks = ready.json()["checks"].clone();
    assert_eq!((ready.status, &checks["store"]), (200, &json!("taken back")), "{checks}");
    let page = world.get("/metrics/prometheus").await;
    assert!(page.text().contains("\nmq_store_taken_back 1\n"), "{}", page.text());
    assert_eq!(push(&world, 5).await, "buffered");
    let world = world.restart().await;
    drained(&world).await;
    assert_eq!(take(&world, "g").await, [0, 1, 2, 4, 5]);
    assert_eq!(world.get("/readyz?verbose").await.json()["checks"]["store"], "ok");
}

/// The file below a folder that has these bytes in it, and where.
fn find(folder: &Path, bytes: &[u8]) -> Option<(PathBuf, usize)> {
    std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return find(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap();
        let at = content.windows(bytes.len()).position(|it| it == bytes)?;
        Some((path, at))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_cannot_be_read_on_is_told_and_stays() {
    let mut cluster = clusters().remove(0);
    let world = world(&cluster).await;
    assert_eq!(push(&world, 0).await, "pushed");
    cluster.kill_all();
    for number in 1..4 {
        assert_eq!(push(&world, number).await, "buffered");
    }
    let (path, at) = find(world.folder.path(), b"t-2").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", at as u64).unwrap();
    cluster.start_again().unwrap();
    let telemetry = world.server.rooms().telemetry.clone();
    until("word of the damage", async || telemetry.spill_unreadable.get() == 1).await;
    until("the end of what can be read", async || waiting(&world) == 2).await;
    let ready = world.get("/readyz?verbose").await;
    assert_eq!((ready.status, &ready.json()["checks"]["failover"]), (200, &json!("unreadable")));
    let page = world.get("/metrics/prometheus").await;
    assert!(page.text().contains("\nmq_failover_unreadable 1\n"), "{}", page.text());
    // Whatever waits behind it: nothing overtakes it.
    assert_eq!(push(&world, 4).await, "buffered");
    assert_eq!(take(&world, "g").await, [0, 1]);
}
