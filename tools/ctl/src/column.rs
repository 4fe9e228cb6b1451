//! What a table shows of a JSON object: a title, where the value is, and how it reads.
//!
//! In: an object of an answer. Out: the text of a cell and what colour it has. Control characters in
//! what others chose (names, errors, payloads) are shown as marks, so that they cannot steer a terminal.
//! Pure. Called by `output`.

use serde_json::Value;

use crate::moments;

/// Most characters of a cell that shows free text.
const LONG_CHARS_MAX: usize = 60;

/// One column of a table, or one line of a sheet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Where the value is in the object, as a JSON pointer.
    pub(crate) at: &'static str,
    pub(crate) kind: Kind,
}

/// How a value reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// As it is.
    Text,
    /// Free text, cut where it is long.
    Long,
    /// A number, to the right.
    Count,
    /// A number that is better zero: the colour warns.
    Worry,
    /// An ISO 8601 time as the time that has gone by.
    Age,
    /// An ISO 8601 time to the second.
    Time,
    /// Seconds as a length of time.
    Seconds,
    /// A length of time in seconds that is better zero.
    Late,
    /// Milliseconds as a length of time.
    Millis,
    /// A state; its colour says whether it is well.
    State,
    /// Any JSON on one line, cut where it is long.
    Json,
}

/// How a cell is coloured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
}

/// What stands in a table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) mood: Mood,
    /// Whether it is set to the right.
    pub(crate) is_right: bool,
}

/// Short names for tables of columns.
pub(crate) const fn column(title: &'static str, at: &'static str, kind: Kind) -> Column {
    Column { title, at, kind }
}

impl Column {
    /// The cell for an object.
    pub(crate) fn cell(&self, object: &Value, now_ms: i64) -> Cell {
        let value = object.pointer(self.at).unwrap_or(&Value::Null);
        let is_right = matches!(
            self.kind,
            Kind::Count | Kind::Worry | Kind::Age | Kind::Seconds | Kind::Late | Kind::Millis
        );
        Cell { text: self.kind.text(value, now_ms), mood: self.kind.mood(value), is_right }
    }
}

impl Kind {
    fn text(self, value: &Value, now_ms: i64) -> String {
        let plain = match value {
            Value::Null => return "-".to_owned(),
            Value::String(text) if text.is_empty() => return "-".to_owned(),
            Value::String(text) if self == Kind::Json => {
                serde_json::to_string(text).unwrap_or_default()
            }
            Value::String(text) => text.clone(),
            Value::Bool(is_so) if self != Kind::Json => {
                if *is_so { "yes" } else { "no" }.to_owned()
            }
            other => other.to_string(),
        };
        let number = value.as_u64();
        match (self, number) {
            (Self::Age, _) => moments::age(&harmless(&plain), now_ms),
            (Self::Time, _) => to_the_second(&plain),
            (Self::Seconds | Self::Late, Some(seconds)) => moments::length(seconds),
            (Self::Millis, Some(millis)) if millis % 1000 == 0 => moments::length(millis / 1000),
            (Self::Millis, Some(millis)) => format!("{millis}ms"),
            (Self::Long | Self::Json, _) => cut(&harmless(&plain)),
            _ => harmless(&plain),
        }
    }

    fn mood(self, value: &Value) -> Mood {
        match (self, value) {
            (Self::Worry, Value::Number(number)) if number.as_u64() != Some(0) => Mood::Bad,
            (Self::Late, Value::Number(number)) if number.as_u64() > Some(300) => Mood::Warn,
            (Self::State, Value::String(state)) => match state.as_str() {
                "healthy" | "connected" | "ready" | "alive" | "ok" | "Stable" | "done"
                | "completed" | "idle" | "pushed" => Mood::Good,
                "Lagging" | "processing" | "running" | "in use" | "buffered" | "duplicate" => {
                    Mood::Warn
                }
                "pending" => Mood::Plain,
                "Dead" | "dead_letter" | "failed" | "cancelled" | "unhealthy" | "disconnected"
                | "not ready" => Mood::Bad,
                _ => Mood::Plain,
            },
            _ => Mood::Plain,
        }
    }
}

/// `2026-12-01T08:00:00.123Z` as `2026-12-01 08:00:00`.
fn to_the_second(iso: &str) -> String {
    match (iso.get(..10), iso.get(11..19)) {
        (Some(day), Some(time)) if iso.as_bytes().get(10) == Some(&b'T') => {
            harmless(&format!("{day} {time}"))
        }
        _ => harmless(iso),
    }
}

/// Whatever would steer a terminal, and what would break a line, as a mark.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{FFFD}' } else { it }).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONG_CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(kind: Kind, value: &Value) -> String {
        column("X", "/x", kind).cell(&json!({ "x": value }), 61_000).text
    }

    #[test]
    fn values_read_as_their_kind_says() {
        assert_eq!(shown(Kind::Text, &json!("a")), "a");
        assert_eq!(shown(Kind::Text, &json!(true)), "yes");
        assert_eq!(shown(Kind::Text, &Value::Null), "-");
        assert_eq!(shown(Kind::Text, &json!("")), "-");
        assert_eq!(shown(Kind::Count, &json!(7)), "7");
        assert_eq!(shown(Kind::Age, &json!("1970-01-01T00:00:00.000Z")), "1m1s");
        assert_eq!(shown(Kind::Time, &json!("2026-12-01T08:00:00.123Z")), "2026-12-01 08:00:00");
        assert_eq!(shown(Kind::Seconds, &json!(300)), "5m");
        assert_eq!(shown(Kind::Millis, &json!(1500)), "1500ms");
        assert_eq!(shown(Kind::Json, &json!({"a": "b"})), r#"{"a":"b"}"#);
        assert_eq!(shown(Kind::Json, &json!("a")), "\"a\"");
    }

    #[test]
    fn what_others_chose_cannot_steer_a_terminal() {
        for kind in [Kind::Text, Kind::Long, Kind::State, Kind::Time, Kind::Age, Kind::Count] {
            let text = shown(kind, &json!("a\u{1b}[31m\nb\u{9b}c"));
            assert!(!text.chars().any(char::is_control), "{kind:?}: {text:?}");
        }
    }

    #[test]
    fn free_text_is_cut_between_characters() {
        let text = shown(Kind::Long, &json!("ä".repeat(100)));
        assert_eq!(text.chars().count(), LONG_CHARS_MAX + 1);
        assert!(text.ends_with('…'));
    }
}
