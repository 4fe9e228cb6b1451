//! Admission: the only way in.
//!
//! A batch is refused or admitted once: its structure, its sizes, its queue. Then it is placed (queue,
//! partition, shard) and put into its ring. From there on it only waits for its commit. The fast
//! path never waits and is called from a connection's reader; the slow path waits for a queue to be
//! made or for room in the rings.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::batch::{BatchError, BatchLimits, Record, RecordBatch};
use onrush_protocol::name::{PartitionName, QueueName};
use onrush_protocol::qos::Qos;

use crate::buffer::Full;
use crate::buffer::allowance::NoPlace;
use crate::buffer::flush::FlushWish;
use crate::buffer::receipt::Signer;
use crate::buffer::ring::{Pending, Placed};
use crate::catalog::{CatalogError, Catalogs, not_own};
use crate::sealing::{Place, SealError};
use crate::shard::Engine;
use crate::state::catalog::QueueDefinition;
use crate::state::classes::OWN_HEADER;
use crate::state::draft::push::PushBatch;
use crate::state::effect::ProducerSub;
use crate::telemetry::Telemetry;

/// What is admitted, and how it waits by default.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Sizes of batches and messages.
    pub limits: BatchLimits,
    /// QoS 0: flush after this many milliseconds where the producer does not say.
    pub buffer_ms: u32,
    /// QoS 0: or when this many messages wait in a partition.
    pub buffer_max: u32,
    /// How long what goes to the lane beside the rings may wait for room in them.
    pub room_timeout: Duration,
}

/// How a producer wants its batch to be treated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PushTerms {
    /// When the receipt is signed.
    pub qos: Qos,
    /// QoS 0: flush after this many milliseconds; 0 = the server's default.
    pub buffer_ms: u32,
    /// QoS 0: flush when this many messages wait; 0 = the server's default.
    pub buffer_max: u32,
    /// Who pushes, where the door knows; stored beside the batch.
    pub sub: Option<ProducerSub>,
}

/// Why a push was not admitted; nothing of it was taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PushError {
    /// The batch is not well formed or too large.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Its queue does not exist or could not be made.
    #[error(transparent)]
    Queue(#[from] CatalogError),
    /// Its queue asks for encryption and it could not be sealed: it is never stored in clear.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A record has a header that only this server writes.
    #[error("record {record} has the header '{OWN_HEADER}', which only the server writes")]
    OwnHeader {
        /// Its index.
        record: usize,
    },
    /// A record for a process has a transaction id such as only processes write.
    #[error(
        "record {record} has a transaction id that begins with p: and a number, as those of processes do"
    )]
    OwnId {
        /// Its index.
        record: usize,
    },
    /// The queue would hold more messages that are not done than it may.
    #[error("the queue holds as many messages that are not done as its maxSize of {limit} allows")]
    QueueFull {
        /// Its limit.
        limit: u64,
    },
    /// No room, and at QoS 0 nobody waits; or nobody made room in time.
    #[error(transparent)]
    Full(#[from] Full),
}

/// Whether a transaction id is one of those that processes write: whoever uses one before a process does
/// would have its message taken for one that was there before.
#[must_use]
pub fn is_own_id(id: &str) -> bool {
    let rest = id.strip_prefix("p:");
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Why the fast path did not take a push: the slow path can go on from here.
#[derive(Debug)]
pub enum Later {
    /// The queue is not known yet.
    UnknownQueue(Admitted),
    /// There is no room now.
    NoRoom(Placed, Full),
}

/// A batch whose structure was checked.
#[derive(Debug)]
pub struct Admitted {
    batch: RecordBatch,
    partition: PartitionName,
    terms: PushTerms,
    signer: Option<Signer>,
}

/// Who made up the transaction ids of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ids {
    /// Whoever pushed it.
    Theirs,
    /// This server.
    Ours,
}

/// The only way in.
#[derive(Clone)]
pub struct Ingest {
    engine: Arc<Engine>,
    catalogs: Catalogs,
    telemetry: Arc<Telemetry>,
    config: Config,
}

/// Memory taken out of the budget; given back when dropped.
#[must_use]
pub struct Reserved {
    engine: Arc<Engine>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.engine.buffers().give_back(self.bytes);
    }
}

/// What became of a push on the fast path.
pub type TryPush = Result<Result<u32, Later>, PushError>;

