//! Looking at processes: instances, slots, state keys, letters. Changes nothing.

use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::name::{PartitionName, QueueName};

use crate::base::place::PartitionNumber;
use crate::process::board::Deadline;
use crate::process::commit::GROUP;
use crate::process::incoming::Incoming;
use crate::process::instance::{page, values};
use crate::process::keys::{
    Address, META, RESULTS, STATE, STOPPED, TRIMMED, VERSION, read_slot_key, slot_key,
};
use crate::process::record::SlotRecord;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::look::View;
use crate::state::effect::Sequence;
use crate::state::kv::KvError;
use crate::state::states::{StateAsk, StatePage, StateRow};

/// Bytes of one answer with rows.
const PAGE_BYTES: usize = 4 << 20;

/// A message of a process as it stands in its log.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// Where.
    pub address: Address,
    /// The first message of its cascade.
    pub root: Address,
    /// Who sent it.
    pub from: Box<str>,
    /// Its transaction id, where it has one.
    pub transaction_id: Option<Box<str>>,
    /// Its payload.
    pub payload: Bytes,
    /// Whether that is JSON.
    pub is_json: bool,
}

impl From<Incoming> for Scheduled {
    fn from(message: Incoming) -> Self {
        let Incoming { address, root, from, transaction_id, payload, is_json, .. } = message;
        Self { address, root, from, transaction_id, payload, is_json }
    }
}

/// An instance as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstanceShown {
    /// Its partition.
    pub partition: PartitionNumber,
    /// The slot that the next message gets.
    pub next: Sequence,
    /// The first slot that is not evaluated.
    pub done: Sequence,
    /// The first slot whose message is kept.
    pub base: Sequence,
    /// The first slot of which is kept what became of it.
    pub kept_from: Sequence,
    /// The version of its class that it is at; 0 before its first message.
    pub version: u32,
    /// Why it is stopped, where it is.
    pub stopped: Option<Box<str>>,
}

impl Inner {
    /// The partition of an instance. Waits for a turn of the lane.
    pub(super) async fn number(
        &self,
        queue: &str,
        key: &PartitionName,
    ) -> Result<Option<PartitionNumber>, ProcessError> {
        let (queue, key) = (queue.to_owned(), key.clone());
        Ok(self.engine.look(move |look| find(look, &queue, key.as_str())).await?)
    }

    /// An instance. Waits for a turn of the lane.
    pub(super) async fn instance(
        &self,
        class: &str,
        key: &PartitionName,
    ) -> Result<Option<InstanceShown>, ProcessError> {
        let (class, key) = (class.to_owned(), key.clone());
        let shown = self.engine.look(move |look| {
            let Some(partition) = find(look, &class, key.as_str()) else { return Ok(None) };
            shown(look, partition)
        });
        Ok(shown.await??)
    }
}

/// The partition of a queue with this name.
pub(super) fn find(look: &View<'_>, queue: &str, key: &str) -> Option<PartitionNumber> {
    let queue = look.replica.catalog.catalog().find(queue)?.id;
    let hash = look.replica.key().place(queue, key);
    let shard = look.replica.count().of_hash(hash);
    look.replica.shards.get(usize::from(shard))?.find(queue, key, hash)
}

fn shown(look: &View<'_>, partition: PartitionNumber) -> Result<Option<InstanceShown>, KvError> {
    let at = usize::from(look.replica.count().of_partition(partition));
    let shard = look.replica.shards.get(at);
    let Some((shard, it)) = shard.and_then(|shard| Some((shard, shard.partition(partition)?)))
    else {
        return Ok(None);
    };
    let group = shard.group(it.queue, GROUP);
    let cursor = group.and_then(|group| shard.cursor(partition, group));
    let keys = [VERSION, STOPPED, TRIMMED].map(Bytes::from_static);
    let (mut version, mut stopped, mut kept_from) = (0, None, 0);
    for (key, value) in values(look, META, partition, &keys)? {
        match &*key {
            VERSION => version = (&*value).try_into().map_or(0, u32::from_le_bytes),
            TRIMMED => kept_from = read_slot_key(&value).unwrap_or(0),
            _ => stopped = Some(String::from_utf8_lossy(&value).into()),
        }
    }
    Ok(Some(InstanceShown {
        partition,
        next: it.next_seq,
        base: it.base_seq,
        done: cursor.map_or(0, |cursor| cursor.next),
        kept_from,
        version,
        stopped,
    }))
}

/// The record of a slot, if it was evaluated.
pub(super) fn record_of(
    look: &View<'_>,
    partition: PartitionNumber,
    slot: Sequence,
) -> Result<Option<Bytes>, KvError> {
    let found = values(look, RESULTS, partition, &[slot_key(slot)])?;
    Ok(found.into_iter().next().map(|(_, value)| value))
}

/// The first slot of an instance of which is kept what became of it.
pub(super) fn kept_from(look: &View<'_>, partition: PartitionNumber) -> Result<Sequence, KvError> {
    let found = values(look, META, partition, &[Bytes::from_static(TRIMMED)])?;
    Ok(found.first().and_then(|(_, value)| read_slot_key(value)).unwrap_or(0))
}

/// Reads a record.
pub(super) fn read_record(value: &[u8]) -> Option<SlotRecord> {
    serde_json::from_slice(value).ok()
}

