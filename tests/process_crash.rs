//! XG-02: processes and kills. A server dies at every place where it could hurt, and by SIGKILL at any
//! time; what it had answered stands, what it had not is sent again, and in the end all is as if
//! nothing had happened.
//!
//! The server is this very test, started again as a process of its own with a place to die at. How many
//! seeds, `ONRUSH_CRASH_SEEDS` says.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use onrush::config::Settings;
use onrush::process::faults::{Place, arm};
use onrush::server::Server;
use serde_json::{Value, json};

const FOLDER: &str = "ONRUSH_CRASH_FOLDER";
const FAULT: &str = "ONRUSH_CRASH_FAULT";

/// Not a test of its own: the server that the tests start. Without a folder it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.into();
    if let Ok(fault) = std::env::var(FAULT) {
        let (place, nth) = fault.split_once(':').unwrap();
        arm(Place::ALL[place.parse::<usize>().unwrap()], nth.parse().unwrap());
    }
    let server = Server::start(&settings).await.unwrap();
    let mut out = std::io::stderr();
    writeln!(out, "LISTENING {}", server.http_addr()).unwrap();
    // Until it is killed, or whoever started it is gone.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
    server.stop(Duration::from_secs(5)).await;
}

/// A server in a process of its own; killed when dropped.
struct Life {
    child: Child,
    addr: String,
    _words: BufReader<std::process::ChildStderr>,
    _out: Option<ChildStdout>,
}

impl Life {
    fn new(folder: &Path, fault: Option<(usize, u64)>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(FOLDER, folder.join("data"));
        match fault {
            Some((place, nth)) => command.env(FAULT, format!("{place}:{nth}")),
            None => command.env_remove(FAULT),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut words = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let addr = loop {
            line.clear();
            assert!(words.read_line(&mut line).unwrap() > 0, "the server did not start");
            if let Some((_, addr)) = line.trim().split_once("LISTENING ") {
                break addr.to_owned();
            }
        };
        Self { child, addr, _words: words, _out: None }
    }

    /// An answer, or `None` where there is none: it died.
    fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.addr).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let text = String::from_utf8(answer).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).ok()?))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers that look random, the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What is pushed: to which process, and what.
fn orders() -> Vec<(String, Value)> {
    let mut orders = vec![(
        "ledger/root".into(),
        json!({ "action": "mint", "account": "alice", "quantity": 1_000 }),
    )];
    for n in 0..12_u64 {
        let sub = format!("ledger/sub{}", n % 3);
        let deposit = json!({ "action": "deposit", "account": "alice", "to": sub,
            "toAccount": "bob", "quantity": 10 + n });
        orders.push(("ledger/root".into(), deposit));
    }
    orders.push(("fan/root".into(), json!({ "count": 100, "class": "fan", "prefix": "leaf" })));
    orders.push(("pingpong/a".into(), json!({ "start": true, "limit": 20 })));
    orders.push(("router/r".into(), json!({ "to": ["delayed/a"], "delay_ms": 20 })));
    orders
}

/// What comes behind all of [`orders`], because it needs what they did.
fn later_orders() -> Vec<(String, Value)> {
    let back = |sub: u64, via: Option<u64>| {
        let mut message = json!({ "action": "withdraw", "account": "bob", "to": "ledger/root",
            "toAccount": "carol", "quantity": 7 });
        if let Some(via) = via {
            message["via"] = json!(format!("ledger/sub{via}"));
        }
        (format!("ledger/sub{sub}"), message)
    };
    vec![back(0, None), back(1, Some(2)), back(2, None), back(0, Some(1))]
}

/// Everything that is to be the same whatever happened.
fn picture(life: &Life) -> Option<Value> {
    let mut all = serde_json::Map::new();
    let mut processes: Vec<String> = (0..3).map(|n| format!("ledger/sub{n}")).collect();
    processes
        .extend(["ledger/root", "fan/root", "pingpong/a", "delayed/a", "router/r"].map(Into::into));
    processes.extend((1..=100).map(|n| format!("fan/leaf{n}")));
    for process in processes {
        let (status, state) =
            life.ask("GET", &format!("/api/v1/processes/{process}/state?limit=1000"), "")?;
        assert_eq!(status, 200, "{process}: {state}");
        let (_, shown) = life.ask("GET", &format!("/api/v1/processes/{process}"), "")?;
        assert_eq!(shown["pending"], 0, "{process}: {shown}");
        all.insert(process, json!([state["keys"], shown["slots"]]));
    }
    Some(Value::Object(all))
}

/// Lives of one store, one after the other.
struct Story<'a> {
    folder: &'a Path,
    life: Mutex<Option<Life>>,
    dice: Mutex<Dice>,
    deaths_left: Mutex<u32>,
}

