//! What came of an evaluation.

use bytes::Bytes;

use super::StateFault;

/// What one evaluation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the guest made of the call, or why nothing.
    pub result: Result<Reply, GuestError>,
    /// What the guest printed, also when it failed; whole lines, each with its end.
    pub printed: String,
    /// Whether more was printed than may be.
    pub printed_truncated: bool,
    /// Steps that it took, in the unit of [`Limits::fuel`](super::Limits::fuel).
    pub fuel: u64,
}

/// What a guest that did not fail returned and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// What the guest returned, as a JSON text; `None` if it returned nothing.
    pub output: Option<Bytes>,
    /// Whether it returned more than may be: then the output is a JSON string with the beginning of
    /// the text that it would have been.
    pub output_truncated: bool,
    /// What it sent, in order.
    pub outbox: Vec<OutboxEntry>,
}

/// One message that a guest sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Where to, as the guest wrote it: `class/key`, `@name`, `queue:name[/partition]`, `$self`,
    /// `$sender`, `$reply`, `$timer`. `None` if it named none: a failure of this entry only.
    pub target: Option<String>,
    /// A JSON object: what the guest sent without the keys that are fields here.
    pub payload: Bytes,
    /// Deliver it this much later, in milliseconds.
    pub delay_ms: Option<u64>,
    /// Where an answer to it shall go.
    pub reply_to: Option<String>,
    /// Forget it if it was not delivered after so many milliseconds.
    pub ttl_ms: Option<u64>,
    /// What makes its transaction id, in place of its index.
    pub transaction_suffix: Option<String>,
    /// The entry makes the instance that it names, with this JSON object as its first state; it fails
    /// if there is one.
    pub spawn_init: Option<Bytes>,
}

/// Why a call came to nothing. Its state changes and its outbox are thrown away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The guest raised an error, or trapped.
    #[error("{message}")]
    Guest {
        /// What it said.
        message: String,
    },
    /// It took more steps than it may.
    #[error("took more than {limit} steps")]
    FuelExhausted {
        /// Steps that it may take.
        limit: u64,
    },
    /// It took longer than it may.
    #[error("took longer than {limit} ms")]
    TimeExceeded {
        /// Milliseconds that it may take.
        limit: u64,
    },
    /// It wanted more memory than it may have.
    #[error("wanted more than {limit} bytes of memory")]
    MemoryExceeded {
        /// Bytes that it may have.
        limit: usize,
    },
    /// It sent more than it may.
    #[error("sent more than {limit} {what}")]
    OutboxTooLarge {
        /// `messages` or `bytes`.
        what: &'static str,
        /// How many it may send.
        limit: usize,
    },
    /// It went beyond a limit of its state.
    #[error("{what}: at most {limit}")]
    StateLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// The module does not compile, or lacks what a module must have.
    #[error("not a module: {message}")]
    ModuleInvalid {
        /// What is wrong, with the line where there is one.
        message: String,
    },
    /// The state could not be read or written. Not the guest's doing: commit nothing and evaluate the
    /// slot again later.
    #[error("the state cannot be read: {reason}")]
    StateUnavailable {
        /// Why.
        reason: String,
    },
}

impl GuestError {
    /// The error's code, as results and dead letters carry it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Guest { .. } => "guest_error",
            Self::FuelExhausted { .. } => "fuel_exhausted",
            Self::TimeExceeded { .. } => "time_exceeded",
            Self::MemoryExceeded { .. } => "memory_exceeded",
            Self::OutboxTooLarge { .. } => "outbox_too_large",
            Self::StateLimit { .. } => "state_limit",
            Self::ModuleInvalid { .. } => "module_invalid",
            Self::StateUnavailable { .. } => "store_unavailable",
        }
    }

    /// Whether the slot must be evaluated again rather than recorded.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::StateUnavailable { .. })
    }
}

impl From<StateFault> for GuestError {
    fn from(fault: StateFault) -> Self {
        match fault {
            StateFault::Limit { what, limit } => Self::StateLimit { what, limit },
            StateFault::Unavailable(reason) => Self::StateUnavailable { reason },
        }
    }
}
