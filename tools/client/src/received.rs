//! Messages as they come out.
//!
//! In: the answer to a pop. Out: [`ReceivedMessage`]s whose payloads share the memory of the
//! frame they came in. Called by `pop`; read by users.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::response::{KnownMessages, MessagesSection};
use onrush_protocol::{
    BatchLimits, GroupName, LeaseToken, LongText, MessageId, NO_LEASE, PartitionName, QueueName,
    RecordBatch,
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::Error;
use crate::message::TRACEPARENT;

/// The answer to a pop.
#[derive(Clone, Debug)]
pub struct Popped {
    /// By partition, and in order within each; empty when there was nothing in time.
    pub messages: Vec<ReceivedMessage>,
    /// The lease that holds all of them; [`NO_LEASE`] when none does.
    pub lease: LeaseToken,
    /// When the lease ends, in milliseconds since 1970 by the server's clock.
    pub lease_until_ms: u64,
}

/// One message. Cheap to clone but for its headers. It keeps the frame it came in alive.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    /// Its id, which is its address.
    pub id: MessageId,
    /// Its place in the partition.
    pub seq: u64,
    /// When it was stored, in milliseconds since 1970 by the server's clock.
    pub time_ms: u64,
    /// How often it was handed out before and not completed.
    pub attempts: u32,
    /// The trace that it belongs to.
    pub trace_id: Option<Uuid>,
    /// Key and value pairs, as the producer gave them.
    pub headers: Vec<(String, Bytes)>,
    /// Whether the payload is JSON.
    pub is_json: bool,
    transaction_id: Option<Bytes>,
    payload: Bytes,
    producer: Option<LongText>,
    delivery: Arc<Delivery>,
}

/// What all messages of one partition in one answer have in common.
#[derive(Debug)]
struct Delivery {
    queue: QueueName,
    partition: u32,
    partition_name: PartitionName,
    group: GroupName,
    lease: LeaseToken,
    lease_until_ms: u64,
}

impl Popped {
    /// Whether there was nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn read(answer: KnownMessages, group: GroupName) -> Result<Self, Error> {
        let KnownMessages { messages: answer, producers } = answer;
        let (lease, lease_until_ms) = (answer.lease, answer.lease_until_ms);
        let (mut messages, mut producers) = (Vec::new(), producers.into_iter());
        for section in answer.sections {
            let delivery = Arc::new(Delivery {
                queue: section.queue.clone(),
                partition: section.partition,
                partition_name: section.partition_name.clone(),
                group: group.clone(),
                lease,
                lease_until_ms,
            });
            read_section(&section, &mut producers, &delivery, &mut messages)?;
        }
        Ok(Self { messages, lease, lease_until_ms })
    }
}

/// Batches come from the server's disk by way of a network: they are checked again here.
fn read_section(
    section: &MessagesSection,
    producers: &mut impl Iterator<Item = LongText>,
    delivery: &Arc<Delivery>,
    out: &mut Vec<ReceivedMessage>,
) -> Result<(), Error> {
    let limits = BatchLimits {
        // What a server has stored it may hand out, whatever its limits for pushing are now.
        batch_bytes_max: usize::MAX,
        message_bytes_max: usize::MAX,
        ..BatchLimits::default()
    };
    let mut attempts = section.attempts.iter().peekable();
    for chunk in &section.chunks {
        let producer = producers.next().filter(|it| !it.as_str().is_empty());
        let batch = RecordBatch::parse(chunk.batch.clone(), &limits)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        for (index, record) in batch.records().enumerate() {
            let seq = chunk.first_seq.saturating_add(index as u64);
            while attempts.next_if(|entry| entry.seq < seq).is_some() {}
            let tried = attempts.next_if(|entry| entry.seq == seq);
            let id = MessageId::new(chunk.time_ms, section.partition, seq)
                .map_err(|error| Error::Protocol(error.to_string()))?;
            let share = |part: &[u8]| batch.bytes().slice_ref(part);
            out.push(ReceivedMessage {
                id,
                seq,
                time_ms: chunk.time_ms,
                attempts: tried.map_or(0, |entry| entry.attempts),
                trace_id: record.trace_id.map(Uuid::from_bytes),
                headers: record
                    .headers
                    .map(|(key, value)| (key.to_owned(), share(value)))
                    .collect(),
                is_json: record.is_json,
                transaction_id: record.transaction_id.map(|id| share(id.as_bytes())),
                payload: share(record.payload),
                producer: producer.clone(),
                delivery: Arc::clone(delivery),
            });
        }
    }
    Ok(())
}

impl ReceivedMessage {
    /// The payload's bytes, sharing the memory of the frame.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.payload
    }

    /// The payload read as JSON.
    ///
    /// # Errors
    /// [`Error::Json`] when it is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.payload).map_err(|error| Error::Json(error.to_string()))
    }

    /// The producer's id for the message, or else the text of its own id.
    #[must_use]
    pub fn transaction_id(&self) -> Cow<'_, str> {
        match self.transaction_id.as_deref().map(std::str::from_utf8) {
            Some(Ok(given)) => Cow::Borrowed(given),
            _ => Cow::Owned(self.id.to_string()),
        }
    }

    /// Who pushed it: the name of the token that it came with, as the server knows it and not as the producer
    /// says. `None` where nobody is known, and of servers that are older than this.
    #[must_use]
    pub fn producer(&self) -> Option<&str> {
        self.producer.as_ref().map(LongText::as_str)
    }

    /// The value of the first header with this key.
    #[must_use]
    pub fn header(&self, key: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(found, _)| found == key).map(|(_, value)| value)
    }

    /// The W3C trace context that it is a part of, where it was pushed with one that is text.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        std::str::from_utf8(self.header(TRACEPARENT)?).ok()
    }

    /// The queue that it was in.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.delivery.queue
    }

    /// Its partition's number.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.delivery.partition
    }

    /// Its partition's name.
    #[must_use]
    pub fn partition_name(&self) -> &PartitionName {
        &self.delivery.partition_name
    }

    /// The group on whose behalf it was popped.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.delivery.group
    }

    /// The lease that holds it.
    #[must_use]
    pub fn lease(&self) -> &LeaseToken {
        &self.delivery.lease
    }

    /// Whether a lease holds it; not when it was popped with `auto_ack`.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.delivery.lease != NO_LEASE
    }

    /// When its lease ends, in milliseconds since 1970 by the server's clock.
    #[must_use]
    pub fn lease_until_ms(&self) -> u64 {
        self.delivery.lease_until_ms
    }
}

impl<'a> IntoIterator for &'a Popped {
    type Item = &'a ReceivedMessage;
    type IntoIter = std::slice::Iter<'a, ReceivedMessage>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.iter()
    }
}

impl IntoIterator for Popped {
    type Item = ReceivedMessage;
    type IntoIter = std::vec::IntoIter<ReceivedMessage>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.into_iter()
    }
}

impl<'a> IntoIterator for &'a ReceivedMessage {
    type Item = &'a ReceivedMessage;
    type IntoIter = std::iter::Once<&'a ReceivedMessage>;

    /// Itself alone, so that one message can be acknowledged like many.
    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}
