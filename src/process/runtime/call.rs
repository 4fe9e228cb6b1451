//! What a guest is asked to do, in the caller's words.

/// One evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which function of the guest is called.
    pub kind: CallKind,
    /// The message of the slot; there is one if `kind` is [`CallKind::Handle`].
    pub message: Option<Message<'a>>,
    /// Class of the instance.
    pub class: &'a str,
    /// Key of the instance in its class.
    pub key: &'a str,
    /// The slot that is evaluated, from 0.
    pub slot: u64,
    /// The time of the slot in Unix milliseconds: when its message was appended, never later.
    pub now_ms: u64,
    /// What the guest's random numbers come from. The same for the same incarnation and slot.
    pub seed: u64,
    /// Version of the class.
    pub version: u32,
}

/// Which function of a guest is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// `init`: the instance was made. A guest without such a function does nothing.
    Init,
    /// `handle`: a message.
    Handle,
    /// `migrate`: the instance was at another version of its class so far. A guest without such a
    /// function does nothing.
    Migrate {
        /// The version that it was at.
        from_version: u32,
    },
}

/// A message with the envelope that the engine gave it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What was pushed: a JSON text if `is_json`, else any bytes.
    pub payload: &'a [u8],
    /// Whether the payload is JSON.
    pub is_json: bool,
    /// The message's id.
    pub id: &'a str,
    /// Its transaction id.
    pub transaction_id: &'a str,
    /// When it was appended, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// Who sent it: `client:…` or `process:class/key`. Set by the engine, so it can be trusted.
    pub from: &'a str,
    /// The slot of the sending process.
    pub from_slot: Option<u64>,
    /// Its place among what that slot sent, from 1.
    pub from_index: Option<u32>,
    /// The cascade it is part of.
    pub cascade: &'a str,
    /// The message that it was sent for.
    pub parent: Option<&'a str>,
    /// How many messages lead from the first one of the cascade to it.
    pub depth: u32,
    /// How many more may.
    pub hops_left: u32,
    /// The message that this one answers.
    pub in_reply_to: Option<&'a str>,
    /// Where an answer shall go.
    pub reply_to: Option<&'a str>,
}

impl Call<'static> {
    /// The call that a module finds in its context while it is checked.
    pub(super) fn check() -> Self {
        Self {
            kind: CallKind::Init,
            message: None,
            class: "check",
            key: "check",
            slot: 0,
            now_ms: 0,
            seed: 0,
            version: 0,
        }
    }
}
