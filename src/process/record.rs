//! What is kept of a slot once it was evaluated, and of an entry that was refused.
//!
//! JSON, because people read it; outputs stand in it as the guest wrote them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::process::call::Call;

/// How a slot ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotStatus {
    /// Its code returned.
    Ok,
    /// Its code failed: see the error. Nothing of it was kept.
    Failed,
    /// It was the definition of the instance.
    Created,
    /// Its cascade was called off before.
    Cancelled,
    /// Nobody wanted it any more.
    Expired,
    /// The class does not take messages from its sender.
    Refused,
    /// Somebody let it be passed over.
    Skipped,
    /// It took all state away: the process begins anew behind it.
    Reset,
}

impl SlotStatus {
    /// Whether the slot counts as an error of its cascade.
    #[must_use]
    pub fn is_error(self) -> bool {
        matches!(self, Self::Failed | Self::Expired | Self::Refused | Self::Skipped)
    }
}

/// A code and what it means here.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fault {
    /// The code.
    pub code: Box<str>,
    /// In words.
    pub message: Box<str>,
}

impl Fault {
    pub(super) fn new(code: &str, message: impl Into<Box<str>>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// What became of one entry of an outbox.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EntryRecord {
    /// Its place, from 1.
    pub index: u32,
    /// Where it was to go, as the guest wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<str>>,
    /// What became of it.
    pub status: EntryStatus,
    /// The process or queue that it went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Box<str>>,
    /// Why it did not go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
}

/// How an entry of an outbox ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryStatus {
    /// It is a message of another process.
    Sent,
    /// It is a message of a plain queue.
    Queued,
    /// It is an answer to whoever pushed.
    Replied,
    /// It comes later.
    Delayed,
    /// It waits for its target.
    Parked,
    /// A server elsewhere is asked; its answer comes later.
    Called,
    /// It was refused, and is kept where the policy says so.
    Refused,
}

/// One slot's record.
#[derive(Debug, Deserialize, Serialize)]
pub struct SlotRecord {
    /// How it ended.
    pub status: SlotStatus,
    /// The version of the class that evaluated it; 0 where none did.
    pub version: u32,
    /// Its message's id.
    pub message_id: Box<str>,
    /// Who sent it.
    pub from: Box<str>,
    /// The cascade that it is part of, by the id of its first message.
    pub cascade: Box<str>,
    /// The id of the message that it was sent for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<str>>,
    /// The trace that it is part of, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Box<str>>,
    /// How many messages lead to it.
    pub depth: u32,
    /// When it was pushed, unix milliseconds.
    pub pushed_ms: u64,
    /// When it was evaluated, unix milliseconds.
    pub evaluated_ms: u64,
    /// Microseconds that it took.
    pub took_us: u64,
    /// Steps that it took.
    pub fuel: u64,
    /// What its code returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<RawValue>>,
    /// Whether that is only a part of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_truncated: bool,
    /// What it printed.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub printed: Box<str>,
    /// Whether that is only a part of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub printed_truncated: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// What it sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<EntryRecord>,
}

/// A message that was refused, or waits for its target or its time: all that is needed to send it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Letter {
    /// Where it was to go; the answer, where it is a call.
    pub(super) target: Box<str>,
    /// The server that is asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) call: Option<Call>,
    /// Why it did not; empty for one that waits.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub(super) code: Box<str>,
    /// In words.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub(super) reason: Box<str>,
    /// The cascade.
    pub(super) cascade: Box<str>,
    /// Since when it waits, unix milliseconds.
    pub(super) since_ms: u64,
    /// Until when it may, unix milliseconds; 0 = for ever.
    #[serde(default)]
    pub(super) until_ms: u64,
    /// Its transaction id.
    pub(super) transaction_id: Box<str>,
    /// Its envelope.
    pub(super) envelope: Box<RawValue>,
    /// Its payload.
    pub(super) payload: Box<RawValue>,
    /// Whether that is a text that stands for bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) base64: bool,
    /// The trace that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<[u8; 16]>,
}
