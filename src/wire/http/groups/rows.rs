//! The routes of consumer groups: their rows of the table.
//!
//! In: paths and bodies as the router has taken them apart. Out: what `groups` answers. Called by `table`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};

use crate::wire::http::admin::{settle, undecodable};
use crate::wire::http::status::Answer;
use crate::wire::http::table::{ADMIN, READ_ONLY, READ_WRITE, Row, delete, get, post};
use crate::wire::http::{Api, groups};

type Door = State<Arc<Api>>;
type PathOf<T> = Result<Path<T>, PathRejection>;

/// The routes of this file.
#[rustfmt::skip]
pub(in crate::wire::http) fn rows() -> Vec<Row> {
    const GROUP: &str = "/api/v1/consumer-groups/{group}";
    const QUEUE: &str = "/api/v1/consumer-groups/{group}/queues/{queue}";
    const SEEK: &str = "/api/v1/consumer-groups/{group}/queues/{queue}/seek";
    const SEEK_ONE: &str =
        "/api/v1/consumer-groups/{group}/queues/{queue}/partitions/{partition}/seek";
    vec![
        get("/api/v1/consumer-groups", READ_ONLY, "listConsumerGroups",
            "How all consumer groups stand", list_groups),
        get("/api/v1/consumer-groups/lagging", READ_ONLY, "listLaggingPartitions",
            "Partitions in which a group lags by a time", lagging_groups),
        get(GROUP, READ_ONLY, "getConsumerGroup",
            "One consumer group, partition by partition", get_group),
        delete(GROUP, ADMIN, "deleteConsumerGroup",
            "Forget a group's cursors in all queues", delete_group),
        delete(QUEUE, ADMIN, "deleteConsumerGroupOfQueue",
            "Forget a group's cursors in one queue", delete_group_of_queue),
        post("/api/v1/consumer-groups/{group}/subscription", READ_WRITE, "setSubscription",
            "Change where a group begins wherever it has no cursor", subscribe_group),
        post(SEEK, READ_WRITE, "seekConsumerGroup",
            "Send a group to a time or an end of a queue", seek_group),
        post(SEEK_ONE, READ_WRITE, "seekConsumerGroupPartition",
            "Send a group to the end of one partition", seek_partition),
    ]
}

async fn list_groups(State(api): Door) -> Answer {
    settle(groups::list(&api).await)
}

async fn lagging_groups(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(groups::lagging(&api, &query.unwrap_or_default()).await)
}

async fn get_group(State(api): Door, path: PathOf<String>, RawQuery(query): RawQuery) -> Answer {
    match path {
        Ok(Path(group)) => settle(groups::get(&api, &group, &query.unwrap_or_default()).await),
        Err(rejection) => undecodable(&rejection),
    }
}

async fn delete_group(State(api): Door, path: PathOf<String>, RawQuery(query): RawQuery) -> Answer {
    match path {
        Ok(Path(group)) => {
            settle(groups::delete(&api, &group, None, &query.unwrap_or_default()).await)
        }
        Err(rejection) => undecodable(&rejection),
    }
}

async fn delete_group_of_queue(
    State(api): Door,
    path: PathOf<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    match path {
        Ok(Path((group, queue))) => {
            let query = query.unwrap_or_default();
            settle(groups::delete(&api, &group, Some(&queue), &query).await)
        }
        Err(rejection) => undecodable(&rejection),
    }
}

async fn subscribe_group(State(api): Door, path: PathOf<String>, body: Bytes) -> Answer {
    match path {
        Ok(Path(group)) => settle(groups::subscribe(&api, &group, &body).await),
        Err(rejection) => undecodable(&rejection),
    }
}

async fn seek_group(State(api): Door, path: PathOf<(String, String)>, body: Bytes) -> Answer {
    match path {
        Ok(Path((group, queue))) => settle(groups::seek(&api, &group, &queue, &body).await),
        Err(rejection) => undecodable(&rejection),
    }
}

async fn seek_partition(
    State(api): Door,
    path: PathOf<(String, String, String)>,
    body: Bytes,
) -> Answer {
    match path {
        Ok(Path((group, queue, partition))) => {
            settle(groups::seek_one(&api, &group, &queue, &partition, &body).await)
        }
        Err(rejection) => undecodable(&rejection),
    }
}
