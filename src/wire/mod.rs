//! The doors of the server: bytes and JSON come in, the rooms' answers go out.
//!
//! [`http`] speaks the HTTP API in its two dialects; [`codes`] is the one place where a room's error
//! becomes a number that a peer may see. Decides nothing about messages.

pub mod codes;
pub mod http;

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::catalog::Catalogs;
use crate::delivery::Delivery;
use crate::ingest::Ingest;
use crate::shard::Engine;
use crate::telemetry::Telemetry;

/// The rooms that a door opens into.
pub struct Rooms {
    /// The way in for messages.
    pub ingest: Ingest,
    /// The way out for messages.
    pub delivery: Delivery,
    /// Queues.
    pub catalogs: Catalogs,
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// The engine behind them, for its figures.
    pub engine: Arc<Engine>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}
