//! The HTTP door: the user's push contract at the root, and the same API as the clients of Queen
//! expect it under `/queen`.
//!
//! In: requests. Out: answers whose status tells the truth; a refusal is always
//! `{"error", "code", "retryable"}`. Payloads are never parsed into values and never rewritten: in
//! they are slices of the body, out they are slices of the batch. The door keeps no message.
//!
//! | file | decides |
//! |---|---|
//! | [`listen`] | which connections are served, and until when; `pace` how slow they may be |
//! | `table` | which routes there are and who may use each; `openapi` writes it down, `openapi_bodies` what they take |
//! | `route` | which function answers; `admin` the routes beside the message path |
//! | `cors` | which pages of other origins may use it |
//! | `body`, `url`, `shape` | what a request says, in the general |
//! | `push_parse`, `push_pack`, `push`, `push_answer` | a push, from body to answer |
//! | `pop`, `discover`, `pop_answer` | a pop, from a queue or from any of a kind |
//! | `ack_parse`, `ack`, `names`, `lease` | verdicts and leases |
//! | `queues`, `options`, `groups` | queues with their settings and groups |
//! | `dead`, `jobs`, `messages`, `traces` | single messages, dead letters, what is told of them |
//! | `resources`, `status_page`, `errors`, `analytics`, `sampler` | figures, now and over time |
//! | `health`, `metrics`, `system` | how the server is |
//! | `exposition`, `prometheus`, `queen_families` | the same as Prometheus reads it |
//! | `dialect`, `status`, `ids`, `times`, `base64` | how things are written |
//! | `transaction_parse`, `transaction` | verdicts and pushes as a whole; `whole` the routes of it |
//! | `streams_parse`, `streams` | queries over queues, and their cycles |
//! | `processes`, `process_push`, `process_desk` | processes: classes, slots, cascades, what waits |

mod ack;
mod ack_parse;
mod admin;
mod analytics;
mod base64;
mod body;
mod cors;
mod dead;
mod dialect;
mod discover;
mod errors;
mod exposition;
mod facade;
mod facade_path;
mod groups;
mod health;
mod ids;
mod jobs;
mod lease;
pub mod listen;
mod maintenance;
mod messages;
mod metrics;
mod names;
mod openapi;
mod openapi_bodies;
mod options;
mod pace;
mod pop;
mod pop_answer;
mod process_desk;
mod process_hb;
mod process_push;
mod process_trial;
mod processes;
mod prometheus;
mod push;
mod push_answer;
mod push_pack;
mod push_parse;
mod queen_families;
mod queues;
mod resources;
mod route;
mod sampler;
mod shape;
mod status;
mod status_page;
mod streams;
mod streams_parse;
mod system;
mod table;
mod times;
mod traces;
mod transaction;
mod transaction_parse;
mod url;
mod whole;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::batch::BatchLimits;
use tokio::sync::watch;

pub use cors::Cors;
pub use dialect::Dialect;

use crate::log::postgres::DatabaseFigures;
use crate::telemetry::history::History;
use crate::wire::Rooms;
use crate::wire::process_ask::Desk;
use crate::wire::tls::Tls;

/// How HTTP is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the API answers at the root; under `/queen` it always answers as [`Dialect::Queen`].
    pub dialect: Dialect,
    /// What connections are encrypted with; `None`: nothing.
    pub tls: Option<Arc<Tls>>,
    /// Which pages of other origins may use the API.
    pub cors: Cors,
    /// Largest body, bytes.
    pub body_bytes_max: usize,
    /// How long a body may take whatever its size; a large one that keeps coming may take longer.
    pub body_timeout: Duration,
    /// Largest head, bytes.
    pub header_bytes_max: usize,
    /// How long a head may take once it has begun.
    pub header_timeout: Duration,
    /// How long a connection may rest between two requests.
    pub idle_timeout: Duration,
    /// Connections at a time, at most.
    pub connections_max: usize,
    /// Size at which a larger push is split into batches, bytes.
    pub batch_target_bytes: usize,
    /// How long a durable push may take.
    pub push_timeout: Duration,
    /// How long a pop that may wait does so where it does not say, milliseconds.
    pub pop_timeout_ms: u64,
    /// Messages of a pop where it does not say.
    pub pop_batch: u32,
    /// Bytes of a pop's messages; one batch always fits.
    pub pop_bytes_max: u64,
    /// Messages that one pop may ask for.
    pub messages_max: u32,
    /// Whether groups begin with new messages where neither they nor the consumer say.
    pub start_new: bool,
    /// Whether durable messages without a transaction id are given one before anything is tried:
    /// where the store may be away, an attempt may be followed by another.
    pub names_messages: bool,
    /// Where the server keeps its data.
    pub data_dir: PathBuf,
    /// What the database itself counts, where the store is in one.
    pub database: Option<Arc<DatabaseFigures>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dialect: Dialect::Onrush,
            tls: None,
            cors: Cors::default(),
            body_bytes_max: 64 << 20,
            body_timeout: Duration::from_secs(30),
            header_bytes_max: 32 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            connections_max: 20_000,
            batch_target_bytes: 4 << 20,
            push_timeout: Duration::from_secs(30),
            pop_timeout_ms: 30_000,
            pop_batch: 1,
            pop_bytes_max: 4 << 20,
            messages_max: 10_000,
            start_new: false,
            names_messages: false,
            data_dir: PathBuf::from("."),
            database: None,
        }
    }
}

