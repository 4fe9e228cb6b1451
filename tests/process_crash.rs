//! XG-02: processes and kills. A server dies at every place where it could hurt, and by SIGKILL at any
//! time; what it had answered stands, what it had not is sent again, and in the end all is as if
//! nothing had happened.
//!
//! The server is this very test, started again as a process of its own with a place to die at. How many
//! seeds, `ONRUSH_CRASH_SEEDS` says; with enough of them it must have died at every place.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

#[path = "support/store.rs"]
mod store;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onrush::config::{Secret, Settings};
use onrush::process::faults::{Place, arm};
use onrush::server::Server;
use serde_json::{Value, json};

const FOLDER: &str = "ONRUSH_CRASH_FOLDER";
const FAULT: &str = "ONRUSH_CRASH_FAULT";
const DATABASE: &str = "ONRUSH_CRASH_DATABASE";
const SCHEMA: &str = "ONRUSH_CRASH_SCHEMA";
/// Stories told at a time.
const TELLERS: usize = 3;
/// With so many seeds every place was somebody's death.
const SEEDS_MANY: u64 = 40;

/// Not a test of its own: the server that the tests start. Without a folder it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.into();
    if let (Ok(database), Ok(schema)) = (std::env::var(DATABASE), std::env::var(SCHEMA)) {
        settings.database.url = Secret::new(database);
        settings.database.schema = schema;
    }
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

/// Where the lives of a story keep what they know.
struct Ground {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Ground {
    fn new() -> Self {
        let mut settings = Settings::default();
        store::choose(&mut settings);
        Self { folder: tempfile::tempdir().unwrap(), settings }
    }
}

/// A server in a process of its own; killed when dropped.
struct Life {
    child: Child,
    addr: String,
    /// Where it is to die, by the place's index.
    place: Option<usize>,
    _words: BufReader<std::process::ChildStderr>,
}

impl Life {
    fn new(ground: &Ground, fault: Option<(usize, u64)>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let data = ground.folder.path().join("data");
        command.args(["--exact", "child", "--nocapture"]).env(FOLDER, data);
        let database = &ground.settings.database;
        if database.url.is_set() {
            command.env(DATABASE, database.url.expose()).env(SCHEMA, &database.schema);
        }
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
        Self { child, addr, place: fault.map(|(place, _)| place), _words: words }
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
    let mint = json!({ "action": "mint", "account": "alice", "quantity": 1_000 });
    let scripted = json!({ "action": "mint", "to": "user/alice", "quantity": 1_000 });
    let mut orders = vec![("ledger/root".into(), mint), ("script/root".into(), scripted)];
    for n in 0..12_u64 {
        let deposit = json!({ "action": "deposit", "account": "alice",
            "to": format!("ledger/sub{}", n % 3), "toAccount": "bob", "quantity": 10 + n });
        orders.push(("ledger/root".into(), deposit));
        let via = format!("script/sub{}", n % 3);
        orders.push(transfer("alice", "script/root", "user/bob", 10 + n, &via));
    }
    orders.push(("fan/root".into(), json!({ "count": 100, "class": "fan", "prefix": "leaf" })));
    orders.push(("pingpong/a".into(), json!({ "start": true, "limit": 20 })));
    orders.push(("router/r".into(), json!({ "to": ["delayed/a"], "delay_ms": 20 })));
    // To a class in manual mode, from a client, from a process, and after a while.
    for n in 0..3_u64 {
        orders.push(("manual/a".into(), json!({ "add": 1 + n })));
        orders.push(("router/r".into(), json!({ "to": "manual/b", "add": 1 + n })));
    }
    orders.push(("router/r".into(), json!({ "to": "manual/c", "delay_ms": 20 })));
    // To a class that comes later.
    orders.push(("patient/p".into(), json!({ "to": "late/a", "add": 5 })));
    // A module of another kind.
    orders.push(("fac/any".into(), json!(5)));
    orders
}

/// A user's order to a ledger that is a script.
fn transfer(user: &str, ledger: &str, to: &str, quantity: u64, via: &str) -> (String, Value) {
    let order = json!({ "action": "transfer", "to": to, "quantity": quantity, "via": via });
    (format!("user/{user}"), json!({ "ledger": ledger, "order": order }))
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
    vec![
        back(0, None),
        back(1, Some(2)),
        back(2, None),
        back(0, Some(1)),
        transfer("bob", "script/sub0", "user/carol", 7, "script/root"),
        transfer("bob", "script/sub1", "user/carol", 5, "script/sub2"),
        transfer("bob", "script/sub2", "user/dora", 3, "script/root"),
    ]
}

/// All processes that have a part in it.
fn processes() -> Vec<String> {
    let ledgers = ["root", "sub0", "sub1", "sub2"];
    let ledgers = ledgers.iter().flat_map(|key| [format!("ledger/{key}"), format!("script/{key}")]);
    let others = [
        "fan/root",
        "pingpong/a",
        "delayed/a",
        "router/r",
        "user/alice",
        "user/bob",
        "manual/a",
        "manual/b",
        "manual/c",
        "patient/p",
        "late/a",
        "fac/any",
    ];
    let leaves = (1..=100).map(|n| format!("fan/leaf{n}"));
    ledgers.chain(others.map(Into::into)).chain(leaves).collect()
}

/// Everything that is to be the same whatever happened: state, and which messages came from whom and
/// what became of them. In which order messages of different senders came is nobody's promise.
fn picture(life: &Life) -> Option<Value> {
    let mut all = serde_json::Map::new();
    for process in processes() {
        let path = format!("/api/v1/processes/{process}");
        let (status, state) = life.ask("GET", &format!("{path}/state?limit=1000"), "")?;
        assert_eq!(status, 200, "{process}: {state}");
        let (_, shown) = life.ask("GET", &path, "")?;
        assert_eq!(shown["pending"], 0, "{process}: {shown}");
        let (_, log) = life.ask("GET", &format!("{path}/slots?limit=1000"), "")?;
        assert_eq!(log["has_more"], false, "{process}");
        let slots = log["slots"].as_array().unwrap().iter().map(|slot| {
            json!([slot["from"], slot["message"], slot["status"], slot["result"]["error"]])
                .to_string()
        });
        let mut slots: Vec<String> = slots.collect();
        slots.sort();
        all.insert(process, json!([state["keys"], shown["slots"], slots]));
    }
    let (_, letters) = life.ask("GET", "/api/v1/letters", "")?;
    all.insert("letters".into(), letters["letters"].clone());
    Some(Value::Object(all))
}

/// Lives of one store, one after the other.
struct Story {
    ground: Ground,
    life: Mutex<Option<Life>>,
    dice: Mutex<Dice>,
    deaths_left: Mutex<u32>,
    /// Deaths by place.
    deaths: Mutex<[u64; Place::ALL.len()]>,
}

impl Story {
    fn new(seed: u64, deaths: u32) -> Self {
        Self {
            ground: Ground::new(),
            life: Mutex::default(),
            dice: Mutex::new(Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            deaths_left: Mutex::new(deaths),
            deaths: Mutex::default(),
        }
    }

    /// Asks until somebody answers. Every death is followed by another life, in which death waits
    /// elsewhere, until there were enough.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        loop {
            match self.with_life(|life| life.ask(method, path, body)) {
                Some((503, _)) | None => {}
                Some(answer) => return answer,
            }
        }
    }

