//! What the tests of this folder share: servers with a ring of keys, and requests about one queue.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::World;

/// How long anything may take that is expected to happen; never how long it does take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers of keys and the digit that each is made of; the first one is active.
pub(crate) type Keys<'a> = &'a [(u32, char)];

/// Writes a ring of keys in one step, as an operator should.
pub(crate) fn write_keys(path: &Path, keys: Keys<'_>) {
    let lines =
        keys.iter().map(|(id, digit)| format!("{id} = \"{}\"\n", digit.to_string().repeat(64)));
    let text = format!("active = {}\n[keys]\n{}", keys[0].0, lines.collect::<String>());
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// A server with a ring of keys in a file that the test may change.
pub(crate) struct Desk {
    pub(crate) world: World,
    pub(crate) ring: PathBuf,
    _folder: tempfile::TempDir,
}

impl Desk {
    pub(crate) async fn with_keys(keys: Keys<'_>) -> Self {
        Self::with(keys, |_| {}).await
    }

    /// The same with some settings changed.
    pub(crate) async fn with(
        keys: Keys<'_>,
        change: impl FnOnce(&mut onrush::config::Settings),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ring = folder.path().join("keys.toml");
        write_keys(&ring, keys);
        let path = ring.display().to_string();
        let world = World::with(|settings| {
            settings.encryption.key_ring = path;
            settings.encryption.reload_ms = 20;
            settings.store.segment_bytes = 8 << 20;
            change(settings);
        });
        Self { world: world.await, ring, _folder: folder }
    }

    pub(crate) async fn restart(self) -> Self {
        let Self { world, ring, _folder } = self;
        Self { world: world.restart().await, ring, _folder }
    }

    /// Exchanges the keys and waits until the server has them.
    pub(crate) async fn keys(&self, keys: Keys<'_>) {
        write_keys(&self.ring, keys);
        let mut ids: Vec<u32> = keys.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let until = Instant::now() + PATIENCE;
        loop {
            let picture = self.world.server.rooms().engine.seals().picture();
            let here: Vec<u32> = picture.keys.iter().map(|id| id.0).collect();
            if here == ids && picture.active.map(|id| id.0) == Some(keys[0].0) {
                return;
            }
            assert!(Instant::now() < until, "the keys are {picture:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A queue that asks for encryption, or no longer does.
    pub(crate) async fn configure(&self, queue: &str, options: Value) {
        let body = json!({ "queue": queue, "options": options });
        let answer = self.world.post("/api/v1/configure", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    pub(crate) async fn sealed_queue(&self, queue: &str) {
        self.configure(
            queue,
            json!({ "encryptionEnabled": true, "leaseTime": 300, "retryLimit": 3 }),
        )
        .await;
    }

    pub(crate) async fn push(&self, queue: &str, partition: &str, payloads: &[Value]) {
        let items = payloads
            .iter()
            .map(|payload| json!({ "queue": queue, "partition": partition, "payload": payload }));
        let answer = self.world.push(items.collect()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Payloads of a pop that settles at once.
    pub(crate) async fn take(&self, queue: &str, batch: u32) -> Vec<Value> {
        let path = format!("/api/v1/pop/queue/{queue}?batch={batch}&partitions=10&autoAck=true");
        let answer = self.world.get(&path).await;
        match answer.status {
            204 => Vec::new(),
            200 => payloads(&answer.json()),
            _ => panic!("{}", answer.text()),
        }
    }

    /// Asks for messages that are said not to open; returns what is said.
    pub(crate) async fn refused(&self, queue: &str, query: &str) -> (u16, String, String) {
        let answer = self.world.get(&format!("/api/v1/pop/queue/{queue}?{query}")).await;
        assert_ne!(answer.status, 204, "nothing is passed by in silence");
        answer.error()
    }
}

/// What the messages of an answer hold.
pub(crate) fn payloads(body: &Value) -> Vec<Value> {
    body["messages"].as_array().unwrap().iter().map(|it| it["data"].clone()).collect()
}
