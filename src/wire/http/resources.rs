//! Resources over HTTP: queues, their partitions, namespaces, tasks, and all of them in one look.
//!
//! In: names. Out: numbers that are true when they are asked for, shard by shard. Called by `table`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use hyper::StatusCode;
use onrush_protocol::name::{PartitionName, QueueName};
use serde::Serialize;

use crate::base::place::QueueId;
use crate::catalog::CatalogError;
use crate::shard::look::figures::{Counts, PartitionFigures, QueueFigures};
use crate::state::catalog::QueueDefinition;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::dead::{Page, failed, refused};
use crate::wire::http::ids::{Uuid, millis_text};
use crate::wire::http::options::Shown;
use crate::wire::http::queues;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{ADMIN, READ_ONLY, Row, delete, get};
use crate::wire::http::url::Query;

/// Partitions on a page where nothing is said, and at most.
const PARTITIONS_DEFAULT: u64 = 1_000;
const PARTITIONS_MAX: u64 = 10_000;
const OFFSET_MAX: u64 = u32::MAX as u64;
/// Queues of a list, where nothing is said and at most.
const QUEUES_MAX: u64 = u32::MAX as u64;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    const QUEUES: &str = "/api/v1/resources/queues";
    // The empty name is legal, and its path has no segment for it.
    const NAMELESS: &str = "/api/v1/resources/queues/";
    const QUEUE: &str = "/api/v1/resources/queues/{queue}";
    vec![
        get(QUEUES, READ_ONLY, "listQueues", "All queues, newest first", list),
        get(NAMELESS, READ_ONLY, "getNamelessQueue", "The queue without a name", nameless),
        get(QUEUE, READ_ONLY, "getQueue", "One queue with its settings and partitions", show),
        get("/api/v1/resources/queues/{queue}/depth", READ_ONLY, "getQueueDepth",
            "How many messages of a queue are open", depth),
        get("/api/v1/resources/namespaces", READ_ONLY, "listNamespaces",
            "Namespaces of queues", namespaces),
        get("/api/v1/resources/tasks", READ_ONLY, "listTasks", "Tasks of queues", tasks),
        get("/api/v1/resources/overview", READ_ONLY, "getOverview",
            "Everything in numbers", overview),
        get("/api/v1/resources/partitions", READ_ONLY, "listPartitions",
            "Partitions of a queue in numbers", partitions),
        delete("/api/v1/queues/{queue}/clear", ADMIN, "clearQueue",
            "Let go of all messages of a queue, or of one partition", clear),
    ]
}

/// Counts as the contract names them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Six {
    pub(super) total: u64,
    pub(super) pending: u64,
    pub(super) processing: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) dead_letter: u64,
}

impl From<Counts> for Six {
    fn from(counts: Counts) -> Self {
        let Counts { total, pending, processing, completed, failed, dead } = counts;
        Self { total, pending, processing, completed, failed, dead_letter: dead }
    }
}

/// The numbers of a queue in a list.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Three {
    total: u64,
    pending: u64,
    processing: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group<'a> {
    name: &'a str,
    pending: u64,
    processing: u64,
    dead_letter: u64,
    leased_partitions: u64,
}

/// A queue in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed<'a> {
    id: Uuid,
    name: &'a str,
    namespace: &'a str,
    task: &'a str,
    created_at: String,
    partitions: u64,
    messages: Three,
    groups: Vec<Group<'a>>,
}

#[derive(Serialize)]
struct List<'a> {
    queues: Vec<Listed<'a>>,
    /// How many were asked for, of which a page may be shown.
    total: u64,
}

/// A partition in numbers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Partition<'a> {
    id: Uuid,
    name: &'a str,
    /// The same by the name that other lists know it by.
    partition: &'a str,
    queue: &'a str,
    /// When its first message came, as long as that is kept.
    created_at: Option<String>,
    pending: u64,
    processing: u64,
    /// How long its oldest open message has been waiting.
    lag_seconds: u64,
    stats: Six,
    messages: Six,
    cursor: Cursor,
    last_activity: Option<String>,
    oldest_message: Option<String>,
    newest_message: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cursor {
    total_consumed: u64,
    batches_consumed: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    id: Uuid,
    name: &'a str,
    namespace: &'a str,
    task: &'a str,
    created_at: String,
    partitions: Vec<Partition<'a>>,
    partition_count: u64,
    messages: Six,
    totals: Six,
    groups: Vec<Group<'a>>,
    options: Shown<'a>,
}

/// All queues with their figures, newest first.
pub(super) async fn all(api: &Api) -> Result<Vec<(Arc<QueueDefinition>, QueueFigures)>, Failure> {
    api.rooms.delivery.queues().await.map_err(|error| failed(&error))
}

