//! Handing messages out and taking verdicts back: pop, ack, extend; [`groups`] on whose behalf, and the
//! [`desk`] of whoever runs queues.
//!
//! In: what a consumer asks. Out: batches as they were pushed, cut to what was claimed. Leases,
//! cursors and waiting are decided by the shards below; this room asks them, and brings bodies that
//! are no longer in memory. Knows no producer and no ring.

pub mod desk;
pub mod discover;
pub mod groups;
pub mod jobs;
pub mod parcel;
mod turns;

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::base::place::{PartitionNumber, QueueId};
use crate::base::random::Random;
use crate::catalog::{Catalogs, not_own};
use crate::delivery::parcel::{Delivered, Package, Unpacked};
use crate::delivery::turns::Turns;
use crate::log::ReadError;
use crate::sealing::{OpenError, Place};
use crate::shard::Engine;
use crate::shard::command::{
    Ack, Command, CommandError, Empty, Extend, Find, Found, GiveBack, Pop, Popped, ReplyTo,
    Verdicts, Wanted,
};
use crate::shard::look::letters::{LetterFilter, LetterPage, ShownLetter};
use crate::shard::look::messages::Body;
use crate::shard::watch::Watch;
use crate::state::draft::ack::{AckItem, AckRefusal, Verdict};
use crate::state::draft::care;
use crate::state::draft::pop::PopBudget;
use crate::state::draft::upkeep::Extended;
use crate::state::effect::{GroupStart, LeaseToken, Sequence};
use crate::state::model::Run;

/// Longest that a pop may wait, milliseconds: an hour.
pub const WAIT_MS_MAX: u64 = 60 * 60 * 1000;

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
    /// Messages were claimed, and the next one does not open. Nothing of them is held any more, and no
    /// attempt is counted: it comes next as long as it stands there.
    #[error("message {seq} of partition {partition} cannot be handed out: {error}")]
    Open {
        /// Its partition.
        partition: PartitionName,
        /// Its sequence.
        seq: Sequence,
        /// Why.
        error: OpenError,
    },
    /// Messages were to be settled at once, and that was refused: they come again.
    #[error("the messages could not be settled: {0}")]
    Settle(#[from] AckRefusal),
}

/// The message of a dead letter as it may stand somewhere: in its own place or in another. Where nothing
/// is sealed that is the message as it is kept; else it is sealed for that place if its queue asks for it,
/// and without its transaction id, which is taken from messages that are pushed again.
///
/// # Errors
/// Why it stays where it is, in words.
pub fn carry(engine: &Engine, shown: &ShownLetter, to: Place<'_>) -> Result<Bytes, String> {
    let kept = shown.letter.batch.clone();
    let batch = RecordBatch::parse_trusted(kept.clone()).map_err(|error| error.to_string())?;
    let seals = engine.catalog_now().seals(to.queue);
    let moves = to.queue != shown.queue;
    let disowned = |batch: &RecordBatch| moves.then(|| care::disowned(batch)).flatten();
    if !batch.is_sealed() && !seals {
        return Ok(disowned(&batch).map_or(kept, |it| it.bytes().clone()));
    }
    let from = Place { queue: shown.queue, partition: &shown.partition_name };
    let opened = engine.seals().open(from, &batch).map_err(|(_, error)| error.to_string())?;
    let renamed = care::renamed(opened.bytes()).ok_or("it is no message")?;
    let carried = disowned(&renamed).unwrap_or(renamed);
    if !seals {
        return Ok(carried.bytes().clone());
    }
    let sealed = engine.seals().seal(to, &carried).map_err(|error| error.to_string())?;
    Ok(sealed.bytes().clone())
}

/// Hands messages out.
#[derive(Clone)]
pub struct Delivery {
    engine: Arc<Engine>,
    catalogs: Catalogs,
    random: Arc<dyn Random>,
    /// Who is asked first where any queue will do.
    turns: Arc<Turns>,
    /// The message that did not open last: said once, however often it is asked for.
    unopened: Arc<Mutex<Option<(PartitionNumber, Sequence)>>>,
}

impl Delivery {
    /// Hands out what `engine` keeps.
    #[must_use]
    pub fn new(engine: Arc<Engine>, catalogs: Catalogs, random: Arc<dyn Random>) -> Self {
        Self { engine, catalogs, random, turns: Arc::default(), unopened: Arc::default() }
    }

    /// Messages for a consumer, from as many partitions as it allows.
    ///
    /// Waits up to `wait_ms` for the first message, and for one append (written, not synced; synced
    /// with `auto_ack`). Dropping the future before it returns leases nothing.
    ///
    /// # Errors
    /// [`PopError`].
    pub async fn pop(&self, order: PopOrder) -> Result<Handout, PopError> {
        not_own(order.group.as_str())?;
        self.pop_own(order).await
    }

    /// As [`Self::pop`], by any group: for processes, whose own group is nobody else's.
    ///
    /// # Errors
    /// [`PopError`].
    pub async fn pop_own(&self, order: PopOrder) -> Result<Handout, PopError> {
        let (reply, answer) = oneshot::channel();
        self.submit_pop(order, ReplyTo::Task(reply));
        let popped = answer.await.unwrap_or(Err(CommandError::ShuttingDown))?;
        self.unpack(popped).await
    }

