//! Commands that stand or fall as a whole, over any number of shards: what they ask, and what they
//! are answered.
//!
//! One transaction is a list of verdicts, appends and changes of state keys under conditions; it
//! becomes part of one append to the log, or nothing. A client's transaction, a cycle of a query
//! and a step of a process are all of this form. `round` decides it.

use bytes::Bytes;
use onrush_protocol::name::{GroupName, PartitionName};

use crate::base::place::{PartitionNumber, QueueId};
use crate::buffer::receipt::Stored;
use crate::buffer::ring::Placed;
use crate::shard::command::{CommandError, Reply};
use crate::state::draft::DecideError;
use crate::state::draft::ack::{AckItem, AckRefusal, Acked};
use crate::state::draft::push::PushBatch;
use crate::state::draft::transaction::StateOp;
use crate::state::effect::{LeaseToken, OwnerId, Sequence};
use crate::state::queries::QueryId;
use crate::state::tally::Tally;

/// See [`Command::Transact`](crate::shard::command::Command::Transact).
#[derive(Debug)]
pub struct Transaction {
    /// Leases that must live when it is decided.
    pub leases: Vec<LeaseToken>,
    /// Verdicts, decided in their order.
    pub acks: Vec<TransactionAck>,
    /// Changes of state keys, in their order.
    pub states: Vec<StateChanges>,
    /// Batches, appended in their order and behind all that its producers pushed before.
    pub appends: Vec<TransactionAppend>,
    /// State keys that say where records of `appends` came to stand.
    pub notes: Vec<PlaceNote>,
    /// What a record that was pushed before means.
    pub on_duplicate: OnDuplicate,
    /// The answer.
    pub reply: Reply<TransactionAnswer>,
}

/// What a transaction is answered.
pub type TransactionAnswer = Result<Result<Committed, Refusal>, CommandError>;

/// One verdict of a transaction.
#[derive(Clone, Debug)]
pub struct TransactionAck {
    /// The group.
    pub group: GroupName,
    /// The lease, where the consumer names one.
    pub token: Option<LeaseToken>,
    /// The partition.
    pub partition: PartitionNumber,
    /// Which messages, and what of them.
    pub item: AckItem,
    /// How far the verdict reaches.
    pub reach: Reach,
}

/// How far a verdict reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Over the messages that it names.
    Named,
    /// Over all that the lease holds up to the last message that it names.
    Through {
        /// Whether the lease ends even if it holds more.
        release: bool,
    },
    /// Over all that the lease holds, whatever the verdict names; the lease ends.
    Held,
}

/// One batch of a transaction, admitted and placed.
#[derive(Clone, Debug)]
pub struct TransactionAppend {
    /// Its queue.
    pub queue: QueueId,
    /// Its partition.
    pub partition: PartitionName,
    /// The placing hash of both.
    pub hash: u64,
    /// The batch.
    pub push: PushBatch,
    /// Messages that may wait to be evaluated in the partition, these among them; 0 = any number.
    pub backlog_max: u64,
    /// Whoever appends it wants to have its messages at once, in the name of a group.
    pub claim: Option<HandOver>,
}

/// A lease on what a transaction appends, taken with the transaction itself: whoever appends messages and
/// is their group's consumer too saves the pop. Given only where the group has nothing else to do there.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// The group.
    pub group: GroupName,
    /// The lease's token.
    pub token: LeaseToken,
    /// How long it lasts, milliseconds from the commit.
    pub lease_ms: u64,
}

impl From<Placed> for TransactionAppend {
    fn from(placed: Placed) -> Self {
        let Placed { queue, partition, hash, pending, .. } = placed;
        let (backlog_max, claim) = (0, None);
        Self { queue, partition, hash, push: pending.push, backlog_max, claim }
    }
}

impl TransactionAppend {
    /// What it counts against limits of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.push.batch.bytes().len() + 16 * self.push.fingerprints.len()) as u64
    }
}

/// Changes of state keys of one owner in one partition.
#[derive(Clone, Debug)]
pub struct StateChanges {
    /// Whose.
    pub owner: StateOwner,
    /// Of which partition.
    pub partition: PartitionNumber,
    /// In their order.
    pub ops: Vec<StateOp>,
    /// Whether all else stands where the partition does not exist.
    pub may_miss: bool,
}

