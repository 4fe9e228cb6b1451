//! The shape of the one table of settings, and the macro that turns it into types.
//!
//! In: rows of key, type, default, rule, names and documentation, written once in `config::settings`.
//! Out: a struct per section with documented fields, their defaults, and [`Setting`] rows from which
//! names of variables, flags, the template and error texts are made. A setting that is not a row does
//! not exist, so none of these can disagree. Called by every other file of `config`, and by `cli`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::choice::Secret;
use super::value::{Rule, Value};

/// One row of the table: everything that is known about a setting but its value.
#[derive(Debug)]
pub struct Setting {
    /// The section of the file that it stands in.
    pub section: &'static str,
    /// Its name within the section.
    pub key: &'static str,
    /// `section.key`: the name that errors and `--set` use.
    pub path: &'static str,
    /// What it does, line by line, as written in the source.
    pub docs: &'static [&'static str],
    /// What it accepts.
    pub rule: Rule,
    /// Further names of variables, the one that wins first.
    pub aliases: &'static [&'static str],
    /// The name of its own flag without the dashes, for the few that have one.
    pub flag: Option<&'static str>,
}

impl Setting {
    /// Names of variables that set it, the one that wins first.
    pub fn variables(&self) -> Vec<String> {
        let own = format!("{PREFIX}{}_{}", self.section, self.key).to_uppercase();
        std::iter::once(own).chain(self.aliases.iter().map(|name| (*name).to_owned())).collect()
    }

    /// Whether its value must never be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.rule, Rule::Secret { .. })
    }

    /// What a person may be told of its value.
    pub(super) fn redact(&self, text: &str) -> String {
        if self.is_secret() && !text.is_empty() { REDACTED.to_owned() } else { text.to_owned() }
    }
}

/// What every variable of ours begins with; one that does and is not known is refused.
pub(super) const PREFIX: &str = "ONRUSH_";

/// What is shown instead of a secret.
pub(super) const REDACTED: &str = "<redacted>";

/// A type that a setting can have.
pub(crate) trait Field: Sized {
    /// The field of a checked value; `None` when it does not fit the type.
    fn take(value: &Value) -> Option<Self>;

    /// The value of the field; [`Self::take`] takes it back.
    fn give(&self) -> Value;
}

macro_rules! number_fields {
    ($($Number:ty),*) => { $(
        impl Field for $Number {
            fn take(value: &Value) -> Option<Self> {
                match value {
                    Value::Number(number) => Self::try_from(*number).ok(),
                    _ => None,
                }
            }

            fn give(&self) -> Value {
                // Every limit in the table fits 64 bits, so the widening never saturates.
                Value::Number(u64::try_from(*self).unwrap_or(u64::MAX))
            }
        }
    )* };
}

number_fields!(u16, u32, u64, usize);

macro_rules! plain_fields {
    ($($Type:ty = $Kind:ident),*) => { $(
        impl Field for $Type {
            fn take(value: &Value) -> Option<Self> {
                match value {
                    Value::$Kind(inner) => Some(*inner),
                    _ => None,
                }
            }

            fn give(&self) -> Value {
                Value::$Kind(*self)
            }
        }
    )* };
}

plain_fields!(SocketAddr = Address, bool = Switch, f64 = Ratio);

impl Field for Duration {
    fn take(value: &Value) -> Option<Self> {
        u64::take(value).map(Self::from_millis)
    }

    fn give(&self) -> Value {
        Value::Number(u64::try_from(self.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Field for PathBuf {
    fn take(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Self::from(text)),
            _ => None,
        }
    }

    fn give(&self) -> Value {
        Value::Text(self.to_string_lossy().into_owned())
    }
}

impl Field for String {
    fn take(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn give(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl Field for Secret {
    fn take(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Self::new(text.as_str())),
            _ => None,
        }
    }

    fn give(&self) -> Value {
        Value::Text(self.expose().to_owned())
    }
}

/// Where `Settings::assemble` takes its fields from, row by row in the order of the table.
pub(super) trait Fields {
    /// The field of the next row, or its default when nobody gave a good one.
    fn next_field<T: Field>(&mut self, default: T) -> T;
}

/// Declares the whole table. Rows read `key: Type = default, rule[, names [..]][, flag ".."];`.
macro_rules! settings {
    (@flag) => { None };
    (@flag $flag:literal) => { Some($flag) };
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident { $(
            $(#[doc = $doc:literal])*
            $key:ident: $Type:ty = $default:expr, $rule:expr
                $(, names [$($name:literal),*])? $(, flag $flag:literal)?;
        )* }
    )*) => {
        /// Every setting of the server, by section.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Settings { $( $(#[doc = $section_doc])* pub $section: $Section, )* }

        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section { $(
                $(#[doc = $doc])*
                #[doc = ""]
                #[doc = concat!("Default `", stringify!($default), "`, accepts `", stringify!($rule), "`.")]
                pub $key: $Type,
            )* }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )* }
                }
            }
        )*

        /// The table: a row per setting, in the order of the template.
        pub static SETTINGS: &[$crate::config::table::Setting] = &[ $( $(
            $crate::config::table::Setting {
                section: stringify!($section),
                key: stringify!($key),
                path: concat!(stringify!($section), ".", stringify!($key)),
                docs: &[$($doc),*],
                rule: $rule,
                aliases: &[$($($name),*)?],
                flag: settings!(@flag $($flag)?),
            },
        )* )* ];

        /// What each section is for, in the order of the table.
        pub(super) static SECTIONS: &[(&str, &[&str])] =
            &[ $( (stringify!($section), &[$($section_doc),*]), )* ];

        impl Settings {
            /// Takes every field, in the order of the table.
            pub(super) fn assemble(fields: &mut impl $crate::config::table::Fields) -> Self {
                Self { $( $section: $Section { $( $key: fields.next_field($default), )* }, )* }
            }

            /// The value of every field, in the order of the table.
            pub(super) fn values(&self) -> Vec<$crate::config::value::Value> {
                vec![ $( $( $crate::config::table::Field::give(&self.$section.$key), )* )* ]
            }
        }
    };
}

pub(super) use settings;