    /// Does something with the life that there is; `None` where it died of it.
    fn with_life<T>(&self, act: impl FnOnce(&Life) -> Option<T>) -> Option<T> {
        let mut life = self.life.lock().unwrap();
        let done = act(life.get_or_insert_with(|| self.next_life()));
        if done.is_none()
            && let Some(place) = life.take().and_then(|life| life.place)
        {
            self.deaths.lock().unwrap()[place] += 1;
        }
        done
    }

    fn next_life(&self) -> Life {
        let mut left = self.deaths_left.lock().unwrap();
        let fault = (*left > 0).then(|| {
            *left -= 1;
            let mut dice = self.dice.lock().unwrap();
            (dice.below(Place::ALL.len() as u64) as usize, 1 + dice.below(12))
        });
        Life::new(&self.ground, fault)
    }

    fn push(&self, process: &str, message: &Value, id: &str) -> String {
        let body = json!({ "message": message, "await": "accepted", "transactionId": id });
        let path = format!("/api/v1/processes/{process}/push");
        let (status, answer) = self.ask("POST", &path, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer["push_id"].as_str().unwrap().to_owned()
    }

    fn push_all(&self, orders: &[(String, Value)], prefix: &str) {
        let pushes = orders
            .iter()
            .enumerate()
            .map(|(n, (process, message))| self.push(process, message, &format!("{prefix}{n}")));
        let pushes: Vec<String> = pushes.collect();
        // What one of them sent waits for this class.
        self.define("late", &json!({ "runtime": "native", "module": "counter" }));
        for push in pushes {
            loop {
                let (_, shown) = self.ask("GET", &format!("/api/v1/pushes/{push}?wait=30000"), "");
                if shown["complete"] == true {
                    assert_eq!(shown["status"], "ok", "{shown}");
                    break;
                }
            }
            // At every step, whatever is under way.
            for root in ["ledger/root", "script/root"] {
                let path = format!("/api/v1/processes/{root}/state?limit=1000");
                let keys = self.ask("GET", &path, "").1["keys"].clone();
                assert!([0, 1_000].contains(&sum(&keys, is_account)), "{root}: {keys}");
            }
        }
    }

    fn define(&self, class: &str, definition: &Value) {
        let path = format!("/api/v1/processes/{class}");
        let (status, answer) = self.ask("PUT", &path, &definition.to_string());
        assert_eq!(status, 200, "{answer}");
    }

    fn define_all(&self) {
        for class in ["ledger", "fan", "pingpong", "router"] {
            self.define(class, &json!({ "runtime": "native", "module": class }));
        }
        self.define("delayed", &json!({ "runtime": "native", "module": "counter" }));
        let ledger = include_str!("../examples/processes/luau/ledger.luau");
        self.define("script", &json!({ "runtime": "luau", "module": ledger }));
        let user = "return { handle = function(state, msg, ctx)
            local order = { target = msg.ledger }
            for key, value in pairs(msg.order) do order[key] = value end
            ctx.send(order)
        end }";
        self.define("user", &json!({ "runtime": "luau", "module": user }));
        let manual = json!({ "runtime": "native", "module": "counter", "mode": "manual" });
        self.define("manual", &manual);
        let parks = json!({ "park": 600_000 });
        self.define(
            "patient",
            &json!({ "runtime": "native", "module": "router", "unknown_target": parks }),
        );
        let fac = STANDARD.encode(include_bytes!("../examples/processes/wasm/fac.wasm"));
        self.define("fac", &json!({ "runtime": "wasm", "module": fac }));
    }

