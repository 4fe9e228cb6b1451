//! What a server may answer: the closed list of responses.
//!
//! In: a frame's opcode and body. Out: a [`Response`], or a [`DecodeError`]. Each response has a
//! file with its byte table. Called by the server's dispatch to encode and by clients to decode.

mod acked;
mod committed;
mod configured;
mod deleted;
mod extended;
mod failure;
mod group_deleted;
mod group_partitions;
mod groups;
mod messages;
mod messages_writer;
mod pong;
mod receipts;
mod sought;
mod stats;
mod subscribed;
mod welcome;

use bytes::{Bytes, BytesMut};

pub use acked::{Acked, AckedItem};
pub use committed::Committed;
pub use configured::Configured;
pub use deleted::Deleted;
pub use extended::Extended;
pub use failure::Failure;
pub use group_deleted::GroupDeleted;
pub use group_partitions::{GroupPartitions, PartitionStanding};
pub use groups::{GroupStanding, Groups};
pub use messages::{Attempts, Chunk, Messages, MessagesSection};
pub use messages_writer::{MessagesWriter, SectionWriter};
pub use pong::Pong;
pub use receipts::{PushOutcome, PushStatus, Receipts, SectionReceipt};
pub use sought::Sought;
pub use stats::{Stats, StatsEntry};
pub use subscribed::Subscribed;
pub use welcome::Welcome;

use crate::decode_error::DecodeError;
use crate::frame;
use crate::opcode::Opcode;

/// One answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant holds the struct of its name, documented there")]
pub enum Response {
    Welcome(Welcome),
    Pong(Pong),
    Receipts(Receipts),
    Messages(Messages),
    Acked(Acked),
    Extended(Extended),
    Configured(Configured),
    Deleted(Deleted),
    Stats(Stats),
    Sought(Sought),
    GroupDeleted(GroupDeleted),
    Groups(Groups),
    GroupPartitions(GroupPartitions),
    Subscribed(Subscribed),
    Committed(Committed),
    Failure(Failure),
}

impl Response {
    /// Reads the body of a frame. Names, texts and batches share the body's memory.
    ///
    /// # Errors
    /// [`DecodeError::Opcode`] when no response has this opcode, else what is wrong with the
    /// body.
    pub fn decode(opcode: u8, body: Bytes) -> Result<Self, DecodeError> {
        match Opcode::from_number(opcode) {
            Some(Opcode::Welcome) => Welcome::decode(body).map(Self::Welcome),
            Some(Opcode::Pong) => Pong::decode(body).map(Self::Pong),
            Some(Opcode::Receipts) => Receipts::decode(body).map(Self::Receipts),
            Some(Opcode::Messages) => Messages::decode(body).map(Self::Messages),
            Some(Opcode::Acked) => Acked::decode(body).map(Self::Acked),
            Some(Opcode::Extended) => Extended::decode(body).map(Self::Extended),
            Some(Opcode::Configured) => Configured::decode(body).map(Self::Configured),
            Some(Opcode::Deleted) => Deleted::decode(body).map(Self::Deleted),
            Some(Opcode::StatsAnswer) => Stats::decode(body).map(Self::Stats),
            Some(Opcode::Sought) => Sought::decode(body).map(Self::Sought),
            Some(Opcode::GroupDeleted) => GroupDeleted::decode(body).map(Self::GroupDeleted),
            Some(Opcode::Groups) => Groups::decode(body).map(Self::Groups),
            Some(Opcode::GroupPartitions) => {
                GroupPartitions::decode(body).map(Self::GroupPartitions)
            }
            Some(Opcode::Subscribed) => Subscribed::decode(body).map(Self::Subscribed),
            Some(Opcode::Committed) => Committed::decode(body).map(Self::Committed),
            Some(Opcode::Failure) => Failure::decode(body).map(Self::Failure),
            _ => Err(DecodeError::Opcode(opcode)),
        }
    }

    /// The response's opcode.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Welcome(_) => Opcode::Welcome,
            Self::Pong(_) => Opcode::Pong,
            Self::Receipts(_) => Opcode::Receipts,
            Self::Messages(_) => Opcode::Messages,
            Self::Acked(_) => Opcode::Acked,
            Self::Extended(_) => Opcode::Extended,
            Self::Configured(_) => Opcode::Configured,
            Self::Deleted(_) => Opcode::Deleted,
            Self::Stats(_) => Opcode::StatsAnswer,
            Self::Sought(_) => Opcode::Sought,
            Self::GroupDeleted(_) => Opcode::GroupDeleted,
            Self::Groups(_) => Opcode::Groups,
            Self::GroupPartitions(_) => Opcode::GroupPartitions,
            Self::Subscribed(_) => Opcode::Subscribed,
            Self::Committed(_) => Opcode::Committed,
            Self::Failure(_) => Opcode::Failure,
        }
    }

    /// Appends the body.
    ///
    /// # Panics
    /// When a list is longer than its count field can say; see the response's own `encode`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Welcome(response) => response.encode(out),
            Self::Pong(response) => response.encode(out),
            Self::Receipts(response) => response.encode(out),
            Self::Messages(response) => response.encode(out),
            Self::Acked(response) => response.encode(out),
            Self::Extended(response) => response.encode(out),
            Self::Configured(response) => response.encode(out),
            Self::Deleted(response) => response.encode(out),
            Self::Stats(response) => response.encode(out),
            Self::Sought(response) => response.encode(out),
            Self::GroupDeleted(response) => response.encode(out),
            Self::Groups(response) => response.encode(out),
            Self::GroupPartitions(response) => response.encode(out),
            Self::Subscribed(response) => response.encode(out),
            Self::Committed(response) => response.encode(out),
            Self::Failure(response) => response.encode(out),
        }
    }

    /// Appends the whole frame.
    ///
    /// # Panics
    /// As [`Self::encode`].
    pub fn encode_frame(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(self.opcode().number(), request_id, out, |body| self.encode(body));
    }
}
