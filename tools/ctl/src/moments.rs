//! Times and durations as people type and read them.
//!
//! In: `15m`, `2h ago`, ISO 8601, unix milliseconds. Out: milliseconds since 1970 and durations, or words
//! that say what may be typed; ages and durations as short texts. Pure but for [`now_ms`]. Called by the
//! command line and by tables.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A duration such as `30s`, `5m`, `1h30m` or `2d`; a day has 24 hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is no duration such as 500ms, 30s, 5m, 1h30m or 2d");
    // jiff knows `5m ago`, which is a time here and no duration.
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.parse().map_err(|_| refused())?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?;
    Duration::try_from(exact).map_err(|_| refused())
}

/// A time, in milliseconds since 1970: ISO 8601 with an offset or in UTC, unix milliseconds, `now`, or
/// how long ago: `15m`, `15m ago`.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    if text == "now" {
        return Ok(now_ms());
    }
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(millis);
    }
    if let Ok(ago) = duration(text.strip_suffix("ago").unwrap_or(text).trim_end()) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(now_ms().saturating_sub(ago_ms));
    }
    let forms =
        [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")];
    let found = forms.iter().find_map(|form| form.parse::<Timestamp>().ok());
    found.map(Timestamp::as_millisecond).ok_or_else(|| {
        format!("{text:?} is no time such as 2026-12-01T08:00:00Z, 2026-12-01, \"15m ago\" or now")
    })
}

/// A time as ISO 8601 in UTC with milliseconds.
pub(crate) fn iso(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| unix_ms.to_string(), |time| format!("{time:.3}"))
}

/// How long it is, in at most two units: `12s`, `5m30s`, `3h5m`, `2d4h`.
pub(crate) fn length(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let two = |large: u64, mark: &str, small: u64, small_mark: &str| match small {
        0 => format!("{large}{mark}"),
        small => format!("{large}{mark}{small}{small_mark}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(minutes, "m", seconds % 60, "s"),
        3600..86_400 => two(hours, "h", minutes, "m"),
        _ => two(days, "d", hours, "h"),
    }
}

/// How long ago an ISO 8601 time was; the text itself where it is none.
pub(crate) fn age(iso: &str, now_ms: i64) -> String {
    match iso.parse::<Timestamp>() {
        Ok(then) => {
            let ago_ms = now_ms.saturating_sub(then.as_millisecond()).max(0);
            length(ago_ms.unsigned_abs() / 1000)
        }
        Err(_) => iso.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_type_them() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "-5s", "5m ago", "soon", "1 month", "5x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1000));
        assert_eq!(time("1970-01-01T01:00:01+01:00"), Ok(1000));
        assert_eq!(time("1970-01-01T00:01"), Ok(60_000));
        assert_eq!(time("1970-01-02"), Ok(86_400_000));
        assert_eq!(time("1234"), Ok(1234));
        for text in ["15m", "15m ago", "900s ago"] {
            let off = now_ms() - 900_000 - time(text).unwrap();
            assert!((0..60_000).contains(&off), "{text}: {off}");
        }
        assert!(time("yesterday").is_err());
        assert_eq!(iso(1000), "1970-01-01T00:00:01.000Z");
    }

    #[test]
    fn lengths_have_two_units_at_most() {
        let shown: Vec<String> =
            [0, 59, 60, 90, 3600, 3660, 86_400, 190_000].map(length).into_iter().collect();
        assert_eq!(shown, ["0s", "59s", "1m", "1m30s", "1h", "1h1m", "1d", "2d4h"]);
        assert_eq!(age("1970-01-01T00:00:00.000Z", 61_500), "1m1s");
        assert_eq!(age("never", 0), "never");
    }
}
