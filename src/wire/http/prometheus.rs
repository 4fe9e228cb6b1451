//! What Prometheus reads: every figure of the server by Prometheus's rules for names and units.
//!
//! In: counters and histograms of telemetry, and the newest sample. Out: one page. What it costs depends on
//! no queue: counters are kept for a bounded number of queues, and what must be looked for in partitions is
//! as of the sample that is taken once a minute. Called by `table`.

use axum::extract::State;
use hyper::StatusCode;
use tokio::time::timeout;

use crate::base::process;
use crate::shard::look::View;
use crate::state::ShardState;
use crate::telemetry::Telemetry;
use crate::telemetry::history::{GroupNow, Newest};
use crate::telemetry::queues::{Counts, OTHER, PushFate, QueueCount};
use crate::wire::http::Api;
use crate::wire::http::admin::Door;
use crate::wire::http::dialect::Dialect;
use crate::wire::http::exposition::Kind::{Counter, Gauge};
use crate::wire::http::exposition::{Fold, Page, Series};
use crate::wire::http::health::PATIENCE;
use crate::wire::http::queen_families;
use crate::wire::http::status::{Answer, bytes};

/// All families.
pub(super) async fn prometheus(State(api): Door) -> Answer {
    let leases = leases(&api).await;
    let mut page = Page::default();
    let counts = api.rooms.telemetry.by_queue.all();
    messages(&mut page, &named(&api, &counts));
    outcomes(&mut page, &api.rooms.telemetry);
    groups(&mut page, &api.history.newest(), api.rooms.clock.now_ms());
    timings(&mut page, &api.rooms.telemetry);
    if let Some(leases) = leases {
        page.one("mq_leases_active", Gauge, "Leases that consumers hold", leases as f64);
    }
    log(&mut page, &api);
    failover(&mut page, &api);
    host(&mut page, &api);
    if api.dialect == Dialect::Queen {
        queen_families::add(&mut page, &api);
    }
    let folded = page.folded() as f64;
    page.one("mq_folded_series", Gauge, "Series that are folded into __other__ here", folded);
    bytes(StatusCode::OK, "text/plain; version=0.0.4", page.into_text().into())
}

/// Leases of all shards; `None` while the engine does not answer.
async fn leases(api: &Api) -> Option<u64> {
    let sum = |view: &View<'_>| {
        let counts = view.replica.shards.iter().map(|shard| ShardState::lease_count(shard) as u64);
        counts.sum::<u64>()
    };
    timeout(PATIENCE, api.rooms.engine.look(sum)).await.ok()?.ok()
}

/// A queue's name and its counters.
type Named<'a> = (Box<str>, &'a QueueCount);

/// Counters by name, the oldest queue first, so that the same queues stand by themselves each time.
fn named<'a>(api: &Api, counts: &'a Counts) -> Vec<Named<'a>> {
    let catalog = api.rooms.engine.catalog_now();
    let name = |id| catalog.get(id).map_or_else(|| Box::from(OTHER), |queue| queue.name.clone());
    let mut found: Vec<_> = counts.queues.iter().collect();
    found.sort_unstable_by_key(|(id, _)| **id);
    let found = found.into_iter().map(|(id, count)| (name(*id), count));
    found.chain([(Box::from(OTHER), &counts.others)]).collect()
}

fn pushed<'a>((name, count): &'a Named<'_>) -> Vec<Series<'a>> {
    let fates = [
        (PushFate::Stored, "pushed"),
        (PushFate::Duplicate, "duplicate"),
        (PushFate::Refused, "failed"),
    ];
    let mut series = Vec::new();
    for (fate, status) in fates {
        for (qos, word) in (0..).zip(["0", "1", "2"]) {
            let value = count.pushes.get(qos, fate);
            if value > 0 {
                let fixed = vec![("qos", word), ("status", status)];
                series.push(Series::new(vec![("queue", name)], fixed, value as f64));
            }
        }
    }
    series
}

