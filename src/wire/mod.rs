//! The porch: what comes in here, and in which shape it goes on.
//!
//! [`tcp`] speaks the binary protocol, [`http`] the HTTP shim; both turn bytes into calls of the
//! same rooms and answers into bytes. [`codes`] is the one place where errors become codes,
//! `process_ask` answers what both ask of processes, [`auth`] says
//! who may do what, [`tls`] encrypts, and `opened` sets sockets. [`calls`] asks servers elsewhere for
//! processes, `fetch` how that is done.

pub mod auth;
pub mod calls;
pub mod codes;
mod fetch;
pub mod http;
mod opened;
mod process_ask;
mod process_told;
pub mod tcp;
pub mod tls;

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::catalog::Catalogs;
use crate::delivery::Delivery;
use crate::ingest::Ingest;
use crate::process::Processes;
use crate::shard::Engine;
use crate::telemetry::Telemetry;
use crate::transaction::Transactions;

/// The rooms that requests are taken to.
pub struct Rooms {
    /// Pushes.
    pub ingest: Ingest,
    /// Pops, acks, extensions.
    pub delivery: Delivery,
    /// Pushes and acks that stand or fall as a whole, and queries.
    pub transactions: Transactions,
    /// Queues.
    pub catalogs: Catalogs,
    /// Processes.
    pub processes: Processes,
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// The engine, for its figures.
    pub engine: Arc<Engine>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who may do what.
    pub auth: Arc<auth::Auth>,
    /// Randomness, for ids.
    pub random: Arc<dyn Random>,
}

/// Reads any bytes as the body of an HTTP push; panics only if what it makes of them is wrong.
pub fn fuzz_http_push(body: &[u8]) {
    http::fuzz_push(body);
}
