//! One engine with the rooms that requests are taken to, and a client of it.
//!
//! In: pushes, pops, acks. Out: answers reduced to what a client may conclude: it stands, it does not,
//! or nobody knows. Called by the tests of whole engines on simulated ground.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onrush::base::place::PartitionNumber;
use onrush::base::post::Mailbox;
use onrush::base::random::SeededRandom;
use onrush::buffer::receipt::{Accepted, Delivery as Posted, PushRefusal, Signer};
use onrush::catalog::{AutoCreate, CatalogError, Catalogs};
use onrush::delivery::{Delivery, Handout, PopError, PopOrder};
use onrush::ingest::{self, Ingest, PushError, PushTerms};
use onrush::log::AppendError;
use onrush::shard::Engine;
use onrush::shard::command::CommandError;
use onrush::shard::look::figures::GroupFigures;
use onrush::state::draft::ack::{AckItem, AckRefusal, Acked};
use onrush::state::draft::pop::PopBudget;
use onrush::state::draft::push::Pushed;
use onrush::state::effect::{GroupStart, LeaseToken, Sequence};
use onrush::telemetry::Telemetry;
use onrush::transaction::Transactions;
use onrush_protocol::batch::{BatchBuilder, BatchLimits, NewRecord};
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use onrush_protocol::qos::Qos;

/// The queue of all tests.
pub(crate) const QUEUE: &str = "orders";
/// Nobody may wait longer than this for an answer, whatever the log does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A record to be pushed: its id, if any, and its payload.
pub(crate) type NewMessage = (Option<String>, String);

/// An engine and its rooms.
pub(crate) struct Station {
    pub(crate) engine: Arc<Engine>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) catalogs: Catalogs,
    #[allow(dead_code, reason = "not every test commits transactions")]
    pub(crate) transactions: Transactions,
    ingest: Ingest,
    delivery: Delivery,
    requests: AtomicU64,
}

/// What became of a push, as far as its producer can know.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// One sequence per record, and whether another message stands for it.
    Stored(PartitionNumber, Vec<(Sequence, bool)>),
    /// QoS 0: it is in a ring.
    Buffered,
    /// It is in the failover log.
    Spilled,
    /// Nothing of it was stored, and why.
    #[allow(dead_code, reason = "not every test asks why")]
    Refused(String),
    /// It may stand or not.
    Unknown,
}

impl Station {
    /// The rooms of an engine; lease tokens come from the seed.
    pub(crate) fn new(engine: Engine, telemetry: Arc<Telemetry>, seed: u64) -> Self {
        let engine = Arc::new(engine);
        let catalogs = Catalogs::new(Arc::clone(&engine), AutoCreate::Yes);
        let config = ingest::Config {
            limits: BatchLimits::default(),
            buffer_ms: 5,
            buffer_max: 10,
            room_timeout: Duration::from_secs(5),
        };
        let ingest =
            Ingest::new(Arc::clone(&engine), catalogs.clone(), Arc::clone(&telemetry), config);
        let random = Arc::new(SeededRandom::new(seed));
        let delivery = Delivery::new(Arc::clone(&engine), catalogs.clone(), random);
        let transactions = Transactions::new(Arc::clone(&engine), ingest.clone(), delivery.clone());
        let requests = AtomicU64::new(0);
        Self { engine, telemetry, catalogs, transactions, ingest, delivery, requests }
    }

