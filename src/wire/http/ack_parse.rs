//! Ack bodies: which messages, which verdict, whose lease.
//!
//! In: the bytes of `POST /api/v1/ack` or `/ack/batch`. Out: lines in request order, or a refusal of
//! the whole request in the words of the contract. What is wrong with one line only, an id that
//! is not one of ours or a status that nobody knows, stays with that line. Pure. Called by `ack`.

use std::borrow::Cow;

use onrush_protocol::code::Code;
use onrush_protocol::id::{partition_from_uuid, uuid_parse};
use onrush_protocol::limits::ACK_ITEMS_MAX;
use onrush_protocol::name::GroupName;
use onrush_protocol::text::LongText;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::place::PartitionNumber;
use crate::state::draft::ack::Verdict;
use crate::state::effect::LeaseToken;
use crate::wire::http::shape::{self, List, Object, optional_text};
use crate::wire::http::status::Failure;

/// Most lines of one request.
const LINES_MAX: usize = ACK_ITEMS_MAX as usize;

/// What a consumer says.
#[derive(Debug)]
pub(super) struct AckRequest<'a> {
    pub(super) group: GroupName,
    pub(super) lines: Vec<AckLine<'a>>,
}

/// What it says of one message.
#[derive(Debug)]
pub(super) struct AckLine<'a> {
    pub(super) transaction_id: Cow<'a, str>,
    /// `None` for an id that is no partition's.
    pub(super) partition: Option<PartitionNumber>,
    /// `None` for a status that nobody knows.
    pub(super) verdict: Option<Verdict>,
    pub(super) lease: Lease,
    /// What the consumer says about it, cut to what a dead letter keeps.
    pub(super) error: Box<str>,
}

/// The lease that a line names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lease {
    /// It names none.
    None,
    /// It names this one.
    Token(LeaseToken),
    /// It names something that was never a lease.
    Foreign,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLine<'a> {
    #[serde(borrow)]
    pub(super) transaction_id: Option<&'a RawValue>,
    pub(super) partition_id: Option<&'a RawValue>,
    pub(super) status: Option<&'a RawValue>,
    pub(super) consumer_group: Option<&'a RawValue>,
    pub(super) lease_id: Option<&'a RawValue>,
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBatch<'a> {
    #[serde(borrow)]
    acknowledgments: Option<List<Object<RawLine<'a>>, LINES_MAX>>,
    consumer_group: Option<&'a RawValue>,
}

/// Refusals of a line without its ids.
struct Words {
    transaction_id: &'static str,
    partition_id: &'static str,
}

const SINGLE: Words = Words {
    transaction_id: "transactionId is required",
    partition_id: "partitionId is required to ensure message uniqueness",
};

const BATCH: Words = Words {
    transaction_id: "Each acknowledgment must have a valid transactionId string",
    partition_id: "Each acknowledgment must have a valid partitionId string to ensure message \
                   uniqueness",
};

/// Reads the body of a single ack.
pub(super) fn parse_single(body: &[u8]) -> Result<AckRequest<'_>, Failure> {
    let Object::Is(raw) = shape::read::<Object<RawLine<'_>>>(body)? else {
        return Err(Failure::malformed(SINGLE.transaction_id));
    };
    let (group, line) = single(&raw)?;
    Ok(AckRequest { group, lines: vec![line] })
}

/// Reads a verdict that names its group itself.
pub(super) fn single<'a>(raw: &RawLine<'a>) -> Result<(GroupName, AckLine<'a>), Failure> {
    Ok((group(raw.consumer_group)?, line(raw, &SINGLE)?))
}

/// Reads the body of a batch of acks. A group named by a line does not count, as the contract says.
pub(super) fn parse_batch(body: &[u8]) -> Result<AckRequest<'_>, Failure> {
    let required = || Failure::malformed("acknowledgments array is required");
    let Object::Is(raw) = shape::read::<Object<RawBatch<'_>>>(body)? else {
        return Err(required());
    };
    let raw_lines = match raw.acknowledgments {
        Some(List::Is(lines)) => lines,
        Some(List::TooMany) => {
            let message = format!("acknowledgments holds more than {LINES_MAX} messages");
            return Err(Failure::new(Code::TooManyRecords, message).limit(LINES_MAX as u64));
        }
        Some(List::Other) | None => return Err(required()),
    };
    let group = group(raw.consumer_group)?;
    let lines = raw_lines.into_iter().enumerate().map(|(index, raw)| match raw {
        Object::Is(raw) => line(&raw, &BATCH).map_err(|failure| failure.at(index)),
        Object::Other => Err(Failure::malformed(BATCH.transaction_id).at(index)),
    });
    Ok(AckRequest { group, lines: lines.collect::<Result<_, _>>()? })
}

fn group(raw: Option<&RawValue>) -> Result<GroupName, Failure> {
    let name = optional_text(raw, "consumerGroup must be a string")?;
    match name.filter(|name| !name.is_empty()) {
        None => Ok(GroupName::queue_mode()),
        Some(name) => Ok(name.parse()?),
    }
}

