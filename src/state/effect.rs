//! The vocabulary of change: an entry is a list of effects that were already decided.
//!
//! Effects say what is, never what to compute: applying them needs no clock, no settings and no
//! look-up. The byte form is in [`super::codec`]. Made by `draft`, consumed by `apply`.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::care::Care;
use crate::state::catalog::QueueDefinition;
use crate::state::queries::QueryDefinition;

/// Index of a consumer group inside its shard.
pub type GroupIndex = u32;

/// Sequence number of a message in its partition, dense from 0.
pub type Sequence = u64;

/// A lease's fencing token, shared by all partitions of one pop.
pub type LeaseToken = [u8; 16];

/// Id of an engine's failover log, random when it was begun.
pub type SpillId = [u8; 16];

/// Who pushed a batch, as the server knows it and not as the producer says: a checked token's subject
/// or name, 1 to 255 bytes. Holding one is proof of its length.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProducerSub(Arc<str>);

impl ProducerSub {
    /// The longest, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Takes a name of 1 to 255 bytes; `None` for any other.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        (1..=Self::BYTES_MAX).contains(&name.len()).then(|| Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
/// Number of whoever owns state keys: given once, never again, so that what is written under one can
/// be dropped whole.
pub type OwnerId = u32;

/// What is held back on purpose while somebody works on the store or on consumers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Maintenance {
    /// Pushes are kept in the failover log until this ends.
    pub push: bool,
    /// Pops find nothing until this ends.
    pub pop: bool,
}

/// One shard's step: effects that stand together.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Time of the decision, unix milliseconds; never lower than the shard's entry before.
    pub time_ms: u64,
    /// Who decided, and which of its appends this is: tells an engine its own entry when the
    /// answer to an append was lost.
    pub origin: Origin,
    /// In the order in which they were decided.
    pub effects: Vec<Effect>,
}

/// The engine that decided an entry and its running number there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Origin {
    /// Random number of the engine's start.
    pub engine: u64,
    /// Counts that engine's appends.
    pub append: u64,
}

/// Where a group begins in partitions that it has not touched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GroupStart {
    /// With the oldest message that is kept.
    Beginning,
    /// With the first message pushed after the group was first seen.
    New,
    /// With the first message pushed at this time or later, unix milliseconds.
    Time(u64),
}

impl GroupStart {
    /// Whether it can be told where a group begins: with a time, once that time has come.
    #[must_use]
    pub fn is_due(self, now_ms: u64) -> bool {
        !matches!(self, Self::Time(time_ms) if time_ms > now_ms)
    }
}

/// Why a message became a dead letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum DeadReason {
    /// Failed more often than the queue's retry limit allows.
    RetriesExhausted = 0,
    /// Its consumer asked for it.
    Asked = 1,
    /// Its lease ran out more often than the retry limit allows.
    LeaseExpired = 2,
}

/// What a consumer group has done in one partition, apart from its lease.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Everything below is settled.
    pub next: Sequence,
    /// Settled ranges beyond `next`: first and last, inclusive, ascending, never touching.
    pub settled: Vec<(Sequence, Sequence)>,
    /// Failed attempts of messages that are not settled; only those above zero, ascending.
    pub attempts: Vec<(Sequence, u32)>,
    /// Nothing of the partition is handed out to the group before this, unix milliseconds: the delay
    /// of a message that failed. Says nothing where there are none in `attempts`.
    pub not_before_ms: u64,
}

/// A message that left the ordinary walk, with its payload.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its partition.
    pub partition: PartitionNumber,
    /// The group that could not settle it.
    pub group: GroupIndex,
    /// Its sequence in the partition.
    pub seq: Sequence,
    /// When it was pushed, unix milliseconds.
    pub pushed_ms: u64,
    /// When it failed for the last time, unix milliseconds; 0 where that was not noted.
    pub failed_ms: u64,
    /// Whether this is not its first place in the log: it was written again so that the old one can go.
    pub is_again: bool,
    /// Failed attempts.
    pub attempts: u32,
    /// Why.
    pub reason: DeadReason,
    /// What the consumer said, possibly nothing.
    pub error: Box<str>,
    /// Who pushed it, where that is known.
    pub sub: Option<ProducerSub>,
    /// The message itself, as a record batch of one.
    pub batch: Bytes,
}

