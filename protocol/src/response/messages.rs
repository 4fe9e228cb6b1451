//! Messages: the answer to a pop; batches as they were stored, with what the server knows beside.
//!
//! A client decodes here; a server writes with [`MessagesWriter`](super::MessagesWriter), which
//! copies no batch.
//!
//! | bytes | field |
//! |---|---|
//! | 16 | `lease`: all zero when nothing is held |
//! | 8 | `lease_until_ms`: milliseconds since 1970 |
//! | 2 | count of sections |
//! | | each section: |
//! | 1 + n | `queue`: a name |
//! | 4 | `partition`: its number |
//! | 1 + n | `partition_name`: a name |
//! | 4 | count of chunks, each 8 `first_seq`, 8 `time_ms`, 4 + n `batch` |
//! | 4 | count of attempts, each 8 `seq`, 4 `attempts`; messages never tried before are left out |

use bytes::{BufMut, Bytes, BytesMut};

use crate::LeaseToken;
use crate::decode_error::DecodeError;
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, put_blob, put_count16, put_count32, put_short};
use crate::text::LongText;

/// Fewest bytes of a section: its numbers and length fields.
pub(super) const SECTION_BYTES_MIN: usize = 1 + 4 + 2 + 4 + 4;
/// Fewest bytes of a chunk: all but its batch.
const CHUNK_BYTES_MIN: usize = 8 + 8 + 4;
const ATTEMPTS_BYTES: usize = 8 + 4;

/// Hands messages out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// The lease that holds them; [`NO_LEASE`](crate::NO_LEASE) when there is none.
    pub lease: LeaseToken,
    /// When the lease ends, in milliseconds since 1970 by the server's clock.
    pub lease_until_ms: u64,
    /// By partition; empty when there was nothing. At most 65 535.
    pub sections: Vec<MessagesSection>,
}

/// Messages of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessagesSection {
    /// The queue.
    pub queue: QueueName,
    /// The partition's number.
    pub partition: u32,
    /// The partition's name.
    pub partition_name: PartitionName,
    /// The batches, by rising sequence number.
    pub chunks: Vec<Chunk>,
    /// How often messages were tried before, by rising sequence number; the others never were.
    pub attempts: Vec<Attempts>,
}

/// One batch with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first record's sequence number; the others follow without gaps.
    pub first_seq: u64,
    /// When the batch was stored, in milliseconds since 1970.
    pub time_ms: u64,
    /// The bytes of a record batch, not yet parsed.
    pub batch: Bytes,
}

/// How often one message was tried before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// The message's sequence number.
    pub seq: u64,
    /// How often it was handed out and not completed; more than 0.
    pub attempts: u32,
}

impl Messages {
    /// Appends the body. Copies the batches.
    ///
    /// # Panics
    /// Over 65 535 sections; no pop may ask for more.
    pub fn encode(&self, out: &mut BytesMut) {
        put_head(out, &self.lease, self.lease_until_ms);
        put_count16(out, self.sections.len());
        for section in &self.sections {
            put_section_head(out, &section.queue, section.partition, &section.partition_name);
            put_count32(out, section.chunks.len());
            for chunk in &section.chunks {
                out.put_u64_le(chunk.first_seq);
                out.put_u64_le(chunk.time_ms);
                put_blob(out, &chunk.batch);
            }
            put_attempts(out, &section.attempts);
        }
    }

    /// Reads the body. Names and batches share its memory.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let lease = reader.array("lease")?;
        let lease_until_ms = reader.u64("lease_until_ms")?;
        let count = reader.count16("sections", SECTION_BYTES_MIN)?;
        let mut sections = Vec::with_capacity(count);
        for _ in 0..count {
            sections.push(MessagesSection::decode(&mut reader, None)?);
        }
        reader.end()?;
        Ok(Self { lease, lease_until_ms, sections })
    }
}

impl MessagesSection {
    /// Reads a section, and who pushed each chunk into `producers`, where the answer says so.
    pub(super) fn decode(
        reader: &mut Reader<'_>,
        mut producers: Option<&mut Vec<LongText>>,
    ) -> Result<Self, DecodeError> {
        let queue = reader.short("queue", QueueName::parse)?;
        let partition = reader.u32("partition")?;
        let partition_name = reader.short("partition_name", PartitionName::parse)?;
        let count = reader.count32("chunks", CHUNK_BYTES_MIN, u32::MAX)?;
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            let (first_seq, time_ms) = (reader.u64("first_seq")?, reader.u64("time_ms")?);
            if let Some(producers) = &mut producers {
                producers.push(reader.long("producer", LongText::parse)?);
            }
            chunks.push(Chunk { first_seq, time_ms, batch: reader.blob("batch")? });
        }
        let count = reader.count32("attempts", ATTEMPTS_BYTES, u32::MAX)?;
        let mut attempts = Vec::with_capacity(count);
        for _ in 0..count {
            attempts.push(Attempts { seq: reader.u64("seq")?, attempts: reader.u32("attempts")? });
        }
        Ok(Self { queue, partition, partition_name, chunks, attempts })
    }
}

/// Appends what stands before the count of sections.
pub(super) fn put_head(out: &mut BytesMut, lease: &LeaseToken, lease_until_ms: u64) {
    out.put_slice(lease);
    out.put_u64_le(lease_until_ms);
}

/// Appends what stands before a section's count of chunks.
pub(super) fn put_section_head(
    out: &mut BytesMut,
    queue: &QueueName,
    partition: u32,
    partition_name: &PartitionName,
) {
    put_short(out, queue.as_bytes());
    out.put_u32_le(partition);
    put_short(out, partition_name.as_bytes());
}

/// Appends a section's attempts with their count.
pub(super) fn put_attempts(out: &mut BytesMut, attempts: &[Attempts]) {
    put_count32(out, attempts.len());
    for Attempts { seq, attempts } in attempts {
        out.put_u64_le(*seq);
        out.put_u32_le(*attempts);
    }
}
