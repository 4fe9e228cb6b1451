//! XG-09: several servers on one PostgreSQL evaluate the same processes, each slot once; one that is frozen
//! past its hold on an instance commits nothing of it when it wakes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

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

fn ask(url: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
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
    (status, serde_json::from_str(body).unwrap_or_default())
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
        let body = json!({ "runtime": "native", "module": class });
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
        let message = json!({ "start": true, "limit": 60 });
        let body = json!({ "message": message, "await": "accepted", "maxHops": 0 });
        let path = format!("/api/v1/processes/pingpong/p{n}/push");
        let (status, answer) =
            ask(if n % 2 == 0 { &at_one } else { &at_other }, "POST", &path, &body);
        assert_eq!(status, 200, "{answer}");
        pushes.push(answer.get("push_id").unwrap().as_str().unwrap().to_owned());
    }
    // In the middle of it, whatever it holds by now.
    one.freeze();
    for push in &pushes {
        let path = format!("/api/v1/pushes/{push}?wait=100000");
        let (_, shown) = ask(&at_other, "GET", &path, &Value::Null);
        assert_eq!(shown.get("complete"), Some(&json!(true)), "{shown}");
    }
    one.thaw();
    for url in [&at_one, &at_other] {
        for n in 0..8 {
            let path = format!("/api/v1/processes/pingpong/p{n}");
            // The one that was frozen tells what it has followed, and that comes a moment later.
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut shown = ask(url, "GET", &path, &Value::Null).1;
            while shown.get("slots") != Some(&json!(62)) && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
                shown = ask(url, "GET", &path, &Value::Null).1;
            }
            assert_eq!(shown.get("slots"), Some(&json!(62)), "{shown}");
        }
    }
}
