//! Handing messages out and taking verdicts back: pop, ack, extend; [`groups`] on whose behalf.
//!
//! In: what a consumer asks. Out: batches as they were pushed, cut to what was claimed. Leases,
//! cursors and waiting are decided by the shards below; this room asks them, and brings bodies that
//! are no longer in memory. Knows no producer and no ring.

pub mod groups;
pub mod jobs;
pub mod parcel;

use std::sync::Arc;

use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use tokio::sync::oneshot;

use crate::base::place::PartitionNumber;
use crate::base::random::Random;
use crate::catalog::Catalogs;
use crate::delivery::parcel::Package;
use crate::log::ReadError;
use crate::shard::Engine;
use crate::shard::command::{
    Ack, Command, CommandError, Empty, Extend, Find, Found, Pop, Popped, ReplyTo, Verdicts, Wanted,
};
use crate::shard::look::letters::{LetterFilter, LetterPage, ShownLetter};
use crate::shard::look::messages::Body;
use crate::shard::watch::Watch;
use crate::state::draft::ack::AckItem;
use crate::state::draft::pop::PopBudget;
use crate::state::effect::{GroupStart, LeaseToken, Sequence};
use crate::state::model::Run;

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct PopOrder {
    /// The queue; one that does not exist is waited for like an empty one.
    pub queue: QueueName,
    /// One partition, or any.
    pub partition: Option<PartitionName>,
    /// The consumer group.
    pub group: GroupName,
    /// Where the group begins if it is new.
    pub start: GroupStart,
    /// At most this much.
    pub budget: PopBudget,
    /// Wait up to this many milliseconds for a message; 0 = do not wait.
    pub wait_ms: u64,
    /// Lease for this many milliseconds; 0 = as the queue says.
    pub lease_ms: u64,
    /// Settle at once instead of leasing: the consumer may lose what it was given.
    pub auto_ack: bool,
}

/// What a consumer gets.
#[derive(Debug)]
pub struct Handout {
    /// The queue that was asked.
    pub queue: QueueName,
    /// The lease's token; names it in acks and extensions.
    pub token: LeaseToken,
    /// When the lease ends, unix milliseconds; 0 without one.
    pub until_ms: u64,
    /// Why there is nothing, where there is nothing.
    pub empty: Option<Empty>,
    /// Messages by partition.
    pub packages: Vec<Package>,
}

/// Why a pop failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PopError {
    /// The shards did not carry it out; nothing is leased.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Messages were claimed and their bodies could not be read; their lease will run out.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Hands messages out.
#[derive(Clone)]
pub struct Delivery {
    engine: Arc<Engine>,
    catalogs: Catalogs,
    random: Arc<dyn Random>,
}

impl Delivery {
    /// Hands out what `engine` keeps.
    #[must_use]
    pub fn new(engine: Arc<Engine>, catalogs: Catalogs, random: Arc<dyn Random>) -> Self {
        Self { engine, catalogs, random }
    }

    /// Messages for a consumer, from as many partitions as it allows.
    ///
    /// Waits up to `wait_ms` for the first message, and for one append (written, not synced; synced
    /// with `auto_ack`). Dropping the future before it returns leases nothing.
    ///
    /// # Errors
    /// [`PopError`].
    pub async fn pop(&self, order: PopOrder) -> Result<Handout, PopError> {
        let (reply, answer) = oneshot::channel();
        self.begin_pop(order, ReplyTo::Task(reply));
        let popped = answer.await.unwrap_or(Err(CommandError::ShuttingDown))?;
        self.unpack(popped).await
    }

    /// As [`Self::pop`], for a caller that has one task for many consumers: returns at once, and
    /// the answer comes to `reply`. It is to be unpacked next.
    pub fn begin_pop(&self, order: PopOrder, reply: ReplyTo<Popped>) {
        let mut token = LeaseToken::default();
        self.random.fill(&mut token);
        let wait_until_us = (order.wait_ms > 0)
            .then(|| self.engine.clock().monotonic_us() + order.wait_ms.saturating_mul(1000));
        let pop = Pop {
            queue: order.queue,
            partition: order.partition,
            group: order.group,
            start: order.start,
            budget: order.budget,
            token,
            lease_ms: order.lease_ms,
            auto_ack: order.auto_ack,
            wait_until_us,
            ticket: None,
            reply,
        };
        self.engine.submit(Command::Pop(Box::new(pop)));
    }

