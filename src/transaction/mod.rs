//! Verdicts, pushes and state keys that stand or fall as a whole.
//!
//! In: an order in the words of a client, with messages by id or by place. It goes through the same
//! doors as single pushes and acks: ids are found as for an ack, batches are admitted as for a push.
//! Then the lane decides all of it at once. Out: what became of each part, or why nothing was done.
//! Queues that an order pushes to are made before it is decided and stay whatever becomes of it.
//! Called by `wire`; [`streams`] makes orders of a query's cycles.

pub mod streams;

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use tokio::sync::oneshot;

use crate::base::place::PartitionNumber;
use crate::catalog::not_own;
use crate::delivery::Delivery;
use crate::ingest::{Ingest, PushError};
use crate::shard::Engine;
use crate::shard::command::{Command, CommandError, Wanted};
use crate::shard::transaction::{
    Committed, OnDuplicate, Reach, Refusal, StateChanges, Transaction, TransactionAck,
};
use crate::state::draft::ack::{AckItem, AckRefusal, Verdict};
use crate::state::effect::{LeaseToken, ProducerSub, Sequence};

/// Most verdicts of one transaction, and most batches, and most leases that it requires.
pub const PARTS_MAX: usize = 10_000;
/// Most bytes that one transaction adds to the log: what it waits with in memory, and with room
/// beside it in the largest append.
pub const BYTES_MAX: u64 = 16 << 20;

/// What a client asks for.
#[derive(Debug, Default)]
pub struct Order {
    /// Leases that must live.
    pub leases: Vec<LeaseToken>,
    /// Verdicts, in order.
    pub acks: Vec<AckOrder>,
    /// Changes of state keys.
    pub states: Option<StateChanges>,
    /// Batches, in order.
    pub appends: Vec<AppendOrder>,
    /// What a record that was pushed before means.
    pub on_duplicate: OnDuplicate,
    /// Who pushes, where that is known.
    pub sub: Option<ProducerSub>,
}

/// One verdict.
#[derive(Clone, Debug)]
pub struct AckOrder {
    /// The group.
    pub group: GroupName,
    /// The lease, where the consumer names one.
    pub token: Option<LeaseToken>,
    /// The partition.
    pub partition: PartitionNumber,
    /// Which messages.
    pub which: Which,
    /// What of them.
    pub verdict: Verdict,
    /// What the consumer says about it.
    pub error: Box<str>,
    /// How far it reaches.
    pub reach: Reach,
}

/// Which messages a verdict names.
#[derive(Clone, Debug)]
pub enum Which {
    /// Those from the first to the last sequence, inclusive.
    Range(Sequence, Sequence),
    /// The one with this transaction id, or whose own id this is.
    Id(Box<str>),
}

/// One batch.
#[derive(Clone, Debug)]
pub struct AppendOrder {
    /// The queue; made if it does not exist and that is allowed.
    pub queue: QueueName,
    /// Its partition.
    pub partition: PartitionName,
    /// The bytes of a record batch.
    pub batch: Bytes,
}

