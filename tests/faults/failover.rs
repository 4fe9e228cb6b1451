//! Rows A13 and A14: what waits in the failover log is encrypted once, keeps its order and what its
//! producer was told, survives a power cut, and is bounded; nothing is deleted because nobody reads it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use onrush::base::files::DiskFiles;
use onrush::base::sim::{SimDisk, Survival};
use onrush::config::Secret;
use onrush::failover::record::Spilled;
use onrush::failover::{Config, Spill, SpillError};
use onrush::journal::{self, Journal};
use onrush::state::draft::push::PushBatch;
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::qos::Qos;
use serde_json::{Value, json};

use crate::client::World;

async fn hold_back(world: &World, enabled: bool) {
    let answer = world.post("/api/v1/system/maintenance", &json!({ "enabled": enabled })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The failover log's folder, or that of what was set aside.
fn folder(world: &World, is_wanted: impl Fn(&str) -> bool) -> PathBuf {
    let folders = std::fs::read_dir(world.folder.path()).unwrap();
    let names = folders.map(|it| it.unwrap().file_name().into_string().unwrap());
    let name = names.into_iter().find(|name| name.starts_with("failover") && is_wanted(name));
    world.folder.path().join(name.unwrap())
}

fn is_log(name: &str) -> bool {
    !name.ends_with("-quarantine")
}

async fn messages(world: &World, queue: &str, partition: &str) -> Vec<Value> {
    let path = format!(
        "/api/v1/pop/queue/{queue}/partition/{partition}?batch=100&wait=true&timeout=60000&autoAck=true"
    );
    let answer = world.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["messages"].as_array().unwrap().clone()
}

/// Messages of a partition until there are so many.
async fn all_messages(world: &World, queue: &str, partition: &str, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(messages(world, queue, partition).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_replay_encrypts_once_keeps_ids_and_nothing_overtakes_what_waited() {
    let key = Secret::new("5a".repeat(32));
    let world = World::with(|settings| settings.encryption.key = key).await;
    let body = json!({ "queue": "secrets", "options": { "encryptionEnabled": true } });
    assert_eq!(world.post("/api/v1/configure", &body).await.status, 200);
    let item = |n: u32| {
        json!({ "queue": "secrets", "partition": "p", "transactionId": format!("t-{n}"),
                "payload": { "canary": format!("plain-{n}") } })
    };
    hold_back(&world, true).await;
    for n in 0..10 {
        let told = world.push(json!([item(n)])).await;
        assert_eq!((told.status, &told.json()["messages"][0]["status"]), (201, &json!("buffered")));
    }
    let world = world.restart().await;
    let waiting = world.get("/api/v1/system/maintenance").await.json();
    assert_eq!(waiting["bufferedMessages"], json!(10), "whoever looks must know that they wait");
    assert_eq!(world.get("/metrics").await.json()["file_buffer"]["pending"], json!(10));
    let log = folder(&world, is_log);
    for file in std::fs::read_dir(&log).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(9).any(|it| it == b"plain-3\"}"), "it waits encrypted");
    }
    hold_back(&world, false).await;
    // These come while the others wait still, or after them; never before them. And one of them again.
    for n in 10..20 {
        world.push(json!([item(n), item(n - 10)])).await;
    }
    let all = all_messages(&world, "secrets", "p", 20).await;
    let seen: Vec<String> =
        all.iter().map(|it| it["data"]["canary"].as_str().unwrap().into()).collect();
    assert_eq!(seen, (0..20).map(|n| format!("plain-{n}")).collect::<Vec<_>>());
    let ids: Vec<&str> = all.iter().map(|it| it["transactionId"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..20).map(|n| format!("t-{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_record_that_is_none_raises_the_alarm_at_the_start_that_finds_it() {
    let world = World::new().await;
    hold_back(&world, true).await;
    world.push(json!([{ "queue": "q", "partition": "p", "payload": 1 }])).await;
    let log = folder(&world, is_log);
    let resting = world.stop().await;
    // As a later version might write it.
    let files = Arc::new(DiskFiles::open(&log).unwrap());
    let config = journal::Config { segment_bytes: 16 << 20, ..journal::Config::default() };
    let (journal, _) = Journal::open(files, &config, None, &mut |_| {}).unwrap();
    let appended = journal.append(9, &[Bytes::from_static(b"not known here")]).unwrap();
    journal.sync_to(appended.end).unwrap();
    drop(journal);
    let world = resting.start().await;
    assert_eq!(world.get("/readyz?verbose").await.json()["checks"]["set_aside"], json!(1));
    let waiting = world.get("/api/v1/system/maintenance").await.json();
    assert_eq!(waiting["bufferStats"]["failedCount"], json!(1));
    assert_eq!(waiting["bufferedMessages"], json!(1));
    hold_back(&world, false).await;
    assert_eq!(messages(&world, "q", "p").await[0]["data"], 1, "it holds up nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_full_failover_log_refuses_with_507_and_keeps_what_it_has() {
    // More than one segment, which has 16 MiB, and less than two.
    let world = World::with(|settings| settings.failover.disk_bytes_max = 17 << 20).await;
    world.post("/api/v1/configure", &json!({ "queue": "q" })).await;
    hold_back(&world, true).await;
    let large = "x".repeat(200_000);
    let item = |n: u64| json!([{ "queue": "q", "partition": "p", "payload": [n, large] }]);
    let mut kept = 0;
    let refused = loop {
        let told = world.push(item(kept)).await;
        if told.status != 201 {
            break told;
        }
        assert_eq!(told.json()["messages"][0]["status"], "buffered");
        kept += 1;
        assert!(kept < 1_000, "nothing stops it");
    };
    let body = refused.json();
    assert_eq!((refused.status, &body["code"]), (507, &json!("disk_full")), "{body}");
    assert_eq!((&body["retryable"], &body["pushed"]), (&json!(true), &json!(false)), "{body}");
    assert_eq!(body["messages"][0]["status"], "failed");
    assert!(kept > 0);
    hold_back(&world, false).await;
    let all = all_messages(&world, "q", "p", kept as usize).await;
    let seen: Vec<u64> = all.iter().map(|it| it["data"][0].as_u64().unwrap()).collect();
    assert_eq!(seen, (0..kept).collect::<Vec<_>>(), "what was refused left nothing behind");
    assert_eq!(world.push(item(kept)).await.json()["messages"][0]["status"], "pushed");
}

fn spilled(text: &str) -> Spilled {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload: text.as_bytes(), ..NewRecord::default() }).unwrap();
    let push = PushBatch { batch: builder.finish().unwrap(), fingerprints: Vec::new(), sub: None };
    let (partition, qos) = ("p".parse().unwrap(), Qos::AtLeastOnce);
    Spilled { queue: 1, partition, qos, time_ms: 5, doubt: None, push }
}

fn config(disk_bytes_max: u64) -> Config {
    Config { segment_bytes: 64 << 10, disk_bytes_max }
}

#[test]
fn a14_what_the_failover_log_took_survives_a_power_cut() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let spill = Spill::open(disk.files(), config(u64::MAX), &mut |_| {}).unwrap();
        let texts: Vec<String> = (0..30).map(|n| format!("{seed}-{n}")).collect();
        for text in &texts {
            spill.write(&[spilled(text)]).unwrap();
        }
        disk.crash_with(Survival::None);
        drop(spill);
        let mut found = Vec::new();
        let opened = Spill::open(disk.files(), config(u64::MAX), &mut |waiting| {
            let batch = waiting.batch.unwrap().push.batch;
            found.extend(batch.records().map(|it| String::from_utf8(it.payload.to_vec()).unwrap()));
        });
        assert!(opened.is_ok());
        assert_eq!(found, texts, "seed {seed}: what was answered for is there without its cache");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_single_small_message_and_files_of_nobody_are_there_after_a_start() {
    let world = World::new().await;
    hold_back(&world, true).await;
    world.push(json!([{ "queue": "q", "partition": "p", "payload": 1 }])).await;
    let stray = folder(&world, is_log).join("a-write-that-never-ended.tmp");
    std::fs::write(&stray, b"{").unwrap();
    let world = world.restart().await;
    assert!(stray.exists(), "a start deletes nothing");
    hold_back(&world, false).await;
    assert_eq!(messages(&world, "q", "p").await[0]["data"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_batch_that_nobody_takes_is_set_aside_and_holds_up_nobody() {
    let world = World::new().await;
    for queue in ["gone", "stays"] {
        world.post("/api/v1/configure", &json!({ "queue": queue })).await;
    }
    hold_back(&world, true).await;
    world.push(json!([{ "queue": "gone", "partition": "p", "payload": "poison" }])).await;
    world.push(json!([{ "queue": "stays", "partition": "p", "payload": "fine" }])).await;
    let deleted = world.ask("DELETE", "/api/v1/resources/queues/gone", "").await;
    assert_eq!(deleted.status, 200);
    hold_back(&world, false).await;
    assert_eq!(messages(&world, "stays", "p").await[0]["data"], "fine");
    let telemetry = world.server.rooms().telemetry.clone();
    assert_eq!(telemetry.quarantined.get(), 1, "somebody is told");
    let told = world.get("/api/v1/system/maintenance").await.json();
    let files = &told["bufferStats"]["failedFiles"];
    let counts = ["count", "failoverCount", "qos0Count"].map(|it| files[it].as_u64());
    assert_eq!(counts, [Some(1), Some(1), Some(0)], "{told}");
    let told_bytes = files["totalBytes"].as_u64().unwrap();
    // And not tried again and again: it is there once, also after a start.
    let world = world.restart().await;
    assert_eq!(world.server.rooms().telemetry.quarantined.get(), 1, "and still after a start");
    let ready = world.get("/readyz?verbose").await;
    assert_eq!((ready.status, &ready.json()["checks"]["set_aside"]), (200, &json!(1)));
    assert_eq!(world.get("/metrics").await.json()["file_buffer"]["failed"], json!(1));
    let aside = folder(&world, |name| name.ends_with("-quarantine"));
    let names = std::fs::read_dir(aside).unwrap().map(|it| it.unwrap().path());
    let batches: Vec<PathBuf> =
        names.filter(|path| path.extension().is_some_and(|it| it == "batch")).collect();
    assert_eq!(batches.len(), 1, "{batches:?}");
    let reason = std::fs::read_to_string(batches[0].with_extension("reason")).unwrap();
    assert!(reason.contains("the queue was deleted"), "{reason}");
    let bytes = std::fs::read(&batches[0]).unwrap();
    assert!(bytes.windows(6).any(|it| it == b"poison"), "it is kept whole");
    assert_eq!(bytes.len() as u64, told_bytes);
}

#[test]
fn a14_the_failover_log_has_a_limit_and_says_so() {
    let disk = SimDisk::new(1);
    let spill = Spill::open(disk.files(), config(256 << 10), &mut |_| {}).unwrap();
    let large = "x".repeat(10_000);
    let mut kept = 0;
    let refusal = loop {
        match spill.write(&[spilled(&large)]) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1_000, "nothing stops it");
    };
    assert_eq!(refusal.error, SpillError::Full { limit: 256 << 10 });
    assert!(spill.used_bytes() <= (256 << 10) + 2 * (64 << 10), "{}", spill.used_bytes());
    drop(spill);
    let mut found = 0;
    let spill = Spill::open(disk.files(), config(u64::MAX), &mut |waiting| {
        found += usize::from(waiting.batch.is_ok());
    });
    assert!(spill.is_ok() && found == kept, "what was refused changed nothing: {found} of {kept}");
    // A disk that is full is another reason, and no failure for good.
    let disk = SimDisk::new(2);
    let spill = Spill::open(disk.files(), config(u64::MAX), &mut |_| {}).unwrap();
    spill.write(&[spilled(&large)]).unwrap();
    disk.set_capacity(Some(disk.allocated()));
    let refusal = loop {
        match spill.write(&[spilled(&large)]) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.error, SpillError::DiskFull);
    disk.set_capacity(None);
    spill.write(&[spilled("again")]).unwrap();
}
