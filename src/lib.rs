//! To come.
pub mod base;
pub mod buffer;
pub mod journal;
pub mod log;
pub mod state;
