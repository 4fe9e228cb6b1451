//! Pop: messages out, under a lease.
//!
//! In: a queue, a group, how many and how long to wait. Out: messages as lines that `ack` and `push --items`
//! take. With `--ack` they are completed once they are written, and not before. Called by `commands`.

use std::time::Duration;

use clap::Args;
use onrush_client::{Popped, SubscriptionStart};
use serde_json::Value;

use crate::delivered::{POPPED, of_received};
use crate::fault::Fault;
use crate::moments;
use crate::output::{Format, Shape, View, value};
use crate::session::Session;

/// What is popped.
#[derive(Args, Debug)]
pub(crate) struct Pop {
    queue: String,
    /// Only from this partition
    #[arg(long, short)]
    partition: Option<String>,
    /// On behalf of this consumer group; without one all consumers share the queue
    #[arg(long, short)]
    group: Option<String>,
    /// Most messages
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Most partitions that they may come from
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    partitions: u16,
    /// How long to wait for the first message
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = moments::duration)]
    wait: Duration,
    /// How long they are held for us; without it as the queue says
    #[arg(long, value_name = "DURATION", value_parser = moments::duration)]
    lease: Option<Duration>,
    /// Where the group begins when it comes for the first time: all, new, or a time
    #[arg(long, value_name = "WHERE", value_parser = start)]
    from: Option<SubscriptionStart>,
    /// Complete the messages once they are printed
    #[arg(long)]
    ack: bool,
}

/// What a table shows.
const MESSAGES: View = View { list: None, columns: POPPED, empty: "nothing to pop" };

/// Where a group begins.
pub(crate) fn start(text: &str) -> Result<SubscriptionStart, String> {
    match text {
        "all" | "beginning" => Ok(SubscriptionStart::Beginning),
        "new" => Ok(SubscriptionStart::New),
        time => moments::time(time).map(SubscriptionStart::Time),
    }
}

pub(crate) async fn run(session: &mut Session, pop: Pop) -> Result<(), Fault> {
    let client = session.client().await?;
    let mut queue = client.queue(&pop.queue);
    if let Some(partition) = &pop.partition {
        queue = queue.partition(partition);
    }
    let mut request = queue.pop().batch(pop.batch).partitions(pop.partitions).wait(pop.wait);
    if let Some(group) = &pop.group {
        request = request.group(group);
    }
    if let Some(lease) = pop.lease {
        request = request.lease(lease);
    }
    if let Some(start) = pop.from {
        request = request.start(start);
    }
    let popped = request.send().await.map_err(|error| session.fault(&error))?;
    print(session, &popped)?;
    if popped.is_empty() {
        return Err(Fault::Nothing);
    }
    if pop.ack {
        client.ack(&popped).await.map_err(|error| session.fault(&error))?;
    } else if session.output.format(Shape::Stream) == Format::Table {
        let until = i64::try_from(popped.lease_until_ms).unwrap_or(i64::MAX);
        eprintln!("leased until {}", moments::iso(until));
    }
    Ok(())
}

fn print(session: &Session, popped: &Popped) -> Result<(), Fault> {
    let lines = popped.messages.iter().map(of_received);
    let lines = lines.collect::<Result<Vec<Vec<u8>>, Fault>>()?;
    let output = &session.output;
    match output.format(Shape::Stream) {
        Format::Ndjson => lines.iter().try_for_each(|line| output.one_line(line)),
        Format::Json => {
            let mut list = b"[".to_vec();
            list.extend_from_slice(&lines.join(&b','));
            list.push(b']');
            output.json(&list)
        }
        Format::Table => {
            let rows =
                lines.iter().map(|line| value(line)).collect::<Result<Vec<Value>, Fault>>()?;
            output.table(&rows, &MESSAGES)
        }
    }
}
