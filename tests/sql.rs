//! Messages in SQL: what the database shows of a store is what a consumer gets, row for row.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

#[path = "support/server.rs"]
#[allow(dead_code, reason = "every server here has settings of its own")]
mod server;

#[path = "support/look.rs"]
mod look;

#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests ask a process for little")]
mod process;

#[path = "sql/desk.rs"]
mod desk;
#[path = "sql/documented.rs"]
mod documented;
#[path = "sql/projecting.rs"]
mod projecting;
#[path = "sql/reading.rs"]
mod reading;
