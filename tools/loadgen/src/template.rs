//! A push frame that is built once and sent a million times.
//!
//! In: sizes and names. Out: copies of the frame with everything in its place that changes from
//! one sending to the next: request id, partition, transaction ids, stamps, checksum. A copy and
//! its patches cost well under two microseconds for a hundred messages of a hundred bytes, most
//! of it for the checksum. Called by the producer.

use bytes::BytesMut;
use onrush_protocol::limits::{BATCH_HEADER_BYTES, FRAME_HEADER_BYTES};
use onrush_protocol::request::PushTerms;
use onrush_protocol::{BatchBuilder, BatchLimits, NewRecord, PartitionName, QueueName};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::error::LoadError;
use crate::payload::{STAMP_BYTES, Stamp};

/// Characters of a transaction id: a run's mark and producer, then a number, all hexadecimal.
pub(crate) const ID_CHARS: usize = 8 + 12;

/// Digits of a partition's name after its `p`.
const PARTITION_DIGITS: usize = 8;

/// The name of a partition by its index.
pub(crate) fn partition_name(index: u32) -> String {
    format!("p{index:0PARTITION_DIGITS$}")
}

/// The index in a partition's name, when it is one of ours.
pub(crate) fn partition_index(name: &[u8]) -> Option<u32> {
    let digits = name.strip_prefix(b"p").filter(|digits| digits.len() == PARTITION_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What a frame is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) queue: QueueName,
    pub(crate) terms: PushTerms,
    pub(crate) batch: u32,
    /// Bytes of one payload.
    pub(crate) size: usize,
    /// Whether payloads are stamped.
    pub(crate) is_stamped: bool,
    /// Whether messages have transaction ids.
    pub(crate) has_ids: bool,
    /// Decides the filling.
    pub(crate) seed: u64,
}

/// The frame and the places in it that change.
pub(crate) struct Template {
    frame: Vec<u8>,
    /// Where the digits of the partition's name begin.
    partition_at: usize,
    /// Where the record batch begins.
    batch_at: usize,
    records: Vec<Place>,
    is_stamped: bool,
    has_ids: bool,
}

/// Where a record's changing parts stand in the frame.
struct Place {
    id_at: usize,
    payload_at: usize,
    /// CRC-32 of what follows the stamp.
    filling_crc: u32,
}

impl Template {
    /// Builds the frame.
    ///
    /// # Errors
    /// [`LoadError::Argument`] when the batch does not fit what the server takes.
    pub(crate) fn build(shape: &Shape, limits: BatchLimits) -> Result<Self, LoadError> {
        let refused = |error: onrush_protocol::BatchError| LoadError::Argument {
            name: "batch",
            value: format!("{} messages of {} bytes", shape.batch, shape.size),
            allowed: error.to_string(),
        };
        let mut random = StdRng::seed_from_u64(shape.seed);
        let mut builder = BatchBuilder::with_limits(limits);
        let id = "0".repeat(ID_CHARS);
        let mut payload = vec![0; shape.size];
        for _ in 0..shape.batch {
            random.fill_bytes(&mut payload);
            let transaction_id = shape.has_ids.then_some(id.as_str());
            let record = NewRecord { transaction_id, payload: &payload, ..NewRecord::default() };
            builder.push(&record).map_err(refused)?;
        }
        let Some(batch) = builder.finish() else {
            let allowed = "at least 1 is needed".to_owned();
            return Err(LoadError::Argument { name: "batch", value: "0".to_owned(), allowed });
        };
        let partition: PartitionName = partition_name(0).parse().unwrap_or_default();
        let mut head = BytesMut::new();
        shape.terms.encode_single(0, &shape.queue, &partition, batch.bytes().len(), &mut head);
        let batch_at = head.len();
        // The name is followed by the four bytes of the batch's length.
        let partition_at = batch_at - 4 - PARTITION_DIGITS;
        let records = batch
            .records()
            .map(|record| Place {
                // Behind the length (4), the flags (1) and the id's own length (1).
                id_at: batch_at + record.range.start + 6,
                payload_at: batch_at + record.range.end - record.payload.len(),
                filling_crc: crc32fast::hash(record.payload.get(STAMP_BYTES..).unwrap_or_default()),
            })
            .collect();
        let frame = [head.as_ref(), batch.bytes().as_ref()].concat();
        let (is_stamped, has_ids) = (shape.is_stamped, shape.has_ids);
        Ok(Self { frame, partition_at, batch_at, records, is_stamped, has_ids })
    }

