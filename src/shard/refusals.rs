//! What the log did not take: refused, held where it was answered already, or kept in the failover log.
//!
//! In: work that no commit holds, and why. Out: answers, and what the next commit is to take again.
//! Called by the lane.

use std::time::Duration;

use crate::base::place::{QueueId, ShardId};
use crate::buffer::receipt::PushRefusal;
use crate::buffer::ring::{Pending, Ring};
use crate::log::AppendError;
use crate::shard::account::PushLedger;
use crate::shard::command::{Command, CommandError};
use crate::shard::failover::Unknown;
use crate::shard::lane::{Lane, fail_command};
use crate::shard::round::Work;

impl Lane {
    /// As [`Self::fail`].
    ///
    /// # Errors
    /// The refusal itself, always.
    pub(super) fn refuse_all(&mut self, work: Work, error: AppendError) -> Result<(), AppendError> {
        self.fail(work, &error, None);
        Err(error)
    }

    /// Answers everything with the log's refusal. QoS 0 batches have their answer already: they
    /// are held and tried again, unless the log is gone for good.
    pub(super) fn fail(&mut self, mut work: Work, error: &AppendError, unknown: Option<&Unknown>) {
        self.telemetry.commit_failed.add(1);
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        let is_away = matches!(error, AppendError::Unavailable(_) | AppendError::OutcomeUnknown);
        match is_away && self.standby.is_some() && !self.poisoned {
            true => self.fall_back(&mut work, unknown),
            false if !work.replay.items.is_empty() => self.postpone_replay(&mut work),
            false => {}
        }
        let is_final = self.poisoned || matches!(error, AppendError::TooLarge { .. });
        let refusal = PushRefusal::Append(error.clone());
        let held = self.refuse_rings(work.rings, &refusal, is_final);
        self.held.extend(held);
        let refusal = CommandError::Append(error.clone());
        let mut queues = Vec::new();
        for command in work.commands {
            if let Command::Pop(pop) = &command {
                queues.push(pop.queue.clone());
            }
            fail_command(command, &refusal);
        }
        // They were woken for work that they did not get: it is the next one's turn.
        for queue in queues {
            self.wake_name(&queue);
        }
        self.replica.chores.extend(work.chores);
        let is_pressed =
            !self.held.is_empty() || !self.replica.chores.is_empty() || self.timer_due();
        if is_pressed && !self.is_down() {
            // Nothing else paces the next try.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Signs refusals; returns what is to be held where that is not final.
    fn refuse_rings(
        &mut self,
        rings: Vec<(ShardId, Vec<Ring>)>,
        refusal: &PushRefusal,
        is_final: bool,
    ) -> Vec<(ShardId, Vec<Ring>)> {
        let (mut returned, mut kept) = (0, Vec::new());
        for (shard, rings) in rings {
            let mut held = Vec::new();
            for mut ring in rings {
                let refused = ring.take_where(|it| it.signer.is_some() || is_final);
                for pending in refused {
                    returned += pending.bytes();
                    self.refuse(ring.queue, pending, refusal);
                }
                if !ring.pending.is_empty() {
                    held.push(ring);
                }
            }
            if !held.is_empty() {
                kept.push((shard, held));
            }
        }
        self.buffers.give_back(returned);
        kept
    }

    /// Refuses what the log never took, so that the engine can stop.
    pub(super) fn give_up(&mut self, mut work: Work) {
        self.take_own_commands(&mut work);
        let lost = self.telemetry.buffered_lost.get();
        self.refuse_rings(work.rings, &PushRefusal::ShuttingDown, true);
        let lost = self.telemetry.buffered_lost.get() - lost;
        if lost > 0 {
            tracing::error!(lost, "buffered messages were lost: the log did not take them");
        }
        for command in work.commands {
            fail_command(command, &CommandError::ShuttingDown);
        }
    }

    pub(super) fn refuse(&self, queue: QueueId, pending: Pending, refusal: &PushRefusal) {
        let count = u64::from(pending.push.batch.count());
        self.telemetry.push_failed.add(count);
        let mut ledger = PushLedger::default();
        let what = (pending.qos, pending.push.batch.count());
        ledger.add(&self.telemetry, queue, what, &Err(refusal.clone()));
        ledger.close(&self.telemetry);
        match pending.signer {
            Some(signer) => signer.sign(Err(refusal.clone())),
            None => self.telemetry.buffered_lost.add(count),
        }
    }
}
