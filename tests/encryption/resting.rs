//! What lies on disks and in a database: ciphertext only, wherever a message may come to lie.

use std::path::Path;

use onrush::config::Secret;
use onrush_pgharness::{Cluster, installations};
use serde_json::{Value, json};

use crate::client::store;
use crate::desk::{Desk, payloads};

const CANARY: &str = "canary-7f3a9c-in-plain-words";

/// Files below a folder that hold some bytes.
pub(crate) fn files_with(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What a database takes away while it is looked at holds nothing.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path)
                && bytes.windows(needle.len()).any(|it| it == needle)
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn canaries(count: usize) -> Vec<Value> {
    (0..count).map(|n| json!({ "n": n, "text": CANARY.repeat(n % 40 + 1) })).collect()
}

/// Everything that can happen to a message: popped, failed, made a dead letter, held back, pushed again.
async fn live(desk: &Desk) {
    desk.push("secrets", "p", &canaries(100)).await;
    let popped = desk.world.get("/api/v1/pop/queue/secrets?batch=4").await.json();
    let messages = popped["messages"].as_array().unwrap();
    for (message, status) in messages.iter().zip(["dlq", "failed", "completed", "completed"]) {
        let ack = json!({ "transactionId": message["transactionId"], "status": status,
            "partitionId": message["partitionId"], "leaseId": message["leaseId"] });
        assert_eq!(desk.world.post("/api/v1/ack", &ack).await.status, 200);
    }
    maintenance(desk, true).await;
    desk.push("secrets", "held", &canaries(20)).await;
}

pub(crate) async fn maintenance(desk: &Desk, enabled: bool) {
    let body = json!({ "enabled": enabled });
    assert_eq!(desk.world.post("/api/v1/system/maintenance", &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_of_the_server_holds_a_message_in_clear() {
    let desk = Desk::with(&[(1, 'a')], |it| it.store.checkpoint_interval_ms = 100).await;
    desk.sealed_queue("secrets").await;
    desk.configure("open", json!({})).await;
    live(&desk).await;
    // With what waits in the failover log, and with checkpoints of a stop in order.
    let desk = desk.restart().await;
    let folder = desk.world.folder.path().to_owned();
    assert_eq!(files_with(&folder, CANARY.as_bytes()), Vec::<String>::new());
    assert!(!files_with(&folder, b"secrets").is_empty(), "files are looked into");
    // A queue that does not ask for it shows that the search finds what is there.
    desk.push("open", "p", &canaries(1)).await;
    assert!(
        !files_with(&folder, CANARY.as_bytes()).is_empty(),
        "held back, it is in the failover log"
    );
    maintenance(&desk, false).await;
    let path = "/api/v1/pop/queue/secrets/partition/held?batch=100&wait=true&timeout=60000";
    let held = desk.world.get(path).await.json();
    assert_eq!(payloads(&held), canaries(20), "what was held back is sealed once, not twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_and_no_wal_of_a_database_holds_a_message_in_clear() {
    if !store::is_embedded() {
        // Another run of this test has the same cluster.
        return;
    }
    let installation = installations().unwrap().pop().unwrap();
    let cluster = Cluster::start(&installation).unwrap();
    let url = cluster.url("postgres");
    let desk = Desk::with(&[(1, 'a')], |settings| {
        settings.database.url = Secret::new(url);
        settings.store.checkpoint_interval_ms = 100;
    })
    .await;
    desk.sealed_queue("secrets").await;
    let both = json!({ "queue": "r", "options": { "encryptionEnabled": true, "sqlRows": true } });
    let (status, error, code) = desk.world.post("/api/v1/configure", &both).await.error();
    assert_eq!((status, code.as_str()), (400, "bad_option"), "{error}");
    live(&desk).await;
    let desk = desk.restart().await;
    cluster.sql("postgres", "CHECKPOINT").unwrap();
    assert_eq!(files_with(cluster.folder(), CANARY.as_bytes()), Vec::<String>::new());
    assert_eq!(files_with(desk.world.folder.path(), CANARY.as_bytes()), Vec::<String>::new());
    assert!(!files_with(cluster.folder(), b"secrets").is_empty(), "files are looked into");
    // Who asks in SQL sees what stands in clear, and no payload.
    let sql = "SELECT count(*), count(payload), count(payload_bytes), count(transaction_id) \
               FROM onrush.messages('secrets', 'p')";
    assert_eq!(cluster.sql("postgres", sql).unwrap().trim(), "100|0|0|100");
    let view = "SELECT count(*), count(payload_bytes) FROM onrush.messages WHERE queue = 'secrets'";
    assert_eq!(cluster.sql("postgres", view).unwrap().trim(), "100|0");
    maintenance(&desk, false).await;
    let path = "/api/v1/pop/queue/secrets/partition/held?batch=100&wait=true&timeout=60000";
    assert_eq!(payloads(&desk.world.get(path).await.json()), canaries(20));
}
