//! Jobs over dead letters: give them back, push them again, delete them.
//!
//! In: which letters, how many, how fast. Out: the job, at once; it goes on by itself, also after a
//! restart, and its progress is to be asked for. Called by `table`.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use hyper::StatusCode;
use onrush_protocol::limits::{JOB_ERROR_BYTES_MAX, JOB_RATE_MAX};
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::delivery::desk::{JobAim, JobOrder};
use crate::state::care::job::{Action, Job, JobState};
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::dead::refused;
use crate::wire::http::ids::millis_text;
use crate::wire::http::shape::{self, Object, optional_text};
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, delete, get, post};

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
    let jobs = api.rooms.delivery.jobs();
    json(StatusCode::OK, &Listed { jobs: jobs.iter().map(|job| shown(job)).collect() })
}

async fn show(State(api): Door, id: Result<Path<u32>, PathRejection>) -> Answer {
    settle(of_path(id).and_then(|id| {
        let job = api.rooms.delivery.job(id).map_err(|error| refused(&error))?;
        Ok(json(StatusCode::OK, &shown(&job)))
    }))
}

async fn cancel(State(api): Door, id: Result<Path<u32>, PathRejection>) -> Answer {
    let cancel = async {
        let job = api.rooms.delivery.cancel_job(of_path(id)?).await;
        Ok(json(StatusCode::OK, &shown(&job.map_err(|error| refused(&error))?)))
    };
    settle(cancel.await)
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
    let group = optional_text(raw.consumer_group, "consumerGroup must be a string")?;
    let group = group.map(|text| text.parse::<GroupName>()).transpose()?;
    let partition = optional_text(raw.partition, "partition must be a string")?;
    let partition = partition.map(|text| text.parse::<PartitionName>()).transpose()?;
    let error = optional_text(raw.error, "error must be a string")?;
    if error.as_ref().is_some_and(|text| text.len() > JOB_ERROR_BYTES_MAX) {
        let message = format!("error is longer than {JOB_ERROR_BYTES_MAX} bytes");
        return Err(Failure::value(message).limit(JOB_ERROR_BYTES_MAX as u64));
    }
    let dry_run = match raw.dry_run.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Failure::value("dryRun must be true or false")),
    };
    let aim = match kind {
        Kind::Redrive => JobAim::Redrive,
        Kind::Delete => JobAim::Delete,
        Kind::Requeue => requeue_to(&raw)?,
    };
    let order = JobOrder {
        aim,
        queue: name,
        group,
        partition,
        error: error.map(|text| Box::from(&*text)),
        limit: whole(raw.limit, "limit", u64::MAX)?,
        rate: whole(raw.rate_per_second, "ratePerSecond", u64::from(JOB_RATE_MAX))? as u32,
        dry_run,
    };
    let job = api.rooms.delivery.begin_job(order).await.map_err(|error| refused(&error))?;
    Ok(json(StatusCode::ACCEPTED, &shown(&job)))
}

/// Where letters are pushed again.
fn requeue_to(raw: &Raw<'_>) -> Result<JobAim, Failure> {
    let queue = optional_text(raw.to_queue, "toQueue must be a string")?;
    let queue = queue.map(|text| text.parse::<QueueName>()).transpose()?;
    let partition = optional_text(raw.to_partition, "toPartition must be a string")?;
    let partition = partition.map(|text| text.parse::<PartitionName>()).transpose()?;
    Ok(JobAim::Requeue { queue, partition })
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
