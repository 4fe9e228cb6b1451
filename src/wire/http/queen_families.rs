//! Families that dashboards of Queen MQ look for, by the names and in the units of that system.
//!
//! In: counters of telemetry, and the last minutes by queue. Out: series on a page, in Queen's dialect
//! only. What that system counts of its own making, pools of threads and event loops, is not here. Called
//! by `prometheus`.

use crate::base::process;
use crate::telemetry::history::{Bucket, QueueSnapshot};
use crate::wire::http::Api;
use crate::wire::http::exposition::Kind::{Counter, Gauge};
use crate::wire::http::exposition::{Fold, Page, Series};
use crate::wire::http::sampler;

/// Minutes over which rates are taken, milliseconds.
const SPAN_MS: u64 = 2 * 60_000;

/// Adds them.
pub(super) fn add(page: &mut Page, api: &Api) {
    server(page, api);
    cluster(page, api);
    queues(page, api);
}

fn server(page: &mut Page, api: &Api) {
    let (telemetry, usage) = (&api.rooms.telemetry, process::usage());
    let uptime_us = api.rooms.clock.monotonic_us().saturating_sub(api.started_us);
    let database = api.rooms.engine.log().connections();
    let maintenance = u64::from(api.rooms.catalogs.maintenance().push);
    for (name, kind, value) in [
        ("queen_uptime_seconds", Gauge, uptime_us / 1_000_000),
        ("queen_process_resident_memory_bytes", Gauge, usage.rss_bytes),
        ("queen_process_virtual_memory_bytes", Gauge, usage.virtual_bytes),
        ("queen_cpu_user_microseconds_total", Counter, usage.user_us),
        ("queen_cpu_system_microseconds_total", Counter, usage.system_us),
        ("queen_db_pool_size", Gauge, database.sum()),
        ("queen_db_pool_idle", Gauge, database.idle),
        ("queen_db_pool_active", Gauge, database.active),
        ("queen_file_buffer_pending", Gauge, telemetry.spill_waiting.get()),
        ("queen_file_buffer_failed", Gauge, telemetry.quarantined.get()),
        ("queen_file_buffer_db_healthy", Gauge, u64::from(telemetry.store_away.get() == 0)),
        ("queen_maintenance_mode_enabled", Gauge, maintenance),
    ] {
        page.one(name, kind, "As in Queen MQ", value as f64);
    }
}

/// Of this server: each has counters of its own, and whoever wants those of all adds them up.
fn cluster(page: &mut Page, api: &Api) {
    let all = sampler::counted(api, api.rooms.clock.now_ms());
    let counts = api.rooms.telemetry.by_queue.all();
    let each = counts.queues.values().chain([&counts.others]);
    let transactions: u64 = each.map(|it| it.transactions).sum();
    let scope = [("scope", "cluster")];
    for (name, value) in [
        ("queen_cluster_push_requests_total", all.push_requests),
        ("queen_cluster_pop_requests_total", all.pop_requests),
        ("queen_cluster_ack_requests_total", all.ack_requests),
        ("queen_cluster_transactions_total", transactions),
        ("queen_cluster_push_messages_total", all.pushed),
        ("queen_cluster_pop_messages_total", all.popped),
        ("queen_cluster_ack_messages_total", all.acked),
        ("queen_cluster_db_errors_total", all.errors),
        ("queen_cluster_dlq_total", all.dead),
    ] {
        page.some(name, Counter, "As in Queen MQ", [(&scope[..], value as f64)]);
    }
    let results = [
        ([("scope", "cluster"), ("result", "success")], all.acked),
        ([("scope", "cluster"), ("result", "failed")], all.ack_failed),
    ];
    let results = results.iter().map(|(labels, value)| (&labels[..], *value as f64));
    page.some("queen_cluster_ack_total", Counter, "As in Queen MQ", results);
    let newest = api.history.newest();
    let depth: u64 = newest.dead.iter().map(|(_, count)| count).sum();
    page.some("queen_dlq_depth", Gauge, "As in Queen MQ", [(&scope[..], depth as f64)]);
    let by_queue = newest
        .dead
        .iter()
        .map(|(queue, count)| Series::new(vec![("queue", queue)], Vec::new(), *count as f64));
    let sums = (Gauge, Fold::Sum);
    page.bounded("queen_dlq_depth_by_queue", sums, "As in Queen MQ", by_queue);
}

type Point = Bucket<QueueSnapshot>;

/// The busiest queues, as of their last minutes.
fn queues(page: &mut Page, api: &Api) {
    let now_ms = api.rooms.clock.now_ms();
    let range = (now_ms.saturating_sub(SPAN_MS), now_ms);
    let all = api.history.queue_buckets(None, range, SPAN_MS);
    let last: Vec<(Box<str>, Point)> =
        all.into_iter().filter_map(|(name, points)| Some((name, *points.last()?))).collect();
    let per_minute = |count: u64, of: &Point| match of.seconds > 0.0 {
        true => count as f64 * 60.0 / of.seconds,
        false => 0.0,
    };
    let mut family = |name: &str, of: &dyn Fn(&Point) -> f64| {
        let series = last
            .iter()
            .map(|(queue, point)| Series::new(vec![("queue", &**queue)], Vec::new(), of(point)));
        page.bounded(name, (Gauge, Fold::Sum), "As in Queen MQ", series);
    };
    family("queen_queue_push_requests_per_minute", &|it| per_minute(it.counted.push_requests, it));
    family("queen_queue_push_messages_per_minute", &|it| per_minute(it.counted.pushed, it));
    family("queen_queue_pop_messages_per_minute", &|it| per_minute(it.counted.popped, it));
    family("queen_queue_pop_empty_per_minute", &|it| per_minute(it.counted.pop_empty, it));
    family("queen_queue_transactions_per_minute", &|it| per_minute(it.counted.transactions, it));
    family("queen_queue_parked_consumers", &|it| it.counted.parked as f64);
    family("queen_queue_metrics_age_seconds", &|it| {
        now_ms.saturating_sub(it.counted.time_ms) as f64 / 1000.0
    });
    lags(page, &last);
}

fn lags(page: &mut Page, last: &[(Box<str>, Point)]) {
    let series = last.iter().flat_map(|(queue, point)| {
        // Of the moment: the average of one is the same.
        ["avg", "max"].map(|stat| {
            let lag_ms = point.counted.lag_ms as f64;
            Series::new(vec![("queue", &**queue)], vec![("stat", stat)], lag_ms)
        })
    });
    let most = (Gauge, Fold::Max);
    page.bounded("queen_queue_pop_lag_milliseconds", most, "As in Queen MQ", series);
    let series = last.iter().flat_map(|(queue, point)| {
        let per_minute = |count: u64| count as f64 * 60.0 / point.seconds.max(0.001);
        let results = [("success", point.counted.acked), ("failed", point.counted.ack_refused)];
        results.map(|(result, count)| {
            Series::new(vec![("queue", &**queue)], vec![("result", result)], per_minute(count))
        })
    });
    page.bounded("queen_queue_ack_per_minute", (Gauge, Fold::Sum), "As in Queen MQ", series);
}
