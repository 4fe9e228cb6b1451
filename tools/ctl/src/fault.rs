//! What can go wrong, the exit code of each kind, and what to do next.
//!
//! In: errors of the client, of HTTP, of files and of the command line. Out: [`Fault`], which prints
//! itself on standard error in one line and perhaps a hint. The one place where errors become exit
//! codes. Named by every file of this crate.

use std::path::Path;

use onrush_client::Error;
use onrush_protocol::{Code, Outcome};
use serde::Deserialize;

/// Exit codes, as `onrushctl --help` and the documentation list them.
const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const NOT_ALLOWED: u8 = 4;
const NOTHING: u8 = 5;
const INTERRUPTED: u8 = 130;

/// Why a command did not do all that it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The command line or the input is wrong, or nobody said yes; nothing more was sent.
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// The server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// A part was not done; what it is was told already, or is told here.
    #[error("{0}")]
    Incomplete(String),
    /// Nobody answers.
    #[error("cannot reach {place}: {reason}")]
    Unreachable { place: String, reason: String, hint: String },
    /// The answer did not come, so nobody knows whether it was done.
    #[error("no answer from {place}: {reason}; it may have been done all the same")]
    Unanswered { place: String, reason: String },
    /// An answer that makes no sense.
    #[error("{place} does not answer like an Onrush server: {reason}")]
    Foreign { place: String, reason: String },
    /// There was nothing to be had. Said by the exit code alone.
    #[error("nothing there")]
    Nothing,
    /// Somebody pressed Ctrl-C.
    #[error("{0}")]
    Interrupted(String),
    /// A file that could not be read or written.
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    /// Something that this machine did not do.
    #[error("{what}: {reason}")]
    Machine { what: String, reason: String },
    /// Standard output does not take more; where its reader has gone that is no fault.
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

/// What a server said no with.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    #[serde(rename = "error")]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) retryable: bool,
    /// The limit that was broken.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { message, code, limit, .. } = self;
        f.write_str(message)?;
        match (code.as_str(), limit) {
            ("", None) => Ok(()),
            ("", Some(limit)) => write!(f, " (limit {limit})"),
            (code, None) => write!(f, " ({code})"),
            (code, Some(limit)) => write!(f, " ({code}, limit {limit})"),
        }
    }
}

impl Fault {
    /// A command line that cannot be meant.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// The same, and what to do next.
    pub(crate) fn usage_with(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// A file that could not be read or written.
    pub(crate) fn file(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.to_string() }
    }

    /// What went wrong over the binary protocol.
    pub(crate) fn of_client(error: &Error, place: &str) -> Self {
        let (place, reason) = (place.to_owned(), error.to_string());
        match error {
            Error::Refused(refusal) => Self::Refused(Refusal {
                message: refusal.message.clone(),
                code: refusal
                    .code()
                    .map_or_else(|| refusal.number.to_string(), |code| code.name().to_owned()),
                retryable: refusal.code().is_some_and(Code::is_retryable),
                limit: (refusal.limit > 0).then_some(refusal.limit),
            }),
            Error::Connect { reason, .. } => {
                Self::Unreachable { place, reason: reason.clone(), hint: BINARY_HINT.to_owned() }
            }
            Error::Disconnected { .. } | Error::TimedOut { .. } | Error::CircuitOpen { .. } => {
                match error.outcome() {
                    Outcome::Unknown => Self::Unanswered { place, reason },
                    Outcome::NotApplied => {
                        Self::Unreachable { place, reason, hint: BINARY_HINT.to_owned() }
                    }
                }
            }
            Error::Protocol(_) => Self::Foreign { place, reason },
            Error::Ack(_) | Error::HeldBack => Self::Incomplete(reason),
            // Names, values and payloads that were refused before anything was sent.
            _ => Self::usage(reason),
        }
    }

