//! What the lane does while the store is away, or pushes are held back: they go to the failover log.
//! And when that is over: see `replay`.
//!
//! The store is *up* until an append fails. Then it is *suspect*: for a short time the lane goes on
//! trying, because most breaks are short. After that it is *down*: pushes are kept in the failover
//! log and answered from there, everything else is refused as retryable, and now and then somebody
//! looks whether the store is back. Called by the lane.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::qos::Qos;

use crate::base::files::Files;
use crate::base::place::{ShardCount, ShardId};
use crate::buffer::receipt::{Accepted, PushRefusal};
use crate::buffer::ring::{Pending, Ring};
use crate::failover::gate::Gate;
use crate::failover::quarantine::{Quarantine, SetAside};
use crate::failover::record::{Doubt, Spilled};
use crate::failover::{self, Spill, SpillError, Unkept};
use crate::journal::{self, RecoverError};
use crate::log::AppendError;
use crate::shard::command::CommandError;
use crate::shard::contact::{Contact, Settle};
use crate::shard::lane::{Lane, fail_command};
use crate::shard::replica::Replica;
use crate::shard::round::{Plan, Work};
use crate::state::effect::Origin;
use crate::telemetry::Telemetry;

/// How patient the lane is with its store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// How long a store that fails is tried again before it counts as down, milliseconds.
    pub suspect_ms: u64,
    /// How often a store that is down is looked for, milliseconds.
    pub probe_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { suspect_ms: 500, probe_ms: 100 }
    }
}

/// So many pauses between two looks at a store that is down are the longest one, and a store that fails
/// again within as many was not back.
const PAUSES_MAX: u64 = 50;

/// How often a store that is down is looked for. One that seems to be back and fails at once, again and
/// again, is looked for less and less often: each time costs those who wait for the commit that fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Pace {
    shortest_us: u64,
    pause_us: u64,
    /// When the store was back the last time, in the clock's microseconds.
    back_at_us: Option<u64>,
}

impl Pace {
    fn new(patience: Patience) -> Self {
        let shortest_us = patience.probe_ms * 1000;
        Self { shortest_us, pause_us: shortest_us, back_at_us: None }
    }

    /// The store failed.
    fn note_failure(&mut self, now_us: u64) {
        let longest_us = self.shortest_us * PAUSES_MAX;
        let was_back = self.back_at_us.is_none_or(|at_us| now_us > at_us + longest_us);
        self.pause_us = match was_back {
            true => self.shortest_us,
            false => (self.pause_us * 2).min(longest_us),
        };
    }

    fn note_back(&mut self, now_us: u64) {
        self.back_at_us = Some(now_us);
    }
}

/// Why there is no failover log to fall back on.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] RecoverError),
    /// Its folders could not be made or listed.
    #[error(transparent)]
    Disk(#[from] std::io::Error),
}

/// A failover log, and what an engine knows about it.
pub struct Standby {
    folder: Arc<dyn Files>,
    config: failover::Config,
    /// Made when it is first needed: most engines never do.
    pub(super) spill: Option<Spill>,
    quarantine: Quarantine,
    pub(super) gate: Gate,
    shards: ShardCount,
    patience: Patience,
    /// While the store is down: when to look for it, in the clock's microseconds.
    probe_at_us: Option<u64>,
    pace: Pace,
    /// Not before this time is anything pushed again.
    pub(super) replay_at_us: u64,
    /// Appends whose answer was lost, and whether they stand, where that is settled.
    pub(super) settled: HashMap<(u64, u64), bool>,
    /// Messages that wait, and batches that were set aside.
    pub(super) waiting: u64,
    quarantined: SetAside,
    /// Where the store was not met since the start: how that will be.
    pub(super) contact: Option<Contact>,
    /// The store that is reached now is another one than what waits is for.
    is_other: bool,
    /// Why what waits cannot be read on, if it cannot.
    unreadable: Option<String>,
}

