//! Transactions: acks and pushes that stand or fall as a whole.
//!
//! In: messages that were received, and new ones for any queues. Out: [`Committed`], or an error after
//! which nothing of it was done, unless [`Error::outcome`] says that nobody knows. Called through
//! [`Client::transaction`].

use onrush_protocol::request::{
    AckItem, AckOutcome, PushSection, Transaction as Request_, TransactionAck,
};
use onrush_protocol::{BatchBuilder, BatchLimits, LongText, NO_LEASE, Request, Response};

use crate::client::{Client, Repeat};
use crate::connection::mismatch;
use crate::error::Error;
use crate::message::{AddError, Message};
use crate::push::{MessageReceipt, PushResult};
use crate::queue::Queue;
use crate::received::ReceivedMessage;

/// A transaction that was not sent yet: [`Self::commit`] it.
#[must_use = "nothing is sent until it is committed"]
pub struct Transaction {
    client: Client,
    acks: Vec<TransactionAck>,
    pushes: Vec<(Queue, Vec<Message>)>,
    fail_on_duplicate: bool,
}

/// A transaction that stands.
#[derive(Clone, Debug)]
pub struct Committed {
    /// How many messages were settled as completed.
    pub acked: u64,
    /// How many became dead letters.
    pub dead_lettered: u64,
    /// One for each message pushed, in the order of the calls.
    pub messages: Vec<MessageReceipt>,
}

impl Client {
    /// A transaction without anything in it.
    pub fn transaction(&self) -> Transaction {
        let (client, acks, pushes) = (self.clone(), Vec::new(), Vec::new());
        Transaction { client, acks, pushes, fail_on_duplicate: false }
    }
}

impl Transaction {
    /// Messages that were done. Each must still be held by the lease under which it came.
    pub fn ack<'a>(self, messages: impl IntoIterator<Item = &'a ReceivedMessage>) -> Self {
        self.settle(messages, AckOutcome::Completed, "")
    }

    /// Messages of which something else is to be said. `error` is cut at 4096 bytes.
    pub fn settle<'a>(
        mut self,
        messages: impl IntoIterator<Item = &'a ReceivedMessage>,
        outcome: AckOutcome,
        error: &str,
    ) -> Self {
        let error = LongText::lossy(error);
        for message in messages {
            let (partition, seq) = (message.partition(), message.seq);
            let item =
                AckItem { partition, first_seq: seq, last_seq: seq, outcome, error: error.clone() };
            let (group, lease) = (message.group().clone(), *message.lease());
            self.acks.push(TransactionAck { group, lease, item });
        }
        self
    }

    /// New messages for a partition of any queue.
    pub fn push(mut self, queue: &Queue, messages: impl IntoIterator<Item = Message>) -> Self {
        self.pushes.push((queue.clone(), messages.into_iter().collect()));
        self
    }

    /// One message that was pushed before is to refuse the whole. Else it is reported.
    pub fn fail_on_duplicate(mut self) -> Self {
        self.fail_on_duplicate = true;
        self
    }

    /// Sends it and waits until it is durable. With acks it is tried again where its answer was lost:
    /// what stands already is refused then with [`Code::AlreadySettled`](crate::Code::AlreadySettled)
    /// or [`Code::LeaseExpired`](crate::Code::LeaseExpired), and never done twice. Without acks it is
    /// sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason: nothing of it was done. Any other [`Error`] as for a push.
    pub async fn commit(self) -> Result<Committed, Error> {
        let limits = self.client.limits().await?;
        let Self { client, acks, pushes, fail_on_duplicate } = self;
        let mut sections = Vec::new();
        let mut members: Vec<std::ops::Range<usize>> = Vec::new();
        let mut all: Vec<Message> = Vec::new();
        for (queue, messages) in pushes {
            let target = queue.target()?;
            let mut left = messages.as_slice();
            while !left.is_empty() {
                let (batch, count) = pack(left, limits)?;
                let from = all.len() + messages.len() - left.len();
                members.push(from..from + count);
                let (queue, partition) = (target.queue.clone(), target.partition());
                sections.push(PushSection { queue, partition, batch });
                left = left.get(count..).unwrap_or_default();
            }
            all.extend(messages);
        }
        let has_leases = !acks.is_empty() && acks.iter().all(|ack| ack.lease != NO_LEASE);
        let repeat = if has_leases { Repeat::Safe } else { Repeat::Unsafe };
        let leases = Vec::new();
        let request = Request_ { fail_on_duplicate, leases, acks, sections };
        let answer = match client.request(repeat, &Request::Transaction(request)).await? {
            Response::Committed(committed) => committed,
            other => return Err(mismatch("transaction", &other)),
        };
        let mut result = PushResult::unsent(&all);
        if answer.sections.len() != members.len() {
            return Err(Error::Protocol("not one receipt for each section".to_owned()));
        }
        for (members, receipt) in members.into_iter().zip(answer.sections) {
            result.place(&members.collect::<Vec<_>>(), receipt)?;
        }
        let sum = |of: fn(&onrush_protocol::response::AckedItem) -> u32| -> u64 {
            answer.acks.iter().map(|item| u64::from(of(item))).sum()
        };
        Ok(Committed {
            acked: sum(|item| item.acked),
            dead_lettered: sum(|item| item.dead_lettered),
            messages: result.messages,
        })
    }
}

/// The first messages as one batch, and how many they are: at least one.
fn pack(messages: &[Message], limits: BatchLimits) -> Result<(bytes::Bytes, usize), Error> {
    let mut builder = BatchBuilder::with_limits(limits);
    let mut count = 0;
    for message in messages {
        match message.add_to(&mut builder) {
            Ok(()) => count += 1,
            Err(AddError::BatchFull) => break,
            Err(AddError::Message(error)) => return Err(error),
        }
    }
    let batch = builder.finish().ok_or(Error::HeldBack)?;
    Ok((batch.bytes().clone(), count))
}
