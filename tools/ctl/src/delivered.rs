//! Messages as lines of JSON.
//!
//! In: messages of the binary protocol, or of the HTTP API. Out: objects with the field names of a pop over
//! HTTP, so that `ack`, `push --items` and every other reader of such lines take them. A JSON payload comes out
//! as it went in, but for white space; any other in base64 with `encoding` beside it. Called by pop and tail.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onrush_client::ReceivedMessage;
use onrush_protocol::MessageId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::address::{partition_id, uuid};
use crate::column::{Column, Kind, column};
use crate::fault::Fault;
use crate::moments::iso;
use crate::output::to_json;

/// What a table shows of messages that were popped.
pub(crate) const POPPED: &[Column] = &[
    column("ID", "/id", Kind::Text),
    column("PARTITION", "/partition", Kind::Text),
    column("SEQ", "/sequence", Kind::Count),
    column("ATTEMPTS", "/retryCount", Kind::Worry),
    column("TRANSACTION ID", "/transactionId", Kind::Long),
    column("DATA", "/data", Kind::Json),
];

/// A message on its way out. Fields that do not apply are left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivered<'a> {
    id: String,
    transaction_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    queue: &'a str,
    partition: &'a str,
    partition_id: String,
    sequence: u64,
    created_at: String,
    retry_count: u32,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_group: Option<&'a str>,
}

/// A message that came over the binary protocol, as JSON.
pub(crate) fn of_received(message: &ReceivedMessage) -> Result<Vec<u8>, Fault> {
    let as_json = message.is_json.then(|| serde_json::from_slice::<&RawValue>(message.bytes()));
    let encoded;
    let (data, encoding): (&RawValue, _) = match as_json {
        Some(Ok(raw)) => (raw, None),
        // A producer may call anything JSON; one such payload must not spoil its line.
        _ => {
            let text = serde_json::value::to_raw_value(&STANDARD.encode(message.bytes()));
            encoded = text.map_err(|error| Fault::Incomplete(error.to_string()))?;
            (&*encoded, Some("base64"))
        }
    };
    let traceparent = message.header("traceparent");
    let lease_until_ms = i64::try_from(message.lease_until_ms()).unwrap_or(i64::MAX);
    to_json(&Delivered {
        id: message.id.to_string(),
        transaction_id: message.transaction_id().into_owned(),
        trace_id: message.trace_id.map(|id| id.to_string()),
        traceparent: traceparent.map(|it| String::from_utf8_lossy(it).into_owned()),
        queue: message.queue().as_str(),
        partition: message.partition_name().as_str(),
        partition_id: partition_id(message.partition()),
        sequence: message.seq,
        created_at: iso(i64::try_from(message.time_ms).unwrap_or(i64::MAX)),
        retry_count: message.attempts,
        data,
        encoding,
        lease_id: message.is_leased().then(|| uuid(*message.lease())),
        lease_expires_at: message.is_leased().then(|| iso(lease_until_ms)),
        consumer_group: Some(message.group().as_str()),
    })
}

/// A message as `GET /api/v1/messages/…` shows it, as far as a line tells it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'a> {
    id: String,
    transaction_id: String,
    trace_id: Option<String>,
    traceparent: Option<String>,
    queue: String,
    partition: String,
    partition_id: String,
    created_at: String,
    #[serde(default)]
    retry_count: u32,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    encoding: Option<String>,
}

impl Shown<'_> {
    /// The line that a pop would have brought, without a lease.
    pub(crate) fn line(&self) -> Result<Vec<u8>, Fault> {
        let sequence = MessageId::parse(&self.id).map_or(0, |id| id.parts().2);
        let nothing = RawValue::NULL;
        to_json(&Delivered {
            id: self.id.clone(),
            transaction_id: self.transaction_id.clone(),
            trace_id: self.trace_id.clone(),
            traceparent: self.traceparent.clone(),
            queue: &self.queue,
            partition: &self.partition,
            partition_id: self.partition_id.clone(),
            sequence,
            created_at: self.created_at.clone(),
            retry_count: self.retry_count,
            data: self.payload.unwrap_or(nothing),
            encoding: self.encoding.as_deref(),
            lease_id: None,
            lease_expires_at: None,
            consumer_group: None,
        })
    }
}