/// One way in: what a request needs to be answered.
struct Api {
    rooms: Arc<Rooms>,
    config: Arc<Config>,
    names: Arc<names::PartitionNames>,
    meter: Arc<metrics::Meter>,
    history: Arc<History>,
    last_look: Arc<health::LastLook>,
    errors: Arc<errors::Errors>,
    stop: watch::Receiver<bool>,
    started_us: u64,
    dialect: Dialect,
    /// The description of the API for programs.
    description: Bytes,
}

impl Api {
    /// The root's API and the one under `/queen`; they share everything but the dialect.
    fn pair(
        rooms: Arc<Rooms>,
        config: Arc<Config>,
        stop: watch::Receiver<bool>,
    ) -> (Arc<Self>, Arc<Self>) {
        let started_us = rooms.clock.monotonic_us();
        let names = Arc::default();
        let meter = Arc::default();
        let history: Arc<History> = Arc::default();
        let last_look = Arc::default();
        let errors = Arc::default();
        let labels = table::labels();
        let with = |dialect, base| {
            Arc::new(Self {
                rooms: Arc::clone(&rooms),
                config: Arc::clone(&config),
                names: Arc::clone(&names),
                meter: Arc::clone(&meter),
                history: Arc::clone(&history),
                last_look: Arc::clone(&last_look),
                errors: Arc::clone(&errors),
                stop: stop.clone(),
                started_us,
                dialect,
                description: openapi::document(&labels, base),
            })
        };
        (with(config.dialect, "/"), with(Dialect::Queen, route::QUEEN))
    }

    /// Where questions about processes are answered.
    fn processes(&self) -> Desk<'_> {
        Desk { rooms: &self.rooms, stop: self.stop.clone() }
    }

    /// Waits until the server stops.
    async fn stopping(&self) {
        // An error means that nobody is left who could stop it: then it has.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

/// Reads a push body in both dialects and packs it, without an engine. For fuzzing: it must refuse
/// or pack whatever it is given, and every batch that it packs must be one that a parser takes.
pub fn fuzz_push(body: &[u8]) {
    let limits = BatchLimits { message_bytes_max: 1 << 10, ..BatchLimits::default() };
    for dialect in [Dialect::Onrush, Dialect::Queen] {
        let Ok(request) = push_parse::parse(body, dialect) else { continue };
        let Ok(packed) = push_pack::pack(&request.items, limits, 4 << 10) else { continue };
        let mut seen = packed.refused.len();
        for section in &packed.sections {
            let batch = onrush_protocol::batch::RecordBatch::parse(section.batch.clone(), &limits);
            let count = batch.map(|batch| batch.count() as usize);
            assert_eq!(count.ok(), Some(section.items.len()), "a packed batch is whole");
            seen += section.items.len();
        }
        assert_eq!(seen, request.items.len(), "every item is packed or refused");
    }
}

#[cfg(test)]
mod tests {
    use super::fuzz_push;
    use crate::base::random::SeededRandom;

    const BODY: &[u8] =
        br#"{"items":[{"queue":"q","partition":"p","payload":{"a":[1,"x\u00e9",null]},
        "transactionId":"t","traceId":"019a0c11-7fe8-7001-9999-0123456789ab"},{"queue":"r","data":7,
        "namespace":"n","task":"t"}],"bufferMs":100,"bufferMax":5,"qos0":true,"qos":0}"#;

    #[test]
    fn a_damaged_push_is_refused_or_packed_whole() {
        let random = SeededRandom::new(7);
        let below = |limit: usize| random.below(limit as u64) as usize;
        fuzz_push(BODY);
        for _ in 0..20_000 {
            let mut body = BODY.to_vec();
            for _ in 0..=below(4) {
                let (at, to) = (below(body.len()), below(body.len()));
                match below(4) {
                    0 => body[at] = below(256) as u8,
                    1 => body.swap(at, to),
                    2 => drop(body.drain(at.min(to)..at.max(to))),
                    _ => {
                        let part = body[at.min(to)..at.max(to)].to_vec();
                        body.splice(at..at, part);
                    }
                }
                if body.is_empty() {
                    break;
                }
            }
            fuzz_push(&body);
        }
    }
}
