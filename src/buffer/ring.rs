//! One partition's ring: batches in the order in which they came, bounded by messages and bytes.

use std::collections::VecDeque;

use onrush_protocol::name::PartitionName;
use onrush_protocol::qos::Qos;

use crate::base::place::QueueId;
use crate::buffer::Full;
use crate::buffer::allowance::Places;
use crate::buffer::flush::FlushWish;
use crate::buffer::receipt::Signer;
use crate::state::draft::push::PushBatch;

/// What a ring charges a batch beyond its bytes: bookkeeping that waits with it.
const BATCH_OVERHEAD_BYTES: u64 = 128;

/// Most that one ring holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingLimits {
    /// Messages.
    pub messages_max: u32,
    /// Bytes, of batches and their bookkeeping.
    pub bytes_max: u64,
}

/// A push that knows its partition.
#[derive(Debug)]
pub struct Placed {
    /// Its queue.
    pub queue: QueueId,
    /// Its partition.
    pub partition: PartitionName,
    /// The placing hash of both.
    pub hash: u64,
    /// When it wants to be committed.
    pub flush: FlushWish,
    /// The batch.
    pub pending: Pending,
}

impl Placed {
    /// What it counts against limits of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pending.bytes()
    }
}

/// A batch in a ring.
#[derive(Debug)]
pub struct Pending {
    /// The batch.
    pub push: PushBatch,
    /// When its receipt is signed.
    pub qos: Qos,
    /// Who waits for the receipt; `None` when it is signed already.
    pub signer: Option<Signer>,
    /// Its places in a queue that has a limit, where it was answered before it is decided.
    pub places: Option<Places>,
}

impl Pending {
    /// What it counts against limits of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.push.batch.bytes().len() as u64
            + 16 * self.push.fingerprints.len() as u64
            + BATCH_OVERHEAD_BYTES
    }
}

/// One partition's batches.
#[derive(Debug)]
pub struct Ring {
    /// Its queue.
    pub queue: QueueId,
    /// Its name.
    pub partition: PartitionName,
    /// The placing hash of both.
    pub hash: u64,
    /// In order of arrival.
    pub pending: VecDeque<Pending>,
    messages: u32,
    bytes: u64,
}

impl Ring {
    /// An empty ring for the partition of `first`.
    pub(super) fn new(first: &Placed) -> Self {
        Self {
            queue: first.queue,
            partition: first.partition.clone(),
            hash: first.hash,
            pending: VecDeque::new(),
            messages: 0,
            bytes: 0,
        }
    }

    /// Whether it belongs to the partition of `push`.
    pub(super) fn is_for(&self, push: &Placed) -> bool {
        self.queue == push.queue && self.partition == push.partition
    }

    /// Messages waiting.
    #[must_use]
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// Bytes waiting, as limits count them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a batch; a batch larger than the whole ring is taken by an empty one.
    pub(super) fn push(&mut self, push: Placed, limits: RingLimits) -> Result<(), (Placed, Full)> {
        let (count, bytes) = (push.pending.push.batch.count(), push.bytes());
        let messages = self.messages.saturating_add(count);
        let over = messages > limits.messages_max || self.bytes + bytes > limits.bytes_max;
        if over && !self.pending.is_empty() {
            let RingLimits { messages_max, bytes_max } = limits;
            return Err((push, Full::Ring { messages_max, bytes_max }));
        }
        self.messages = messages;
        self.bytes += bytes;
        self.pending.push_back(push.pending);
        Ok(())
    }

    /// Takes out the batches for which `take` holds; the others keep their order.
    pub fn take_where(&mut self, take: impl Fn(&Pending) -> bool) -> VecDeque<Pending> {
        let all = std::mem::take(&mut self.pending);
        let (taken, kept): (VecDeque<Pending>, _) = all.into_iter().partition(take);
        self.pending = kept;
        self.messages = 0;
        self.bytes = 0;
        for pending in &self.pending {
            self.messages = self.messages.saturating_add(pending.push.batch.count());
            self.bytes += pending.bytes();
        }
        taken
    }

    /// Splits off the oldest batches up to about `bytes_max`, one at least.
    pub(super) fn split(&mut self, bytes_max: u64) -> Self {
        let mut head = Self {
            queue: self.queue,
            partition: self.partition.clone(),
            hash: self.hash,
            pending: VecDeque::new(),
            messages: 0,
            bytes: 0,
        };
        while let Some(next) = self.pending.front() {
            let bytes = next.bytes();
            if head.bytes + bytes > bytes_max && !head.pending.is_empty() {
                break;
            }
            let Some(next) = self.pending.pop_front() else { break };
            let count = next.push.batch.count();
            self.messages = self.messages.saturating_sub(count);
            self.bytes -= bytes;
            head.messages = head.messages.saturating_add(count);
            head.bytes += bytes;
            head.pending.push_back(next);
        }
        head
    }
}
