//! A push body: what it asks for, item by item, borrowed from the body.
//!
//! In: the bytes of `POST /api/v1/push`. Out: a [`PushRequest`] whose payloads are slices of the
//! body, untouched; or a refusal of the whole request in the words of the contract, with the index
//! of the item. Unknown keys of an item are passed over, because clients send some. Pure. Called
//! by `push` and by the fuzzer.

use std::borrow::Cow;

use onrush_protocol::code::Code;
use onrush_protocol::id::uuid_parse;
use onrush_protocol::limits::TRANSACTION_ID_BYTES_MAX;
use onrush_protocol::name::PartitionName;
use onrush_protocol::qos::Qos;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::http::dialect::Dialect;
use crate::wire::http::shape::{self, List, Object, optional_text};
use crate::wire::http::status::Failure;

/// Most items of one push: ten times what the contract calls a bulk import, so that bookkeeping per
/// item stays small beside the largest body.
pub(super) const ITEMS_MAX: usize = 100_000;

/// Longest `bufferMs`, milliseconds: a minute. Later is not buffering.
const BUFFER_MS_MAX: u32 = 60_000;

/// What a push asks for.
#[derive(Debug)]
pub(super) struct PushRequest<'a> {
    /// When it is answered.
    pub(super) qos: Qos,
    /// QoS 0: flush after this many milliseconds; 0 = as the server says.
    pub(super) buffer_ms: u32,
    /// QoS 0: flush when this many messages wait; 0 = as the server says.
    pub(super) buffer_max: u32,
    /// The messages, in request order.
    pub(super) items: Vec<PushItem<'a>>,
}

/// One message.
#[derive(Debug)]
pub(super) struct PushItem<'a> {
    pub(super) queue: Cow<'a, str>,
    pub(super) partition: Cow<'a, str>,
    /// JSON, as it stood in the body.
    pub(super) payload: &'a str,
    pub(super) transaction_id: Option<Cow<'a, str>>,
    pub(super) trace_id: Option<[u8; 16]>,
    /// The W3C trace context that the message is a part of, as it was given.
    pub(super) traceparent: Option<Cow<'a, str>>,
    /// For a queue that is made by this push.
    pub(super) namespace: Option<Cow<'a, str>>,
    /// For a queue that is made by this push.
    pub(super) task: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest<'a> {
    #[serde(borrow)]
    items: Option<List<Object<RawItem<'a>>, ITEMS_MAX>>,
    buffer_ms: Option<&'a RawValue>,
    buffer_max: Option<&'a RawValue>,
    qos0: Option<&'a RawValue>,
    qos: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawItem<'a> {
    #[serde(borrow)]
    pub(super) queue: Option<&'a RawValue>,
    pub(super) partition: Option<&'a RawValue>,
    pub(super) payload: Option<&'a RawValue>,
    pub(super) data: Option<&'a RawValue>,
    pub(super) transaction_id: Option<&'a RawValue>,
    pub(super) trace_id: Option<&'a RawValue>,
    pub(super) traceparent: Option<&'a RawValue>,
    pub(super) namespace: Option<&'a RawValue>,
    pub(super) task: Option<&'a RawValue>,
}

/// Reads a push body.
pub(super) fn parse(body: &[u8], dialect: Dialect) -> Result<PushRequest<'_>, Failure> {
    let no_items = || Failure::malformed("items array is required");
    let Object::Is(raw) = shape::read::<Object<RawRequest<'_>>>(body)? else {
        return Err(no_items());
    };
    let (qos, buffer_ms, buffer_max) = terms(&raw, dialect)?;
    let raw_items = match raw.items {
        Some(List::Is(items)) => items,
        Some(List::TooMany) => {
            let message = format!("items holds more than {ITEMS_MAX} messages");
            return Err(Failure::new(Code::TooManyRecords, message).limit(ITEMS_MAX as u64));
        }
        Some(List::Other) | None => return Err(no_items()),
    };
    let items = raw_items.into_iter().enumerate().map(|(index, raw)| match raw {
        Object::Is(raw) => item(&raw).map_err(|failure| failure.at(index)),
        Object::Other => Err(Failure::malformed("Each item must be an object").at(index)),
    });
    Ok(PushRequest { qos, buffer_ms, buffer_max, items: items.collect::<Result<_, _>>()? })
}

