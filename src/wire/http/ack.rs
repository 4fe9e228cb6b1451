//! The ack routes: transaction ids become sequences, verdicts become durable, each line gets its
//! answer.
//!
//! In: the whole body. Out: an array in request order; its status is 200 even where lines were
//! refused, because clients take anything else for a failure of the transport. Lines are decided
//! together, one request to the engine per lease. Called by `route`.

use hashbrown::HashMap;
use hyper::StatusCode;
use onrush_protocol::id::MessageId;
use onrush_protocol::name::GroupName;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::base::place::PartitionNumber;
use crate::shard::command::{CommandError, ReplyTo, Wanted};
use crate::state::draft::ack::{AckItem, AckRefusal, Acked, Verdict};
use crate::state::effect::{LeaseToken, Sequence};
use crate::wire::http::Api;
use crate::wire::http::ack_parse::{self, AckLine, AckRequest, Lease};
use crate::wire::http::dead::failed;
use crate::wire::http::names::Names;
use crate::wire::http::status::{Answer, Failure, json};

pub(super) const NOT_FOUND: &str = "Message not found";
pub(super) const NO_LEASE: &str = "Invalid or expired lease";

/// A body with one verdict.
pub(super) async fn ack(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    decide(api, ack_parse::parse_single(body)?).await
}

/// A body with any number of them.
pub(super) async fn ack_batch(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    decide(api, ack_parse::parse_batch(body)?).await
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    index: usize,
    transaction_id: &'a str,
    success: bool,
    error: Option<String>,
    queue_name: Option<String>,
    partition_name: Option<String>,
    lease_released: bool,
    dlq: bool,
    /// Done, and nothing changed by it: the message was settled before.
    noop: bool,
}

/// What becomes of one line.
#[derive(Debug)]
enum Step {
    /// To be asked of the engine.
    Open { partition: PartitionNumber, seq: Option<Sequence>, token: Option<LeaseToken> },
    /// Decided.
    Done(Result<Acked, Option<String>>),
}

async fn decide(api: &Api, request: AckRequest<'_>) -> Result<Answer, Failure> {
    let AckRequest { group, lines } = request;
    let mut steps: Vec<Step> = lines.iter().map(|line| first_step(api, line)).collect();
    let mut names: Vec<Option<Names>> =
        lines.iter().map(|line| api.names.get(line.partition?)).collect();
    // Ids that are addresses need no look-up, unless the names have to be asked for anyway.
    let unknown = |step: &Step, names: &Option<Names>| matches!(step, Step::Open { seq, .. } if seq.is_none() || names.is_none());
    let looks_up = steps.iter().zip(&names).any(|(step, names)| unknown(step, names));
    if looks_up {
        look_up(api, &group, &lines, &mut steps, &mut names).await?;
    }
    ask(api, &group, &lines, &mut steps).await?;
    if !looks_up && steps.iter().any(is_not_found) {
        // Perhaps an id of the producer's own that only looks like an address of ours.
        for (step, line) in steps.iter_mut().zip(&lines).filter(|(step, _)| is_not_found(step)) {
            *step = Step::open(line, None);
        }
        look_up(api, &group, &lines, &mut steps, &mut names).await?;
        ask(api, &group, &lines, &mut steps).await?;
    }
    let rendered = lines.iter().zip(steps).zip(names).enumerate();
    let body: Vec<Line<'_>> =
        rendered.map(|(index, ((line, step), names))| render(index, line, step, names)).collect();
    Ok(json(StatusCode::OK, &body))
}

impl Step {
    fn open(line: &AckLine<'_>, seq: Option<Sequence>) -> Self {
        let Some(partition) = line.partition else { return Self::refused(NOT_FOUND) };
        let token = match line.lease {
            Lease::None => None,
            Lease::Token(token) => Some(token),
            Lease::Foreign => return Self::refused(NO_LEASE),
        };
        Self::Open { partition, seq, token }
    }

    fn refused(message: &str) -> Self {
        Self::Done(Err(Some(message.to_owned())))
    }
}

fn first_step(api: &Api, line: &AckLine<'_>) -> Step {
    if line.verdict.is_none() {
        let strict = api.dialect.is_strict();
        let message = "status must be completed, failed, retry or dlq";
        return Step::Done(Err(strict.then(|| message.to_owned())));
    }
    Step::open(line, address(line))
}

/// The sequence in an id that is an address in the line's own partition.
fn address(line: &AckLine<'_>) -> Option<Sequence> {
    let (_, partition, seq) = MessageId::parse(&line.transaction_id).ok()?.parts();
    (Some(partition) == line.partition).then_some(seq)
}

fn is_not_found(step: &Step) -> bool {
    matches!(step, Step::Done(Err(Some(message))) if message == NOT_FOUND)
}

