//! To come.
pub mod base;
pub mod buffer;
pub mod journal;
pub mod log;
pub mod shard;
pub mod state;
pub mod telemetry;
