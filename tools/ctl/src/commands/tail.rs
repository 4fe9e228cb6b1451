//! Tail: the newest messages of a queue, and with `--follow` those that come.
//!
//! In: a queue, how many or since when. Out: messages as lines, oldest first; nothing is settled for anybody else.
//! To follow, a consumer group of our own is made, which begins before the newest messages are looked up, so that
//! nothing is missed in between and nothing is told twice; it is deleted when Ctrl-C ends it. Called by `commands`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use onrush_client::{Client, Error, KeepStart, Pop, Popped, SubscriptionStart, Uuid};
use serde::Deserialize;
use serde_json::Value;

use crate::column::{Kind, column, harmless};
use crate::delivered::{Shown, of_received};
use crate::fault::Fault;
use crate::http::{path, query};
use crate::interrupt::Interrupt;
use crate::moments;
use crate::output::{Format, Shape, items, value};
use crate::session::Session;

/// Messages that one pop may bring, and partitions that they may come from.
const BATCH: u32 = 1000;
const PARTITIONS: u16 = 1000;
/// How long a pop waits at the server: the longest that Ctrl-C takes.
const WAIT: Duration = Duration::from_secs(1);

/// What is shown.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    queue: String,
    /// Go on with messages that come, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// How many of the newest messages to begin with (default: 10, or 1000 with --since)
    #[arg(long, short = 'n', value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(0..=1000))]
    lines: Option<u32>,
    /// Only messages since then: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = moments::time)]
    since: Option<i64>,
    /// Only this partition
    #[arg(long, short)]
    partition: Option<String>,
}

pub(crate) async fn run(session: &mut Session, tail: Tail) -> Result<(), Fault> {
    // What does not exist is no empty queue.
    let one = [("limit", Some("1".to_owned()))];
    session.get(&query(&path(&["resources", "queues", &tail.queue]), one)).await?;
    if !tail.follow {
        newest(session, &tail).await?;
        return Ok(());
    }
    let client = session.client().await?;
    let group = format!("onrushctl-tail-{}", Uuid::now_v7());
    let followed = follow(session, &client, &tail, &group).await;
    forget(&client, &tail.queue, &group).await;
    followed
}

/// Prints the newest messages; their ids.
async fn newest(session: &mut Session, tail: &Tail) -> Result<BTreeSet<String>, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ids {
        id: String,
        partition_id: String,
    }
    let limit = tail.lines.unwrap_or(if tail.since.is_some() { 1000 } else { 10 });
    if limit == 0 {
        return Ok(BTreeSet::new());
    }
    let route = query(
        &path(&["messages"]),
        [
            ("queue", Some(tail.queue.clone())),
            ("partition", tail.partition.clone()),
            ("from", Some(tail.since.unwrap_or(0).max(0).to_string())),
            ("limit", Some(limit.to_string())),
        ],
    );
    let body = session.get(&route).await?;
    let mut seen = BTreeSet::new();
    for raw in items(&body, Some("messages"))?.into_iter().rev() {
        let Ids { id, partition_id } = serde_json::from_str(raw.get())
            .map_err(|error| Fault::Incomplete(error.to_string()))?;
        let body = match session.get(&path(&["messages", &partition_id, &id])).await {
            Ok(body) => body,
            // It was removed or deleted since it was listed.
            Err(Fault::Refused(refusal)) if refusal.code == "message_not_found" => continue,
            Err(fault) => return Err(fault),
        };
        let shown: Shown<'_> =
            serde_json::from_slice(&body).map_err(|error| Fault::Incomplete(error.to_string()))?;
        print(session, &shown.line()?)?;
        seen.insert(id);
    }
    Ok(seen)
}

/// Prints messages until Ctrl-C.
async fn follow(
    session: &mut Session,
    client: &Client,
    tail: &Tail,
    group: &str,
) -> Result<(), Fault> {
    let mut queue = client.queue(&tail.queue);
    if let Some(partition) = &tail.partition {
        queue = queue.partition(partition);
    }
    let start = match (tail.since, tail.lines) {
        (Some(since), None) => SubscriptionStart::Time(since),
        _ => SubscriptionStart::New,
    };
    // Nobody else reads for this group, so what is handed out need not be held.
    let pop =
        queue.pop().group(group).batch(BATCH).partitions(PARTITIONS).start(start).auto_ack(true);
    let mut interrupt = Interrupt::new()?;
    // The first contact fixes where the group begins.
    let first = ask(session, &pop).await?;
    let seen = match start {
        SubscriptionStart::New => newest(session, tail).await?,
        _ => BTreeSet::new(),
    };
    print_all(session, &first, &seen)?;
    let pop = pop.wait(WAIT);
    loop {
        // A pop that is under way is waited for: messages that it brings are not lost, and none is left
        // parked behind when the group is deleted.
        let popped = ask(session, &pop);
        tokio::pin!(popped);
        let (popped, is_over) = tokio::select! {
            popped = &mut popped => (popped, false),
            () = interrupt.came() => (popped.await, true),
        };
        print_all(session, &popped?, &seen)?;
        if is_over {
            return Ok(());
        }
    }
}

async fn ask(session: &Session, pop: &Pop) -> Result<Popped, Fault> {
    pop.send().await.map_err(|error: Error| session.fault(&error))
}

fn print_all(session: &Session, popped: &Popped, seen: &BTreeSet<String>) -> Result<(), Fault> {
    for message in popped {
        if !seen.contains(&message.id.to_string()) {
            print(session, &of_received(message)?)?;
        }
    }
    Ok(())
}

/// One message: a line of JSON, or for people its time, its place and its payload.
fn print(session: &Session, line: &[u8]) -> Result<(), Fault> {
    let output = &session.output;
    if output.format(Shape::Stream) != Format::Table {
        return output.one_line(line);
    }
    let message: Value = value(line)?;
    let text = |at, kind| column("", at, kind).cell(&message, 0).text;
    let time = text("/createdAt", Kind::Time);
    let (partition, sequence) = (text("/partition", Kind::Text), text("/sequence", Kind::Text));
    let data = message.get("data").map(ToString::to_string).unwrap_or_default();
    output.line(&format!("{time}  {partition} {sequence}  {}", harmless(&data)))
}

/// Deletes the group. Where that is not allowed, people are told what is left behind.
async fn forget(client: &Client, queue: &str, group: &str) {
    if let Err(error) = client.group(group).queue(queue).delete(KeepStart::No).await {
        eprintln!(
            "onrushctl: warning: the consumer group {group} is left behind in {queue:?}: {error}\n  \
             hint: an admin removes it with `onrushctl groups delete {group} --queue {queue}`"
        );
    }
}
