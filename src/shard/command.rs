//! What may be asked of a running engine besides pushing, and what it answers.
//!
//! Commands queue in the [`Inbox`]; the lane takes them all with each commit. Every command carries
//! the sender of its answer; a sender whose receiver is gone is a consumer that hung up.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::base::post::Mailbox;
use crate::buffer::Buffers;
use crate::log::AppendError;
use crate::shard::groups::{ForgetGroup, Seek, Subscribe, Survey};
use crate::shard::look::Question;
pub use crate::shard::named::{Asked, Named};
use crate::shard::tend::Tend;
use crate::shard::transaction::Transaction;
use crate::shard::watch::Watch;
use crate::state::catalog::QueueDefinition;
use crate::state::codec::Chunk;
use crate::state::draft::DecideError;
use crate::state::draft::ack::{AckItem, AckRefusal, Acked};
use crate::state::draft::pop::PopBudget;
use crate::state::draft::upkeep::Extended;
use crate::state::effect::{GroupStart, LeaseToken, Maintenance, Sequence};
use crate::state::model::Run;
use crate::state::queries::{QueryDefinition, QueryId};
use crate::state::states::{StateAsk, StatePage};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<T>;

/// Answers on their way to a connection, each with the number of its request.
pub type Post<T> = Mailbox<(u64, Result<T, CommandError>)>;

/// Where the answer to a pop or an ack goes: to a task of its own, or to the one that serves its
/// whole connection. Dropping it unsent answers [`CommandError::ShuttingDown`].
#[derive(Debug)]
pub enum ReplyTo<T> {
    /// One task waits for this answer alone.
    Task(oneshot::Sender<Result<T, CommandError>>),
    /// One task waits for the answers of many requests.
    Post(Slip<T>),
}

/// A request's place in the post of its connection.
#[derive(Debug)]
pub struct Slip<T> {
    /// `None` once it was answered.
    post: Option<Arc<Post<T>>>,
    request: u64,
}

impl<T> Slip<T> {
    fn send(mut self, answer: Result<T, CommandError>) -> Result<(), Result<T, CommandError>> {
        match self.post.take() {
            Some(post) => post.put((self.request, answer)).map_err(|(_, answer)| answer),
            None => Err(answer),
        }
    }
}

impl<T> Drop for Slip<T> {
    fn drop(&mut self) {
        if let Some(post) = self.post.take() {
            // Nobody to tell where the connection is gone too.
            let _ = post.put((self.request, Err(CommandError::ShuttingDown)));
        }
    }
}

impl<T> ReplyTo<T> {
    /// By post, as the answer to `request`.
    #[must_use]
    pub fn post(post: &Arc<Post<T>>, request: u64) -> Self {
        Self::Post(Slip { post: Some(Arc::clone(post)), request })
    }

    /// Answers.
    ///
    /// # Errors
    /// The answer itself, when nobody waits for it any more.
    pub fn send(self, answer: Result<T, CommandError>) -> Result<(), Result<T, CommandError>> {
        match self {
            Self::Task(sender) => sender.send(answer),
            Self::Post(slip) => slip.send(answer),
        }
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Task(sender) => sender.is_closed(),
            Self::Post(slip) => slip.post.as_ref().is_none_or(|post| post.is_closed()),
        }
    }
}

