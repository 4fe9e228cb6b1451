//! Seek: sends a consumer group elsewhere.
//!
//! In: a group, a queue, perhaps a partition, and where to. Out: how many cursors were moved. Messages may be
//! skipped by it, or come again, so it asks first. Called by `commands`.

use clap::Args;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::http::path;
use crate::moments;
use crate::output::value;
use crate::session::Session;

/// Who is sent where.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("where").required(true))]
pub(crate) struct Seek {
    /// The consumer group; __QUEUE_MODE__ is that of consumers without one
    group: String,
    queue: String,
    /// Only in this partition
    #[arg(long, short)]
    partition: Option<String>,
    /// To the first message that was pushed then or later: a time, or how long ago
    #[arg(long, value_name = "TIME", group = "where", value_parser = moments::time)]
    to_time: Option<i64>,
    /// To the oldest message that is kept
    #[arg(long, group = "where")]
    to_beginning: bool,
    /// Behind the newest message
    #[arg(long, group = "where")]
    to_end: bool,
}

pub(crate) async fn run(session: &mut Session, seek: Seek) -> Result<(), Fault> {
    let Seek { group, queue, partition, to_time, to_beginning, .. } = &seek;
    let (body, words) = match (to_time, to_beginning) {
        (Some(time), _) => {
            let time = moments::iso(*time);
            (json!({ "timestamp": time }), time)
        }
        (None, true) => (json!({ "toBeginning": true }), "the oldest message".to_owned()),
        (None, false) => (json!({ "toEnd": true }), "the end".to_owned()),
    };
    let place = match partition {
        Some(partition) => format!("partition {partition:?} of queue {queue:?}"),
        None => format!("queue {queue:?}"),
    };
    session
        .confirm(&format!("send group {group:?} to {words} of {place} and end its leases there"))?;
    let route = match partition {
        Some(it) => path(&["consumer-groups", group, "queues", queue, "partitions", it, "seek"]),
        None => path(&["consumer-groups", group, "queues", queue, "seek"]),
    };
    let answer = session.post(&route, &body).await?;
    let told = value(&answer)?;
    let moved = told.get("partitionsUpdated").and_then(Value::as_u64);
    let moved = moved.unwrap_or_else(|| u64::from(told.get("updated") == Some(&Value::Bool(true))));
    let sentence = format!("group {group:?} is at {words} of {place}: {moved} cursors moved");
    session.output.done(&answer, &sentence)
}
