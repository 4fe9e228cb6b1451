//! Traces: what happened to messages, as whoever handled them told it.
//!
//! In: a message, a name, or an event to add. Out: events. Called by `commands`.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::address::MessageArgs;
use crate::column::{Kind, column};
use crate::fault::Fault;
use crate::http::{path, query};
use crate::output::{View, value};
use crate::session::Session;

/// What to do with traces.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Events of a message, oldest first
    Show(MessageArgs),
    /// Events of a name, newest first
    Name(Name),
    /// Names there are, the one that was used last first
    Names(Page),
    /// Tell what happened to a message
    Add(Add),
}

/// Which part of a list.
#[derive(Args, Debug)]
pub(crate) struct Page {
    /// Most entries
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Entries that are passed over before that
    #[arg(long, default_value_t = 0)]
    offset: u64,
}

/// Which name.
#[derive(Args, Debug)]
pub(crate) struct Name {
    name: String,
    #[command(flatten)]
    page: Page,
}

/// What is told.
#[derive(Args, Debug)]
pub(crate) struct Add {
    #[command(flatten)]
    message: MessageArgs,
    /// What there is to tell, in JSON
    #[arg(long, value_name = "JSON")]
    data: String,
    /// What kind of event it is
    #[arg(long = "type", value_name = "TYPE", default_value = "info")]
    kind: String,
    /// The consumer group that tells it
    #[arg(long, short)]
    group: Option<String>,
    /// A name under which the event is found; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

const EVENTS: View = View {
    list: Some("traces"),
    columns: &[
        column("TIME", "/created_at", Kind::Time),
        column("TYPE", "/event_type", Kind::Text),
        column("GROUP", "/consumer_group", Kind::Text),
        column("NAMES", "/trace_names", Kind::Json),
        column("DATA", "/data", Kind::Json),
    ],
    empty: "no events; `onrushctl traces add` tells one",
};

const NAMED: View = View {
    list: Some("traces"),
    columns: &[
        column("TIME", "/created_at", Kind::Time),
        column("QUEUE", "/queue_name", Kind::Text),
        column("PARTITION", "/partition_name", Kind::Text),
        column("TRANSACTION ID", "/transaction_id", Kind::Long),
        column("TYPE", "/event_type", Kind::Text),
        column("GROUP", "/consumer_group", Kind::Text),
        column("DATA", "/data", Kind::Json),
    ],
    empty: "no events of that name; `onrushctl traces names` lists names",
};

const NAMES: View = View {
    list: Some("trace_names"),
    columns: &[
        column("NAME", "/trace_name", Kind::Text),
        column("EVENTS", "/trace_count", Kind::Count),
        column("MESSAGES", "/message_count", Kind::Count),
        column("LAST", "/last_seen", Kind::Age),
    ],
    empty: "no names yet",
};

fn paged(route: &str, page: &Page) -> String {
    let parameters =
        [("limit", Some(page.limit.to_string())), ("offset", Some(page.offset.to_string()))];
    query(route, parameters)
}

pub(crate) async fn run(session: &mut Session, command: Command) -> Result<(), Fault> {
    match command {
        Command::Show(message) => {
            let address = message.address()?;
            let route = path(&["traces", &address.partition_id, &address.transaction_id]);
            let body = session.get(&route).await?;
            session.output.list(&body, &EVENTS)
        }
        Command::Name(Name { name, page }) => {
            let body = session.get(&paged(&path(&["traces", "by-name", &name]), &page)).await?;
            session.output.list(&body, &NAMED)
        }
        Command::Names(page) => {
            let body = session.get(&paged(&path(&["traces", "names"]), &page)).await?;
            session.output.list(&body, &NAMES)
        }
        Command::Add(add) => tell(session, &add).await,
    }
}

/// An event as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    partition_id: &'a str,
    transaction_id: &'a str,
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_group: Option<&'a str>,
    trace_names: &'a [String],
    data: &'a RawValue,
}

async fn tell(session: &mut Session, add: &Add) -> Result<(), Fault> {
    let data: &RawValue = serde_json::from_str(&add.data)
        .map_err(|error| Fault::usage(format!("--data is no JSON: {error}")))?;
    let address = add.message.address()?;
    let body = Event {
        partition_id: &address.partition_id,
        transaction_id: &address.transaction_id,
        event_type: &add.kind,
        consumer_group: add.group.as_deref(),
        trace_names: &add.names,
        data,
    };
    let answer = session.post(&path(&["traces"]), &body).await?;
    let told = value(&answer)?;
    let id = told.get("traceId").and_then(Value::as_str).unwrap_or("-").to_owned();
    session.output.done(&answer, &format!("event {id} is told"))
}
