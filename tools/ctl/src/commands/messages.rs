//! Single messages: list, get, delete, retry, move to the dead letters.
//!
//! In: filters, or which message. Out: messages as they stand with each group. Called by `commands` and, for
//! one dead letter, by `dlq`.

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::address::{Address, MessageArgs};
use crate::column::{Column, Kind, column, harmless};
use crate::fault::Fault;
use crate::http::{path, query};
use crate::output::{Format, Shape, View, field, items, value};
use crate::session::Session;
use crate::{indent, moments};

/// What to do with messages.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Messages, newest first
    #[command(alias = "ls")]
    List(List),
    /// One message with its payload, and how it stands with each group
    #[command(alias = "show")]
    Get(MessageArgs),
    /// Settle a message for every group and take it out of sight
    #[command(alias = "rm")]
    Delete(MessageArgs),
    /// Give a dead letter back to its group
    Retry(Retry),
    /// Make a dead letter of a message
    Dlq(Bury),
}

/// Which messages are listed.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only of this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Only of partitions of this name
    #[arg(long, short)]
    partition: Option<String>,
    /// Only of queues of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only of queues for this task
    #[arg(long)]
    task: Option<String>,
    /// Only those that stand so
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Only those that were pushed then or later: a time, or how long ago (default: an hour ago)
    #[arg(long, value_name = "TIME", value_parser = moments::time)]
    from: Option<i64>,
    /// Only those that were pushed before or then
    #[arg(long, value_name = "TIME", value_parser = moments::time)]
    to: Option<i64>,
    /// Most messages
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Messages that are passed over before that
    #[arg(long, default_value_t = 0)]
    offset: u64,
}

/// How a message stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Status {
    /// Some group has still to get it
    Pending,
    /// Some consumer holds it
    Processing,
    /// Every group is done with it
    Completed,
    /// Some group gave it up
    #[value(alias = "dead_letter")]
    DeadLetter,
}

/// Which dead letter is given back.
#[derive(Args, Debug)]
pub(crate) struct Retry {
    #[command(flatten)]
    message: MessageArgs,
    /// Only to this group
    #[arg(long, short)]
    group: Option<String>,
}

/// Which message becomes a dead letter.
#[derive(Args, Debug)]
pub(crate) struct Bury {
    #[command(flatten)]
    message: MessageArgs,
    /// Only for this group; without it for all that are not done with it
    #[arg(long, short)]
    group: Option<String>,
    /// What is wrong with it
    #[arg(long)]
    error: Option<String>,
}

const MESSAGES: View = View {
    list: Some("messages"),
    columns: &[
        column("ID", "/id", Kind::Text),
        column("QUEUE", "/queue", Kind::Text),
        column("PARTITION", "/partition", Kind::Text),
        column("STATUS", "/status", Kind::State),
        column("AGE", "/createdAt", Kind::Age),
        column("TRANSACTION ID", "/transactionId", Kind::Long),
    ],
    empty: "no messages; --from reaches further back than an hour",
};

const MESSAGE: &[Column] = &[
    column("id", "/id", Kind::Text),
    column("transaction id", "/transactionId", Kind::Text),
    column("partition id", "/partitionId", Kind::Text),
    column("queue", "/queue", Kind::Text),
    column("partition", "/partition", Kind::Text),
    column("status", "/status", Kind::State),
    column("pushed", "/createdAt", Kind::Time),
    column("by", "/producerSub", Kind::Text),
    column("attempts", "/retryCount", Kind::Count),
    column("error", "/errorMessage", Kind::Text),
    column("trace", "/traceId", Kind::Text),
    column("encrypted", "/isEncrypted", Kind::Text),
    column("no payload", "/payloadError", Kind::Text),
];

