//! The byte form of a batch that waits in the failover log.
//!
//! In: a batch with all that is needed to push it again, without any other file. Out: a rope; and
//! back from bytes without copying the batch. Pure. Called by the room's log.
//!
//! ```text
//! u8 version = 1 | u8 qos | u16 name_len | u32 queue | u64 time_ms
//! u64 engine | u64 append | u64 head          the append that may have stored it; 0 0 0 = none
//! u32 fingerprints | u32 sub_len | name | who pushed it | 16 × fingerprints | record batch
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::name::PartitionName;
use onrush_protocol::qos::Qos;

use crate::base::place::QueueId;
use crate::state::draft::push::PushBatch;
use crate::state::effect::{Origin, ProducerSub};

/// Bytes before the partition's name.
const HEADER_BYTES: usize = 48;
const VERSION: u8 = 1;

/// An append whose answer was lost: the batch may stand already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Doubt {
    /// Which append.
    pub origin: Origin,
    /// How many entries the batch's shard had before it.
    pub head: u64,
}

/// A batch that waits to be pushed again.
#[derive(Clone, Debug)]
pub struct Spilled {
    /// Its queue.
    pub queue: QueueId,
    /// Its partition.
    pub partition: PartitionName,
    /// What was promised.
    pub qos: Qos,
    /// When it was taken in, unix milliseconds.
    pub time_ms: u64,
    /// The append that may have stored it already.
    pub doubt: Option<Doubt>,
    /// The batch.
    pub push: PushBatch,
}

/// Why a record is none of ours. It is kept: nothing is deleted because it could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a waiting batch: {field} is {problem}")]
pub struct SpilledError {
    /// What was being read.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

fn short(_: bytes::TryGetError) -> SpilledError {
    SpilledError { field: "header", problem: "cut off" }
}

impl Spilled {
    /// Whether the record that begins so was answered before it was durable.
    #[must_use]
    pub fn was_buffered(begins: &[u8]) -> bool {
        begins.starts_with(&[VERSION, Qos::Buffered as u8])
    }

    /// Its bytes as a rope; the batch is shared, not copied.
    #[must_use]
    pub fn encode(&self) -> [Bytes; 2] {
        let name = self.partition.as_str();
        let fingerprints = &self.push.fingerprints;
        let sub = self.push.sub.as_ref().map_or("", ProducerSub::as_str);
        let bytes = HEADER_BYTES + name.len() + sub.len() + 16 * fingerprints.len();
        let mut head = BytesMut::with_capacity(bytes);
        head.put_u8(VERSION);
        head.put_u8(self.qos as u8);
        head.put_u16_le(name.len() as u16);
        head.put_u32_le(self.queue);
        head.put_u64_le(self.time_ms);
        let none = Doubt { origin: Origin::default(), head: 0 };
        let Doubt { origin, head: shard_head } = self.doubt.unwrap_or(none);
        head.put_u64_le(origin.engine);
        head.put_u64_le(origin.append);
        head.put_u64_le(shard_head);
        head.put_u32_le(fingerprints.len() as u32);
        head.put_u32_le(sub.len() as u32);
        head.put_slice(name.as_bytes());
        head.put_slice(sub.as_bytes());
        for fingerprint in fingerprints {
            head.put_u128_le(*fingerprint);
        }
        [head.freeze(), self.push.batch.bytes().clone()]
    }

    /// Reads what [`Self::encode`] wrote; the batch is a slice of `bytes`.
    ///
    /// # Errors
    /// [`SpilledError`]: the field that is wrong.
    pub fn decode(mut bytes: Bytes) -> Result<Self, SpilledError> {
        let wrong = |field, problem| SpilledError { field, problem };
        if bytes.try_get_u8().map_err(short)? != VERSION {
            return Err(wrong("version", "unknown"));
        }
        let qos = match bytes.try_get_u8().map_err(short)? {
            0 => Qos::Buffered,
            1 => Qos::AtLeastOnce,
            2 => Qos::ExactlyOnce,
            _ => return Err(wrong("qos", "unknown")),
        };
        let name_len = usize::from(bytes.try_get_u16_le().map_err(short)?);
        let queue = bytes.try_get_u32_le().map_err(short)?;
        let time_ms = bytes.try_get_u64_le().map_err(short)?;
        let engine = bytes.try_get_u64_le().map_err(short)?;
        let append = bytes.try_get_u64_le().map_err(short)?;
        let head = bytes.try_get_u64_le().map_err(short)?;
        let count = bytes.try_get_u32_le().map_err(short)? as usize;
        // Zero in what was written before producers were known.
        let sub_len = bytes.try_get_u32_le().map_err(short)? as usize;
        if sub_len > ProducerSub::BYTES_MAX || bytes.len() < name_len + sub_len + 16 * count {
            return Err(wrong("header", "past the record's end"));
        }
        let name = bytes.split_to(name_len);
        let name = std::str::from_utf8(&name).map_err(|_| wrong("partition", "not UTF-8"))?;
        let partition = name.parse().map_err(|_| wrong("partition", "not a name"))?;
        let sub = bytes.split_to(sub_len);
        let sub = std::str::from_utf8(&sub).ok().and_then(ProducerSub::new);
        let fingerprints =
            (0..count).map(|_| bytes.try_get_u128_le().map_err(short)).collect::<Result<_, _>>()?;
        let batch = RecordBatch::parse_trusted(bytes).map_err(|_| wrong("batch", "not a batch"))?;
        let origin = Origin { engine, append };
        let doubt = (origin != Origin::default()).then_some(Doubt { origin, head });
        let push = PushBatch { batch, fingerprints, sub };
        Ok(Self { queue, partition, qos, time_ms, doubt, push })
    }
}

#[cfg(test)]
mod tests {
    use onrush_protocol::batch::{BatchBuilder, NewRecord};

    use super::*;

    fn spilled(doubt: Option<Doubt>) -> Spilled {
        let mut builder = BatchBuilder::new();
        for payload in [b"one".as_slice(), b"two"] {
            let record = NewRecord { payload, transaction_id: Some("id"), ..NewRecord::default() };
            builder.push(&record).unwrap();
        }
        let (batch, fingerprints) = (builder.finish().unwrap(), vec![7, 0]);
        let push = PushBatch { batch, fingerprints, sub: ProducerSub::new("billing") };
        let partition = "customer".parse().unwrap();
        Spilled { queue: 3, partition, qos: Qos::ExactlyOnce, time_ms: 99, doubt, push }
    }

    #[test]
    fn a_batch_comes_back_from_its_bytes_as_it_was() {
        let origin = Origin { engine: 5, append: 6 };
        for doubt in [None, Some(Doubt { origin, head: 8 })] {
            let before = spilled(doubt);
            let bytes: Bytes = before.encode().concat().into();
            let after = Spilled::decode(bytes).unwrap();
            assert_eq!((after.queue, after.qos, after.time_ms), (3, Qos::ExactlyOnce, 99));
            assert_eq!((after.partition.as_str(), after.doubt), ("customer", doubt));
            assert_eq!(after.push.fingerprints, vec![7, 0]);
            assert_eq!(after.push.sub, ProducerSub::new("billing"));
            assert_eq!(after.push.batch.bytes(), before.push.batch.bytes());
        }
    }

    #[test]
    fn no_prefix_is_taken_for_a_batch() {
        let bytes: Bytes = spilled(None).encode().concat().into();
        for len in 0..bytes.len() {
            assert!(Spilled::decode(bytes.slice(..len)).is_err(), "{len} bytes");
        }
    }
}
