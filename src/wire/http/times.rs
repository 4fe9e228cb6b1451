//! Times as clients say them, and the ranges of figures over time.
//!
//! In: ISO 8601 texts or unix milliseconds, from a query or a body. Out: unix milliseconds, or a refusal
//! that names the parameter. Pure. Called by every route that takes a time.

use jiff::Timestamp;

use crate::wire::http::status::Failure;
use crate::wire::http::url::Query;

/// A time in a query.
pub(super) fn time(query: &Query<'_>, name: &'static str) -> Result<Option<u64>, Failure> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let refused = || Failure::value(format!("{name} must be {FORM}"));
    parse(text).map(Some).ok_or_else(refused)
}

/// What a text must be to be a time.
pub(super) const FORM: &str = "a time in ISO 8601 or unix milliseconds";

/// The unix milliseconds of a time: they themselves, or ISO 8601; one without an offset, as a browser's
/// local form, is UTC, one before 1970 is the beginning of that year. `None` for a text that is no time.
pub(super) fn parse(text: &str) -> Option<u64> {
    if let Ok(millis) = text.parse::<u64>() {
        return Some(millis);
    }
    let with_offset = text.parse::<Timestamp>().ok();
    let at = with_offset.or_else(|| {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })?;
    Some(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

/// From and to, unix milliseconds; both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Range {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}

impl Range {
    /// The range that a query asks for; by default what came in the last `default_ms`. A `to` of a whole
    /// minute takes that minute in.
    pub(super) fn of(query: &Query<'_>, now_ms: u64, default_ms: u64) -> Result<Self, Failure> {
        let to_ms = time(query, "to")?.map_or(u64::MAX, to_end_of_minute);
        let newest_ms = to_ms.min(now_ms);
        let from_ms = time(query, "from")?.unwrap_or(newest_ms.saturating_sub(default_ms));
        if from_ms > to_ms {
            return Err(Failure::value("from must not be later than to"));
        }
        Ok(Self { from_ms, to_ms })
    }
}

/// Whole minutes stand for all of the minute.
pub(super) fn to_end_of_minute(to_ms: u64) -> u64 {
    const MINUTE_MS: u64 = 60_000;
    if to_ms.is_multiple_of(MINUTE_MS) { to_ms.saturating_add(MINUTE_MS - 1) } else { to_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_as_iso_texts_and_milliseconds() {
        let query =
            Query::parse("a=2026-05-16T08:00:00.123Z&b=1778918400123&c=2026-05-16T08:00&d=x");
        let query = query.unwrap();
        assert_eq!(time(&query, "a").unwrap(), Some(1_778_918_400_123));
        assert_eq!(time(&query, "b").unwrap(), Some(1_778_918_400_123));
        assert_eq!(time(&query, "c").unwrap(), Some(1_778_918_400_000));
        assert!(time(&query, "d").unwrap_err().message().starts_with("d must be"));
        assert_eq!(time(&query, "e").unwrap(), None);
    }

    #[test]
    fn a_time_is_read_with_an_offset_or_as_utc() {
        for text in [
            "2026-05-16T08:00:00.123Z",
            "2026-05-16T10:00:00.123+02:00",
            "2026-05-16T08:00:00.123456",
            "2026-05-16 08:00:00.123",
        ] {
            assert_eq!(parse(text), Some(1_778_918_400_123), "{text}");
        }
        assert_eq!(parse("1960-01-01T00:00:00Z"), Some(0));
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "-1", "1778918400.5"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_ends_with_its_minute_and_begins_an_hour_before() {
        let query = Query::parse("to=2026-05-16T08:00:00Z").unwrap();
        let range = Range::of(&query, 1_778_918_430_000, 3_600_000).unwrap();
        assert_eq!(range.to_ms, 1_778_918_459_999);
        assert_eq!(range.from_ms, 1_778_918_430_000 - 3_600_000);
        let query = Query::parse("from=9&to=3").unwrap();
        assert!(Range::of(&query, 100, 1).is_err());
    }
}