const GROUPS: View = View {
    list: Some("consumerGroups"),
    columns: &[
        column("GROUP", "/name", Kind::Text),
        column("STATUS", "/status", Kind::State),
        column("ATTEMPTS", "/attempts", Kind::Count),
        column("LEASED UNTIL", "/leaseExpiresAt", Kind::Time),
        column("ERROR", "/errorMessage", Kind::Long),
    ],
    empty: "no consumer groups yet",
};

pub(crate) async fn run(session: &mut Session, command: Command) -> Result<(), Fault> {
    match command {
        Command::List(list) => list_messages(session, &list).await,
        Command::Get(message) => {
            let body = fetch(session, &message.address()?).await?;
            print(session, &body)
        }
        Command::Delete(message) => delete(session, &message.address()?).await,
        Command::Retry(retry) => {
            let body = terms(retry.group, None);
            ask(session, &retry.message.address()?, "retry", &body, "is given back").await
        }
        Command::Dlq(bury) => {
            let body = terms(bury.group, bury.error);
            ask(session, &bury.message.address()?, "dlq", &body, "is a dead letter now").await
        }
    }
}

async fn list_messages(session: &mut Session, list: &List) -> Result<(), Fault> {
    let status = list.status.map(|status| match status {
        Status::Pending => "pending",
        Status::Processing => "processing",
        Status::Completed => "completed",
        Status::DeadLetter => "dead_letter",
    });
    let parameters = [
        ("queue", list.queue.clone()),
        ("partition", list.partition.clone()),
        ("ns", list.namespace.clone()),
        ("task", list.task.clone()),
        ("status", status.map(str::to_owned)),
        ("from", list.from.map(|it| it.max(0).to_string())),
        ("to", list.to.map(|it| it.to_string())),
        ("limit", Some(list.limit.to_string())),
        ("offset", Some(list.offset.to_string())),
    ];
    let body = session.get(&query(&path(&["messages"]), parameters)).await?;
    session.output.list(&body, &MESSAGES)
}

fn route(address: &Address) -> String {
    path(&["messages", &address.partition_id, &address.transaction_id])
}

/// One message, as the server shows it.
pub(crate) async fn fetch(session: &mut Session, address: &Address) -> Result<Bytes, Fault> {
    session.get(&route(address)).await
}

/// Shows one message: for people its payload and groups below it.
pub(crate) fn print(session: &Session, body: &[u8]) -> Result<(), Fault> {
    let output = &session.output;
    output.object(body, MESSAGE)?;
    if output.format(Shape::Whole) != Format::Table {
        return Ok(());
    }
    if !items(body, GROUPS.list)?.is_empty() {
        output.line("")?;
        output.list(body, &GROUPS)?;
    }
    if let Some(payload) = field(body, "payload")? {
        output.line("")?;
        let text = indent::over_lines(payload.get().as_bytes());
        let text = String::from_utf8_lossy(&text);
        text.lines().try_for_each(|line| output.line(&harmless(line)))?;
    }
    Ok(())
}

async fn delete(session: &mut Session, address: &Address) -> Result<(), Fault> {
    let id = &address.transaction_id;
    session.confirm(&format!("delete message {id} for every group"))?;
    let body = session.delete(&route(address)).await?;
    session.output.done(&body, &format!("message {id} is deleted"))
}

fn terms(group: Option<String>, error: Option<String>) -> Value {
    let given = [("consumerGroup", group), ("error", error)];
    let given = given.into_iter().filter_map(|(name, it)| Some((name.to_owned(), json!(it?))));
    Value::Object(Map::from_iter(given))
}

async fn ask(
    session: &mut Session,
    address: &Address,
    what: &str,
    body: &Value,
    done: &str,
) -> Result<(), Fault> {
    let answer = session.post(&format!("{}/{what}", route(address)), body).await?;
    let groups = value(&answer)?.get("groups").and_then(Value::as_u64).unwrap_or(0);
    let sentence = format!("message {} {done}, in {groups} groups", address.transaction_id);
    session.output.done(&answer, &sentence)
}
