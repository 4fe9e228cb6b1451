//! Onrush, room by room.
//!
//! * `config`: every setting, decided once before anything starts.
//! * `cli`: the command line as a shape.

pub mod cli;
pub mod config;