impl Standby {
    /// Opens the failover log in the folder `name` of `files`, with everything that waits in it. What
    /// no shard takes goes into the folder `name-quarantine`. Waits for reading it.
    ///
    /// # Errors
    /// [`StandbyError`]; nothing was deleted.
    pub fn open(
        files: &dyn Files,
        name: &str,
        config: failover::Config,
        patience: Patience,
        replica: &Replica,
    ) -> Result<Self, StandbyError> {
        let folder: Arc<dyn Files> = files.folder(name)?;
        let quarantine = Quarantine::new(files.folder(&format!("{name}-quarantine"))?);
        let (mut gate, mut waiting) = (Gate::default(), 0);
        let mut kept = Ok(true);
        let spill = match folder.list()?.is_empty() {
            true => None,
            false => {
                Some(Spill::open(Arc::clone(&folder), config, &mut |found| match &found.batch {
                    Ok(spilled) => {
                        gate.close(replica.key().place(spilled.queue, spilled.partition.as_str()));
                        waiting += u64::from(spilled.push.batch.count());
                    }
                    // Perhaps nothing else waits, and nobody would come across it.
                    Err(error) if kept.is_ok() => {
                        let bytes = std::slice::from_ref(&found.bytes);
                        kept = quarantine.keep(found.position, bytes, &error.to_string());
                    }
                    Err(_) => {}
                })?)
            }
        };
        kept?;
        let quarantined = quarantine.tally()?;
        let (settled, probe_at_us, replay_at_us) = (HashMap::new(), None, 0);
        let pace = Pace::new(patience);
        Ok(Self {
            folder,
            config,
            spill,
            quarantine,
            gate,
            shards: replica.count(),
            patience,
            probe_at_us,
            pace,
            replay_at_us,
            settled,
            waiting,
            quarantined,
            contact: None,
            is_other: false,
            unreadable: None,
        })
    }

    fn write(&mut self, batches: &[Spilled]) -> Result<(), Unkept> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => {
                let made = Spill::open(Arc::clone(&self.folder), self.config, &mut |_| {});
                let failed = |error: RecoverError| SpillError::Failed(error.to_string());
                let unkept = |error| Unkept { kept: 0, doubtful: 0, error: failed(error) };
                let made = made.map_err(unkept)?;
                self.spill.insert(made)
            }
        };
        spill.write(batches).map(|_| ())
    }

    /// Sets a batch aside, durably.
    pub(super) fn quarantine(
        &mut self,
        telemetry: &Telemetry,
        (position, bytes): (u64, &Bytes),
        reason: &str,
    ) -> std::io::Result<()> {
        let is_new = self.quarantine.keep(position, std::slice::from_ref(bytes), reason)?;
        if is_new {
            self.quarantined.add(bytes, bytes.len() as u64);
        }
        self.show_set_aside(telemetry);
        tracing::error!(position, reason, "a batch of the failover log is set aside");
        Ok(())
    }

    /// Tells that what waits cannot be read on, which somebody has to see to, or that it can again.
    pub(super) fn note_unreadable(
        &mut self,
        telemetry: &Telemetry,
        problem: Option<&journal::ReadError>,
    ) {
        let problem = problem.map(ToString::to_string);
        if problem == self.unreadable {
            return;
        }
        telemetry.spill_unreadable.set(u64::from(problem.is_some()));
        if let Some(problem) = &problem {
            tracing::error!(problem, "the failover log cannot be read on; it is kept");
        }
        self.unreadable = problem;
    }

    /// Tells what an earlier run left: whoever looks after this machine must know of it before anything
    /// happens, and not only after.
    pub(super) fn tell(&self, telemetry: &Telemetry) {
        let (waiting, set_aside) = (self.waiting, self.quarantined.batches);
        telemetry.spill_waiting.set(waiting);
        self.show_set_aside(telemetry);
        if waiting > 0 {
            tracing::warn!(waiting, "messages of an earlier run wait in the failover log");
        }
        if set_aside > 0 {
            tracing::error!(set_aside, "batches of the failover log are set aside");
        }
        if self.probe_at_us.is_some() {
            telemetry.outages.add(1);
            telemetry.store_away.set(1);
            tracing::warn!("the store is away: pushes go to the failover log");
        }
    }

    /// Begins as down, for an engine that is started while its store is away and whose state is what
    /// its rows say. When the store is met, the state is built anew as at any start, `settle` is called
    /// with it, and only then is the store back. `settle` is called again later where it fails.
    #[must_use]
    pub fn away(self, settle: Settle) -> Self {
        Self { probe_at_us: Some(0), contact: Some(Contact::new(settle)), ..self }
    }

    fn show_set_aside(&self, telemetry: &Telemetry) {
        let SetAside { batches, buffered, bytes } = self.quarantined;
        telemetry.quarantined.set(batches);
        telemetry.quarantined_buffered.set(buffered);
        telemetry.quarantined_bytes.set(bytes);
    }

    /// The shards that it was opened for.
    #[must_use]
    pub fn shards(&self) -> ShardCount {
        self.shards
    }
}

/// The append that may have stored what is kept now.
#[derive(Debug)]
pub(super) struct Unknown {
    origin: Origin,
    heads: Vec<(ShardId, u64)>,
}

