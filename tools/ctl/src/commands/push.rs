//! Push: one message, or as many as standard input has lines.
//!
//! In: payloads from the command line or lines of JSON. Out: how many are stored, and which lines are not.
//! Lines are pushed in their order, as many at a time as have come; the first line that is wrong, or that the
//! server does not take, ends it, and what is said then is exact: everything else up to there is pushed,
//! nothing after it is. Called by `commands`.

use std::os::fd::AsFd;

use clap::Args;
use onrush_client::{Client, Error, MessageReceipt, MessageStatus, Outcome, Push as Request, Qos};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::address::partition_id;
use crate::column::{Column, Kind, column};
use crate::commands::push_input::{Form, Parsed, Reading, parse};
use crate::fault::Fault;
use crate::interrupt::Interrupt;
use crate::lines::{self, Line, LineError};
use crate::output::{Format, Shape, View, to_json};
use crate::progress::{Progress, count};
use crate::session::Session;

/// What is pushed, and how.
#[derive(Args, Debug)]
pub(crate) struct Push {
    queue: String,
    /// Partition that the messages go to (default: Default)
    #[arg(long, short)]
    partition: Option<String>,
    /// Push this JSON instead of lines from standard input; may be repeated
    #[arg(long, value_name = "JSON")]
    payload: Vec<String>,
    /// Transaction id of the one message that --payload gives
    #[arg(long, value_name = "ID", requires = "payload", conflicts_with_all = ["items", "transaction_id_field"])]
    transaction_id: Option<String>,
    /// Lines are objects with payload (or data), and perhaps transactionId, partition, traceId, encoding: as pop and tail print them
    #[arg(long, conflicts_with_all = ["bytes", "transaction_id_field", "partition_field"])]
    items: bool,
    /// Lines are not JSON: push their bytes as they are
    #[arg(long, conflicts_with_all = ["transaction_id_field", "partition_field"])]
    bytes: bool,
    /// Take the transaction id of each message from this field of its payload
    #[arg(long, value_name = "FIELD")]
    transaction_id_field: Option<String>,
    /// Take the partition of each message from this field of its payload
    #[arg(long, value_name = "FIELD", conflicts_with = "partition")]
    partition_field: Option<String>,
    /// 0 buffered, 1 at least once (unless said), 2 exactly once
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: Option<u8>,
    /// With QoS 0, which it means: the server writes its buffer when the oldest message is this old
    #[arg(long, value_name = "MILLISECONDS")]
    buffer_ms: Option<u32>,
    /// With QoS 0, which it means: the server writes its buffer when it holds this many messages
    #[arg(long, value_name = "MESSAGES")]
    buffer_max: Option<u32>,
    /// Most messages in one push
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Read and check all of the input before anything is pushed; it is held in memory meanwhile
    #[arg(long)]
    check_first: bool,
    /// Print what became of each message, not only how many there were
    #[arg(long)]
    receipts: bool,
}

const RECEIPTS: View = View {
    list: None,
    columns: &[
        column("LINE", "/line", Kind::Count),
        column("STATUS", "/status", Kind::State),
        column("ID", "/messageId", Kind::Text),
        column("PARTITION", "/partition", Kind::Text),
        column("SEQ", "/sequence", Kind::Count),
        column("TRANSACTION ID", "/transactionId", Kind::Long),
        column("ERROR", "/error", Kind::Long),
    ],
    empty: "nothing was pushed",
};

const REPORT: &[Column] = &[
    column("pushed", "/pushed", Kind::Count),
    column("duplicates", "/duplicates", Kind::Count),
    column("buffered", "/buffered", Kind::Count),
    column("not pushed", "/notPushed", Kind::Json),
    column("unknown", "/unknown", Kind::Json),
];

/// What was done. Lines are told as ranges, both ends included.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    queue: String,
    pushed: u64,
    duplicates: u64,
    buffered: u64,
    /// Lines that the server does not have.
    not_pushed: Vec<[u64; 2]>,
    /// Lines that it may have.
    unknown: Vec<[u64; 2]>,
    /// The last line that was looked at.
    last_line: u64,
    db_healthy: bool,
}

impl Report {
    fn stored(&self) -> u64 {
        self.pushed + self.duplicates + self.buffered
    }

