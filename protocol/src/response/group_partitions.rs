//! GroupPartitions: how a group stands in some partitions of a queue.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `next`: to be asked `from` next; 0 when that was all |
//! | 4 | count of partitions, at most 10 000, each: |
//! | 4 | `partition`: its number |
//! | 1 + n | `name`: a partition name |
//! | 8 | `next_seq`: everything below is settled |
//! | 8 | `end_seq`: behind the newest message |
//! | 8 | `behind`: messages that are not settled |
//! | 8 | `oldest_ms`: when the oldest of them was pushed; 0 when there is none |
//! | 8 | `lease_until_ms`: when the lease on it ends; 0 when nobody holds it |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::PARTITIONS_PER_ANSWER_MAX;
use crate::name::PartitionName;
use crate::primitive::{Reader, put_count32, put_short};

/// Fewest bytes of a partition.
const PARTITION_BYTES_MIN: usize = 4 + 2 + 5 * 8;

/// Shows how a group stands in partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPartitions {
    /// What to ask `from` next; 0 when that was all.
    pub next: u64,
    /// At most 10 000.
    pub partitions: Vec<PartitionStanding>,
}

/// How a group stands in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStanding {
    /// The partition's number.
    pub partition: u32,
    /// Its name.
    pub name: PartitionName,
    /// Everything below is settled.
    pub next_seq: u64,
    /// Behind the newest message.
    pub end_seq: u64,
    /// Messages that are not settled.
    pub behind: u64,
    /// When the oldest of them was pushed, in milliseconds since 1970; 0 when there is none.
    pub oldest_ms: u64,
    /// When the lease on it ends, in milliseconds since 1970; 0 when nobody holds it.
    pub lease_until_ms: u64,
}

impl GroupPartitions {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 partitions.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.next);
        put_count32(out, self.partitions.len());
        for it in &self.partitions {
            out.put_u32_le(it.partition);
            put_short(out, it.name.as_bytes());
            for number in [it.next_seq, it.end_seq, it.behind, it.oldest_ms, it.lease_until_ms] {
                out.put_u64_le(number);
            }
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let next = reader.u64("next")?;
        let (least, most) = (PARTITION_BYTES_MIN, PARTITIONS_PER_ANSWER_MAX);
        let count = reader.count32("partitions", least, most)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(PartitionStanding {
                partition: reader.u32("partition")?,
                name: reader.short("name", PartitionName::parse)?,
                next_seq: reader.u64("next_seq")?,
                end_seq: reader.u64("end_seq")?,
                behind: reader.u64("behind")?,
                oldest_ms: reader.u64("oldest_ms")?,
                lease_until_ms: reader.u64("lease_until_ms")?,
            });
        }
        reader.end()?;
        Ok(Self { next, partitions })
    }
}