/// One decided change of a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The shard's next partition exists.
    CreatePartition {
        /// Its number; its local index is the shard's count of partitions so far.
        number: PartitionNumber,
        /// Its queue.
        queue: QueueId,
        /// Its name in the queue.
        name: Box<str>,
    },
    /// A record batch stands at the end of a partition.
    Append {
        /// The partition.
        partition: PartitionNumber,
        /// Sequence of its first record: the partition's head so far.
        first_seq: Sequence,
        /// Its records.
        count: u32,
        /// One fingerprint per record, 0 where it has no transaction id; empty when none has.
        fingerprints: Vec<u128>,
        /// Who pushed it, where that is known.
        sub: Option<ProducerSub>,
        /// The batch as the producer encoded it.
        batch: Bytes,
    },
    /// A batch that already stands was written again, so that its old place can be freed.
    Relocate {
        /// The partition.
        partition: PartitionNumber,
        /// Sequence of its first record.
        first_seq: Sequence,
        /// Its records.
        count: u32,
        /// When it was pushed, unix milliseconds.
        time_ms: u64,
        /// Who pushed it, where that is known.
        sub: Option<ProducerSub>,
        /// The batch.
        batch: Bytes,
    },
    /// A consumer group is known in this shard.
    RegisterGroup {
        /// Its index: the shard's count of groups so far.
        group: GroupIndex,
        /// Its queue.
        queue: QueueId,
        /// Its name.
        name: Box<str>,
        /// Where it begins in the partitions that exist now. With a time, behind all of their
        /// messages: a `Seek` in the same entry says where it is elsewhere.
        start: GroupStart,
    },
    /// A group holds `[from, to)` of a partition.
    Lease {
        /// The partition.
        partition: PartitionNumber,
        /// The group.
        group: GroupIndex,
        /// Its fencing token.
        token: LeaseToken,
        /// When it ends, unix milliseconds.
        until_ms: u64,
        /// First sequence that is held.
        from: Sequence,
        /// Behind the last sequence that is held.
        to: Sequence,
    },
    /// A lease ends later.
    Extend {
        /// The partition.
        partition: PartitionNumber,
        /// The group.
        group: GroupIndex,
        /// Its new end, unix milliseconds.
        until_ms: u64,
    },
    /// A group goes on elsewhere, forward or back: what it settled beyond is open again, its attempts
    /// are forgotten and its leases on these partitions end.
    Seek {
        /// The group.
        group: GroupIndex,
        /// Partitions, each with the sequence that the group goes on with.
        moves: Vec<(PartitionNumber, Sequence)>,
    },
    /// A group's cursors and leases in this shard are gone; its dead letters stay.
    DropGroup {
        /// The group.
        group: GroupIndex,
    },
    /// A group's progress in a partition, whole.
    Settle {
        /// The partition.
        partition: PartitionNumber,
        /// The group.
        group: GroupIndex,
        /// Its new progress.
        progress: Progress,
        /// Whether its lease ends with it.
        release: bool,
    },
    /// A dead letter was written.
    Bury(DeadLetter),
    /// Everything below `base_seq` may be forgotten.
    Trim {
        /// The partition.
        partition: PartitionNumber,
        /// The first sequence that is kept.
        base_seq: Sequence,
    },
    /// All of a queue's partitions, groups and dead letters in this shard are gone.
    DropQueue {
        /// The queue.
        queue: QueueId,
    },
    /// Everything of this shard that an engine kept in its failover log before `position` is done:
    /// it stands in this entry or an earlier one, or is not to be.
    Replayed {
        /// Id of the failover log.
        spill: SpillId,
        /// Position in it.
        position: u64,
    },
    /// A state key has this value.
    PutState {
        /// Whose it is.
        owner: OwnerId,
        /// The partition that it belongs to.
        partition: PartitionNumber,
        /// Its key, unique for owner and partition.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// A state key has no value any more.
    RemoveState {
        /// Whose it is.
        owner: OwnerId,
        /// The partition that it belongs to.
        partition: PartitionNumber,
        /// Its key.
        key: Bytes,
    },
    /// All state keys of an owner in this shard are gone, and there are no new ones.
    DropStates {
        /// The owner.
        owner: OwnerId,
    },
    /// Catalog: a query is known, or it is as new.
    DefineQuery(Box<QueryDefinition>),
    /// Catalog: the messages of a queue are evaluated, by the code of this version from this entry's
    /// time on.
    DefineClass {
        /// The queue.
        queue: QueueId,
        /// The version's number.
        version: u32,
        /// Its definition.
        text: Bytes,
    },
    /// Catalog: a queue exists with these settings.
    DefineQueue(Box<QueueDefinition>),
    /// Catalog: whether a queue's messages are also rows for people who ask in SQL, from now on.
    Project {
        /// The queue.
        queue: QueueId,
        /// Whether they are.
        on: bool,
    },
    /// Catalog: a consumer group of a queue is known.
    DefineGroup {
        /// The queue.
        queue: QueueId,
        /// Its name.
        name: Box<str>,
        /// Where it begins.
        start: GroupStart,
    },
    /// Catalog: where a group begins that is known, wherever it has no cursor yet.
    Subscribe {
        /// The queue.
        queue: QueueId,
        /// The group's name.
        name: Box<str>,
        /// Where it begins.
        start: GroupStart,
    },
    /// Catalog: a consumer group of a queue is gone.
    ForgetGroup {
        /// The queue.
        queue: QueueId,
        /// Its name.
        name: Box<str>,
        /// Whether it is remembered where it begins when it comes again.
        keep_start: bool,
    },
    /// Catalog: a queue is gone.
    ForgetQueue {
        /// The queue.
        queue: QueueId,
    },
    /// Catalog: what is held back on purpose, by all engines.
    Maintain(Maintenance),
    /// What operators do to single messages, and what is told of them.
    Care(Care),
}