/// Why an order was not carried out; nothing of it was done, unless the error says otherwise.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TransactionError {
    /// A part of it was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A batch was not admitted; which of them.
    #[error("push {index}: {error}")]
    Push {
        /// Its index.
        index: usize,
        /// Why.
        error: PushError,
    },
    /// It asks for more at once than one transaction may.
    #[error("{field} is {value}, over the limit of {limit}")]
    TooLarge {
        /// Of what.
        field: &'static str,
        /// How much.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
    /// The engine did not carry it out, or perhaps did: see the error.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Carries out orders.
#[derive(Clone)]
pub struct Transactions {
    engine: Arc<Engine>,
    ingest: Ingest,
    delivery: Delivery,
}

impl Transactions {
    /// Orders to `engine`, through the doors of pushes and of acks.
    #[must_use]
    pub fn new(engine: Arc<Engine>, ingest: Ingest, delivery: Delivery) -> Self {
        Self { engine, ingest, delivery }
    }

    /// Carries out an order; answers when it is durable, in the order asked.
    ///
    /// Waits for a look at the ids, a commit for each new queue, room in memory for as long as a
    /// push would, and one commit. Dropping the future before it returns does not take it back.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub async fn commit(&self, order: Order) -> Result<Committed, TransactionError> {
        let Order { leases, acks, states, appends, on_duplicate, sub } = order;
        for (field, count) in
            [("acks", acks.len()), ("pushes", appends.len()), ("leases", leases.len())]
        {
            check(field, count as u64, PARTS_MAX as u64)?;
        }
        let bytes: u64 = appends.iter().map(|append| append.batch.len() as u64).sum();
        check("bytes of messages", bytes, BYTES_MAX)?;
        let acks = self.find(acks).await?;
        let mut placed = Vec::with_capacity(appends.len());
        for (index, append) in appends.into_iter().enumerate() {
            let AppendOrder { queue, partition, batch } = append;
            let admitted = self.ingest.admit(&queue, partition, batch, sub.clone()).await;
            placed.push(admitted.map_err(|error| TransactionError::Push { index, error })?.into());
        }
        let (reply, answer) = oneshot::channel();
        let states = states.into_iter().collect();
        let notes = Vec::new();
        let whole =
            Transaction { leases, acks, states, appends: placed, notes, on_duplicate, reply };
        check("bytes", whole.bytes(), BYTES_MAX)?;
        let room = self.ingest.reserve(whole.bytes()).await;
        let _room = room.map_err(|error| TransactionError::Push { index: 0, error })?;
        self.engine.submit(Command::Transact(Box::new(whole)));
        Ok(answer.await.unwrap_or(Err(CommandError::ShuttingDown))??)
    }

    /// Turns ids into places: one question for each group.
    async fn find(&self, orders: Vec<AckOrder>) -> Result<Vec<TransactionAck>, TransactionError> {
        orders.iter().try_for_each(|order| not_own(order.group.as_str()))?;
        let mut seqs: Vec<Option<(Sequence, Sequence)>> = orders.iter().map(range).collect();
        let mut open: Vec<usize> = (0..orders.len()).collect();
        open.retain(|at| seqs.get(*at).is_some_and(Option::is_none));
        while let Some(first) = open.first().and_then(|at| orders.get(*at)) {
            let group = first.group.clone();
            let of_group = |at: &usize| orders.get(*at).is_some_and(|order| order.group == group);
            let (asked, rest): (Vec<usize>, Vec<usize>) = open.iter().copied().partition(of_group);
            let wanted = asked.iter().filter_map(|at| wanted(orders.get(*at)?)).collect();
            let found = self.delivery.find(group, wanted).await?;
            for (at, found) in asked.iter().zip(found) {
                let partition = orders.get(*at).map_or(0, |order| order.partition);
                let refusal = match &found {
                    None => AckRefusal::NoPartition(partition),
                    Some(_) => AckRefusal::NoMessage { first: 0, last: 0 },
                };
                let seq = found.and_then(|found| found.seq);
                let seq = seq.ok_or(Refusal::Ack { index: *at, refusal })?;
                seqs.get_mut(*at).into_iter().for_each(|it| *it = Some((seq, seq)));
            }
            open = rest;
        }
        let acks = orders.into_iter().zip(seqs).map(|(order, seq)| {
            let AckOrder { group, token, partition, verdict, error, reach, .. } = order;
            let (first, last) = seq.unwrap_or_default();
            let item = AckItem { first, last, verdict, error };
            TransactionAck { group, token, partition, item, reach }
        });
        Ok(acks.collect())
    }
}

fn range(order: &AckOrder) -> Option<(Sequence, Sequence)> {
    match order.which {
        Which::Range(first, last) => Some((first, last)),
        Which::Id(_) => None,
    }
}

fn wanted(order: &AckOrder) -> Option<Wanted> {
    let AckOrder { partition, token, which: Which::Id(id), .. } = order else { return None };
    Some(Wanted { partition: *partition, token: *token, id: id.clone() })
}

fn check(field: &'static str, value: u64, limit: u64) -> Result<(), TransactionError> {
    match value > limit {
        true => Err(TransactionError::TooLarge { field, value, limit }),
        false => Ok(()),
    }
}
