//! The grammar of one value: what a setting accepts, and how it is written.
//!
//! In: the text of a value as a file, a variable or a flag gave it, and the [`Rule`] of its setting.
//! Out: a checked [`Value`], or nothing; the text of a value as TOML; the sentence that names what is
//! allowed. Pure. Called by `config::source`, `config::table`, `config::check` and `config::template`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes in a kibibyte.
pub(super) const KIB: u64 = 1024;
/// Bytes in a mebibyte.
pub(super) const MIB: u64 = 1024 * KIB;
/// Bytes in a gibibyte.
pub(super) const GIB: u64 = 1024 * MIB;
/// Milliseconds in a second.
pub(super) const SECOND: u64 = 1_000;
/// Milliseconds in a minute.
pub(super) const MINUTE: u64 = 60 * SECOND;
/// Milliseconds in an hour.
pub(super) const HOUR: u64 = 60 * MINUTE;
/// Milliseconds in a day.
pub(super) const DAY: u64 = 24 * HOUR;

/// Units of size, the largest first: a value is shown in the first one that divides it.
const SIZE_UNITS: &[(&str, u64)] = &[("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];
/// Units of time in milliseconds, the largest first.
const TIME_UNITS: &[(&str, u64)] =
    &[("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)];

/// What a setting accepts. Limits are inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// An IP address and a port, `127.0.0.1:6632` or `[::1]:6632`; `localhost` stands for 127.0.0.1.
    Address,
    /// A path of a file or folder; not empty.
    Path,
    /// A secret of printable ASCII without spaces, at most this many bytes; empty means off.
    Secret {
        /// The longest secret, in bytes.
        bytes_max: usize,
    },
    /// A text without control characters, at most this many bytes; empty means not given.
    Text {
        /// The longest text, in bytes.
        bytes_max: usize,
    },
    /// A text of several lines, at most this many bytes; empty means not given.
    Lines {
        /// The longest text, in bytes.
        bytes_max: usize,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number without a unit.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A size: a whole number of bytes, or one with a unit (`64MiB`).
    Bytes {
        /// The least, in bytes.
        min: u64,
        /// The most, in bytes.
        max: u64,
    },
    /// A time of a key that ends in `_ms`: whole milliseconds, or a number with a unit (`5s`).
    Millis {
        /// The least, in milliseconds.
        min: u64,
        /// The most, in milliseconds.
        max: u64,
    },
    /// A time of a key without a unit in its name, so the value must have one (`7d`).
    Span {
        /// The least, in milliseconds.
        min: u64,
        /// The most, in milliseconds.
        max: u64,
    },
    /// A fraction.
    Ratio {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
}

/// A value that its [`Rule`] accepted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of [`Rule::Address`].
    Address(SocketAddr),
    /// Of [`Rule::Switch`].
    Switch(bool),
    /// Of [`Rule::Count`]; bytes of [`Rule::Bytes`]; milliseconds of the two rules of time.
    Number(u64),
    /// Of [`Rule::Ratio`].
    Ratio(f64),
    /// Of [`Rule::Path`], [`Rule::Choice`], [`Rule::Secret`], [`Rule::Text`] and [`Rule::Lines`].
    Text(String),
}

impl Rule {
    /// Reads a value from its text; `None` when the rule does not allow it.
    pub(super) fn read(self, text: &str) -> Option<Value> {
        let within =
            |number: u64, min, max| (min..=max).contains(&number).then_some(Value::Number(number));
        match self {
            Self::Address => read_address(text).map(Value::Address),
            Self::Path => (!text.is_empty()).then(|| Value::Text(text.to_owned())),
            Self::Secret { bytes_max } => (text.len() <= bytes_max
                && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| Value::Text(text.to_owned())),
            Self::Text { bytes_max } => (text.len() <= bytes_max
                && !text.chars().any(char::is_control))
            .then(|| Value::Text(text.to_owned())),
            Self::Lines { bytes_max } => (text.len() <= bytes_max
                && !text.chars().any(|char| char.is_control() && !"\r\n\t".contains(char)))
            .then(|| Value::Text(text.to_owned())),
            Self::Switch => text.parse().ok().map(Value::Switch),
            Self::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::Count { min, max } => within(read_digits(text)?, min, max),
            Self::Bytes { min, max } => within(read_unit(text, SIZE_UNITS, Some(1))?, min, max),
            Self::Millis { min, max } => within(read_unit(text, TIME_UNITS, Some(1))?, min, max),
            Self::Span { min, max } => within(read_unit(text, TIME_UNITS, None)?, min, max),
            Self::Ratio { min, max } => {
                let ratio: f64 = text.parse().ok()?;
                (min..=max).contains(&ratio).then_some(Value::Ratio(ratio))
            }
        }
    }

    /// Says what is allowed, to be read after "expected" or "range".
    pub fn allowed(self) -> String {
        match self {
            Self::Address => "an IP address and a port such as 127.0.0.1:6632".to_owned(),
            Self::Path => "a path that is not empty".to_owned(),
            Self::Secret { bytes_max } => {
                format!("up to {bytes_max} printable ASCII characters without spaces")
            }
            Self::Text { bytes_max } => {
                format!("up to {bytes_max} bytes of text on one line; empty when it is not given")
            }
            Self::Lines { bytes_max } => {
                format!("up to {bytes_max} bytes of text; empty when it is not given")
            }
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Bytes { min, max } => {
                format!("bytes or a size from {} to {} (B, KiB, MiB, GiB)", size(min), size(max))
            }
            Self::Millis { min, max } => format!(
                "milliseconds or a time from {} to {} (ms, s, m, h, d)",
                time(min),
                time(max)
            ),
            Self::Span { min, max } => {
                format!("a time with its unit from {} to {} (ms, s, m, h, d)", time(min), time(max))
            }
            Self::Ratio { min, max } => format!("a fraction from {min} to {max}"),
        }
    }

    /// Writes a value the way a person would: `64MiB`, `100`, `7d`. [`Self::read`] reads it back.
    pub(super) fn show(self, value: &Value) -> String {
        match (self, value) {
            (Self::Bytes { .. }, Value::Number(bytes)) => size(*bytes),
            (Self::Span { .. }, Value::Number(ms)) => time(*ms),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Address(address)) => address.to_string(),
            (_, Value::Switch(on)) => on.to_string(),
            (_, Value::Ratio(ratio)) => format!("{ratio:?}"),
            (_, Value::Text(text)) => text.clone(),
        }
    }

    /// Writes a value as TOML: [`Self::show`], quoted where TOML asks for it.
    pub(super) fn literal(self, value: &Value) -> String {
        let shown = self.show(value);
        if self.takes_bare() && !shown.ends_with(|end: char| end.is_ascii_alphabetic()) {
            return shown;
        }
        if let Value::Switch(_) = value {
            return shown;
        }
        toml::Value::String(shown).to_string()
    }

    /// Whether a TOML number or boolean may stand for it. A path `1` or a token `007` without quotes
    /// would lose what the person wrote.
    pub(super) fn takes_bare(self) -> bool {
        !matches!(
            self,
            Self::Address
                | Self::Path
                | Self::Secret { .. }
                | Self::Text { .. }
                | Self::Lines { .. }
                | Self::Choice(_)
        )
    }
}

/// Decimal digits only: Rust's own parser also takes a sign, which no setting has a meaning for.
fn read_digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads `<digits><unit>`, one blank allowed between them; `bare` is the unit of a lone number.
fn read_unit(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let digits_end = text.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor = if unit.is_empty() {
        bare?
    } else {
        units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?
    };
    read_digits(digits)?.checked_mul(factor)
}

fn read_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

/// Writes a size in the largest unit that divides it.
pub(super) fn size(bytes: u64) -> String {
    in_units(bytes, SIZE_UNITS)
}

/// Writes a time given in milliseconds in the largest unit that divides it.
pub(super) fn time(ms: u64) -> String {
    in_units(ms, TIME_UNITS)
}

fn in_units(number: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().find(|(_, factor)| number != 0 && number.is_multiple_of(*factor));
    // Zero divides by everything; the smallest unit says it without pretending to be large.
    let (name, factor) = fitting.or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", number / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Rule = Rule::Bytes { min: 0, max: u64::MAX };
    const TIME: Rule = Rule::Millis { min: 0, max: u64::MAX };

    #[test]
    fn a_size_is_read_in_every_unit_and_bare_numbers_are_bytes() {
        for (text, bytes) in
            [("7", 7), ("7B", 7), ("2KiB", 2048), ("64MiB", 64 << 20), ("1 GiB", 1 << 30)]
        {
            assert_eq!(SIZE.read(text), Some(Value::Number(bytes)), "{text}");
        }
    }

    #[test]
    fn a_time_is_read_in_every_unit_and_bare_numbers_are_milliseconds() {
        for (text, ms) in
            [("7", 7), ("100ms", 100), ("5s", 5_000), ("2m", 120_000), ("7d", 604_800_000)]
        {
            assert_eq!(TIME.read(text), Some(Value::Number(ms)), "{text}");
        }
    }

    #[test]
    fn a_span_without_its_unit_is_refused() {
        let rule = Rule::Span { min: 0, max: u64::MAX };
        assert_eq!(rule.read("7"), None);
        assert_eq!(rule.read("7h"), Some(Value::Number(7 * HOUR)));
    }

    #[test]
    fn numbers_with_signs_fractions_unknown_units_or_overflow_are_refused() {
        for text in ["", "-1", "+1", "1.5s", "64MB", "64 mib", "5  s", "s", "ms5"] {
            assert_eq!(SIZE.read(text), None, "{text}");
            assert_eq!(TIME.read(text), None, "{text}");
        }
        assert_eq!(SIZE.read("18446744073709551615GiB"), None);
        assert_eq!(SIZE.read("99999999999999999999"), None);
    }

    #[test]
    fn limits_are_inclusive() {
        let rule = Rule::Count { min: 1, max: 64 };
        assert_eq!(
            ["0", "1", "64", "65"].map(|text| rule.read(text).is_some()),
            [false, true, true, false]
        );
        let ratio = Rule::Ratio { min: 0.0, max: 1.0 };
        assert_eq!(
            ["-0.1", "0", "1.0", "1.1", "NaN"].map(|text| ratio.read(text).is_some()),
            [false, true, true, false, false]
        );
    }

    #[test]
    fn a_text_has_one_line_and_a_limit() {
        let rule = Rule::Text { bytes_max: 4 };
        assert_eq!(rule.read("a b"), Some(Value::Text("a b".to_owned())));
        assert_eq!(rule.read(""), Some(Value::Text(String::new())));
        assert_eq!(["abcde", "a\nb"].map(|text| rule.read(text)), [None, None]);
    }

    #[test]
    fn an_address_is_an_ip_and_a_port_or_localhost() {
        let shown = |text| Rule::Address.read(text).map(|value| Rule::Address.show(&value));
        assert_eq!(shown("localhost:80"), Some("127.0.0.1:80".to_owned()));
        assert_eq!(shown("[::1]:6632"), Some("[::1]:6632".to_owned()));
        assert_eq!(shown("example.org:80"), None);
        assert_eq!(shown("127.0.0.1"), None);
    }

    #[test]
    fn sizes_and_times_are_shown_in_the_largest_unit_that_divides_them() {
        assert_eq!(size(8 << 20), "8MiB");
        assert_eq!(size(1_500), "1500B");
        assert_eq!(size(0), "0B");
        assert_eq!(time(604_800_000), "7d");
        assert_eq!(time(90_000), "90s");
    }

    #[test]
    fn a_text_is_written_as_toml_that_reads_back() {
        let rule = Rule::Path;
        let value = Value::Text("a\"b\\c\n".to_owned());
        let document: toml::Table = format!("key = {}", rule.literal(&value)).parse().unwrap();
        assert_eq!(document["key"].as_str(), Some("a\"b\\c\n"));
    }
}