    /// The batches of an answer. Waits for the disk where they are no longer in memory.
    ///
    /// # Errors
    /// [`PopError::Read`].
    pub async fn unpack(&self, popped: Popped) -> Result<Handout, PopError> {
        let Popped { queue, token, empty, until_ms, parcels } = match self.unpack_near(popped) {
            Ok(handout) => return handout,
            Err(popped) => popped,
        };
        let packages = parcel::unpack_far(&self.engine, parcels).await?;
        Ok(Handout { queue, token, until_ms, empty, packages })
    }

    /// The batches of an answer where none of them is far; otherwise the answer again, for
    /// [`Self::unpack`].
    ///
    /// # Errors
    /// The answer itself.
    pub fn unpack_near(&self, popped: Popped) -> Result<Result<Handout, PopError>, Popped> {
        if parcel::is_far(&self.engine, &popped.parcels) {
            return Err(popped);
        }
        let Popped { queue, token, empty, until_ms, parcels } = popped;
        let packages = parcel::unpack_all(&self.engine, parcels);
        let handout = |packages| Handout { queue, token, until_ms, empty, packages };
        Ok(packages.map(handout).map_err(PopError::from))
    }

    /// Takes a consumer's verdicts; one result per item, in order. Answers when they are durable.
    /// Dropping the future does not take them back.
    ///
    /// # Errors
    /// [`CommandError`] when none of them was carried out, or perhaps was: see the error.
    pub async fn ack(
        &self,
        group: GroupName,
        token: Option<LeaseToken>,
        items: Vec<(PartitionNumber, AckItem)>,
    ) -> Result<Verdicts, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.begin_ack(group, token, items, ReplyTo::Task(reply));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// As [`Self::ack`], but returns at once; the answer comes to `reply`.
    pub fn begin_ack(
        &self,
        group: GroupName,
        token: Option<LeaseToken>,
        items: Vec<(PartitionNumber, AckItem)>,
        reply: ReplyTo<Verdicts>,
    ) {
        self.engine.submit(Command::Ack(Box::new(Ack { group, token, items, reply })));
    }

    /// Makes a lease last `extend_ms` from now; never shortens it. Returns when it ends, unix
    /// milliseconds, or `None` when the token holds nothing.
    ///
    /// # Errors
    /// [`CommandError`] when it was not carried out.
    pub async fn extend(
        &self,
        token: LeaseToken,
        extend_ms: u64,
    ) -> Result<Option<u64>, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.engine.submit(Command::Extend(Extend { token, extend_ms, reply }));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// Which messages some transaction ids name, for a door whose consumers acknowledge by id.
    /// Answers in the order asked; `None` where there is no such partition.
    ///
    /// # Errors
    /// [`CommandError`] when rows could not be read.
    pub async fn find(
        &self,
        group: GroupName,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<Option<Found>>, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.engine.submit(Command::Find(Box::new(Find { group, wanted, reply })));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// Says that somebody waits for work of a group in any queue of a namespace or task, before it
    /// looks into them. The answer comes when there may be some; an error when there never will be.
    #[must_use]
    pub fn watch(
        &self,
        namespace: Option<&str>,
        task: Option<&str>,
        group: &GroupName,
    ) -> oneshot::Receiver<()> {
        let (reply, told) = oneshot::channel();
        let (namespace, task) = (namespace.map(Into::into), task.map(Into::into));
        let watch = Watch { namespace, task, group: group.detach(), reply };
        self.engine.submit(Command::Watch(Box::new(watch)));
        told
    }

    /// A page of dead letters, of one queue or of all, newest failure first; none when there is no such
    /// queue. Waits for disks or networks.
    ///
    /// # Errors
    /// [`CommandError`] when they could not be read.
    pub async fn dead_letters(
        &self,
        queue: Option<&QueueName>,
        filter: LetterFilter,
        offset: usize,
        limit: usize,
    ) -> Result<LetterPage, CommandError> {
        let queue = match queue.map(|name| self.catalogs.find(name)) {
            None => None,
            Some(Some(found)) => Some(found.id),
            Some(None) => return Ok(LetterPage { total: Some(0), ..LetterPage::default() }),
        };
        self.engine.dead_letters(LetterFilter { queue, ..filter }, offset, limit).await
    }

    /// The dead letters of one message, one for each group that could not settle it.
    ///
    /// # Errors
    /// As [`Self::dead_letters`].
    pub async fn letters_of(
        &self,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> Result<Vec<ShownLetter>, CommandError> {
        self.engine.letters_of(partition, seq).await
    }

    /// The bodies of messages as they were pushed; `None` where it cannot be
    /// read any more. Waits for disks or networks.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn bodies(
        &self,
        wanted: Vec<(PartitionNumber, Sequence, Run)>,
    ) -> Result<Vec<Option<Body>>, CommandError> {
        self.engine.bodies(wanted).await
    }
}
