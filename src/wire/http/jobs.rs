//! Jobs over dead letters: give them back, push them again, delete them.
//!
//! In: which letters, how many, how fast. Out: the job, at once; it goes on by itself, also after a
//! restart, and its progress is to be asked for. Called by `table`.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use hyper::StatusCode;
use onrush_protocol::code::Code;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalog::CatalogError;
use crate::shard::tend::{Ask, Tended};
use crate::state::care::job::{Action, Job, JobState, RUNNING_MAX};
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::dead::failed;
use crate::wire::http::ids::millis_text;
use crate::wire::http::queues;
use crate::wire::http::shape::{self, Object, optional_text};
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, delete, get, post};

/// Longest text to look for in errors, bytes.
const ERROR_BYTES_MAX: usize = 1_024;
/// Most letters a second that can be asked for.
const RATE_MAX: u64 = 1_000_000;

/// The routes of this file.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    const JOB: &str = "/api/v1/dlq/jobs/{id}";
    vec![
        post("/api/v1/dlq/redrive", READ_WRITE, "redriveDeadLetters",
            "Give dead letters back to their groups, as a job", redrive),
        post("/api/v1/dlq/requeue", READ_WRITE, "requeueDeadLetters",
            "Push dead letters as new messages, as a job", requeue),
        post("/api/v1/dlq/delete", READ_WRITE, "deleteDeadLetters",
            "Delete dead letters, as a job", purge),
        get("/api/v1/dlq/jobs", READ_ONLY, "listDeadLetterJobs",
            "Jobs over dead letters, newest first", list),
        get(JOB, READ_ONLY, "getDeadLetterJob", "One job and its progress", show),
        delete(JOB, READ_WRITE, "cancelDeadLetterJob", "Stop a job where it is", cancel),
    ]
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(borrow)]
    queue: Option<&'a RawValue>,
    consumer_group: Option<&'a RawValue>,
    partition: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    limit: Option<&'a RawValue>,
    rate_per_second: Option<&'a RawValue>,
    dry_run: Option<&'a RawValue>,
    /// Of a requeue: where to.
    to_queue: Option<&'a RawValue>,
    to_partition: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: u32,
    job_id: u32,
    action: &'static str,
    status: &'static str,
    queue: &'a str,
    consumer_group: Option<&'a str>,
    partition: Option<&'a str>,
    error: Option<&'a str>,
    limit: Option<u64>,
    rate_per_second: Option<u32>,
    dry_run: bool,
    moved: u64,
    skipped: u64,
    deferred: u64,
    created_at: String,
    updated_at: String,
    problem: Option<&'a str>,
}

#[derive(Serialize)]
struct Listed<'a> {
    jobs: Vec<Shown<'a>>,
}

async fn redrive(State(api): Door, body: Bytes) -> Answer {
    settle(begin(&api, &body, Kind::Redrive).await)
}

async fn requeue(State(api): Door, body: Bytes) -> Answer {
    settle(begin(&api, &body, Kind::Requeue).await)
}

async fn purge(State(api): Door, body: Bytes) -> Answer {
    settle(begin(&api, &body, Kind::Delete).await)
}

async fn list(State(api): Door) -> Answer {
    let catalog = api.rooms.engine.catalog_now();
    let jobs = catalog.jobs().iter().rev().map(|job| shown(job)).collect();
    json(StatusCode::OK, &Listed { jobs })
}

async fn show(State(api): Door, id: Result<Path<u32>, PathRejection>) -> Answer {
    settle(of_path(id).and_then(|id| {
        let catalog = api.rooms.engine.catalog_now();
        let job = catalog.jobs().get(id).ok_or_else(no_job)?;
        Ok(json(StatusCode::OK, &shown(job)))
    }))
}

async fn cancel(State(api): Door, id: Result<Path<u32>, PathRejection>) -> Answer {
    settle(stop(&api, id).await)
}

async fn stop(api: &Api, id: Result<Path<u32>, PathRejection>) -> Result<Answer, Failure> {
    let cancelled = api.rooms.engine.tend(Ask::Cancel(of_path(id)?)).await;
    match cancelled.map_err(|error| failed(&error))? {
        Tended::Job(Some(job)) => Ok(json(StatusCode::OK, &shown(&job))),
        _ => Err(no_job()),
    }
}

fn no_job() -> Failure {
    Failure::of_http(StatusCode::NOT_FOUND, "job_not_found", "there is no such job")
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Redrive,
    Requeue,
    Delete,
}