/// Leaves those that a query asks for, by `queue`, `namespace` and `task`.
pub(super) fn retain_asked(
    queues: &mut Vec<(Arc<QueueDefinition>, QueueFigures)>,
    query: &Query<'_>,
) {
    let is_asked = |name: &str, key: &str| query.get(key).is_none_or(|it| it == name);
    queues.retain(|(queue, _)| {
        is_asked(&queue.name, "queue")
            && is_asked(&queue.namespace, "namespace")
            && is_asked(&queue.task, "task")
    });
}

/// A queue as lists show it.
pub(super) fn listed<'a>(queue: &'a QueueDefinition, figures: &'a QueueFigures) -> Listed<'a> {
    let Counts { total, pending, processing, .. } = figures.counts();
    Listed {
        id: Uuid::of_queue(queue.id),
        name: &queue.name,
        namespace: &queue.namespace,
        task: &queue.task,
        created_at: millis_text(queue.created_ms),
        partitions: figures.partitions,
        messages: Three { total, pending, processing },
        groups: groups(figures),
    }
}

fn groups(figures: &QueueFigures) -> Vec<Group<'_>> {
    let groups = figures.groups.iter().map(|(name, group)| Group {
        name,
        pending: group.counts.pending,
        processing: group.counts.processing,
        dead_letter: group.counts.dead,
        leased_partitions: group.leased_partitions,
    });
    groups.collect()
}

async fn list(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(read_list(&api, &query.unwrap_or_default()).await)
}

/// All queues that are asked for, unless a page of them is.
async fn read_list(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let page = Page::of(&query, api.dialect, QUEUES_MAX, QUEUES_MAX, OFFSET_MAX)?;
    let mut queues = all(api).await?;
    retain_asked(&mut queues, &query);
    let search = query.get("search").unwrap_or_default();
    queues.retain(|(queue, _)| queue.name.contains(search));
    let total = queues.len() as u64;
    let page = queues.iter().skip(page.offset as usize).take(page.limit as usize);
    let queues = page.map(|(queue, figures)| listed(queue, figures)).collect();
    Ok(json(StatusCode::OK, &List { queues, total }))
}

async fn nameless(State(api): Door) -> Answer {
    settle(one(&api, "", "").await)
}

async fn show(
    State(api): Door,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answer {
    settle(match of_path(name) {
        Ok(name) => one(&api, &name, &query.unwrap_or_default()).await,
        Err(refused) => Err(refused),
    })
}

/// A queue that a path names.
pub(super) fn queue_of(api: &Api, name: &str) -> Result<Arc<QueueDefinition>, Failure> {
    let name: QueueName = name.parse()?;
    let found = api.rooms.catalogs.find(&name);
    found.ok_or_else(|| queues::failed(&CatalogError::NotFound(name)))
}

/// The figures of one queue.
pub(super) async fn figures_of(api: &Api, id: QueueId) -> Result<QueueFigures, Failure> {
    api.rooms.engine.queue_figures(id).await.map_err(|error| failed(&error))
}

/// A page of a queue's partitions, and how many there are.
pub(super) async fn partitions_of(
    api: &Api,
    queue: &QueueDefinition,
    page: Page,
) -> Result<(Vec<PartitionFigures>, u64), Failure> {
    let (offset, limit) = (page.offset as usize, page.limit as usize);
    let found = api.rooms.engine.partition_figures(queue.id, offset, limit).await;
    found.map_err(|error| failed(&error))
}

/// A partition as answers show it.
pub(super) fn partition<'a>(
    queue: &'a QueueDefinition,
    figures: &'a PartitionFigures,
    now_ms: u64,
) -> Partition<'a> {
    let counts = Six::from(figures.counts);
    let lag_ms = figures.open_ms.map_or(0, |open_ms| now_ms.saturating_sub(open_ms));
    let newest = figures.newest_ms.map(millis_text);
    Partition {
        id: Uuid::of_partition(figures.number),
        name: &figures.name,
        partition: &figures.name,
        queue: &queue.name,
        created_at: figures.first_ms.map(millis_text),
        pending: counts.pending,
        processing: counts.processing,
        lag_seconds: lag_ms / 1000,
        stats: counts,
        messages: counts,
        cursor: Cursor { total_consumed: figures.consumed, batches_consumed: 0 },
        last_activity: newest.clone(),
        oldest_message: figures.oldest_ms.map(millis_text),
        newest_message: newest,
    }
}