    /// As [`Self::pop`], for a caller that has one task for many consumers: returns at once, and
    /// the answer comes to `reply`. It is to be unpacked next.
    pub fn begin_pop(&self, order: PopOrder, reply: ReplyTo<Popped>) {
        match not_own(order.group.as_str()) {
            Ok(()) => self.submit_pop(order, reply),
            // A receiver that is gone hung up.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn submit_pop(&self, order: PopOrder, reply: ReplyTo<Popped>) {
        let token = self.token();
        let asked_us = self.engine.clock().monotonic_us();
        let wait_until_us =
            (order.wait_ms > 0).then(|| asked_us + order.wait_ms.saturating_mul(1000));
        let pop = Pop {
            queue: order.queue,
            partition: order.partition,
            group: order.group,
            start: order.start,
            budget: order.budget,
            token,
            lease_ms: order.lease_ms,
            auto_ack: order.auto_ack,
            asked_us,
            wait_until_us,
            ticket: None,
            reply,
        };
        self.engine.submit(Command::Pop(Box::new(pop)));
    }

    /// A token for a lease that is taken otherwise than by a pop.
    #[must_use]
    pub fn token(&self) -> LeaseToken {
        let mut token = LeaseToken::default();
        self.random.fill(&mut token);
        token
    }

    /// The batches of an answer. Waits for the disk where they are no longer in memory, and for a commit
    /// where they are to be settled. Dropping the future before it has read them gives their leases back.
    ///
    /// # Errors
    /// [`PopError::Read`], [`PopError::Open`], [`PopError::Settle`].
    pub async fn unpack(&self, popped: Popped) -> Result<Handout, PopError> {
        let popped = match self.unpack_near(popped) {
            Ok(handout) => return handout,
            Err(popped) => popped,
        };
        let Popped { queue, token, empty, mut until_ms, to_settle, parcels, held } = popped;
        let unpacked = parcel::unpack_far(&self.engine, parcels).await;
        // From here on nothing is waited for but their settling, which is asked for at once.
        held.delivered();
        let unpacked = unpacked?;
        let packages = self.keep_opened(token, unpacked)?;
        if let Some(group) = to_settle {
            self.settle(group, token, &packages).await?;
            until_ms = 0;
        }
        Ok(Handout { queue, token, until_ms, empty, packages })
    }

    /// What opened. The rest of each lease is given back before anybody could settle a part of it.
    fn keep_opened(
        &self,
        token: LeaseToken,
        unpacked: Vec<Unpacked>,
    ) -> Result<Vec<Package>, PopError> {
        let mut packages = Vec::with_capacity(unpacked.len());
        let mut refusal = None;
        for Unpacked { package, stopped } in unpacked {
            if let Some((seq, error)) = stopped {
                let partition = package.partition;
                let back = GiveBack { token, partition, from: seq };
                self.engine.submit(Command::GiveBack(back));
                if self.unopened.lock().replace((partition, seq)) != Some((partition, seq)) {
                    let name = package.name.as_str();
                    tracing::error!(partition = name, seq, %error, "a message cannot be handed out");
                }
                let partition = package.name.clone();
                refusal.get_or_insert(PopError::Open { partition, seq, error });
            }
            if !package.batches.is_empty() {
                packages.push(package);
            }
        }
        match refusal {
            Some(refusal) if packages.is_empty() => Err(refusal),
            _ => Ok(packages),
        }
    }

    async fn settle(
        &self,
        group: GroupName,
        token: LeaseToken,
        packages: &[Package],
    ) -> Result<(), PopError> {
        let item = |package: &Package, delivered: &Delivered| {
            let last = delivered.first_seq + u64::from(delivered.batch.count()) - 1;
            let (verdict, error) = (Verdict::Completed, Box::default());
            (package.partition, AckItem { first: delivered.first_seq, last, verdict, error })
        };
        let items = packages.iter().flat_map(|it| it.batches.iter().map(move |of| item(it, of)));
        for verdict in self.ack(group, Some(token), items.collect()).await? {
            verdict?;
        }
        Ok(())
    }

    /// A message that is kept alone, as it was pushed; `None` is one that could not be read.
    ///
    /// # Errors
    /// [`OpenError`] where it is sealed and does not open.
    pub fn reveal(
        &self,
        queue: QueueId,
        partition: &str,
        kept: Option<&RecordBatch>,
    ) -> Result<RecordBatch, OpenError> {
        let kept = kept.ok_or(OpenError::Malformed("it is no batch"))?;
        let opened = self.engine.seals().open(Place { queue, partition }, kept);
        opened.map_err(|(_, error)| error)
    }

    /// The batches of an answer where none of them is far and nothing is to be settled; otherwise the
    /// answer again, for [`Self::unpack`].
    ///
    /// # Errors
    /// The answer itself.
    pub fn unpack_near(&self, popped: Popped) -> Result<Result<Handout, PopError>, Popped> {
        if popped.to_settle.is_some() || parcel::is_far(&self.engine, &popped.parcels) {
            return Err(popped);
        }
        let Popped { queue, token, empty, until_ms, parcels, held, .. } = popped;
        held.delivered();
        let unpacked = parcel::unpack_all(&self.engine, parcels).map_err(PopError::from);
        let packages = unpacked.and_then(|unpacked| self.keep_opened(token, unpacked));
        Ok(packages.map(|packages| Handout { queue, token, until_ms, empty, packages }))
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
        if let Err(error) = not_own(group.as_str()) {
            // A receiver that is gone hung up.
            return drop(reply.send(Err(error)));
        }
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
        Ok(self.extend_all(token, extend_ms).await?.map(|extended| extended.until_ms))
    }

    /// As [`Self::extend`]; tells as well of how many partitions the lease is.
    ///
    /// # Errors
    /// [`CommandError`] when it was not carried out.
    pub async fn extend_all(
        &self,
        token: LeaseToken,
        extend_ms: u64,
    ) -> Result<Option<Extended>, CommandError> {
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
        not_own(group.as_str())?;
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
