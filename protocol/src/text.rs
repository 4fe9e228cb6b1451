//! Checked texts: UTF-8 that is known to fit the length field it travels behind.
//!
//! In: bytes or strings from outside. Out: a value that proves its own length, or a
//! [`NameError`]. Because only checked texts enter requests and answers, encoding cannot fail.
//! Called by every request and response; [`crate::name`] builds the names on the same check.

use bytes::Bytes;

use crate::limits::{LONG_TEXT_BYTES_MAX, NAME_BYTES_MAX};
use crate::name::NameError;

/// Whether control characters may stand in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controls {
    /// U+0000..=U+001F and U+007F are refused: the text ends up in logs, paths and terminals.
    Refused,
    /// Everything that is UTF-8 may stand there.
    Allowed,
}

/// Checks `raw` for length, UTF-8 and control characters, in that order.
pub(crate) fn check(
    field: &'static str,
    raw: &[u8],
    min: usize,
    max: usize,
    controls: Controls,
) -> Result<(), NameError> {
    if raw.len() < min || raw.len() > max {
        return Err(NameError::Length { field, bytes: raw.len(), min, max });
    }
    if let Err(error) = std::str::from_utf8(raw) {
        return Err(NameError::Utf8 { field, offset: error.valid_up_to() });
    }
    if controls == Controls::Refused {
        // Bytes below 0x20 and 0x7f never occur inside a longer UTF-8 sequence.
        if let Some((offset, byte)) =
            raw.iter().copied().enumerate().find(|(_, byte)| byte.is_ascii_control())
        {
            return Err(NameError::Control { field, offset, byte });
        }
    }
    Ok(())
}

/// Declares a newtype over [`Bytes`] that holds checked UTF-8.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $min:expr, $max:expr, $controls:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(bytes::Bytes);

        impl $name {
            /// Fewest bytes.
            pub const BYTES_MIN: usize = $min;
            /// Most bytes.
            pub const BYTES_MAX: usize = $max;

            /// Checks `raw` and keeps it without a copy; see [`Self::detach`] for what that pins.
            ///
            /// # Errors
            /// [`NameError`](crate::name::NameError) naming the field, and the limit or the
            /// offset of the first byte that is not allowed.
            pub fn parse(raw: bytes::Bytes) -> Result<Self, crate::name::NameError> {
                crate::text::check($field, &raw, $min, $max, $controls)?;
                Ok(Self(raw))
            }

            /// The text. Checked when the value was made, so it costs one fast pass over at most
            /// a few hundred bytes.
            #[must_use]
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).unwrap_or_default()
            }

            /// The text's bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// A copy in memory of its own. A value cut out of a frame keeps that whole frame
            /// alive, so whoever keeps it for longer than the request detaches it first.
            #[must_use]
            pub fn detach(&self) -> Self {
                Self(bytes::Bytes::copy_from_slice(&self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::name::NameError;

            fn from_str(raw: &str) -> Result<Self, Self::Err> {
                // Checked before the copy, so that a giant string is refused for free.
                crate::text::check($field, raw.as_bytes(), $min, $max, $controls)?;
                Ok(Self(bytes::Bytes::copy_from_slice(raw.as_bytes())))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        // Lawful: hash and order of the newtype are those of its bytes as a slice.
        impl std::borrow::Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}
pub(crate) use checked_text;

checked_text!(
    /// A short text without control characters: 0 to 255 bytes. Holding one is proof of that.
    ShortText, "text", 0, NAME_BYTES_MAX, Controls::Refused
);

checked_text!(
    /// A long text, as in errors: 0 to 4096 bytes of UTF-8. Holding one is proof of that.
    LongText, "text", 0, LONG_TEXT_BYTES_MAX, Controls::Allowed
);

impl ShortText {
    /// As much of `raw` as fits, cut between characters; control characters become spaces.
    #[must_use]
    pub fn lossy(raw: &str) -> Self {
        let kept = cut(raw, Self::BYTES_MAX);
        if kept.bytes().any(|byte| byte.is_ascii_control()) {
            let clean: String =
                kept.chars().map(|c| if c.is_ascii_control() { ' ' } else { c }).collect();
            return Self(Bytes::from(clean));
        }
        Self(Bytes::copy_from_slice(kept.as_bytes()))
    }
}

impl LongText {
    /// As much of `raw` as fits, cut between characters.
    #[must_use]
    pub fn lossy(raw: &str) -> Self {
        Self(Bytes::copy_from_slice(cut(raw, Self::BYTES_MAX).as_bytes()))
    }
}

impl Default for ShortText {
    fn default() -> Self {
        Self(Bytes::new())
    }
}

impl Default for LongText {
    fn default() -> Self {
        Self(Bytes::new())
    }
}

/// The longest prefix of `raw` that has at most `bytes_max` bytes and ends between characters.
fn cut(raw: &str, bytes_max: usize) -> &str {
    raw.get(..raw.floor_char_boundary(bytes_max)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lossy_text_is_cut_between_characters() {
        let long = "é".repeat(200);
        assert_eq!(ShortText::lossy(&long).as_bytes().len(), 254);
        assert_eq!(ShortText::lossy("fits").as_str(), "fits");
        let longer = "x".repeat(4095) + "é";
        assert_eq!(LongText::lossy(&longer).as_str(), "x".repeat(4095));
        assert_eq!(LongText::lossy(&"x".repeat(5000)).as_bytes().len(), 4096);
    }

    #[test]
    fn a_lossy_text_is_one_that_would_have_been_parsed() {
        let lossy = ShortText::lossy("two\nlines\u{7f}");
        assert_eq!(lossy.as_str(), "two lines ");
        assert_eq!(lossy.as_str().parse(), Ok(lossy));
        let lossy = LongText::lossy("two\nlines");
        assert_eq!(lossy.as_str(), "two\nlines");
    }

    #[test]
    fn texts_beyond_their_limits_are_refused() {
        assert_eq!("x".repeat(256).parse::<ShortText>().unwrap_err().limit(), 255);
        assert_eq!("x".repeat(4097).parse::<LongText>().unwrap_err().limit(), 4096);
        assert!("x".repeat(4096).parse::<LongText>().is_ok());
        assert!("a\tb".parse::<ShortText>().is_err());
        assert!("a\tb".parse::<LongText>().is_ok());
    }
}
