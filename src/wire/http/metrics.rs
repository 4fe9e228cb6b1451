//! `/metrics`: the contract's figures, and a few more beside them.
//!
//! In: counters. Out: JSON. `throughput` is messages stored per second over the last ten seconds,
//! from a sample per second that `listen` takes. `file_buffer` is about messages that were answered
//! for before the store had them: at QoS 0, and in the failover log; `failed` ones were lost, or set
//! aside. Called by `admin`.

use std::collections::VecDeque;

use hyper::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;

use crate::base::process;
use crate::telemetry::Telemetry;
use crate::wire::http::Api;
use crate::wire::http::health;
use crate::wire::http::status::{Answer, json};

/// Samples kept, one per second.
const SAMPLES: usize = 10;

/// How fast messages are stored.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<VecDeque<(u64, u64)>>);

impl Meter {
    /// Takes a sample: the clock's microseconds, and how many messages there were ever.
    pub(super) fn sample(&self, now_us: u64, total: u64) {
        let mut samples = self.0.lock();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((now_us, total));
    }

    /// Messages per second since the oldest sample.
    fn per_second(&self, now_us: u64, total: u64) -> u64 {
        let Some((then_us, then)) = self.0.lock().front().copied() else { return 0 };
        let (span_us, more) = (now_us.saturating_sub(then_us), total.saturating_sub(then));
        let rate = u128::from(more) * 1_000_000 / u128::from(span_us.max(1));
        if span_us == 0 { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) }
    }
}

#[derive(Serialize)]
struct Figures {
    push: Push,
    database: Database,
    requests: Requests,
    messages: Messages,
    memory: Memory,
    cpu: Processor,
    file_buffer: FileBuffer,
    delivery: Delivery,
    log: Log,
    catalog: Catalog,
    projection: Projection,
    uptime: u64,
}

#[derive(Serialize)]
struct Push {
    total: u64,
    throughput: u64,
    avg_latency_ms: f64,
    p95_latency_ms: f64,
    p99_latency_ms: f64,
    max_latency_ms: f64,
    requests: u64,
    duplicates: u64,
    failed: u64,
    buffered: u64,
}

#[derive(Serialize)]
struct Database {
    healthy: bool,
    connections_active: u64,
    connections_idle: u64,
    /// The same as those clients of Queen name it that look here.
    #[serde(flatten)]
    pool: Pool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pool {
    pool_size: u64,
    idle_connections: u64,
    /// Nobody waits for a connection: what waits is a message in a ring.
    waiting_requests: u64,
}

/// Requests to this server since its start.
#[derive(Serialize)]
struct Requests {
    push: u64,
    pop: u64,
    ack: u64,
}

/// Messages since its start.
#[derive(Serialize)]
struct Messages {
    pushed: u64,
    popped: u64,
    acked: u64,
}

/// Of this process, bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    rss_bytes: u64,
    virtual_bytes: u64,
}

/// Of this process since its start, microseconds.
#[derive(Serialize)]
struct Processor {
    user_us: u64,
    system_us: u64,
}

#[derive(Serialize)]
struct FileBuffer {
    pending: u64,
    flushed: u64,
    failed: u64,
}

#[derive(Serialize)]
struct Delivery {
    popped: u64,
    acked: u64,
    dead_letters: u64,
    leases_lapsed: u64,
    /// Removed by `ttl` or `maxWaitTimeSeconds`, by `retentionSeconds`, and by
    /// `completedRetentionSeconds`; and those of them that some group had not settled.
    removed_expired: u64,
    removed_retention: u64,
    removed_completed: u64,
    removed_undelivered: u64,
}

#[derive(Serialize)]
struct Log {
    commits: u64,
    commit_failures: u64,
    commit_avg_latency_ms: f64,
    commit_p99_latency_ms: f64,
    bytes: u64,
    ring_bytes: u64,
    outages: u64,
}

#[derive(Serialize)]
struct Catalog {
    queues: u64,
    partitions: u64,
}

/// How far rows in SQL are behind; zero where no queue asks for any.
#[derive(Serialize)]
struct Projection {
    lag_entries: u64,
    lag_seconds: f64,
}

