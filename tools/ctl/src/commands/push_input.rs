//! Lines as messages.
//!
//! In: a line of input, and how lines are to be read. Out: a message and the partition it goes to, or what is
//! wrong with the line. A payload is checked to be JSON and sent as it stands there. Pure. Called by
//! `push`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onrush_client::{Message, Uuid};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How lines are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) form: Form,
    /// Where messages go whose line does not say.
    pub(crate) partition: Option<String>,
    /// Field of a payload that is its transaction id.
    pub(crate) transaction_id_field: Option<String>,
    /// Field of a payload that names its partition.
    pub(crate) partition_field: Option<String>,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Form {
    /// A payload in JSON.
    #[default]
    Payload,
    /// An object with a payload, and what else there is to say of a message.
    Item,
    /// A payload that is no JSON.
    Bytes,
}

/// A message that was read.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) partition: Option<String>,
    pub(crate) message: Message,
}

/// A line of the form of an item: as pushes over HTTP write it, or as pops write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow, default, deserialize_with = "there")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "there")]
    data: Option<&'a RawValue>,
    encoding: Option<String>,
    partition: Option<String>,
    transaction_id: Option<String>,
    trace_id: Option<String>,
    traceparent: Option<String>,
}

/// A field that is there, also where it is null.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a line.
pub(crate) fn parse(reading: &Reading, line: &[u8]) -> Result<Parsed, String> {
    match reading.form {
        Form::Payload => payload(reading, line),
        Form::Item => item(reading, line),
        Form::Bytes => Ok(Parsed {
            partition: reading.partition.clone(),
            message: Message::bytes(line.to_vec()),
        }),
    }
}

fn not_json(error: &serde_json::Error) -> String {
    format!("it is no JSON: {error}")
}

fn payload(reading: &Reading, line: &[u8]) -> Result<Parsed, String> {
    let raw: &RawValue = serde_json::from_slice(line).map_err(|error| not_json(&error))?;
    let mut parsed = Parsed { partition: reading.partition.clone(), message: Message::json(raw) };
    if reading.transaction_id_field.is_none() && reading.partition_field.is_none() {
        return Ok(parsed);
    }
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(line)
        .map_err(|_| "it is no object, so it has no fields".to_owned())?;
    if let Some(name) = &reading.transaction_id_field {
        parsed.message = parsed.message.transaction_id(field(&fields, name)?);
    }
    if let Some(name) = &reading.partition_field {
        parsed.partition = Some(field(&fields, name)?);
    }
    Ok(parsed)
}

/// A field that is a text or a number, as text.
fn field(fields: &BTreeMap<Cow<'_, str>, &RawValue>, name: &str) -> Result<String, String> {
    let raw = fields.get(name).ok_or_else(|| format!("it has no field {name:?}"))?.get();
    if let Ok(text) = serde_json::from_str::<String>(raw) {
        return Ok(text);
    }
    let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number {
        Ok(raw.to_owned())
    } else {
        Err(format!("its field {name:?} is neither a text nor a number"))
    }
}

fn item(reading: &Reading, line: &[u8]) -> Result<Parsed, String> {
    let item: Item<'_> = serde_json::from_slice(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("it is no item: {error}"),
        _ => not_json(&error),
    })?;
    let raw = item.payload.or(item.data).ok_or("it has neither payload nor data")?;
    let mut message = match item.encoding.as_deref() {
        None => Message::json(raw),
        Some("base64") => {
            let text: String =
                serde_json::from_str(raw.get()).map_err(|_| "its payload is no text".to_owned())?;
            let bytes = STANDARD
                .decode(text)
                .map_err(|error| format!("its payload is no base64: {error}"))?;
            Message::bytes(bytes)
        }
        Some(other) => return Err(format!("its encoding is {other:?}; only base64 is known")),
    };
    if let Some(id) = item.transaction_id {
        message = message.transaction_id(id);
    }
    if let Some(id) = item.trace_id {
        let id: Uuid = id.parse().map_err(|_| "its traceId is no UUID".to_owned())?;
        message = message.trace_id(id);
    }
    if let Some(context) = item.traceparent {
        message = message.header("traceparent", context.into_bytes());
    }
    Ok(Parsed { partition: item.partition.or_else(|| reading.partition.clone()), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(form: Form) -> Reading {
        Reading { form, partition: Some("p".to_owned()), ..Reading::default() }
    }

    fn refused(reading: &Reading, line: &str) -> String {
        parse(reading, line.as_bytes()).unwrap_err()
    }

    #[test]
    fn payloads_are_any_json_and_nothing_else() {
        let reading = reading(Form::Payload);
        for line in ["{\"a\":1.10}", "7", "null", "\"x\"", "[1]"] {
            let parsed = parse(&reading, line.as_bytes()).unwrap();
            assert_eq!(
                parsed.message.payload_bytes(),
                line.len(),
                "{line} is sent as it stands there"
            );
            assert_eq!(parsed.partition.as_deref(), Some("p"));
        }
        for line in ["", "{", "{\"a\":1} x", "a"] {
            assert!(refused(&reading, line).starts_with("it is no JSON"), "{line}");
        }
        assert!(parse(&reading, b"\"\xff\"").is_err());
    }

    #[test]
    fn fields_of_a_payload_may_say_where_it_goes() {
        let some = |name: &str| Some(name.to_owned());
        let reading = Reading {
            transaction_id_field: some("id"),
            partition_field: some("customer"),
            ..reading(Form::Payload)
        };
        let parsed = parse(&reading, br#"{"id":17,"customer":"c 1","x":0}"#).unwrap();
        assert_eq!(parsed.partition.as_deref(), Some("c 1"));
        assert!(refused(&reading, r#"{"id":17}"#).contains("\"customer\""));
        assert!(
            refused(&reading, r#"{"id":{},"customer":1}"#).contains("neither a text nor a number")
        );
        assert!(refused(&reading, "7").contains("no object"));
    }

    #[test]
    fn items_say_all_that_there_is_to_say() {
        let reading = reading(Form::Item);
        let parsed =
            parse(&reading, br#"{"data":"aGk=","encoding":"base64","partition":"q","other":1}"#);
        let parsed = parsed.unwrap();
        assert_eq!((parsed.message.payload_bytes(), parsed.partition.as_deref()), (2, Some("q")));
        assert_eq!(
            parse(&reading, br#"{"payload":null}"#).unwrap().partition.as_deref(),
            Some("p")
        );
        for (line, why) in [
            ("{}", "neither payload nor data"),
            (r#"{"payload":1,"traceId":"x"}"#, "traceId"),
            (r#"{"payload":1,"encoding":"rot13"}"#, "rot13"),
            (r#"{"payload":"?","encoding":"base64"}"#, "base64"),
            (r#"{"payload":1,"transactionId":7}"#, "no item"),
            (r#"{"payload":1"#, "no JSON"),
        ] {
            assert!(refused(&reading, line).contains(why), "{line}");
        }
    }
}
