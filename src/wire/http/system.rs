//! Routes about the server itself, and those that the contract has and this server has no need of.
//!
//! In: nothing. Out: counters as Prometheus reads them; the state of the engine in company; a plain 501
//! for moving a PostgreSQL store to another, which is done with the database's own tools. Called by
//! `table`.

use axum::extract::State;
use hyper::StatusCode;
use serde_json::json as value;

use crate::base::process;
use crate::wire::http::admin::Door;
use crate::wire::http::sampler;
use crate::wire::http::status::{Answer, Failure, bytes, json};
use crate::wire::http::table::{ADMIN, PUBLIC, Row, get, post};

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    vec![
        get("/metrics/prometheus", PUBLIC, "getPrometheusMetrics",
            "Figures of the server as Prometheus reads them", prometheus),
        get("/api/v1/system/shared-state", ADMIN, "getSharedState",
            "What engines of one store share", shared_state),
        get("/internal/api/shared-state/stats", ADMIN, "getSharedStateStats",
            "What engines of one store share", shared_state),
        get("/internal/api/inter-instance/stats", ADMIN, "getInterInstanceStats",
            "What engines of one store share", shared_state),
        post("/internal/api/notify", ADMIN, "notify",
            "Word of a push elsewhere; engines hear of it by the store itself", notify),
        post("/api/v1/migration/test-connection", ADMIN, "testMigration",
            "Not here: see the text of the refusal", no_migration),
        post("/api/v1/migration/start", ADMIN, "startMigration",
            "Not here: see the text of the refusal", no_migration),
        get("/api/v1/migration/status", ADMIN, "getMigration",
            "Not here: see the text of the refusal", no_migration),
        post("/api/v1/migration/validate", ADMIN, "validateMigration",
            "Not here: see the text of the refusal", no_migration),
        post("/api/v1/migration/reset", ADMIN, "resetMigration",
            "Not here: see the text of the refusal", no_migration),
    ]
}

async fn no_migration() -> Answer {
    let message = "stores are moved with the tools of the database that they are in";
    Failure::of_http(StatusCode::NOT_IMPLEMENTED, "not_implemented", message).answer()
}

async fn notify() -> Answer {
    json(StatusCode::OK, &value!({ "status": "ok" }))
}

async fn shared_state(State(api): Door) -> Answer {
    let now = api.rooms.catalogs.maintenance();
    let body = value!({
        "enabled": true,
        "running": true,
        "server_id": format!("{:016x}", api.rooms.engine.number()),
        "queue_config_cache": { "size": api.rooms.catalogs.list().len() },
        "maintenance_mode": now.push,
        "pop_maintenance_mode": now.pop,
        "conflicts": api.rooms.telemetry.conflicts.get(),
    });
    json(StatusCode::OK, &body)
}

/// One family: its name, its kind, and its value.
type Family = (&'static str, &'static str, u64);

async fn prometheus(State(api): Door) -> Answer {
    let now_us = api.rooms.clock.monotonic_us();
    let counted = sampler::counted(&api, api.rooms.clock.now_ms());
    let telemetry = &api.rooms.telemetry;
    let families: [Family; 22] = [
        ("queen_uptime_seconds", "gauge", now_us.saturating_sub(api.started_us) / 1_000_000),
        ("queen_process_resident_memory_bytes", "gauge", counted.rss_bytes),
        ("queen_process_virtual_memory_bytes", "gauge", process::usage().virtual_bytes),
        ("queen_cpu_user_microseconds_total", "counter", counted.user_us),
        ("queen_cpu_system_microseconds_total", "counter", counted.system_us),
        ("queen_file_buffer_pending", "gauge", telemetry.spill_waiting.get()),
        ("queen_file_buffer_failed", "gauge", telemetry.quarantined.get()),
        ("queen_file_buffer_db_healthy", "gauge", u64::from(telemetry.store_away.get() == 0)),
        (
            "queen_maintenance_mode_enabled",
            "gauge",
            u64::from(api.rooms.catalogs.maintenance().push),
        ),
        ("onrush_messages_pushed_total", "counter", counted.pushed),
        ("onrush_messages_popped_total", "counter", counted.popped),
        ("onrush_messages_acknowledged_total", "counter", counted.acked),
        ("onrush_messages_dead_total", "counter", counted.dead),
        ("onrush_push_requests_total", "counter", counted.push_requests),
        ("onrush_pop_requests_total", "counter", counted.pop_requests),
        ("onrush_ack_requests_total", "counter", counted.ack_requests),
        ("onrush_ack_items_refused_total", "counter", counted.ack_failed),
        ("onrush_commits_total", "counter", counted.commits),
        ("onrush_commit_failures_total", "counter", counted.errors),
        ("onrush_log_bytes_total", "counter", telemetry.log_bytes.get()),
        ("onrush_queues", "gauge", telemetry.queues.get()),
        ("onrush_partitions", "gauge", telemetry.partitions.get()),
    ];
    let mut text = String::with_capacity(4096);
    for (name, kind, number) in families {
        text.push_str(&format!("# TYPE {name} {kind}\n{name} {number}\n"));
    }
    bytes(StatusCode::OK, "text/plain; version=0.0.4", text.into())
}
