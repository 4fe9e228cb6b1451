//! GetProcess: looks at a process: how it stands, its slots, its results, its state. Answered by
//! `ProcessShown`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `class`: a queue name |
//! | 1 + n | `key`: a partition name |
//! | 1 | `what`: 0 standing, 1 slots, 2 one slot, 3 the newest slot, 4 state keys, 5 one state key |
//!
//! and after it
//!
//! | what | fields |
//! |---|---|
//! | 0 | none |
//! | 1 | 8 `from`, 8 `last` (inclusive), 4 `limit` (1 to 1 000) |
//! | 2 | 8 `slot`, 4 `wait_ms` (at most 600 000), 2 + n `path` (long text) |
//! | 3 | 4 `wait_ms`, 2 + n `path` |
//! | 4 | 2 + n `prefix` (long text), 2 + n `after` (long text; of 0 bytes for the first), 4 `limit` |
//! | 5 | 2 + n `name` (long text) |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::{PAGE_ITEMS_MAX, PROCESS_WAIT_MS_MAX};
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, put_long, put_short};
use crate::text::LongText;

/// Looks at a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetProcess {
    /// The class.
    pub class: QueueName,
    /// Which of its processes.
    pub key: PartitionName,
    /// What is wanted.
    pub look: ProcessLook,
}

/// What is wanted of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessLook {
    /// How it stands.
    Standing,
    /// Its messages with what became of them.
    Slots {
        /// From this one on.
        from: u64,
        /// Up to this one, inclusive.
        last: u64,
        /// So many, at most: 1 to 1 000.
        limit: u32,
    },
    /// What became of one message.
    Slot {
        /// Which one.
        slot: u64,
        /// How long to wait until it is evaluated, in milliseconds: at most 600 000.
        wait_ms: u32,
        /// A part of its result, by names and indexes between slashes; empty for all.
        path: LongText,
    },
    /// What became of the newest message.
    Newest {
        /// How long to wait until it is evaluated, in milliseconds: at most 600 000.
        wait_ms: u32,
        /// A part of its result; empty for all.
        path: LongText,
    },
    /// State keys and their values, in the order of keys.
    State {
        /// Only keys that begin so.
        prefix: LongText,
        /// Only keys behind this one; empty for the first.
        after: LongText,
        /// So many, at most: 1 to 1 000.
        limit: u32,
    },
    /// The value of one state key.
    StateKey {
        /// The key.
        name: LongText,
    },
}

impl GetProcess {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.class.as_bytes());
        put_short(out, self.key.as_bytes());
        self.look.encode(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let class = reader.short("class", QueueName::parse)?;
        let key = reader.short("key", PartitionName::parse)?;
        let look = ProcessLook::decode(&mut reader)?;
        reader.end()?;
        Ok(Self { class, key, look })
    }
}

impl ProcessLook {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Standing => out.put_u8(0),
            Self::Slots { from, last, limit } => {
                out.put_u8(1);
                out.put_u64_le(*from);
                out.put_u64_le(*last);
                out.put_u32_le(*limit);
            }
            Self::Slot { slot, wait_ms, path } => {
                out.put_u8(2);
                out.put_u64_le(*slot);
                out.put_u32_le(*wait_ms);
                put_long(out, path.as_bytes());
            }
            Self::Newest { wait_ms, path } => {
                out.put_u8(3);
                out.put_u32_le(*wait_ms);
                put_long(out, path.as_bytes());
            }
            Self::State { prefix, after, limit } => {
                out.put_u8(4);
                put_long(out, prefix.as_bytes());
                put_long(out, after.as_bytes());
                out.put_u32_le(*limit);
            }
            Self::StateKey { name } => {
                out.put_u8(5);
                put_long(out, name.as_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.at();
        match reader.u8("what")? {
            0 => Ok(Self::Standing),
            1 => Ok(Self::Slots {
                from: reader.u64("from")?,
                last: reader.u64("last")?,
                limit: reader.u32_in("limit", 1, PAGE_ITEMS_MAX)?,
            }),
            2 => Ok(Self::Slot {
                slot: reader.u64("slot")?,
                wait_ms: reader.u32_in("wait_ms", 0, PROCESS_WAIT_MS_MAX)?,
                path: reader.long("path", LongText::parse)?,
            }),
            3 => Ok(Self::Newest {
                wait_ms: reader.u32_in("wait_ms", 0, PROCESS_WAIT_MS_MAX)?,
                path: reader.long("path", LongText::parse)?,
            }),
            4 => Ok(Self::State {
                prefix: reader.long("prefix", LongText::parse)?,
                after: reader.long("after", LongText::parse)?,
                limit: reader.u32_in("limit", 1, PAGE_ITEMS_MAX)?,
            }),
            5 => Ok(Self::StateKey { name: reader.long("name", LongText::parse)? }),
            other => {
                let value = u64::from(other);
                Err(DecodeError::Value { field: "what", offset, value, min: 0, max: 5 })
            }
        }
    }
}
