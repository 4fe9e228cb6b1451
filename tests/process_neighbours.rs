//! What processes that take all they can get do to others: endless loops in hundreds of processes of three
//! classes, some of them sent there by others; two that send to each other without end; a fan-out of
//! fan-outs. Others are served meanwhile.
//!
//! Prints how long plain pushes and pushes to a quiet class take, alone and beside each of them. With
//! `SERVER_BIN`, a release build, plain pushes may take a fifth longer at the 99th percentile and no
//! more; other builds are no measure of time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and it tells its figures"
)]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use process::ServerProcess;
use serde_json::{Value, json};

/// Classes with an endless loop, and processes of each.
const CLASSES: [&str; 3] = ["loop", "coil", "spin"];
const LOOPS: usize = 80;
/// Messages of the fan-out: it asks for four times as many.
const FAN: u64 = 5_000;

/// A connection that stays.
struct Wire(TcpStream);

impl Wire {
    fn new(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(660))).unwrap();
        Self(stream)
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}");
        self.0.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            self.more(&mut read);
        };
        let head = String::from_utf8(read[..end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        // An answer without a body has none.
        let length: usize = length.map_or(0, |it| it.trim().parse().unwrap());
        while read.len() < end + length {
            self.more(&mut read);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_slice(&read[end..]).unwrap_or_default())
    }

    fn more(&mut self, read: &mut Vec<u8>) {
        let mut part = [0; 4096];
        let count = self.0.read(&mut part).unwrap();
        assert!(count > 0, "closed before an answer");
        read.extend(&part[..count]);
    }

    fn define(&mut self, class: &str, definition: &Value) {
        let (status, answer) = self.ask("PUT", &format!("/api/v1/processes/{class}"), definition);
        assert_eq!(status, 200, "{answer}");
    }

    fn push(&mut self, process: &str, message: &Value) -> String {
        let body = json!({ "message": message, "await": "accepted" });
        let path = format!("/api/v1/processes/{process}/push");
        let (status, answer) = self.ask("POST", &path, &body);
        assert_eq!(status, 200, "{answer}");
        answer["push_id"].as_str().unwrap().to_owned()
    }
}

/// The median and the 99th percentile of plain pushes, and of pushes to a quiet class, microseconds.
struct Figures {
    plain: (u128, u128),
    quiet: (u128, u128),
}

fn measure(wire: &mut Wire, name: &str) -> Figures {
    let mut of = |method: &str, path: &str, body: &Value, expected: u16| {
        let mut took: Vec<u128> = (0..400)
            .map(|_| {
                let began = Instant::now();
                let (status, answer) = wire.ask(method, path, body);
                assert_eq!(status, expected, "{name}: {answer}");
                began.elapsed().as_micros()
            })
            .collect();
        took.sort_unstable();
        (took[took.len() / 2], took[took.len() * 99 / 100])
    };
    let items = json!({ "items": [{ "queue": "plain", "payload": { "n": 1 } }] });
    let plain = of("POST", "/api/v1/push", &items, 201);
    let quiet = json!({ "message": {}, "timeoutMs": 60_000 });
    let quiet = of("POST", "/api/v1/processes/counter/a/push", &quiet, 200);
    let figures = Figures { plain, quiet };
    println!(
        "{name}: plain {:?} us, quiet class {:?} us (median, p99)",
        figures.plain, figures.quiet
    );
    figures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_without_end_leave_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn(folder.path());
    server.listening().await;
    let mut wire = Wire::new(&server.http_url());
    wire.define("counter", &json!({ "runtime": "native", "module": "counter" }));
    let source = "return { handle = function(state, msg)
        if not msg.quick then while true do end end
    end }";
    for class in CLASSES {
        wire.define(class, &json!({ "runtime": "luau", "module": source }));
    }
    wire.define("router", &json!({ "runtime": "native", "module": "router" }));
    let tree = "return { handle = function(state, msg, ctx)
        if msg.level > 2 then return end
        for n = 1, msg.level == 1 and 1000 or 20 do
            ctx.send { target = `tree/{msg.level}-{n}`, level = msg.level + 1 }
        end
    end }";
    wire.define("tree", &json!({ "runtime": "luau", "module": tree }));
    for (class, other) in [("ping", "pong/a"), ("pong", "ping/a")] {
        let limits = json!({ "hops": 0, "messages": 100_000_000 });
        let init = json!({ "rules": { "*": other } });
        let class_of =
            json!({ "runtime": "native", "module": "router", "init": init, "limits": limits });
        wire.define(class, &class_of);
    }
    measure(&mut wire, "before");
    let alone = measure(&mut wire, "alone");
    for class in CLASSES {
        for n in 0..LOOPS {
            wire.push(&format!("{class}/{n}"), &json!({ "quick": n % 2 == 0 }));
        }
        // Those that are idle by now are handed what they are sent.
        for n in 0..LOOPS / 8 {
            let to: Vec<String> = (0..8).map(|at| format!("{class}/{}", 8 * n + at)).collect();
            wire.push(&format!("router/{n}"), &json!({ "to": to }));
        }
    }
    let loops = measure(&mut wire, "beside endless loops");
    let path = "/api/v1/processes/loop/1/slots/0?wait=100000";
    let (_, ended) = wire.ask("GET", path, &Value::Null);
    let code = ended["error"]["code"].as_str().unwrap();
    assert!(matches!(code, "fuel_exhausted" | "time_exceeded"), "{ended}");
    for class in CLASSES {
        let path = format!("/api/v1/processes/{class}");
        assert_eq!(wire.ask("DELETE", &path, &Value::Null).0, 204);
    }
    let body = json!({ "message": { "level": 1 }, "await": "slot", "maxMessages": FAN });
    let (status, fan) = wire.ask("POST", "/api/v1/processes/tree/root/push", &body);
    assert_eq!(status, 200, "{fan}");
    let fan_out = measure(&mut wire, "beside a fan-out");
    let path = format!("/api/v1/pushes/{}?wait=600000&limit=1", fan["push_id"].as_str().unwrap());
    let (_, ended) = wire.ask("GET", &path, &Value::Null);
    assert_eq!(
        (&ended["complete"], &ended["status"]),
        (&json!(true), &json!("truncated")),
        "{}",
        ended["stats"]
    );
    let endless = wire.push("ping/a", &json!({ "n": 1 }));
    let cycle = measure(&mut wire, "beside a cycle without end");
    let (status, answer) = wire.ask("DELETE", &format!("/api/v1/pushes/{endless}"), &Value::Null);
    assert_eq!((status, &answer["status"]), (200, &json!("cancelled")), "{answer}");
    let path = format!("/api/v1/pushes/{endless}?wait=60000&limit=1");
    let (_, ended) = wire.ask("GET", &path, &Value::Null);
    assert_eq!(ended["complete"], true, "{}", ended["stats"]);
    if std::env::var_os("SERVER_BIN").is_some() {
        for (name, beside) in [("loops", &loops), ("cycle", &cycle), ("fan-out", &fan_out)] {
            let (alone, beside) = (alone.plain.1, beside.plain.1);
            assert!(beside * 5 <= alone * 6, "{name}: {alone} -> {beside} us at p99");
        }
    }
}
