//! Processes against a whole server: the vectors by which they are judged, each a test named after its
//! vector. `PV` is what such a system does anyway, `XG` what others do not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

mod binary;
mod chains;
#[path = "../http/client.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod client;
mod control;
mod desk;
mod doors;
mod effects;
mod facade;
mod faults;
mod forms;
mod gaps;
mod keeping;
mod own;
mod scripts;
mod vectors;