    /// Pushes one batch and waits for what its QoS promises.
    pub(crate) async fn push(&self, partition: &str, qos: Qos, records: &[NewMessage]) -> Sent {
        let mut builder = BatchBuilder::new();
        for (id, payload) in records {
            let transaction_id = id.as_deref();
            let payload = payload.as_bytes();
            builder.push(&NewRecord { transaction_id, payload, ..NewRecord::default() }).unwrap();
        }
        let batch = builder.finish().unwrap().bytes().clone();
        let queue: QueueName = QUEUE.parse().unwrap();
        let partition: PartitionName = partition.parse().unwrap();
        let mailbox = Arc::new(Mailbox::default());
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let signer = Signer { mailbox: Arc::clone(&mailbox), request, section: 0 };
        let signer = qos.is_durable().then_some(signer);
        let terms = PushTerms { qos, buffer_ms: 0, buffer_max: 0, sub: None };
        let taken = match self.ingest.try_push(&queue, partition, batch, terms, signer) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(later)) => {
                let until_us = self.engine.clock().monotonic_us() + 5_000_000;
                self.ingest.push_later(&queue, later, until_us).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match taken {
            Err(error) => return refused(&error),
            Ok(()) if !qos.is_durable() => return Sent::Buffered,
            Ok(()) => {}
        }
        let receipt = tokio::time::timeout(PATIENCE, receipt(&mailbox)).await;
        match receipt.expect("a push gets a receipt").receipt {
            Ok(Accepted::Spilled { .. }) => Sent::Spilled,
            Ok(Accepted::Stored(stored)) => {
                let outcomes = match stored.pushed {
                    Pushed::Stored { first_seq, count, .. } => {
                        (first_seq..first_seq + u64::from(count)).map(|seq| (seq, false)).collect()
                    }
                    Pushed::Mixed(outcomes) => {
                        outcomes.iter().map(|it| (it.message.seq, it.duplicate)).collect()
                    }
                };
                Sent::Stored(stored.partition, outcomes)
            }
            Err(PushRefusal::Append(AppendError::OutcomeUnknown)) => Sent::Unknown,
            Err(refusal) => Sent::Refused(format!("{refusal:?}")),
        }
    }

    /// Asks for messages.
    pub(crate) async fn pop(&self, ask: &Ask) -> Result<Handout, PopError> {
        let order = PopOrder {
            queue: QUEUE.parse().unwrap(),
            partition: ask.partition.as_ref().map(|name| name.parse().unwrap()),
            group: ask.group.parse().unwrap(),
            start: GroupStart::Beginning,
            budget: ask.budget,
            wait_ms: ask.wait_ms,
            lease_ms: ask.lease_ms,
            auto_ack: ask.auto_ack,
        };
        let popped = tokio::time::timeout(PATIENCE, self.delivery.pop(order)).await;
        popped.expect("a pop is answered")
    }

    /// Says what became of messages.
    pub(crate) async fn ack(
        &self,
        group: &str,
        token: Option<LeaseToken>,
        items: Vec<(PartitionNumber, AckItem)>,
    ) -> Result<Vec<Result<Acked, AckRefusal>>, CommandError> {
        let group: GroupName = group.parse().unwrap();
        let acked = tokio::time::timeout(PATIENCE, self.delivery.ack(group, token, items)).await;
        acked.expect("an ack is answered")
    }

    /// Per group of the queue: messages that are not settled.
    pub(crate) async fn open(&self) -> Vec<(String, u64)> {
        let Ok(found) = self.catalogs.describe(&QUEUE.parse().unwrap()).await else {
            return Vec::new();
        };
        let open = |it: GroupFigures| it.counts.pending + it.counts.processing;
        found.groups.into_iter().map(|(name, it)| (name.into(), open(it))).collect()
    }

    /// Stops the engine; it must not take for ever whatever the log does.
    pub(crate) async fn stop(&self) {
        let stopped = tokio::time::timeout(PATIENCE, self.engine.stop()).await;
        stopped.expect("the engine stops");
    }
}

fn refused(error: &PushError) -> Sent {
    match error {
        // The queue may be there now; the push was not taken.
        PushError::Queue(CatalogError::Command(error)) => Sent::Refused(format!("{error:?}")),
        error => Sent::Refused(format!("{error:?}")),
    }
}

async fn receipt(mailbox: &Mailbox<Posted>) -> Posted {
    let mut posted = Vec::new();
    loop {
        mailbox.take(&mut posted);
        if let Some(delivery) = posted.pop() {
            return delivery;
        }
        mailbox.arrived().await;
    }
}

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) group: String,
    pub(crate) partition: Option<String>,
    pub(crate) budget: PopBudget,
    pub(crate) wait_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) auto_ack: bool,
}

impl Ask {
    /// Up to `messages` of any partition for a group, under a lease.
    pub(crate) fn of(group: &str, messages: u32) -> Self {
        Self {
            group: group.to_owned(),
            partition: None,
            budget: PopBudget { messages, bytes: 1 << 20, partitions: 3 },
            wait_ms: 0,
            lease_ms: 300,
            auto_ack: false,
        }
    }
}
