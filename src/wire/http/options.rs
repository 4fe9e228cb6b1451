//! A queue's fifteen options as JSON, and whether its messages are rows too.
//!
//! In: the `options` object of a configure body. Out: what is [`Asked`]; one that is missing or null
//! has its default, one of the wrong type is refused by name. An option that nobody knows is
//! refused in our own dialect, because a setting that is silently ignored is worse than none, and
//! overlooked for Queen's clients. And the way back, whole. Pure. Called by `queues`.

use std::borrow::Cow;
use std::fmt;

use onrush_protocol::code::Code;
use onrush_protocol::options::QueueOptions;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::shard::command::{Asked, Named};
use crate::wire::http::status::Failure;

/// Most keys of an options object: far more than there are options.
const KEYS_MAX: usize = 64;

/// Keys and values as they stand there.
#[derive(Debug, Default)]
pub(super) struct RawOptions<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// Options on their way out.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) options: &'a QueueOptions,
    /// Said only where it is so: Queen's clients know nothing of it.
    pub(super) sql_rows: bool,
}

/// Declares how options are read and shown from one table: name, field, what it must be.
macro_rules! options {
    ($($name:literal $field:ident $kind:expr;)*) => {
        fn set(asked: &mut Asked, name: &str, raw: &str) -> Result<(), Refusal> {
            match name {
                SQL_ROWS => {
                    asked.sql_rows = raw.parse().map_err(|_| Refusal::Kind(SQL_ROWS, SWITCH))?;
                }
                $($name => {
                    asked.options.$field = raw.parse().map_err(|_| Refusal::Kind($name, $kind))?;
                })*
                _ => return Err(Refusal::Unknown),
            }
            Ok(())
        }

        /// The number that an option is named by within the server.
        fn number(name: &str) -> Option<u8> {
            let field = match name {
                SQL_ROWS => return Some(Named::SQL_ROWS),
                $($name => stringify!($field),)*
                _ => return None,
            };
            QueueOptions::NAMES.iter().find(|(_, it)| *it == field).map(|(number, _)| *number)
        }

        impl Serialize for Shown<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let count = QueueOptions::NAMES.len() + usize::from(self.sql_rows);
                let mut map = serializer.serialize_map(Some(count))?;
                $(map.serialize_entry($name, &self.options.$field)?;)*
                if self.sql_rows {
                    map.serialize_entry(SQL_ROWS, &true)?;
                }
                map.end()
            }
        }
    };
}

options! {
    "leaseTime" lease_time_s WHOLE;
    "maxSize" max_size LARGE;
    "ttl" ttl_s WHOLE;
    "retryLimit" retry_limit WHOLE;
    "retryDelay" retry_delay_ms WHOLE;
    "deadLetterQueue" dead_letter_queue SWITCH;
    "dlqAfterMaxRetries" dlq_after_max_retries SWITCH;
    "priority" priority SIGNED;
    "delayedProcessing" delayed_processing_s WHOLE;
    "windowBuffer" window_buffer_s WHOLE;
    "retentionSeconds" retention_s WHOLE;
    "completedRetentionSeconds" completed_retention_s WHOLE;
    "retentionEnabled" retention_enabled SWITCH;
    "encryptionEnabled" encryption_enabled SWITCH;
    "maxWaitTimeSeconds" max_wait_time_s WHOLE;
}

/// Whether messages are also rows of the database that the store is in.
const SQL_ROWS: &str = "sqlRows";

const WHOLE: &str = "a whole number from 0 to 4294967295";
const LARGE: &str = "a whole number from 0 to 18446744073709551615";
const SIGNED: &str = "a whole number from -2147483648 to 2147483647";
const SWITCH: &str = "true or false";

enum Refusal {
    Unknown,
    Kind(&'static str, &'static str),
}

