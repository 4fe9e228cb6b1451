//! What every room may use.

pub mod place;
