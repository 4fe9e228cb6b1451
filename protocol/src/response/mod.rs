//! What a server may answer: the closed list of responses.
//!
//! In: a frame's opcode and body. Out: a [`Response`], or a [`DecodeError`]. Each response has a
//! file with its byte table. Called by the server's dispatch to encode and by clients to decode.

mod acked;
mod cleared;
mod committed;
mod configured;
mod deleted;
mod extended;
mod failure;
mod group_deleted;
mod group_partitions;
mod groups;
mod job;
mod known_messages;
mod letter_page;
mod message_changed;
mod message_detail;
mod message_page;
mod messages;
mod messages_writer;
mod pong;
mod process_answer;
mod queues;
mod receipts;
mod sought;
mod stats;
mod subscribed;
mod welcome;

use bytes::{Bytes, BytesMut};

pub use acked::{Acked, AckedItem};
pub use cleared::Cleared;
pub use committed::Committed;
pub use configured::Configured;
pub use deleted::Deleted;
pub use extended::Extended;
pub use failure::Failure;
pub use group_deleted::GroupDeleted;
pub use group_partitions::{GroupPartitions, PartitionStanding};
pub use groups::{GroupStanding, Groups};
pub use job::{Job, JobKind, JobState, Jobs};
pub use known_messages::KnownMessages;
pub use letter_page::{Letter, LetterPage, LetterReason};
pub use message_changed::MessageChanged;
pub use message_detail::{MessageDetail, MessageGroup};
pub use message_page::{MessagePage, MessageShown, MessageStanding};
pub use messages::{Attempts, Chunk, Messages, MessagesSection};
pub use messages_writer::{MessagesKind, MessagesWriter, SectionWriter};
pub use pong::Pong;
pub use process_answer::ProcessAnswer;
pub use queues::{QueueShown, Queues};
pub use receipts::{PushOutcome, PushStatus, Receipts, SectionReceipt};
pub use sought::Sought;
pub use stats::{Stats, StatsEntry};
pub use subscribed::Subscribed;
pub use welcome::Welcome;

use crate::decode_error::DecodeError;
use crate::frame;
use crate::opcode::Opcode;

/// Declares the enum and what it does with each answer from one list, so that they cannot drift apart.
macro_rules! responses {
    ($($name:ident = $opcode:ident($body:ident),)*) => {
        /// One answer of a server.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant holds a struct that is documented there")]
        pub enum Response {
            $($name($body),)*
        }

        impl Response {
            /// Reads the body of a frame. Names, texts and batches share the body's memory.
            ///
            /// # Errors
            /// [`DecodeError::Opcode`] when no response has this opcode, else what is wrong with the
            /// body.
            pub fn decode(opcode: u8, body: Bytes) -> Result<Self, DecodeError> {
                match Opcode::from_number(opcode) {
                    $(Some(Opcode::$opcode) => $body::decode(body).map(Self::$name),)*
                    _ => Err(DecodeError::Opcode(opcode)),
                }
            }

            /// The response's opcode.
            #[must_use]
            pub fn opcode(&self) -> Opcode {
                match self {
                    $(Self::$name(_) => Opcode::$opcode,)*
                }
            }

            /// Appends the body.
            ///
            /// # Panics
            /// When a list is longer than its count field can say; see the response's own `encode`.
            pub fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$name(response) => response.encode(out),)*
                }
            }
        }
    };
}

responses! {
    Welcome = Welcome(Welcome),
    Pong = Pong(Pong),
    Receipts = Receipts(Receipts),
    Messages = Messages(Messages),
    Acked = Acked(Acked),
    Extended = Extended(Extended),
    Configured = Configured(Configured),
    Deleted = Deleted(Deleted),
    Stats = StatsAnswer(Stats),
    Sought = Sought(Sought),
    GroupDeleted = GroupDeleted(GroupDeleted),
    Groups = Groups(Groups),
    GroupPartitions = GroupPartitions(GroupPartitions),
    Subscribed = Subscribed(Subscribed),
    Committed = Committed(Committed),
    MessagePage = MessagePage(MessagePage),
    MessageDetail = MessageDetail(MessageDetail),
    MessageChanged = MessageChanged(MessageChanged),
    LetterPage = LetterPage(LetterPage),
    JobBegun = JobBegun(Job),
    Jobs = Jobs(Jobs),
    JobCancelled = JobCancelled(Job),
    KnownMessages = KnownMessages(KnownMessages),
    Queues = Queues(Queues),
    Cleared = Cleared(Cleared),
    AnyMessages = AnyMessages(KnownMessages),
    ProcessPushed = ProcessPushed(ProcessAnswer),
    SlotPushed = SlotPushed(ProcessAnswer),
    PushShown = PushShown(ProcessAnswer),
    PushCancelled = PushCancelled(ProcessAnswer),
    ProcessShown = ProcessShown(ProcessAnswer),
    ProcessChanged = ProcessChanged(ProcessAnswer),
    Failure = Failure(Failure),
}

impl Response {
    /// Appends the whole frame.
    ///
    /// # Panics
    /// As [`Self::encode`].
    pub fn encode_frame(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(self.opcode().number(), request_id, out, |body| self.encode(body));
    }
}
