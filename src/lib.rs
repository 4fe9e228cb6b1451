//! Onrush: a message ingestion engine.
//!
//! Producers push messages into queues of strictly ordered partitions; consumers pop and
//! acknowledge. This page is the house plan: a message enters by one door, crosses each room once,
//! and leaves by another. A room names only rooms above it in this list (`tests/tidy.rs` is the
//! law).
//!
//! ```text
//! push:  wire ─► ingest ─► buffer ─► shard (decide ─► log ─► apply) ─► receipt
//! pop:   wire ─► delivery ─► shard (decide ─► log ─► apply) ─► hot tail or log body ─► wire
//! ```
//!
//! | floor | room | holds |
//! |---|---|---|
//! | 0 | [`base`] | clock, randomness, files, and where a partition lives |
//! | 1 | [`telemetry`] | counters and latencies, handed to rooms at start |
//! | 1 | [`sealing`] | keys; payloads sealed and opened |
//! | 2 | [`journal`] | the segment log: knows bytes and positions only |
//! | 3 | [`log`] | the log seam: conditional, atomic appends over several shards |
//! | 3 | [`state`] | pure: effects, decide, apply; the key-value seam |
//! | 4 | [`projection`] | messages as plain rows of the database that the store is in |
//! | 4 | [`buffer`] | rings, flush policy, receipts, byte budget |
//! | 4 | [`failover`] | the segment log that takes over while the store is away |
//! | 5 | [`shard`] | the running shards: commits, hot tail, parked consumers, checkpoints |
//! | 6 | [`catalog`] | queues and their settings as an immutable view |
//! | 7 | [`ingest`] | admission: the only way in |
//! | 7 | [`delivery`] | pop, ack, extend |
//! | 8 | [`transaction`] | verdicts, pushes and state keys as a whole; queries over queues |
//! | 9 | [`process`] | classes of code, instances, slots; messages pushed on until none is left |
//! | 10 | [`wire`] | the two ports; the one place where errors become codes |
//! | 10 | [`offline`] | looking at a log while no server has it |
//! | 11 | [`config`], [`cli`], [`server`], [`run`] | settings, composition, start and shutdown |

pub mod base;
pub mod buffer;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod failover;
pub mod ingest;
pub mod journal;
pub mod log;
pub mod offline;
pub mod process;
pub mod projection;
pub mod run;
pub mod sealing;
pub mod server;
pub mod shard;
pub mod state;
pub mod telemetry;
pub mod transaction;
pub mod wire;
