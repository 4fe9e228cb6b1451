//! Jobs over dead letters: begun, looked at, stopped, waited for.
//!
//! In: what a job shall do. Out: its progress while it is waited for, and how it ended. A job goes on at the
//! server whether anybody waits or not: Ctrl-C ends the waiting alone. Called by `dlq`.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use crate::column::{Column, Kind, column};
use crate::fault::Fault;
use crate::http::path;
use crate::interrupt::Interrupt;
use crate::output::{Format, Shape, View, value};
use crate::progress::{Progress, count};
use crate::session::Session;

/// How often a job that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All jobs, newest first
    #[command(alias = "ls")]
    List,
    /// One job and its progress
    Show { id: u32 },
    /// Wait until a job has ended
    Wait { id: u32 },
    /// Stop a job where it is; what it has moved stays moved
    Cancel { id: u32 },
}

const JOBS: View = View {
    list: Some("jobs"),
    columns: &[
        column("ID", "/id", Kind::Count),
        column("ACTION", "/action", Kind::Text),
        column("QUEUE", "/queue", Kind::Text),
        column("GROUP", "/consumerGroup", Kind::Text),
        column("STATUS", "/status", Kind::State),
        column("MOVED", "/moved", Kind::Count),
        column("SKIPPED", "/skipped", Kind::Count),
        column("DEFERRED", "/deferred", Kind::Count),
        column("DRY RUN", "/dryRun", Kind::Text),
        column("AGE", "/createdAt", Kind::Age),
    ],
    empty: "no jobs; `onrushctl dlq redrive`, `requeue` and `delete` begin them",
};

const JOB: &[Column] = &[
    column("job", "/id", Kind::Count),
    column("action", "/action", Kind::Text),
    column("queue", "/queue", Kind::Text),
    column("group", "/consumerGroup", Kind::Text),
    column("partition", "/partition", Kind::Text),
    column("error", "/error", Kind::Long),
    column("limit", "/limit", Kind::Count),
    column("letters a second", "/ratePerSecond", Kind::Count),
    column("dry run", "/dryRun", Kind::Text),
    column("status", "/status", Kind::State),
    column("moved", "/moved", Kind::Count),
    column("skipped", "/skipped", Kind::Count),
    column("deferred", "/deferred", Kind::Count),
    column("begun", "/createdAt", Kind::Time),
    column("last step", "/updatedAt", Kind::Time),
    column("problem", "/problem", Kind::Text),
];

pub(crate) async fn run(session: &mut Session, command: Command) -> Result<(), Fault> {
    match command {
        Command::List => {
            let body = session.get(&path(&["dlq", "jobs"])).await?;
            session.output.list(&body, &JOBS)
        }
        Command::Show { id } => {
            let body = session.get(&path(&["dlq", "jobs", &id.to_string()])).await?;
            session.output.object(&body, JOB)
        }
        Command::Wait { id } => wait(session, id, &mut Interrupt::new()?).await,
        Command::Cancel { id } => {
            let body = session.delete(&path(&["dlq", "jobs", &id.to_string()])).await?;
            session.output.object(&body, JOB)
        }
    }
}

/// Begins a job, and waits for it unless that is not wanted.
pub(crate) async fn begin(
    session: &mut Session,
    action: &str,
    body: &Value,
    waits: bool,
) -> Result<(), Fault> {
    // From here on Ctrl-C cannot leave a job behind that nobody has told of.
    let mut interrupt = Interrupt::new()?;
    let answer = session.post(&path(&["dlq", action]), body).await?;
    let id = value(&answer)?.get("id").and_then(Value::as_u64);
    match (waits, id.and_then(|id| u32::try_from(id).ok())) {
        (true, Some(id)) => wait(session, id, &mut interrupt).await,
        _ => session.output.object(&answer, JOB),
    }
}

/// Waits until a job has ended, and tells how. With NDJSON every change of it is a line.
async fn wait(session: &mut Session, id: u32, interrupt: &mut Interrupt) -> Result<(), Fault> {
    let route = path(&["dlq", "jobs", &id.to_string()]);
    let is_stream = session.output.format(Shape::Whole) == Format::Ndjson;
    let mut progress = Progress::new(None);
    let mut before = Vec::new();
    loop {
        let body = session.get(&route).await?;
        let job = value(&body)?;
        let number = |name: &str| job.get(name).and_then(Value::as_u64).unwrap_or(0);
        let text = |name: &str| job.get(name).and_then(Value::as_str).unwrap_or_default();
        if is_stream && before != body {
            session.output.one_line(&body)?;
            before = body.to_vec();
        }
        match text("status") {
            "running" => {}
            status => {
                drop(progress);
                if !is_stream {
                    session.output.object(&body, JOB)?;
                }
                return match status {
                    "done" => Ok(()),
                    _ => {
                        Err(Fault::Incomplete(format!("job {id} is {status}: {}", text("problem"))))
                    }
                };
            }
        }
        progress.tell(0, || {
            format!(
                "job {id}: {} moved, {} deferred",
                count(number("moved")),
                count(number("deferred"))
            )
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = interrupt.came() => {
                return Err(Fault::Interrupted(format!(
                    "job {id} goes on: `onrushctl dlq jobs wait {id}` waits for it again, `cancel {id}` stops it"
                )));
            }
        }
    }
}
