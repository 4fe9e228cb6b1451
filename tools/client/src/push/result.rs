//! What became of each message of a push.
//!
//! In: the server's receipts, batch by batch. Out: one [`MessageReceipt`] for each message, in
//! their order. Called by `push` and the client-side buffer; read by users.

use onrush_protocol::MessageId;
use onrush_protocol::response::{PushStatus, SectionReceipt};
use uuid::Uuid;

use crate::error::Error;
use crate::message::Message;

/// The answer to a push.
#[derive(Clone, Debug)]
pub struct PushResult {
    /// One for each message, in their order.
    pub messages: Vec<MessageReceipt>,
    /// Whether the server could reach its store. When not, what it took waits on its disk.
    pub store_healthy: bool,
}

/// What became of one message.
#[derive(Clone, Debug)]
pub struct MessageReceipt {
    /// Stored, there before, waiting in the server's memory, or not taken.
    pub status: MessageStatus,
    /// The message's id; the earlier one's for a duplicate, none while it has no place yet.
    pub message_id: Option<MessageId>,
    /// The id that the producer gave, or else the text of the message's id.
    pub transaction_id: Option<String>,
    /// The trace that the message belongs to.
    pub trace_id: Option<Uuid>,
    /// The partition's number.
    pub partition: Option<u32>,
    /// Its place in the partition.
    pub seq: Option<u64>,
}

/// What became of one message, in a word.
#[derive(Clone, Debug)]
pub enum MessageStatus {
    /// Stored, as the promise says.
    Pushed,
    /// A message with its transaction id had been stored before.
    Duplicate,
    /// In the server's memory; written soon.
    Buffered,
    /// Not taken, or nobody knows: see [`Error::outcome`].
    Failed(Error),
}

impl MessageReceipt {
    /// Why it failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match &self.status {
            MessageStatus::Failed(error) => Some(error),
            _ => None,
        }
    }

    fn settle(&mut self, status: MessageStatus, place: Option<(u32, u64, u64)>) {
        self.status = status;
        let Some((partition, seq, time_ms)) = place else { return };
        self.partition = Some(partition);
        self.seq = Some(seq);
        self.message_id = MessageId::new(time_ms, partition, seq).ok();
        if self.transaction_id.is_none() {
            self.transaction_id = self.message_id.map(|id| id.to_string());
        }
    }
}

impl PushResult {
    /// All messages as not sent yet.
    pub(crate) fn unsent(messages: &[Message]) -> Self {
        let receipt = |message: &Message| MessageReceipt {
            status: MessageStatus::Failed(Error::HeldBack),
            message_id: None,
            transaction_id: message.transaction_id_text().map(str::to_owned),
            trace_id: message.trace(),
            partition: None,
            seq: None,
        };
        Self { messages: messages.iter().map(receipt).collect(), store_healthy: true }
    }

    /// How many messages the server has now: pushed, buffered or there before.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.messages.iter().filter(|receipt| receipt.error().is_none()).count()
    }

    /// Whether the server has every message now.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.error().is_none()
    }

    /// The first error, if a message failed.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.messages.iter().find_map(MessageReceipt::error)
    }

    pub(crate) fn fail(&mut self, members: impl IntoIterator<Item = usize>, error: &Error) {
        for at in members {
            if let Some(receipt) = self.messages.get_mut(at) {
                receipt.status = MessageStatus::Failed(error.clone());
            }
        }
    }

    /// Spreads a section's receipt over the messages that were in it.
    pub(crate) fn place(
        &mut self,
        members: &[usize],
        receipt: SectionReceipt,
    ) -> Result<(), Error> {
        let answered = match &receipt {
            SectionReceipt::Pushed { count, .. } | SectionReceipt::Buffered { count } => {
                *count as usize
            }
            SectionReceipt::Mixed { outcomes, .. } => outcomes.len(),
            SectionReceipt::Failed(failure) => return Err(failure.clone().into()),
        };
        if answered != members.len() {
            let sent = members.len();
            return Err(Error::Protocol(format!("{answered} receipts for {sent} messages")));
        }
        for (index, &at) in members.iter().enumerate() {
            let Some(message) = self.messages.get_mut(at) else { continue };
            match &receipt {
                SectionReceipt::Pushed { partition, first_seq, time_ms, .. } => {
                    let seq = first_seq.saturating_add(index as u64);
                    message.settle(MessageStatus::Pushed, Some((*partition, seq, *time_ms)));
                }
                SectionReceipt::Mixed { partition, outcomes } => {
                    let Some(outcome) = outcomes.get(index) else { continue };
                    let status = match outcome.status {
                        PushStatus::Pushed => MessageStatus::Pushed,
                        PushStatus::Duplicate => MessageStatus::Duplicate,
                    };
                    message.settle(status, Some((*partition, outcome.seq, outcome.time_ms)));
                }
                SectionReceipt::Buffered { .. } => message.settle(MessageStatus::Buffered, None),
                SectionReceipt::Failed(_) => {}
            }
        }
        Ok(())
    }
}
