//! Settings that are words instead of numbers, and the secret.
//!
//! In: nothing; these are closed lists. Out: one enum per list, each with the words a person writes.
//! Named by `config::settings` as types of fields and by the server when it wires rooms together.

use std::fmt;

/// Declares a closed list of words: the enum, its words in order, and the way between the two.
macro_rules! choices {
    ($(
        $(#[doc = $doc:literal])*
        $Name:ident { $( $(#[doc = $word_doc:literal])* $Word:ident = $text:literal, )* }
    )*) => { $(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $Name { $( $(#[doc = $word_doc])* $Word, )* }

        impl $Name {
            /// The words of the list, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($text),*];

            /// The word that a person writes.
            pub fn word(self) -> &'static str {
                match self { $( Self::$Word => $text, )* }
            }

            /// The variant of a word; `None` when the list does not have it.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $( $text => Some(Self::$Word), )* _ => None }
            }
        }

        impl $crate::config::table::Field for $Name {
            fn take(value: &$crate::config::value::Value) -> Option<Self> {
                match value {
                    $crate::config::value::Value::Text(word) => Self::from_word(word),
                    _ => None,
                }
            }

            fn give(&self) -> $crate::config::value::Value {
                $crate::config::value::Value::Text(self.word().to_owned())
            }
        }
    )* };
}

choices! {
    /// How much is logged.
    LogLevel {
        /// Every step.
        Trace = "trace",
        /// Steps that help to find a fault.
        Debug = "debug",
        /// Start, stop, and changes of health.
        Info = "info",
        /// What works, but should be looked at.
        Warn = "warn",
        /// What failed.
        Error = "error",
        /// Nothing.
        Off = "off",
    }

    /// How a line of the log looks.
    LogFormat {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// For machines, one object per line.
        Json = "json",
    }

    /// How the HTTP API answers at the root. Under `/queen` it always answers as [`Dialect::Queen`].
    Dialect {
        /// One object per push with a status per message.
        Onrush = "onrush",
        /// Arrays and field names that clients of Queen expect.
        Queen = "queen",
    }

    /// When QoS 1 and 2 are answered.
    Durability {
        /// After fdatasync: an answered message survives power loss.
        Sync = "sync",
        /// After the write, before the sync: power loss may take answered messages.
        Os = "os",
    }

    /// How JSON Web Tokens may be signed.
    JwtAlgorithm {
        /// HMAC with SHA-256.
        Hs256 = "HS256",
        /// RSA with SHA-256.
        Rs256 = "RS256",
        /// Ed25519.
        EdDsa = "EdDSA",
        /// Any of them for which there is a key.
        Auto = "auto",
    }

    /// Where a group starts when it meets a partition for the first time.
    SubscriptionMode {
        /// Nothing asked for: as [`SubscriptionMode::All`].
        Unset = "",
        /// At the oldest message.
        All = "all",
        /// After the newest message.
        New = "new",
        /// After the newest message; the older name of the same thing.
        NewOnly = "new-only",
    }
}

/// A secret text. `Debug` shows only whether there is one, so that no log or panic can tell it.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text; empty means that there is no secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether there is a secret.
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The text itself. Only what compares it should call this.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_set() { "Secret(set)" } else { "Secret(unset)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_leads_to_its_variant_and_back() {
        for word in Dialect::WORDS {
            assert_eq!(Dialect::from_word(word).map(Dialect::word), Some(*word));
        }
        assert_eq!(SubscriptionMode::from_word("new-only"), Some(SubscriptionMode::NewOnly));
        assert_eq!(LogLevel::from_word("verbose"), None);
    }

    #[test]
    fn a_secret_never_shows_its_text() {
        let secret = Secret::new("s3cr3t");
        assert_eq!(format!("{secret:?}"), "Secret(set)");
        assert_eq!(format!("{:?}", Secret::default()), "Secret(unset)");
        assert_eq!(secret.expose(), "s3cr3t");
    }
}