impl Unknown {
    pub(super) fn of(plan: &Plan) -> Self {
        let origin = plan.origin;
        let heads = plan.proposals.iter().map(|it| (it.shard, it.expected_head));
        Self { origin, heads: heads.collect() }
    }

    fn doubt(&self, shard: ShardId) -> Option<Doubt> {
        let (_, head) = self.heads.iter().find(|(it, _)| *it == shard)?;
        Some(Doubt { origin: self.origin, head: *head })
    }
}

impl Lane {
    /// Whether the store is down.
    pub(super) fn is_down(&self) -> bool {
        self.standby.as_ref().is_some_and(|standby| standby.probe_at_us.is_some())
    }

    /// How long a store that fails is tried again; `None` without anything to fall back on.
    pub(super) fn suspect_us(&self) -> Option<u64> {
        self.standby.as_ref().map(|standby| standby.patience.suspect_ms * 1000)
    }

    fn holds_back_pushes(&self) -> bool {
        self.replica.catalog.catalog().maintenance().push
    }

    /// Whether every push goes to the store, and none waits in the failover log to go before.
    pub(super) fn takes_all_pushes(&self) -> bool {
        let has_backlog = |standby: &Standby| {
            standby.probe_at_us.is_some() || !standby.gate.is_open() || self.holds_back_pushes()
        };
        !self.standby.as_ref().is_some_and(has_backlog)
    }

    /// When the lane should look after the failover log, in the clock's microseconds.
    pub(super) fn next_failover_us(&self) -> Option<u64> {
        let standby = self.standby.as_ref()?;
        let has_work = !standby.gate.is_open() && !self.holds_back_pushes();
        standby.probe_at_us.or(has_work.then_some(standby.replay_at_us))
    }

    /// Adds what waits to a commit, and takes out of it what has to wait.
    pub(super) fn go_round_the_store(&mut self, work: &mut Work) {
        if self.standby.is_none() {
            return;
        }
        if !self.is_down() && !self.holds_back_pushes() && self.stopping.is_none() {
            work.replay = self.next_replay();
            self.seal_replay(&mut work.replay);
        }
        self.divert(work);
    }

    /// Keeps what must not be committed now.
    pub(super) fn divert(&mut self, work: &mut Work) {
        let holds_all = self.is_down() || self.holds_back_pushes();
        let Some(standby) = &self.standby else { return };
        // What comes behind everything that waited needs not wait itself.
        if !holds_all && (standby.gate.is_open() || work.replay.is_last) {
            return;
        }
        let mut diverted = Vec::new();
        for (shard, rings) in &mut work.rings {
            let must = |ring: &mut Ring| holds_all || standby.gate.is_closed(ring.hash);
            let kept: Vec<Ring> = rings.extract_if(.., must).collect();
            if !kept.is_empty() {
                diverted.push((*shard, kept));
            }
        }
        work.rings.retain(|(_, rings)| !rings.is_empty());
        self.refuse_transactions(work, |hash| holds_all || standby.gate.is_closed(hash));
        self.keep(diverted, None);
    }

    /// Writes batches to the failover log and signs their receipts.
    pub(super) fn keep(&mut self, rings: Vec<(ShardId, Vec<Ring>)>, unknown: Option<&Unknown>) {
        if rings.is_empty() {
            return;
        }
        let is_store_away = self.is_down();
        let (time_ms, mut batches) = (self.now_ms(), Vec::new());
        for (shard, rings) in &rings {
            let doubt = unknown.and_then(|unknown| unknown.doubt(*shard));
            for ring in rings {
                for pending in &ring.pending {
                    let (queue, partition) = (ring.queue, ring.partition.clone());
                    let (qos, push) = (pending.qos, pending.push.clone());
                    batches.push(Spilled { queue, partition, qos, time_ms, doubt, push });
                }
            }
        }
        let Some(standby) = &mut self.standby else { return };
        let written = match standby.is_other {
            true => Err(Unkept { kept: 0, doubtful: 0, error: other_store() }),
            false => standby.write(&batches),
        };
        let (kept, doubtful) = match &written {
            Ok(()) => (batches.len(), 0),
            Err(unkept) => (unkept.kept, unkept.doubtful),
        };
        // What may come out of the log one day counts, whoever was promised it.
        let hashes = rings.iter().flat_map(|(_, rings)| rings);
        let hashes = hashes.flat_map(|ring| ring.pending.iter().map(|_| ring.hash));
        for (hash, batch) in hashes.zip(&batches).take(kept + doubtful) {
            standby.gate.close(hash);
            standby.waiting += u64::from(batch.push.batch.count());
        }
        self.telemetry.spill_waiting.set(standby.waiting);
        let mut returned = 0;
        let rings = rings.into_iter().flat_map(|(_, rings)| rings);
        let all = rings.flat_map(|ring| ring.pending.into_iter().map(move |it| (ring.queue, it)));
        for (at, (queue, pending)) in all.enumerate() {
            returned += pending.bytes();
            match &written {
                Err(unkept) if at >= kept => {
                    let may_stand = unknown.is_some() || at < kept + doubtful;
                    let error = refusal(&unkept.error, may_stand);
                    self.refuse(queue, pending, &PushRefusal::Append(error));
                }
                _ => self.sign_kept(pending, is_store_away),
            }
        }
        self.buffers.give_back(returned);
        if let Err(error) = written {
            tracing::error!(%error, "the failover log does not take pushes");
        }
    }

