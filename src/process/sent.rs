//! What an entry of an outbox said, wherever it lies by now. Changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::RecordBatch;

use crate::base::place::{PartitionNumber, QueueId};
use crate::delivery::parcel::Delivered;
use crate::ingest::PushError;
use crate::process::incoming::Incoming;
use crate::process::instance::values;
use crate::process::keys::{Address, CASCADES, DEAD, child_key, dead_key, reply_key};
use crate::process::record::Letter;
use crate::process::{Inner, ProcessError, Processes};
use crate::sealing::Place;
use crate::shard::command::CommandError;
use crate::shard::transaction::read_place;
use crate::state::effect::Sequence;
use crate::state::kv::KvError;

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Where it stands; `None` where it stands nowhere.
    pub address: Option<Address>,
    /// What it says.
    pub payload: Bytes,
    /// Whether that is JSON.
    pub is_json: bool,
}

/// What is kept of an entry.
enum Found {
    Place(Address),
    Text(Bytes),
    Kept(Letter),
    Nothing,
}

impl Processes {
    /// What a slot sent as its entry of this index, as far as that is kept: as a message in the log, as
    /// an answer, or as a letter. `None` where it is not, or not yet. Waits for disks or networks.
    ///
    /// # Errors
    /// [`ProcessError::Command`]; [`ProcessError::Malformed`] where a message does not open.
    pub async fn sent(
        &self,
        root: Address,
        slot: Address,
        index: u32,
    ) -> Result<Option<Sent>, ProcessError> {
        let (partition, seq) = (slot.partition, slot.seq);
        let child = child_key(root, partition, seq, index);
        let reply = reply_key(root, partition, seq, index);
        let letter = dead_key(root, &child);
        let desk = self.inner.desk();
        let read = self.inner.engine.look(move |look| {
            let placed = values(look, CASCADES, root.partition, &[child, reply.clone()])?;
            for (key, value) in placed {
                match read_place(&value) {
                    _ if key == reply => return Ok(Found::Text(value)),
                    Some((partition, seq, time_ms)) => {
                        return Ok(Found::Place(Address { partition, seq, time_ms }));
                    }
                    None => {}
                }
            }
            let Some(desk) = desk else { return Ok(Found::Nothing) };
            let found = values(look, DEAD, desk, &[letter])?;
            let letter = found.first().and_then(|(_, value)| serde_json::from_slice(value).ok());
            Ok::<_, KvError>(letter.map_or(Found::Nothing, Found::Kept))
        });
        match read.await?? {
            Found::Nothing => Ok(None),
            Found::Text(payload) => Ok(Some(Sent { address: None, payload, is_json: true })),
            Found::Kept(letter) => {
                let (payload, is_json) = letter.says();
                Ok(Some(Sent { address: None, payload, is_json }))
            }
            Found::Place(address) => self.inner.message(address).await,
        }
    }
}

impl Inner {
    /// A message of any queue.
    async fn message(&self, address: Address) -> Result<Option<Sent>, ProcessError> {
        let Address { partition, seq, .. } = address;
        let named = self.engine.look(move |look| {
            let at = usize::from(look.replica.count().of_partition(partition));
            let found = look.replica.shards.get(at)?.partition(partition)?;
            Some((found.queue, found.name.to_string()))
        });
        let Some((queue, key)) = named.await? else { return Ok(None) };
        let found = self.read(queue, key, partition, seq, seq + 1).await?;
        let found = found.into_iter().find(|it| it.address.seq == seq);
        Ok(found.map(|Incoming { payload, is_json, .. }| Sent {
            address: Some(address),
            payload,
            is_json,
        }))
    }

    /// Messages of a partition from one sequence up to and without another.
    pub(super) async fn read(
        &self,
        queue: QueueId,
        key: String,
        partition: PartitionNumber,
        from: Sequence,
        to: Sequence,
    ) -> Result<Vec<Incoming>, ProcessError> {
        let engine = Arc::clone(&self.engine);
        let runs = engine.look(move |look| {
            let at = usize::from(look.replica.count().of_partition(partition));
            let shard = look.replica.shards.get(at);
            shard.map_or(Ok(Vec::new()), |shard| shard.runs(look.kv, partition, from, to))
        });
        let runs = runs.await??;
        let reading = tokio::task::spawn_blocking(move || {
            let shard = engine.shards().of_partition(partition);
            let mut all = Vec::new();
            for run in runs {
                let chunks = engine.read(shard, &run);
                let chunks = chunks.map_err(|error| ProcessError::Malformed(error.to_string()))?;
                for chunk in chunks {
                    let batch = RecordBatch::parse_trusted(chunk.batch);
                    let batch = batch.map_err(PushError::from)?;
                    let place = Place { queue, partition: &key };
                    let opened = match batch.is_sealed() {
                        true => engine.seals().open(place, &batch),
                        false => Ok(batch),
                    };
                    let batch =
                        opened.map_err(|(_, error)| ProcessError::Malformed(error.to_string()))?;
                    let (first_seq, time_ms, sub) = (chunk.first_seq, chunk.time_ms, chunk.sub);
                    let delivered = Delivered { first_seq, time_ms, sub, batch };
                    all.extend(Incoming::of_batch(partition, &delivered));
                }
            }
            all.retain(|it: &Incoming| (from..to).contains(&it.address.seq));
            Ok(all)
        });
        reading.await.unwrap_or(Err(ProcessError::Command(CommandError::ShuttingDown)))
    }
}