fn delivered<'a>((name, count): &'a Named<'_>) -> Vec<Series<'a>> {
    let groups = count.groups.iter().filter(|(_, it)| it.delivered > 0);
    let series = groups.map(|(group, it)| {
        Series::new(vec![("queue", name), ("group", group)], Vec::new(), it.delivered as f64)
    });
    series.collect()
}

fn acked<'a>((name, count): &'a Named<'_>) -> Vec<Series<'a>> {
    let mut series = Vec::new();
    for (group, it) in &count.groups {
        let verdicts = [
            ("completed", it.completed),
            ("failed", it.failed),
            ("retry", it.retried),
            ("dlq", it.dead),
        ];
        for (status, value) in verdicts.into_iter().filter(|(_, value)| *value > 0) {
            let named = vec![("queue", &**name), ("group", &**group)];
            series.push(Series::new(named, vec![("status", status)], value as f64));
        }
    }
    series
}

/// Messages, by queue and group.
fn messages(page: &mut Page, named: &[Named<'_>]) {
    let help = "Messages that producers pushed, by what became of them";
    let sums = (Counter, Fold::Sum);
    page.bounded("mq_messages_pushed_total", sums, help, named.iter().flat_map(pushed));
    let help = "Messages handed to consumers, each time that they were";
    page.bounded("mq_messages_delivered_total", sums, help, named.iter().flat_map(delivered));
    let help = "Messages of which a consumer said what became of them";
    page.bounded("mq_messages_acked_total", sums, help, named.iter().flat_map(acked));
}

/// Messages of all queues, by what became of them.
fn outcomes(page: &mut Page, telemetry: &Telemetry) {
    let number = |counter: &crate::telemetry::Counter| counter.get() as f64;
    for (name, help, counter) in [
        ("mq_messages_redelivered_total", "Handed out again", &telemetry.redelivered),
        ("mq_duplicates_suppressed_total", "Known by their ids", &telemetry.duplicates),
        ("mq_leases_expired_total", "Leases that ran out", &telemetry.lapsed),
        ("mq_messages_undelivered_removed_total", "Let go unsettled", &telemetry.undelivered),
        ("mq_pop_requests_total", "Pops that were answered", &telemetry.pop_requests),
        ("mq_pop_empty_total", "Pops that found nothing", &telemetry.pop_empty),
        ("mq_ack_requests_total", "Acks that were answered", &telemetry.ack_requests),
        ("mq_ack_items_refused_total", "Items of acks that were refused", &telemetry.ack_failed),
    ] {
        page.one(name, Counter, help, number(counter));
    }
    let reasons = ["retries_exhausted", "asked", "lease_expired"].map(|it| [("reason", it)]);
    let dead = reasons.iter().zip(&telemetry.dead_by_reason);
    let dead = dead.map(|(labels, count)| (&labels[..], number(count)));
    page.some("mq_messages_dead_lettered_total", Counter, "Messages that became letters", dead);
    let removed = [
        ([("rule", "expired")], &telemetry.expired),
        ([("rule", "retention")], &telemetry.retained),
        ([("rule", "completed_retention")], &telemetry.completed_gone),
    ];
    let removed = removed.iter().map(|(labels, count)| (&labels[..], number(count)));
    page.some("mq_messages_removed_total", Counter, "Messages let go by a rule", removed);
    let refused = &telemetry.refused;
    let refused = [
        ([("reason", "ring_full")], &refused.ring_full),
        ([("reason", "queue_full")], &refused.queue_full),
        ([("reason", "disk_full")], &refused.disk_full),
        ([("reason", "store_away")], &refused.store_away),
    ];
    let refused = refused.iter().map(|(labels, count)| (&labels[..], number(count)));
    let help = "Messages refused because something was full or away";
    page.some("mq_backpressure_rejections_total", Counter, help, refused);
}

/// How groups and queues stood at the last sample, those that are furthest behind first.
fn groups(page: &mut Page, newest: &Newest, now_ms: u64) {
    let series = |of: fn(&GroupNow, u64) -> Option<f64>| {
        newest.groups.iter().filter_map(move |it| {
            let named = vec![("queue", &*it.queue), ("group", &*it.group)];
            Some(Series::new(named, Vec::new(), of(it, now_ms)?))
        })
    };
    let lag = series(|it, _| Some(it.behind as f64));
    let help = "Messages that a group has not settled";
    page.bounded("mq_group_lag_messages", (Gauge, Fold::Sum), help, lag);
    let age = series(|it, now_ms| Some(now_ms.saturating_sub(it.oldest_ms?) as f64 / 1000.0));
    let help = "Age of the oldest message that a group has not settled";
    page.bounded("mq_group_oldest_unacked_age_seconds", (Gauge, Fold::Max), help, age);
    let dead = newest
        .dead
        .iter()
        .map(|(queue, count)| Series::new(vec![("queue", queue)], Vec::new(), *count as f64));
    page.bounded("mq_dead_letters", (Gauge, Fold::Sum), "Dead letters that are kept", dead);
    let age_s = now_ms.saturating_sub(newest.time_ms) as f64 / 1000.0;
    let help = "Age of the sample that lag and dead letters are of";
    page.one("mq_sample_age_seconds", Gauge, help, age_s);
}

fn timings(page: &mut Page, telemetry: &Telemetry) {
    for (name, help, latency) in [
        (
            "mq_push_duration_seconds",
            "From a push to its answer, which says that its promise holds",
            &telemetry.push_latency,
        ),
        (
            "mq_pop_duration_seconds",
            "From a pop to its messages, where it did not have to wait for any to come",
            &telemetry.pop_latency,
        ),
        (
            "mq_delivery_delay_seconds",
            "From a message's commit to its being handed out, each time, in whole milliseconds",
            &telemetry.delivery_delay,
        ),
        (
            "mq_end_to_end_duration_seconds",
            "From a message's commit to the ack that completed it, in whole milliseconds",
            &telemetry.end_to_end,
        ),
    ] {
        page.seconds(name, help, latency);
    }
}

/// The log, and the database where it is in one.
fn log(page: &mut Page, api: &Api) {
    let (telemetry, log) = (&api.rooms.telemetry, api.rooms.engine.log());
    page.one("mq_queues", Gauge, "Queues", telemetry.queues.get() as f64);
    page.one("mq_partitions", Gauge, "Partitions", telemetry.partitions.get() as f64);
    let ring_bytes = api.rooms.engine.buffers().budget().used() as f64;
    page.one("mq_ring_bytes", Gauge, "Bytes that wait in rings", ring_bytes);
    for (name, help, counter) in [
        ("mq_commits_total", "Appends to the log, each a group commit", &telemetry.commits),
        ("mq_commit_conflicts_total", "Commits decided again", &telemetry.conflicts),
        ("mq_commit_failures_total", "Appends that failed", &telemetry.commit_failed),
        ("mq_wal_append_bytes_total", "Bytes appended to the log", &telemetry.log_bytes),
        ("mq_wal_corrupt_records_total", "Records that did not fit their sums", &telemetry.corrupt),
    ] {
        page.one(name, Counter, help, counter.get() as f64);
    }
    if let Some(syncs) = log.syncs() {
        let help = "Time that the disk took to make the log durable";
        page.seconds("mq_wal_fsync_duration_seconds", help, syncs.took);
        let help = "Syncs that failed: nothing more is accepted after one";
        page.one("mq_wal_fsync_errors_total", Counter, help, syncs.failed as f64);
    }
    if api.config.database.is_some() {
        let connections = log.connections();
        let help = "Connections to the database on which an append waits";
        page.one("mq_db_pool_in_use", Gauge, help, connections.active as f64);
        let help = "Connections to the database";
        page.one("mq_db_pool_connections", Gauge, help, connections.sum() as f64);
        let help = "Time that the database took for an append";
        page.seconds("mq_db_request_duration_seconds", help, &telemetry.commit_latency);
        let help = "Entries of the log that are still to be looked at for rows in SQL";
        page.one(
            "mq_projection_lag_entries",
            Gauge,
            help,
            telemetry.projection_entries.get() as f64,
        );
        let (help, ms) = ("Age of the oldest of those entries", telemetry.projection_ms.get());
        page.one("mq_projection_lag_seconds", Gauge, help, ms as f64 / 1000.0);
    }
}

fn failover(page: &mut Page, api: &Api) {
    let telemetry = &api.rooms.telemetry;
    let now_ms = api.rooms.clock.now_ms();
    let since_ms = telemetry.spill_since_ms.get();
    let age_ms = if since_ms > 0 { now_ms.saturating_sub(since_ms) } else { 0 };
    for (name, help, value) in [
        ("mq_failover_active", "Whether the store is away", telemetry.store_away.get() as f64),
        (
            "mq_failover_pending_messages",
            "Messages in the failover log that are not in the store yet",
            telemetry.spill_waiting.get() as f64,
        ),
        (
            "mq_failover_oldest_age_seconds",
            "For how long something has been waiting in the failover log without a break",
            age_ms as f64 / 1000.0,
        ),
        (
            "mq_failover_quarantined_batches",
            "Batches that no shard took and that were set aside",
            telemetry.quarantined.get() as f64,
        ),
        (
            "mq_failover_unreadable",
            "Whether the failover log cannot be read on, so that what waits in it stays there",
            telemetry.spill_unreadable.get() as f64,
        ),
        (
            "mq_store_taken_back",
            "Whether the database lacks what this server has seen in it, and is not used until a restart",
            telemetry.store_taken_back.get() as f64,
        ),
    ] {
        page.one(name, Gauge, help, value);
    }
    processes(page, telemetry);
}

/// What evaluates messages.
fn processes(page: &mut Page, telemetry: &Telemetry) {
    let counts = &telemetry.processes;
    for (name, help, counter) in [
        ("mq_process_slots_total", "Messages that processes have evaluated", &counts.slots),
        ("mq_process_hand_overs_total", "Batches handed on without a pop", &counts.handed_on),
        ("mq_process_duplicates_total", "Sent again by mistake; must be 0", &counts.duplicates),
    ] {
        page.one(name, Counter, help, counter.get() as f64);
    }
    let help = "Processes that are being worked off";
    page.one("mq_process_working", Gauge, help, counts.working.get() as f64);
    for (name, help, by_code) in [
        ("mq_process_slots_failed_total", "Slots that did not end well", counts.failed.get()),
        ("mq_process_refused_total", "Sent by processes and refused", counts.refused.get()),
    ] {
        let labelled: Vec<_> =
            by_code.iter().map(|(code, count)| ([("code", &**code)], *count as f64)).collect();
        let series = labelled.iter().map(|(labels, count)| (&labels[..], *count));
        page.some(name, Counter, help, series);
    }
    for (name, help, latency) in [
        ("mq_process_evaluation_seconds", "Evaluating the slots of one step", &counts.evaluation),
        ("mq_process_commit_seconds", "Making a step durable", &counts.commit),
        (
            "mq_process_delay_seconds",
            "From a message's commit to its evaluation, in whole milliseconds",
            &counts.delay,
        ),
    ] {
        page.seconds(name, help, latency);
    }
    let (depth, fuel) = (&telemetry.cascade_depth, telemetry.fuel_used.get() as f64);
    let help = "Depth in its cascade of the deepest message evaluated so far";
    page.one("mq_runtime_cascade_depth", Gauge, help, depth.get() as f64);
    let help = "Fuel that code of processes has used";
    page.one("mq_runtime_fuel_used_total", Counter, help, fuel);
}

/// The process and the machine.
fn host(page: &mut Page, api: &Api) {
    let (telemetry, usage) = (&api.rooms.telemetry, process::usage());
    let connections = [
        ([("transport", "tcp")], telemetry.connections.get()),
        ([("transport", "http")], telemetry.http_connections.get()),
    ];
    let connections = connections.iter().map(|(labels, count)| (&labels[..], *count as f64));
    page.some("mq_connections", Gauge, "Connections of clients", connections);
    if let Some(free) = process::disk_free(&api.config.data_dir) {
        let help = "Bytes that are free where the data folder is";
        page.one("mq_disk_free_bytes", Gauge, help, free as f64);
    }
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.some("mq_build_info", Gauge, "The server's version", [(&version[..], 1.0)]);
    let uptime_us = api.rooms.clock.monotonic_us().saturating_sub(api.started_us);
    let cpu_s = (usage.user_us + usage.system_us) as f64 / 1e6;
    page.one("process_cpu_seconds_total", Counter, "Processor time used", cpu_s);
    let started_s = (api.rooms.clock.now_ms() as f64 - uptime_us as f64 / 1000.0) / 1000.0;
    for (name, help, value) in [
        ("process_start_time_seconds", "When it started, unix time", started_s.round()),
        ("process_resident_memory_bytes", "Memory in use", usage.rss_bytes as f64),
        ("process_virtual_memory_bytes", "Address space in use", usage.virtual_bytes as f64),
        ("process_threads", "Threads", usage.threads as f64),
        ("process_open_fds", "Files that are open", usage.open_files as f64),
        ("process_max_fds", "Files that may be open", usage.open_files_max as f64),
    ] {
        page.one(name, Gauge, help, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::queues::{GroupCount, Pushes, QueueCounts};

    /// The sum of a family's series.
    fn sum(text: &str, family: &str) -> f64 {
        let series = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    #[test]
    fn a_hundred_thousand_queues_with_long_names_are_less_than_a_megabyte_and_all_counted() {
        const QUEUES: u32 = 100_000;
        let name = |queue: u32| format!("{queue:0>250}");
        let counts = QueueCounts::default();
        for queue in 0..QUEUES {
            let mut pushes = Pushes::default();
            for fate in [PushFate::Stored, PushFate::Duplicate, PushFate::Refused] {
                (0..3).for_each(|qos| pushes.add(qos, fate, 1));
            }
            counts.note_pushes(queue, &pushes, 1);
            for group in ["one", "two"] {
                let count =
                    GroupCount { delivered: 5, completed: 3, failed: 2, ..Default::default() };
                counts.note_group(queue, group, &count);
            }
        }
        let all = counts.all();
        let named: Vec<Named<'_>> =
            all.queues.iter().map(|(id, count)| (name(*id).into(), count)).collect();
        let others = (Box::from(OTHER), &all.others);
        let groups_now = (0..QUEUES).flat_map(|queue| {
            ["one", "two"].map(|group| GroupNow {
                queue: name(queue).into(),
                group: group.into(),
                behind: 7,
                oldest_ms: Some(u64::from(queue)),
            })
        });
        let dead = (0..QUEUES).map(|queue| (name(queue).into(), 1)).collect();
        let newest = Newest::of(1, groups_now.collect(), dead);
        let mut page = Page::default();
        messages(&mut page, &named.into_iter().chain([others]).collect::<Vec<_>>());
        groups(&mut page, &newest, 1_000_000);
        assert!(page.folded() > 1_000);
        let text = page.into_text();
        assert!(text.len() < 500_000, "{}", text.len());
        let all = f64::from(QUEUES);
        assert_eq!(sum(&text, "mq_messages_pushed_total"), 9.0 * all);
        assert_eq!(sum(&text, "mq_messages_delivered_total"), 10.0 * all);
        assert_eq!(sum(&text, "mq_messages_acked_total"), 10.0 * all);
        assert_eq!(sum(&text, "mq_group_lag_messages"), 14.0 * all);
        assert_eq!(sum(&text, "mq_dead_letters"), all);
        let oldest =
            text.lines().rfind(|line| line.contains("oldest_unacked") && line.contains(OTHER));
        assert!(oldest.is_some_and(|line| line.contains(OTHER)), "{oldest:?}");
    }
}
