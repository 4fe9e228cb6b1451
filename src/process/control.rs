//! What is done to a process beside its messages: a slot is passed over, all state is taken away.
//!
//! A reset is a message of its own, so that it has a definite place among the others, is carried out by
//! whoever holds the instance, and comes again after a crash until it is done. In: a process and what is
//! wanted. Out: that it is durable; what became of it, the slot says. Called by `wire`.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::BatchBuilder;
use onrush_protocol::name::{PartitionName, QueueName};
use serde::Serialize;

use crate::base::place::PartitionNumber;
use crate::ingest::PushError;
use crate::process::commit::StepError;
use crate::process::envelope::Envelope;
use crate::process::instance::{READ_BYTES, SKIPS_MAX, page, skips_of};
use crate::process::keys::{Address, META, PASSED, STATE, STATE_BYTES, STOPPED, skip_key};
use crate::process::letters::Fate;
use crate::process::outgoing::{Outgoing, Parts};
use crate::process::push::address_of;
use crate::process::record::SlotStatus;
use crate::process::step::Step;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::command::CommandError;
use crate::shard::transaction::{PlaceNote, StateChanges, StateOwner};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::{LeaseToken, OwnerId, Sequence};
use crate::state::states::StateAsk;

/// State keys that are taken away in one transaction.
const WIPED: usize = 1_000;

/// What becomes of messages that wait when a process is reset.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pending {
    /// They are evaluated first, on the state that is there.
    #[default]
    Evaluate,
    /// They are passed over.
    Skip,
}

/// A slot that was to be passed over, as it stood right after.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Skip {
    /// The slot.
    pub slot: Sequence,
    /// What became of it; `None` while its turn has not come. Its evaluation may have begun before:
    /// then it is what came of that.
    pub status: Option<SlotStatus>,
}

impl Processes {
    /// Lets a message that waits be passed over when its turn comes: its slot is `skipped`, and its code
    /// never sees it. Answers when that is durable.
    ///
    /// # Errors
    /// [`ProcessError::NoProcess`], [`ProcessError::NoSlot`]; [`ProcessError::Evaluated`] where it is too
    /// late; [`ProcessError::Control`] where too many slots wait to be passed over.
    pub async fn skip_slot(
        &self,
        class: &QueueName,
        key: &PartitionName,
        slot: Sequence,
    ) -> Result<Skip, ProcessError> {
        let shown = self.instance(class, key).await?;
        match slot {
            slot if slot >= shown.next => return Err(ProcessError::NoSlot(slot)),
            slot if slot < shown.done => return Err(ProcessError::Evaluated(slot)),
            _ => {}
        }
        let (inner, partition) = (&self.inner, shown.partition);
        let waiting = inner.engine.look(move |look| page(look, &skips_of(partition))).await??;
        if waiting.rows.len() >= SKIPS_MAX {
            let why = format!("{SKIPS_MAX} slots of the process wait to be passed over");
            return Err(ProcessError::Control(why));
        }
        let key_of_it = skip_key(slot);
        let put = StateOp::Put { key: key_of_it.clone(), value: Bytes::from_static(b"1") };
        inner.change_meta(class, partition, put).await?;
        inner.look_again(partition);
        let status = self.slot(class, key, slot).await?.map(|record| record.status);
        if status.is_some_and(|status| status != SlotStatus::Skipped) {
            let remove = StateOp::Remove { key: key_of_it };
            inner.change_meta(class, partition, remove).await?;
        }
        Ok(Skip { slot, status })
    }