/// One thing asked of the engine.
#[derive(Debug)]
pub enum Command {
    /// Messages for a consumer.
    Pop(Box<Pop>),
    /// What a consumer made of its messages.
    Ack(Box<Ack>),
    /// More time for a lease.
    Extend(Extend),
    /// Part of a lease that its consumer never got.
    GiveBack(GiveBack),
    /// A queue with these settings.
    Define(Box<Define>),
    /// No such queue any more.
    Delete(Delete),
    /// What is held back on purpose from now on.
    Maintain(Maintain),
    /// Verdicts, batches and state keys that stand or fall as a whole.
    Transact(Box<Transaction>),
    /// A query over a queue.
    Register(Box<Register>),
    /// Code for the messages of a queue.
    DefineClass(Box<DefineClass>),
    /// Nobody holds messages of a group any more.
    LetGo(LetGo),
    /// State keys.
    ReadStates(Box<ReadStates>),
    /// Which messages some transaction ids name, and what their partitions are called.
    Find(Box<Find>),
    /// What operators ask.
    Tend(Box<Tend>),
    /// Something that is only looked at.
    Look(Question),
    /// A group goes on elsewhere.
    Seek(Box<Seek>),
    /// No such group any more.
    ForgetGroup(ForgetGroup),
    /// Where a group begins that is known.
    Subscribe(Subscribe),
    /// Somebody wants to hear of work in any queue of a kind.
    Watch(Box<Watch>),
    /// How groups stand, partition by partition.
    Survey(Box<Survey>),
    /// The checkpoint under way is written, or failed.
    CheckpointDone {
        /// Of which shards.
        shards: Vec<ShardId>,
        /// Whether its rows are there.
        written: bool,
    },
    /// Nobody may wait for messages any more.
    Release,
    /// Finish what waits, then stop.
    Stop(Reply<()>),
}

/// See [`Command::Pop`].
#[derive(Debug)]
pub struct Pop {
    /// The queue, whether it exists or not.
    pub queue: QueueName,
    /// One partition, or any.
    pub partition: Option<PartitionName>,
    /// The consumer group.
    pub group: GroupName,
    /// Where the group begins if it is new.
    pub start: GroupStart,
    /// How much.
    pub budget: PopBudget,
    /// The fencing token that its leases get.
    pub token: LeaseToken,
    /// How long they last; 0 = as the queue says.
    pub lease_ms: u64,
    /// Settle at once.
    pub auto_ack: bool,
    /// When it was asked, in the clock's microseconds.
    pub asked_us: u64,
    /// Until when it may wait for a message, in the clock's microseconds; `None` = not at all.
    pub wait_until_us: Option<u64>,
    /// Its place among those that wait; `None` until it has to.
    pub ticket: Option<u64>,
    /// The answer.
    pub reply: ReplyTo<Popped>,
}

/// What a consumer gets.
#[derive(Debug)]
pub struct Popped {
    /// The queue that it asked.
    pub queue: QueueName,
    /// The fencing token of its leases.
    pub token: LeaseToken,
    /// Why there is nothing, where there is nothing.
    pub empty: Option<Empty>,
    /// When the leases end, unix milliseconds; 0 without a lease.
    pub until_ms: u64,
    /// The group, where its consumer wants everything settled at once and it is not: some messages may
    /// not open, and only those that do are to be settled.
    pub to_settle: Option<GroupName>,
    /// Messages by partition.
    pub parcels: Vec<Parcel>,
    /// Their leases.
    pub held: Held,
}

/// Leases of messages on their way to their consumer. Whoever drops it before the consumer has them
/// gives them back: others get them at once, and no attempt is counted.
#[derive(Default)]
pub struct Held {
    partitions: SmallVec<[PartitionNumber; 4]>,
    /// Where they go back to; `None` where nothing is held.
    back: Option<(Arc<Inbox>, Arc<Buffers>, LeaseToken)>,
}

impl Held {
    /// What `token` holds in the partitions of `parcels`.
    pub(super) fn new(
        inbox: &Arc<Inbox>,
        buffers: &Arc<Buffers>,
        token: LeaseToken,
        parcels: &[Parcel],
    ) -> Self {
        let partitions = parcels.iter().map(|parcel| parcel.partition).collect();
        Self { partitions, back: Some((Arc::clone(inbox), Arc::clone(buffers), token)) }
    }

    /// The consumer has them.
    pub fn delivered(mut self) {
        self.back = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some((inbox, buffers, token)) = self.back.take() else { return };
        for partition in &self.partitions {
            let (partition, from) = (*partition, 0);
            inbox.put(Command::GiveBack(GiveBack { token, partition, from }));
        }
        buffers.bell().ring();
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.partitions).finish()
    }
}

