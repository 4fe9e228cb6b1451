//! What waits in the failover log is pushed again, in order, before what came later.
//!
//! In: batches of the failover log, with a commit of the lane. Out: the same in the store, marked there
//! as done; or set aside where no shard will ever take them. An append whose answer was lost is settled
//! first: what it may have stored is not pushed twice. Called by the lane.

use crate::base::place::ShardId;
use crate::failover;
use crate::failover::record::Doubt;
use crate::log::{AppendError, ReadError};
use crate::shard::account;
use crate::shard::lane::Lane;
use crate::shard::round::{Plan, Replay, ReplayItem, Replayed, Work};
use crate::state::codec;

/// Bytes of batches that one commit takes from the failover log, beside what is new.
const REPLAY_BYTES: usize = 8 << 20;
/// Pause after a batch could not be pushed again, microseconds.
const PAUSE_US: u64 = 1_000_000;

impl Lane {
    /// The next batches that wait.
    pub(super) fn next_replay(&mut self) -> Replay {
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
                    standby.note_unreadable(&self.telemetry, Some(&error));
                    standby.replay_at_us = now_us + PAUSE_US;
                    break;
                }
            };
            standby.note_unreadable(&self.telemetry, None);
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

    /// Whether an append stands, which could only take the place that it was offered for: it has one
    /// entry in each of its shards.
    fn stands(&self, shard: ShardId, doubt: Doubt) -> Result<bool, AppendError> {
        // One entry, whatever its size.
        let entries = match self.runtime.block_on(self.log.read(shard, doubt.head, 1)) {
            Ok(entries) => entries,
            Err(ReadError::TooOld(_)) => {
                tracing::warn!(
                    shard,
                    "it is not known any more whether a push of before an outage stands; it is pushed \
                     again, its transaction ids keep it from standing twice"
                );
                return Ok(false);
            }
            Err(error) => return Err(AppendError::Unavailable(error.to_string())),
        };
        let entry = entries.into_iter().next().and_then(|it| codec::decode(it.bytes).ok());
        Ok(entry.is_some_and(|entry| entry.origin == doubt.origin))
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