/// A state key whose value says where a record came to stand: see [`place_value`]. Left out where
/// its partition does not exist.
#[derive(Clone, Debug)]
pub struct PlaceNote {
    /// The batch, by its index in the transaction.
    pub append: usize,
    /// The record, by its index in the batch.
    pub record: usize,
    /// Whose key.
    pub owner: OwnerId,
    /// Of which partition; `None` = of the one that the batch goes to.
    pub partition: Option<PartitionNumber>,
    /// The key; behind a `None` partition the sequence is added to it, big end first.
    pub key: Bytes,
}

/// The value that says where a record stands: partition, sequence and time.
#[must_use]
pub fn place_value(partition: PartitionNumber, seq: Sequence, time_ms: u64) -> Bytes {
    let mut value = Vec::with_capacity(20);
    value.extend(partition.to_le_bytes());
    value.extend(seq.to_le_bytes());
    value.extend(time_ms.to_le_bytes());
    value.into()
}

/// Partition, sequence and time of [`place_value`]; `None` for other bytes.
#[must_use]
pub fn read_place(value: &[u8]) -> Option<(PartitionNumber, Sequence, u64)> {
    let (partition, rest) = value.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let time_ms = <[u8; 8]>::try_from(rest).ok()?;
    let (partition, seq) = (u32::from_le_bytes(*partition), u64::from_le_bytes(*seq));
    Some((partition, seq, u64::from_le_bytes(time_ms)))
}

/// Whose state keys are meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StateOwner {
    /// Whoever has this number.
    Number(OwnerId),
    /// Whoever has those of a query when it is decided.
    Query(QueryId),
}

/// What a record that was pushed before means to a transaction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnDuplicate {
    /// It is reported, and the rest stands.
    #[default]
    Report,
    /// Nothing stands.
    Fail,
}

/// A transaction that stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Committed {
    /// One per verdict.
    pub acks: Vec<Acked>,
    /// One per batch.
    pub appends: Vec<Stored>,
    /// For each batch when the lease on its messages ends, unix milliseconds, where it was handed over;
    /// shorter than `appends`, or empty, where no batch behind was to be.
    pub claims: Vec<Option<u64>>,
    /// The tallies that were counted on, in the order of their changes, each with the index of its
    /// [`StateChanges`].
    pub tallies: Vec<(usize, Tally)>,
}

/// Why a transaction does not stand; nothing of it was done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A lease that it requires does not live; which of them.
    #[error("a required lease is not held any more")]
    Lease(usize),
    /// A verdict was refused; which of them.
    #[error("ack {index}: {refusal}")]
    Ack {
        /// Its index.
        index: usize,
        /// Why.
        refusal: AckRefusal,
    },
    /// The partition of its state keys is not there.
    #[error("partition {0} does not exist")]
    NoPartition(PartitionNumber),
    /// There is no such query.
    #[error("the query does not exist")]
    NoQuery,
    /// A tally does not allow its change; which of the changes of state keys, and the tally.
    #[error("a tally does not allow what is to be counted")]
    Tally {
        /// The index of its [`StateChanges`].
        index: usize,
        /// The tally.
        tally: Tally,
    },
    /// A state key that was to be taken is not there; which of the changes of state keys.
    #[error("a state key that was to be taken is not there")]
    NoKey(usize),
    /// State keys could not be read.
    #[error(transparent)]
    States(DecideError),
    /// A batch could not be placed; which of them.
    #[error("push {index}: {error}")]
    Append {
        /// Its index.
        index: usize,
        /// Why.
        error: DecideError,
    },
    /// A record was pushed before, and the transaction asked to fail then.
    #[error("push {index}: record {record} was pushed before")]
    Duplicate {
        /// The index of its batch.
        index: usize,
        /// Its index in the batch.
        record: usize,
    },
}

impl Refusal {
    /// What kept it from being decided at all, where that was it.
    #[must_use]
    pub fn undecided(&self) -> Option<&DecideError> {
        match self {
            Self::Ack { refusal: AckRefusal::Decide(error), .. }
            | Self::Append { error, .. }
            | Self::States(error) => Some(error),
            _ => None,
        }
    }
}

impl Transaction {
    /// Bytes that it adds to a commit, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let appends: u64 = self.appends.iter().map(TransactionAppend::bytes).sum();
        let ops = self.states.iter().flat_map(|states| &states.ops);
        let states = ops.map(|op| match op {
            StateOp::Put { key, value } => key.len() + value.len(),
            StateOp::Remove { key } | StateOp::Take { key } => key.len(),
            StateOp::Tally { key, .. } => key.len() + 69,
        });
        let notes: usize = self.notes.iter().map(|note| note.key.len() + 20).sum();
        appends + (states.sum::<usize>() + notes) as u64 + 64 * self.acks.len() as u64
    }
}
