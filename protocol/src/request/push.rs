//! Push: record batches for queues and partitions, under one promise.
//!
//! In: terms and sections. The batches are not looked at here: the server parses each by itself,
//! so that one bad section never fails another. For the same reason a bad name is an error of
//! its section. Answered by `Receipts`, one for each section, in their order.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `qos`: 0, 1 or 2 |
//! | 4 | `timeout_ms`: 0 for the server's default |
//! | 4 | `buffer_ms`: 0 for the server's default; QoS 0 |
//! | 4 | `buffer_max`: 0 for the server's default; QoS 0 |
//! | 2 | count of sections, at least 1 |
//! | | each section: |
//! | 1 + n | `queue`: a name |
//! | 1 + n | `partition`: a name |
//! | 4 + n | `batch`: a record batch |

use std::iter::FusedIterator;

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::frame;
use crate::limits::FRAME_HEADER_BYTES;
use crate::name::{NameError, PartitionName, QueueName};
use crate::opcode::Opcode;
use crate::primitive::{Reader, in_range, put_blob, put_count32, put_short};
use crate::qos::Qos;

/// Fewest bytes of a section: three length fields around nothing.
const SECTION_BYTES_MIN: usize = 1 + 1 + 4;

/// Brings messages in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The promise and how long it may take.
    pub terms: PushTerms,
    /// The batches and where they go.
    pub sections: PushSections,
}

/// The part of a push that holds for all its sections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushTerms {
    /// The promise.
    pub qos: Qos,
    /// How long to wait for it, in milliseconds; 0 for the server's default.
    pub timeout_ms: u32,
    /// QoS 0: flush when the oldest message is this old, in milliseconds; 0 for the default.
    pub buffer_ms: u32,
    /// QoS 0: flush when this many messages wait; 0 for the default.
    pub buffer_max: u32,
}

/// One batch and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSection {
    /// The queue.
    pub queue: QueueName,
    /// Its partition.
    pub partition: PartitionName,
    /// The bytes of a record batch, not yet parsed.
    pub batch: Bytes,
}

impl PushTerms {
    /// Appends the body up to its first section. [`Self::section_head`] and the batch's bytes
    /// follow, `sections` times.
    pub fn encode(&self, sections: u16, out: &mut BytesMut) {
        out.put_u8(self.qos.number());
        out.put_u32_le(self.timeout_ms);
        out.put_u32_le(self.buffer_ms);
        out.put_u32_le(self.buffer_max);
        out.put_u16_le(sections);
    }

    /// Appends a section up to its batch, whose `batch_bytes` bytes follow.
    ///
    /// # Panics
    /// Over 4 GiB of batch; limits end long before.
    pub fn section_head(
        queue: &QueueName,
        partition: &PartitionName,
        batch_bytes: usize,
        out: &mut BytesMut,
    ) {
        put_short(out, queue.as_bytes());
        put_short(out, partition.as_bytes());
        put_count32(out, batch_bytes);
    }

    /// Appends the frame of a push with one section, all but its batch: the `batch_bytes` bytes
    /// of that follow on the connection, without having been copied.
    ///
    /// # Panics
    /// As [`Self::section_head`].
    pub fn encode_single(
        &self,
        request_id: u64,
        queue: &QueueName,
        partition: &PartitionName,
        batch_bytes: usize,
        out: &mut BytesMut,
    ) {
        let from = out.len();
        out.put_slice(&[0; FRAME_HEADER_BYTES]);
        self.encode(1, out);
        Self::section_head(queue, partition, batch_bytes, out);
        let body_bytes = out.len() - from - FRAME_HEADER_BYTES + batch_bytes;
        let header = frame::header(Opcode::Push.number(), request_id, body_bytes);
        if let Some(place) = out.get_mut(from..from + FRAME_HEADER_BYTES) {
            place.copy_from_slice(&header);
        }
    }
}