    /// Appends a frame with these messages to `out`; one number for each record, an old one
    /// for a duplicate.
    pub(crate) fn append(
        &self,
        request_id: u64,
        partition: u32,
        producer: u32,
        sent_ns: u64,
        seqs: &[u64],
        out: &mut Vec<u8>,
    ) {
        let from = out.len();
        out.extend_from_slice(&self.frame);
        let Some(frame) = out.get_mut(from..) else { return };
        put(frame, FRAME_HEADER_BYTES - 8, &request_id.to_le_bytes());
        put(frame, self.partition_at, &digits(partition));
        if !self.is_stamped && !self.has_ids {
            return;
        }
        for (place, &seq) in self.records.iter().zip(seqs) {
            if self.has_ids {
                put(frame, place.id_at, &transaction_id(producer, seq));
            }
            if self.is_stamped {
                let stamp = Stamp { producer, seq, sent_ns };
                let end = place.payload_at + STAMP_BYTES;
                if let Some(bytes) = frame.get_mut(place.payload_at..end)
                    && let Some(bytes) = bytes.first_chunk_mut()
                {
                    stamp.write(place.filling_crc, bytes);
                }
            }
        }
        let crc =
            crc32fast::hash(frame.get(self.batch_at + BATCH_HEADER_BYTES..).unwrap_or_default());
        put(frame, self.batch_at + BATCH_HEADER_BYTES - 4, &crc.to_le_bytes());
    }
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn digits(mut number: u32) -> [u8; PARTITION_DIGITS] {
    let mut text = [b'0'; PARTITION_DIGITS];
    for place in text.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

/// The id of one message: unique in its partition, and the same whenever it is sent again.
pub(crate) fn transaction_id(producer: u32, seq: u64) -> [u8; ID_CHARS] {
    let mut text = [0; ID_CHARS];
    let mut left = u128::from(producer) << 48 | u128::from(seq & 0xffff_ffff_ffff);
    for place in text.iter_mut().rev() {
        let nibble = (left & 0xf) as u8;
        *place = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        left >>= 4;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use onrush_protocol::{Qos, RecordBatch, Request, limits::FRAME_BYTES_MAX};

    fn shape(has_ids: bool) -> Shape {
        Shape {
            queue: "load".parse().unwrap(),
            terms: PushTerms { qos: Qos::AtLeastOnce, ..PushTerms::default() },
            batch: 7,
            size: 40,
            is_stamped: true,
            has_ids,
            seed: 1,
        }
    }

    /// What a server would see of one appended frame.
    fn received(out: &[u8]) -> (u64, String, RecordBatch) {
        let mut buffer = BytesMut::from(out);
        let frame = onrush_protocol::frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
        let Request::Push(push) = Request::decode(frame.opcode, frame.body).unwrap() else {
            panic!("no push");
        };
        let section = push.sections.iter().next().unwrap().unwrap();
        assert_eq!(section.queue.as_str(), "load");
        let batch = RecordBatch::parse(section.batch, &BatchLimits::default()).unwrap();
        (frame.request_id, section.partition.to_string(), batch)
    }

    #[test]
    fn a_patched_frame_is_one_that_every_server_takes() {
        for has_ids in [false, true] {
            let template = Template::build(&shape(has_ids), BatchLimits::default()).unwrap();
            let mut out = Vec::new();
            let slots: Vec<u64> = (100..107).collect();
            template.append(1, 0, 9, 5, &slots, &mut out);
            out.clear();
            template.append(77, 12_345_678, 0xbeef_0002, 987, &slots, &mut out);
            assert_eq!(out.len(), template.frame.len());
            let (id, partition, batch) = received(&out);
            assert_eq!((id, partition.as_str()), (77, "p12345678"));
            for (record, &seq) in batch.records().zip(&slots) {
                let stamp = Stamp::read(record.payload).unwrap();
                assert_eq!(stamp, Stamp { producer: 0xbeef_0002, seq, sent_ns: 987 });
                assert_eq!(
                    record.transaction_id.map(str::as_bytes),
                    has_ids.then_some(&transaction_id(0xbeef_0002, seq)[..])
                );
            }
        }
    }

    #[test]
    fn an_unstamped_frame_keeps_a_valid_checksum() {
        let shape = Shape { is_stamped: false, size: 3, ..shape(false) };
        let template = Template::build(&shape, BatchLimits::default()).unwrap();
        let mut out = Vec::new();
        template.append(5, 6, 0, 0, &[], &mut out);
        assert_eq!(received(&out).2.count(), 7);
        let _: Bytes = received(&out).2.bytes().clone();
    }

    #[test]
    fn a_partition_name_gives_back_its_index() {
        for index in [0, 7, 99_999_999] {
            assert_eq!(partition_index(partition_name(index).as_bytes()), Some(index));
        }
        assert_eq!(partition_index(b"Default"), None);
        assert_eq!(partition_index(b"p1"), None);
    }

    #[test]
    fn ids_differ_by_producer_and_number() {
        let ids = [(1, 1), (1, 2), (2, 1), (0x1_0001, 1)].map(|(p, s)| transaction_id(p, s));
        for (at, id) in ids.iter().enumerate() {
            assert!(ids[..at].iter().all(|other| other != id));
        }
    }
}
