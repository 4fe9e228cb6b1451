//! Onrush: a message ingestion engine.

pub mod base;
pub mod log;
pub mod state;