impl Push {
    /// Appends the body. Copies the batches; see [`PushTerms::encode_single`] for how not to.
    pub fn encode(&self, out: &mut BytesMut) {
        self.terms.encode(self.sections.count, out);
        out.put_slice(&self.sections.bytes);
    }

    /// Reads the body. Every section's lengths are checked, no batch and no name is.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let qos = reader.u8("qos")?;
        let Some(qos) = Qos::from_number(qos) else {
            let value = u64::from(qos);
            return Err(DecodeError::Value { field: "qos", offset: 0, value, min: 0, max: 2 });
        };
        let timeout_ms = reader.u32("timeout_ms")?;
        let buffer_ms = reader.u32("buffer_ms")?;
        let buffer_max = reader.u32("buffer_max")?;
        let offset = reader.at();
        let count = reader.count16("sections", SECTION_BYTES_MIN)?;
        in_range("sections", offset, count as u64, 1, u64::from(u16::MAX))?;
        let from = reader.at();
        for _ in 0..count {
            skip_section(&mut reader)?;
        }
        reader.end()?;
        Ok(Self {
            terms: PushTerms { qos, timeout_ms, buffer_ms, buffer_max },
            // The count came out of a u16.
            sections: PushSections { bytes: body.slice(from..), count: count as u16 },
        })
    }
}

fn skip_section(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let queue = usize::from(reader.u8("queue")?);
    reader.slice("queue", queue)?;
    let partition = usize::from(reader.u8("partition")?);
    reader.slice("partition", partition)?;
    let batch = reader.u32("batch")?;
    reader.slice("batch", batch as usize)?;
    Ok(())
}

/// The sections of a push: 1 to 65 535, kept as they came and read as they are walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSections {
    bytes: Bytes,
    count: u16,
}

impl PushSections {
    /// Sections of one's own making; copies the batches.
    ///
    /// # Errors
    /// [`DecodeError::Value`] without sections or over 65 535 of them.
    pub fn collect<'a>(
        sections: impl IntoIterator<Item = &'a PushSection>,
    ) -> Result<Self, DecodeError> {
        let mut out = BytesMut::new();
        let mut count = 0u64;
        for section in sections {
            put_short(&mut out, section.queue.as_bytes());
            put_short(&mut out, section.partition.as_bytes());
            put_blob(&mut out, &section.batch);
            count += 1;
        }
        in_range("sections", 13, count, 1, u64::from(u16::MAX))?;
        Ok(Self { bytes: out.freeze(), count: count as u16 })
    }

    /// How many sections there are; at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// The sections in their order. A name that is not legal is an error of its section alone.
    #[must_use]
    pub fn iter(&self) -> PushSectionsIter {
        PushSectionsIter { bytes: self.bytes.clone(), left: self.count }
    }
}

impl IntoIterator for &PushSections {
    type Item = Result<PushSection, NameError>;
    type IntoIter = PushSectionsIter;

    fn into_iter(self) -> PushSectionsIter {
        self.iter()
    }
}

/// Walks the sections of a push; names and batches share the frame's memory.
#[derive(Clone, Debug)]
pub struct PushSectionsIter {
    bytes: Bytes,
    left: u16,
}

impl Iterator for PushSectionsIter {
    type Item = Result<PushSection, NameError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(&self.bytes);
        // The lengths were checked when the push was decoded, so these reads find their bytes.
        let queue = reader.short("queue", Ok).ok()?;
        let partition = reader.short("partition", Ok).ok()?;
        let batch = reader.blob("batch").ok()?;
        let at = reader.at();
        self.bytes = self.bytes.slice(at..);
        let section = |queue, partition| {
            let (queue, partition) = (QueueName::parse(queue)?, PartitionName::parse(partition)?);
            Ok(PushSection { queue, partition, batch })
        };
        Some(section(queue, partition))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for PushSectionsIter {}
impl FusedIterator for PushSectionsIter {}
