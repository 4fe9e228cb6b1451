//! What a client may ask: the closed list of requests.
//!
//! In: a frame's opcode and body. Out: a [`Request`], or a [`DecodeError`] after which the
//! connection goes on. Each request has a file with its byte table. Called by the server's
//! dispatch to decode and by clients to encode.

mod ack;
mod configure;
mod delete_group;
mod delete_queue;
mod extend;
mod group_lag;
mod hello;
mod list_groups;
mod ping;
mod pop;
pub mod push;
mod scope;
mod seek;
mod stats;
mod subscribe;
mod transaction;

use bytes::{Bytes, BytesMut};

pub use ack::{Ack, AckItem, AckOutcome};
pub use configure::Configure;
pub use delete_group::DeleteGroup;
pub use delete_queue::DeleteQueue;
pub use extend::Extend;
pub use group_lag::GroupLag;
pub use hello::{Hello, Token};
pub use list_groups::ListGroups;
pub use ping::Ping;
pub use pop::{Pop, SubscriptionStart};
pub use push::{Push, PushSection, PushSections, PushTerms};
pub use seek::{Seek, SeekTo};
pub use stats::Stats;
pub use subscribe::Subscribe;
pub use transaction::{Transaction, TransactionAck};

use crate::decode_error::DecodeError;
use crate::frame;
use crate::opcode::Opcode;

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant holds the struct of its name, documented there")]
pub enum Request {
    Hello(Hello),
    Ping(Ping),
    Push(Push),
    Pop(Pop),
    Ack(Ack),
    Extend(Extend),
    Configure(Configure),
    DeleteQueue(DeleteQueue),
    Stats(Stats),
    Seek(Seek),
    DeleteGroup(DeleteGroup),
    ListGroups(ListGroups),
    GroupLag(GroupLag),
    Subscribe(Subscribe),
    Transaction(Transaction),
}

impl Request {
    /// Reads the body of a frame. Names, texts and batches share the body's memory.
    ///
    /// # Errors
    /// [`DecodeError::Opcode`] when no request has this opcode, else what is wrong with the body.
    pub fn decode(opcode: u8, body: Bytes) -> Result<Self, DecodeError> {
        match Opcode::from_number(opcode) {
            Some(Opcode::Hello) => Hello::decode(body).map(Self::Hello),
            Some(Opcode::Ping) => Ping::decode(body).map(Self::Ping),
            Some(Opcode::Push) => Push::decode(body).map(Self::Push),
            Some(Opcode::Pop) => Pop::decode(body).map(Self::Pop),
            Some(Opcode::Ack) => Ack::decode(body).map(Self::Ack),
            Some(Opcode::Extend) => Extend::decode(body).map(Self::Extend),
            Some(Opcode::Configure) => Configure::decode(body).map(Self::Configure),
            Some(Opcode::DeleteQueue) => DeleteQueue::decode(body).map(Self::DeleteQueue),
            Some(Opcode::Stats) => Stats::decode(body).map(Self::Stats),
            Some(Opcode::Seek) => Seek::decode(body).map(Self::Seek),
            Some(Opcode::DeleteGroup) => DeleteGroup::decode(body).map(Self::DeleteGroup),
            Some(Opcode::ListGroups) => ListGroups::decode(body).map(Self::ListGroups),
            Some(Opcode::GroupLag) => GroupLag::decode(body).map(Self::GroupLag),
            Some(Opcode::Subscribe) => Subscribe::decode(body).map(Self::Subscribe),
            Some(Opcode::Transaction) => Transaction::decode(body).map(Self::Transaction),
            _ => Err(DecodeError::Opcode(opcode)),
        }
    }

    /// The request's opcode.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Hello(_) => Opcode::Hello,
            Self::Ping(_) => Opcode::Ping,
            Self::Push(_) => Opcode::Push,
            Self::Pop(_) => Opcode::Pop,
            Self::Ack(_) => Opcode::Ack,
            Self::Extend(_) => Opcode::Extend,
            Self::Configure(_) => Opcode::Configure,
            Self::DeleteQueue(_) => Opcode::DeleteQueue,
            Self::Stats(_) => Opcode::Stats,
            Self::Seek(_) => Opcode::Seek,
            Self::DeleteGroup(_) => Opcode::DeleteGroup,
            Self::ListGroups(_) => Opcode::ListGroups,
            Self::GroupLag(_) => Opcode::GroupLag,
            Self::Subscribe(_) => Opcode::Subscribe,
            Self::Transaction(_) => Opcode::Transaction,
        }
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(request) => request.encode(out),
            Self::Ping(request) => request.encode(out),
            Self::Push(request) => request.encode(out),
            Self::Pop(request) => request.encode(out),
            Self::Ack(request) => request.encode(out),
            Self::Extend(request) => request.encode(out),
            Self::Configure(request) => request.encode(out),
            Self::DeleteQueue(request) => request.encode(out),
            Self::Stats(request) => request.encode(out),
            Self::Seek(request) => request.encode(out),
            Self::DeleteGroup(request) => request.encode(out),
            Self::ListGroups(request) => request.encode(out),
            Self::GroupLag(request) => request.encode(out),
            Self::Subscribe(request) => request.encode(out),
            Self::Transaction(request) => request.encode(out),
        }
    }

    /// Appends the whole frame.
    pub fn encode_frame(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(self.opcode().number(), request_id, out, |body| self.encode(body));
    }
}
