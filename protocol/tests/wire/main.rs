//! The wire, seen from outside: the README's dumps, every message's truncations, hostile counts,
//! random bytes, and properties of frames and record batches.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

mod batches;
mod desk_examples;
mod desk_strategies;
mod examples;
mod frames;
mod hostile;
mod process_examples;
mod process_strategies;
mod properties;
mod readme;
mod ropes;