/// The promise that is asked for. In Queen's dialect only an explicit `qos` counts: its clients
/// have no word for a buffered push, and their server overlooks the rest.
fn terms(raw: &RawRequest<'_>, dialect: Dialect) -> Result<(Qos, u32, u32), Failure> {
    let explicit = match raw.qos {
        None => None,
        Some(raw) => {
            let number = raw.get().parse::<u8>().ok();
            let qos = number.and_then(Qos::from_number);
            Some(qos.ok_or_else(|| Failure::value("qos must be 0, 1 or 2"))?)
        }
    };
    if !dialect.is_strict() {
        return Ok((explicit.unwrap_or_default(), 0, 0));
    }
    let buffer_ms = whole(raw.buffer_ms, "bufferMs", BUFFER_MS_MAX)?;
    let buffer_max = whole(raw.buffer_max, "bufferMax", u32::MAX)?;
    let wants_buffer = match raw.qos0.map(RawValue::get) {
        None | Some("false") => buffer_ms.is_some() || buffer_max.is_some(),
        Some("true") => true,
        Some(_) => return Err(Failure::value("qos0 must be true or false")),
    };
    let qos = match explicit {
        Some(Qos::AtLeastOnce | Qos::ExactlyOnce) if wants_buffer => {
            return Err(Failure::value("bufferMs, bufferMax and qos0 are for qos 0 only"));
        }
        Some(qos) => qos,
        None if wants_buffer => Qos::Buffered,
        None => Qos::default(),
    };
    // 0 means «at once», which is the shortest time there is; further in, 0 means «not said».
    Ok((qos, buffer_ms.map_or(0, |it| it.max(1)), buffer_max.map_or(0, |it| it.max(1))))
}

fn whole(raw: Option<&RawValue>, name: &str, max: u32) -> Result<Option<u32>, Failure> {
    let Some(raw) = raw else { return Ok(None) };
    match raw.get().parse::<u32>() {
        Ok(number) if number <= max => Ok(Some(number)),
        _ => {
            let message = format!("{name} must be a whole number from 0 to {max}");
            Err(Failure::value(message).limit(u64::from(max)))
        }
    }
}

/// Reads one message.
pub(super) fn item<'a>(raw: &RawItem<'a>) -> Result<PushItem<'a>, Failure> {
    let queue = raw.queue.and_then(shape::text);
    let queue = queue.ok_or_else(|| Failure::malformed("Queue must be a string"))?;
    let partition = optional_text(raw.partition, "Partition must be a string")?;
    Ok(PushItem {
        queue,
        partition: partition.unwrap_or(Cow::Borrowed(PartitionName::DEFAULT)),
        // Some clients call it data, as it is called on the way out.
        payload: raw.payload.or(raw.data).map_or("null", RawValue::get),
        transaction_id: transaction_id(raw)?,
        trace_id: trace_id(raw)?,
        traceparent: traceparent(raw)?,
        namespace: optional_text(raw.namespace, "Namespace must be a string")?,
        task: optional_text(raw.task, "Task must be a string")?,
    })
}

fn transaction_id<'a>(raw: &RawItem<'a>) -> Result<Option<Cow<'a, str>>, Failure> {
    let id = optional_text(raw.transaction_id, "TransactionId must be a string")?;
    if id.as_ref().is_some_and(|id| id.is_empty() || id.len() > TRANSACTION_ID_BYTES_MAX) {
        let message = format!("TransactionId must have 1 to {TRANSACTION_ID_BYTES_MAX} bytes");
        return Err(Failure::value(message).limit(TRANSACTION_ID_BYTES_MAX as u64));
    }
    Ok(id)
}

fn traceparent<'a>(raw: &RawItem<'a>) -> Result<Option<Cow<'a, str>>, Failure> {
    const REFUSAL: &str = "traceparent must be a W3C trace context: 00-<32 hex>-<16 hex>-<2 hex>";
    let context = optional_text(raw.traceparent, REFUSAL)?;
    match context {
        Some(text) if !is_trace_context(&text) => Err(Failure::value(REFUSAL)),
        context => Ok(context),
    }
}

