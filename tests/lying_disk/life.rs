//! One life of a machine: producers and consumers until the power goes or everybody is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onrush::base::random::SeededRandom;
use onrush::state::draft::ack::{AckItem, Verdict};
use onrush_protocol::qos::Qos;
use parking_lot::Mutex;

use crate::history::{History, messages};
use crate::station::{Ask, NewMessage, Sent, Station};

/// Groups that must see everything that survives.
pub(crate) const GROUPS: [&str; 2] = ["careful", "clumsy"];
const HASTY: &str = "hasty";
const PARTITIONS: u64 = 3;

/// A message that its producer has no answer for yet: sent again in the next life.
struct Unanswered {
    partition: String,
    records: Vec<NewMessage>,
}

/// A producer that outlives its machine.
pub(crate) struct Producer {
    name: String,
    random: SeededRandom,
    number: u64,
    unanswered: Option<Unanswered>,
}

/// Everybody who talks to the machine, over all its lives.
pub(crate) struct Clients {
    pub(crate) history: History,
    pub(crate) got: Mutex<Vec<(u32, u64, String)>>,
    producers: Vec<tokio::sync::Mutex<Producer>>,
    seed: u64,
    consumers: AtomicU64,
}

impl Clients {
    pub(crate) fn new(seed: u64) -> Self {
        let producer = |number: u64| {
            let random = SeededRandom::new(seed.wrapping_mul(31).wrapping_add(number));
            let name = format!("producer{number}");
            tokio::sync::Mutex::new(Producer { name, random, number: 0, unanswered: None })
        };
        Self {
            history: History::default(),
            got: Mutex::default(),
            producers: (0..3).map(producer).collect(),
            seed,
            consumers: AtomicU64::new(0),
        }
    }

    /// Lets everybody work for a life: each producer sends `messages` more, or gives up when the
    /// machine does not answer any more.
    pub(crate) async fn live(self: &Arc<Self>, station: &Arc<Station>, messages: u64) {
        let mut tasks = tokio::task::JoinSet::new();
        for producer in 0..self.producers.len() {
            let (clients, station) = (Arc::clone(self), Arc::clone(station));
            tasks.spawn(async move { clients.produce(producer, &station, messages).await });
        }
        let mut consumers = tokio::task::JoinSet::new();
        for group in [GROUPS[0], GROUPS[1], HASTY] {
            let (clients, station) = (Arc::clone(self), Arc::clone(station));
            consumers.spawn(async move { while clients.consume(group, &station, false).await {} });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        consumers.shutdown().await;
    }

    async fn produce(&self, at: usize, station: &Station, messages: u64) {
        let mut producer = self.producers[at].lock().await;
        for _ in 0..messages {
            if let Some(again) = producer.unanswered.take() {
                let Unanswered { partition, records } = again;
                if !self.send(&mut producer, station, Qos::ExactlyOnce, partition, records).await {
                    return;
                }
            }
            let qos = match producer.random.below(4) {
                0 => Qos::Buffered,
                1 => Qos::AtLeastOnce,
                _ => Qos::ExactlyOnce,
            };
            let partition = format!("p{}", producer.random.below(PARTITIONS));
            let count = 1 + producer.random.below(3);
            producer.number += 1;
            let filler = "x".repeat(producer.random.below(1_500) as usize);
            let records = (0..count).map(|part| {
                let payload = format!("{}.{}.{part}.{filler}", producer.name, producer.number);
                let name = format!("{}.{}.{part}", producer.name, producer.number);
                ((qos == Qos::ExactlyOnce).then_some(name), payload)
            });
            let records: Vec<NewMessage> = records.collect();
            if qos.is_durable() {
                for (_, payload) in &records {
                    self.history.sends(&producer.name, payload);
                }
            }
            if !self.send(&mut producer, station, qos, partition, records).await {
                return;
            }
        }
    }

    /// Sends once; tells whether the machine still answers.
    async fn send(
        &self,
        producer: &mut Producer,
        station: &Station,
        qos: Qos,
        partition: String,
        records: Vec<NewMessage>,
    ) -> bool {
        let sent = station.push(&partition, qos, &records).await;
        self.history.sent(qos, &records, &sent);
        let answers = matches!(sent, Sent::Stored(..) | Sent::Buffered);
        if !answers && qos == Qos::ExactlyOnce {
            producer.unanswered = Some(Unanswered { partition, records });
        }
        answers
    }

    /// One pop and what follows from it; tells whether the machine still answers. In a hurry, all
    /// that comes is completed.
    async fn consume(&self, group: &str, station: &Station, hurry: bool) -> bool {
        let salt = self.consumers.fetch_add(1, Ordering::Relaxed);
        let random = SeededRandom::new(self.seed.wrapping_mul(77).wrapping_add(salt));
        let ask = Ask {
            auto_ack: group == HASTY,
            lease_ms: 150,
            wait_ms: 20,
            ..Ask::of(group, if hurry { 200 } else { 1 + random.below(10) as u32 })
        };
        let asked = self.history.tick();
        let Ok(handout) = station.pop(&ask).await else { return false };
        self.history.delivered(group, asked, ask.auto_ack, &handout);
        self.got.lock().extend(messages(&handout));
        if ask.auto_ack {
            return true;
        }
        for package in &handout.packages {
            for batch in &package.batches {
                let (first, count) = (batch.first_seq, u64::from(batch.batch.count()));
                let verdict = match random.below(12) {
                    0 if group == GROUPS[1] && !hurry => continue,
                    1 if group == GROUPS[1] && !hurry => Verdict::Failed,
                    _ => Verdict::Completed,
                };
                let error = "clumsy".into();
                let item = AckItem { first, last: first + count - 1, verdict, error };
                let items = vec![(package.partition, item)];
                let Ok(results) = station.ack(group, Some(handout.token), items).await else {
                    return false;
                };
                if results[0].is_ok() && verdict == Verdict::Completed {
                    self.history.settled(group, package.partition, first, first + count);
                }
            }
        }
        true
    }

    /// Sends what is unanswered and drains every group, on a machine without faults.
    pub(crate) async fn finish(&self, station: &Station) {
        for at in 0..self.producers.len() {
            self.produce(at, station, 1).await;
            assert!(self.producers[at].lock().await.unanswered.is_none(), "seed {}", self.seed);
        }
        // What QoS 0 left in a ring is committed before what comes behind it.
        for partition in 0..PARTITIONS {
            let records = [(None, format!("last of p{partition}"))];
            let sent = station.push(&format!("p{partition}"), Qos::AtLeastOnce, &records).await;
            assert!(matches!(sent, Sent::Stored(..)), "seed {}: {sent:?}", self.seed);
            self.history.sent(Qos::AtLeastOnce, &records, &sent);
        }
        let began = Instant::now();
        loop {
            for group in GROUPS {
                assert!(self.consume(group, station, true).await, "seed {}: no answer", self.seed);
            }
            let open = station.open().await;
            let open: Vec<_> =
                open.into_iter().filter(|(group, _)| GROUPS.contains(&group.as_str())).collect();
            if open.len() == GROUPS.len() && open.iter().all(|(_, open)| *open == 0) {
                return;
            }
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(30), "seed {}: {open:?} stay open", self.seed);
        }
    }
}
