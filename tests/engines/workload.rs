//! Producers and consumers over all engines of a cluster, by seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onrush::base::random::SeededRandom;
use onrush::log::simulated::{Faults, Struck};
use onrush::state::draft::ack::{AckItem, Verdict};
use onrush_protocol::qos::Qos;
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::history::{History, messages};
use crate::station::{Ask, NewMessage, Sent, Station};

/// Groups whose consumers acknowledge, and that must see everything.
const GROUPS: [&str; 2] = ["careful", "clumsy"];
/// A group that settles with the pop.
const HASTY: &str = "hasty";
const PRODUCERS: u64 = 4;
const PARTITIONS: u64 = 4;

pub(crate) struct Workload {
    seed: u64,
    cluster: Cluster,
    history: History,
    got: Mutex<Vec<(u32, u64, String)>>,
    messages: u64,
    producing: AtomicU64,
    drained: AtomicBool,
}

impl Workload {
    pub(crate) fn new(seed: u64, cluster: Cluster, messages: u64) -> Self {
        Self {
            seed,
            cluster,
            history: History::default(),
            got: Mutex::default(),
            messages,
            producing: AtomicU64::new(PRODUCERS),
            drained: AtomicBool::new(false),
        }
    }

    /// Runs until everything is sent and every group has settled everything.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        for producer in 0..PRODUCERS {
            tasks.spawn(Arc::clone(&self).produce(producer));
        }
        for (number, group) in [GROUPS[0], GROUPS[1], GROUPS[1], HASTY].into_iter().enumerate() {
            for engine in 0..self.cluster.stations.len() {
                tasks.spawn(Arc::clone(&self).consume(number as u64, group, engine));
            }
        }
        tasks.spawn(Arc::clone(&self).watch());
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        self.cluster.stop().await;
    }

    /// What the faults did, after everything was held against the log.
    pub(crate) fn check(&self) -> Struck {
        let transcript = self.cluster.transcript();
        self.history.check(&transcript, &GROUPS);
        History::check_payloads(&transcript, &self.got.lock());
        assert!(self.history.count("stored") >= self.messages, "too little was stored");
        let leases = transcript.entries;
        assert!(leases > 0);
        self.cluster.log.struck()
    }

    fn random(&self, salt: u64) -> SeededRandom {
        SeededRandom::new(self.seed.wrapping_mul(7_919).wrapping_add(salt))
    }

    async fn produce(self: Arc<Self>, producer: u64) {
        let random = self.random(producer);
        let name = format!("producer{producer}");
        for number in 0..self.messages {
            let qos = match random.below(3) {
                0 => Qos::Buffered,
                1 => Qos::AtLeastOnce,
                _ => Qos::ExactlyOnce,
            };
            let partition = format!("p{}", random.below(PARTITIONS));
            let count = 1 + random.below(3);
            let records: Vec<NewMessage> = (0..count)
                .map(|part| {
                    let payload = format!("{name}.{number}.{part}");
                    ((qos == Qos::ExactlyOnce).then(|| format!("id-{payload}")), payload)
                })
                .collect();
            self.send(&random, &name, &partition, qos, &records).await;
        }
        self.producing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Sends until it stands or, without ids, until sending again would be wrong.
    async fn send(
        &self,
        random: &SeededRandom,
        producer: &str,
        partition: &str,
        qos: Qos,
        records: &[NewMessage],
    ) {
        if qos.is_durable() {
            records.iter().for_each(|(_, payload)| self.history.sends(producer, payload));
        }
        loop {
            let station = self.any(random);
            let sent = station.push(partition, qos, records).await;
            self.history.sent(qos, records, &sent);
            match sent {
                Sent::Stored(..) if qos == Qos::ExactlyOnce && random.chance(200) => {
                    // As if the answer had been lost on its way: the other engine must know.
                    let again = self.any(random).push(partition, qos, records).await;
                    self.history.sent(qos, records, &again);
                    if let Sent::Stored(_, outcomes) = again {
                        assert!(outcomes.iter().all(|(_, duplicate)| *duplicate), "{outcomes:?}");
                    }
                    return;
                }
                Sent::Stored(..) | Sent::Buffered => return,
                Sent::Spilled => panic!("there is no failover log here"),
                Sent::Unknown if qos == Qos::AtLeastOnce => return,
                Sent::Refused(why) => {
                    // Nothing but the log is at fault here.
                    assert!(why.contains("Append"), "{why}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Sent::Unknown => {}
            }
        }
    }

    fn any(&self, random: &SeededRandom) -> &Station {
        let at = random.below(self.cluster.stations.len() as u64) as usize;
        &self.cluster.stations[at]
    }

    async fn consume(self: Arc<Self>, number: u64, group: &'static str, engine: usize) {
        let random = self.random(100 + 10 * number + engine as u64);
        let station = &self.cluster.stations[engine];
        while !self.drained.load(Ordering::SeqCst) {
            let named = random.chance(200);
            let ask = Ask {
                partition: named.then(|| format!("p{}", random.below(PARTITIONS))),
                wait_ms: random.below(3) * 50,
                auto_ack: group == HASTY,
                ..Ask::of(group, 1 + random.below(12) as u32)
            };
            let asked = self.history.tick();
            let Ok(handout) = station.pop(&ask).await else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            self.history.delivered(group, asked, ask.auto_ack, &handout);
            self.got.lock().extend(messages(&handout));
            if ask.auto_ack {
                continue;
            }
            for package in &handout.packages {
                for batch in &package.batches {
                    let last = batch.first_seq + u64::from(batch.batch.count()) - 1;
                    let item = self.verdict(&random, group, batch.first_seq, last);
                    let Some(item) = item else { continue };
                    // Sometimes through the engine that did not hand it out.
                    let through = if random.chance(300) { self.any(&random) } else { station };
                    let items = vec![(package.partition, item.clone())];
                    let acked = through.ack(group, Some(handout.token), items).await;
                    let confirmed = acked.is_ok_and(|results| results[0].is_ok());
                    if confirmed && item.verdict == Verdict::Completed {
                        self.history.settled(group, package.partition, item.first, item.last + 1);
                    }
                }
            }
        }
    }

    /// What a consumer says of some messages; `None`: nothing, it lets the lease run out.
    fn verdict(
        &self,
        random: &SeededRandom,
        group: &str,
        first: u64,
        last: u64,
    ) -> Option<AckItem> {
        let done = Verdict::Completed;
        let verdict = match random.below(20) {
            _ if group == GROUPS[0] => done,
            0 => Verdict::Failed,
            1 => Verdict::Retry,
            2 => return None,
            _ => done,
        };
        let first = if random.chance(100) { last } else { first };
        Some(AckItem { first, last, verdict, error: "clumsy".into() })
    }

    /// Ends the faults with the last push, and the run when nothing is open.
    async fn watch(self: Arc<Self>) {
        while self.producing.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.cluster.log.set_faults(Faults::default());
        let began = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut open = Vec::new();
            for station in &self.cluster.stations {
                open.extend(station.open().await);
            }
            if open.len() >= GROUPS.len() && open.iter().all(|(_, open)| *open == 0) {
                break;
            }
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(30), "seed {}: {open:?} stay open", self.seed);
        }
        self.drained.store(true, Ordering::SeqCst);
    }
}