    fn fail(&mut self, line: u64, error: &Error) {
        let lines = match error.outcome() {
            Outcome::NotApplied => &mut self.not_pushed,
            Outcome::Unknown => &mut self.unknown,
        };
        match lines.last_mut() {
            Some([_, last]) if *last + 1 == line => *last = line,
            _ => lines.push([line, line]),
        }
    }
}

/// Where messages come from.
type Lines = mpsc::Receiver<Result<Line, LineError>>;

/// A message and the line that it came from.
struct Numbered {
    line: u64,
    parsed: Parsed,
}

/// A push that is under way.
struct Pushing<'a> {
    session: &'a Session,
    client: Client,
    arguments: &'a Push,
    reading: Reading,
    report: Report,
    progress: Progress,
}

pub(crate) async fn run(session: &mut Session, push: Push) -> Result<(), Fault> {
    let reading = reading(&push)?;
    let (lines, total) = source(&push);
    let client = session.client().await?;
    let report = Report { queue: push.queue.clone(), db_healthy: true, ..Report::default() };
    // What is read before anything is pushed says nothing of how far it is.
    let progress = Progress::new(total.filter(|_| !push.check_first));
    let mut pushing = Pushing { session, client, arguments: &push, reading, report, progress };
    let ended = match push.check_first {
        true => pushing.checked(lines).await,
        false => pushing.streamed(lines).await,
    };
    pushing.tell(ended)
}

fn reading(push: &Push) -> Result<Reading, Fault> {
    if push.transaction_id.is_some() && push.payload.len() != 1 {
        return Err(Fault::usage(
            "--transaction-id is for one --payload; give each message its own",
        ));
    }
    if push.qos.is_some_and(|qos| qos > 0) && (push.buffer_ms, push.buffer_max) != (None, None) {
        return Err(Fault::usage("--buffer-ms and --buffer-max are for --qos 0 only"));
    }
    Ok(Reading {
        form: match (push.items, push.bytes) {
            (true, _) => Form::Item,
            (_, true) => Form::Bytes,
            _ => Form::Payload,
        },
        partition: push.partition.clone(),
        transaction_id_field: push.transaction_id_field.clone(),
        partition_field: push.partition_field.clone(),
    })
}

/// Lines to push, and how many bytes they are where that is known.
fn source(push: &Push) -> (Lines, Option<u64>) {
    if push.payload.is_empty() {
        if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            eprintln!("Type one JSON value a line; Ctrl-D ends it.");
        }
        return (lines::of_standard_input(), length_of_input());
    }
    let (sender, lines) = mpsc::channel(push.payload.len());
    for (number, payload) in (1..).zip(&push.payload) {
        let line = Line { number, text: payload.clone().into_bytes(), bytes_read: 0 };
        // There is a place for each.
        drop(sender.try_send(Ok(line)));
    }
    (lines, None)
}

