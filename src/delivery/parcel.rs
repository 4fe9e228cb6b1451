//! From claims to batches: reads what is not in memory, cuts batches to what was claimed, and opens
//! those that are sealed.

use std::sync::Arc;

use onrush_protocol::batch::RecordBatch;
use onrush_protocol::name::PartitionName;

use crate::base::place::PartitionNumber;
use crate::log::ReadError;
use crate::sealing::{Keyring, OpenError, Place};
use crate::shard::Engine;
use crate::shard::command::{Parcel, Source};
use crate::state::codec::Chunk;
use crate::state::effect::{ProducerSub, Sequence};

/// Messages of one partition for one consumer.
#[derive(Debug)]
pub struct Package {
    /// The partition.
    pub partition: PartitionNumber,
    /// Its name.
    pub name: PartitionName,
    /// Failed attempts of those that have any, by sequence.
    pub attempts: Vec<(Sequence, u32)>,
    /// The batches, ascending.
    pub batches: Vec<Delivered>,
}

/// A batch as it goes out.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Sequence of its first record; the others follow densely.
    pub first_seq: Sequence,
    /// When it was pushed, unix milliseconds.
    pub time_ms: u64,
    /// Who pushed it, where that is known.
    pub sub: Option<ProducerSub>,
    /// The batch.
    pub batch: RecordBatch,
}

/// Messages of one partition as far as they open.
#[derive(Debug)]
pub struct Unpacked {
    /// What there is to hand out; without batches where the first message does not open.
    pub package: Package,
    /// The first message that does not open, and why. What comes behind it is not handed out either.
    pub stopped: Option<(Sequence, OpenError)>,
}

/// Whether any of the batches would have to be waited for.
#[must_use]
pub fn is_far(engine: &Engine, parcels: &[Parcel]) -> bool {
    let is_far = |parcel: &Parcel| {
        let shard = engine.shards().of_partition(parcel.partition);
        let is_cold = |it: &Source| matches!(it, Source::Cold(run) if !engine.is_near(shard, run));
        parcel.sources.iter().any(is_cold)
    };
    parcels.iter().any(is_far)
}

/// Turns claims into batches, waiting for the disk, and therefore not on the caller's thread. Handing
/// a read over costs more than what the page cache has: only for claims that are far.
///
/// # Errors
/// [`ReadError`] when a claimed batch cannot be read.
pub async fn unpack_far(
    engine: &Arc<Engine>,
    parcels: Vec<Parcel>,
) -> Result<Vec<Unpacked>, ReadError> {
    let engine = Arc::clone(engine);
    let reading = tokio::task::spawn_blocking(move || unpack_all(&engine, parcels));
    reading.await.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string())))
}

/// Turns claims into batches on the caller's thread, wherever they are.
///
/// # Errors
/// [`ReadError`] when a claimed batch cannot be read.
pub fn unpack_all(engine: &Engine, parcels: Vec<Parcel>) -> Result<Vec<Unpacked>, ReadError> {
    parcels.into_iter().map(|parcel| unpack_one(engine, parcel)).collect()
}

fn unpack_one(engine: &Engine, parcel: Parcel) -> Result<Unpacked, ReadError> {
    let Parcel { queue, partition, name, ranges, mut attempts, sources } = parcel;
    let shard = engine.shards().of_partition(partition);
    let mut batches: Vec<Delivered> = Vec::with_capacity(sources.len());
    let mut stopped = None;
    for source in sources {
        if stopped.is_some() {
            break;
        }
        let chunks = match source {
            Source::Hot(chunks) => chunks,
            Source::Cold(run) => engine.read(shard, &run)?,
        };
        for chunk in chunks {
            let first = batches.len();
            cut(&chunk, &ranges, &mut batches)?;
            if batches.last().is_some_and(|last| last.batch.is_sealed()) {
                let place = Place { queue, partition: name.as_str() };
                stopped = open(engine.seals(), place, &mut batches, first);
                if stopped.is_some() {
                    break;
                }
            }
        }
    }
    if let Some((from, _)) = stopped {
        attempts.retain(|(seq, _)| *seq < from);
    }
    Ok(Unpacked { package: Package { partition, name, attempts, batches }, stopped })
}

/// Opens batches from `first` on, as far as they open; takes away the rest, and says where that begins.
fn open(
    seals: &Keyring,
    place: Place<'_>,
    batches: &mut Vec<Delivered>,
    first: usize,
) -> Option<(Sequence, OpenError)> {
    for at in first..batches.len() {
        let delivered = batches.get_mut(at)?;
        let (index, error) = match seals.open(place, &delivered.batch) {
            Ok(opened) => {
                delivered.batch = opened;
                continue;
            }
            Err(stopped) => stopped,
        };
        let from = delivered.first_seq + u64::from(index);
        let before = delivered.batch.slice(0, index);
        let before = before.and_then(|before| seals.open(place, &before).ok());
        let kept = before.map(|batch| delivered.batch = batch).is_some();
        batches.truncate(at + usize::from(kept));
        return Some((from, error));
    }
    None
}

/// Adds the parts of a batch that lie in `ranges`.
fn cut(
    chunk: &Chunk,
    ranges: &[(Sequence, Sequence)],
    out: &mut Vec<Delivered>,
) -> Result<(), ReadError> {
    let (start, end) = (chunk.first_seq, chunk.first_seq + u64::from(chunk.count));
    for (from, to) in ranges {
        let (from, to) = ((*from).max(start), (*to).min(end));
        if from >= to {
            continue;
        }
        let batch = RecordBatch::parse_trusted(chunk.batch.clone()).ok();
        let batch = batch.and_then(|it| it.slice((from - start) as u32, (to - start) as u32));
        let batch = batch.ok_or_else(|| ReadError::Corrupt {
            position: from,
            reason: format!("batch of partition {} at sequence {start}", chunk.partition),
        })?;
        let (time_ms, sub) = (chunk.time_ms, chunk.sub.clone());
        out.push(Delivered { first_seq: from, time_ms, sub, batch });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use onrush_protocol::batch::{BatchBuilder, NewRecord};

    use super::*;

    fn chunk(first_seq: u64, payloads: &[&str]) -> Chunk {
        let mut builder = BatchBuilder::new();
        for payload in payloads {
            let record = NewRecord { payload: payload.as_bytes(), ..NewRecord::default() };
            builder.push(&record).unwrap();
        }
        let batch = builder.finish().unwrap();
        Chunk {
            partition: 1,
            first_seq,
            count: batch.count(),
            time_ms: 5,
            sub: None,
            batch: batch.bytes().clone(),
        }
    }

    #[test]
    fn a_batch_is_cut_to_the_claimed_ranges() {
        let chunk = chunk(10, &["a", "b", "c", "d", "e"]);
        let mut out = Vec::new();
        cut(&chunk, &[(0, 12), (13, 14), (40, 50)], &mut out).unwrap();
        let parts: Vec<(u64, Vec<&[u8]>)> = out
            .iter()
            .map(|it| (it.first_seq, it.batch.records().map(|record| record.payload).collect()))
            .collect();
        assert_eq!(parts, vec![(10, vec![&b"a"[..], b"b"]), (13, vec![&b"d"[..]])]);
    }
}
