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
