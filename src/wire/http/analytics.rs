//! Figures over time, as the dashboard's pages ask for them.
//!
//! In: a range of times, a queue. Out: minutes of the history in buckets. This server is one worker
//! without an event loop or queues of jobs; what is asked of those is zero. Called by `table`.

use axum::extract::{RawQuery, State};
use hyper::StatusCode;
use onrush_protocol::code::Code;
use serde_json::{Value, json as value};

use crate::base::process::hostname;
use crate::telemetry::history::{Bucket, QueueSnapshot, Snapshot};
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, settle};
use crate::wire::http::ids::millis_text;
use crate::wire::http::sampler;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::status_page::{Cut, per_second};
use crate::wire::http::table::{ADMIN, READ_ONLY, Row, get, post};
use crate::wire::http::url::Query;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    vec![
        get("/api/v1/analytics/system-metrics", READ_ONLY, "getSystemMetrics",
            "Processor time and memory over time", system_metrics),
        get("/api/v1/analytics/worker-metrics", READ_ONLY, "getWorkerMetrics",
            "Requests and messages over time", worker_metrics),
        get("/api/v1/analytics/queue-lag", READ_ONLY, "getQueueLag",
            "How far queues are behind, over time", queue_lag),
        get("/api/v1/analytics/queue-ops", READ_ONLY, "getQueueOperations",
            "What was done to queues, over time", queue_ops),
        get("/api/v1/analytics/queue-parked-replicas", READ_ONLY, "getParkedConsumers",
            "Consumers that wait, over time", parked),
        get("/api/v1/analytics/retention", READ_ONLY, "getRetention",
            "Messages that retention let go, over time", retention),
        get("/api/v1/analytics/postgres-stats", READ_ONLY, "getPostgresStats",
            "Figures of the database", postgres_stats),
        post("/api/v1/stats/refresh", ADMIN, "refreshStats", "Take the figures now", refresh),
    ]
}

