//! Paths and queries: percent-decoding, and pairs by name.
//!
//! In: the raw path segment or query of a request. Out: texts, or a refusal that names what cannot
//! be decoded. Pure. Called by `route` and by routes with a query.

use std::borrow::Cow;

use crate::wire::http::status::Failure;

/// A path segment, decoded; `+` stands for itself there.
pub(super) fn segment(raw: &str) -> Result<Cow<'_, str>, Failure> {
    decode(raw, Plus::Itself)
}

/// The pairs of a query, decoded.
#[derive(Debug, Default)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Most pairs of a query; longer ones are not made by any client.
const PAIRS_MAX: usize = 64;

impl<'a> Query<'a> {
    /// Reads a query. A name without `=` has the empty value.
    pub(super) fn parse(raw: &'a str) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PAIRS_MAX {
                let failure = Failure::malformed("the query has too many parameters");
                return Err(failure.limit(PAIRS_MAX as u64));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name, Plus::Space)?, decode(value, Plus::Space)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of this name, unless it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// Whether a name is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Whether a switch is on: `true` or `1`.
    pub(super) fn is_on(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// A whole number within its limits.
    ///
    /// # Errors
    /// A refusal that names the parameter and its limits.
    pub(super) fn number(
        &self,
        name: &'static str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => {
                let message = format!("{name} must be a whole number from {min} to {max}");
                Err(Failure::value(message).limit(max))
            }
        }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Plus {
    Itself,
    Space,
}

fn decode(raw: &str, plus: Plus) -> Result<Cow<'_, str>, Failure> {
    let is_plain = |byte: u8| byte != b'%' && (byte != b'+' || plus == Plus::Itself);
    if raw.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' if plus == Plus::Space => decoded.push(b' '),
            b'%' => {
                let byte = tail.first_chunk::<2>().and_then(hex_byte);
                let Some(byte) = byte else { return Err(undecodable()) };
                decoded.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            byte => decoded.push(*byte),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| undecodable())
}

fn hex_byte(digits: &[u8; 2]) -> Option<u8> {
    let value = |digit: u8| (digit as char).to_digit(16);
    let [high, low] = *digits;
    u8::try_from(value(high)? * 16 + value(low)?).ok()
}

fn undecodable() -> Failure {
    Failure::malformed("the path or query is not percent-encoded UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_found_by_whole_names() {
        let query = Query::parse("partitions=4&consumerGroup=a%2Fb+c&wait=true&empty=&x").unwrap();
        assert_eq!(query.get("partitions"), Some("4"));
        assert_eq!(query.get("ns"), None, "not inside another name");
        assert_eq!(query.get("consumerGroup"), Some("a/b c"));
        assert!(query.is_on("wait") && !query.is_on("x") && !query.is_on("partitions"));
        assert_eq!(query.get("empty"), None);
    }

    #[test]
    fn a_number_outside_its_limits_is_refused_by_name() {
        let query = Query::parse("batch=0&limit=ten&offset=18446744073709551616").unwrap();
        for name in ["batch", "limit", "offset"] {
            let refused = query.number(name, 1, 10).unwrap_err();
            assert_eq!(refused.message(), format!("{name} must be a whole number from 1 to 10"));
        }
        assert_eq!(query.number("timeout", 1, 10), Ok(None));
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        assert_eq!(segment("a%2fb+%C3%A9").unwrap(), "a/b+é");
        for raw in ["%", "%2", "%zz", "%ff", "a%C3"] {
            assert!(segment(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_query_of_too_many_parameters_is_refused() {
        assert!(Query::parse(&"a=1&".repeat(64)).is_ok());
        assert!(Query::parse(&"a=1&".repeat(65)).is_err());
    }
}
