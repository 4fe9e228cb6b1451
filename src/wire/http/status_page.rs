//! The status routes: what the dashboard shows first.
//!
//! In: a range of times, a queue. Out: figures now, and minutes of the history in buckets whose size
//! follows the range. What this server has no word for is zero, empty or null. Called by `table`; the
//! buckets by `analytics` too.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Value, json as value};

use crate::base::process::hostname;
use crate::shard::look::messages::MessageFilter;
use crate::telemetry::history::{Bucket, Snapshot};
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::dead::{Page, failed};
use crate::wire::http::ids::{Uuid, millis_text};
use crate::wire::http::messages;
use crate::wire::http::resources::{self, Listed, Partition, Six, all, listed, queue_of, sum};
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, Row, get};
use crate::wire::http::times::Range;
use crate::wire::http::url::Query;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Queues, partitions or messages on a page where nothing is said, and at most.
const LIMIT_DEFAULT: u64 = 100;
const MESSAGES_DEFAULT: u64 = 50;
const LIMIT_MAX: u64 = 1_000;
const OFFSET_MAX: u64 = 1_000_000;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    const QUEUE: &str = "/api/v1/status/queues/{queue}";
    const MESSAGES: &str = "/api/v1/status/queues/{queue}/messages";
    vec![
        get("/api/v1/status", READ_ONLY, "getStatus", "Everything now and over time", status),
        get("/api/v1/status/queues", READ_ONLY, "getStatusOfQueues", "Queues in numbers", queues),
        get(QUEUE, READ_ONLY, "getStatusOfQueue", "A queue and its partitions in numbers", queue),
        get(MESSAGES, READ_ONLY, "getStatusOfMessages", "The newest messages of a queue", newest),
        get("/api/v1/status/analytics", READ_ONLY, "getAnalytics",
            "Messages over time", analytics),
        get("/api/v1/status/buffers", READ_ONLY, "getBuffers",
            "What waits for the store", buffers),
    ]
}

/// A range and how it is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) range: Range,
    pub(super) bucket_ms: u64,
}

impl Cut {
    /// The range that a query asks for, in buckets of the contract's sizes.
    pub(super) fn of(query: &Query<'_>, now_ms: u64) -> Result<Self, Failure> {
        let range = Range::of(query, now_ms, HOUR_MS)?;
        let range = Range { to_ms: range.to_ms.min(now_ms), ..range };
        let minutes = match range.to_ms.saturating_sub(range.from_ms) {
            span if span <= HOUR_MS => 1,
            span if span <= 6 * HOUR_MS => 5,
            span if span <= DAY_MS => 15,
            span if span <= 7 * DAY_MS => 60,
            _ => 360,
        };
        Ok(Self { range, bucket_ms: minutes * MINUTE_MS })
    }

    /// As answers name it.
    pub(super) fn json(self) -> Value {
        let Range { from_ms, to_ms } = self.range;
        value!({ "from": millis_text(from_ms), "to": millis_text(to_ms) })
    }

    pub(super) fn minutes(self) -> u64 {
        self.bucket_ms / MINUTE_MS
    }

    /// The buckets, the newest first.
    pub(super) fn buckets(self, api: &Api) -> Vec<Bucket<Snapshot>> {
        let Range { from_ms, to_ms } = self.range;
        let mut buckets = api.history.buckets(from_ms, to_ms, self.bucket_ms);
        buckets.reverse();
        buckets
    }
}

/// How many a second.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn percent(used_us: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { used_us as f64 / 10_000.0 / seconds } else { 0.0 }
}

async fn status(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(read_status(&api, &query.unwrap_or_default()).await)
}