    /// Lets a process begin anew: all its state goes, and its next message finds it as one that was just
    /// made. What it did stays done, and its slots go on counting. A process that is stopped goes on.
    /// Answers when that is durable; returns the slot at which it takes effect.
    ///
    /// # Errors
    /// [`ProcessError::NoClass`], [`ProcessError::NoProcess`], [`ProcessError::Command`].
    pub async fn reset(
        &self,
        class: &QueueName,
        key: &PartitionName,
        pending: Pending,
    ) -> Result<Address, ProcessError> {
        let shown = self.instance(class, key).await?;
        let (inner, partition) = (&self.inner, shown.partition);
        let queue = inner.catalogs.find(class);
        let queue = queue.ok_or_else(|| ProcessError::NoClass(class.as_str().into()))?;
        let envelope = Envelope { resets: true, ..Envelope::default() }.write();
        let id = format!("reset:{}:{}", shown.next, inner.clock.now_ms());
        let mut builder = BatchBuilder::new();
        let payload = br#"{"type":"Reset"}"#;
        let parts = Parts { id: &id, envelope: Some(&envelope), payload, trace_id: None };
        parts.put(&mut builder).map_err(PushError::from)?;
        let batch = builder.finish().map(|batch| {
            let (queue, partition) = (Arc::clone(&queue), key.clone());
            Outgoing { queue, partition, batch, runs: false, is_auto: false, claim: None }
        });
        let mut step = Step::default();
        step.outgoing.extend(batch);
        step.states.push(meta(partition, StateOp::Remove { key: Bytes::from_static(STOPPED) }));
        if pending == Pending::Skip {
            let key = Bytes::from_static(PASSED);
            let partition = Some(partition);
            step.notes.push(PlaceNote { append: 0, record: 0, owner: META, partition, key });
        }
        let committed = match inner.commit(None, &step).await {
            Ok(committed) => committed,
            Err(StepError::Full(error)) => return Err(CommandError::Decide(error).into()),
            Err(StepError::Closed(_, error)) => return Err(error),
            Err(StepError::Later(error)) => return Err(error.into()),
            Err(StepError::Gone | StepError::Again | StepError::Tally(..)) => {
                return Err(ProcessError::NoProcess(format!("{class}/{key}")));
            }
        };
        inner.look_again(partition);
        inner.tell(&step, &committed);
        let stored = committed.appends.first().and_then(address_of);
        stored.ok_or(ProcessError::Command(CommandError::ShuttingDown))
    }
}

impl Inner {
    /// Changes what the room knows of an instance. Waits for a commit.
    ///
    /// # Errors
    /// [`ProcessError::NoProcess`].
    pub(super) async fn change_meta(
        &self,
        class: &QueueName,
        partition: PartitionNumber,
        op: StateOp,
    ) -> Result<(), ProcessError> {
        let step = Step { states: vec![meta(partition, op)], ..Step::default() };
        match self.carry_out(&step).await? {
            Fate::Sent => Ok(()),
            Fate::NoTarget | Fate::Taken => Err(ProcessError::NoProcess(class.as_str().into())),
        }
    }

    /// What is known here of an instance does not hold any more: whoever evaluates it looks again before
    /// its next step.
    pub(super) fn look_again(&self, partition: PartitionNumber) {
        self.cache.forget(partition);
        self.stops.lock().insert(partition);
        self.resumed.notify_waiters();
    }

    /// Takes all state keys of an instance away, as long as the lease on it lives. Waits for commits.
    /// Returns whether all are gone.
    pub(super) async fn wipe(&self, partition: PartitionNumber, lease: LeaseToken) -> bool {
        let mut after = None;
        loop {
            let _ = self.delivery.extend(lease, self.config.lease_ms).await;
            let ask = StateAsk {
                owner: STATE,
                partition,
                prefix: Bytes::new(),
                after,
                rows_max: WIPED,
                bytes_max: READ_BYTES,
            };
            let Ok(Ok(rows)) = self.engine.look(move |look| page(look, &ask)).await else {
                return false;
            };
            if rows.rows.is_empty() {
                return true;
            }
            // While the lease lives nobody writes before it, and what was removed is not passed again.
            after = rows.more_after;
            let keys = rows.rows.into_iter().map(|row| StateOp::Remove { key: row.key });
            let size = StateOp::Remove { key: Bytes::from_static(STATE_BYTES) };
            let states = vec![changes(STATE, partition, keys.collect()), meta(partition, size)];
            let step = Step { leases: vec![lease], states, ..Step::default() };
            if self.commit(None, &step).await.is_err() {
                return false;
            }
            if after.is_none() {
                return true;
            }
        }
    }
}

fn meta(partition: PartitionNumber, op: StateOp) -> StateChanges {
    changes(META, partition, vec![op])
}

/// Changes of keys beside an instance that is there.
pub(super) fn changes(
    owner: OwnerId,
    partition: PartitionNumber,
    ops: Vec<StateOp>,
) -> StateChanges {
    StateChanges { owner: StateOwner::Number(owner), partition, ops, may_miss: false }
}
