//! State derived from the log.

pub mod kv;