fn point(bucket: &Bucket<Snapshot>) -> Value {
    let Bucket { start_ms, seconds, counted } = *bucket;
    value!({
        "timestamp": millis_text(start_ms),
        "ingested": counted.pushed,
        "processed": counted.acked,
        "popMessages": counted.popped,
        "ingestedPerSecond": per_second(counted.pushed, seconds),
        "processedPerSecond": per_second(counted.acked, seconds),
        "popPerSecond": per_second(counted.popped, seconds),
        "avgLagMs": counted.lag_avg_ms,
        "maxLagMs": counted.lag_max_ms,
        "avgEventLoopLagMs": 0,
        "maxEventLoopLagMs": 0,
        "minFreeSlots": 0,
        "dbErrors": counted.errors,
        "ackFailed": counted.ack_failed,
        "dlqCount": counted.dead,
        "queenCpuUserPct": percent(counted.user_us, seconds),
        "queenCpuSysPct": percent(counted.system_us, seconds),
        "queenRssMb": counted.rss_bytes / (1 << 20),
        "dbPoolActive": counted.db_active,
        "dbPoolIdle": counted.db_idle,
        "dbPoolSize": counted.db_active + counted.db_idle,
    })
}

fn efficiency(messages: u64, requests: u64) -> f64 {
    if requests > 0 { messages as f64 / requests as f64 } else { 0.0 }
}

async fn read_status(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let now_ms = api.rooms.clock.now_ms();
    let cut = Cut::of(&query, now_ms)?;
    let mut figures = all(api).await?;
    resources::retain_asked(&mut figures, &query);
    let throughput: Vec<Value> = cut.buckets(api).iter().map(point).collect();
    let total = crate::wire::http::sampler::counted(api, now_ms);
    let counts = sum(&figures);
    let leased: u64 = figures.iter().map(|(_, it)| it.leased_partitions()).sum();
    let dead_partitions = api.rooms.engine.dead_partitions().await;
    let dead_partitions = dead_partitions.map_err(|error| failed(&error))?;
    let queues = figures.iter().map(|(queue, it)| {
        let counts = it.counts();
        value!({
            "id": Uuid::of_queue(queue.id),
            "name": queue.name,
            "namespace": queue.namespace,
            "task": queue.task,
            "partitions": it.partitions,
            "totalConsumed": it.pushed.saturating_sub(counts.pending + counts.processing),
        })
    });
    let mut messages = value!(Six::from(counts));
    if let Value::Object(fields) = &mut messages {
        let requests = value!({
            "push": total.push_requests, "pop": total.pop_requests, "ack": total.ack_requests,
        });
        let batches = value!({
            "push": efficiency(total.pushed, total.push_requests),
            "pop": efficiency(total.popped, total.pop_requests.saturating_sub(total.pop_empty)),
            "ack": efficiency(total.acked, total.ack_requests),
        });
        fields.insert("requests".into(), requests);
        fields.insert("batchEfficiency".into(), batches);
    }
    let body = value!({
        "timeRange": cut.json(),
        "bucketMinutes": cut.minutes(),
        "pointCount": throughput.len(),
        "throughput": throughput,
        "queues": queues.collect::<Vec<Value>>(),
        "messages": messages,
        "leases": {
            "active": leased, "partitionsWithLeases": leased,
            "totalBatchSize": counts.processing, "totalAcked": total.acked,
        },
        "deadLetterQueue": {
            "totalMessages": counts.dead, "affectedPartitions": dead_partitions,
            "topErrors": api.errors.top(api).await?,
        },
        "workers": [{
            "hostname": hostname(), "workerId": 0, "avgEventLoopLagMs": 0,
            "maxEventLoopLagMs": 0, "freeSlots": 0,
            "dbConnections": total.db_active + total.db_idle, "jobQueueSize": 0,
            "messagesProcessed": total.acked,
        }],
        "errors": {
            "dbErrors": total.errors, "ackFailed": total.ack_failed, "dlqMessages": total.dead,
        },
        "statsAge": 0,
    });
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize)]
struct Queues<'a> {
    queues: Vec<Listed<'a>>,
    total: u64,
    pagination: Page,
}

async fn queues(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(read_queues(&api, &query.unwrap_or_default()).await)
}

async fn read_queues(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let pagination = Page::of(&query, api.dialect, LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX)?;
    let mut figures = all(api).await?;
    resources::retain_asked(&mut figures, &query);
    let page = figures.iter().skip(pagination.offset as usize).take(pagination.limit as usize);
    let queues = page.map(|(queue, figures)| listed(queue, figures)).collect();
    Ok(json(StatusCode::OK, &Queues { queues, total: figures.len() as u64, pagination }))
}

