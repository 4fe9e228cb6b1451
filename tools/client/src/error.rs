//! What can go wrong between a caller and a server, and whether trying again can help.
//!
//! In: refusals of a server, faults of the connection, mistakes of the caller. Out: [`Error`],
//! which says for itself whether the same request may be sent again ([`Error::is_retryable`]) and
//! what the world looks like now ([`Error::outcome`]). Named by every file of this crate.

use std::time::Duration;

use onrush_protocol::response::Failure;
use onrush_protocol::{BatchError, Code, DecodeError, NameError, Outcome};

use crate::ack::AckReport;

/// Why something was not done, or is not known to have been done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made; nothing was sent.
    #[error("cannot connect to {addr}: {reason}")]
    Connect {
        /// Where to.
        addr: String,
        /// What the system or the server said.
        reason: String,
    },
    /// The connection ended before the answer came.
    #[error("the connection ended: {reason}")]
    Disconnected {
        /// What the system said.
        reason: String,
        /// Whether the request may have reached the server.
        sent: bool,
    },
    /// The answer did not come in time.
    #[error("no answer within {} ms", waited.as_millis())]
    TimedOut {
        /// How long the caller was willing to wait.
        waited: Duration,
        /// Whether the request may have reached the server.
        sent: bool,
    },
    /// The server said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many failures in a row: nothing is sent until the breaker lets a probe through.
    #[error("the circuit breaker is open for another {} ms", retry_in.as_millis())]
    CircuitOpen {
        /// When a probe may go out.
        retry_in: Duration,
    },
    /// A name that no queue, partition or group may have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A message that no batch takes.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A value outside its limits, refused before anything was sent.
    #[error("{field} is {value}; {min} to {max} are allowed")]
    Value {
        /// The field.
        field: &'static str,
        /// What it was.
        value: u64,
        /// Lowest value allowed.
        min: u64,
        /// Highest value allowed.
        max: u64,
    },
    /// A payload that serde could not write or read as JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// The server's answer does not fit the question; the client and the server disagree.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),
    /// Some items of an ack were refused; the others were done.
    #[error("{0}")]
    Ack(Box<AckReport>),
    /// A part of a push before this message failed. This message was held back, so that it does
    /// not overtake the ones before it.
    #[error("not sent: messages before it in the same push failed")]
    HeldBack,
}

/// A server's refusal, as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", self.name(), self.blame())]
pub struct Refusal {
    /// The number of a [`Code`], maybe one that only a newer server knows.
    pub number: u16,
    /// How long to wait before trying again; `None` without advice.
    pub retry_after: Option<Duration>,
    /// The field that was refused; empty when none is to blame.
    pub field: String,
    /// The limit that was broken; 0 when none was.
    pub limit: u64,
    /// What happened, for people.
    pub message: String,
}

impl Refusal {
    /// The code, if this version knows its number.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        Code::from_number(self.number)
    }

    /// A refusal of one item that came as a number only.
    pub(crate) fn bare(number: u16) -> Self {
        let retry_after = None;
        let (field, message) = (String::new(), String::from("refused"));
        Self { number, retry_after, field, limit: 0, message }
    }

    fn name(&self) -> String {
        self.code().map_or_else(|| format!("code {}", self.number), |code| code.name().to_owned())
    }

    fn blame(&self) -> String {
        match (self.field.as_str(), self.limit) {
            ("", _) => String::new(),
            (field, 0) => format!(" ({field})"),
            (field, limit) => format!(" ({field}, limit {limit})"),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let after = failure.retry_after_ms;
        Self {
            number: failure.code,
            retry_after: (after > 0).then(|| Duration::from_millis(u64::from(after))),
            field: failure.field.as_str().to_owned(),
            limit: failure.limit,
            message: failure.message.as_str().to_owned(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure.into())
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl Error {
    /// Whether the same request may be sent again, unchanged, with hope. Where [`Self::outcome`]
    /// is [`Outcome::Unknown`], sending again may do it twice; the client does so by itself only
    /// when transaction ids make it safe.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::CircuitOpen { .. }
            | Self::HeldBack => true,
            Self::Refused(refusal) => refusal.code().is_some_and(Code::is_retryable),
            Self::Ack(report) => report.is_retryable(),
            Self::Name(_)
            | Self::Batch(_)
            | Self::Value { .. }
            | Self::Json(_)
            | Self::Protocol(_) => false,
        }
    }

    /// What the world looks like after this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let unknown = match self {
            Self::Disconnected { sent, .. } | Self::TimedOut { sent, .. } => *sent,
            // A number that we do not know promises nothing.
            Self::Refused(refusal) => {
                refusal.code().is_none_or(|code| code.outcome() == Outcome::Unknown)
            }
            Self::Protocol(_) | Self::Ack(_) => true,
            _ => false,
        };
        if unknown { Outcome::Unknown } else { Outcome::NotApplied }
    }

    /// The server's code, when it was the server that said no.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => refusal.code(),
            _ => None,
        }
    }

    /// Whether it speaks against the server's health: what the circuit breaker counts. Refusals
    /// of one's own mistakes do not, nor does a server that is busy and says so.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Disconnected { .. } | Self::TimedOut { .. } => true,
            Self::Refused(refusal) => refusal.number >= 500,
            _ => false,
        }
    }

    /// When the server would like to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::CircuitOpen { retry_in } => Some(*retry_in),
            _ => None,
        }
    }
}