/// Asks the shards for the sequences of open lines that have none, and for names.
async fn look_up(
    api: &Api,
    group: &GroupName,
    lines: &[AckLine<'_>],
    steps: &mut [Step],
    names: &mut [Option<Names>],
) -> Result<(), Failure> {
    let open = steps.iter().zip(lines).filter_map(|(step, line)| match step {
        Step::Open { partition, token, .. } => {
            let id = Box::from(&*line.transaction_id);
            Some(Wanted { partition: *partition, token: *token, id })
        }
        Step::Done(_) => None,
    });
    let found = api.rooms.delivery.find(group.clone(), open.collect()).await;
    let mut found = found.map_err(|error| failed(&error))?.into_iter();
    for (step, name) in steps.iter_mut().zip(names) {
        let Step::Open { partition, seq, .. } = step else { continue };
        let Some(found) = found.next().flatten() else {
            *step = Step::refused(NOT_FOUND);
            continue;
        };
        api.names.remember(*partition, &found.queue, &found.partition);
        *name = api.names.get(*partition);
        *seq = found.seq;
        if seq.is_none() {
            *step = Step::refused(NOT_FOUND);
        }
    }
    Ok(())
}

/// Lines that the engine decides together, and which they are.
#[derive(Default)]
struct Group {
    items: Vec<(PartitionNumber, AckItem)>,
    asked: Vec<usize>,
}

/// Asks the engine to decide all open lines, once per lease, all at once.
async fn ask(
    api: &Api,
    group: &GroupName,
    lines: &[AckLine<'_>],
    steps: &mut [Step],
) -> Result<(), Failure> {
    let mut answers = Vec::new();
    for (token, Group { items, asked }) in by_lease(lines, steps) {
        let (reply, answer) = oneshot::channel();
        api.rooms.delivery.begin_ack(group.clone(), token, items, ReplyTo::Task(reply));
        answers.push((asked, answer));
    }
    for (asked, answer) in answers {
        let results = answer.await.unwrap_or(Err(CommandError::ShuttingDown));
        let results = results.map_err(|error| failed(&error))?;
        for (at, result) in asked.into_iter().zip(results) {
            if let Some(step) = steps.get_mut(at) {
                *step = Step::Done(result.map_err(|refusal| Some(words(&refusal))));
            }
        }
    }
    Ok(())
}

/// Open lines by their lease, in the order in which the leases come first; each is refused until the
/// engine says otherwise.
fn by_lease(lines: &[AckLine<'_>], steps: &mut [Step]) -> Vec<(Option<LeaseToken>, Group)> {
    let mut groups: Vec<(Option<LeaseToken>, Group)> = Vec::new();
    let mut places: HashMap<Option<LeaseToken>, usize> = HashMap::new();
    for (at, (step, line)) in steps.iter_mut().zip(lines).enumerate() {
        let Step::Open { partition, seq, token } = *step else { continue };
        *step = Step::refused(NOT_FOUND);
        let (Some(seq), Some(verdict)) = (seq, line.verdict) else { continue };
        let place = *places.entry(token).or_insert_with(|| {
            groups.push((token, Group::default()));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(place) {
            let error = line.error.clone();
            group.items.push((partition, AckItem { first: seq, last: seq, verdict, error }));
            group.asked.push(at);
        }
    }
    groups
}

/// A refusal in the words of the contract, where it has words for it.
pub(super) fn words(refusal: &AckRefusal) -> String {
    match refusal {
        AckRefusal::NoPartition(_) | AckRefusal::NoMessage { .. } => NOT_FOUND.to_owned(),
        AckRefusal::NoGroup(_) | AckRefusal::LeaseExpired => NO_LEASE.to_owned(),
        AckRefusal::Settled { .. } => "Message is settled already".to_owned(),
        AckRefusal::Decide(error) => error.to_string(),
    }
}

fn render<'a>(index: usize, line: &'a AckLine<'_>, step: Step, names: Option<Names>) -> Line<'a> {
    let result = match step {
        Step::Done(result) => result,
        Step::Open { .. } => Err(Some(NOT_FOUND.to_owned())),
    };
    let (queue, partition) =
        names.map(|it| (it.queue.to_string(), it.partition.to_string())).unzip();
    let acked = result.as_ref().copied().unwrap_or_default();
    // Of the others it cannot be told: one may have counted an attempt, one given a lease back.
    let is_final = matches!(line.verdict, Some(Verdict::Completed | Verdict::Dead));
    let noop = is_final && result.is_ok() && acked.settled + acked.buried == 0;
    Line {
        index,
        transaction_id: &line.transaction_id,
        success: result.is_ok(),
        error: result.err().flatten(),
        queue_name: queue,
        partition_name: partition,
        lease_released: acked.released,
        dlq: acked.buried > 0,
        noop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_grouped_by_lease_in_one_pass_and_keep_their_order() {
        let body = |count: u8| {
            let line = |n: u8| {
                format!(r#"{{"transactionId":"t{n}","partitionId":"p","status":"completed"}}"#)
            };
            let lines: Vec<String> = (0..count).map(line).collect();
            format!(r#"{{"acknowledgments":[{}]}}"#, lines.join(","))
        };
        let body = body(6);
        let lines = ack_parse::parse_batch(body.as_bytes()).unwrap().lines;
        let open = |seq: Option<u64>, lease: Option<u8>| {
            let token = lease.map(|byte| [byte; 16]);
            Step::Open { partition: 7, seq, token }
        };
        let mut steps = vec![
            open(Some(10), Some(2)),
            open(Some(11), None),
            Step::refused(NO_LEASE),
            open(Some(12), Some(2)),
            open(None, Some(3)),
            open(Some(13), None),
        ];
        let groups = by_lease(&lines, &mut steps);
        let found: Vec<_> = groups
            .iter()
            .map(|(token, group)| {
                let seqs: Vec<u64> = group.items.iter().map(|(_, item)| item.first).collect();
                (token.map(|it| it[0]), seqs, group.asked.clone())
            })
            .collect();
        assert_eq!(found, [(Some(2), vec![10, 12], vec![0, 3]), (None, vec![11, 13], vec![1, 5])]);
        assert!(steps.iter().all(|step| matches!(step, Step::Done(Err(_)))));
    }
}
