//! Onrush: a message ingestion engine. The rooms, from the cellar up; a room names only rooms above
//! it in this list.
//!
//! * [`base`]: the seams to the outside world (clock, randomness, files) and their simulated twins.
//! * [`journal`]: the segment log: knows bytes and positions only.

pub mod base;
pub mod journal;
pub mod log;
pub mod state;
