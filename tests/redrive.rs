//! Black box: the real binary is killed in the middle of a job over ten thousand dead letters, and again
//! while it goes on. When the job has ended every message was redriven, requeued or deleted exactly once:
//! none is lost, none comes twice, none is still dead.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/process.rs"]
mod process;
#[path = "support/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onrush::config::Settings;
use process::ServerProcess;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LETTERS: u64 = 10_000;
const PARTITIONS: u64 = 7;

/// A server that is killed and started again on one store.
struct Life {
    folder: tempfile::TempDir,
    settings: Vec<String>,
    server: ServerProcess,
}

impl Life {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut chosen = Settings::default();
        store::choose(&mut chosen);
        let mut settings = vec!["store.segment_bytes=8MiB".to_owned()];
        settings.push("store.checkpoint_interval_ms=200".to_owned());
        if chosen.database.url.is_set() {
            settings.push(format!("database.url={}", chosen.database.url.expose()));
            settings.push(format!("database.schema={}", chosen.database.schema));
        }
        let server = Self::spawn(&folder, &settings).await;
        Self { folder, settings, server }
    }

    async fn spawn(folder: &tempfile::TempDir, settings: &[String]) -> ServerProcess {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let mut server = ServerProcess::spawn_with(folder.path(), &settings);
        server.listening().await;
        server
    }

    async fn kill_and_start(&mut self) {
        self.server.kill();
        self.server = Self::spawn(&self.folder, &self.settings).await;
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = self.server.http_url();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() }
    }

    async fn pop(&self, queue: &str) -> Vec<Value> {
        let path = format!("/api/v1/pop/queue/{queue}?batch=1000&partitions=100&consumerGroup=g");
        let popped = self.ask("GET", &path, &Value::Null).await;
        popped["messages"].as_array().cloned().unwrap_or_default()
    }

    async fn say(&self, messages: &[Value], status: &str) {
        let lines = messages.iter().map(|message| {
            json!({
                "transactionId": message["id"], "partitionId": message["partitionId"],
                "leaseId": message["leaseId"], "status": status,
            })
        });
        let body = json!({ "consumerGroup": "g", "acknowledgments": lines.collect::<Vec<_>>() });
        let said = self.ask("POST", "/api/v1/ack/batch", &body).await;
        assert!(said.as_array().unwrap().iter().all(|it| it["success"] == true), "{said}");
    }
}

impl Life {
    /// Pushes messages, and lets all of them die.
    async fn bury_all(&self) {
        for chunk in 0..10 {
            let items: Vec<Value> = (chunk * LETTERS / 10..(chunk + 1) * LETTERS / 10)
                .map(|it| {
                    let partition = format!("p{}", it % PARTITIONS);
                    json!({ "queue": "q", "partition": partition, "payload": it })
                })
                .collect();
            self.ask("POST", "/api/v1/push", &json!({ "items": items })).await;
        }
        let mut buried = 0;
        while buried < LETTERS {
            let messages = self.pop("q").await;
            assert!(!messages.is_empty(), "{buried} of {LETTERS}");
            self.say(&messages, "dlq").await;
            buried += messages.len() as u64;
        }
        assert_eq!(self.dead().await, LETTERS);
    }

    async fn dead(&self) -> u64 {
        let dead = self.ask("GET", "/api/v1/dlq?queue=q&limit=1", &Value::Null).await;
        dead["total"].as_u64().unwrap()
    }

    /// Begins a job over all letters, slow enough to be met in the middle, and kills the server there,
    /// several times; returns when the job is done.
    async fn job_that_is_killed(&mut self, action: &str, more: &Value) {
        let mut body = json!({ "queue": "q", "ratePerSecond": 2500 });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let job = self.ask("POST", &format!("/api/v1/dlq/{action}"), &body).await;
        let path = format!("/api/v1/dlq/jobs/{}", job["id"]);
        let deadline = Instant::now() + Duration::from_secs(240);
        let mut kills = 0;
        loop {
            let now = self.ask("GET", &path, &Value::Null).await;
            let moved = now["moved"].as_u64().unwrap();
            if now["status"] == "done" {
                assert_eq!(moved, LETTERS, "{now}");
                break;
            }
            assert_eq!(now["status"], "running", "{now}");
            if moved > kills * 2_500 && kills < 3 {
                kills += 1;
                println!("killed at {moved}");
                self.kill_and_start().await;
            }
            assert!(Instant::now() < deadline, "{now}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(kills > 0, "it was never met in the middle");
    }

    /// How often each payload comes out of a queue, until nothing more does.
    async fn drain(&self, queue: &str) -> BTreeMap<u64, u32> {
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
        loop {
            let messages = self.pop(queue).await;
            if messages.is_empty() {
                return seen;
            }
            for message in &messages {
                *seen.entry(message["data"].as_u64().unwrap()).or_default() += 1;
            }
            self.say(&messages, "completed").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_that_is_killed_in_the_middle_gives_every_message_back_exactly_once() {
    let mut life = Life::start().await;
    life.bury_all().await;
    life.job_that_is_killed("redrive", &Value::Null).await;
    let seen = life.drain("q").await;
    assert_eq!(seen.len() as u64, LETTERS);
    assert!(seen.values().all(|count| *count == 1), "some came twice");
    assert_eq!(life.dead().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requeue_that_is_killed_in_the_middle_pushes_every_message_exactly_once() {
    let mut life = Life::start().await;
    life.bury_all().await;
    life.job_that_is_killed("requeue", &json!({ "toQueue": "other" })).await;
    let seen = life.drain("other").await;
    assert_eq!(seen.len() as u64, LETTERS);
    assert!(seen.values().all(|count| *count == 1), "some came twice");
    assert_eq!(life.dead().await, 0);
    assert!(life.drain("q").await.is_empty(), "what was requeued came back as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_of_letters_that_is_killed_in_the_middle_leaves_none_and_takes_nothing_else() {
    let mut life = Life::start().await;
    life.bury_all().await;
    let items: Vec<Value> = (0..PARTITIONS)
        .map(|it| json!({ "queue": "q", "partition": format!("p{it}"), "payload": it }))
        .collect();
    life.ask("POST", "/api/v1/push", &json!({ "items": items })).await;
    life.job_that_is_killed("delete", &Value::Null).await;
    assert_eq!(life.dead().await, 0);
    let left = life.drain("q").await;
    assert_eq!(left, (0..PARTITIONS).map(|it| (it, 1)).collect(), "those that never died");
}