/// Whether a text is a trace context of the first version: two digits, trace, span, flags; neither of
/// the ids all zeros.
pub(super) fn is_trace_context(text: &str) -> bool {
    let is_hex = |part: &str, len: usize| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == len && part.bytes().all(digit)
    };
    let is_id = |part: &str, len| is_hex(part, len) && part.bytes().any(|byte| byte != b'0');
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next(), parts.next(), parts.next(), parts.next());
    version == Some("00")
        && trace.is_some_and(|part| is_id(part, 32))
        && span.is_some_and(|part| is_id(part, 16))
        && flags.is_some_and(|part| is_hex(part, 2))
        && parts.next().is_none()
}

fn trace_id(raw: &RawItem<'_>) -> Result<Option<[u8; 16]>, Failure> {
    let Some(text) = optional_text(raw.trace_id, "TraceId must be a string")? else {
        return Ok(None);
    };
    let id = uuid_parse(&text).ok_or_else(|| Failure::value("TraceId must be a UUID"))?;
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<PushRequest<'_>, Failure> {
        parse(body.as_bytes(), Dialect::Onrush)
    }

    fn refused(body: &str) -> String {
        parsed(body).unwrap_err().message().to_owned()
    }

    #[test]
    fn payloads_are_slices_of_the_body_and_never_rewritten() {
        let body = r#"{"items":[{"queue":"q","payload":{"b":1.50, "a":[ 1e2,{}],"a":"\u00e9"}}]}"#;
        let request = parsed(body).unwrap();
        let payload = request.items[0].payload;
        assert_eq!(payload, r#"{"b":1.50, "a":[ 1e2,{}],"a":"\u00e9"}"#);
        let at = payload.as_ptr() as usize - body.as_ptr() as usize;
        assert_eq!(&body[at..at + payload.len()], payload, "shared, not copied");
    }

    #[test]
    fn a_trace_context_is_taken_whole_or_refused() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_trace_context(GOOD));
        let body = format!(r#"{{"items":[{{"queue":"q","traceparent":"{GOOD}"}}]}}"#);
        assert_eq!(parsed(&body).unwrap().items[0].traceparent.as_deref(), Some(GOOD));
        for bad in [
            String::new(),
            GOOD.to_uppercase(),
            GOOD.replace("00-4", "01-4"),
            format!("{GOOD}-more"),
            GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            GOOD[1..].to_owned(),
        ] {
            assert!(!is_trace_context(&bad), "{bad}");
            let body = format!(r#"{{"items":[{{"queue":"q","traceparent":"{bad}"}}]}}"#);
            assert!(refused(&body).starts_with("traceparent must be"), "{bad}");
        }
    }

    #[test]
    fn what_is_not_said_has_the_defaults_of_the_contract() {
        let request = parsed(r#"{"items":[{"queue":"orders"}]}"#).unwrap();
        let item = &request.items[0];
        assert_eq!((&*item.queue, &*item.partition, item.payload), ("orders", "Default", "null"));
        assert!(item.transaction_id.is_none() && item.trace_id.is_none());
        assert_eq!((request.qos, request.buffer_ms), (Qos::AtLeastOnce, 0));
        let nulls = r#"{"items":[{"queue":"q","partition":null,"payload":null,
            "transactionId":null,"traceId":null,"producerSub":{"x":1},"more":[]}]}"#;
        let request = parsed(nulls).unwrap();
        assert_eq!((&*request.items[0].partition, request.items[0].payload), ("Default", "null"));
        let data = parsed(r#"{"items":[{"queue":"q","data":7}]}"#).unwrap();
        assert_eq!(data.items[0].payload, "7");
    }

    #[test]
    fn refusals_use_the_words_of_the_contract_and_name_the_item() {
        for body in ["{}", r#"{"items":null}"#, r#"{"items":{}}"#, r#"{"items":"x"}"#, "[]", "7"] {
            assert_eq!(refused(body), "items array is required", "{body}");
        }
        for (item, message) in [
            (r#"{"payload":1}"#, "Queue must be a string"),
            (r#"{"queue":7}"#, "Queue must be a string"),
            (r#"{"queue":"q","partition":7}"#, "Partition must be a string"),
            (r#"{"queue":"q","transactionId":7}"#, "TransactionId must be a string"),
            (r#"{"queue":"q","transactionId":""}"#, "TransactionId must have 1 to 255 bytes"),
            (r#"{"queue":"q","traceId":7}"#, "TraceId must be a string"),
            (r#"{"queue":"q","traceId":"abc"}"#, "TraceId must be a UUID"),
            (r#"{"queue":"q","namespace":[]}"#, "Namespace must be a string"),
            ("7", "Each item must be an object"),
            ("null", "Each item must be an object"),
        ] {
            let body = format!(r#"{{"items":[{{"queue":"q"}},{item}]}}"#);
            let failure = parsed(&body).unwrap_err();
            assert_eq!(failure, Failure::clone(&failure).at(1), "{item}: the second item");
            assert_eq!(failure.message(), message, "{item}");
        }
    }

    #[test]
    fn a_control_key_that_stands_twice_is_refused_and_named() {
        let refused = refused(r#"{"items":[{"queue":"q","queue":"other"}]}"#);
        assert!(refused.starts_with("Invalid JSON: duplicate field `queue`"), "{refused}");
    }

    #[test]
    fn a_transaction_id_has_at_most_255_bytes() {
        let body = |id: &str| format!(r#"{{"items":[{{"queue":"q","transactionId":"{id}"}}]}}"#);
        assert!(parsed(&body(&"x".repeat(255))).is_ok());
        let refused = refused(&body(&"x".repeat(256)));
        assert_eq!(refused, "TransactionId must have 1 to 255 bytes");
    }

    #[test]
    fn buffer_ms_buffer_max_qos0_and_qos_ask_for_a_buffered_push() {
        for (asks, qos, buffer_ms, buffer_max) in [
            (r#""bufferMs":100,"bufferMax":200"#, Qos::Buffered, 100, 200),
            (r#""bufferMs":0"#, Qos::Buffered, 1, 0),
            (r#""qos0":true"#, Qos::Buffered, 0, 0),
            (r#""qos":0,"bufferMax":5"#, Qos::Buffered, 0, 5),
            (r#""qos0":false"#, Qos::AtLeastOnce, 0, 0),
            (r#""qos":2"#, Qos::ExactlyOnce, 0, 0),
            (r#""x":1"#, Qos::AtLeastOnce, 0, 0),
        ] {
            let body = format!(r#"{{{asks},"items":[]}}"#);
            let it = parsed(&body).unwrap();
            assert_eq!((it.qos, it.buffer_ms, it.buffer_max), (qos, buffer_ms, buffer_max));
        }
        for asks in [
            r#""qos":3"#,
            r#""qos":"1""#,
            r#""qos0":1"#,
            r#""bufferMs":-1"#,
            r#""bufferMs":60001"#,
            r#""bufferMax":1.5"#,
            r#""qos":1,"bufferMs":5"#,
            r#""qos":2,"qos0":true"#,
        ] {
            assert!(parsed(&format!(r#"{{{asks},"items":[]}}"#)).is_err(), "{asks}");
        }
    }

    #[test]
    fn queens_dialect_overlooks_what_its_clients_server_overlooks() {
        let body = br#"{"items":[],"bufferMs":"soon","qos0":true}"#;
        assert_eq!(parse(body, Dialect::Queen).unwrap().qos, Qos::AtLeastOnce);
    }

    #[test]
    fn more_items_than_the_limit_are_refused() {
        let body = |count: usize| format!(r#"{{"items":[{}1]}}"#, "1,".repeat(count - 1));
        assert_eq!(refused(&body(ITEMS_MAX)), "Each item must be an object");
        let failure = parsed(&body(ITEMS_MAX + 1)).map(drop).unwrap_err();
        assert_eq!(failure.code(), "too_many_records");
    }
}