    /// The code that the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::File { .. } => USAGE,
            Self::Refused(refusal) if is_about_tokens(&refusal.code) => NOT_ALLOWED,
            Self::Refused(_) | Self::Incomplete(_) | Self::Machine { .. } => REFUSED,
            Self::Unreachable { .. } | Self::Unanswered { .. } | Self::Foreign { .. } => {
                UNREACHABLE
            }
            Self::Nothing => NOTHING,
            Self::Interrupted(_) => INTERRUPTED,
            // Like every program in a pipe whose reader has had enough.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => REFUSED,
        }
    }

    /// What to do next, where there is something to be said.
    fn hint(&self) -> Option<String> {
        let words = match self {
            Self::Usage { hint, .. } => return hint.clone(),
            Self::Unreachable { hint, .. } => hint,
            Self::Unanswered { .. } => "look before you do it again",
            Self::Foreign { .. } => {
                "`onrushctl context list` shows the addresses in use; --server is the HTTP port, --tcp the binary one"
            }
            Self::Refused(refusal) => return hint_for(refusal),
            _ => return None,
        };
        Some(words.to_owned())
    }

    /// Says it on standard error. A reader that went away is not told, and neither is who only looked
    /// for something that was not there.
    pub(crate) fn tell(&self) {
        if matches!(self, Self::Nothing) || self.exit_code() == 0 {
            return;
        }
        eprintln!("onrushctl: {self}");
        if let Some(hint) = self.hint() {
            eprintln!("  hint: {hint}");
        }
    }
}

const BINARY_HINT: &str = "the binary port is at port 6631 of the server's host unless --tcp or the context says something else";

fn is_about_tokens(code: &str) -> bool {
    code == Code::Unauthenticated.name() || code == Code::Forbidden.name()
}

fn hint_for(refusal: &Refusal) -> Option<String> {
    let known = match refusal.code.as_str() {
        "unauthenticated" => {
            "give a token with --token, ONRUSH_TOKEN or `onrushctl context add`; `onrush token new` makes one"
        }
        "forbidden" => "a token with a stronger role is needed: read-only, read-write or admin",
        "queue_not_found" | "queue_deleted" => "`onrushctl queues list` shows the queues there are",
        "group_not_found" => "`onrushctl groups list` shows the groups there are",
        "partition_not_found" => "`onrushctl queues show QUEUE` lists its partitions",
        "message_not_found" => "`onrushctl messages list` shows messages with their ids",
        "job_not_found" => "`onrushctl dlq jobs list` shows the jobs there are",
        "lease_expired" | "lease_not_found" => "its lease has ended: pop the message again",
        "queue_full" => {
            "acknowledge messages, delete groups that nobody reads for, or raise --max-size"
        }
        _ if refusal.retryable => "try again",
        _ => return None,
    };
    Some(known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, retryable: bool) -> Fault {
        let (message, code) = ("no".to_owned(), code.to_owned());
        Fault::Refused(Refusal { message, code, retryable, limit: Some(7) })
    }

    #[test]
    fn every_kind_has_its_exit_code() {
        let nowhere =
            || Fault::Unreachable { place: "x".into(), reason: "y".into(), hint: "z".into() };
        assert_eq!(refused("queue_not_found", false).exit_code(), 1);
        assert_eq!(refused("unauthenticated", false).exit_code(), 4);
        assert_eq!(refused("forbidden", false).exit_code(), 4);
        assert_eq!(Fault::usage("x").exit_code(), 2);
        assert_eq!(nowhere().exit_code(), 3);
        assert_eq!(Fault::Nothing.exit_code(), 5);
        assert_eq!(Fault::Interrupted(String::new()).exit_code(), 130);
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Fault::Output(gone).exit_code(), 0);
    }

    #[test]
    fn a_refusal_says_its_limit_and_what_to_do_next() {
        assert_eq!(refused("queue_full", true).to_string(), "no (queue_full, limit 7)");
        assert!(refused("queue_full", true).hint().unwrap().contains("--max-size"));
        assert_eq!(refused("busy", true).hint().as_deref(), Some("try again"));
        assert_eq!(refused("bad_value", false).hint(), None);
    }

    #[test]
    fn what_may_have_been_done_is_not_called_unreachable() {
        let lost = Error::Disconnected { reason: "gone".to_owned(), sent: true };
        assert!(matches!(Fault::of_client(&lost, "x"), Fault::Unanswered { .. }));
        let lost = Error::Disconnected { reason: "gone".to_owned(), sent: false };
        assert!(matches!(Fault::of_client(&lost, "x"), Fault::Unreachable { .. }));
    }
}
