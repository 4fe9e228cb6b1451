//! Committing a step: one transaction, offered until it is known what became of it.
//!
//! The lease on the instance is the fence: a step of whoever lost it is refused as a whole, because
//! its slots are not his to settle. An answer that was lost is asked for again by offering the same
//! step: if it stands, its slots are settled, and nobody else can have settled them under this lease.

use std::time::Duration;

use onrush_protocol::name::{GroupName, PartitionName};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::base::place::{PartitionNumber, QueueId};
use crate::log::AppendError;
use crate::process::faults::{Place, cross};
use crate::process::outgoing::Outgoing;
use crate::process::step::Step;
use crate::process::{Inner, ProcessError};
use crate::shard::command::{Command, CommandError};
use crate::shard::transaction::{
    Committed, HandOver, OnDuplicate, Reach, Refusal, Transaction, TransactionAck,
    TransactionAppend,
};
use crate::state::catalog::QueueDefinition;
use crate::state::draft::DecideError;
use crate::state::draft::ack::{AckItem, Verdict};
use crate::state::effect::{LeaseToken, Sequence};
use crate::state::tally::Tally;

/// The group in whose name instances are evaluated.
pub(super) const GROUP: &str = crate::state::classes::OWN_NAME;
/// Pause before a step is offered again, at first and at most, milliseconds.
pub(super) const PAUSE_MS: u64 = 5;
pub(super) const PAUSE_MS_MAX: u64 = 500;

/// What a step settles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) partition: PartitionNumber,
    pub(super) token: LeaseToken,
    pub(super) first: Sequence,
    pub(super) last: Sequence,
}

/// Why a step does not stand.
#[derive(Debug)]
pub(super) enum StepError {
    /// It is not ours to take any more, or its partition is gone; or it stands, and its answer was
    /// lost. Either way the store knows what comes next.
    Gone,
    /// A cascade does not allow what was to be counted: which of the changes, and how it stands.
    Tally(usize, Tally),
    /// A target is gone since it was found: the step is to be made again.
    Again,
    /// A target takes nothing now, and why: the step is to be made without it.
    Closed((QueueId, PartitionName), ProcessError),
    /// A plain queue among the targets has no room now.
    Full(DecideError),
    /// It settles nothing, and was not carried out, or perhaps was.
    Later(CommandError),
}

impl Inner {
    /// Commits a step. Waits for a commit; and where it settles something, for as long as the store is
    /// away.
    ///
    /// # Errors
    /// [`StepError`]: nothing of it stands, but for what [`StepError::Gone`] and [`StepError::Later`]
    /// say.
    pub(super) async fn commit(
        &self,
        settled: Option<Settled>,
        step: &Step,
    ) -> Result<Committed, StepError> {
        let mut appends = Vec::with_capacity(step.outgoing.len());
        for outgoing in &step.outgoing {
            appends.push(self.place(outgoing)?);
        }
        let mut pause_ms = PAUSE_MS;
        loop {
            let refusal = match self.offer(settled, step, appends.clone()).await {
                Ok(Ok(committed)) => return Ok(committed),
                Ok(Err(refusal)) => refusal,
                Err(CommandError::ShuttingDown) if settled.is_some() => {
                    return Err(StepError::Gone);
                }
                Err(CommandError::Append(AppendError::Poisoned(_))) if settled.is_some() => {
                    return Err(StepError::Gone);
                }
                Err(error) if settled.is_none() => return Err(StepError::Later(error)),
                Err(error) => {
                    tracing::debug!(%error, "a step of a process is offered again");
                    self.keep(settled).await;
                    sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (2 * pause_ms).min(PAUSE_MS_MAX);
                    continue;
                }
            };
            return Err(match refusal {
                Refusal::Tally { index, tally } => StepError::Tally(index, tally),
                Refusal::Append {
                    error: DecideError::QueueGone | DecideError::NotSealed, ..
                } => StepError::Again,
                Refusal::Append { index, error: DecideError::Backlog { waiting } } => {
                    let Some(Outgoing { queue, partition, .. }) = step.outgoing.get(index) else {
                        return Err(StepError::Gone);
                    };
                    let place = (queue.id, partition.clone());
                    StepError::Closed(place, ProcessError::Backlog(waiting))
                }
                Refusal::Append { error: error @ DecideError::QueueFull { .. }, .. } => {
                    StepError::Full(error)
                }
                refusal => {
                    tracing::debug!(%refusal, "a step of a process is not ours any more");
                    StepError::Gone
                }
            });
        }
    }

    fn place(&self, outgoing: &Outgoing) -> Result<TransactionAppend, StepError> {
        let Outgoing { queue, partition, batch, .. } = outgoing;
        let placed = self.ingest.admit_own(queue, partition.clone(), batch.clone());
        let backlog_max = self.backlog_max(queue);
        let lease_ms = self.config.lease_ms;
        let claim = outgoing.claim.map(|token| HandOver { group: group(), token, lease_ms });
        let append = placed.map(|placed| TransactionAppend { backlog_max, claim, ..placed.into() });
        append.map_err(|error| {
            // Nothing is stored in clear where encryption was asked for.
            tracing::debug!(queue = %queue.name, %error, "a process cannot send to a queue");
            StepError::Closed((queue.id, partition.clone()), error.into())
        })
    }

    /// Messages that may wait in a process of a class; 0 where the queue is none.
    fn backlog_max(&self, queue: &QueueDefinition) -> u64 {
        let catalog = self.engine.catalog_now();
        let newest = catalog.class(queue.id).and_then(|class| class.newest());
        let code = newest.and_then(|newest| self.modules.get(queue.id, &queue.name, newest).ok());
        code.map_or(0, |code| code.definition.limits.backlog_hard)
    }

    async fn offer(
        &self,
        settled: Option<Settled>,
        step: &Step,
        appends: Vec<TransactionAppend>,
    ) -> Result<Result<Committed, Refusal>, CommandError> {
        let acks = settled.map(|settled| TransactionAck {
            group: group(),
            token: Some(settled.token),
            partition: settled.partition,
            item: AckItem {
                first: settled.first,
                last: settled.last,
                verdict: Verdict::Completed,
                error: Box::default(),
            },
            reach: Reach::Named,
        });
        let (reply, answer) = oneshot::channel();
        let whole = Transaction {
            leases: step.leases.clone(),
            acks: acks.into_iter().collect(),
            states: step.states.clone(),
            appends,
            notes: step.notes.clone(),
            on_duplicate: OnDuplicate::Report,
            reply,
        };
        let bytes = whole.bytes();
        let Ok(_room) = self.ingest.reserve(bytes).await else {
            let why = "no room in memory".to_owned();
            return Err(CommandError::Append(AppendError::Unavailable(why)));
        };
        self.engine.submit(Command::Transact(Box::new(whole)));
        cross(Place::Committing);
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// Keeps the lease while something else is waited for.
    async fn keep(&self, settled: Option<Settled>) {
        if let Some(settled) = settled {
            // If it is lost, the next offer is refused.
            let _ = self.delivery.extend(settled.token, self.config.lease_ms).await;
        }
    }
}

/// [`GROUP`], as a name.
pub(super) fn group() -> GroupName {
    GROUP.parse().unwrap_or_default()
}
