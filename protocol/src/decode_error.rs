//! Why a body could not be read, for requests and responses alike.
//!
//! In: nothing. Out: [`DecodeError`], which names the field, its place and the limit. Made by the
//! readers; shown to peers through [`DecodeError::code`].

use crate::code::Code;
use crate::name::NameError;

/// Why a body could not be read. The frame around it was sound, so the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The body ends inside a field.
    Short {
        /// The field.
        field: &'static str,
        /// Where the field begins, in bytes from the body's start.
        offset: usize,
        /// Bytes that the field needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// The body goes on after its last field.
    Trailing {
        /// Where the last field ended.
        offset: usize,
        /// How many bytes follow.
        bytes: usize,
    },
    /// A number is outside its limits.
    Value {
        /// The field.
        field: &'static str,
        /// Where the field begins.
        offset: usize,
        /// What stood there.
        value: u64,
        /// Lowest value allowed.
        min: u64,
        /// Highest value allowed.
        max: u64,
    },
    /// A count announces more items than the rest of the body can hold, or than are allowed.
    Count {
        /// The field.
        field: &'static str,
        /// Where the count stands.
        offset: usize,
        /// What it announces.
        count: u64,
        /// The most that would have been possible here.
        max: u64,
    },
    /// A queue option that nobody knows, or one with a value above its limit.
    Option {
        /// The option's name; `option` when its number is unknown.
        field: &'static str,
        /// Where the option begins.
        offset: usize,
        /// Its value, or its number when that is unknown.
        value: u64,
        /// The highest that is allowed.
        max: u64,
    },
    /// Something that may stand only once stands twice.
    Duplicate {
        /// The field.
        field: &'static str,
        /// Where its second appearance begins.
        offset: usize,
        /// What was repeated.
        value: u64,
    },
    /// A name or text is not what it must be.
    Name {
        /// Where the text's bytes begin.
        offset: usize,
        /// What is wrong with it; its own offset counts from the text's start.
        error: NameError,
    },
    /// No message of this direction has this opcode.
    Opcode(u8),
}

impl DecodeError {
    /// The field that was refused.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Short { field, .. }
            | Self::Value { field, .. }
            | Self::Count { field, .. }
            | Self::Option { field, .. }
            | Self::Duplicate { field, .. } => field,
            Self::Trailing { .. } => "body",
            Self::Name { error, .. } => error.field(),
            Self::Opcode(_) => "opcode",
        }
    }

    /// The limit that was broken; 0 when the error is not about one.
    #[must_use]
    pub fn limit(&self) -> u64 {
        match self {
            Self::Value { value, min, max, .. } => {
                if value < min {
                    *min
                } else {
                    *max
                }
            }
            Self::Count { max, .. } | Self::Option { max, .. } => *max,
            Self::Name { error, .. } => error.limit(),
            Self::Short { .. }
            | Self::Trailing { .. }
            | Self::Duplicate { .. }
            | Self::Opcode(_) => 0,
        }
    }

    /// The number that a peer sees.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Short { .. } | Self::Trailing { .. } | Self::Count { .. } => {
                Code::MalformedRequest
            }
            Self::Option { .. } | Self::Duplicate { .. } => Code::BadOption,
            Self::Value { .. } => Code::BadValue,
            Self::Name { .. } => Code::BadName,
            Self::Opcode(_) => Code::UnknownOpcode,
        }
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short { field, offset, need, have } => {
                write!(f, "{field} at byte {offset} needs {need} bytes and {have} are there")
            }
            Self::Trailing { offset, bytes } => {
                write!(f, "{bytes} bytes too many after byte {offset}")
            }
            Self::Value { field, offset, value, min, max } => {
                write!(f, "{field} at byte {offset} is {value}; {min} to {max} are allowed")
            }
            Self::Count { field, offset, count, max } => {
                write!(f, "{field} at byte {offset} announces {count}; at most {max} are possible")
            }
            Self::Option { field, offset, value, max } => {
                write!(f, "{field} at byte {offset} is {value}; at most {max} is allowed")
            }
            Self::Duplicate { field, offset, value } => {
                write!(f, "{field} {value} stands a second time at byte {offset}")
            }
            Self::Name { offset, error } => write!(f, "{error}; the text begins at byte {offset}"),
            Self::Opcode(opcode) => write!(f, "no message has the opcode {opcode}"),
        }
    }
}

impl std::error::Error for DecodeError {}
