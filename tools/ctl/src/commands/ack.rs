//! Ack: what became of messages that were popped.
//!
//! In: lines as pop prints them, or the ids of one message. Out: what the server made of each. Any line may
//! bring a `status` and an `error` of its own. Lines are told in requests of at most [`LINES_PER_REQUEST`]; a line
//! that is wrong ends it, once those before it are told. Called by `commands`.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::column::{Kind, column};
use crate::fault::Fault;
use crate::http::path;
use crate::lines::{self, Line, LineError};
use crate::output::{Format, Shape, View, to_json, value};
use crate::session::Session;

/// Messages that one request tells of.
const LINES_PER_REQUEST: usize = 1000;

/// What is acknowledged.
#[derive(Args, Debug)]
pub(crate) struct Ack {
    /// Id of the message's partition; without ids, lines as pop prints them are read from standard input
    #[arg(value_name = "PARTITION_ID", requires = "transaction_id")]
    partition_id: Option<String>,
    /// Transaction id of the message, or its own id
    #[arg(value_name = "TRANSACTION_ID")]
    transaction_id: Option<String>,
    /// The lease that holds it
    #[arg(long, value_name = "ID", requires = "partition_id")]
    lease: Option<String>,
    /// The consumer group that popped it; lines say so themselves
    #[arg(long, short)]
    group: Option<String>,
    /// What became of it, where a line does not say
    #[arg(long, value_enum, default_value_t = Status::Completed)]
    status: Status,
    /// What went wrong; kept with a dead letter
    #[arg(long)]
    error: Option<String>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Status {
    /// It is done
    Completed,
    /// It failed: counts an attempt, and comes again or becomes a dead letter
    Failed,
    /// It comes again, and no attempt is counted
    Retry,
    /// It becomes a dead letter at once
    Dlq,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Retry => "retry",
            Self::Dlq => "dlq",
        }
    }
}

/// A line of input, as far as it matters here.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    transaction_id: String,
    partition_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing)]
    consumer_group: Option<String>,
}

const RESULTS: View = View {
    list: None,
    columns: &[
        column("TRANSACTION ID", "/transactionId", Kind::Text),
        column("QUEUE", "/queueName", Kind::Text),
        column("PARTITION", "/partitionName", Kind::Text),
        column("DONE", "/success", Kind::Text),
        column("DEAD LETTER", "/dlq", Kind::Text),
        column("ERROR", "/error", Kind::Long),
    ],
    empty: "no lines, nothing acknowledged",
};

pub(crate) async fn run(session: &mut Session, ack: Ack) -> Result<(), Fault> {
    let mut tally = Tally::default();
    match (&ack.partition_id, &ack.transaction_id) {
        (Some(partition_id), Some(transaction_id)) => {
            let told = Told {
                transaction_id: transaction_id.clone(),
                partition_id: partition_id.clone(),
                lease_id: ack.lease.clone(),
                status: None,
                error: None,
                consumer_group: None,
            };
            send(session, &ack, vec![told], &mut tally).await?;
        }
        _ => read(session, &ack, &mut tally).await?,
    }
    if tally.asked == 0 {
        eprintln!("{}", RESULTS.empty);
    }
    match tally.refused {
        0 => Ok(()),
        refused => Err(Fault::Incomplete(format!(
            "{refused} of {} messages were not settled",
            tally.asked
        ))),
    }
}

/// What came of it so far.
#[derive(Debug, Default)]
struct Tally {
    asked: usize,
    refused: usize,
}

/// Acknowledges what standard input says, as it comes.
async fn read(session: &mut Session, ack: &Ack, tally: &mut Tally) -> Result<(), Fault> {
    let mut lines = lines::of_standard_input();
    let mut came = Vec::new();
    while lines.recv_many(&mut came, LINES_PER_REQUEST).await > 0 {
        let (mut told, mut wrong) = (Vec::with_capacity(came.len()), None);
        for line in came.drain(..) {
            match parse(line) {
                Ok(line) => told.push(line),
                Err(fault) => {
                    wrong = Some(fault);
                    break;
                }
            }
        }
        if !told.is_empty() {
            send(session, ack, told, tally).await?;
        }
        if let Some(fault) = wrong {
            return Err(fault);
        }
    }
    Ok(())
}

fn parse(line: Result<Line, LineError>) -> Result<Told, Fault> {
    let line = line.map_err(|error| Fault::usage(error.to_string()))?;
    serde_json::from_slice(&line.text).map_err(|error| {
        let number = line.number;
        Fault::usage_with(
            format!("line {number}: it is no message that was popped: {error}"),
            format!("the lines before {number} were told the server, it and what follows were not"),
        )
    })
}

/// One request for each group among these lines.
async fn send(
    session: &mut Session,
    ack: &Ack,
    told: Vec<Told>,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut groups: Vec<(Option<String>, Vec<Told>)> = Vec::new();
    for mut line in told {
        line.status.get_or_insert_with(|| ack.status.word().to_owned());
        line.error = line.error.or_else(|| ack.error.clone());
        let group = ack.group.clone().or_else(|| line.consumer_group.take());
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, lines)) => lines.push(line),
            None => groups.push((group, vec![line])),
        }
    }
    for (group, lines) in groups {
        let body = json!({ "consumerGroup": group, "acknowledgments": lines });
        let answer = session.post(&path(&["ack", "batch"]), &body).await?;
        let Value::Array(results) = value(&answer)? else { continue };
        tally.asked += results.len();
        tally.refused +=
            results.iter().filter(|it| it.get("success") != Some(&Value::Bool(true))).count();
        let output = &session.output;
        match output.format(Shape::Stream) {
            Format::Table => output.table(&results, &RESULTS)?,
            _ => results.iter().try_for_each(|result| output.one_line(&to_json(result)?))?,
        }
    }
    Ok(())
}