fn line<'a>(raw: &RawLine<'a>, words: &Words) -> Result<AckLine<'a>, Failure> {
    let required = |raw: Option<&'a RawValue>, refusal| {
        let text = raw.and_then(shape::text).filter(|text| !text.is_empty());
        text.ok_or_else(|| Failure::malformed(refusal))
    };
    let transaction_id = required(raw.transaction_id, words.transaction_id)?;
    let partition = required(raw.partition_id, words.partition_id)?;
    let verdict = match optional_text(raw.status, "status must be a string")?.as_deref() {
        None | Some("completed" | "success") => Some(Verdict::Completed),
        Some("failed") => Some(Verdict::Failed),
        Some("retry") => Some(Verdict::Retry),
        Some("dlq") => Some(Verdict::Dead),
        Some(_) => None,
    };
    let lease = match optional_text(raw.lease_id, "leaseId must be a string")?.as_deref() {
        None | Some("") => Lease::None,
        Some(text) => uuid_parse(text).map_or(Lease::Foreign, Lease::Token),
    };
    // Clients put whatever they caught here; what is no text is kept as it was written.
    let error = raw
        .error
        .map_or(Cow::Borrowed(""), |raw| shape::text(raw).unwrap_or(Cow::Borrowed(raw.get())));
    Ok(AckLine {
        transaction_id,
        partition: uuid_parse(&partition).and_then(partition_from_uuid),
        verdict,
        lease,
        error: LongText::lossy(&error).as_str().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: &str = "6f6e7275-7368-8000-8000-000000000007";
    const LEASE: &str = "019a0c11-7fe8-7001-9999-0123456789ab";

    #[test]
    fn a_single_ack_is_heard_whole() {
        let body = format!(
            r#"{{"transactionId":"t1","partitionId":"{PARTITION}","status":"failed",
                "consumerGroup":"g","error":"no \"luck\"","leaseId":"{LEASE}"}}"#
        );
        let request = parse_single(body.as_bytes()).unwrap();
        let line = &request.lines[0];
        assert_eq!((request.group.as_str(), &*line.transaction_id), ("g", "t1"));
        assert_eq!((line.partition, line.verdict), (Some(7), Some(Verdict::Failed)));
        assert_eq!(line.lease, Lease::Token(uuid_parse(LEASE).unwrap()));
        assert_eq!(&*line.error, "no \"luck\"");
    }

    #[test]
    fn what_is_not_said_has_the_defaults_of_the_contract() {
        let body = format!(
            r#"{{"transactionId":"t","partitionId":"{PARTITION}","consumerGroup":null,
                "error":null,"leaseId":"","status":null}}"#
        );
        let request = parse_single(body.as_bytes()).unwrap();
        assert!(request.group.is_queue_mode());
        let line = &request.lines[0];
        assert_eq!((line.verdict, line.lease), (Some(Verdict::Completed), Lease::None));
        assert_eq!(&*line.error, "");
    }

    #[test]
    fn refusals_use_the_words_of_the_contract() {
        let single = |body: &str| parse_single(body.as_bytes()).unwrap_err().message().to_owned();
        assert_eq!(single("{}"), "transactionId is required");
        assert_eq!(
            single(r#"{"transactionId":"t","partitionId":5}"#),
            "partitionId is required to ensure message uniqueness"
        );
        let batch = |body: &str| parse_batch(body.as_bytes()).unwrap_err().message().to_owned();
        assert_eq!(batch("{}"), "acknowledgments array is required");
        assert_eq!(batch(r#"{"acknowledgments":{}}"#), "acknowledgments array is required");
        assert_eq!(
            batch(r#"{"acknowledgments":[{"transactionId":5}]}"#),
            "Each acknowledgment must have a valid transactionId string"
        );
        assert_eq!(
            batch(r#"{"acknowledgments":[{"transactionId":"t"}]}"#),
            "Each acknowledgment must have a valid partitionId string to ensure message uniqueness"
        );
        assert_eq!(
            batch(r#"{"acknowledgments":[],"consumerGroup":7}"#),
            "consumerGroup must be a string"
        );
    }

    #[test]
    fn what_is_wrong_with_one_line_stays_with_that_line() {
        let body = format!(
            r#"{{"acknowledgments":[
                {{"transactionId":"a","partitionId":"not-a-uuid"}},
                {{"transactionId":"b","partitionId":"{LEASE}"}},
                {{"transactionId":"c","partitionId":"{PARTITION}","status":"perhaps"}},
                {{"transactionId":"d","partitionId":"{PARTITION}","leaseId":"gone"}},
                {{"transactionId":"e","partitionId":"{PARTITION}","error":{{"code":5}}}}]}}"#
        );
        let lines = parse_batch(body.as_bytes()).unwrap().lines;
        assert_eq!((lines[0].partition, lines[1].partition), (None, None));
        assert_eq!(lines[2].verdict, None);
        assert_eq!(lines[3].lease, Lease::Foreign);
        assert_eq!(&*lines[4].error, r#"{"code":5}"#);
    }

    #[test]
    fn an_empty_batch_is_a_batch() {
        assert!(parse_batch(br#"{"acknowledgments":[]}"#).unwrap().lines.is_empty());
    }

    #[test]
    fn an_error_text_is_cut_to_what_a_dead_letter_keeps() {
        let body = format!(
            r#"{{"transactionId":"t","partitionId":"{PARTITION}","error":"{}"}}"#,
            "é".repeat(4_000)
        );
        assert_eq!(parse_single(body.as_bytes()).unwrap().lines[0].error.len(), 4_096);
    }
}
