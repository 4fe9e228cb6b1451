//! Counters and latencies, handed to the rooms at start; nothing is global.
//!
//! [`Telemetry`] is plain atomics plus a few histograms behind short locks, so counting costs the
//! hot path a few nanoseconds per request, never per message.

pub mod history;
pub mod latency;
pub mod processes;
pub mod queues;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::latency::Latency;
use crate::telemetry::processes::ProcessCounts;
use crate::telemetry::queues::QueueCounts;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes `less` away, where it is a gauge.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it to `value`, where it is a gauge and lower.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// Sets it, where it is a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Messages that were refused, by why: trying again later can help.
#[derive(Debug, Default)]
pub struct Refused {
    /// The partition's ring was full, or all rings were.
    pub ring_full: Counter,
    /// The queue was.
    pub queue_full: Counter,
    /// The disk was.
    pub disk_full: Counter,
    /// The store was away, and so was what stands in for it.
    pub store_away: Counter,
}

/// Everything that is counted. Messages unless the name says otherwise.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Stored as new.
    pub pushed: Counter,
    /// Refused as duplicates.
    pub duplicates: Counter,
    /// Refused or failed.
    pub push_failed: Counter,
    /// Accepted at QoS 0 into a ring.
    pub buffered: Counter,
    /// Accepted at QoS 0 and then handed to the log.
    pub buffered_flushed: Counter,
    /// Accepted at QoS 0 and then lost because the log failed.
    pub buffered_lost: Counter,
    /// Kept in the failover log.
    pub spilled: Counter,
    /// Of those, pushed again since: stored, or found to be duplicates.
    pub replayed: Counter,
    /// Since when there is anything in the failover log without a break, unix milliseconds; 0 while there
    /// is nothing (gauge).
    pub spill_since_ms: Counter,
    /// In the failover log and not in the store yet (gauge).
    pub spill_waiting: Counter,
    /// Batches that no shard took and that were set aside (gauge).
    pub quarantined: Counter,
    /// Of those, accepted at QoS 0 (gauge).
    pub quarantined_buffered: Counter,
    /// Their bytes (gauge).
    pub quarantined_bytes: Counter,
    /// Times that the store went away.
    pub outages: Counter,
    /// Whether the store is away: 1, or 0 (gauge).
    pub store_away: Counter,
    /// Whether another store was found in its place, so that nothing is kept for it: 1, or 0 (gauge).
    pub store_other: Counter,
    /// Whether the store was found taken back to an earlier state, or with another history, so that this
    /// server stays away from it until it is restarted: 1, or 0 (gauge).
    pub store_taken_back: Counter,
    /// Whether the failover log cannot be read on, so that what waits in it stays there: 1, or 0 (gauge).
    pub spill_unreadable: Counter,
    /// Handed to consumers.
    pub popped: Counter,
    /// Pops answered, whatever with.
    pub pop_requests: Counter,
    /// Pops answered with nothing.
    pub pop_empty: Counter,
    /// Acks answered, each of any number of messages.
    pub ack_requests: Counter,
    /// Items of acks that were refused.
    pub ack_failed: Counter,
    /// Settled as completed.
    pub acked: Counter,
    /// Became dead letters, by acks, by leases that ran out, and where operators asked for it.
    pub dead: Counter,
    /// The same by the reason's number.
    pub dead_by_reason: [Counter; 3],
    /// Handed out that had been handed out before, and not settled.
    pub redelivered: Counter,
    /// Refused because something was full or away.
    pub refused: Refused,
    /// Removed because they lived or waited too long.
    pub expired: Counter,
    /// Removed because they were kept long enough, whoever had seen them.
    pub retained: Counter,
    /// Removed because all groups were done with them for long enough.
    pub completed_gone: Counter,
    /// Commits that removed any of these.
    pub removals: Counter,
    /// Of those removed, such as some group had not settled.
    pub undelivered: Counter,
    /// Leases that ran out.
    pub lapsed: Counter,
    /// Appends to the log, each a group commit.
    pub commits: Counter,
    /// Appends that were refused because another engine was first.
    pub conflicts: Counter,
    /// Appends that failed.
    pub commit_failed: Counter,
    /// Bytes appended to the log.
    pub log_bytes: Counter,
    /// Checkpoints written.
    pub checkpoints: Counter,
    /// Queues (gauge).
    pub queues: Counter,
    /// Partitions (gauge).
    pub partitions: Counter,
    /// Entries of the log that are still to be looked at for rows in SQL (gauge).
    pub projection_entries: Counter,
    /// Age of the oldest of them, milliseconds (gauge).
    pub projection_ms: Counter,
    /// Connections over the binary protocol now (gauge).
    pub connections: Counter,
    /// Connections over HTTP now (gauge).
    pub http_connections: Counter,
    /// Records of the log that were read and did not fit their checksums.
    pub corrupt: Counter,
    /// Fuel that code of processes used.
    pub fuel_used: Counter,
    /// The depth in its cascade of the deepest message evaluated so far (gauge).
    pub cascade_depth: Counter,
    /// What else is counted of processes.
    pub processes: ProcessCounts,
    /// What was asked of queues, one by one.
    pub by_queue: QueueCounts,
    /// Time from a push's arrival to its answer.
    pub push_latency: Latency,
    /// Time from a pop's arrival to its messages, where it did not have to wait for any to come.
    pub pop_latency: Latency,
    /// Time from the commit of a message to its being handed out, each time that it is; in whole
    /// milliseconds.
    pub delivery_delay: Latency,
    /// Time from the commit of a message to the ack that settled it as completed, of one group; in whole
    /// milliseconds.
    pub end_to_end: Latency,
    /// Time that an append took.
    pub commit_latency: Latency,
}
