//! What the lane does while the store is away, or pushes are held back: they go to the failover log.
//! And when that is over: they are pushed again, in order, before what came later.
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
use crate::journal::RecoverError;
use crate::log::{AppendError, ReadError};
use crate::shard::account;
use crate::shard::command::CommandError;
use crate::shard::contact::{Contact, Settle};
use crate::shard::lane::{Lane, fail_command};
use crate::shard::replica::Replica;
use crate::shard::round::{Plan, Replay, ReplayItem, Replayed, Work};
use crate::state::codec;
use crate::state::effect::Origin;
use crate::telemetry::Telemetry;

/// Bytes of batches that one commit takes from the failover log, beside what is new.
const REPLAY_BYTES: usize = 8 << 20;
/// Bytes of entries that are read at a time to look for an append.
const READ_BYTES: usize = 4 << 20;
/// Pause after a batch could not be pushed again, microseconds.
const PAUSE_US: u64 = 1_000_000;

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
    spill: Option<Spill>,
    quarantine: Quarantine,
    gate: Gate,
    shards: ShardCount,
    patience: Patience,
    /// While the store is down: when to look for it, in the clock's microseconds.
    probe_at_us: Option<u64>,
    /// Not before this time is anything pushed again.
    replay_at_us: u64,
    /// Appends whose answer was lost, and whether they stand, where that is settled.
    settled: HashMap<(u64, u64), bool>,
    /// Messages that wait, and batches that were set aside.
    waiting: u64,
    quarantined: SetAside,
    /// Where the store was not met since the start: how that will be.
    pub(super) contact: Option<Contact>,
    /// The store that is reached now is another one than what waits is for.
    is_other: bool,
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
        Ok(Self {
            folder,
            config,
            spill,
            quarantine,
            gate,
            shards: replica.count(),
            patience,
            probe_at_us,
            replay_at_us,
            settled,
            waiting,
            quarantined,
            contact: None,
            is_other: false,
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
    fn quarantine(
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

    /// The next batches that wait.
    fn next_replay(&mut self) -> Replay {
        let now_us = self.clock.monotonic_us();
        let (count, key) = (self.replica.count(), self.replica.key());
        let Some(standby) = &mut self.standby else { return Replay::default() };
        if standby.gate.is_open() || standby.replay_at_us > now_us {
            return Replay::default();
        }
        let Some(mut log) = standby.spill.take() else { return Replay::default() };
        let (spill, from) = (log.id(), log.read_position());
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < REPLAY_BYTES {
            let found = match log.read_next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the failover log cannot be read on; it is kept");
                    standby.replay_at_us = now_us + PAUSE_US;
                    break;
                }
            };
            let failover::Waiting { position, end, batch, bytes: record } = found;
            bytes += record.len();
            match batch {
                Ok(spilled) => {
                    let hash = key.place(spilled.queue, spilled.partition.as_str());
                    let (shard, bytes) = (count.of_hash(hash), record);
                    items.push(ReplayItem { position, end, shard, hash, spilled, bytes });
                }
                Err(error) => {
                    let reason = error.to_string();
                    let kept = standby.quarantine(&self.telemetry, (position, &record), &reason);
                    if let Err(error) = kept {
                        // It must not be passed by: its space would be given back.
                        tracing::error!(position, %error, "a batch could not be set aside");
                        log.read_from(position);
                        standby.replay_at_us = now_us + PAUSE_US;
                        break;
                    }
                }
            }
        }
        let is_last = log.is_read();
        standby.spill = Some(log);
        Replay { spill, from, items, standing: Default::default(), is_last }
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
            tracing::warn!("the store is away: pushes go to the failover log");
        }
        standby.probe_at_us = Some(now_us + standby.patience.probe_ms * 1000);
    }

    /// What was taken from the failover log for this commit is to be taken again.
    pub(super) fn put_back_replay(&mut self, work: &mut Work) {
        let replay = std::mem::take(&mut work.replay);
        let log = self.standby.as_mut().and_then(|standby| standby.spill.as_mut());
        if let Some(log) = log.filter(|_| !replay.items.is_empty()) {
            log.read_from(replay.from);
        }
    }

    /// As [`Self::put_back_replay`], and not at once: something is in its way. What came for the
    /// same partitions goes behind it.
    pub(super) fn postpone_replay(&mut self, work: &mut Work) {
        self.put_back_replay(work);
        let at_us = self.clock.monotonic_us() + PAUSE_US;
        if let Some(standby) = &mut self.standby {
            standby.replay_at_us = at_us;
        }
        self.divert(work);
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
        let is_back = is_reached && self.has_met_store() && self.follow_all().is_ok();
        let (now_us, is_other) = (self.clock.monotonic_us(), self.log.is_other());
        let Some(standby) = &mut self.standby else { return };
        standby.is_other = is_other;
        self.telemetry.store_other.set(u64::from(is_other));
        if is_back {
            standby.probe_at_us = None;
            standby.replay_at_us = 0;
            self.failed_in_a_row = 0;
            self.telemetry.store_away.set(0);
            tracing::info!(waiting = standby.waiting, "the store is back");
        } else {
            standby.probe_at_us = Some(now_us + standby.patience.probe_ms * 1000);
        }
    }

    /// Finds out which of the appends whose answer was lost stand. An append is settled once any
    /// other entry has taken its place; as long as none has, the very commit that pushes its batches
    /// again takes it, or loses against it and comes here again.
    pub(super) fn settle_doubts(&mut self, replay: &mut Replay) -> Result<(), AppendError> {
        replay.standing.clear();
        for item in &replay.items {
            let Some(doubt) = item.spilled.doubt else { continue };
            let key = (doubt.origin.engine, doubt.origin.append);
            let known = self.standby.as_ref().and_then(|it| it.settled.get(&key).copied());
            let stands = match known {
                Some(stands) => stands,
                None if self.replica.head(item.shard) <= doubt.head => false,
                None => {
                    let stands = self.stands(item.shard, doubt)?;
                    if let Some(standby) = &mut self.standby {
                        standby.settled.insert(key, stands);
                    }
                    stands
                }
            };
            if stands {
                replay.standing.insert(key);
            }
        }
        Ok(())
    }

    fn stands(&self, shard: ShardId, doubt: Doubt) -> Result<bool, AppendError> {
        let (mut from, end) = (doubt.head, self.replica.head(shard));
        while from < end {
            let entries = match self.runtime.block_on(self.log.read(shard, from, READ_BYTES)) {
                Ok(entries) => entries,
                Err(ReadError::TooOld(_)) => {
                    tracing::warn!(
                        shard,
                        "it is not known any more whether a push of before an \
                         outage stands; it is pushed again, its transaction ids keep it from \
                         standing twice"
                    );
                    return Ok(false);
                }
                Err(error) => return Err(AppendError::Unavailable(error.to_string())),
            };
            let Some(last) = entries.last() else { return Ok(false) };
            from = last.index + 1;
            let origins = entries.into_iter().filter_map(|it| codec::decode(it.bytes).ok());
            if origins.into_iter().any(|entry| entry.origin == doubt.origin) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sets aside what no shard takes, before it is marked as done.
    pub(super) fn set_aside(&mut self, work: &Work, plan: &Plan) -> std::io::Result<()> {
        let Some(standby) = &mut self.standby else { return Ok(()) };
        for (item, outcome) in work.replay.items.iter().zip(&plan.replayed) {
            let Replayed::Refused(error) = outcome else { continue };
            let batch = (item.position, &item.bytes);
            standby.quarantine(&self.telemetry, batch, &error.to_string())?;
        }
        Ok(())
    }

    /// A commit holds what waited: partitions open again, and space comes back.
    pub(super) fn end_replay(&mut self, replay: &Replay, outcomes: &[Replayed]) {
        let Some(standby) = &mut self.standby else { return };
        if replay.items.is_empty() {
            return;
        }
        for (item, outcome) in replay.items.iter().zip(outcomes) {
            standby.gate.pass(item.hash);
            let count = u64::from(item.spilled.push.batch.count());
            standby.waiting = standby.waiting.saturating_sub(count);
            if let Replayed::Done(pushed) = outcome {
                account::count_pushed(
                    &self.telemetry,
                    item.spilled.queue,
                    item.spilled.qos,
                    pushed,
                );
            }
            if !matches!(outcome, Replayed::Refused(_)) {
                self.telemetry.replayed.add(count);
            }
        }
        self.telemetry.spill_waiting.set(standby.waiting);
        if standby.gate.is_open() {
            standby.settled.clear();
            tracing::info!("everything that waited is in the store");
        }
        let let_go = standby.spill.as_ref().map_or(Ok(()), |log| log.let_go(log.read_position()));
        if let Err(error) = let_go {
            tracing::warn!(%error, "the failover log keeps its space for now");
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
