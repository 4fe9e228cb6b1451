//! What a step sends to processes goes on at once: its commit leases that to this engine, which has it in
//! memory. So a hop of a cascade costs one append and no pop.
//!
//! In: a step before it is committed, and what became of it. Out: messages to be evaluated, each with its
//! lease. Whatever is not handed over is work of its target as anything else: the shards know it, and a
//! consumer takes it. That is so where the target has other things to do first, where it is new, and
//! where nobody has a place of the work list to spare: whoever waits for one comes before.

use std::sync::Arc;

use onrush_protocol::name::QueueName;

use crate::base::place::QueueId;
use crate::delivery::Handout;
use crate::delivery::parcel::{Delivered, Package};
use crate::process::Inner;
use crate::process::commit::{Settled, StepError};
use crate::process::evaluate::Job;
use crate::process::incoming::Incoming;
use crate::process::lot::Lot;
use crate::process::outgoing::Outgoing;
use crate::process::places::Seat;
use crate::process::step::Step;
use crate::shard::command::{Command, GiveBack};
use crate::shard::transaction::Committed;
use crate::state::draft::push::Pushed;

/// Targets that a step hands over to, at most: to many, one pop gives more at a time.
const TARGETS_MAX: usize = 8;

/// What a step would hand over: its batches by their index, each with the place that its target gets;
/// none where that is the instance itself, which has one.
struct Offers(Vec<(usize, Option<Seat>)>);

/// Messages that a step sent and that this engine holds by now.
#[derive(Default)]
pub(super) struct Handed {
    /// To the instance itself: the next ones, under a lease of their own.
    pub(super) own: Option<(Vec<Incoming>, Lot)>,
    /// To others.
    others: Vec<(QueueId, Handout, Seat)>,
}

impl Inner {
    /// Commits a step as [`Self::commit`] does, and takes over what it sends as far as that is ours to
    /// evaluate. `lot` is what the instance is held by, and `is_last` says that it has nothing else to do.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(super) async fn commit_and_take(
        &self,
        job: &Job,
        lot: &Lot,
        settled: Settled,
        step: &mut Step,
        is_last: bool,
    ) -> Result<(Committed, Handed), StepError> {
        if step.wipes && !self.wipe(job.partition, lot.token).await {
            return Err(StepError::Gone);
        }
        let offers = self.offer_on(job, step, is_last.then_some(lot));
        let began_us = self.clock.monotonic_us();
        let committed = match self.commit(Some(settled), step).await {
            Ok(committed) => committed,
            Err(StepError::Gone) => {
                self.let_go_of_claims(step).await;
                return Err(StepError::Gone);
            }
            Err(error) => return Err(error),
        };
        let handed = handed(lot, step, offers, &committed);
        let counts = &self.engine.telemetry().processes;
        counts.commit.record(self.clock.monotonic_us().saturating_sub(began_us), 1);
        counts.handed_on.add(committed.claims.iter().flatten().count() as u64);
        Ok((committed, handed))
    }

    /// Asks for what a step sends to processes that are evaluated by themselves. `lot` is the instance's
    /// own where it may go on with what it sends to itself.
    fn offer_on(&self, job: &Job, step: &mut Step, lot: Option<&Lot>) -> Offers {
        let (mut offers, mut refused) = (Vec::new(), 0);
        if self.is_stopping() {
            return Offers(offers);
        }
        for (at, outgoing) in step.outgoing.iter_mut().enumerate() {
            if offers.len() == TARGETS_MAX || refused == TARGETS_MAX {
                break;
            }
            if !outgoing.is_auto {
                continue;
            }
            let place = match is_own(job, outgoing) {
                true if lot.is_some_and(Lot::may_go_on) => None,
                true => continue,
                false => match self.places.try_take(outgoing.queue.id) {
                    Some(place) => Some(place),
                    None => {
                        // Other classes may have a place.
                        refused += 1;
                        continue;
                    }
                },
            };
            outgoing.claim = Some(self.delivery.token());
            offers.push((at, place));
        }
        Offers(offers)
    }

    /// Gives back what a step was to hand over to us, for it may stand: an answer that was lost is
    /// followed by a refusal. Where it does not, nobody has these leases.
    async fn let_go_of_claims(&self, step: &Step) {
        for outgoing in &step.outgoing {
            let Some(token) = outgoing.claim else { continue };
            let number = self.number(&outgoing.queue.name, &outgoing.partition).await;
            if let Ok(Some(partition)) = number {
                self.engine.submit(Command::GiveBack(GiveBack { token, partition, from: 0 }));
            }
        }
    }

    /// Begins to evaluate what others were sent.
    pub(super) fn begin_others(self: &Arc<Self>, handed: Handed) {
        for (queue, handout, place) in handed.others {
            self.begin(queue, handout, Some(place));
        }
    }
}

fn is_own(job: &Job, outgoing: &Outgoing) -> bool {
    outgoing.queue.id == job.queue && outgoing.partition == job.key
}

/// What of it is ours by now. `lot` is the one that the step was made under.
fn handed(lot: &Lot, step: &Step, offers: Offers, committed: &Committed) -> Handed {
    let mut handed = Handed::default();
    for (at, place) in offers.0 {
        let (Some(outgoing), Some(stored)) = (step.outgoing.get(at), committed.appends.get(at))
        else {
            continue;
        };
        let Some(until_ms) = committed.claims.get(at).copied().flatten() else { continue };
        let Pushed::Stored { first_seq, time_ms, .. } = stored.pushed else { continue };
        let Some(token) = outgoing.claim else { continue };
        let (partition, batch) = (stored.partition, outgoing.batch.clone());
        let delivered = Delivered { first_seq, time_ms, sub: None, batch };
        let Some(place) = place else {
            let incoming = Incoming::of_batch(partition, &delivered).collect();
            handed.own = Some((incoming, lot.next(token, until_ms)));
            continue;
        };
        let Ok(queue) = outgoing.queue.name.parse::<QueueName>() else { continue };
        let (name, attempts) = (outgoing.partition.clone(), Vec::new());
        let packages = vec![Package { partition, name, attempts, batches: vec![delivered] }];
        let handout = Handout { queue, token, until_ms, empty: None, packages };
        handed.others.push((outgoing.queue.id, handout, place));
    }
    handed
}
