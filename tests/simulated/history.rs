//! What clients were told, and whether the log bears it out.
//!
//! In: every answer, as it came. Out: a panic where a promise was broken: something acknowledged is
//! lost, something stands twice, order is lost, something settled came again, a payload was changed,
//! or a group never saw a message. Called by the tests of whole engines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use onrush::base::place::PartitionNumber;
use onrush::delivery::Handout;
use onrush::state::effect::Sequence;
use onrush_protocol::qos::Qos;
use parking_lot::Mutex;

use crate::station::{NewMessage, Sent};
use crate::transcript::Transcript;

/// Where a message was seen, or settled, by a group.
type Place = (String, PartitionNumber, Sequence);

#[derive(Default)]
struct Told {
    /// What stands by a receipt: partition, sequence, the message, whether another stands for it.
    stored: Vec<(PartitionNumber, Sequence, NewMessage, bool)>,
    /// Payloads that may stand, by some answer or the lack of one.
    possible: BTreeSet<String>,
    /// Payloads of which every answer was a definite no.
    refused: BTreeSet<String>,
    /// Payloads handed to the engine at QoS 1 or 2, by producer and in its order.
    sent: BTreeMap<String, Vec<String>>,
    /// When each confirmed settling was known.
    settled: HashMap<Place, u64>,
    /// Groups that settle with the pop itself: each message at most once.
    delivered: BTreeMap<Place, u64>,
    counts: BTreeMap<&'static str, u64>,
}

/// A history that many clients write at once.
#[derive(Default)]
pub(crate) struct History {
    ticks: AtomicU64,
    told: Mutex<Told>,
}

impl History {
    /// The next moment; everything that begins later has a larger one.
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// A producer begins to send a durable message; called once per message, before the first try.
    pub(crate) fn sends(&self, producer: &str, payload: &str) {
        let mut told = self.told.lock();
        told.sent.entry(producer.to_owned()).or_default().push(payload.to_owned());
    }

    /// A push was answered.
    pub(crate) fn sent(&self, qos: Qos, records: &[NewMessage], answer: &Sent) {
        let mut told = self.told.lock();
        let name = match answer {
            Sent::Stored(..) => "stored",
            Sent::Buffered => "buffered",
            Sent::Spilled => "spilled",
            Sent::Refused(_) => "refused",
            Sent::Unknown => "unknown",
        };
        *told.counts.entry(name).or_default() += 1;
        match answer {
            Sent::Stored(partition, outcomes) => {
                assert!(qos.is_durable());
                assert_eq!(outcomes.len(), records.len());
                for ((seq, duplicate), record) in outcomes.iter().zip(records) {
                    told.possible.insert(record.1.clone());
                    told.stored.push((*partition, *seq, record.clone(), *duplicate));
                }
            }
            Sent::Refused(_) => told.refused.extend(payloads(records)),
            Sent::Buffered | Sent::Spilled | Sent::Unknown => {
                told.possible.extend(payloads(records))
            }
        }
    }

    /// Messages came to a consumer that had asked at `asked`.
    pub(crate) fn delivered(&self, group: &str, asked: u64, auto_ack: bool, handout: &Handout) {
        let mut told = self.told.lock();
        for package in &handout.packages {
            let batches = package.batches.iter();
            let seqs =
                batches.flat_map(|it| it.first_seq..it.first_seq + u64::from(it.batch.count()));
            for seq in seqs {
                let place = (group.to_owned(), package.partition, seq);
                let settled = told.settled.get(&place).is_some_and(|at| *at < asked);
                assert!(!settled, "{place:?} came again after its settling was confirmed");
                let times = told.delivered.entry(place.clone()).or_default();
                *times += 1;
                assert!(!auto_ack || *times == 1, "{place:?} was handed out for good twice");
                if auto_ack {
                    told.settled.insert(place, self.tick());
                }
            }
        }
        *told.counts.entry("handouts").or_default() += 1;
    }

    /// Messages were settled, and that was confirmed.
    pub(crate) fn settled(&self, group: &str, partition: PartitionNumber, from: u64, to: u64) {
        let now = self.tick();
        let mut told = self.told.lock();
        for seq in from..to {
            told.settled.entry((group.to_owned(), partition, seq)).or_insert(now);
        }
    }

    /// How often something was answered.
    pub(crate) fn count(&self, what: &str) -> u64 {
        self.told.lock().counts.get(what).copied().unwrap_or(0)
    }

    /// Holds everything against what the log says. `groups` must have seen every message.
    pub(crate) fn check(&self, transcript: &Transcript, groups: &[&str]) {
        let told = self.told.lock();
        for (partition, seq, (id, payload), duplicate) in &told.stored {
            let stands = transcript.messages.get(partition).and_then(|it| it.get(*seq as usize));
            let stands = stands.unwrap_or_else(|| panic!("{payload} at {partition}/{seq} is lost"));
            assert_eq!(stands.id, *id, "{payload} at {partition}/{seq}");
            assert!(*duplicate || stands.payload == *payload, "{payload}: {stands:?} is there");
        }
        let mut seen = BTreeSet::new();
        for message in transcript.messages.values().flatten() {
            assert!(seen.insert(&message.payload), "{} stands twice", message.payload);
            let payload = &message.payload;
            let refused = told.refused.contains(payload) && !told.possible.contains(payload);
            assert!(!refused, "{} stands and was refused", message.payload);
        }
        Self::check_order(&told, transcript);
        for (group, partition, seq) in told.delivered.keys() {
            let stands = transcript.messages[partition].len() as u64;
            assert!(*seq < stands, "{group} got {partition}/{seq} that does not stand");
        }
        for group in groups {
            for (partition, messages) in &transcript.messages {
                for seq in 0..messages.len() as u64 {
                    let place = ((*group).to_owned(), *partition, seq);
                    let known =
                        told.delivered.contains_key(&place) || transcript.dead.contains(&place);
                    let settled = transcript.is_settled(group, *partition, seq);
                    assert!(known, "{place:?} never came (and is settled: {settled})");
                }
            }
        }
    }

    /// What one producer sent durably, one after the other, stands in that order in each partition.
    fn check_order(told: &Told, transcript: &Transcript) {
        for (producer, sent) in &told.sent {
            let order: HashMap<&str, usize> =
                sent.iter().enumerate().map(|(index, payload)| (payload.as_str(), index)).collect();
            for (partition, messages) in &transcript.messages {
                let stands = messages.iter().filter_map(|it| order.get(it.payload.as_str()));
                let stands: Vec<usize> = stands.copied().collect();
                assert!(stands.is_sorted(), "{producer} in {partition}: {stands:?}");
            }
        }
    }

    /// Payloads that came to a consumer are those that stand; to be called with each handout.
    pub(crate) fn check_payloads(
        transcript: &Transcript,
        got: &[(PartitionNumber, Sequence, String)],
    ) {
        for (partition, seq, payload) in got {
            assert_eq!(transcript.messages[partition][*seq as usize].payload, *payload);
        }
    }
}

fn payloads(records: &[NewMessage]) -> impl Iterator<Item = String> {
    records.iter().map(|(_, payload)| payload.clone())
}

/// Every message of a handout.
pub(crate) fn messages(handout: &Handout) -> Vec<(PartitionNumber, Sequence, String)> {
    let mut all = Vec::new();
    for package in &handout.packages {
        for batch in &package.batches {
            for (seq, record) in (batch.first_seq..).zip(batch.batch.records()) {
                let payload = String::from_utf8(record.payload.to_vec()).unwrap();
                all.push((package.partition, seq, payload));
            }
        }
    }
    all
}
