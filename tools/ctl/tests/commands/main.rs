//! `onrushctl` against a whole server on a real folder: what people and programs see of it.
//!
//! Each test starts a server of its own, as a process on ports that the system chooses, and a folder for
//! contexts of its own; every command is a process too. What people see is looked at through a
//! pseudo-terminal.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

mod ack;
mod config;
mod contexts;
mod dlq;
mod exits;
mod groups;
mod messages;
mod push;
mod queues;
mod server;
mod shell;
mod tail;
mod terminal;
mod world;

#[path = "../../../../tests/support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;
