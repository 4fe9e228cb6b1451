//! A queue's options, with their numbers on the wire and their defaults.
//!
//! In: `(number, value)` pairs of a configure request. Out: [`QueueOptions`], or a refusal that
//! names the option. An option that is missing has its default; a number that nobody knows is
//! refused, because a setting that is silently ignored is worse than none. Called by the
//! configure request and its answer, and by the catalog.

use bytes::{BufMut, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_count16};

/// Bytes of one option on the wire: its number and its value.
const OPTION_BYTES: usize = 9;

/// Number of the option that says nothing about how a queue behaves, but where else its messages are
/// to stand: as rows of the database that the store is in. Sent only where it is on, so that peers that
/// do not know it understand everything else.
const SQL_ROWS: u8 = 16;

/// Declares the options from one table: number, field, type, default.
macro_rules! queue_options {
    ($($(#[$doc:meta])* $number:literal $field:ident: $kind:ty = $default:expr;)*) => {
        /// How a queue behaves. The order is that of the option numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct QueueOptions {
            $($(#[$doc])* pub $field: $kind,)*
        }

        impl Default for QueueOptions {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl QueueOptions {
            /// Every option: its number on the wire and its name.
            pub const NAMES: &'static [(u8, &'static str)] = &[$(($number, stringify!($field)),)*];

            /// Appends all options, defaults too, so that both sides mean the same even when
            /// their defaults differ one day; and whether messages are rows too.
            pub(crate) fn encode(&self, sql_rows: bool, out: &mut BytesMut) {
                put_count16(out, Self::NAMES.len() + usize::from(sql_rows));
                $(
                    out.put_u8($number);
                    out.put_u64_le(self.$field.to_wire());
                )*
                if sql_rows {
                    out.put_u8(SQL_ROWS);
                    out.put_u64_le(1);
                }
            }

            /// Takes the option of this number, as in [`Self::NAMES`], from others; nothing where there
            /// is none of it.
            pub fn take(&mut self, number: u8, from: &Self) {
                match number {
                    $($number => self.$field = from.$field,)*
                    _ => {}
                }
            }

            fn set(&mut self, number: u8, value: u64, offset: usize) -> Result<(), DecodeError> {
                match number {
                    $($number => {
                        self.$field = Setting::from_wire(stringify!($field), value, offset)?;
                    })*
                    _ => {
                        let max = u64::from(SQL_ROWS);
                        let value = u64::from(number);
                        return Err(DecodeError::Option { field: "option", offset, value, max });
                    }
                }
                Ok(())
            }
        }
    };
}

queue_options! {
    /// How long a consumer holds what it popped, in seconds.
    1 lease_time_s: u32 = 300;
    /// Most messages that the queue holds; 0 is no limit.
    2 max_size: u64 = 0;
    /// How long a message may wait before it is dropped, in seconds.
    3 ttl_s: u32 = 3600;
    /// How many times a failed message is tried again.
    4 retry_limit: u32 = 3;
    /// How long a failed message waits before it is tried again, in milliseconds.
    5 retry_delay_ms: u32 = 1000;
    /// Whether messages that cannot be done go to the dead letters.
    6 dead_letter_queue: bool = false;
    /// Whether they go there once their retries are used up.
    7 dlq_after_max_retries: bool = false;
    /// Queues with a higher priority are served first; may be negative.
    8 priority: i32 = 0;
    /// How long a message stays out of sight after it was pushed, in seconds.
    9 delayed_processing_s: u32 = 0;
    /// How long a partition must be quiet before its messages are handed out, in seconds.
    10 window_buffer_s: u32 = 0;
    /// How long messages are kept, in seconds; 0 is for ever.
    11 retention_s: u32 = 0;
    /// How long messages are kept after they were completed, in seconds; 0 is for ever.
    12 completed_retention_s: u32 = 0;
    /// Whether the two retentions are in force.
    13 retention_enabled: bool = false;
    /// Whether payloads are encrypted at rest; refused by a server without a key.
    14 encryption_enabled: bool = false;
    /// Messages older than this are dropped undelivered, in seconds; 0 is never.
    15 max_wait_time_s: u32 = 0;
}

impl QueueOptions {
    /// Reads `u16 count` of `(u8 number, u64 value)`; and whether messages are rows too.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<(Self, bool), DecodeError> {
        let count = reader.count16("options", OPTION_BYTES)?;
        let (mut options, mut sql_rows) = (Self::default(), false);
        let mut seen = [false; 256];
        for _ in 0..count {
            let offset = reader.at();
            let number = reader.u8("option")?;
            let value = reader.u64("option")?;
            if let Some(seen) = seen.get_mut(usize::from(number))
                && std::mem::replace(seen, true)
            {
                let value = u64::from(number);
                return Err(DecodeError::Duplicate { field: "option", offset, value });
            }
            match number {
                SQL_ROWS => sql_rows = Setting::from_wire("sql_rows", value, offset)?,
                _ => options.set(number, value, offset)?,
            }
        }
        Ok((options, sql_rows))
    }
}

/// A value that travels as a `u64`.
trait Setting: Sized {
    fn to_wire(self) -> u64;
    fn from_wire(field: &'static str, value: u64, offset: usize) -> Result<Self, DecodeError>;
}

impl Setting for u64 {
    fn to_wire(self) -> u64 {
        self
    }

    fn from_wire(_: &'static str, value: u64, _: usize) -> Result<Self, DecodeError> {
        Ok(value)
    }
}

impl Setting for u32 {
    fn to_wire(self) -> u64 {
        u64::from(self)
    }

    fn from_wire(field: &'static str, value: u64, offset: usize) -> Result<Self, DecodeError> {
        at_most(field, offset, value, u64::from(u32::MAX))?;
        Ok(value as u32)
    }
}

impl Setting for bool {
    fn to_wire(self) -> u64 {
        u64::from(self)
    }

    fn from_wire(field: &'static str, value: u64, offset: usize) -> Result<Self, DecodeError> {
        at_most(field, offset, value, 1)?;
        Ok(value == 1)
    }
}

impl Setting for i32 {
    // Two's complement in 64 bits, so that a negative priority has exactly one spelling.
    fn to_wire(self) -> u64 {
        i64::from(self).cast_unsigned()
    }

    fn from_wire(field: &'static str, value: u64, offset: usize) -> Result<Self, DecodeError> {
        i32::try_from(value.cast_signed()).map_err(|_| DecodeError::Option {
            field,
            offset,
            value,
            max: i32::MAX as u64,
        })
    }
}

fn at_most(field: &'static str, offset: usize, value: u64, max: u64) -> Result<(), DecodeError> {
    if value > max {
        return Err(DecodeError::Option { field, offset, value, max });
    }
    Ok(())
}