/// Bytes of standard input, where it is a file.
fn length_of_input() -> Option<u64> {
    let file: std::fs::File = std::io::stdin().as_fd().try_clone_to_owned().ok()?.into();
    let metadata = file.metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

impl Pushing<'_> {
    /// Pushes lines as they come.
    async fn streamed(&mut self, mut lines: Lines) -> Result<(), Fault> {
        let most = self.arguments.batch as usize;
        let mut came = Vec::new();
        let mut interrupt = Interrupt::new()?;
        loop {
            let count = tokio::select! {
                biased;
                () = interrupt.came() => return Err(self.interrupted()),
                count = lines.recv_many(&mut came, most) => count,
            };
            if count == 0 {
                return Ok(());
            }
            let (mut messages, mut wrong, mut bytes) = (Vec::with_capacity(count), None, 0);
            for line in came.drain(..) {
                bytes = line.as_ref().map_or(bytes, |line| line.bytes_read);
                match self.read(line) {
                    Ok(message) => messages.push(message),
                    Err(fault) => {
                        wrong = Some(fault);
                        break;
                    }
                }
            }
            self.send(messages).await?;
            self.show_progress(bytes);
            if let Some(fault) = wrong {
                return Err(fault);
            }
        }
    }

    /// Reads all lines, and pushes them when none is wrong.
    async fn checked(&mut self, mut lines: Lines) -> Result<(), Fault> {
        let mut messages = Vec::new();
        while let Some(line) = lines.recv().await {
            messages.push(self.read(line)?);
        }
        let most = self.arguments.batch as usize;
        let mut interrupt = Interrupt::new()?;
        while !messages.is_empty() {
            tokio::select! {
                biased;
                () = interrupt.came() => return Err(self.interrupted()),
                () = std::future::ready(()) => {}
            }
            let rest = messages.split_off(most.min(messages.len()));
            self.send(std::mem::replace(&mut messages, rest)).await?;
            self.show_progress(0);
        }
        Ok(())
    }

    fn show_progress(&mut self, bytes: u64) {
        let stored = self.report.stored();
        let rate = stored as f64 / self.progress.seconds();
        let words = || format!("{} messages, {}/s", count(stored), count(rate as u64));
        self.progress.tell(bytes, words);
    }

    fn interrupted(&self) -> Fault {
        let line = self.report.last_line;
        Fault::Interrupted(format!("interrupted: all lines up to {line} are pushed, none after it"))
    }

    fn read(&mut self, line: Result<Line, LineError>) -> Result<Numbered, Fault> {
        let is_checked = self.arguments.check_first;
        let wrong = |number: u64, message: String| {
            let hint = match (is_checked, number) {
                (true, _) => "nothing was pushed".to_owned(),
                (false, 1) => "nothing was pushed; --help says what lines look like".to_owned(),
                (false, number) => format!(
                    "all lines before {number} were pushed, it and what follows were not: mend it and go on from there with `tail -n +{number}`"
                ),
            };
            Fault::usage_with(message, hint)
        };
        let line = line.map_err(|error| match &error {
            LineError::TooLong { number } => wrong(*number, error.to_string()),
            LineError::Read { number, .. } => wrong(number + 1, error.to_string()),
        })?;
        let parsed = parse(&self.reading, &line.text);
        let mut parsed =
            parsed.map_err(|why| wrong(line.number, format!("line {}: {why}", line.number)))?;
        if let Some(id) = &self.arguments.transaction_id {
            parsed.message = parsed.message.transaction_id(id.clone());
        }
        Ok(Numbered { line: line.number, parsed })
    }

    /// Pushes messages, partition by partition in the order of their first messages. The first that fails
    /// ends it.
    async fn send(&mut self, messages: Vec<Numbered>) -> Result<(), Fault> {
        let last = messages.last().map_or(self.report.last_line, |it| it.line);
        let mut groups: Vec<(Option<String>, Vec<Numbered>)> = Vec::new();
        for message in messages {
            let partition = message.parsed.partition.clone();
            match groups.iter_mut().find(|(known, _)| *known == partition) {
                Some((_, group)) => group.push(message),
                None => groups.push((partition, vec![message])),
            }
        }
        let mut failed: Option<Error> = None;
        for (partition, group) in groups {
            let error = match &failed {
                None => self.send_to(partition.as_deref(), group).await?,
                Some(_) => {
                    group.iter().for_each(|it| self.report.fail(it.line, &Error::HeldBack));
                    None
                }
            };
            failed = failed.or(error);
        }
        self.report.last_line = last;
        match failed {
            Some(error) => Err(self.session.fault(&error)),
            None => Ok(()),
        }
    }

    /// Pushes messages to one partition; the first error of a message that is not stored.
    async fn send_to(
        &mut self,
        partition: Option<&str>,
        group: Vec<Numbered>,
    ) -> Result<Option<Error>, Fault> {
        let (lines, messages): (Vec<u64>, Vec<_>) =
            group.into_iter().map(|it| (it.line, it.parsed.message)).unzip();
        let mut queue = self.client.queue(&self.arguments.queue);
        if let Some(partition) = partition {
            queue = queue.partition(partition);
        }
        let result = match promise(queue.push(messages), self.arguments).await {
            Ok(result) => result,
            Err(error) => {
                lines.iter().for_each(|line| self.report.fail(*line, &error));
                return Ok(Some(error));
            }
        };
        self.report.db_healthy &= result.store_healthy;
        for (line, receipt) in lines.iter().zip(&result.messages) {
            match &receipt.status {
                MessageStatus::Pushed => self.report.pushed += 1,
                MessageStatus::Duplicate => self.report.duplicates += 1,
                MessageStatus::Buffered => self.report.buffered += 1,
                MessageStatus::Failed(error) => self.report.fail(*line, error),
            }
        }
        if self.has_receipts() {
            let partition = partition.unwrap_or("Default");
            let rows = lines.iter().zip(&result.messages);
            self.print(rows.map(|(line, it)| shown(*line, partition, it)).collect())?;
        }
        Ok(result.error().cloned())
    }

    /// Whether each message is told: few enough to be typed, or asked for.
    fn has_receipts(&self) -> bool {
        self.arguments.receipts || !self.arguments.payload.is_empty()
    }

    fn print(&self, receipts: Vec<Value>) -> Result<(), Fault> {
        let output = &self.session.output;
        if output.format(Shape::Stream) == Format::Table {
            return output.table(&receipts, &RECEIPTS);
        }
        receipts.iter().try_for_each(|receipt| output.one_line(&to_json(receipt)?))
    }

    /// Says what was done, and what was not.
    fn tell(self, ended: Result<(), Fault>) -> Result<(), Fault> {
        let Self { session, report, progress, arguments, .. } = self;
        drop(progress);
        if !report.db_healthy {
            eprintln!(
                "onrushctl: warning: the server's store is away; what was pushed waits on the server's disk"
            );
        }
        for (lines, was, were) in [
            (&report.not_pushed, "was not pushed", "were not pushed"),
            (&report.unknown, "was perhaps pushed", "were perhaps pushed"),
        ] {
            if let Some(lines) = named(lines, was, were) {
                let others = count(report.stored());
                eprintln!(
                    "onrushctl: {lines}; {others} others up to line {} were pushed",
                    report.last_line
                );
            }
        }
        let has_receipts = arguments.receipts || !arguments.payload.is_empty();
        if !has_receipts {
            let output = &session.output;
            output.object(&to_json(&report)?, REPORT)?;
        }
        ended
    }
}

