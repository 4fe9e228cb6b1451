//! Checked names: which names a queue, a partition and a consumer group may have.
//!
//! In: bytes of a frame, or strings of an HTTP body. Out: a name that carries its proof in its
//! type, or a [`NameError`]. Names are opaque UTF-8 without control characters; nothing is
//! trimmed, folded or normalised, so two names are equal when their bytes are. Named by every
//! room; nothing downstream checks again.

use bytes::Bytes;

use crate::code::Code;
use crate::limits::NAME_BYTES_MAX;
use crate::text::{Controls, checked_text};

checked_text!(
    /// Name of a queue: 0 to 255 bytes of UTF-8 without control characters. The empty name is
    /// legal. Cheap to clone.
    QueueName, "queue", 0, NAME_BYTES_MAX, Controls::Refused
);

checked_text!(
    /// Name of a partition within its queue: 1 to 255 bytes of UTF-8 without control characters.
    /// Cheap to clone.
    PartitionName, "partition", 1, NAME_BYTES_MAX, Controls::Refused
);

checked_text!(
    /// Name of a consumer group: 1 to 255 bytes of UTF-8 without control characters. Cheap to
    /// clone.
    GroupName, "group", 1, NAME_BYTES_MAX, Controls::Refused
);

impl PartitionName {
    /// The partition that a message goes to when its producer names none.
    pub const DEFAULT: &'static str = "Default";
}

impl Default for PartitionName {
    fn default() -> Self {
        Self(Bytes::from_static(Self::DEFAULT.as_bytes()))
    }
}

impl Default for QueueName {
    fn default() -> Self {
        Self(Bytes::new())
    }
}

impl GroupName {
    /// The group of consumers that name none: they share the queue, each message goes to one.
    pub const QUEUE_MODE: &'static str = "__QUEUE_MODE__";

    /// The group [`Self::QUEUE_MODE`].
    #[must_use]
    pub fn queue_mode() -> Self {
        Self(Bytes::from_static(Self::QUEUE_MODE.as_bytes()))
    }

    /// Whether this is [`Self::QUEUE_MODE`].
    #[must_use]
    pub fn is_queue_mode(&self) -> bool {
        self.as_bytes() == Self::QUEUE_MODE.as_bytes()
    }
}

impl Default for GroupName {
    fn default() -> Self {
        Self::queue_mode()
    }
}

/// Why a name or a text was refused. Nothing was kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Too short or too long.
    Length {
        /// Which name.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// Fewest bytes allowed.
        min: usize,
        /// Most bytes allowed.
        max: usize,
    },
    /// Not UTF-8.
    Utf8 {
        /// Which name.
        field: &'static str,
        /// Offset within the name of the first byte that is not UTF-8.
        offset: usize,
    },
    /// A control character (U+0000 to U+001F, U+007F).
    Control {
        /// Which name.
        field: &'static str,
        /// Offset of the character within the name.
        offset: usize,
        /// The character.
        byte: u8,
    },
}

impl NameError {
    /// The name or text that was refused.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Length { field, .. } | Self::Utf8 { field, .. } | Self::Control { field, .. } => {
                field
            }
        }
    }

    /// The same error, said of the field that the name stands in.
    pub(crate) fn at_field(self, at: &'static str) -> Self {
        match self {
            Self::Length { bytes, min, max, .. } => Self::Length { field: at, bytes, min, max },
            Self::Utf8 { offset, .. } => Self::Utf8 { field: at, offset },
            Self::Control { offset, byte, .. } => Self::Control { field: at, offset, byte },
        }
    }

    /// The limit that was broken, in bytes; 0 when the error is not about length.
    #[must_use]
    pub fn limit(&self) -> u64 {
        match self {
            Self::Length { bytes, min, max, .. } => (if bytes < min { *min } else { *max }) as u64,
            Self::Utf8 { .. } | Self::Control { .. } => 0,
        }
    }

    /// The number that a peer sees.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::BadName
    }
}

impl std::fmt::Display for NameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length { field, bytes, min, max } => {
                write!(f, "{field} has {bytes} bytes; {min} to {max} are allowed")
            }
            Self::Utf8 { field, offset } => write!(f, "{field} is not UTF-8 at byte {offset}"),
            Self::Control { field, offset, byte } => {
                write!(f, "{field} has the control character 0x{byte:02x} at byte {offset}")
            }
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_queue_may_have_the_empty_name() {
        assert_eq!("".parse(), Ok(QueueName::default()));
        let refused = |field| NameError::Length { field, bytes: 0, min: 1, max: 255 };
        assert_eq!("".parse::<PartitionName>(), Err(refused("partition")));
        assert_eq!("".parse::<GroupName>(), Err(refused("group")));
        assert_eq!(refused("group").limit(), 1);
    }

    #[test]
    fn names_of_255_bytes_are_taken_and_of_256_are_not() {
        let longest = "é".repeat(127) + "x";
        assert_eq!(longest.parse::<QueueName>().unwrap().as_str(), longest);
        let refused = (longest + "x").parse::<QueueName>().unwrap_err();
        assert_eq!((refused.field(), refused.limit()), ("queue", 255));
        assert_eq!(refused.to_string(), "queue has 256 bytes; 0 to 255 are allowed");
    }

    #[test]
    fn control_characters_are_refused_at_their_offset_and_nothing_else_is() {
        for byte in 0..=0x7f_u8 {
            let raw = Bytes::copy_from_slice(&[b'a', byte]);
            let parsed = PartitionName::parse(raw);
            if byte < 0x20 || byte == 0x7f {
                let refused = NameError::Control { field: "partition", offset: 1, byte };
                assert_eq!(parsed, Err(refused));
            } else {
                assert_eq!(parsed.unwrap().as_bytes(), [b'a', byte]);
            }
        }
        assert!("\u{85}\u{200b} ünï/コード".parse::<GroupName>().is_ok());
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused_at_their_offset() {
        let refused = QueueName::parse(Bytes::from_static(b"ab\xff")).unwrap_err();
        assert_eq!(refused, NameError::Utf8 { field: "queue", offset: 2 });
        assert_eq!((refused.code(), refused.limit()), (Code::BadName, 0));
    }

    #[test]
    fn a_parsed_name_shares_its_bytes_until_it_is_detached() {
        let frame = Bytes::from(b"...orders".to_vec());
        let name = QueueName::parse(frame.slice(3..)).unwrap();
        assert_eq!(name.as_bytes().as_ptr(), frame[3..].as_ptr());
        let detached = name.detach();
        assert_eq!(detached, name);
        assert_ne!(detached.as_bytes().as_ptr(), name.as_bytes().as_ptr());
        assert!(!frame.is_unique());
        drop(name);
        assert!(frame.is_unique());
    }

    #[test]
    fn a_map_by_name_is_found_by_bytes() {
        let mut map = std::collections::HashMap::new();
        map.insert("orders".parse::<QueueName>().unwrap(), 7);
        assert_eq!(map.get(b"orders".as_slice()), Some(&7));
        assert_eq!(map.get(b"order".as_slice()), None);
    }

    #[test]
    fn defaults_are_the_names_of_the_contract() {
        assert_eq!(PartitionName::default().as_str(), "Default");
        assert_eq!(GroupName::queue_mode().to_string(), "__QUEUE_MODE__");
        assert!(GroupName::default().is_queue_mode());
        assert!(!"billing".parse::<GroupName>().unwrap().is_queue_mode());
    }
}