/// The figures as they are now.
pub(super) async fn answer(api: &Api) -> Answer {
    let look = health::look(api).await;
    let rooms = &api.rooms;
    let telemetry = &*rooms.telemetry;
    let now_us = rooms.clock.monotonic_us();
    let commits = telemetry.commit_latency.summary();
    let (connections, usage) = (rooms.engine.log().connections(), process::usage());
    let body = Figures {
        push: push(telemetry, api.meter.per_second(now_us, telemetry.pushed.get())),
        database: Database {
            healthy: look.engine && look.store && telemetry.store_away.get() == 0,
            connections_active: connections.active,
            connections_idle: connections.idle,
            pool: Pool {
                pool_size: connections.sum(),
                idle_connections: connections.idle,
                waiting_requests: 0,
            },
        },
        requests: Requests {
            push: telemetry.push_latency.summary().count,
            pop: telemetry.pop_requests.get(),
            ack: telemetry.ack_requests.get(),
        },
        messages: Messages {
            pushed: telemetry.pushed.get(),
            popped: telemetry.popped.get(),
            acked: telemetry.acked.get(),
        },
        memory: Memory { rss_bytes: usage.rss_bytes, virtual_bytes: usage.virtual_bytes },
        cpu: Processor { user_us: usage.user_us, system_us: usage.system_us },
        file_buffer: file_buffer(telemetry),
        delivery: Delivery {
            popped: telemetry.popped.get(),
            acked: telemetry.acked.get(),
            dead_letters: telemetry.dead.get(),
            leases_lapsed: telemetry.lapsed.get(),
            removed_expired: telemetry.expired.get(),
            removed_retention: telemetry.retained.get(),
            removed_completed: telemetry.completed_gone.get(),
            removed_undelivered: telemetry.undelivered.get(),
        },
        log: Log {
            commits: telemetry.commits.get(),
            commit_failures: telemetry.commit_failed.get(),
            commit_avg_latency_ms: millis(commits.mean_us),
            commit_p99_latency_ms: millis(commits.p99_us as f64),
            bytes: telemetry.log_bytes.get(),
            ring_bytes: rooms.engine.buffers().budget().used(),
            outages: telemetry.outages.get(),
        },
        catalog: Catalog { queues: telemetry.queues.get(), partitions: telemetry.partitions.get() },
        projection: Projection {
            lag_entries: telemetry.projection_entries.get(),
            lag_seconds: telemetry.projection_ms.get() as f64 / 1000.0,
        },
        uptime: now_us.saturating_sub(api.started_us) / 1_000_000,
    };
    json(StatusCode::OK, &body)
}

fn push(telemetry: &Telemetry, throughput: u64) -> Push {
    let latency = telemetry.push_latency.summary();
    Push {
        total: telemetry.pushed.get(),
        throughput,
        avg_latency_ms: millis(latency.mean_us),
        p95_latency_ms: millis(latency.p95_us as f64),
        p99_latency_ms: millis(latency.p99_us as f64),
        max_latency_ms: millis(latency.max_us as f64),
        requests: latency.count,
        duplicates: telemetry.duplicates.get(),
        failed: telemetry.push_failed.get(),
        buffered: telemetry.buffered.get(),
    }
}

fn file_buffer(telemetry: &Telemetry) -> FileBuffer {
    let (flushed, lost) = (telemetry.buffered_flushed.get(), telemetry.buffered_lost.get());
    let in_rings = telemetry.buffered.get().saturating_sub(flushed + lost);
    FileBuffer {
        pending: in_rings + telemetry.spill_waiting.get(),
        flushed: flushed + telemetry.replayed.get(),
        failed: lost + telemetry.quarantined.get(),
    }
}

/// Milliseconds with three decimals.
fn millis(micros: f64) -> f64 {
    micros.round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_what_came_since_the_oldest_of_ten_samples() {
        let meter = Meter::default();
        assert_eq!(meter.per_second(5, 100), 0, "nothing is known yet");
        for second in 0..20_u64 {
            meter.sample(second * 1_000_000, second * 500);
        }
        assert_eq!(meter.per_second(20_000_000, 10_000), 500);
        assert_eq!(meter.per_second(20_000_000, 15_000), 1_000);
        assert_eq!(meter.per_second(10_000_000, 15_000), 0, "no time has passed");
    }

    #[test]
    fn pending_is_what_was_promised_and_is_neither_flushed_nor_lost() {
        let telemetry = Telemetry::default();
        telemetry.buffered.add(10);
        telemetry.buffered_flushed.add(6);
        telemetry.buffered_lost.add(1);
        let shown = file_buffer(&telemetry);
        assert_eq!((shown.pending, shown.flushed, shown.failed), (3, 6, 1));
    }

    #[test]
    fn latencies_are_milliseconds_with_three_decimals() {
        assert_eq!(millis(1_234.4), 1.234);
        assert_eq!(millis(0.0), 0.0);
    }
}