async fn one(api: &Api, name: &str, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let page = Page::of(&query, api.dialect, PARTITIONS_DEFAULT, PARTITIONS_MAX, OFFSET_MAX)?;
    let queue = queue_of(api, name)?;
    let figures = figures_of(api, queue.id).await?;
    let (partitions, partition_count) = partitions_of(api, &queue, page).await?;
    let sql_rows = api.rooms.catalogs.has_sql_rows(&queue);
    let now_ms = api.rooms.clock.now_ms();
    let totals = Six::from(figures.counts());
    let body = One {
        id: Uuid::of_queue(queue.id),
        name: &queue.name,
        namespace: &queue.namespace,
        task: &queue.task,
        created_at: millis_text(queue.created_ms),
        partitions: partitions.iter().map(|it| partition(&queue, it, now_ms)).collect(),
        partition_count,
        messages: totals,
        totals,
        groups: groups(&figures),
        options: Shown { options: &queue.options, sql_rows },
    };
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Depth<'a> {
    queue: &'a str,
    group: Option<&'a str>,
    pending: u64,
    partitions_pending: u64,
    /// No group here is handed only the newest message of a partition.
    conflation: bool,
    effective_pending: u64,
    partitions: Vec<PartitionDepth<'a>>,
}

#[derive(Serialize)]
struct PartitionDepth<'a> {
    partition: &'a str,
    pending: u64,
}

