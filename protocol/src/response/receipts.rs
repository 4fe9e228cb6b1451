//! Receipts: the answer to a push, one receipt for each section, in their order.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | flags: bit 0 `buffered` (QoS 0), bit 1 `store_healthy`; others 0 |
//! | 2 | count of sections |
//! | | each section: a tag of 1 byte, then |
//! | | tag 0, pushed: 4 `partition`, 8 `first_seq`, 8 `time_ms`, 4 `count` |
//! | | tag 1, mixed: 4 `partition`, 4 count of outcomes, each 1 `status` (0 pushed, 1 duplicate), 8 `seq`, 8 `time_ms` |
//! | | tag 2, buffered: 4 `count` |
//! | | tag 3, failed: a failure, as in its own response |

use bytes::{BufMut, Bytes, BytesMut};

use super::Failure;
use crate::decode_error::DecodeError;
use crate::limits::RECORDS_MAX;
use crate::primitive::{Reader, in_range, put_count16, put_count32};

const FLAG_BUFFERED: u8 = 1 << 0;
const FLAG_STORE_HEALTHY: u8 = 1 << 1;
const TAG_PUSHED: u8 = 0;
const TAG_MIXED: u8 = 1;
const TAG_BUFFERED: u8 = 2;
const TAG_FAILED: u8 = 3;
const OUTCOME_BYTES: usize = 1 + 8 + 8;

/// Says what became of each section of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// Whether this signs the promise of QoS 0: in memory, not yet durable.
    pub buffered: bool,
    /// Whether the store could be reached.
    pub store_healthy: bool,
    /// One for each section of the push, in their order; at most 65 535.
    pub sections: Vec<SectionReceipt>,
}

/// What became of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionReceipt {
    /// All records are stored, one after the other.
    Pushed {
        /// The partition's number.
        partition: u32,
        /// The first record's sequence number; the others follow without gaps.
        first_seq: u64,
        /// The batch's time, in milliseconds since 1970.
        time_ms: u64,
        /// How many records.
        count: u32,
    },
    /// Some records were there before.
    Mixed {
        /// The partition's number.
        partition: u32,
        /// One for each record, in their order.
        outcomes: Vec<PushOutcome>,
    },
    /// The records wait in memory and have no place yet.
    Buffered {
        /// How many records.
        count: u32,
    },
    /// Nothing of the section was taken, or nobody knows; the failure's code tells.
    Failed(Failure),
}

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushOutcome {
    /// Stored now or before.
    pub status: PushStatus,
    /// The sequence number of the stored record: the earlier one's, for a duplicate.
    pub seq: u64,
    /// The time of the stored record's batch, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Whether a record is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PushStatus {
    /// It was stored by this push.
    Pushed = 0,
    /// A record with its transaction id was stored before.
    Duplicate = 1,
}

impl Receipts {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 65 535 sections; no push has more.
    pub fn encode(&self, out: &mut BytesMut) {
        let buffered = if self.buffered { FLAG_BUFFERED } else { 0 };
        let healthy = if self.store_healthy { FLAG_STORE_HEALTHY } else { 0 };
        out.put_u8(buffered | healthy);
        put_count16(out, self.sections.len());
        for section in &self.sections {
            section.encode(out);
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let flags = reader.u8("flags")?;
        in_range("flags", 0, u64::from(flags), 0, u64::from(FLAG_BUFFERED | FLAG_STORE_HEALTHY))?;
        let count = reader.count16("sections", SectionReceipt::BYTES_MIN)?;
        let mut sections = Vec::with_capacity(count);
        for _ in 0..count {
            sections.push(SectionReceipt::decode(&mut reader)?);
        }
        reader.end()?;
        Ok(Self {
            buffered: flags & FLAG_BUFFERED != 0,
            store_healthy: flags & FLAG_STORE_HEALTHY != 0,
            sections,
        })
    }
}

impl SectionReceipt {
    /// Fewest bytes of a section: a tag and the count of what was buffered.
    pub(super) const BYTES_MIN: usize = 1 + 4;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Pushed { partition, first_seq, time_ms, count } => {
                out.put_u8(TAG_PUSHED);
                out.put_u32_le(*partition);
                out.put_u64_le(*first_seq);
                out.put_u64_le(*time_ms);
                out.put_u32_le(*count);
            }
            Self::Mixed { partition, outcomes } => {
                out.put_u8(TAG_MIXED);
                out.put_u32_le(*partition);
                put_count32(out, outcomes.len());
                for outcome in outcomes {
                    out.put_u8(outcome.status as u8);
                    out.put_u64_le(outcome.seq);
                    out.put_u64_le(outcome.time_ms);
                }
            }
            Self::Buffered { count } => {
                out.put_u8(TAG_BUFFERED);
                out.put_u32_le(*count);
            }
            Self::Failed(failure) => {
                out.put_u8(TAG_FAILED);
                failure.encode(out);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.at();
        match reader.u8("receipt")? {
            TAG_PUSHED => Ok(Self::Pushed {
                partition: reader.u32("partition")?,
                first_seq: reader.u64("first_seq")?,
                time_ms: reader.u64("time_ms")?,
                count: reader.u32("count")?,
            }),
            TAG_MIXED => {
                let partition = reader.u32("partition")?;
                let count = reader.count32("outcomes", OUTCOME_BYTES, RECORDS_MAX)?;
                let mut outcomes = Vec::with_capacity(count);
                for _ in 0..count {
                    outcomes.push(PushOutcome::decode(reader)?);
                }
                Ok(Self::Mixed { partition, outcomes })
            }
            TAG_BUFFERED => Ok(Self::Buffered { count: reader.u32("count")? }),
            TAG_FAILED => Failure::read(reader).map(Self::Failed),
            other => {
                let (value, max) = (u64::from(other), u64::from(TAG_FAILED));
                Err(DecodeError::Value { field: "receipt", offset, value, min: 0, max })
            }
        }
    }
}

impl PushOutcome {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let status = match reader.flag("status")? {
            false => PushStatus::Pushed,
            true => PushStatus::Duplicate,
        };
        Ok(Self { status, seq: reader.u64("seq")?, time_ms: reader.u64("time_ms")? })
    }
}
