//! The routes beside the message path: queues, dead letters, health, figures.
//!
//! In: whatever the message path does not take. Out: their rows of the table, and a router that
//! answers in the dialect of the prefix it is asked under; a path or method that it does not know
//! gets a refusal in JSON like any other. Called by `table` and `listen`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use hyper::{StatusCode, Uri};

use crate::wire::http::status::{Answer, Failure, bytes};
use crate::wire::http::table::{self, ADMIN, PUBLIC, READ_WRITE, Row, delete, get, post};
use crate::wire::http::{Api, health, maintenance, metrics, queues, route};

pub(super) type Door = State<Arc<Api>>;

/// All routes, for both ways in. Bodies are read, and limited, before they come here.
pub(super) fn router(root: Arc<Api>, queen: Arc<Api>) -> Router {
    table::router(root)
        .nest(route::QUEEN, table::router(queen))
        .fallback(|uri: Uri| async move { route::nowhere(uri.path()).answer() })
        .method_not_allowed_fallback(|| async { route::wrong_method().answer() })
        .layer(DefaultBodyLimit::disable())
}

/// The routes of this file.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = queue_rows();
    rows.extend(server_rows());
    rows
}

#[rustfmt::skip]
fn queue_rows() -> Vec<Row> {
    // The empty name is legal, and its path has no segment for it.
    const NAMELESS: &str = "/api/v1/resources/queues/";
    const QUEUE: &str = "/api/v1/resources/queues/{queue}";
    vec![
        post("/api/v1/configure", READ_WRITE, "configureQueue",
            "Make a queue or replace all of its settings", configure),
        delete(NAMELESS, ADMIN, "deleteNamelessQueue",
            "Delete the queue without a name, with all it holds", delete_nameless),
        delete(QUEUE, ADMIN, "deleteQueue", "Delete a queue with all it holds", delete_queue),
    ]
}

#[rustfmt::skip]
fn server_rows() -> Vec<Row> {
    const MAINTENANCE: &str = "/api/v1/system/maintenance";
    const POP_MAINTENANCE: &str = "/api/v1/system/maintenance/pop";
    vec![
        get(MAINTENANCE, ADMIN, "getMaintenance",
            "Whether pushes are held back, and what waits", show_maintenance),
        post(MAINTENANCE, ADMIN, "setMaintenance",
            "Hold pushes back, or no longer", set_maintenance),
        get(POP_MAINTENANCE, ADMIN, "getPopMaintenance",
            "Whether pops find nothing", show_pop_maintenance),
        post(POP_MAINTENANCE, ADMIN, "setPopMaintenance",
            "Let pops find nothing, or no longer", set_pop_maintenance),
        get("/health", PUBLIC, "getHealth", "Whether the server and its store work", health),
        get("/livez", PUBLIC, "getLiveness", "Whether the process lives", health::live),
        get("/readyz", PUBLIC, "getReadiness", "Whether new work is taken", ready),
        get("/metrics", PUBLIC, "getMetrics", "Figures of the server", metrics),
        get("/openapi.json", PUBLIC, "getDescription",
            "This description of the API", describe),
    ]
}

pub(super) fn settle(result: Result<Answer, Failure>) -> Answer {
    result.unwrap_or_else(|failure| failure.answer())
}

async fn configure(State(api): Door, body: Bytes) -> Answer {
    settle(queues::configure(&api, &body).await)
}

async fn delete_nameless(State(api): Door) -> Answer {
    settle(queues::delete(&api, "").await)
}

async fn delete_queue(State(api): Door, name: Result<Path<String>, PathRejection>) -> Answer {
    match name {
        Ok(Path(name)) => settle(queues::delete(&api, &name).await),
        Err(rejection) => undecodable(&rejection),
    }
}

async fn show_maintenance(State(api): Door) -> Answer {
    maintenance::show_push(&api)
}

async fn set_maintenance(State(api): Door, body: Bytes) -> Answer {
    settle(maintenance::set_push(&api, &body).await)
}

async fn show_pop_maintenance(State(api): Door) -> Answer {
    maintenance::show_pop(&api)
}

async fn set_pop_maintenance(State(api): Door, body: Bytes) -> Answer {
    settle(maintenance::set_pop(&api, &body).await)
}

async fn health(State(api): Door) -> Answer {
    health::health(&api).await
}

async fn ready(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    health::ready(&api, &query.unwrap_or_default()).await
}

async fn metrics(State(api): Door) -> Answer {
    metrics::answer(&api).await
}

async fn describe(State(api): Door) -> Answer {
    bytes(StatusCode::OK, "application/json", api.description.clone())
}

pub(super) fn undecodable(rejection: &PathRejection) -> Answer {
    Failure::malformed(rejection.to_string()).answer()
}

/// The parameters of a path.
pub(super) fn of_path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Failure> {
    path.map(|Path(found)| found).map_err(|rejection| Failure::malformed(rejection.to_string()))
}
