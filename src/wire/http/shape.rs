//! Shapes of JSON that a request may or may not have, found in one pass and without a copy.
//!
//! In: a body's text. Out: known keys as raw slices of the body, with «it was not an object» or «it
//! was not a list» as values and not as errors, so that a route can refuse in its own words. A key
//! that is known and stands twice is refused; unknown keys are passed over. Called by the parsers
//! of push, ack and configure.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use hyper::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::wire::http::status::Failure;

/// Deepest nesting of a body; deeper ones are made to break parsers.
pub(super) const DEPTH_MAX: usize = 128;

/// What the binary bodies of Queen's clients begin with: a push, a transaction. They send those only
/// where they are told to, and whoever told them should read what is wrong.
const BINARY: [&[u8]; 2] = [b"QPB1", b"QTB1"];

/// An object, or something else.
#[derive(Debug)]
pub(super) enum Object<T> {
    Is(T),
    Other,
}

/// A list of at most `MAX` elements, or something else.
#[derive(Debug)]
pub(super) enum List<T, const MAX: usize> {
    Is(Vec<T>),
    TooMany,
    Other,
}

/// Reads a whole body. An empty one, one that is not UTF-8, and one that is not JSON are refused
/// in the words of the contract.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    if body.is_empty() {
        return Err(Failure::malformed("Empty request body"));
    }
    if BINARY.iter().any(|begin| body.starts_with(begin)) {
        let message = "binary bodies are not supported: let the client send JSON";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Failure::of_http(status, "unsupported_media_type", message));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Failure::malformed(format!("Invalid JSON: not UTF-8 at byte {at}"))
    })?;
    if is_deeper_than(text, DEPTH_MAX) {
        let message = format!("Invalid JSON: nested deeper than {DEPTH_MAX} levels");
        return Err(Failure::malformed(message).limit(DEPTH_MAX as u64));
    }
    serde_json::from_str(text).map_err(|error| Failure::malformed(format!("Invalid JSON: {error}")))
}

/// Whether lists and objects nest deeper than `limit`. Text that is no JSON may be judged either
/// way; the parser refuses it.
pub(super) fn is_deeper_than(text: &str, limit: usize) -> bool {
    // Nothing nests deeper than it has brackets, and most payloads have few.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= limit {
        return false;
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut in_string = false;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => drop(bytes.next()),
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest > limit
}

/// The text of a raw JSON string, borrowed where it has no escapes; `None` when it is no string.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw.get()).ok().map(Cow::Owned)
}

/// The text of an optional raw value: `Ok(None)` when it is absent or null.
pub(super) fn optional_text<'a>(
    raw: Option<&'a RawValue>,
    refusal: &'static str,
) -> Result<Option<Cow<'a, str>>, Failure> {
    raw.map(|raw| text(raw).ok_or_else(|| Failure::malformed(refusal))).transpose()
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

/// Methods of a visitor for values that are neither a list nor an object.
macro_rules! scalars_are_other {
    () => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::Other)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::Other)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::Other)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::Other)
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::Other)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::Other)
        }
    };
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object::Is)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Object::Other)
    }

    scalars_are_other!();
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = List<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < MAX {
            match seq.next_element()? {
                Some(element) => elements.push(element),
                None => return Ok(List::Is(elements)),
            }
        }
        let mut more = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(if more { List::TooMany } else { List::Is(elements) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(List::Other)
    }

    scalars_are_other!();
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct One<'a> {
        #[serde(borrow)]
        a: Option<&'a RawValue>,
    }

    fn one(body: &str) -> Result<Object<One<'_>>, Failure> {
        read(body.as_bytes())
    }

    #[test]
    fn a_value_of_another_shape_is_a_value_and_not_an_error() {
        for body in ["1", "-1", "1.5", "\"a\"", "true", "null", "[{\"a\":1}]"] {
            assert!(matches!(one(body), Ok(Object::Other)), "{body}");
            if !body.starts_with('[') {
                assert!(matches!(read::<List<u8, 9>>(body.as_bytes()), Ok(List::Other)), "{body}");
            }
        }
        assert!(matches!(read::<List<u8, 9>>(b"{\"a\":[1]}"), Ok(List::Other)));
    }

    #[test]
    fn known_keys_are_raw_slices_and_unknown_ones_are_passed_over() {
        let Object::Is(One { a }) = one(r#"{"x":{"a":0},"a": [1, 2.50] ,"y":null}"#).unwrap()
        else {
            panic!("an object");
        };
        assert_eq!(a.unwrap().get(), "[1, 2.50]");
    }

    #[test]
    fn a_known_key_that_stands_twice_is_refused() {
        let refused = one(r#"{"a":1,"a":2}"#).unwrap_err();
        assert!(refused.message().contains("duplicate field `a`"), "{refused:?}");
    }

    #[test]
    fn a_list_over_its_limit_is_not_kept() {
        assert!(matches!(read::<List<u8, 2>>(b"[1,2]"), Ok(List::Is(it)) if it == [1, 2]));
        assert!(matches!(read::<List<u8, 2>>(b"[1,2,3]"), Ok(List::TooMany)));
    }

    #[test]
    fn bodies_that_are_no_json_are_refused_in_the_words_of_the_contract() {
        let message = |body: &[u8]| read::<Object<One<'_>>>(body).unwrap_err().message().to_owned();
        assert_eq!(message(b""), "Empty request body");
        assert_eq!(message(b"{\"a\":\"\xff\"}"), "Invalid JSON: not UTF-8 at byte 6");
        for body in ["{", "{\"a\":1}x", "{'a':1}", "{\"a\":01}", "[1,]", "nul", "{\"a\":\"\\x\"}"] {
            assert!(message(body.as_bytes()).starts_with("Invalid JSON: "), "{body}");
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_strings_and_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read::<List<IgnoredAny, 9>>(nested(128).as_bytes()).is_ok());
        let refused = read::<List<IgnoredAny, 9>>(nested(129).as_bytes()).unwrap_err();
        assert!(refused.message().contains("128"), "{refused:?}");
        let in_string = format!(r#"{{"a":"\"{}"}}"#, "[{".repeat(500));
        assert!(one(&in_string).is_ok());
    }

    #[test]
    fn texts_are_borrowed_unless_they_have_escapes() {
        let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).unwrap();
        assert!(matches!(text(&raw("\"plain é\"")), Some(Cow::Borrowed("plain é"))));
        assert!(matches!(text(&raw(r#""a\n\u00e9""#)), Some(Cow::Owned(it)) if it == "a\né"));
        assert_eq!(text(&raw("7")), None);
        assert_eq!(text(&raw(r#""\ud800""#)), None, "half a surrogate pair is no text");
    }
}
