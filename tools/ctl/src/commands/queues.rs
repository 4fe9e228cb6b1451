//! Queues: list, show, create, configure, clear, delete.
//!
//! In: names and options. Out: queues in numbers, or what was done. `configure` changes the options that
//! are given, and the server keeps the others. Called by `commands`.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::column::{Column, Kind, column};
use crate::commands::options::OptionArgs;
use crate::fault::{Fault, Refusal};
use crate::http::{path, query};
use crate::output::{Format, Shape, View, items, value};
use crate::session::Session;

/// What to do with queues.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All queues, newest first
    #[command(alias = "ls")]
    List(List),
    /// One queue: numbers, options, groups, partitions
    Show(Show),
    /// Make a queue; refused where there is one of that name
    Create(Create),
    /// Change options of a queue, or make it; others stay as they are
    Configure(Configure),
    /// Let go of all messages of a queue, or of one partition; settings, groups and dead letters stay
    Clear(Clear),
    /// Delete queues with all they hold
    #[command(alias = "rm")]
    Delete(Delete),
}

/// Which queues are listed.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only those of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only those for this task
    #[arg(long)]
    task: Option<String>,
}

/// Which queue is shown.
#[derive(Args, Debug)]
pub(crate) struct Show {
    queue: String,
    /// Most partitions that are listed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Partitions that are passed over before that
    #[arg(long, default_value_t = 0)]
    offset: u64,
}

/// A new queue.
#[derive(Args, Debug)]
pub(crate) struct Create {
    queue: String,
    #[command(flatten)]
    options: OptionArgs,
}

/// What is changed.
#[derive(Args, Debug)]
pub(crate) struct Configure {
    queue: String,
    /// Give all options that are not named their defaults again
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    options: OptionArgs,
}

/// What is cleared.
#[derive(Args, Debug)]
pub(crate) struct Clear {
    queue: String,
    /// Only this partition
    #[arg(long, short)]
    partition: Option<String>,
}

/// What is deleted.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[arg(required = true, value_name = "QUEUE")]
    queues: Vec<String>,
}

const QUEUES: View = View {
    list: Some("queues"),
    columns: &[
        column("NAME", "/name", Kind::Text),
        column("NAMESPACE", "/namespace", Kind::Text),
        column("TASK", "/task", Kind::Text),
        column("PARTITIONS", "/partitions", Kind::Count),
        column("MESSAGES", "/messages/total", Kind::Count),
        column("PENDING", "/messages/pending", Kind::Count),
        column("PROCESSING", "/messages/processing", Kind::Count),
        column("AGE", "/createdAt", Kind::Age),
    ],
    empty: "no queues; `onrushctl queues create NAME` makes one, and so does the first push",
};

const QUEUE: &[Column] = &[
    column("name", "/name", Kind::Text),
    column("namespace", "/namespace", Kind::Text),
    column("task", "/task", Kind::Text),
    column("created", "/createdAt", Kind::Time),
    column("partitions", "/partitionCount", Kind::Count),
    column("messages", "/totals/total", Kind::Count),
    column("pending", "/totals/pending", Kind::Count),
    column("processing", "/totals/processing", Kind::Count),
    column("completed", "/totals/completed", Kind::Count),
    column("dead letters", "/totals/deadLetter", Kind::Worry),
    column("lease time", "/options/leaseTime", Kind::Seconds),
    column("retry limit", "/options/retryLimit", Kind::Count),
    column("retry delay", "/options/retryDelay", Kind::Millis),
    column("delayed processing", "/options/delayedProcessing", Kind::Seconds),
    column("window buffer", "/options/windowBuffer", Kind::Seconds),
    column("priority", "/options/priority", Kind::Count),
    column("max size", "/options/maxSize", Kind::Count),
    column("ttl", "/options/ttl", Kind::Seconds),
    column("max wait time", "/options/maxWaitTimeSeconds", Kind::Seconds),
    column("retention enabled", "/options/retentionEnabled", Kind::Text),
    column("retention", "/options/retentionSeconds", Kind::Seconds),
    column("completed retention", "/options/completedRetentionSeconds", Kind::Seconds),
    column("encryption enabled", "/options/encryptionEnabled", Kind::Text),
    column("sql rows", "/options/sqlRows", Kind::Text),
];

const GROUPS: View = View {
    list: Some("groups"),
    columns: &[
        column("GROUP", "/name", Kind::Text),
        column("PENDING", "/pending", Kind::Count),
        column("PROCESSING", "/processing", Kind::Count),
        column("DEAD LETTERS", "/deadLetter", Kind::Worry),
        column("LEASED PARTITIONS", "/leasedPartitions", Kind::Count),
    ],
    empty: "no consumer groups yet",
};

const PARTITIONS: View = View {
    list: Some("partitions"),
    columns: &[
        column("PARTITION", "/name", Kind::Text),
        column("MESSAGES", "/messages/total", Kind::Count),
        column("PENDING", "/messages/pending", Kind::Count),
        column("PROCESSING", "/messages/processing", Kind::Count),
        column("DEAD LETTERS", "/messages/deadLetter", Kind::Worry),
        column("OLDEST", "/oldestMessage", Kind::Age),
        column("NEWEST", "/newestMessage", Kind::Age),
        column("ID", "/id", Kind::Text),
    ],
    empty: "no partitions yet",
};

pub(crate) async fn run(session: &mut Session, command: Command) -> Result<(), Fault> {
    match command {
        Command::List(list) => list_queues(session, &list).await,
        Command::Show(show) => show_queue(session, &show).await,
        Command::Create(create) => create_queue(session, &create).await,
        Command::Configure(change) => configure(session, &change).await,
        Command::Clear(clear) => clear_queue(session, &clear).await,
        Command::Delete(delete) => delete_queues(session, &delete).await,
    }
}

