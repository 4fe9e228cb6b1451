//! What the system that Onrush replaces is known to get wrong, row by row: each test is named after its
//! row of the list of faults and holds what Onrush does instead.
//!
//! Each test starts a server of its own; `ONRUSH_TEST_STORE` says on which store.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

mod acks;
mod api;
#[path = "../http/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the HTTP door, which use all of it")]
mod client;
mod clients;
mod cycles;
mod failover;
mod groups;
mod letters;
mod options;
#[path = "../support/process.rs"]
#[allow(dead_code, reason = "shared with tests that kill servers in more ways")]
mod process;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "shared with the tests of cut connections, which use all of it")]
mod proxy;
#[path = "../support/seeds.rs"]
mod seeds;
mod transactions;
