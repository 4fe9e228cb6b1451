//! The HTTP door against a whole server on a real folder: what its clients see.
//!
//! Each test starts a server of its own on ports of its own; requests are written byte by byte, so
//! that nothing between the test and the door makes them better than they are.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

mod ack;
mod analytics;
mod client;
mod control;
mod cors;
mod doors;
mod figures;
mod groups;
mod jwt;
mod letters;
mod messages;
mod pop;
#[path = "../support/process.rs"]
#[allow(dead_code, reason = "shared with tests that kill servers")]
mod process;
mod prometheus;
mod push;
mod roles;
mod streams;
mod tls;
mod transactions;