/// Reads the range, and hands it on.
fn cut(api: &Api, query: Option<String>, read: impl FnOnce(&Query<'_>, Cut) -> Value) -> Answer {
    let query = query.unwrap_or_default();
    settle(Query::parse(&query).and_then(|query| {
        let cut = Cut::of(&query, api.rooms.clock.now_ms())?;
        Ok::<_, Failure>(json(StatusCode::OK, &read(&query, cut)))
    }))
}

/// A figure that was looked at once: what a bucket tells of the moment is as at its end.
fn once(number: u64) -> Value {
    value!({ "avg": number, "min": number, "max": number, "last": number })
}

async fn system_metrics(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    cut(&api, query, |query, cut| {
        let is_asked = |name: &str, own: &str| query.get(name).is_none_or(|it| it == own);
        // There is one worker here, and it is either asked for or not.
        let host = hostname();
        let is_asked = is_asked("hostname", &host) && is_asked("workerId", "0");
        let buckets = if is_asked { cut.buckets(&api) } else { Vec::new() };
        // Percent of one processor, times a hundred.
        let share = |used_us: u64, seconds: f64| match seconds > 0.0 {
            true => (used_us as f64 / 100.0 / seconds) as u64,
            false => 0,
        };
        let point = |bucket: &Bucket<Snapshot>| {
            let Bucket { start_ms, seconds, counted } = *bucket;
            value!({
                "timestamp": millis_text(start_ms),
                "sampleCount": 1,
                "metrics": {
                    "cpu": {
                        "user_us": once(share(counted.user_us, seconds)),
                        "system_us": once(share(counted.system_us, seconds)),
                    },
                    "memory": { "rss_bytes": once(counted.rss_bytes), "virtual_bytes": once(counted.virtual_bytes) },
                    "database": {
                        "pool_size": once(counted.db_active + counted.db_idle),
                        "pool_idle": once(counted.db_idle),
                        "pool_active": once(counted.db_active),
                    },
                    "threadpool": { "db": {}, "system": {} },
                    "registries": {},
                    "shared_state": {},
                },
            })
        };
        let series: Vec<Value> = buckets.iter().rev().map(point).collect();
        let replica =
            value!({ "hostname": host, "port": null, "workerId": 0, "timeSeries": series });
        let replicas: Vec<Value> = is_asked.then_some(replica).into_iter().collect();
        value!({
            "timeRange": cut.json(),
            "replicaCount": replicas.len(),
            "replicas": replicas,
            "bucketMinutes": cut.minutes(),
            "pointCount": buckets.len(),
        })
    })
}

fn worker_point(bucket: &Bucket<Snapshot>) -> Value {
    let Bucket { start_ms, seconds, counted } = *bucket;
    value!({
        "timestamp": millis_text(start_ms),
        "pushMessages": counted.pushed,
        "popMessages": counted.popped,
        "ackMessages": counted.acked,
        "pushRequests": counted.push_requests,
        "popRequests": counted.pop_requests,
        "ackRequests": counted.ack_requests,
        "jobsDone": counted.commits,
        "pushPerSecond": per_second(counted.pushed, seconds),
        "popPerSecond": per_second(counted.popped, seconds),
        "ackPerSecond": per_second(counted.acked, seconds),
        "avgEventLoopLagMs": 0, "maxEventLoopLagMs": 0, "avgFreeSlots": 0, "minFreeSlots": 0,
        "dbConnections": counted.db_active + counted.db_idle, "avgJobQueueSize": 0, "maxJobQueueSize": 0, "backoffSize": 0,
        "avgLagMs": counted.lag_avg_ms,
        "maxLagMs": counted.lag_max_ms,
        "lagCount": 1,
        "dbErrors": counted.errors,
        "ackSuccess": counted.acked,
        "ackFailed": counted.ack_failed,
        "dlqCount": counted.dead,
    })
}

fn summary(buckets: &[Bucket<Snapshot>]) -> Value {
    let sum = |of: fn(&Snapshot) -> u64| -> u64 { buckets.iter().map(|it| of(&it.counted)).sum() };
    value!({
        "totalPushMessages": sum(|it| it.pushed),
        "totalPopMessages": sum(|it| it.popped),
        "totalAckMessages": sum(|it| it.acked),
        "totalPushRequests": sum(|it| it.push_requests),
        "totalPopRequests": sum(|it| it.pop_requests),
        "totalAckRequests": sum(|it| it.ack_requests),
        "totalDbErrors": sum(|it| it.errors),
        "totalAckFailed": sum(|it| it.ack_failed),
        "totalDlq": sum(|it| it.dead),
        "pendingMessages": buckets.first().map_or(0, |it| it.counted.pending),
    })
}

/// The buckets of queues, one of them or all that are kept.
fn of_queues(
    api: &Api,
    query: &Query<'_>,
    cut: Cut,
) -> Vec<(Box<str>, Vec<Bucket<QueueSnapshot>>)> {
    let range = (cut.range.from_ms, cut.range.to_ms);
    api.history.queue_buckets(query.get("queue"), range, cut.bucket_ms)
}

async fn worker_metrics(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    cut(&api, query, |query, cut| {
        let buckets = cut.buckets(&api);
        let queues = of_queues(&api, query, cut).into_iter().map(|(name, buckets)| {
            let lags = || buckets.iter().map(|it| it.counted.lag_ms);
            value!({
                "queueName": name,
                "popCount": buckets.iter().map(|it| it.counted.popped).sum::<u64>(),
                "avgLagMs": lags().sum::<u64>() / (buckets.len() as u64).max(1),
                "maxLagMs": lags().max().unwrap_or(0),
            })
        });
        value!({
            "timeRange": cut.json(),
            "bucketMinutes": cut.minutes(),
            "pointCount": buckets.len(),
            "timeSeries": buckets.iter().map(worker_point).collect::<Vec<Value>>(),
            "workers": [{
                "hostname": hostname(), "workerId": 0, "avgEventLoopLagMs": 0,
                "maxEventLoopLagMs": 0, "freeSlots": 0,
                "dbConnections": api.rooms.engine.log().connections().sum(), "jobQueueSize": 0,
                "backoffSize": 0, "lastSeen": millis_text(api.rooms.clock.now_ms()),
            }],
            "queues": queues.collect::<Vec<Value>>(),
            "summary": summary(&buckets),
        })
    })
}

async fn queue_lag(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    cut(&api, query, |query, cut| {
        let of_queue = |(name, buckets): (Box<str>, Vec<Bucket<QueueSnapshot>>)| {
            let point = move |bucket: Bucket<QueueSnapshot>| {
                value!({
                    "queueName": name,
                    "popCount": bucket.counted.popped,
                    "avgLagMs": bucket.counted.lag_ms,
                    "maxLagMs": bucket.counted.lag_ms,
                    "bucketTime": millis_text(bucket.start_ms),
                })
            };
            buckets.into_iter().map(point)
        };
        of_queues(&api, query, cut).into_iter().flat_map(of_queue).collect()
    })
}

async fn queue_ops(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    cut(&api, query, |query, cut| {
        let queues = of_queues(&api, query, cut);
        let names: Vec<Value> = queues.iter().map(|(name, _)| value!(name)).collect();
        let of_queue = |(name, buckets): (Box<str>, Vec<Bucket<QueueSnapshot>>)| {
            let point = move |bucket: Bucket<QueueSnapshot>| {
                let Bucket { start_ms, seconds, counted } = bucket;
                // Of more queues than are counted one by one, some have nothing to show here.
                let asked = |count: u64| counted.has_requests.then_some(count);
                let a_second = |count: u64| asked(count).map(|it| per_second(it, seconds));
                value!({
                    "bucket": millis_text(start_ms),
                    "queueName": name,
                    "pushRequests": asked(counted.push_requests),
                    "pushMessages": counted.pushed,
                    "popMessages": asked(counted.popped),
                    "popEmpty": asked(counted.pop_empty),
                    "ackRequests": asked(counted.ack_requests),
                    "ackSuccess": asked(counted.acked),
                    "ackFailed": asked(counted.ack_refused),
                    "transactions": asked(counted.transactions),
                    "partitionsCreated": counted.partitions_made,
                    "partitionsDeleted": counted.partitions_gone,
                    "partitionCount": counted.partitions,
                    "avgLagMs": counted.lag_ms,
                    "maxLagMs": counted.lag_ms,
                    "pushPerSecond": per_second(counted.pushed, seconds),
                    "popPerSecond": a_second(counted.popped),
                    "ackPerSecond": a_second(counted.acked),
                    "emptyPerSecond": a_second(counted.pop_empty),
                    "parkedCount": counted.parked,
                })
            };
            buckets.into_iter().map(point)
        };
        let series: Vec<Value> = queues.into_iter().flat_map(of_queue).collect();
        value!({
            "timeRange": cut.json(), "bucketMinutes": cut.minutes(),
            "series": series, "queues": names,
        })
    })
}

async fn parked(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    cut(&api, query, |query, cut| {
        let of_queue = |(name, buckets): (Box<str>, Vec<Bucket<QueueSnapshot>>)| {
            let point = move |bucket: Bucket<QueueSnapshot>| {
                value!({
                    "bucket": millis_text(bucket.start_ms), "queueName": name,
                    "hostname": hostname(), "workerId": 0, "parkedCount": bucket.counted.parked,
                })
            };
            buckets.into_iter().map(point)
        };
        let series: Vec<Value> =
            of_queues(&api, query, cut).into_iter().flat_map(of_queue).collect();
        value!({
            "timeRange": cut.json(), "bucketMinutes": cut.minutes(), "series": series,
            "replicas": [{ "hostname": hostname(), "workerId": 0 }],
        })
    })
}

async fn retention(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    cut(&api, query, |_, cut| {
        let buckets = cut.buckets(&api);
        let gone = |it: &Snapshot| it.retained + it.completed_gone + it.expired;
        let mut all = Snapshot::default();
        let mut series = Vec::new();
        for Bucket { start_ms, counted, .. } in
            buckets.iter().rev().filter(|it| gone(&it.counted) > 0)
        {
            all.retained += counted.retained;
            all.completed_gone += counted.completed_gone;
            all.expired += counted.expired;
            all.removals += counted.removals;
            let mut point = removed(counted);
            if let Value::Object(fields) = &mut point {
                fields.insert("bucket".to_owned(), value!(millis_text(*start_ms)));
            }
            series.push(point);
        }
        value!({
            "timeRange": cut.json(), "bucketMinutes": cut.minutes(),
            "series": series, "totals": removed(&all),
        })
    })
}

/// Messages that were let go, by the rule: how long they are kept, how long when all groups are done with
/// them, and how long they live or wait at most. An event is a commit that let any go.
fn removed(counted: &Snapshot) -> Value {
    let Snapshot { retained, completed_gone, expired, removals, .. } = *counted;
    value!({
        "retentionMsgs": retained, "completedRetentionMsgs": completed_gone,
        "evictionMsgs": expired, "totalMsgs": retained + completed_gone + expired,
        "eventCount": removals,
    })
}

/// What the database counts itself; on the embedded log every key that the page looks at, with nothing.
async fn postgres_stats(State(api): Door) -> Answer {
    let timestamp = millis_text(api.rooms.clock.now_ms());
    let Some(database) = &api.config.database else {
        return json(StatusCode::OK, &no_database(timestamp));
    };
    let read = database.read().await;
    let figures = read.and_then(|text| serde_json::from_str(&text).map_err(|it| it.to_string()));
    settle(match figures {
        Ok(Value::Object(mut figures)) => {
            figures.insert("timestamp".to_owned(), timestamp.into());
            Ok(json(StatusCode::OK, &figures))
        }
        Ok(_) => Err(Failure::new(Code::Unavailable, "the database said something else")),
        Err(reason) => {
            let message = format!("the database's figures are not to be had: {reason}");
            Err(Failure::new(Code::Unavailable, message))
        }
    })
}

fn no_database(timestamp: String) -> Value {
    let none = || value!({ "diskReads": 0, "cacheHits": 0, "hitRatio": null });
    value!({
        "timestamp": timestamp,
        "database": null,
        "databaseCache": { "database": null, "diskReads": 0, "cacheHits": 0, "cacheHitRatio": null },
        "tableCache": [], "indexCache": [],
        "cacheSummary": { "tables": none(), "indexes": none() },
        "deadTuples": [], "hotUpdates": [], "activeQueries": [], "autovacuumStatus": [],
        "bufferConfig": { "sharedBuffers": null, "sharedBuffersSize": null },
        "bufferUsage": [], "tableSizes": [],
    })
}

/// Figures are taken when they are asked for; what is kept over time is taken now.
async fn refresh(State(api): Door) -> Answer {
    sampler::sample(&api).await;
    let queues = api.rooms.catalogs.list().len();
    let body = value!({
        "partition": {}, "queue": { "queuesUpdated": queues }, "namespace": {}, "task": {},
        "system": {}, "cleanup": {},
    });
    json(StatusCode::OK, &body)
}
