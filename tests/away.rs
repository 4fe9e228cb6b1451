//! Servers whose database is away: what they say over HTTP meanwhile, that they start without it, and
//! what is there once it is back. On real servers of PostgreSQL.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

#[path = "http/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the HTTP door, which use all of it")]
mod client;

use std::time::{Duration, Instant};

use client::{Answer, World};
use onrush::config::{Secret, Settings};
use onrush_pgharness::{Cluster, Stop, installations};
use serde_json::{Value, json};

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
