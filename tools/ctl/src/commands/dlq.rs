//! Dead letters: list, show, and the jobs that redrive, requeue and delete them.
//!
//! In: which letters. Out: letters, or a job and its progress. Called by `commands`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::address::MessageArgs;
use crate::column::{Kind, column};
use crate::commands::{jobs, messages};
use crate::fault::{Fault, Refusal};
use crate::http::{path, query};
use crate::moments;
use crate::output::{View, value};
use crate::session::Session;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Dead letters, newest failure first
    #[command(alias = "ls")]
    List(List),
    /// One dead letter with its payload and what went wrong
    Show(MessageArgs),
    /// Give dead letters back to their groups, with no attempt counted
    Redrive(Letters),
    /// Push dead letters as new messages, for all groups
    Requeue(Requeue),
    /// Delete dead letters
    #[command(alias = "rm")]
    Delete(Letters),
    /// Jobs over dead letters: list, show, wait, cancel
    #[command(subcommand)]
    Jobs(jobs::Command),
}

/// Which letters are listed.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only of this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Only of this consumer group
    #[arg(long, short)]
    group: Option<String>,
    /// Only of partitions of this name
    #[arg(long, short)]
    partition: Option<String>,
    /// Only those that failed then or later: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = moments::time)]
    from: Option<i64>,
    /// Only those that failed before or then
    #[arg(long, value_name = "TIME", value_parser = moments::time)]
    to: Option<i64>,
    /// Most letters
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Letters that are passed over before that
    #[arg(long, default_value_t = 0)]
    offset: u64,
}

/// Which letters a job is about.
#[derive(Args, Clone, Debug)]
pub(crate) struct Letters {
    queue: String,
    /// Only of this consumer group
    #[arg(long, short)]
    group: Option<String>,
    /// Only of this partition
    #[arg(long, short)]
    partition: Option<String>,
    /// Only those whose error holds this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Most letters
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Most letters a second
    #[arg(long, value_name = "LETTERS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until the job has ended
    #[arg(long)]
    no_wait: bool,
}

/// Which letters are pushed again, and where to.
#[derive(Args, Debug)]
pub(crate) struct Requeue {
    #[command(flatten)]
    letters: Letters,
    /// To this queue instead of their own
    #[arg(long, value_name = "QUEUE")]
    to_queue: Option<String>,
    /// To this partition instead of the one of the same name
    #[arg(long, value_name = "PARTITION")]
    to_partition: Option<String>,
}

const LETTERS: View = View {
    list: Some("messages"),
    columns: &[
        column("FAILED", "/failedAt", Kind::Age),
        column("QUEUE", "/queue", Kind::Text),
        column("PARTITION", "/partition", Kind::Text),
        column("GROUP", "/consumerGroup", Kind::Text),
        column("ATTEMPTS", "/retryCount", Kind::Count),
        column("ERROR", "/errorMessage", Kind::Long),
        column("ID", "/id", Kind::Text),
        column("TRANSACTION ID", "/transactionId", Kind::Long),
    ],
    empty: "no dead letters",
};

pub(crate) async fn run(session: &mut Session, command: Command) -> Result<(), Fault> {
    match command {
        Command::List(list) => list_letters(session, &list).await,
        Command::Show(message) => show(session, &message).await,
        Command::Redrive(letters) => {
            jobs::begin(session, "redrive", &terms(&letters).into(), !letters.no_wait).await
        }
        Command::Requeue(requeue) => {
            let Requeue { letters, to_queue, to_partition } = requeue;
            let mut terms = terms(&letters);
            put(&mut terms, "toQueue", to_queue);
            put(&mut terms, "toPartition", to_partition);
            jobs::begin(session, "requeue", &terms.into(), !letters.no_wait).await
        }
        Command::Delete(letters) => {
            if !letters.dry_run {
                session.confirm(&format!("delete {}", described(&letters)))?;
            }
            jobs::begin(session, "delete", &terms(&letters).into(), !letters.no_wait).await
        }
        Command::Jobs(command) => jobs::run(session, command).await,
    }
}

async fn list_letters(session: &mut Session, list: &List) -> Result<(), Fault> {
    let parameters = [
        ("queue", list.queue.clone()),
        ("consumerGroup", list.group.clone()),
        ("partition", list.partition.clone()),
        ("from", list.from.map(|it| it.to_string())),
        ("to", list.to.map(|it| it.to_string())),
        ("limit", Some(list.limit.to_string())),
        ("offset", Some(list.offset.to_string())),
    ];
    let body = session.get(&query(&path(&["dlq"]), parameters)).await?;
    session.output.list(&body, &LETTERS)
}

async fn show(session: &mut Session, message: &MessageArgs) -> Result<(), Fault> {
    let body = messages::fetch(session, &message.address()?).await?;
    if value(&body)?.get("status").and_then(Value::as_str) != Some("dead_letter") {
        return Err(Fault::Refused(Refusal {
            message: "the message is no dead letter; `onrushctl messages get` shows it".to_owned(),
            code: "message_not_dead".to_owned(),
            retryable: false,
            limit: None,
        }));
    }
    messages::print(session, &body)
}

fn put(terms: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        terms.insert(name.to_owned(), value.into());
    }
}

/// What a job is asked.
fn terms(letters: &Letters) -> Map<String, Value> {
    let mut terms = Map::from_iter([("queue".to_owned(), json!(letters.queue))]);
    put(&mut terms, "consumerGroup", letters.group.clone());
    put(&mut terms, "partition", letters.partition.clone());
    put(&mut terms, "error", letters.error.clone());
    put(&mut terms, "limit", letters.limit);
    put(&mut terms, "ratePerSecond", letters.rate);
    put(&mut terms, "dryRun", letters.dry_run.then_some(true));
    terms
}

/// The same in words.
fn described(letters: &Letters) -> String {
    let mut words = match letters.limit {
        Some(limit) => format!("at most {limit} dead letters of queue {:?}", letters.queue),
        None => format!("all dead letters of queue {:?}", letters.queue),
    };
    for (what, given) in [
        ("group", &letters.group),
        ("partition", &letters.partition),
        ("error with", &letters.error),
    ] {
        if let Some(given) = given {
            words.push_str(&format!(", {what} {given:?}"));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_asked_what_was_said_and_nothing_else() {
        let letters = Letters {
            queue: "q".to_owned(),
            group: Some("g".to_owned()),
            partition: None,
            error: Some("boom".to_owned()),
            limit: Some(5),
            rate: None,
            dry_run: false,
            no_wait: false,
        };
        let asked = json!({ "queue": "q", "consumerGroup": "g", "error": "boom", "limit": 5 });
        assert_eq!(Value::Object(terms(&letters)), asked);
        let words = described(&letters);
        assert_eq!(
            words,
            "at most 5 dead letters of queue \"q\", group \"g\", error with \"boom\""
        );
    }
}
