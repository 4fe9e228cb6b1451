//! A store that goes away and comes back, again and again, in the middle of everything: what was
//! acknowledged meanwhile stands once and in order when it is back.
//!
//! The store is simulated and lies by seed; the failover log is on a real disk. `SEEDS` sets how many
//! seeds, `SEED` runs one alone; `MESSAGES` how many messages each producer sends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: a panic is how it fails, and it names its seed"
)]

#[path = "support/engine.rs"]
mod engine;
#[path = "support/seeds.rs"]
mod seeds;
#[path = "simulated/station.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod station;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::Ground;
use onrush::base::clock::{Clock, SystemClock};
use onrush::base::files::DiskFiles;
use onrush::base::place::{ShardCount, StoreKey};
use onrush::base::random::SeededRandom;
use onrush::failover;
use onrush::log::simulated::{Fault, Faults, SimulatedLog};
use onrush::shard::Config;
use onrush::shard::failover::{Patience, Standby};
use onrush::shard::replica::Replica;
use onrush::state::codec;
use onrush::state::effect::Effect;
use onrush::state::kv::memory::MemoryKv;
use onrush::transaction::{AppendOrder, Order};
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use onrush_protocol::qos::Qos;
use seeds::{number, runtime, seeds};
use station::{Sent, Station};

const SHARDS: u16 = 3;
/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One engine, its line to the store, and its failover log.
struct Bench {
    store: SimulatedLog,
    line: Arc<SimulatedLog>,
    kv: Arc<MemoryKv>,
    folder: tempfile::TempDir,
    seed: u64,
    starts: u64,
    disk_bytes_max: u64,
    clock: Arc<Counting>,
    patience: Patience,
    config: Config,
}

/// The machine's clock, and how often it is asked.
struct Counting {
    clock: SystemClock,
    asked: AtomicU64,
}

impl Clock for Counting {
    fn now_ms(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.clock.now_ms()
    }

    fn monotonic_us(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.clock.monotonic_us()
    }
}

impl Bench {
    fn new(seed: u64) -> Self {
        let store = SimulatedLog::new(seed, ShardCount::new(SHARDS).unwrap());
        let line = Arc::new(store.connect());
        let (kv, folder) = (Arc::new(MemoryKv::new()), tempfile::tempdir().unwrap());
        let clock = Arc::new(Counting { clock: SystemClock::new(), asked: AtomicU64::new(0) });
        let (starts, disk_bytes_max) = (0, u64::MAX);
        let patience = Patience { suspect_ms: 5, probe_ms: 2 };
        let config = Config {
            checkpoint_interval_ms: 10,
            sole_writer: false,
            follow_interval_ms: 5,
            parts_bytes_min: 1,
            retention_interval_ms: 300_000,
            ..Config::default()
        };
        Self { store, line, kv, folder, seed, starts, disk_bytes_max, clock, patience, config }
    }

    /// Starts an engine on what is there.
    fn start(&mut self) -> Station {
        self.start_as(|standby| standby)
    }

    /// The same with a failover log that `change` has had in its hands.
    fn start_as(&mut self, change: impl FnOnce(Standby) -> Standby) -> Station {
        self.starts += 1;
        let shards = ShardCount::new(SHARDS).unwrap();
        let replica = Replica::load(shards, StoreKey([5; 16]), &*self.kv).unwrap();
        let files = DiskFiles::open(self.folder.path()).unwrap();
        let config =
            failover::Config { segment_bytes: 64 << 10, disk_bytes_max: self.disk_bytes_max };
        let standby = Standby::open(&files, "failover", config, self.patience, &replica).unwrap();
        let ground = Ground {
            log: Arc::clone(&self.line),
            kv: Arc::clone(&self.kv),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            seed: self.seed * 1_000 + self.starts,
            standby: Some(change(standby)),
        };
        let (engine, telemetry) = ground.start(replica, self.config);
        Station::new(engine, telemetry, self.seed)
    }

