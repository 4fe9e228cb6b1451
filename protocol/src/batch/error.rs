//! Why a record batch was refused, for its reader and its builder alike.
//!
//! In: nothing. Out: [`BatchError`], which names the field, its place, the record and the limit.
//! Called by the rest of `batch`; shown to peers through [`BatchError::code`].

use crate::code::Code;

/// Why there is no batch. Nothing was kept; a builder is as it was before the push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes end inside a field, or go on after the last one.
    Length {
        /// The field.
        field: &'static str,
        /// Where it begins, in bytes from the batch's start.
        offset: usize,
        /// Bytes that it should have.
        need: usize,
        /// Bytes that are there.
        have: usize,
        /// The record's index, when it stands in one.
        record: Option<u32>,
    },
    /// Something is larger than allowed.
    TooLarge {
        /// What: `batch`, `payload`, or a part of a record.
        field: &'static str,
        /// The record's index, when it is about one.
        record: Option<u32>,
        /// Its size in bytes.
        bytes: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// No records, or too many.
    Count {
        /// How many are announced.
        count: u32,
        /// The most that is allowed.
        limit: u32,
    },
    /// A version, compression or encryption that this version does not read.
    Unsupported {
        /// What.
        field: &'static str,
        /// Its number.
        value: u8,
    },
    /// A field has a value that it cannot have.
    Value {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// The record's index, when it stands in one.
        record: Option<u32>,
        /// What stood there.
        value: u32,
    },
    /// A text is not UTF-8.
    Utf8 {
        /// The field.
        field: &'static str,
        /// Where the first byte that is not UTF-8 stands.
        offset: usize,
        /// The record's index.
        record: u32,
    },
    /// The records are not what the checksum says.
    Checksum {
        /// What the header says.
        announced: u32,
        /// What the records give.
        computed: u32,
    },
}

impl BatchError {
    /// The field that was refused.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Length { field, .. }
            | Self::TooLarge { field, .. }
            | Self::Unsupported { field, .. }
            | Self::Value { field, .. }
            | Self::Utf8 { field, .. } => field,
            Self::Count { .. } => "record_count",
            Self::Checksum { .. } => "crc32",
        }
    }

    /// The limit that was broken; 0 when the error is not about one.
    #[must_use]
    pub fn limit(&self) -> u64 {
        match self {
            Self::TooLarge { limit, .. } => *limit as u64,
            Self::Count { limit, .. } => u64::from(*limit),
            _ => 0,
        }
    }

    /// The index of the record that is to blame, when one is.
    #[must_use]
    pub fn record(&self) -> Option<u32> {
        match self {
            Self::Length { record, .. }
            | Self::TooLarge { record, .. }
            | Self::Value { record, .. } => *record,
            Self::Utf8 { record, .. } => Some(*record),
            Self::Count { .. } | Self::Unsupported { .. } | Self::Checksum { .. } => None,
        }
    }

    /// The number that a peer sees.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { field: "batch", .. } => Code::BatchTooLarge,
            Self::TooLarge { field: "payload", .. } => Code::MessageTooLarge,
            Self::Count { count, limit } if count > limit => Code::TooManyRecords,
            Self::Unsupported { .. } => Code::UnsupportedEncoding,
            Self::Checksum { .. } => Code::BadChecksum,
            Self::Length { .. }
            | Self::TooLarge { .. }
            | Self::Count { .. }
            | Self::Value { .. }
            | Self::Utf8 { .. } => Code::BatchInvalid,
        }
    }
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(record) = self.record() {
            write!(f, "record {record}: ")?;
        }
        match self {
            Self::Length { field, offset, need, have, .. } => {
                write!(f, "{field} at byte {offset} needs {need} bytes and {have} are there")
            }
            Self::TooLarge { field, bytes, limit, .. } => {
                write!(f, "{field} has {bytes} bytes; at most {limit} are allowed")
            }
            Self::Count { count, limit } => {
                write!(f, "the batch has {count} records; 1 to {limit} are allowed")
            }
            Self::Unsupported { field, value } => write!(f, "{field} {value} is not supported"),
            Self::Value { field, offset, value, .. } => {
                write!(f, "{field} at byte {offset} cannot be {value}")
            }
            Self::Utf8 { field, offset, .. } => write!(f, "{field} is not UTF-8 at byte {offset}"),
            Self::Checksum { announced, computed } => write!(
                f,
                "the batch's checksum is {announced:08x} and its records give {computed:08x}"
            ),
        }
    }
}

impl std::error::Error for BatchError {}
