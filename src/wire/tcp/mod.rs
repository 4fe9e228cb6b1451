//! The binary protocol: one task per connection.
//!
//! [`listen`] accepts, `stream` is its bytes, encrypted or not, `blocks` the memory that is read into,
//! `connection` reads and `output` writes, `pushes` keeps the pushes that wait for receipts, `consumption`
//! pops and acks (`discover` pops from whichever queue has something), `dispatch` takes everything else to
//! its room (`transaction` what stands as a whole, `groups` and `desk` what whoever runs queues asks, and
//! `processes`), `greeting` knows who is there and `levels` what they may, and `outbox` collects what tasks
//! of their own answer.

mod blocks;
mod connection;
mod consumption;
mod desk;
mod discover;
mod dispatch;
mod failure;
mod greeting;
mod groups;
mod levels;
pub mod listen;
mod outbox;
mod output;
mod processes;
mod pushes;
mod stream;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use crate::wire::tls::Tls;

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest frame taken, bytes after its length field.
    pub frame_bytes_max: usize,
    /// Requests of one connection without an answer, at most.
    pub in_flight_max: u32,
    /// Connections at a time, at most.
    pub connections_max: usize,
    /// How long a connection may take to say hello.
    pub hello_timeout: Duration,
    /// How long a frame that has begun may take to be complete.
    pub frame_timeout: Duration,
    /// How long a durable push may take where it does not say.
    pub push_timeout: Duration,
    /// Bytes of a pop's messages, at most; one batch always fits.
    pub pop_bytes_max: u64,
    /// Messages of a pop, at most.
    pub messages_max: u32,
    /// Whether groups begin with new messages where neither they nor the consumer say.
    pub start_new: bool,
    /// What connections are encrypted with; `None`: nothing.
    pub tls: Option<Arc<Tls>>,
    /// What the welcome says of the store.
    pub store: &'static str,
    /// What the welcome says of durability.
    pub durability: &'static str,
}