    /// Messages as the store has them, by partition name.
    fn messages(&self) -> BTreeMap<String, Vec<String>> {
        let (mut names, mut found) = (BTreeMap::new(), BTreeMap::<String, Vec<String>>::new());
        for stored in self.store.entries() {
            for effect in codec::decode(stored.bytes).unwrap().effects {
                match effect {
                    Effect::CreatePartition { number, name, .. } => {
                        names.insert(number, name.to_string());
                    }
                    Effect::Append { partition, batch, .. } => {
                        let batch = RecordBatch::parse_trusted(batch).unwrap();
                        let texts = batch.records().map(|it| it.payload.to_vec());
                        let texts = texts.map(|it| String::from_utf8(it).unwrap());
                        found.entry(names[&partition].clone()).or_default().extend(texts);
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// Waits until nothing waits in the failover log any more.
async fn drained(station: &Station) {
    let all = async {
        while station.telemetry.spill_waiting.get() > 0 || station.telemetry.store_away.get() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("what waits gets into the store");
}

async fn push(station: &Station, partition: &str, text: &str) -> Sent {
    station.push(partition, Qos::AtLeastOnce, &[(None, text.to_owned())]).await
}

#[test]
fn a_store_that_comes_and_goes_loses_doubles_and_reorders_nothing() {
    let (mut spilled, mut stored, mut outages) = (0, 0, 0);
    let mut struck = onrush::log::simulated::Struck::default();
    for seed in seeds(8) {
        println!("seed {seed}");
        let mut bench = Bench::new(seed);
        let station = Arc::new(bench.start());
        let (count, line, store) = (number("MESSAGES", 60), bench.line.clone(), &bench.store);
        let told = runtime().block_on(async {
            assert!(matches!(push(&station, "first", "0").await, Sent::Stored(..)));
            store.set_faults(Faults {
                unavailable_per_mille: 30,
                answer_lost_per_mille: 60,
                request_lost_per_mille: 60,
                late_per_mille: 60,
                yields_max: 3,
                ..Faults::default()
            });
            let is_over = Arc::new(AtomicBool::new(false));
            let over = Arc::clone(&is_over);
            let weather = tokio::spawn(async move {
                let random = SeededRandom::new(seed);
                while !over.load(Ordering::Relaxed) {
                    line.set_cut(true);
                    tokio::time::sleep(Duration::from_millis(random.below(30))).await;
                    line.set_cut(false);
                    tokio::time::sleep(Duration::from_millis(random.below(30))).await;
                }
            });
            let producers = (0..4_u64).map(|producer| {
                let station = Arc::clone(&station);
                tokio::spawn(async move {
                    let mut told = Vec::new();
                    for message in 0..count {
                        let text = format!("{producer}-{message:05}");
                        // Every other producer names its messages, and says each of them twice.
                        let id = (producer % 2 == 0).then(|| text.clone());
                        let qos = if id.is_some() { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
                        let record = [(id, text.clone())];
                        let partition = format!("p{producer}");
                        told.push((text, station.push(&partition, qos, &record).await));
                        if qos == Qos::ExactlyOnce {
                            station.push(&partition, qos, &record).await;
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    told
                })
            });
            let producers: Vec<_> = producers.collect();
            let mut told = Vec::new();
            for producer in producers {
                told.extend(producer.await.unwrap());
            }
            is_over.store(true, Ordering::Relaxed);
            weather.await.unwrap();
            store.set_faults(Faults::default());
            drained(&station).await;
            told
        });
        runtime().block_on(station.stop());
        outages += station.telemetry.outages.get();
        let seen = store.struck();
        struck.answers_lost += seen.answers_lost;
        struck.requests_lost += seen.requests_lost;
        struck.late += seen.late;
        let found = bench.messages();
        for producer in 0..4 {
            let texts = &found[&format!("p{producer}")];
            assert!(texts.is_sorted(), "seed {seed}: out of order: {texts:?}");
            let unique: BTreeSet<_> = texts.iter().collect();
            assert_eq!(unique.len(), texts.len(), "seed {seed}: something stands twice");
        }
        for (text, answer) in told {
            let stands = found[&format!("p{}", &text[..1])].contains(&text);
            match answer {
                Sent::Spilled => spilled += 1,
                Sent::Stored(..) => stored += 1,
                other => panic!("seed {seed}: {text} was answered {other:?}"),
            }
            assert!(stands, "seed {seed}: {text} is lost");
        }
    }
    println!("{spilled} spilled, {stored} stored, {outages} outages, {struck:?}");
    // A proof that saw no fault proves nothing.
    assert!(spilled > 0 && stored > 0 && outages > 0);
    assert!(struck.answers_lost > 0 && struck.requests_lost > 0 && struck.late > 0, "{struck:?}");
}

#[test]
fn a_restart_while_the_store_is_away_keeps_what_waits() {
    let mut bench = Bench::new(1);
    runtime().block_on(async {
        let station = bench.start();
        assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
        bench.line.set_cut(true);
        for text in ["1", "2"] {
            assert!(matches!(push(&station, "p", text).await, Sent::Spilled));
        }
        station.stop().await;
        let station = bench.start();
        assert!(matches!(push(&station, "p", "3").await, Sent::Spilled));
        bench.line.set_cut(false);
        drained(&station).await;
        assert!(matches!(push(&station, "p", "4").await, Sent::Stored(..)));
        station.stop().await;
        // And once more: nothing is pushed again that was.
        let station = bench.start();
        assert!(matches!(push(&station, "p", "5").await, Sent::Stored(..) | Sent::Spilled));
        drained(&station).await;
        station.stop().await;
    });
    assert_eq!(bench.messages()["p"], ["0", "1", "2", "3", "4", "5"]);
}

#[test]
fn appends_that_fail_together_are_tried_again_no_longer_than_one() {
    let mut bench = Bench::new(7);
    bench.patience = Patience { suspect_ms: 1_000, probe_ms: 10 };
    // Nothing else is due, so pushes of all lines are offered to the log side by side.
    bench.config.follow_interval_ms = 3_600_000;
    bench.config.checkpoint_interval_ms = 3_600_000;
    runtime().block_on(async {
        let (station, line) = (Arc::new(bench.start()), bench.line.clone());
        let everywhere = |text: &'static str| {
            let push = move |at: usize, station: Arc<Station>| async move {
                push(&station, &format!("p{at}"), text).await
            };
            let all = (0..12).map(|at| tokio::spawn(push(at, Arc::clone(&station))));
            all.collect::<Vec<_>>()
        };
        for pushed in everywhere("first") {
            assert!(matches!(pushed.await.unwrap(), Sent::Stored(..)));
        }
        line.set_frozen(true);
        let all = everywhere("second");
        // One for each line.
        while line.frozen() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        line.set_cut(true);
        line.set_frozen(false);
        for pushed in all {
            assert!(matches!(pushed.await.unwrap(), Sent::Spilled));
        }
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1_800), "the second one was waited for: {took:?}");
        line.set_cut(false);
        drained(&station).await;
        station.stop().await;
    });
    assert!(bench.messages().values().all(|texts| *texts == ["first", "second"]));
}

#[test]
fn stopping_does_not_wait_for_a_state_that_nobody_wants_any_more() {
    let mut bench = Bench::new(8);
    let (began, settling) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begins, settled) = (Arc::clone(&began), Arc::clone(&settling));
    runtime().block_on(async {
        let station = bench.start_as(|standby| {
            standby.away(Arc::new(move |_, stop| {
                begins.store(true, Ordering::Relaxed);
                // As long as a million names take, or a database that does not answer.
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                settled.store(true, Ordering::Relaxed);
                Err("it was stopped".into())
            }))
        });
        while !began.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::timeout(PATIENCE, station.stop()).await.expect("it stops");
    });
    assert!(settling.load(Ordering::Relaxed), "its thread was waited for");
}

#[test]
fn an_engine_that_is_dropped_lets_go_of_everything_and_keeps_what_it_answered_for() {
    let mut bench = Bench::new(3);
    runtime().block_on(async {
        for is_away in [false, true] {
            bench.line.set_cut(false);
            let station = bench.start();
            assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
            bench.line.set_cut(is_away);
            let sent = push(&station, "p", "1").await;
            assert!(matches!(sent, Sent::Stored(..) | Sent::Spilled));
            drop(station);
            let gone = async {
                while Arc::strong_count(&bench.kv) > 1 || Arc::strong_count(&bench.line) > 1 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(PATIENCE, gone).await.expect("its threads end by themselves");
        }
        bench.line.set_cut(false);
        let station = bench.start();
        drained(&station).await;
        station.stop().await;
    });
    assert_eq!(bench.messages()["p"], ["0", "1", "0", "1"]);
}

#[test]
fn what_waits_and_what_is_due_is_told_at_the_start_and_an_outage_costs_no_processor_time() {
    let mut bench = Bench::new(5);
    // Due all the time, and never done while the store is away.
    bench.config.retention_interval_ms = 1;
    runtime().block_on(async {
        let station = bench.start();
        assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
        bench.line.set_cut(true);
        assert!(matches!(push(&station, "p", "1").await, Sent::Spilled));
        station.stop().await;
        let station = bench.start();
        assert_eq!(station.telemetry.spill_waiting.get(), 1, "before anything happens");
        assert!(matches!(push(&station, "p", "2").await, Sent::Spilled));
        // What follows an answer is over by then.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = bench.clock.asked.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = bench.clock.asked.load(Ordering::Relaxed) - before;
        // A look every two milliseconds, and a lane that never sleeps asks a hundred times as often.
        assert!(asked < 20_000, "{asked} looks at the clock in half a second");
        bench.line.set_cut(false);
        drained(&station).await;
        station.stop().await;
    });
    assert_eq!(bench.messages()["p"], ["0", "1", "2"]);
}

#[test]
fn an_append_whose_answer_is_lost_for_good_stands_once_after_a_restart() {
    for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Late] {
        let mut bench = Bench::new(2);
        runtime().block_on(async {
            let station = bench.start();
            assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
            let (store, line) = (&bench.store, bench.line.clone());
            store.script(fault);
            // The line breaks with the append, and does not come back before the engine is gone.
            let cutter = async {
                while station.telemetry.store_away.get() == 0 {
                    if store.struck().answers_lost + store.struck().requests_lost > 0 {
                        line.set_cut(true);
                    }
                    tokio::task::yield_now().await;
                }
            };
            let (sent, ()) = tokio::join!(push(&station, "p", "1"), async {
                tokio::select! { () = cutter => {}, () = tokio::time::sleep(Duration::from_millis(300)) => {} }
            });
            assert!(matches!(sent, Sent::Spilled | Sent::Stored(..)), "{fault:?}: {sent:?}");
            line.set_cut(true);
            station.stop().await;
            let station = bench.start();
            line.set_cut(false);
            drained(&station).await;
            assert!(matches!(push(&station, "p", "2").await, Sent::Stored(..)));
            station.stop().await;
        });
        assert_eq!(bench.messages()["p"], ["0", "1", "2"], "{fault:?}");
    }
}

#[test]
fn pops_are_refused_while_the_store_is_away_and_work_when_it_is_back() {
    let mut bench = Bench::new(3);
    runtime().block_on(async {
        let station = bench.start();
        assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
        bench.line.set_cut(true);
        assert!(matches!(push(&station, "p", "1").await, Sent::Spilled));
        assert!(station.pop(&station::Ask::of("g", 10)).await.is_err());
        bench.line.set_cut(false);
        drained(&station).await;
        let handout = station.pop(&station::Ask::of("g", 10)).await.unwrap();
        let batches = handout.packages.iter().flat_map(|it| &it.batches);
        assert_eq!(batches.map(|it| it.batch.count()).sum::<u32>(), 2);
        station.stop().await;
    });
}

#[test]
fn a_failover_log_that_is_full_refuses_and_recovers() {
    let mut bench = Bench::new(4);
    bench.disk_bytes_max = 256 << 10;
    runtime().block_on(async {
        let station = bench.start();
        assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
        bench.line.set_cut(true);
        let large = "x".repeat(10_000);
        let mut kept = 0;
        let refusal = loop {
            match push(&station, "p", &large).await {
                Sent::Spilled => kept += 1,
                other => break other,
            }
        };
        assert!(matches!(&refusal, Sent::Refused(why) if why.contains("DiskFull")), "{refusal:?}");
        bench.line.set_cut(false);
        drained(&station).await;
        assert!(matches!(push(&station, "p", "last").await, Sent::Stored(..)));
        station.stop().await;
        assert_eq!(bench.messages()["p"].len(), kept + 2);
    });
}

/// Whether one message stands before another.
fn stands_before(all: &[String], first: &str, second: &str) -> bool {
    let place = |text: &str| all.iter().position(|it| it == text);
    place(first).unwrap() < place(second).unwrap()
}

#[test]
fn a_transaction_overtakes_nothing_that_a_full_disk_holds_up() {
    let mut bench = Bench::new(5);
    let (mut refused, mut stood) = (0, Vec::new());
    runtime().block_on(async {
        let station = bench.start();
        assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
        for round in 1..=20 {
            // For everything together, and for its first part.
            bench.store.script(Fault::DiskFull);
            bench.store.script(Fault::DiskFull);
            let text = format!("buffered-{round}");
            let sent = station.push("p", Qos::Buffered, &[(None, text)]).await;
            assert!(matches!(sent, Sent::Buffered), "{sent:?}");
            let mut builder = BatchBuilder::new();
            let text = format!("whole-{round}");
            let payload = text.as_bytes();
            builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
            let append = AppendOrder {
                queue: station::QUEUE.parse().unwrap(),
                partition: "p".parse().unwrap(),
                batch: builder.finish().unwrap().bytes().clone(),
            };
            let order = Order { appends: vec![append], ..Order::default() };
            match station.transactions.commit(order).await {
                Ok(_) => stood.push(round),
                Err(error) => {
                    assert!(error.to_string().contains("full"), "{error}");
                    refused += 1;
                }
            }
            while station.telemetry.buffered_flushed.get() < round {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        station.stop().await;
    });
    let all = &bench.messages()["p"];
    for round in stood {
        let (buffered, whole) = (format!("buffered-{round}"), format!("whole-{round}"));
        assert!(stands_before(all, &buffered, &whole), "{all:?}");
    }
    assert!(refused > 0, "they never met");
}

#[test]
fn what_comes_beside_a_replay_that_a_full_disk_holds_up_waits_behind_it() {
    let mut bench = Bench::new(6);
    const PRODUCERS: usize = 6;
    let (mut spilled, mut stored) = (0, 0);
    runtime().block_on(async {
        let station = Arc::new(bench.start());
        assert!(matches!(push(&station, "p", "0").await, Sent::Stored(..)));
        let is_over = Arc::new(AtomicBool::new(false));
        let producers = (0..PRODUCERS).map(|producer| {
            let (station, is_over) = (Arc::clone(&station), Arc::clone(&is_over));
            tokio::spawn(async move {
                let (mut spilled, mut stored) = (0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    let text = format!("{producer}-{:05}", spilled + stored);
                    match push(&station, "p", &text).await {
                        Sent::Spilled => spilled += 1,
                        Sent::Stored(..) => stored += 1,
                        other => panic!("{text} was answered {other:?}"),
                    }
                }
                (spilled, stored)
            })
        });
        let producers: Vec<_> = producers.collect();
        for _ in 0..5 {
            station.catalogs.maintain(Some(true), None).await.unwrap();
            let before = station.telemetry.spilled.get();
            while station.telemetry.spilled.get() < before + 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Nothing is appended while all is held back but the end of that; then what waited with
            // what has just come, and then what waited alone.
            bench.store.script(Fault::None);
            bench.store.script(Fault::DiskFull);
            bench.store.script(Fault::DiskFull);
            station.catalogs.maintain(Some(false), None).await.unwrap();
            drained(&station).await;
        }
        is_over.store(true, Ordering::Relaxed);
        for producer in producers {
            let told = producer.await.unwrap();
            (spilled, stored) = (spilled + told.0, stored + told.1);
        }
        drained(&station).await;
        station.stop().await;
    });
    let all = &bench.messages()["p"];
    for producer in 0..PRODUCERS {
        let of = |text: &&String| text.starts_with(&format!("{producer}-"));
        let texts: Vec<&String> = all.iter().filter(of).collect();
        assert!(texts.is_sorted(), "out of order: {texts:?}");
    }
    assert_eq!(all.len(), 1 + spilled + stored);
    assert!(bench.store.struck().disk_full == 10 && spilled > 0, "{spilled} spilled");
}