/// Why a pop found nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Empty {
    /// No partition of the queue has work for the group, or there is no such queue.
    NoWork,
    /// There is no such partition.
    NoPartition,
    /// Another consumer of the group holds the partition.
    LeaseHeld,
    /// The partition has messages, and waits for its window to close.
    WindowOpen(PartitionNumber),
}

/// Messages of one partition on their way to a consumer.
#[derive(Debug)]
pub struct Parcel {
    /// Its queue.
    pub queue: QueueId,
    /// The partition.
    pub partition: PartitionNumber,
    /// Its name.
    pub name: PartitionName,
    /// Half-open ranges of sequences, ascending: only these were claimed.
    pub ranges: Vec<(Sequence, Sequence)>,
    /// Failed attempts of those that have any.
    pub attempts: Vec<(Sequence, u32)>,
    /// Where the batches are.
    pub sources: Vec<Source>,
}

/// Where batches are: in memory still, or in the log.
#[derive(Debug)]
pub enum Source {
    /// In the hot tail.
    Hot(Vec<Chunk>),
    /// To be read from the log.
    Cold(Run),
}

/// See [`Command::Ack`].
#[derive(Debug)]
pub struct Ack {
    /// The group.
    pub group: GroupName,
    /// The lease, where the consumer names one.
    pub token: Option<LeaseToken>,
    /// By partition, in the order asked.
    pub items: Vec<(PartitionNumber, AckItem)>,
    /// The answer: one result per item.
    pub reply: ReplyTo<Verdicts>,
}

/// One result per item of an ack.
pub type Verdicts = Vec<Result<Acked, AckRefusal>>;

/// See [`Command::Extend`].
#[derive(Debug)]
pub struct Extend {
    /// The lease.
    pub token: LeaseToken,
    /// For how long from now, milliseconds.
    pub extend_ms: u64,
    /// The answer: what it holds, and until when; `None` when that is nothing.
    pub reply: Reply<Result<Option<Extended>, CommandError>>,
}

/// See [`Command::GiveBack`]. Nobody waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct GiveBack {
    /// The lease.
    pub token: LeaseToken,
    /// The partition.
    pub partition: PartitionNumber,
    /// The first sequence that is not held any more.
    pub from: Sequence,
}

/// See [`Command::Define`].
#[derive(Debug)]
pub struct Define {
    /// The queue.
    pub name: QueueName,
    /// Logical grouping.
    pub namespace: Box<str>,
    /// Task label.
    pub task: Box<str>,
    /// Its settings; `None` leaves a queue that exists as it is. Labels that are not
    /// [`Named`] among them stay too.
    pub asked: Option<Asked>,
    /// The answer: the queue as it is now.
    pub reply: Reply<Result<Arc<QueueDefinition>, CommandError>>,
}

/// See [`Command::Delete`].
#[derive(Debug)]
pub struct Delete {
    /// The queue.
    pub name: QueueName,
    /// The version of its class that must be the newest; `None` = whatever it is.
    pub class: Option<u32>,
    /// The answer: whether there was one.
    pub reply: Reply<Result<bool, CommandError>>,
}

/// See [`Command::Maintain`].
#[derive(Debug)]
pub struct Maintain {
    /// Whether pushes are to be held back; `None` leaves it as it is.
    pub push: Option<bool>,
    /// Whether pops are to find nothing; `None` leaves it as it is.
    pub pop: Option<bool>,
    /// The answer: what is held back now.
    pub reply: Reply<Result<Maintenance, CommandError>>,
}

/// See [`Command::Register`].
#[derive(Debug)]
pub struct Register {
    /// Its name.
    pub name: Box<str>,
    /// The queue that it reads.
    pub source: Box<str>,
    /// The queue that it writes to; empty for none.
    pub sink: Box<str>,
    /// What tells one chain of operators from another.
    pub config_hash: Box<str>,
    /// Whether it begins without state, whatever it had.
    pub reset: bool,
    /// The answer.
    pub reply: Reply<Result<Registered, CommandError>>,
}

