//! The routes beside the message path: queues, dead letters, health, figures.
//!
//! In: whatever the message path does not take. Out: a router that answers in the dialect of the
//! prefix it is asked under; a path or method that it does not know gets a refusal in JSON like any
//! other. Called by `route`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::routing::{get, post};
use hyper::Uri;

use crate::wire::http::status::{Answer, Failure};
use crate::wire::http::{Api, dead, health, maintenance, metrics, queues, route};

type Door = State<Arc<Api>>;

/// All routes, for both ways in. Bodies are read, and limited, before they come here.
pub(super) fn router(root: Arc<Api>, queen: Arc<Api>) -> Router {
    routes(root)
        .nest(route::QUEEN, routes(queen))
        .fallback(|uri: Uri| async move { route::nowhere(uri.path()).answer() })
        .method_not_allowed_fallback(|| async { route::wrong_method().answer() })
        .layer(DefaultBodyLimit::disable())
}

fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/v1/configure", post(configure))
        .route("/api/v1/resources/queues", get(list_queues))
        // The empty name is legal, and its path has no segment for it.
        .route("/api/v1/resources/queues/", get(get_nameless).delete(delete_nameless))
        .route("/api/v1/resources/queues/{queue}", get(get_queue).delete(delete_queue))
        .route("/api/v1/dlq", get(list_dead))
        .route("/api/v1/system/maintenance", get(show_maintenance).post(set_maintenance))
        .route(
            "/api/v1/system/maintenance/pop",
            get(show_pop_maintenance).post(set_pop_maintenance),
        )
        .route("/health", get(health))
        .route("/livez", get(health::live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(api)
}

fn settle(result: Result<Answer, Failure>) -> Answer {
    result.unwrap_or_else(|failure| failure.answer())
}

async fn configure(State(api): Door, body: Bytes) -> Answer {
    settle(queues::configure(&api, &body).await)
}

async fn list_queues(State(api): Door) -> Answer {
    settle(queues::list(&api).await)
}

async fn get_nameless(State(api): Door) -> Answer {
    settle(queues::get(&api, "").await)
}

async fn delete_nameless(State(api): Door) -> Answer {
    settle(queues::delete(&api, "").await)
}

async fn get_queue(State(api): Door, name: Result<Path<String>, PathRejection>) -> Answer {
    match name {
        Ok(Path(name)) => settle(queues::get(&api, &name).await),
        Err(rejection) => undecodable(&rejection),
    }
}

async fn delete_queue(State(api): Door, name: Result<Path<String>, PathRejection>) -> Answer {
    match name {
        Ok(Path(name)) => settle(queues::delete(&api, &name).await),
        Err(rejection) => undecodable(&rejection),
    }
}

async fn list_dead(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(dead::list(&api, &query.unwrap_or_default()).await)
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

fn undecodable(rejection: &PathRejection) -> Answer {
    Failure::malformed(rejection.to_string()).answer()
}
