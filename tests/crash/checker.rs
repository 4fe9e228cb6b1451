//! What was promised, against what is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Mutex;

use onrush_client::{Client, LeaseToken, ReceivedMessage};

/// The queue of the run.
pub(crate) const QUEUE: &str = "crash";

/// A message as its producer numbered it.
type Number = (u32, u64);

#[derive(Default)]
pub(crate) struct Checker(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    acknowledged: Vec<Number>,
    /// By (partition, sequence), what its ack was confirmed for.
    confirmed: HashSet<(u32, u64)>,
    /// By (partition, sequence): the lease that was handed out last, and until when it holds, unix
    /// milliseconds.
    held: HashMap<(u32, u64), (LeaseToken, u64)>,
    /// Deliveries that were seen while their lease held.
    deliveries: u64,
    problems: Vec<String>,
}

/// The verdict.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) acknowledged: u64,
    pub(crate) acks_confirmed: u64,
    pub(crate) deliveries: u64,
    pub(crate) problems: Vec<String>,
}

impl Checker {
    pub(crate) fn acknowledged(&self, producer: u32, numbers: Range<u64>) {
        let mut seen = self.0.lock().unwrap();
        seen.acknowledged.extend(numbers.map(|number| (producer, number)));
    }

    pub(crate) fn delivered_live(&self, message: &ReceivedMessage) {
        let mut seen = self.0.lock().unwrap();
        let place = (message.partition(), message.seq);
        // An answer that was under way while its server was frozen may come when its lease is long
        // over, and says so; another server may have handed the message to somebody else since.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let holds = u128::from(message.lease_until_ms()) > now.as_millis();
        if !holds {
            return;
        }
        if seen.confirmed.contains(&place) {
            seen.problem(format!("{place:?} was delivered after its ack was confirmed"));
        }
        seen.deliveries += 1;
        let lease = (*message.lease(), message.lease_until_ms());
        if let Some((other, until)) = seen.held.insert(place, lease)
            && other != lease.0
            && u128::from(until) > now.as_millis()
        {
            seen.problem(format!(
                "{place:?} has two leases: {other:?} until {until}, and {lease:?}"
            ));
        }
    }

    pub(crate) fn ack_confirmed(&self, messages: &[ReceivedMessage]) {
        let mut seen = self.0.lock().unwrap();
        seen.confirmed.extend(messages.iter().map(|message| (message.partition(), message.seq)));
    }

    /// Reads everything back with a group of its own and compares.
    pub(crate) async fn audit(&self, addr: SocketAddr) {
        self.audit_as("audit", addr).await;
    }

    /// As [`Self::audit`], with a group of that name.
    pub(crate) async fn audit_as(&self, group: &str, addr: SocketAddr) {
        let client = Client::connect(&addr.to_string()).await.unwrap();
        let mut stored: BTreeMap<u32, Vec<(u64, Number)>> = BTreeMap::new();
        loop {
            let pop = client.queue(QUEUE).pop().group(group).batch(1000).partitions(8);
            let popped = pop.auto_ack(true).send().await.unwrap();
            if popped.is_empty() {
                break;
            }
            for message in &popped.messages {
                let number: Number = message.json().unwrap();
                stored.entry(message.partition()).or_default().push((message.seq, number));
            }
        }
        self.compare(&stored);
    }

    fn compare(&self, stored: &BTreeMap<u32, Vec<(u64, Number)>>) {
        let mut seen = self.0.lock().unwrap();
        let mut copies: HashMap<Number, u32> = HashMap::new();
        for (partition, messages) in stored {
            let mut highest: HashMap<u32, u64> = HashMap::new();
            for (at, (seq, (producer, number))) in (0..).zip(messages) {
                if *seq != at {
                    seen.problem(format!(
                        "partition {partition}: sequence {seq} where {at} is due"
                    ));
                }
                let is_first = *copies.entry((*producer, *number)).or_insert(0) == 0;
                *copies.entry((*producer, *number)).or_default() += 1;
                // A batch sent again stands behind; only first appearances must ascend.
                let highest = highest.entry(*producer).or_insert(*number);
                if is_first && *number < *highest {
                    seen.problem(format!("producer {producer}: {number} after {highest}"));
                }
                *highest = (*highest).max(*number);
            }
        }
        let lost = seen.acknowledged.iter().filter(|number| !copies.contains_key(*number));
        for (producer, number) in lost.copied().collect::<Vec<_>>() {
            seen.problem(format!("lost: producer {producer} number {number}"));
        }
        for ((producer, number), count) in copies {
            if producer % 2 == 1 && count != 1 {
                seen.problem(format!("QoS 2 producer {producer}: {number} stands {count} times"));
            }
        }
    }

    pub(crate) fn report(&self) -> Report {
        let seen = self.0.lock().unwrap();
        Report {
            acknowledged: seen.acknowledged.len() as u64,
            acks_confirmed: seen.confirmed.len() as u64,
            deliveries: seen.deliveries,
            problems: seen.problems.clone(),
        }
    }
}

impl Seen {
    fn problem(&mut self, text: String) {
        // Enough to see what kind of trouble it is.
        if self.problems.len() < 20 {
            self.problems.push(text);
        }
    }
}
