//! Queues that ask for encryption, over both doors: what goes in comes out, nothing lies in clear, keys
//! come and go under load, and what does not open stays where it is and says so.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

#[path = "http/client.rs"]
#[allow(dead_code, reason = "these tests ask whole requests only")]
mod client;
#[path = "encryption/desk.rs"]
mod desk;
#[path = "encryption/keys.rs"]
mod keys;
#[path = "encryption/refusals.rs"]
mod refusals;
#[path = "encryption/resting.rs"]
mod resting;
#[path = "encryption/round_trip.rs"]
mod round_trip;
#[path = "encryption/wholes.rs"]
mod wholes;