async fn queue(
    State(api): Door,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answer {
    settle(match of_path(name) {
        Ok(name) => read_queue(&api, &name, &query.unwrap_or_default()).await,
        Err(refused) => Err(refused),
    })
}

async fn read_queue(api: &Api, name: &str, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let page = Page::of(&query, api.dialect, LIMIT_MAX, 10 * LIMIT_MAX, OFFSET_MAX)?;
    let queue = queue_of(api, name)?;
    let counts = Six::from(resources::figures_of(api, queue.id).await?.counts());
    let (partitions, total) = resources::partitions_of(api, &queue, page).await?;
    let now_ms = api.rooms.clock.now_ms();
    let partitions: Vec<Partition<'_>> =
        partitions.iter().map(|it| resources::partition(&queue, it, now_ms)).collect();
    let options = &queue.options;
    let mut totals = value!(counts);
    if let Value::Object(fields) = &mut totals {
        fields.insert("messages".into(), value!(counts));
    }
    let body = value!({
        "queue": {
            "id": Uuid::of_queue(queue.id),
            "name": queue.name,
            "namespace": queue.namespace,
            "task": queue.task,
            "priority": options.priority,
            "createdAt": millis_text(queue.created_ms),
            "config": {
                "leaseTime": options.lease_time_s,
                "retryLimit": options.retry_limit,
                "retryDelay": options.retry_delay_ms,
                "ttl": options.ttl_s,
                "maxQueueSize": options.max_size,
                "deadLetterQueue": options.dead_letter_queue,
            },
        },
        "partitions": value!(partitions),
        "partitionCount": total,
        "totals": totals,
    });
    Ok(json(StatusCode::OK, &body))
}

async fn newest(
    State(api): Door,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answer {
    settle(match of_path(name) {
        Ok(name) => read_newest(&api, &name, &query.unwrap_or_default()).await,
        Err(refused) => Err(refused),
    })
}

/// A list without a frame, as the contract has it.
async fn read_newest(api: &Api, name: &str, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let page = Page::of(&query, api.dialect, MESSAGES_DEFAULT, LIMIT_MAX, OFFSET_MAX)?;
    let queue = queue_of(api, name)?;
    let filter =
        MessageFilter { queues: Some(vec![queue.id]), to_ms: u64::MAX, ..MessageFilter::default() };
    messages::plain(api, filter, page).await
}

async fn analytics(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(read_analytics(&api, &query.unwrap_or_default()))
}

fn read_analytics(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let (interval, bucket_ms) = match query.get("interval") {
        None | Some("hour") => ("hour", HOUR_MS),
        Some("minute") => ("minute", MINUTE_MS),
        Some("day") => ("day", DAY_MS),
        Some(_) => return Err(Failure::value("interval must be minute, hour or day")),
    };
    let range = Range::of(&query, api.rooms.clock.now_ms(), DAY_MS)?;
    let to_ms = range.to_ms.min(api.rooms.clock.now_ms());
    let buckets = api.history.buckets(range.from_ms, to_ms, bucket_ms);
    let point = |bucket: &Bucket<Snapshot>| value!({ "timestamp": millis_text(bucket.start_ms), "messages": bucket.counted.pushed });
    let body = value!({
        "dataPoints": buckets.iter().map(point).collect::<Vec<Value>>(),
        "interval": interval,
        "from": millis_text(range.from_ms),
        "to": millis_text(to_ms),
    });
    Ok(json(StatusCode::OK, &body))
}

async fn buffers(State(api): Door) -> Answer {
    let telemetry = &api.rooms.telemetry;
    let body = value!({
        "pending": telemetry.spill_waiting.get(),
        "failed": telemetry.quarantined.get(),
        "dbHealthy": telemetry.store_away.get() == 0,
        "worker": 0,
        "ringBytes": api.rooms.engine.buffers().budget().used(),
    });
    json(StatusCode::OK, &body)
}
