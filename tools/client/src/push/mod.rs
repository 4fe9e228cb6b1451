//! Pushing: messages in, one receipt each out, in their order.
//!
//! In: messages for one partition and the promise wanted. Out: a [`PushResult`]. A push of any
//! size is split into batches of about 4 MiB that are sent one after the other, so that a part
//! that is tried again never falls behind a later one. Called through [`crate::Queue::push`].

mod result;

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::request::PushTerms;
use onrush_protocol::response::{Receipts, SectionReceipt};
use onrush_protocol::{BatchBuilder, BatchLimits, NameError, Qos};

pub use result::{MessageReceipt, MessageStatus, PushResult};

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::message::{AddError, Message};
use crate::queue::{BoxFuture, Target};

/// Where a push is split, in bytes of batch.
const BATCH_BYTES_AIM: usize = 4 * 1024 * 1024;

/// Called with the receipts of one kind, when there are any.
type OnReceipts = Box<dyn FnOnce(&[MessageReceipt]) + Send>;
/// Called with the receipts of what failed, and the first error.
type OnError = Box<dyn FnOnce(&[MessageReceipt], &Error) + Send>;

/// A push that was not sent yet. Await it.
///
/// Waits until the promise is signed, at most the client's request timeout for each attempt and
/// batch. Dropping the future takes nothing back: what was sent is done by the server, whether
/// anybody listens or not; with transaction ids it is safe to push the same again.
#[must_use = "nothing is sent until it is awaited"]
pub struct Push {
    client: Client,
    target: Result<Target, NameError>,
    messages: Vec<Message>,
    terms: PushTerms,
    on_success: Option<OnReceipts>,
    on_duplicate: Option<OnReceipts>,
    on_error: Option<OnError>,
}

impl Push {
    pub(crate) fn new(
        client: Client,
        target: Result<Target, NameError>,
        messages: Vec<Message>,
    ) -> Self {
        let terms = PushTerms::default();
        let (on_success, on_duplicate, on_error) = (None, None, None);
        Self { client, target, messages, terms, on_success, on_duplicate, on_error }
    }

    /// The promise wanted. Default: at least once. For exactly once, messages without a
    /// transaction id get one here, before the first attempt, so that trying again is safe.
    pub fn qos(mut self, qos: Qos) -> Self {
        self.terms.qos = qos;
        self
    }

    /// The server's buffer is flushed when its oldest message is this old, in milliseconds; means
    /// QoS 0. 0 is the server's default.
    pub fn buffer_ms(mut self, buffer_ms: u32) -> Self {
        self.terms.qos = Qos::Buffered;
        self.terms.buffer_ms = buffer_ms;
        self
    }

    /// The server's buffer is flushed when it holds this many messages; means QoS 0. 0 is the
    /// server's default.
    pub fn buffer_max(mut self, buffer_max: u32) -> Self {
        self.terms.qos = Qos::Buffered;
        self.terms.buffer_max = buffer_max;
        self
    }

    /// How long the server may take to keep its promise before it says that it could not. Whole
    /// milliseconds, at most 2^32 - 1; default: the server's.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.terms.timeout_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
        self
    }

    /// Called with the receipts of messages that were stored or buffered.
    pub fn on_success(mut self, call: impl FnOnce(&[MessageReceipt]) + Send + 'static) -> Self {
        self.on_success = Some(Box::new(call));
        self
    }

    /// Called with the receipts of messages that had been stored before.
    pub fn on_duplicate(mut self, call: impl FnOnce(&[MessageReceipt]) + Send + 'static) -> Self {
        self.on_duplicate = Some(Box::new(call));
        self
    }

    /// Called with the receipts of messages that failed and the first error, also when the whole
    /// push returns an error.
    pub fn on_error(
        mut self,
        call: impl FnOnce(&[MessageReceipt], &Error) + Send + 'static,
    ) -> Self {
        self.on_error = Some(Box::new(call));
        self
    }

    async fn run(mut self) -> Result<PushResult, Error> {
        if self.terms.qos == Qos::ExactlyOnce {
            self.messages.iter_mut().for_each(Message::ensure_transaction_id);
        }
        let target = self.target.clone()?;
        let result = push(&self.client, &target, self.terms, &self.messages).await;
        self.call_back(&result);
        match result.error() {
            // Nothing at all was taken: `?` must not step over that.
            Some(error) if result.taken() == 0 => Err(error.clone()),
            _ => Ok(result),
        }
    }

    fn call_back(&mut self, result: &PushResult) {
        let of_kind = |kind: fn(&MessageStatus) -> bool| -> Vec<MessageReceipt> {
            result.messages.iter().filter(|receipt| kind(&receipt.status)).cloned().collect()
        };
        if let Some(call) = self.on_success.take() {
            let kind = |s: &_| matches!(s, MessageStatus::Pushed | MessageStatus::Buffered);
            Some(of_kind(kind)).filter(|found| !found.is_empty()).inspect(|found| call(found));
        }
        if let Some(call) = self.on_duplicate.take() {
            let kind = |s: &_| matches!(s, MessageStatus::Duplicate);
            Some(of_kind(kind)).filter(|found| !found.is_empty()).inspect(|found| call(found));
        }
        if let (Some(call), Some(error)) = (self.on_error.take(), result.error()) {
            call(&of_kind(|s| matches!(s, MessageStatus::Failed(_))), error);
        }
    }
}

