//! What whoever looks after a server gets to see: the words and exit codes of `onrush log`, and no
//! password in anything that a server says or keeps.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onrush::base::files::DiskFiles;
use onrush::failover::record::Spilled;
use onrush::failover::{Config, Spill};
use onrush::state::draft::push::PushBatch;
use onrush_client::{Client, Message};
use onrush_pgharness::{Cluster, installations};
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::qos::Qos;
use process::{ServerProcess, binary};
use serde_json::Value;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(60);
const CANARY: &str = "canary-5c1e77-password";

fn spilled(payload: &[u8]) -> Spilled {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
    let push = PushBatch { batch: builder.finish().unwrap(), fingerprints: Vec::new(), sub: None };
    let (partition, qos) = ("p".parse().unwrap(), Qos::AtLeastOnce);
    Spilled { queue: 1, partition, qos, time_ms: 5, doubt: None, push }
}

/// A failover log of several segments; its segment files, oldest first.
fn failover_log(folder: &Path, batches: u64) -> Vec<PathBuf> {
    let files = Arc::new(DiskFiles::open(folder).unwrap());
    let config = Config { segment_bytes: 64 << 10, disk_bytes_max: u64::MAX };
    let spill = Spill::open(files, config, &mut |_| {}).unwrap();
    for batch in 0..batches {
        spill.write(&[spilled(&[batch as u8; 8_000])]).unwrap();
    }
    drop(spill);
    let paths = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let mut segments: Vec<PathBuf> = paths.filter(|path| is_large(path)).collect();
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    segments
}

fn is_large(path: &Path) -> bool {
    std::fs::metadata(path).unwrap().len() > 8_000
}

fn look(verb: &str, folder: &Path) -> Output {
    Command::new(binary()).args(["log", verb]).arg(folder).output().unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_log_that_is_whole_verifies_and_one_that_is_damaged_ends_with_2_and_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let segments = failover_log(folder.path(), 40);
    let whole = look("verify", folder.path());
    assert_eq!(whole.status.code(), Some(0), "{}", words(&whole.stderr));
    let told: Value = serde_json::from_slice(&whole.stdout).unwrap();
    assert_eq!((told["batches"].as_u64(), told["messages"].as_u64()), (Some(40), Some(40)));
    let before = std::fs::read(&segments[0]).unwrap();
    let mut damaged = before.clone();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    std::fs::write(&segments[0], &damaged).unwrap();
    for verb in ["verify", "inspect"] {
        let told = look(verb, folder.path());
        let said = words(&told.stderr);
        assert_eq!((told.status.code(), told.stdout.len()), (Some(2), 0), "{verb}: {said}");
        let has_place = said.split(|it: char| !it.is_ascii_digit()).any(|number| {
            // Within a record of the byte that is wrong.
            number.parse::<usize>().is_ok_and(|place| place > 0 && place.abs_diff(at) < 20_000)
        });
        assert!(has_place, "{verb}: {said}");
    }
    assert_eq!(std::fs::read(&segments[0]).unwrap(), damaged, "looking changes nothing");
    std::fs::write(&segments[0], &before).unwrap();
    assert_eq!(look("verify", folder.path()).status.code(), Some(0));
    let nowhere = look("verify", &folder.path().join("nowhere"));
    assert_eq!(nowhere.status.code(), Some(2), "{}", words(&nowhere.stderr));
}

/// Files below a folder that hold some bytes.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|it| it == needle) {
                found.push(path);
            }
        }
    }
    found
}

/// A server that tells everything it can, and all that it told.
struct Talker {
    server: ServerProcess,
    said: Arc<Mutex<String>>,
}

impl Talker {
    fn start(folder: &Path, setting: &str) -> Self {
        let mut server = ServerProcess::spawn_saying("trace", folder, &[setting]);
        let mut errors = BufReader::new(server.errors());
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                heard.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        Self { server, said }
    }

    /// Waits for words, and looks whether the password is among those before.
    async fn says(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said.lock().unwrap().clone();
            assert!(!said.contains(CANARY), "{said}");
            if said.contains(words) {
                return;
            }
            assert!(Instant::now() < deadline, "{words:?} never came: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_of_a_database_is_in_what_a_server_says_or_keeps() {
    let mut cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let (folder, port) = (tempfile::tempdir().unwrap(), cluster.port());
    let url = |database: &str| {
        format!("database.url=postgresql://postgres:{CANARY}@127.0.0.1:{port}/{database}")
    };
    // A database that is not there: the server waits for it, and says what for.
    let lost = Talker::start(folder.path(), &url("nowhere"));
    lost.says("has not met the store there before").await;
    lost.says("does not exist").await;
    drop(lost);
    // One that is there, goes away, and is away at the start.
    let mut first = Talker::start(folder.path(), &url("postgres"));
    let client = Client::connect(&first.server.listening().await.to_string()).await.unwrap();
    client.queue("q").push([Message::json(&1)]).await.unwrap();
    cluster.kill_all();
    assert!(client.queue("q").push([Message::json(&2)]).await.unwrap().is_complete());
    first.says("the store is away").await;
    drop(first);
    let mut second = Talker::start(folder.path(), &url("postgres"));
    second.server.listening().await;
    second.says("beginning with what this machine knows").await;
    second.says("the store is not met yet").await;
    drop(second);
    assert_eq!(files_with(folder.path(), CANARY.as_bytes()), Vec::<PathBuf>::new());
    assert!(!files_with(folder.path(), b"created_ms").is_empty(), "files are looked into");
}
