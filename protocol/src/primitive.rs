//! Little-endian readers and writers: the only place that knows the byte order.
//!
//! In: a body's bytes. Out: numbers, texts and slices that share the body's memory, or a
//! [`DecodeError`] that says which field, where, and which limit. Every length is held against
//! the bytes that are really there before anything is allocated. Called by every request and
//! response.

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::NameError;

/// Reads a body from front to back. Texts and slices share the body's memory.
pub(crate) struct Reader<'a> {
    source: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Bytes) -> Self {
        Self { source, at: 0 }
    }

    /// Offset of the next byte to be read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.source.len() - self.at
    }

    /// The next `count` bytes.
    pub(crate) fn slice(
        &mut self,
        field: &'static str,
        count: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let rest = self.source.get(self.at..).unwrap_or_default();
        match rest.get(..count) {
            Some(found) => {
                self.at += count;
                Ok(found)
            }
            None => {
                Err(DecodeError::Short { field, offset: self.at, need: count, have: rest.len() })
            }
        }
    }

    /// The next `count` bytes, sharing the body's memory.
    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        count: usize,
    ) -> Result<Bytes, DecodeError> {
        let from = self.at;
        self.slice(field, count)?;
        Ok(self.source.slice(from..self.at))
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(field, N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_le_bytes)
    }

    /// A byte that must be 0 or 1.
    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        let offset = self.at;
        let value = self.u8(field)?;
        in_range(field, offset, u64::from(value), 0, 1)?;
        Ok(value == 1)
    }

    /// Bytes behind a one-byte length, checked by `parse`.
    pub(crate) fn short<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(Bytes) -> Result<T, NameError>,
    ) -> Result<T, DecodeError> {
        let count = usize::from(self.u8(field)?);
        let offset = self.at;
        parse(self.bytes(field, count)?)
            .map_err(|error| DecodeError::Name { offset, error: error.at_field(field) })
    }

    /// As [`Self::short`]; nothing at all where there are no bytes.
    pub(crate) fn optional<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(Bytes) -> Result<T, NameError>,
    ) -> Result<Option<T>, DecodeError> {
        self.short(field, |raw| if raw.is_empty() { Ok(None) } else { parse(raw).map(Some) })
    }

    /// A four-byte number within its limits.
    pub(crate) fn u32_in(
        &mut self,
        field: &'static str,
        min: u32,
        max: u32,
    ) -> Result<u32, DecodeError> {
        let offset = self.at;
        let value = self.u32(field)?;
        in_range(field, offset, u64::from(value), u64::from(min), u64::from(max))?;
        Ok(value)
    }

    /// Bytes behind a two-byte length, checked by `parse`.
    pub(crate) fn long<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(Bytes) -> Result<T, NameError>,
    ) -> Result<T, DecodeError> {
        let count = usize::from(self.u16(field)?);
        let offset = self.at;
        parse(self.bytes(field, count)?)
            .map_err(|error| DecodeError::Name { offset, error: error.at_field(field) })
    }

    /// Bytes behind a four-byte length, sharing the body's memory.
    pub(crate) fn blob(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let count = self.u32(field)?;
        self.bytes(field, count as usize)
    }

    /// A two-byte count of items that take at least `item_bytes_min` bytes each.
    pub(crate) fn count16(
        &mut self,
        field: &'static str,
        item_bytes_min: usize,
    ) -> Result<usize, DecodeError> {
        let offset = self.at;
        let count = u64::from(self.u16(field)?);
        self.check_count(field, offset, count, item_bytes_min, u64::from(u16::MAX))
    }

    /// A four-byte count of at most `count_max` items of at least `item_bytes_min` bytes each.
    pub(crate) fn count32(
        &mut self,
        field: &'static str,
        item_bytes_min: usize,
        count_max: u32,
    ) -> Result<usize, DecodeError> {
        let offset = self.at;
        let count = u64::from(self.u32(field)?);
        self.check_count(field, offset, count, item_bytes_min, u64::from(count_max))
    }

    /// Refuses a count that the rest of the body cannot hold, before anyone allocates for it.
    fn check_count(
        &self,
        field: &'static str,
        offset: usize,
        count: u64,
        item_bytes_min: usize,
        count_max: u64,
    ) -> Result<usize, DecodeError> {
        let max = ((self.remaining() / item_bytes_min.max(1)) as u64).min(count_max);
        if count > max {
            return Err(DecodeError::Count { field, offset, count, max });
        }
        Ok(count as usize)
    }

    /// Ends the body.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { offset: self.at, bytes }),
        }
    }
}

/// Declares an enum that is one byte on the wire, numbered without gaps from its first variant on.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $field:literal, $($(#[$of:meta])* $variant:ident = $number:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$of])* $variant = $number,)+
        }

        impl $name {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The one with this number, if there is one.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.number() == number)
            }

            /// Reads one.
            pub(crate) fn read(
                reader: &mut $crate::primitive::Reader<'_>,
            ) -> Result<Self, $crate::decode_error::DecodeError> {
                let offset = reader.at();
                let number = reader.u8($field)?;
                Self::from_number(number).ok_or_else(|| {
                    let numbers = || Self::ALL.iter().map(|it| u64::from(it.number()));
                    $crate::decode_error::DecodeError::Value {
                        field: $field,
                        offset,
                        value: u64::from(number),
                        min: numbers().min().unwrap_or(0),
                        max: numbers().max().unwrap_or(0),
                    }
                })
            }
        }
    };
}
pub(crate) use numbered;

/// Holds a number against its limits.
pub(crate) fn in_range(
    field: &'static str,
    offset: usize,
    value: u64,
    min: u64,
    max: u64,
) -> Result<(), DecodeError> {
    if value < min || value > max {
        return Err(DecodeError::Value { field, offset, value, min, max });
    }
    Ok(())
}

/// Writes checked bytes behind a one-byte length.
///
/// # Panics
/// Over 255 bytes, which no checked text has.
pub(crate) fn put_short(out: &mut BytesMut, text: &[u8]) {
    out.put_u8(u8::try_from(text.len()).expect("a checked text fits its length byte"));
    out.put_slice(text);
}

/// Writes checked bytes behind a two-byte length.
///
/// # Panics
/// Over 65 535 bytes, which no checked text has.
pub(crate) fn put_long(out: &mut BytesMut, text: &[u8]) {
    put_count16(out, text.len());
    out.put_slice(text);
}

/// Writes bytes behind a four-byte length.
///
/// # Panics
/// Over 4 GiB; frames and batches end long before.
pub(crate) fn put_blob(out: &mut BytesMut, bytes: &[u8]) {
    put_count32(out, bytes.len());
    out.put_slice(bytes);
}

/// Writes a two-byte count.
///
/// # Panics
/// Over 65 535. A list that long cannot be said on the wire, and leaving items out in silence
/// would be worse than stopping.
pub(crate) fn put_count16(out: &mut BytesMut, count: usize) {
    out.put_u16_le(u16::try_from(count).expect("at most 65 535 items behind a u16 count"));
}

/// Writes a four-byte count.
///
/// # Panics
/// Over 2^32 - 1, for the reason given at [`put_count16`].
pub(crate) fn put_count32(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("at most 2^32 - 1 items behind a u32 count"));
}

/// Writes a bool as a byte.
pub(crate) fn put_flag(out: &mut BytesMut, flag: bool) {
    out.put_u8(u8::from(flag));
}