/// See [`Command::DefineClass`].
#[derive(Debug)]
pub struct DefineClass {
    /// The queue.
    pub queue: QueueName,
    /// Its settings where there is none: it is made together with the class, so that no message goes to a
    /// queue without code meanwhile.
    pub asked: Asked,
    /// The version that must be the newest, 0 for none at all; `None` = whichever is.
    pub expected: Option<u32>,
    /// The definition.
    pub text: Bytes,
    /// The answer.
    pub reply: Reply<Result<Classed, CommandError>>,
}

/// What became of the definition of a class.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Classed {
    /// It is this version of this queue now.
    Defined(QueueId, u32),
    /// Another version is the newest; 0 for none at all.
    Conflict(u32),
}

/// See [`Command::LetGo`]: all its leases end, as if they had run out without anybody's fault. For
/// whoever knows that all holders are gone.
#[derive(Debug)]
pub struct LetGo {
    /// The group, in whichever queues it is.
    pub group: GroupName,
    /// The answer: how many leases ended.
    pub reply: Reply<Result<usize, CommandError>>,
}

/// What became of a registration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Registered {
    /// It is new.
    Fresh(QueryDefinition),
    /// It was known.
    Known(QueryDefinition),
    /// It was known and has lost its state.
    Reset(QueryDefinition),
    /// It is known with another chain of operators, and nothing changed.
    Changed(QueryDefinition),
}

/// See [`Command::ReadStates`].
#[derive(Debug)]
pub struct ReadStates {
    /// Of which query.
    pub query: QueryId,
    /// These keys of the partition in `ask`; empty for those that `ask` means. Where they are too much
    /// for one answer, the next one is for those behind its [`StatePage::more_after`].
    pub keys: Vec<Bytes>,
    /// Which ones; its owner is found out.
    pub ask: StateAsk,
    /// The answer; `None` when there is no such query.
    pub reply: Reply<Result<Option<StatePage>, CommandError>>,
}

/// See [`Command::Find`].
#[derive(Debug)]
pub struct Find {
    /// The group whose leases are looked at.
    pub group: GroupName,
    /// Which ids.
    pub wanted: Vec<Wanted>,
    /// The answer: for each id, `None` where there is no such partition.
    pub reply: Reply<Result<Vec<Option<Found>>, CommandError>>,
}

/// A transaction id to be found.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// In this partition.
    pub partition: PartitionNumber,
    /// Among the messages of this lease first, where there is one.
    pub token: Option<LeaseToken>,
    /// The producer's id, or the text of a message's own.
    pub id: Box<str>,
}

/// What was found of a transaction id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The partition's queue.
    pub queue: Box<str>,
    /// The partition's name.
    pub partition: Box<str>,
    /// The message; `None` when the id names none that is known.
    pub seq: Option<Sequence>,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// It could not be decided: nothing changed.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// The log did not take it, or perhaps did: see the error.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The engine stops: nothing changed.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// Commands on their way to the lane.
#[derive(Debug, Default)]
pub struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    commands: Vec<Command>,
    closed: bool,
    abandoned: bool,
}

impl Inbox {
    /// Adds a command; the caller rings the bell. After [`Self::close`] it is dropped, and the
    /// sender of its answer with it.
    pub fn put(&self, command: Command) {
        let mut waiting = self.0.lock();
        if !waiting.closed {
            waiting.commands.push(command);
        }
    }

    /// Whether no command waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().commands.is_empty()
    }

    /// Takes all commands.
    #[must_use]
    pub fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.0.lock().commands)
    }

    /// Nobody will send commands any more, nor wait for answers; the caller rings the bell.
    pub fn abandon(&self) {
        self.0.lock().abandoned = true;
    }

    /// Whether [`Self::abandon`] was called.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.0.lock().abandoned
    }

    /// Nobody takes commands any more: those that are there are dropped, and so are later ones.
    pub fn close(&self) {
        self.0.lock().closed = true;
        drop(self.take());
    }
}