async fn begin(api: &Api, body: &[u8], kind: Kind) -> Result<Answer, Failure> {
    let required = || Failure::malformed("queue is required");
    let Object::Is(raw) = shape::read::<Object<Raw<'_>>>(body)? else { return Err(required()) };
    let name: QueueName = raw.queue.and_then(shape::text).ok_or_else(required)?.parse()?;
    let queue = api.rooms.catalogs.find(&name);
    let queue = queue.ok_or_else(|| queues::failed(&CatalogError::NotFound(name.clone())))?;
    let group = optional_text(raw.consumer_group, "consumerGroup must be a string")?;
    let group = group.map(|text| text.parse::<GroupName>()).transpose()?;
    let partition = optional_text(raw.partition, "partition must be a string")?;
    let partition = partition.map(|text| text.parse::<PartitionName>()).transpose()?;
    let error = optional_text(raw.error, "error must be a string")?;
    if error.as_ref().is_some_and(|text| text.len() > ERROR_BYTES_MAX) {
        let message = format!("error is longer than {ERROR_BYTES_MAX} bytes");
        return Err(Failure::value(message).limit(ERROR_BYTES_MAX as u64));
    }
    let dry_run = match raw.dry_run.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Failure::value("dryRun must be true or false")),
    };
    let action = match kind {
        Kind::Redrive => Action::Redrive,
        Kind::Delete => Action::Delete,
        Kind::Requeue => requeue_to(api, &raw, &name).await?,
    };
    let job = Job {
        id: 0,
        action,
        queue: queue.id,
        queue_name: queue.name.clone(),
        group: group.map(|name| name.as_str().into()),
        partition: partition.map(|name| name.as_str().into()),
        error: error.map(|text| Box::from(&*text)),
        limit: whole(raw.limit, "limit", u64::MAX)?,
        rate: whole(raw.rate_per_second, "ratePerSecond", RATE_MAX)? as u32,
        dry_run,
        created_ms: 0,
        state: JobState::Running,
        moved: 0,
        skipped: 0,
        deferred: 0,
        cursor: None,
        engine: 0,
        stepped_ms: 0,
        problem: Box::default(),
    };
    let begun = api.rooms.engine.tend(Ask::Begin(Box::new(job))).await;
    match begun.map_err(|error| failed(&error))? {
        Tended::Job(Some(job)) => Ok(json(StatusCode::ACCEPTED, &shown(&job))),
        _ => {
            let message = format!("{RUNNING_MAX} jobs are running; wait for one of them");
            Err(Failure::new(Code::QuotaExceeded, message).limit(RUNNING_MAX as u64))
        }
    }
}

/// Where letters are pushed again; a queue that does not exist is made where pushes make them.
async fn requeue_to(api: &Api, raw: &Raw<'_>, own: &QueueName) -> Result<Action, Failure> {
    let queue = optional_text(raw.to_queue, "toQueue must be a string")?;
    let queue = queue.map(|text| text.parse::<QueueName>()).transpose()?;
    let queue = queue.unwrap_or_else(|| own.clone());
    let partition = optional_text(raw.to_partition, "toPartition must be a string")?;
    let partition = partition.map(|text| text.parse::<PartitionName>()).transpose()?;
    let found = api.rooms.catalogs.find_or_create(&queue).await;
    let found = found.map_err(|error| queues::failed(&error))?;
    Ok(Action::Requeue { queue: found.id, partition: partition.map(|it| it.as_str().into()) })
}

fn whole(raw: Option<&RawValue>, name: &str, max: u64) -> Result<u64, Failure> {
    let Some(raw) = raw else { return Ok(0) };
    let number = raw.get().parse::<u64>().ok().filter(|it| (1..=max).contains(it));
    number.ok_or_else(|| Failure::value(format!("{name} must be a whole number from 1 to {max}")))
}

fn shown(job: &Job) -> Shown<'_> {
    Shown {
        id: job.id,
        job_id: job.id,
        action: match job.action {
            Action::Redrive => "redrive",
            Action::Requeue { .. } => "requeue",
            Action::Delete => "delete",
        },
        status: match job.state {
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Cancelled => "cancelled",
            JobState::Failed => "failed",
        },
        queue: &job.queue_name,
        consumer_group: job.group.as_deref(),
        partition: job.partition.as_deref(),
        error: job.error.as_deref(),
        limit: (job.limit > 0).then_some(job.limit),
        rate_per_second: (job.rate > 0).then_some(job.rate),
        dry_run: job.dry_run,
        moved: job.moved,
        skipped: job.skipped,
        deferred: job.deferred,
        created_at: millis_text(job.created_ms),
        updated_at: millis_text(job.stepped_ms),
        problem: (!job.problem.is_empty()).then_some(&job.problem),
    }
}