impl IntoFuture for Push {
    type Output = Result<PushResult, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Pushes in batches, one after the other, until all are done or one of them failed.
pub(crate) async fn push(
    client: &Client,
    target: &Target,
    terms: PushTerms,
    messages: &[Message],
) -> PushResult {
    let mut result = PushResult::unsent(messages);
    let limits = match client.limits().await {
        Ok(limits) => limits,
        Err(error) => {
            result.fail(0..messages.len(), &error);
            return result;
        }
    };
    let mut waiting: VecDeque<usize> = (0..messages.len()).collect();
    while let Some(batch) = next_batch(messages, &mut waiting, limits, &mut result) {
        // Duplicates are told apart by ids only where the promise is durable.
        let is_safe = terms.qos.is_durable()
            && batch
                .members
                .iter()
                .all(|&at| messages.get(at).is_some_and(Message::has_transaction_id));
        let repeat = if is_safe { Repeat::Safe } else { Repeat::Unsafe };
        let sent = client
            .call(repeat, |connection| {
                let (queue, partition, bytes) =
                    (target.queue.clone(), target.partition(), batch.bytes.clone());
                async move {
                    let answer = connection.push_batch(&queue, &partition, terms, bytes).await?;
                    single_section(answer)
                }
            })
            .await;
        let placed = match sent {
            Ok((receipt, is_healthy)) => {
                result.store_healthy &= is_healthy;
                result.place(&batch.members, receipt)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = placed {
            result.fail(batch.members.iter().copied(), &error);
            // What comes after must not overtake what failed.
            result.fail(waiting.drain(..), &Error::HeldBack);
        }
    }
    result
}

/// A batch and the indices of the messages in it.
struct Batch {
    bytes: Bytes,
    members: Vec<usize>,
}

/// Packs the next messages; those that fit no batch are marked failed and left out.
fn next_batch(
    messages: &[Message],
    waiting: &mut VecDeque<usize>,
    limits: BatchLimits,
    result: &mut PushResult,
) -> Option<Batch> {
    let mut builder = BatchBuilder::with_limits(limits);
    let mut members = Vec::new();
    while let Some(&at) = waiting.front() {
        let message = messages.get(at)?;
        let is_full = builder.bytes_len() + message.record_bytes() > BATCH_BYTES_AIM;
        if is_full && builder.count() > 0 {
            break;
        }
        match message.add_to(&mut builder) {
            Ok(()) => members.push(at),
            Err(AddError::BatchFull) => break,
            Err(AddError::Message(error)) => result.fail([at], &error),
        }
        waiting.pop_front();
    }
    let batch = builder.finish()?;
    Some(Batch { bytes: batch.bytes().clone(), members })
}

/// The one receipt of a push with one section; a section that failed is an error like any other,
/// so that it is retried by the same rules.
fn single_section(receipts: Receipts) -> Result<(SectionReceipt, bool), Error> {
    let is_healthy = receipts.store_healthy;
    let mut sections = receipts.sections.into_iter();
    match (sections.next(), sections.next()) {
        (Some(SectionReceipt::Failed(failure)), None) => Err(failure.into()),
        (Some(section), None) => Ok((section, is_healthy)),
        _ => Err(Error::Protocol("not one receipt for one section".to_owned())),
    }
}
