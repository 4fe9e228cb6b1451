//! What a client may ask: the closed list of requests.
//!
//! In: a frame's opcode and body. Out: a [`Request`], or a [`DecodeError`] after which the
//! connection goes on. Each request has a file with its byte table. Called by the server's
//! dispatch to decode and by clients to encode.

mod ack;
mod begin_job;
mod cancel_job;
mod cancel_push;
mod change_message;
mod change_process;
mod clear_queue;
mod configure;
mod delete_group;
mod delete_queue;
mod extend;
mod get_message;
mod get_process;
mod get_push;
mod group_lag;
mod hello;
mod list_groups;
mod list_jobs;
mod list_letters;
mod list_messages;
mod list_queues;
mod message_key;
mod ping;
mod pop;
mod pop_any;
mod pop_known;
pub mod push;
mod push_controls;
mod push_process;
mod push_slot;
mod scope;
mod seek;
mod stats;
mod subscribe;
mod transaction;

use bytes::{Bytes, BytesMut};

pub use ack::{Ack, AckItem, AckOutcome};
pub use begin_job::{BeginJob, JobAction};
pub use cancel_job::CancelJob;
pub use cancel_push::CancelPush;
pub use change_message::{ChangeMessage, MessageChange};
pub use change_process::{ChangeProcess, ProcessChange};
pub use clear_queue::ClearQueue;
pub use configure::Configure;
pub use delete_group::DeleteGroup;
pub use delete_queue::DeleteQueue;
pub use extend::Extend;
pub use get_message::GetMessage;
pub use get_process::{GetProcess, ProcessLook};
pub use get_push::GetPush;
pub use group_lag::GroupLag;
pub use hello::{Hello, Token};
pub use list_groups::ListGroups;
pub use list_jobs::ListJobs;
pub use list_letters::ListLetters;
pub use list_messages::ListMessages;
pub use list_queues::ListQueues;
pub use message_key::MessageKey;
pub use ping::Ping;
pub use pop::{Pop, SubscriptionStart};
pub use pop_any::PopAny;
pub use pop_known::PopKnown;
pub use push::{Push, PushSection, PushSections, PushTerms};
pub use push_controls::{AwaitLevel, PushControls};
pub use push_process::PushProcess;
pub use push_slot::PushSlot;
pub use seek::{Seek, SeekTo};
pub use stats::Stats;
pub use subscribe::Subscribe;
pub use transaction::{Transaction, TransactionAck};

use crate::decode_error::DecodeError;
use crate::frame;
use crate::opcode::Opcode;

/// Declares the enum and what it does with each request from one list, so that they cannot drift apart.
macro_rules! requests {
    ($($name:ident,)*) => {
        /// One request of a client.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(
            missing_docs,
            reason = "each variant holds the struct of its name, documented there"
        )]
        pub enum Request {
            $($name($name),)*
        }

        impl Request {
            /// Reads the body of a frame. Names, texts and batches share the body's memory.
            ///
            /// # Errors
            /// [`DecodeError::Opcode`] when no request has this opcode, else what is wrong with the
            /// body.
            pub fn decode(opcode: u8, body: Bytes) -> Result<Self, DecodeError> {
                match Opcode::from_number(opcode) {
                    $(Some(Opcode::$name) => $name::decode(body).map(Self::$name),)*
                    _ => Err(DecodeError::Opcode(opcode)),
                }
            }

            /// The request's opcode.
            #[must_use]
            pub fn opcode(&self) -> Opcode {
                match self {
                    $(Self::$name(_) => Opcode::$name,)*
                }
            }

            /// Appends the body.
            pub fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$name(request) => request.encode(out),)*
                }
            }
        }
    };
}

requests! {
    Hello,
    Ping,
    Push,
    Pop,
    Ack,
    Extend,
    Configure,
    DeleteQueue,
    Stats,
    Seek,
    DeleteGroup,
    ListGroups,
    GroupLag,
    Subscribe,
    Transaction,
    ListMessages,
    GetMessage,
    ChangeMessage,
    ListLetters,
    BeginJob,
    ListJobs,
    CancelJob,
    PopKnown,
    ListQueues,
    ClearQueue,
    PopAny,
    PushProcess,
    PushSlot,
    GetPush,
    CancelPush,
    GetProcess,
    ChangeProcess,
}

impl Request {
    /// Appends the whole frame.
    pub fn encode_frame(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(self.opcode().number(), request_id, out, |body| self.encode(body));
    }
}
