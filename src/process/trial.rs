//! Evaluating without committing: what a message would come to now.
//!
//! In: a message, and an instance as the store has it. Out: what its slot would be, and what it would
//! write and send. The instance goes on meanwhile: of one with more state than is read at once, later
//! keys may be newer. Called by `wire`; `verify` evaluates in the same way.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::name::{PartitionName, QueueName};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::base::place::PartitionNumber;
use crate::process::codec::Codec;
use crate::process::definition::Create;
use crate::process::envelope::Envelope;
use crate::process::evaluate::{Evaluated, Job, raw};
use crate::process::incoming::Incoming;
use crate::process::instance::Instance;
use crate::process::keys::Address;
use crate::process::push::look_at;
use crate::process::record::{Fault, SlotStatus};
use crate::process::runtime::OutboxEntry;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::command::CommandError;
use crate::state::effect::{ProducerSub, Sequence};

/// The number that an instance has which is not made yet: no partition ever gets it.
const NO_PARTITION: PartitionNumber = PartitionNumber::MAX;

/// What a message would come to.
#[derive(Debug, Serialize)]
pub struct Trial {
    /// The process.
    pub process: String,
    /// The slot that the message would have, if it were the next.
    pub slot: Sequence,
    /// How that would end.
    pub status: SlotStatus,
    /// The version of the class that evaluated it.
    pub version: u32,
    /// What its code returned.
    pub output: Option<Box<RawValue>>,
    /// Whether that is only a part of it.
    pub output_truncated: bool,
    /// What it printed.
    pub printed: Box<str>,
    /// Whether that is only a part of it.
    pub printed_truncated: bool,
    /// Why it failed.
    pub error: Option<Fault>,
    /// Steps that it took.
    pub fuel: u64,
    /// Microseconds that it took.
    pub took_us: u64,
    /// What it would send, as it said so.
    pub outbox: Vec<TrialEntry>,
    /// State keys that it would write, in their order.
    pub state: Vec<TrialKey>,
}

/// A message that would be sent.
#[derive(Debug, Serialize)]
pub struct TrialEntry {
    /// Its place, from 1.
    pub index: u32,
    /// Where to.
    pub target: Option<String>,
    /// What it says.
    pub message: Option<Box<RawValue>>,
    /// How much later, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// A state key that would be written.
#[derive(Debug, Serialize)]
pub struct TrialKey {
    /// The key.
    pub key: Box<str>,
    /// Its value; `None` where it would be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
    /// Whether it would be removed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

impl Processes {
    /// Evaluates a message on the state that a process has now, and commits nothing: no slot, no state, no
    /// messages. Messages that wait are not evaluated before it. A process that is not there yet is
    /// evaluated as a new one, unless its class makes none from a message. Waits for a place among those
    /// who evaluate, and for as long as the class allows one slot.
    ///
    /// # Errors
    /// As a push: [`ProcessError::NoClass`], [`ProcessError::NoProcess`], [`ProcessError::NotAccepted`],
    /// [`ProcessError::Malformed`], [`ProcessError::Reserved`]; [`ProcessError::Command`] where state
    /// cannot be read.
    pub async fn dry_run(
        &self,
        class: &QueueName,
        key: &PartitionName,
        message: Bytes,
        sub: Option<ProducerSub>,
    ) -> Result<Trial, ProcessError> {
        let inner = &self.inner;
        let (queue, code) = inner.newest(class)?;
        let from = format!("client:{}", sub.as_ref().map_or("", ProducerSub::as_str));
        if !code.definition.accepts(&from) {
            return Err(ProcessError::NotAccepted(from));
        }
        let kind = look_at(&message)?;
        let defines = kind.defines();
        if !defines && !code.definition.codecs.contains(&Codec::Json) {
            return Err(ProcessError::Codec);
        }
        let spawn = kind.init.filter(|_| defines);
        let envelope = Envelope { spawn, defines, ..Envelope::default() };
        let (partition, slot, instance) = match self.inner.instance(class.as_str(), key).await? {
            Some(shown) => {
                let partition = shown.partition;
                (partition, shown.next, Instance::load(&inner.engine, partition, shown.done).await?)
            }
            None if code.definition.create == Create::Explicit && !defines => {
                return Err(ProcessError::NoProcess(format!("{class}/{key}")));
            }
            None => (NO_PARTITION, 0, Instance::fresh()),
        };
        let gone = || ProcessError::Command(CommandError::ShuttingDown);
        let job = inner.job(queue.id, partition, key.clone()).ok_or_else(gone)?;
        // The newest code holds for what comes now, whatever the clock here says.
        let since_ms = job.versions.newest().map_or(0, |newest| newest.since_ms);
        let address = Address { partition, seq: slot, time_ms: inner.clock.now_ms().max(since_ms) };
        let incoming = Incoming {
            address,
            root: address,
            from: from.into(),
            transaction_id: None,
            trace_id: None,
            payload: message,
            is_json: true,
            envelope,
        };
        let process = job.name();
        let job = Arc::new(job);
        let (.., evaluated) =
            inner.try_out(&job, instance, vec![incoming]).await.ok_or_else(gone)?;
        told(process, slot, evaluated).ok_or_else(gone)
    }
}

impl Inner {
    /// Evaluates slots, as many as a step takes, on a copy of an instance. `None` when the server stops.
    pub(super) async fn try_out(
        &self,
        job: &Arc<Job>,
        mut instance: Instance,
        incoming: Vec<Incoming>,
    ) -> Option<(Instance, Vec<Incoming>, Evaluated)> {
        let mut turn = self.turns.take(job.queue, &job.fetch.waited_us).await?;
        let job = Arc::clone(job);
        let evaluating = tokio::task::spawn_blocking(move || {
            let evaluated = job.evaluate(&mut instance, &incoming, &HashSet::new());
            (instance, incoming, evaluated)
        });
        turn.run(evaluating).await.ok()
    }
}

fn told(process: String, slot: Sequence, evaluated: Evaluated) -> Option<Trial> {
    let done = evaluated.done.into_iter().next()?;
    let record = done.record;
    let state = evaluated.dirty.into_iter().map(|(key, value)| TrialKey {
        removed: value.is_none(),
        value: value.and_then(|value| raw(&value)),
        key,
    });
    Some(Trial {
        process,
        slot,
        status: record.status,
        version: record.version,
        output: record.output,
        output_truncated: record.output_truncated,
        printed: record.printed,
        printed_truncated: record.printed_truncated,
        error: record.error,
        fuel: record.fuel,
        took_us: record.took_us,
        outbox: (1..).zip(done.outbox).map(entry).collect(),
        state: state.collect(),
    })
}

fn entry((index, sent): (u32, OutboxEntry)) -> TrialEntry {
    let OutboxEntry { target, payload, delay_ms, .. } = sent;
    TrialEntry { index, target, message: raw(&payload), delay_ms }
}
