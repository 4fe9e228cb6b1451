//! Processes on a real PostgreSQL. XG-09: several servers evaluate the same processes, each slot once; one
//! that is frozen past its hold on an instance commits nothing of it when it wakes. XG-11: a database that
//! dies or stands still in the middle loses and doubles nothing.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use onrush_pgharness::{Cluster, installations};
use process::ServerProcess;
use serde_json::{Value, json};

fn spawn(folder: &Path, number: usize, cluster: &Cluster) -> ServerProcess {
    let url = format!("database.url={}", cluster.url("postgres"));
    ServerProcess::spawn_with(&folder.join(number.to_string()), &[url.as_str()])
}

fn said(url: &str, method: &str, path: &str, body: &Value) -> (u16, String) {
    let addr = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn ask(url: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = said(url, method, path, body);
    (status, serde_json::from_str(&text).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xg_11_what_a_database_interrupts_goes_on_where_it_was() {
    let mut cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut server = spawn(folder.path(), 0, &cluster);
    server.listening().await;
    let url = server.http_url();
    define_chains(&url);
    let mut pushes = chains(&url, "killed");
    pushes.push(push(&url, "fan/root", &json!({ "count": 100, "class": "fan" })));
    until(&url, "pingpong/killed0", |shown| shown["slots"].as_u64() > Some(20)).await;
    cluster.kill();
    // Whoever pushes meanwhile is told that it is kept, and no more than that.
    let body = json!({ "message": { "add": 1 }, "transactionId": "meanwhile" });
    let path = "/api/v1/processes/counter/a/push";
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, answer) = ask(&url, "POST", path, &body);
        if status == 202 && answer["dbHealthy"] == false {
            break;
        }
        assert!(matches!(status, 202 | 503), "{status}: {answer}");
        assert!(Instant::now() < deadline, "{status}: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What would have to be durable is refused, and says that it may be asked again.
    let (status, refused) =
        ask(&url, "POST", "/api/v1/processes/pingpong/killed0/pause", &json!({}));
    assert_eq!((status, &refused["retryable"]), (503, &json!(true)), "{refused}");
    let before = ask(&url, "GET", "/api/v1/processes/pingpong/killed0", &Value::Null).1;
    assert_ne!(before["slots"], 202, "nothing goes on while the store is away");
    cluster.start_again().unwrap();
    all_complete(&url, &pushes);
    until(&url, "counter/a", |shown| shown["evaluated"] == 1).await;
    let (_, count) = ask(&url, "GET", "/api/v1/processes/counter/a/state/count", &Value::Null);
    assert_eq!(count, 1, "taken once, however often it was sent");
    // And one that stands still for longer than an instance is held.
    let more = chains(&url, "frozen");
    until(&url, "pingpong/frozen0", |shown| shown["slots"].as_u64() > Some(20)).await;
    cluster.freeze();
    tokio::time::sleep(Duration::from_secs(12)).await;
    cluster.thaw();
    all_complete(&url, &more);
    for name in ["killed", "frozen"] {
        for n in 0..CHAINS {
            let path = format!("/api/v1/processes/pingpong/{name}{n}");
            let (_, shown) = ask(&url, "GET", &path, &Value::Null);
            assert_eq!((&shown["slots"], &shown["pending"]), (&json!(LIMIT + 2), &json!(0)));
        }
    }
    let (_, back) = ask(&url, "GET", "/api/v1/processes/fan/root/state/back", &Value::Null);
    assert_eq!(back, 100);
}

/// Chains that run at a time, and pings of each.
const CHAINS: u64 = 8;
const LIMIT: u64 = 200;
/// Pings of a chain that outlives a freeze.
const LONG: u64 = 600;

/// Slots that a server has evaluated since it began.
fn evaluated(url: &str) -> u64 {
    let (_, text) = said(url, "GET", "/metrics/prometheus", &Value::Null);
    let line = text.lines().find_map(|line| line.strip_prefix("mq_process_slots_total "));
    line.unwrap().parse().unwrap()
}

fn define_chains(url: &str) {
    for (class, module) in [("pingpong", "pingpong"), ("fan", "fan"), ("counter", "counter")] {
        let body = json!({ "runtime": "native", "module": module, "limits": { "hops": 0 } });
        let (status, answer) = ask(url, "PUT", &format!("/api/v1/processes/{class}"), &body);
        assert_eq!(status, 200, "{answer}");
    }
}

fn push(url: &str, process: &str, message: &Value) -> String {
    let body = json!({ "message": message, "await": "accepted" });
    let (status, answer) = ask(url, "POST", &format!("/api/v1/processes/{process}/push"), &body);
    assert_eq!(status, 200, "{answer}");
    answer["push_id"].as_str().unwrap().to_owned()
}

fn chains(url: &str, name: &str) -> Vec<String> {
    let message = json!({ "start": true, "limit": LIMIT });
    (0..CHAINS).map(|n| push(url, &format!("pingpong/{name}{n}"), &message)).collect()
}

fn all_complete(url: &str, pushes: &[String]) {
    for push in pushes {
        let path = format!("/api/v1/pushes/{push}?wait=100000&limit=1");
        let (_, shown) = ask(url, "GET", &path, &Value::Null);
        assert_eq!((&shown["complete"], &shown["status"]), (&json!(true), &json!("ok")), "{shown}");
    }
}

async fn until(url: &str, process: &str, is_so: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let path = format!("/api/v1/processes/{process}");
    loop {
        let (_, shown) = ask(url, "GET", &path, &Value::Null);
        if is_so(&shown) {
            return;
        }
        assert!(Instant::now() < deadline, "{process}: {shown}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xg_09_a_frozen_engine_commits_nothing_of_what_another_took() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut one = spawn(folder.path(), 0, &cluster);
    let mut other = spawn(folder.path(), 1, &cluster);
    one.listening().await;
    other.listening().await;
    let (at_one, at_other) = (one.http_url(), other.http_url());
    for class in ["pingpong", "fan"] {
        let body = json!({ "runtime": "native", "module": class, "limits": { "hops": 0 } });
        let (status, answer) = ask(&at_one, "PUT", &format!("/api/v1/processes/{class}"), &body);
        assert_eq!(status, 200, "{answer}");
        // The other one hears of it by following.
        let deadline = Instant::now() + Duration::from_secs(30);
        while ask(&at_other, "GET", &format!("/api/v1/processes/{class}"), &Value::Null).0 != 200 {
            assert!(Instant::now() < deadline, "{class} is never heard of");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut pushes = Vec::new();
    for n in 0..8 {
        let message = json!({ "start": true, "limit": LONG });
        let body = json!({ "message": message, "await": "accepted", "maxHops": 0 });
        let path = format!("/api/v1/processes/pingpong/p{n}/push");
        let (status, answer) =
            ask(if n % 2 == 0 { &at_one } else { &at_other }, "POST", &path, &body);
        assert_eq!(status, 200, "{answer}");
        pushes.push(answer.get("push_id").unwrap().as_str().unwrap().to_owned());
    }
    // In the middle of it: it evaluates some of them by now.
    let deadline = Instant::now() + Duration::from_secs(60);
    while evaluated(&at_one) < 20 {
        assert!(Instant::now() < deadline, "it evaluates nothing");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    one.freeze();
    // It wakes while the other one is at work on what it held.
    tokio::time::sleep(Duration::from_secs(11)).await;
    one.thaw();
    for push in &pushes {
        let path = format!("/api/v1/pushes/{push}?wait=100000");
        let (_, shown) = ask(&at_other, "GET", &path, &Value::Null);
        assert_eq!(shown.get("complete"), Some(&json!(true)), "{shown}");
    }
    for url in [&at_one, &at_other] {
        for n in 0..8 {
            let path = format!("/api/v1/processes/pingpong/p{n}");
            // The one that was frozen tells what it has followed, and that comes a moment later.
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut shown = ask(url, "GET", &path, &Value::Null).1;
            while shown.get("slots") != Some(&json!(LONG + 2)) && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
                shown = ask(url, "GET", &path, &Value::Null).1;
            }
            assert_eq!(shown.get("slots"), Some(&json!(LONG + 2)), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_engine_is_told_of_a_process_the_others_heed() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut worker = spawn(folder.path(), 0, &cluster);
    worker.listening().await;
    let at_worker = worker.http_url();
    let body = json!({ "runtime": "native", "module": "counter" });
    assert_eq!(ask(&at_worker, "PUT", "/api/v1/processes/counter", &body).0, 200);
    // It knows these two, and keeps what it knows of them.
    all_complete(
        &at_worker,
        &["a", "b"].map(|key| push(&at_worker, &format!("counter/{key}"), &json!({}))),
    );
    let mut teller = spawn(folder.path(), 1, &cluster);
    teller.listening().await;
    let path = "/api/v1/processes/counter/a/pause";
    let deadline = Instant::now() + Duration::from_secs(30);
    while ask(&teller.http_url(), "POST", path, &json!({})).0 != 200 {
        assert!(Instant::now() < deadline, "the class is never heard of");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // From here on there is nobody but the worker to evaluate anything.
    teller.freeze();
    let waits = push(&at_worker, "counter/a", &json!({}));
    for _ in 0..3 {
        all_complete(&at_worker, &[push(&at_worker, "counter/b", &json!({}))]);
    }
    let (_, shown) = ask(&at_worker, "GET", "/api/v1/processes/counter/a", &Value::Null);
    assert_eq!((&shown["evaluated"], &shown["stopped"]), (&json!(1), &json!("paused")), "{shown}");
    assert_eq!(ask(&at_worker, "POST", "/api/v1/processes/counter/a/resume", &json!({})).0, 200);
    all_complete(&at_worker, &[waits]);
    teller.thaw();
}
