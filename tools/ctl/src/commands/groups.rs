//! Consumer groups: list, show, delete.
//!
//! In: names. Out: how groups stand, as a whole or partition by partition. Called by `commands`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::column::{Kind, column};
use crate::fault::{Fault, Refusal};
use crate::http::{path, query};
use crate::output::{Format, Shape, View, items, to_json, value};
use crate::session::Session;

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How all groups stand in all queues
    #[command(alias = "ls")]
    List(List),
    /// One group, partition by partition
    Show(Show),
    /// Forget a group's cursors and leases; its dead letters stay
    #[command(alias = "rm")]
    Delete(Delete),
}

/// Which groups are listed.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only groups of this queue
    #[arg(long, short)]
    queue: Option<String>,
}

/// Which group is shown.
#[derive(Args, Debug)]
pub(crate) struct Show {
    group: String,
    /// Only in this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Most partitions of each queue
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
}

/// What is forgotten.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    group: String,
    /// Only in this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Remember where the group begins when it comes again
    #[arg(long)]
    keep_start: bool,
}

const GROUPS: View = View {
    list: None,
    columns: &[
        column("GROUP", "/name", Kind::Text),
        column("QUEUE", "/queueName", Kind::Text),
        column("MEMBERS", "/members", Kind::Count),
        column("PARTITIONS", "/partitions", Kind::Count),
        column("LAGGING", "/partitionsWithLag", Kind::Count),
        column("LAG", "/totalLag", Kind::Count),
        column("OLDEST", "/maxTimeLag", Kind::Late),
        column("STATE", "/state", Kind::State),
    ],
    empty: "no consumer groups; a group is there once somebody has popped for it",
};

const PARTITIONS: View = View {
    list: None,
    columns: &[
        column("QUEUE", "/queue", Kind::Text),
        column("PARTITION", "/partition", Kind::Text),
        column("LAG", "/offsetLag", Kind::Count),
        column("OLDEST", "/timeLagSeconds", Kind::Late),
        column("DONE", "/totalConsumed", Kind::Count),
        column("LEASED", "/leaseActive", Kind::Text),
        column("LEASED UNTIL", "/leaseExpiresAt", Kind::Time),
    ],
    empty: "the group has no cursor in any partition yet",
};

pub(crate) async fn run(session: &mut Session, command: Command) -> Result<(), Fault> {
    match command {
        Command::List(list) => list_groups(session, &list).await,
        Command::Show(show) => show_group(session, &show).await,
        Command::Delete(delete) => delete_group(session, &delete).await,
    }
}

async fn list_groups(session: &mut Session, list: &List) -> Result<(), Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OfQueue {
        queue_name: String,
    }
    let body = session.get(&path(&["consumer-groups"])).await?;
    let Some(queue) = &list.queue else { return session.output.list(&body, &GROUPS) };
    let all = items(&body, None)?;
    let is_of =
        |text: &str| serde_json::from_str::<OfQueue>(text).is_ok_and(|it| it.queue_name == *queue);
    let chosen: Vec<_> = all.into_iter().filter(|raw| is_of(raw.get())).collect();
    session.output.chosen(&chosen, &GROUPS)
}

async fn show_group(session: &mut Session, show: &Show) -> Result<(), Fault> {
    let parameters = [("queue", show.queue.clone()), ("limit", Some(show.limit.to_string()))];
    let body = session.get(&query(&path(&["consumer-groups", &show.group]), parameters)).await?;
    let queues: BTreeMap<String, Value> = serde_json::from_value(value(&body)?).unwrap_or_default();
    if queues.is_empty() {
        return Err(Fault::Refused(Refusal {
            message: format!("no queue knows the group {:?}", show.group),
            code: "group_not_found".to_owned(),
            retryable: false,
            limit: None,
        }));
    }
    let output = &session.output;
    if output.format(Shape::Whole) == Format::Json {
        return output.json(&body);
    }
    let mut rows = Vec::new();
    for (queue, found) in &queues {
        for partition in found.get("partitions").and_then(Value::as_array).into_iter().flatten() {
            let mut row = partition.clone();
            if let Value::Object(fields) = &mut row {
                fields.insert("queue".to_owned(), json!(queue));
            }
            rows.push(row);
        }
    }
    match output.format(Shape::Whole) {
        Format::Ndjson => rows.iter().try_for_each(|row| output.one_line(&to_json(row)?)),
        _ => {
            output.table(&rows, &PARTITIONS)?;
            if queues.values().any(|found| found.get("next").is_some()) {
                eprintln!("there are more partitions: --limit reaches them");
            }
            Ok(())
        }
    }
}

async fn delete_group(session: &mut Session, delete: &Delete) -> Result<(), Fault> {
    let Delete { group, queue, keep_start } = delete;
    let (route, place) = match queue {
        Some(queue) => {
            (path(&["consumer-groups", group, "queues", queue]), format!("in queue {queue:?}"))
        }
        None => (path(&["consumer-groups", group]), "in all queues".to_owned()),
    };
    session.confirm(&format!("forget the cursors and leases of group {group:?} {place}"))?;
    let keeps = keep_start.then(|| "false".to_owned());
    let body = session.delete(&query(&route, [("deleteMetadata", keeps)])).await?;
    let cursors = value(&body)?.get("deletedPartitions").and_then(Value::as_u64).unwrap_or(0);
    session.output.done(&body, &format!("group {group:?} is forgotten {place}: {cursors} cursors"))
}