impl Processes {
    /// An instance of a class.
    ///
    /// # Errors
    /// [`ProcessError::NoClass`], [`ProcessError::NoProcess`].
    pub async fn instance(
        &self,
        class: &QueueName,
        key: &PartitionName,
    ) -> Result<InstanceShown, ProcessError> {
        self.class(class)?;
        let shown = self.inner.instance(class.as_str(), key).await?;
        shown.ok_or_else(|| ProcessError::NoProcess(format!("{class}/{key}")))
    }

    /// The record of a slot; `None` when it is not evaluated yet.
    ///
    /// # Errors
    /// As [`Self::instance`]; [`ProcessError::NoSlot`] where there is no such message, or what became of
    /// it is not kept any more.
    pub async fn slot(
        &self,
        class: &QueueName,
        key: &PartitionName,
        slot: Sequence,
    ) -> Result<Option<SlotRecord>, ProcessError> {
        let instance = self.instance(class, key).await?;
        if slot >= instance.next {
            return Err(ProcessError::NoSlot(slot));
        }
        let partition = instance.partition;
        let value = self.inner.engine.look(move |look| record_of(look, partition, slot)).await??;
        if value.is_none() && slot < instance.kept_from {
            return Err(ProcessError::NoSlot(slot));
        }
        Ok(value.and_then(|value| read_record(&value)))
    }

    /// Waits until a slot is evaluated, or until a time; returns its record if it is.
    ///
    /// # Errors
    /// [`ProcessError::Command`].
    pub async fn wait_slot(
        &self,
        partition: PartitionNumber,
        slot: Sequence,
        patience: Duration,
    ) -> Result<Option<SlotRecord>, ProcessError> {
        let deadline = Deadline::after(&*self.inner.clock, patience);
        let seat = self.inner.board.sit(partition, slot);
        loop {
            let news = seat.notify.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let read = self.inner.engine.look(move |look| record_of(look, partition, slot));
            let record = read.await??.and_then(|value| read_record(&value));
            if record.is_some() || deadline.is_over() {
                return Ok(record);
            }
            deadline.rest(news).await;
        }
    }

    /// Messages of an instance as they stand in its log, evaluated or not, up to and without `to`.
    /// Waits for disks or networks.
    ///
    /// # Errors
    /// [`ProcessError::Command`]; [`ProcessError::Malformed`] where a message does not open.
    pub async fn schedule(
        &self,
        class: &QueueName,
        key: &PartitionName,
        instance: &InstanceShown,
        from: Sequence,
        to: Sequence,
    ) -> Result<Vec<Scheduled>, ProcessError> {
        let queue = self.inner.engine.catalog_now().find(class.as_str()).map(|queue| queue.id);
        let queue = queue.ok_or_else(|| ProcessError::NoClass(class.as_str().into()))?;
        let (key, partition) = (key.as_str().to_owned(), instance.partition);
        let messages = self.inner.read(queue, key, partition, from, to).await?;
        Ok(messages.into_iter().map(Scheduled::from).collect())
    }

    /// Records of slots from one on, as many as fit one answer, and the slot behind which there are more.
    /// Slots that are not evaluated have none.
    ///
    /// # Errors
    /// As [`Self::instance`].
    pub async fn slots_from(
        &self,
        instance: &InstanceShown,
        from: Sequence,
        limit: usize,
    ) -> Result<(Vec<(Sequence, SlotRecord)>, Option<Sequence>), ProcessError> {
        let ask = StateAsk {
            owner: RESULTS,
            partition: instance.partition,
            prefix: Bytes::new(),
            after: from.checked_sub(1).map(slot_key),
            rows_max: limit,
            bytes_max: PAGE_BYTES,
        };
        let page = self.page(ask).await?;
        let rows = page.rows.iter();
        let slots =
            rows.filter_map(|row| Some((read_slot_key(&row.key)?, read_record(&row.value)?)));
        Ok((slots.collect(), page.more_after.as_deref().and_then(read_slot_key)))
    }

    /// State keys of an instance in key order, as many as fit one answer.
    ///
    /// # Errors
    /// As [`Self::instance`].
    pub async fn state(
        &self,
        instance: &InstanceShown,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<StatePage, ProcessError> {
        let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let ask = StateAsk {
            owner: STATE,
            partition: instance.partition,
            prefix: copy(prefix),
            after: after.map(copy),
            rows_max: limit,
            bytes_max: PAGE_BYTES,
        };
        self.page(ask).await
    }

    /// One state key of an instance.
    ///
    /// # Errors
    /// As [`Self::instance`]; [`ProcessError::NoPath`] where there is none.
    pub async fn state_key(
        &self,
        instance: &InstanceShown,
        key: &str,
    ) -> Result<StateRow, ProcessError> {
        let (partition, name) = (instance.partition, Bytes::copy_from_slice(key.as_bytes()));
        let asked = self.inner.engine.look(move |look| values(look, STATE, partition, &[name]));
        let found = asked.await??.into_iter().next();
        let (key, value) = found.ok_or_else(|| ProcessError::NoPath(key.into()))?;
        Ok(StateRow { key, value, updated_ms: 0 })
    }

    async fn page(&self, ask: StateAsk) -> Result<StatePage, ProcessError> {
        Ok(self.inner.engine.look(move |look| page(look, &ask)).await??)
    }
}