async fn depth(
    State(api): Door,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answer {
    settle(match of_path(name) {
        Ok(name) => read_depth(&api, &name, &query.unwrap_or_default()).await,
        Err(refused) => Err(refused),
    })
}

/// Open messages by partition; a group that has not come yet has all of them open.
async fn read_depth(api: &Api, name: &str, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let group = query.get("group").or_else(|| query.get("consumerGroup"));
    let page = Page::of(&query, api.dialect, PARTITIONS_MAX, PARTITIONS_MAX, OFFSET_MAX)?;
    let queue = queue_of(api, name)?;
    let (figures, _) = partitions_of(api, &queue, page).await?;
    let open = |it: &PartitionFigures| {
        let of_group = |name: &str| it.groups.iter().find(|(group, _)| **group == *name);
        let counts = match group {
            None => it.counts,
            Some(name) => of_group(name)
                .map_or(Counts { pending: it.counts.total, ..Counts::default() }, |(_, counts)| {
                    *counts
                }),
        };
        counts.pending + counts.processing
    };
    let page = figures.iter().map(|it| PartitionDepth { partition: &it.name, pending: open(it) });
    let partitions: Vec<PartitionDepth<'_>> = page.filter(|it| it.pending > 0).collect();
    // Of all partitions, also where a page does not hold them.
    let depth = api.rooms.engine.queue_depth(queue.id, group).await;
    let (pending, partitions_pending) = depth.map_err(|error| failed(&error))?;
    let body = Depth {
        queue: &queue.name,
        group,
        pending,
        partitions_pending,
        conflation: false,
        effective_pending: pending,
        partitions,
    };
    Ok(json(StatusCode::OK, &body))
}

/// Queues that share a label.
#[derive(Default, Serialize)]
struct Label {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Box<str>>,
    queues: u64,
    partitions: u64,
    messages: Open,
}

#[derive(Default, Serialize)]
struct Open {
    total: u64,
    pending: u64,
}

async fn labels(
    api: &Api,
    label: impl Fn(&QueueDefinition) -> &Box<str>,
) -> Result<BTreeMap<Box<str>, Label>, Failure> {
    let mut labels: BTreeMap<Box<str>, Label> = BTreeMap::new();
    for (queue, figures) in all(api).await? {
        let counts = figures.counts();
        let sum = labels.entry(label(&queue).clone()).or_default();
        sum.queues += 1;
        sum.partitions += figures.partitions;
        sum.messages.total += counts.total;
        sum.messages.pending += counts.pending;
    }
    Ok(labels)
}

#[derive(Serialize)]
struct Namespaces {
    namespaces: Vec<Label>,
}

async fn namespaces(State(api): Door) -> Answer {
    settle(labels(&api, |queue| &queue.namespace).await.map(|labels| {
        let named = labels.into_iter();
        let namespaces =
            named.map(|(name, label)| Label { namespace: Some(name), ..label }).collect();
        json(StatusCode::OK, &Namespaces { namespaces })
    }))
}

#[derive(Serialize)]
struct Tasks {
    tasks: Vec<Label>,
}

async fn tasks(State(api): Door) -> Answer {
    settle(labels(&api, |queue| &queue.task).await.map(|labels| {
        let named = labels.into_iter();
        let tasks = named.map(|(name, label)| Label { task: Some(name), ..label }).collect();
        json(StatusCode::OK, &Tasks { tasks })
    }))
}

/// Four figures of some numbers.
#[derive(Default, Serialize)]
struct Spread {
    avg: f64,
    median: f64,
    min: u64,
    max: u64,
}

impl Spread {
    fn of(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        let (Some(min), Some(max)) = (numbers.first(), numbers.last()) else {
            return Self::default();
        };
        let sum: u64 = numbers.iter().sum();
        let median = numbers.get(numbers.len() / 2).copied().unwrap_or(0);
        let avg = sum as f64 / numbers.len() as f64;
        Self { avg, median: median as f64, min: *min, max: *max }
    }
}

#[derive(Serialize)]
struct Lag {
    time: Spread,
    offset: Spread,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Throughput {
    ingested_per_second: f64,
    processed_per_second: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Overview {
    queues: u64,
    partitions: u64,
    namespaces: u64,
    tasks: u64,
    messages: Six,
    lag: Lag,
    throughput: Throughput,
    timestamp: String,
    stats_age: u64,
}

async fn overview(State(api): Door) -> Answer {
    settle(read_overview(&api).await)
}

/// The sum of all queues.
pub(super) fn sum(queues: &[(Arc<QueueDefinition>, QueueFigures)]) -> Counts {
    queues.iter().fold(Counts::default(), |mut sum, (_, figures)| {
        sum.add(&figures.counts());
        sum
    })
}

async fn read_overview(api: &Api) -> Result<Answer, Failure> {
    let queues = all(api).await?;
    let now_ms = api.rooms.clock.now_ms();
    let distinct = |label: fn(&QueueDefinition) -> &str| {
        let labels = queues.iter().map(|(queue, _)| label(queue)).filter(|it| !it.is_empty());
        labels.collect::<std::collections::BTreeSet<&str>>().len() as u64
    };
    let lags = queues.iter().filter_map(|(_, figures)| figures.oldest_ms());
    let lags = lags.map(|oldest| now_ms.saturating_sub(oldest) / 1000).collect();
    let offsets = queues.iter().map(|(_, figures)| {
        let counts = figures.counts();
        counts.pending + counts.processing
    });
    let rates = api.history.rates(now_ms);
    let body = Overview {
        queues: queues.len() as u64,
        partitions: queues.iter().map(|(_, figures)| figures.partitions).sum(),
        namespaces: distinct(|queue| &queue.namespace),
        tasks: distinct(|queue| &queue.task),
        messages: sum(&queues).into(),
        lag: Lag { time: Spread::of(lags), offset: Spread::of(offsets.collect()) },
        throughput: Throughput { ingested_per_second: rates.0, processed_per_second: rates.1 },
        timestamp: millis_text(now_ms),
        stats_age: 0,
    };
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize)]
struct Partitions<'a> {
    partitions: Vec<Partition<'a>>,
    total: u64,
    pagination: Page,
}

async fn partitions(State(api): Door, RawQuery(query): RawQuery) -> Answer {
    settle(read_partitions(&api, &query.unwrap_or_default()).await)
}

async fn read_partitions(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let name = query.get("queue").ok_or_else(|| Failure::malformed("queue is required"))?;
    let pagination = Page::of(&query, api.dialect, PARTITIONS_DEFAULT, PARTITIONS_MAX, OFFSET_MAX)?;
    let queue = queue_of(api, name)?;
    let (mut figures, total) = partitions_of(api, &queue, pagination).await?;
    // The busiest of the page come first.
    figures.sort_by_key(|it| Reverse(it.counts.pending + it.counts.processing));
    let now_ms = api.rooms.clock.now_ms();
    let partitions = figures.iter().map(|it| partition(&queue, it, now_ms)).collect();
    Ok(json(StatusCode::OK, &Partitions { partitions, total, pagination }))
}

#[derive(Serialize)]
struct Cleared<'a> {
    cleared: bool,
    queue: &'a str,
    partition: Option<&'a str>,
    messages: u64,
}

async fn clear(
    State(api): Door,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answer {
    settle(match of_path(name) {
        Ok(name) => clear_queue(&api, &name, &query.unwrap_or_default()).await,
        Err(refused) => Err(refused),
    })
}

async fn clear_queue(api: &Api, name: &str, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let partition = query.get("partition").map(str::parse::<PartitionName>).transpose()?;
    let name: QueueName = name.parse()?;
    let messages = api.rooms.delivery.clear(&name, partition.as_ref()).await;
    let messages = messages.map_err(|error| refused(&error))?;
    let partition = partition.as_ref().map(PartitionName::as_str);
    let body = Cleared { cleared: true, queue: name.as_str(), partition, messages };
    Ok(json(StatusCode::OK, &body))
}