#[derive(Deserialize)]
struct Labels {
    namespace: String,
    task: String,
}

async fn list_queues(session: &mut Session, list: &List) -> Result<(), Fault> {
    let body = session.get(&path(&["resources", "queues"])).await?;
    if list.namespace.is_none() && list.task.is_none() {
        return session.output.list(&body, &QUEUES);
    }
    let all = items(&body, QUEUES.list)?;
    let is_wanted = |text: &str| {
        let Ok(labels) = serde_json::from_str::<Labels>(text) else { return false };
        list.namespace.as_ref().is_none_or(|it| *it == labels.namespace)
            && list.task.as_ref().is_none_or(|it| *it == labels.task)
    };
    let chosen: Vec<_> = all.into_iter().filter(|raw| is_wanted(raw.get())).collect();
    session.output.chosen(&chosen, &QUEUES)
}

async fn show_queue(session: &mut Session, show: &Show) -> Result<(), Fault> {
    let page = [("limit", Some(show.limit.to_string())), ("offset", Some(show.offset.to_string()))];
    let body = session.get(&query(&path(&["resources", "queues", &show.queue]), page)).await?;
    let output = &session.output;
    if output.format(Shape::Whole) != Format::Table {
        return output.object(&body, QUEUE);
    }
    output.object(&body, QUEUE)?;
    for view in [&GROUPS, &PARTITIONS] {
        if !items(&body, view.list)?.is_empty() {
            output.line("")?;
            output.list(&body, view)?;
        }
    }
    let count = value(&body)?.get("partitionCount").and_then(Value::as_u64).unwrap_or(0);
    if count > show.offset + items(&body, PARTITIONS.list)?.len() as u64 {
        eprintln!("there are more partitions: --limit and --offset reach them");
    }
    Ok(())
}

/// The queue as it is, if there is one.
async fn find(session: &mut Session, queue: &str) -> Result<Option<Value>, Fault> {
    let page = [("limit", Some("1".to_owned()))];
    match session.get(&query(&path(&["resources", "queues", queue]), page)).await {
        Ok(body) => value(&body).map(Some),
        Err(Fault::Refused(refusal)) if refusal.code == "queue_not_found" => Ok(None),
        Err(fault) => Err(fault),
    }
}

async fn create_queue(session: &mut Session, create: &Create) -> Result<(), Fault> {
    if find(session, &create.queue).await?.is_some() {
        return Err(Fault::Refused(Refusal {
            message: format!(
                "queue {:?} exists already; `onrushctl queues configure` changes it",
                create.queue
            ),
            code: "queue_exists".to_owned(),
            retryable: false,
            limit: None,
        }));
    }
    let mut options = Map::new();
    create.options.lay_over(&mut options)?;
    let (queue, namespace) = (&create.queue, create.options.namespace.as_deref());
    let body = json!({
        "queue": queue,
        "namespace": namespace.unwrap_or_default(),
        "task": create.options.task.as_deref().unwrap_or_default(),
        "options": options,
    });
    let answer = session.post(&path(&["configure"]), &body).await?;
    session.output.done(&answer, &format!("queue {queue:?} is made"))
}

async fn configure(session: &mut Session, change: &Configure) -> Result<(), Fault> {
    let Configure { queue, replace, options: given } = change;
    if given.is_empty() && !replace {
        return Err(Fault::usage_with(
            "no option is given, so nothing would change",
            "`onrushctl queues configure --help` lists the options; --replace gives all their defaults",
        ));
    }
    let mut options = Map::new();
    given.lay_over(&mut options)?;
    let mode = if *replace { "replace" } else { "merge" };
    let mut body = json!({ "queue": queue, "options": options, "mode": mode });
    for (name, label) in [("namespace", &given.namespace), ("task", &given.task)] {
        if let (Some(label), Value::Object(fields)) = (label, &mut body) {
            fields.insert(name.to_owned(), json!(label));
        }
    }
    let answer = session.post(&path(&["configure"]), &body).await?;
    session.output.done(&answer, &format!("queue {queue:?} is configured"))
}

async fn clear_queue(session: &mut Session, clear: &Clear) -> Result<(), Fault> {
    let Clear { queue, partition } = clear;
    let what = match partition {
        Some(partition) => format!("partition {partition:?} of queue {queue:?}"),
        None => format!("queue {queue:?}"),
    };
    session.confirm(&format!("let go of all messages of {what}"))?;
    let route = query(&path(&["queues", queue, "clear"]), [("partition", partition.clone())]);
    let body = session.delete(&route).await?;
    let gone = value(&body)?.get("messages").and_then(Value::as_u64).unwrap_or(0);
    session.output.done(&body, &format!("{gone} messages of {what} are gone"))
}

async fn delete_queues(session: &mut Session, delete: &Delete) -> Result<(), Fault> {
    let names: Vec<String> = delete.queues.iter().map(|name| format!("{name:?}")).collect();
    let what = match names.as_slice() {
        [name] => format!("queue {name} with all it holds"),
        names => format!("queues {} with all they hold", names.join(", ")),
    };
    session.confirm(&format!("delete {what}"))?;
    for queue in &delete.queues {
        let body = session.delete(&path(&["resources", "queues", queue])).await?;
        if value(&body)?.get("existed") == Some(&Value::Bool(false)) {
            return Err(Fault::Refused(Refusal {
                message: format!("queue {queue:?} does not exist"),
                code: "queue_not_found".to_owned(),
                retryable: false,
                limit: None,
            }));
        }
        session.output.done(&body, &format!("queue {queue:?} is deleted"))?;
    }
    Ok(())
}
