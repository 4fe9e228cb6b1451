//! What the room writes on a message: where it comes from, and how far its cascade may still go.
//!
//! It rides in a header of the record that only the room may write: admission refuses it from anybody
//! else, so nobody can say that he is a process. A message that a client pushed in the plain way has
//! none, and is the first of a cascade with the limits of its class.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::process::keys::Address;

/// The header's key.
pub(super) const HEADER: &str = crate::state::classes::OWN_HEADER;

/// See the module.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Envelope {
    /// How far the cascade may go, and what it was asked.
    #[serde(flatten)]
    pub(super) terms: Terms,
    /// Where it comes from, for all but the first message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<Origin>,
    /// Where an answer shall go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply_to: Option<Box<str>>,
    /// Until when it is worth anything, unix milliseconds; 0 = for ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) until_ms: u64,
    /// It makes the instance, with these state keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spawn: Option<Box<RawValue>>,
    /// Who pushed it, for a first message that is sent after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sub: Option<Box<str>>,
    /// The timer that sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timer: Option<Box<str>>,
    /// It is no message but the definition of an instance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) defines: bool,
    /// It is no message either: it takes all state of the instance away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) resets: bool,
    /// It is to be evaluated though its class is in manual mode.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) runs: bool,
}

/// How far a cascade may go: as the first message was told, and handed on.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Terms {
    /// Messages that may still follow one after the other; `None` = as the class says, for the first,
    /// and any number, for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<u32>,
    /// Messages of the whole cascade; 0 = as the class of the first says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub messages_max: u64,
    /// How deep whoever pushed wants messages of processes in manual mode to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
}

/// The entry of an outbox that a message was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Origin {
    /// The cascade's first message: partition, sequence, time.
    pub(super) root: (u32, u64, u64),
    /// The message that it was sent for, likewise.
    pub(super) parent: (u32, u64, u64),
    /// Its place in the outbox, from 1.
    pub(super) index: u32,
    /// The process that sent it, `class/key`.
    pub(super) from: Box<str>,
    /// How many messages lead to it.
    pub(super) depth: u32,
}

impl Origin {
    pub(super) fn root(&self) -> Address {
        address(self.root)
    }

    pub(super) fn parent(&self) -> Address {
        address(self.parent)
    }
}

/// An address as an envelope has it.
pub(super) fn triple(address: Address) -> (u32, u64, u64) {
    (address.partition, address.seq, address.time_ms)
}

fn address((partition, seq, time_ms): (u32, u64, u64)) -> Address {
    Address { partition, seq, time_ms }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Envelope {
    /// From a header's value; `None` where it is none, which nobody but the room could have written.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// As a header's value.
    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_comes_back() {
        let origin =
            Origin { root: (1, 2, 3), parent: (4, 5, 6), index: 7, from: "a/b".into(), depth: 8 };
        let terms = Terms { hops: Some(0), messages_max: 9, max_depth: None };
        let envelope = Envelope { terms, origin: Some(origin), until_ms: 5, ..Envelope::default() };
        let back = Envelope::read(&envelope.write()).unwrap();
        assert_eq!(back.terms, terms);
        let origin = back.origin.unwrap();
        assert_eq!((triple(origin.root()), triple(origin.parent())), ((1, 2, 3), (4, 5, 6)));
        assert_eq!((origin.index, &*origin.from, origin.depth, back.until_ms), (7, "a/b", 8, 5));
        assert!(Envelope::read(b"{").is_none());
    }
}