    /// How it ended.
    fn end(&self) -> Value {
        loop {
            if let Some(picture) = self.with_life(picture) {
                return picture;
            }
        }
    }
}

fn is_account(key: &str) -> bool {
    key.starts_with("balance:") || key.starts_with("account/")
}

/// What is under some of these keys together.
fn sum(keys: &Value, of: impl Fn(&str) -> bool) -> i64 {
    let keys = keys.as_array().unwrap().iter();
    let counted = keys.filter(|key| of(key["key"].as_str().unwrap()));
    counted.map(|key| key["value"].as_i64().unwrap()).sum()
}

/// Tells the story of one seed; returns how it ended, and how many deaths there were at each place.
fn tell(seed: u64, deaths: u32) -> (Value, [u64; Place::ALL.len()]) {
    let story = Story::new(seed, deaths);
    story.define_all();
    story.push_all(&orders(), "a");
    story.push_all(&later_orders(), "b");
    let picture = story.end();
    let deaths = *story.deaths.lock().unwrap();
    (picture, deaths)
}

/// How it ends when nobody dies.
fn expected() -> &'static Value {
    static EXPECTED: OnceLock<Value> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let (picture, _) = tell(0, 0);
        check_ledgers(&picture);
        assert_eq!(picture["fan/root"][1], 101, "one message and a hundred that came back");
        assert_eq!(picture["letters"], json!([]));
        for (manual, sum) in [("manual/a", 6), ("manual/b", 6), ("manual/c", 1), ("late/a", 5)] {
            assert_eq!(picture[manual][0], json!([{ "key": "count", "value": sum }]), "{manual}");
        }
        picture
    })
}

/// The supply is what was minted, and what ledgers below have is what the root holds for them.
fn check_ledgers(picture: &Value) {
    for class in ["ledger", "script"] {
        let keys = |key: &str| picture[format!("{class}/{key}")][0].clone();
        let own = format!("{class}/");
        let is_theirs = |key: &str| is_account(key) && key.contains(&own);
        let is_users = |key: &str| is_account(key) && !key.contains(&own);
        let (root, subs) = (keys("root"), ["sub0", "sub1", "sub2"].map(keys));
        assert_eq!(sum(&root, is_account), 1_000, "{class}");
        let below: i64 = subs.iter().map(|keys| sum(keys, is_users)).sum();
        assert_eq!(sum(&root, is_theirs), below, "{class}");
    }
}

fn seeds(default: u64) -> u64 {
    let asked = std::env::var("ONRUSH_CRASH_SEEDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(default)
}

/// Does something for each seed, several at a time.
fn for_seeds(count: u64, act: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..TELLERS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > count {
                        return;
                    }
                    act(seed);
                }
            });
        }
    });
}

#[test]
fn xg_02_all_is_as_if_nothing_had_happened_wherever_it_dies() {
    let died = Mutex::new([0_u64; Place::ALL.len()]);
    let count = seeds(6);
    for_seeds(count, |seed| {
        let (picture, deaths) = tell(seed, 6);
        check_ledgers(&picture);
        assert_eq!(&picture, expected(), "seed {seed}, deaths {deaths:?}");
        for (sum, deaths) in died.lock().unwrap().iter_mut().zip(deaths) {
            *sum += deaths;
        }
    });
    let died = died.into_inner().unwrap();
    eprintln!("{count} seeds, deaths by place: {died:?}");
    assert!(died.iter().sum::<u64>() > 0, "nobody died");
    assert!(count < SEEDS_MANY || !died.contains(&0), "nobody died at some place: {died:?}");
}

#[test]
fn xg_02_all_is_as_if_nothing_had_happened_whenever_it_is_killed() {
    for_seeds(seeds(3), |seed| {
        let mut dice = Dice(seed);
        let story = Story::new(seed, 0);
        story.define_all();
        for (orders, prefix) in [(orders(), "a"), (later_orders(), "b")] {
            for (n, (process, message)) in orders.iter().enumerate() {
                story.push(process, message, &format!("{prefix}{n}"));
                if dice.below(3) == 0 {
                    std::thread::sleep(Duration::from_millis(dice.below(20)));
                    // SIGKILL, in the middle of whatever it does.
                    drop(story.life.lock().unwrap().take());
                }
            }
            story.push_all(&orders, prefix);
        }
        let picture = story.end();
        check_ledgers(&picture);
        assert_eq!(&picture, expected(), "seed {seed}");
    });
}