impl Story<'_> {
    /// Asks until somebody answers. Every death is followed by another life, in which death waits
    /// elsewhere, until there were enough.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        loop {
            let mut life = self.life.lock().unwrap();
            let server = life.get_or_insert_with(|| self.next_life());
            match server.ask(method, path, body) {
                Some((503, _)) => {}
                Some(answer) => return answer,
                None => drop(life.take()),
            }
        }
    }

    fn next_life(&self) -> Life {
        let mut left = self.deaths_left.lock().unwrap();
        let fault = (*left > 0).then(|| {
            *left -= 1;
            let mut dice = self.dice.lock().unwrap();
            (dice.below(Place::ALL.len() as u64) as usize, 1 + dice.below(12))
        });
        Life::new(self.folder, fault)
    }

    fn push_all(&self, orders: &[(String, Value)], prefix: &str) {
        let mut pushes = Vec::new();
        for (n, (process, message)) in orders.iter().enumerate() {
            let body = json!({ "message": message, "await": "accepted",
                "transactionId": format!("{prefix}{n}") });
            let path = format!("/api/v1/processes/{process}/push");
            let (status, answer) = self.ask("POST", &path, &body.to_string());
            assert_eq!(status, 200, "{answer}");
            pushes.push(answer["push_id"].as_str().unwrap().to_owned());
        }
        for push in pushes {
            loop {
                let (_, shown) = self.ask("GET", &format!("/api/v1/pushes/{push}?wait=30000"), "");
                if shown["complete"] == true {
                    assert_eq!(shown["status"], "ok", "{shown}");
                    break;
                }
            }
        }
    }

    fn define_all(&self) {
        for class in ["ledger", "fan", "pingpong", "router"] {
            let body = json!({ "runtime": "native", "module": class }).to_string();
            let (status, answer) = self.ask("PUT", &format!("/api/v1/processes/{class}"), &body);
            assert_eq!(status, 200, "{answer}");
        }
        let body = json!({ "runtime": "native", "module": "counter" }).to_string();
        self.ask("PUT", "/api/v1/processes/delayed", &body);
    }
}

/// Tells the story of one seed; returns how it ended, and how many deaths there were.
fn tell(seed: u64, deaths: u32) -> (Value, u32) {
    let folder = tempfile::tempdir().unwrap();
    let story = Story {
        folder: folder.path(),
        life: Mutex::default(),
        dice: Mutex::new(Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        deaths_left: Mutex::new(deaths),
    };
    story.define_all();
    story.push_all(&orders(), "a");
    story.push_all(&later_orders(), "b");
    let picture = loop {
        let mut life = story.life.lock().unwrap();
        let server = life.get_or_insert_with(|| story.next_life());
        match picture(server) {
            Some(picture) => break picture,
            None => drop(life.take()),
        }
    };
    let left = *story.deaths_left.lock().unwrap();
    (picture, deaths - left)
}

/// The supply, as all ledgers together have it.
fn supply(picture: &Value) -> i64 {
    let balances = |ledger: &str| {
        let keys = picture[ledger][0].as_array().unwrap().clone();
        let of = |key: &Value| key["key"].as_str().unwrap().starts_with("balance:");
        keys.iter().filter(|key| of(key)).map(|key| key["value"].as_i64().unwrap()).sum::<i64>()
    };
    let subs: i64 = (0..3).map(|n| balances(&format!("ledger/sub{n}"))).sum();
    let keys = picture["ledger/root"][0].as_array().unwrap();
    let held =
        keys.iter().filter(|key| key["key"].as_str().unwrap().starts_with("balance:ledger/"));
    let held: i64 = held.map(|key| key["value"].as_i64().unwrap()).sum();
    assert_eq!(held, subs, "what sub-ledgers have is what the root holds for them");
    balances("ledger/root")
}

fn seeds(default: u64) -> u64 {
    let asked = std::env::var("ONRUSH_CRASH_SEEDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(default)
}

#[test]
fn xg_02_all_is_as_if_nothing_had_happened_wherever_it_dies() {
    let (expected, _) = tell(0, 0);
    assert_eq!(supply(&expected), 1_000);
    assert_eq!(expected["fan/root"][1], 101, "one message and a hundred that came back");
    let mut died = 0;
    for seed in 1..=seeds(6) {
        let (picture, deaths) = tell(seed, 6);
        died += deaths;
        assert_eq!(supply(&picture), 1_000, "seed {seed}");
        assert_eq!(picture, expected, "seed {seed} with {deaths} deaths");
    }
    assert!(died > 0, "nobody died");
}

#[test]
fn xg_02_all_is_as_if_nothing_had_happened_whenever_it_is_killed() {
    let (expected, _) = tell(0, 0);
    for seed in 1..=seeds(3) {
        let folder = tempfile::tempdir().unwrap();
        let mut dice = Dice(seed);
        let story = Story {
            folder: folder.path(),
            life: Mutex::default(),
            dice: Mutex::new(Dice(seed)),
            deaths_left: Mutex::new(0),
        };
        story.define_all();
        let all = [(orders(), "a"), (later_orders(), "b")];
        for (orders, prefix) in &all {
            for (n, (process, message)) in orders.iter().enumerate() {
                let body = json!({ "message": message, "await": "accepted",
                    "transactionId": format!("{prefix}{n}") });
                let path = format!("/api/v1/processes/{process}/push");
                assert_eq!(story.ask("POST", &path, &body.to_string()).0, 200);
                if dice.below(3) == 0 {
                    std::thread::sleep(Duration::from_millis(dice.below(20)));
                    // SIGKILL, in the middle of whatever it does.
                    drop(story.life.lock().unwrap().take());
                }
            }
            story.push_all(orders, prefix);
        }
        let life = story.life.lock().unwrap();
        let picture = picture(life.as_ref().unwrap()).unwrap();
        assert_eq!(picture, expected, "seed {seed}");
    }
}