/// The same push with the promise that was asked for.
fn promise(request: Request, push: &Push) -> Request {
    let mut request = match push.qos.and_then(Qos::from_number) {
        Some(qos) => request.qos(qos),
        None => request,
    };
    if let Some(millis) = push.buffer_ms {
        request = request.buffer_ms(millis);
    }
    if let Some(messages) = push.buffer_max {
        request = request.buffer_max(messages);
    }
    request
}

/// `lines 7, 501–1000 were not pushed`; nothing where there are none.
fn named(lines: &[[u64; 2]], was: &str, were: &str) -> Option<String> {
    let range = |[first, last]: &[u64; 2]| match first == last {
        true => first.to_string(),
        false => format!("{first}–{last}"),
    };
    match lines {
        [] => None,
        [[first, last]] if first == last => Some(format!("line {first} {was}")),
        lines => {
            let ranges: Vec<String> = lines.iter().map(range).collect();
            Some(format!("lines {} {were}", ranges.join(", ")))
        }
    }
}

fn shown(line: u64, partition: &str, receipt: &MessageReceipt) -> Value {
    let (status, error) = match &receipt.status {
        MessageStatus::Pushed => ("pushed", None),
        MessageStatus::Duplicate => ("duplicate", None),
        MessageStatus::Buffered => ("buffered", None),
        MessageStatus::Failed(error) => ("failed", Some(error.to_string())),
    };
    json!({
        "line": line,
        "status": status,
        "messageId": receipt.message_id.map(|id| id.to_string()),
        "transactionId": receipt.transaction_id,
        "partition": partition,
        "partitionId": receipt.partition.map(partition_id),
        "sequence": receipt.seq,
        "error": error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_as_ranges() {
        let mut report = Report::default();
        for line in [7, 501, 502, 503, 600] {
            report.fail(line, &Error::HeldBack);
        }
        let told = named(&report.not_pushed, "was", "were");
        assert_eq!(told.as_deref(), Some("lines 7, 501–503, 600 were"));
        assert_eq!(named(&[[7, 7]], "was", "were").as_deref(), Some("line 7 was"));
        assert_eq!(named(&[], "was", "were"), None);
        let lost = Error::Disconnected { reason: "gone".to_owned(), sent: true };
        report.fail(601, &lost);
        assert_eq!((report.not_pushed.len(), report.unknown.as_slice()), (3, &[[601, 601]][..]));
    }
}