    fn sign_kept(&self, pending: Pending, is_store_away: bool) {
        let count = pending.push.batch.count();
        self.telemetry.spilled.add(u64::from(count));
        if pending.qos == Qos::Buffered {
            self.telemetry.buffered_flushed.add(u64::from(count));
        }
        if let Some(signer) = pending.signer {
            signer.sign(Ok(Accepted::Spilled { count, is_store_away }));
        }
    }

    /// The store did not take a commit: what it was to hold is kept, and it counts as down.
    pub(super) fn fall_back(&mut self, work: &mut Work, unknown: Option<&Unknown>) {
        self.put_back_replay(work);
        self.go_down();
        let rings = std::mem::take(&mut work.rings);
        self.keep(rings, unknown);
    }

    fn go_down(&mut self) {
        let now_us = self.clock.monotonic_us();
        let Some(standby) = &mut self.standby else { return };
        if standby.probe_at_us.is_none() {
            self.telemetry.outages.add(1);
            self.telemetry.store_away.set(1);
            standby.pace.note_failure(now_us);
            tracing::warn!("the store is away: pushes go to the failover log");
        }
        standby.probe_at_us = Some(now_us + standby.pace.pause_us);
    }

    /// Serves while the store is down; what needs it is refused.
    pub(super) fn serve_down(&mut self, mut work: Work) {
        self.take_own_commands(&mut work);
        let away = AppendError::Unavailable("the store is away".into());
        for command in work.commands {
            fail_command(command, &CommandError::Append(away.clone()));
        }
        self.replica.chores.extend(work.chores);
        let now_us = self.clock.monotonic_us();
        let is_due =
            self.standby.as_ref().and_then(|it| it.probe_at_us).is_some_and(|at| at <= now_us);
        if is_due && self.stopping.is_none() {
            self.look_for_store();
        }
    }

    fn look_for_store(&mut self) {
        let is_reached = self.log.is_reachable();
        let is_back =
            is_reached && self.has_met_store() && self.takes_appends() && self.follow_all().is_ok();
        let (now_us, is_other) = (self.clock.monotonic_us(), self.log.is_other());
        let Some(standby) = &mut self.standby else { return };
        standby.is_other = is_other;
        self.telemetry.store_other.set(u64::from(is_other));
        self.telemetry.store_taken_back.set(u64::from(self.log.is_taken_back()));
        if is_back {
            standby.probe_at_us = None;
            standby.replay_at_us = 0;
            standby.pace.note_back(now_us);
            self.failed_in_a_row = 0;
            self.telemetry.store_away.set(0);
            tracing::info!(waiting = standby.waiting, "the store is back");
        } else {
            standby.probe_at_us = Some(now_us + standby.pace.pause_us);
        }
    }

    /// Whether the store would take an append: one that can only be read is not back.
    fn takes_appends(&self) -> bool {
        match self.runtime.block_on(self.log.sync()) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "the store is reached, and takes nothing");
                false
            }
        }
    }
}

/// Why nothing is kept for a store that is not there any more.
fn other_store() -> SpillError {
    let reason = "the database holds another store than the one that this server works on; restart it \
                  to work on that one";
    SpillError::Failed(reason.into())
}

/// What a producer is told whose batch could not be kept.
fn refusal(error: &SpillError, may_stand: bool) -> AppendError {
    match error {
        _ if may_stand => AppendError::OutcomeUnknown,
        SpillError::Full { .. } | SpillError::DiskFull => AppendError::DiskFull,
        SpillError::Failed(reason) => AppendError::Poisoned(reason.clone()),
    }
}