impl RawOptions<'_> {
    /// Reads the options, and which ones are named; `strict` refuses those that nobody knows.
    pub(super) fn read(&self, strict: bool) -> Result<Asked, Failure> {
        let refuse = |message: String| Failure::new(Code::BadOption, message);
        let (mut asked, mut only) = (Asked::default(), Named::default());
        for (at, (name, raw)) in self.0.iter().enumerate() {
            if self.0.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(refuse(format!("option {name} is given twice")));
            }
            // Null is not said, unless the rest is to stay as it is: then it is the default.
            only = number(name).map_or(only, |number| only.with(number));
            if raw.get() == "null" {
                continue;
            }
            match set(&mut asked, name, raw.get()) {
                Ok(()) => asked.ttl_asked |= name == "ttl",
                Err(Refusal::Unknown) if !strict => {}
                Err(Refusal::Unknown) => {
                    return Err(refuse(format!("option {name:?} does not exist")));
                }
                Err(Refusal::Kind(name, kind)) => {
                    return Err(refuse(format!("option {name} must be {kind}")));
                }
            }
        }
        Ok(Asked { only: Some(only), ..asked })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawOptions<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawOptions<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of options")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut keys = Vec::new();
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            if keys.len() == KEYS_MAX {
                let message = format!("options holds more than {KEYS_MAX} keys");
                return Err(serde::de::Error::custom(message));
            }
            keys.push((key, value));
        }
        Ok(RawOptions(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(strict: bool, text: &str) -> Result<Asked, Failure> {
        serde_json::from_str::<RawOptions<'_>>(text).unwrap().read(strict)
    }

    fn shown(asked: &Asked) -> String {
        let Asked { options, sql_rows, .. } = asked;
        serde_json::to_string(&Shown { options, sql_rows: *sql_rows }).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let shown = shown(&read(true, "{}").unwrap());
        assert_eq!(
            shown,
            r#"{"leaseTime":300,"maxSize":0,"ttl":3600,"retryLimit":3,"retryDelay":1000,"deadLetterQueue":false,"dlqAfterMaxRetries":false,"priority":0,"delayedProcessing":0,"windowBuffer":0,"retentionSeconds":0,"completedRetentionSeconds":0,"retentionEnabled":false,"encryptionEnabled":false,"maxWaitTimeSeconds":0}"#
        );
    }

    #[test]
    fn every_option_comes_back_as_it_was_set() {
        let text = r#"{"leaseTime":1,"maxSize":18446744073709551615,"ttl":3,"retryLimit":4,"retryDelay":5,"deadLetterQueue":true,"dlqAfterMaxRetries":true,"priority":-8,"delayedProcessing":9,"windowBuffer":10,"retentionSeconds":11,"completedRetentionSeconds":12,"retentionEnabled":true,"encryptionEnabled":true,"maxWaitTimeSeconds":15}"#;
        assert_eq!(shown(&read(true, text).unwrap()), text);
        let rows = shown(&read(true, r#"{"sqlRows":true}"#).unwrap());
        assert!(rows.ends_with(r#","sqlRows":true}"#), "{rows}");
        assert!(!read(true, r#"{"sqlRows":false}"#).unwrap().sql_rows);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_by_name() {
        for (text, message) in [
            (
                r#"{"leaseTime":"1"}"#,
                "option leaseTime must be a whole number from 0 to 4294967295",
            ),
            (r#"{"leaseTime":-1}"#, "option leaseTime must be a whole number from 0 to 4294967295"),
            (r#"{"ttl":1.5}"#, "option ttl must be a whole number from 0 to 4294967295"),
            (r#"{"retentionEnabled":1}"#, "option retentionEnabled must be true or false"),
            (r#"{"sqlRows":"yes"}"#, "option sqlRows must be true or false"),
            (r#"{"ttl":1,"ttl":2}"#, "option ttl is given twice"),
            (r#"{"leasetime":1}"#, "option \"leasetime\" does not exist"),
        ] {
            assert_eq!(read(true, text).unwrap_err().message(), message);
        }
    }

    #[test]
    fn null_is_not_said_and_queens_clients_may_send_options_of_their_own() {
        let only = |only: Named| Ok(Asked { only: Some(only), ..Asked::default() });
        assert_eq!(read(true, r#"{"leaseTime":null}"#), only(Named::default().with(1)));
        assert_eq!(read(false, r#"{"partitionLimit":5}"#), only(Named::default()));
        assert!(read(false, r#"{"leaseTime":"5"}"#).is_err(), "a known one is still checked");
    }
}