impl Ingest {
    /// The way into `engine`.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        catalogs: Catalogs,
        telemetry: Arc<Telemetry>,
        config: Config,
    ) -> Self {
        Self { engine, catalogs, telemetry, config }
    }

    /// The sizes that it admits.
    #[must_use]
    pub fn limits(&self) -> &BatchLimits {
        &self.config.limits
    }

    /// Takes a batch if that needs no waiting; returns how many messages it holds. `signer` gets
    /// the receipt once the promise of a durable QoS holds; at QoS 0 the answer is this return.
    ///
    /// # Errors
    /// [`PushError::Batch`], [`PushError::Seal`], and at QoS 0 [`PushError::Full`] when its ring is full: nothing was
    /// taken, and the signer is dropped unused.
    pub fn try_push(
        &self,
        queue: &QueueName,
        partition: PartitionName,
        batch: Bytes,
        terms: PushTerms,
        signer: Option<Signer>,
    ) -> TryPush {
        let batch = RecordBatch::parse(batch, &self.config.limits)?;
        let admitted = Admitted { batch, partition, terms, signer };
        let catalog = self.engine.catalog_now();
        match catalog.find(queue.as_str()) {
            Some(found) => self.enqueue(self.place(found, admitted)?),
            None => Ok(Err(Later::UnknownQueue(admitted))),
        }
    }

    /// Takes a batch that the fast path could not take. Waits for one commit when the queue is
    /// made, and for room in the rings until `until_us` of the clock: batches of one request have one end together.
    /// Dropping the future before it returns leaves nothing behind but perhaps the new queue.
    ///
    /// # Errors
    /// [`PushError`]; nothing was taken.
    pub async fn push_later(
        &self,
        queue: &QueueName,
        later: Later,
        until_us: u64,
    ) -> Result<u32, PushError> {
        let (mut placed, mut full) = match later {
            Later::NoRoom(placed, full) => (placed, full),
            Later::UnknownQueue(admitted) => {
                let found = self.catalogs.find_or_create(queue).await?;
                match self.enqueue(self.place(&found, admitted)?)? {
                    Ok(count) => return Ok(count),
                    Err(Later::NoRoom(placed, full)) => (placed, full),
                    Err(Later::UnknownQueue(_)) => {
                        return Err(CatalogError::NotFound(queue.detach()).into());
                    }
                }
            }
        };
        let left_us = until_us.saturating_sub(self.engine.clock().monotonic_us());
        let timeout = tokio::time::sleep(Duration::from_micros(left_us));
        tokio::pin!(timeout);
        loop {
            let room = self.wait_for_room(full);
            tokio::select! {
                () = room => {}
                () = &mut timeout => return Err(full.into()),
            }
            match self.enqueue(placed)? {
                Ok(count) => return Ok(count),
                Err(Later::NoRoom(again, why)) => (placed, full) = (again, why),
                Err(Later::UnknownQueue(_)) => return Err(full.into()),
            }
        }
    }

    /// Admits a batch that is to stand with others: checked and placed as any, but not put into a
    /// ring. Waits for one commit when its queue is made; dropping the future leaves nothing behind
    /// but perhaps the new queue.
    ///
    /// # Errors
    /// [`PushError::Batch`], [`PushError::Queue`] and [`PushError::Seal`]; nothing was taken.
    pub async fn admit(
        &self,
        queue: &QueueName,
        partition: PartitionName,
        batch: Bytes,
        sub: Option<ProducerSub>,
    ) -> Result<Placed, PushError> {
        let batch = RecordBatch::parse(batch, &self.config.limits)?;
        let terms = PushTerms { qos: Qos::ExactlyOnce, buffer_ms: 0, buffer_max: 0, sub };
        let admitted = Admitted { batch, partition, terms, signer: None };
        let found = self.catalogs.find_or_create(queue).await?;
        self.place(&found, admitted)
    }

    /// As [`Self::admit`], for what this server makes itself and in a queue that is known. Its
    /// transaction ids are no client's, even where a client has one of the same text.
    ///
    /// # Errors
    /// [`PushError::Seal`]; nothing was taken.
    pub fn admit_own(
        &self,
        queue: &QueueDefinition,
        partition: PartitionName,
        batch: RecordBatch,
    ) -> Result<Placed, PushError> {
        let terms = PushTerms { qos: Qos::ExactlyOnce, buffer_ms: 0, buffer_max: 0, sub: None };
        let admitted = Admitted { batch, partition, terms, signer: None };
        self.seal_and_place(queue, admitted, Ids::Ours)
    }

    /// Takes a batch that this server makes itself, as [`Self::try_push`] and [`Self::push_later`] do.
    ///
    /// # Errors
    /// [`PushError`]; nothing was taken, and the signer is dropped unused.
    pub async fn push_own(
        &self,
        queue: &QueueDefinition,
        partition: PartitionName,
        batch: RecordBatch,
        terms: PushTerms,
        signer: Signer,
    ) -> Result<u32, PushError> {
        let admitted = Admitted { batch, partition, terms, signer: Some(signer) };
        match self.enqueue(self.seal_and_place(queue, admitted, Ids::Theirs)?)? {
            Ok(count) => Ok(count),
            Err(later) => {
                let patience_us = self.config.room_timeout.as_micros() as u64;
                let until_us = self.engine.clock().monotonic_us() + patience_us;
                self.push_later(&QueueName::default(), later, until_us).await
            }
        }
    }

    /// Takes memory for what goes to the lane beside the rings, out of the budget of all rings. Waits
    /// for room up to the configured time.
    ///
    /// # Errors
    /// [`PushError::Full`].
    pub async fn reserve(&self, bytes: u64) -> Result<Reserved, PushError> {
        let budget = self.engine.buffers().budget();
        let full = Full::Budget { limit: budget.limit() };
        let taken = async {
            while !budget.take(bytes) {
                budget.wait_for_room().await;
            }
        };
        let taken = tokio::time::timeout(self.config.room_timeout, taken).await;
        taken.map_err(|_| full)?;
        Ok(Reserved { engine: Arc::clone(&self.engine), bytes })
    }

    async fn wait_for_room(&self, full: Full) {
        match full {
            Full::Budget { .. } => self.engine.buffers().budget().wait_for_room().await,
            // A ring empties with its next commit, a few milliseconds at most under load.
            Full::Ring { .. } => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }

    /// Where a batch of somebody else goes.
    fn place(&self, found: &QueueDefinition, admitted: Admitted) -> Result<Placed, PushError> {
        not_own(&found.name).map_err(CatalogError::from)?;
        // In every queue: it may become a class before they are read.
        if admitted.batch.has_headers() {
            let mut records = admitted.batch.records();
            if let Some(record) = records.position(|it| it.headers.get(OWN_HEADER).is_some()) {
                return Err(PushError::OwnHeader { record });
            }
        }
        if admitted.batch.has_transaction_ids()
            && self.engine.catalog_now().class(found.id).is_some()
        {
            let is_own = |it: Record<'_>| it.transaction_id.is_some_and(is_own_id);
            if let Some(record) = admitted.batch.records().position(is_own) {
                return Err(PushError::OwnId { record });
            }
        }
        self.seal_and_place(found, admitted, Ids::Theirs)
    }

    /// Where a batch goes, and the batch as it is kept: sealed, if its queue asks for it.
    fn seal_and_place(
        &self,
        found: &QueueDefinition,
        admitted: Admitted,
        ids: Ids,
    ) -> Result<Placed, PushError> {
        let Admitted { mut batch, partition, terms, signer } = admitted;
        let (queue, limit) = (found.id, found.options.max_size);
        if found.options.encryption_enabled {
            let place = Place { queue, partition: partition.as_str() };
            batch = self.engine.seals().seal(place, &batch)?;
        }
        let key = self.engine.key();
        let hash = key.place(queue, partition.as_str());
        let fingerprints = if batch.has_transaction_ids() {
            let of = |id: &str| match ids {
                Ids::Theirs => key.fingerprint(id),
                Ids::Ours => key.own_fingerprint(id),
            };
            batch.records().map(|record| record.transaction_id.map_or(0, of)).collect()
        } else {
            Vec::new()
        };
        let PushTerms { qos, buffer_ms, buffer_max, sub } = terms;
        let or = |wish: u32, default: u32| if wish == 0 { default } else { wish };
        let flush = match qos {
            Qos::Buffered => FlushWish::Later {
                buffer_ms: or(buffer_ms, self.config.buffer_ms),
                buffer_max: or(buffer_max, self.config.buffer_max),
            },
            Qos::AtLeastOnce | Qos::ExactlyOnce => FlushWish::Now,
        };
        let places = match qos {
            Qos::Buffered if limit > 0 => {
                let taken = self.engine.buffers().allowances().take(queue, batch.count(), limit);
                taken.map_err(|NoPlace| PushError::QueueFull { limit })?
            }
            _ => None,
        };
        let pending = Pending { push: PushBatch { batch, fingerprints, sub }, qos, signer, places };
        Ok(Placed { queue, partition, hash, flush, pending })
    }

    fn enqueue(&self, placed: Placed) -> TryPush {
        let count = placed.pending.push.batch.count();
        let qos = placed.pending.qos;
        let shard = self.engine.shards().of_hash(placed.hash);
        let now_us = self.engine.clock().monotonic_us();
        match self.engine.buffers().push(shard, placed, now_us) {
            Ok(()) => {
                if qos == Qos::Buffered {
                    self.telemetry.buffered.add(u64::from(count));
                }
                Ok(Ok(count))
            }
            Err((_, full @ Full::Ring { .. })) if qos == Qos::Buffered => Err(full.into()),
            Err((placed, full)) => Ok(Err(Later::NoRoom(placed, full))),
        }
    }
}
