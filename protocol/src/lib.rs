#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
//!
//! # The crate, one line a file
//!
//! Two shelves. *Vocabulary* may be named in every room of the server; *shapes* only where bytes
//! meet the network.
//!
//! | shelf | module | what it decides |
//! |---|---|---|
//! | vocabulary | [`name`] | which queue, partition and group names are legal |
//! | vocabulary | [`text`] | short and long texts that fit their length field |
//! | vocabulary | [`batch`] | the record batch: one shape from producer to disk to consumer |
//! | vocabulary | [`qos`] | the three promises |
//! | vocabulary | [`id`] | a message's id is its address |
//! | vocabulary | [`options`] | a queue's settings and their numbers |
//! | vocabulary | [`limits`] | sizes that both sides must agree on |
//! | shape | [`frame`] | where one frame ends and the next begins |
//! | shape | [`opcode`] | the number of each request and answer |
//! | shape | [`request`] | what a client may ask, byte by byte |
//! | shape | [`response`] | what a server may answer, byte by byte |
//! | shape | [`code`] | error numbers a peer may see |
//! | shape | [`version`] | which protocol two peers speak |
//!
//! Nothing here reads a clock, opens a socket or allocates more than the bytes at hand justify.

pub mod batch;
pub mod code;
mod decode_error;
pub mod frame;
#[doc(hidden)]
pub mod fuzz_bodies;
pub mod id;
pub mod limits;
pub mod name;
pub mod opcode;
pub mod options;
mod primitive;
pub mod qos;
pub mod request;
pub mod response;
pub mod text;
pub mod version;

pub use batch::{BatchBuilder, BatchError, BatchLimits, NewRecord, Record, RecordBatch};
pub use code::{Code, Outcome};
pub use decode_error::DecodeError;
pub use frame::{Frame, FrameError};
pub use id::MessageId;
pub use name::{GroupName, NameError, PartitionName, QueueName};
pub use opcode::Opcode;
pub use options::QueueOptions;
pub use qos::Qos;
pub use request::Request;
pub use response::Response;
pub use text::{LongText, ShortText};

/// A lease's token: 16 bytes that the server chose. All zero means that none is given.
pub type LeaseToken = [u8; 16];

/// The token that stands for «no lease given».
pub const NO_LEASE: LeaseToken = [0; 16];
