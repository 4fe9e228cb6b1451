//! Routes about the server itself, and those that the contract has and this server has no need of.
//!
//! In: nothing. Out: the state of the engine in company; a plain 501
//! for moving a PostgreSQL store to another, which is done with the database's own tools. Called by
//! `table`.

use axum::extract::State;
use hyper::StatusCode;
use serde_json::json as value;

use crate::wire::http::admin::Door;
use crate::wire::http::prometheus::prometheus;
use crate::wire::http::status::{Answer, Failure, json};
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
