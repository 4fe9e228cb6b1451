//! What waits at the desk is sent when its time has come, or its target.
//!
//! Nothing here is in memory: what is due, the desk's keys say, in the order of their times. Looked at
//! when something was put there, when a class or queue came, and now and then for other engines.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::ingest::PushError;
use crate::process::keys::{Address, DEAD, PARKED, TIMERS, dead_key, read_parked_key};
use crate::process::letters::{Fate, take};
use crate::process::outgoing::count;
use crate::process::record::{Fault, Letter};
use crate::process::step::Step;
use crate::process::timers::TIMER_MARK;
use crate::process::{Inner, ProcessError};
use crate::shard::command::CommandError;
use crate::shard::transaction::{StateChanges, StateOwner};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::OwnerId;
use crate::state::tally::TallyChange;

/// How often the desk is looked at for what others put there.
const LOOK: Duration = Duration::from_millis(500);
/// What is looked at in one turn.
const ROWS: usize = 256;

/// How far one walk over what is parked has come.
#[derive(Default)]
struct Parked {
    /// The key behind which the next page begins.
    after: Option<Bytes>,
    /// Targets for which something was passed over: nothing behind it goes before it, though the target
    /// may be there by now.
    blocked: HashSet<Box<str>>,
}

/// Looks after the desk until `stop` says so.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let (mut parked, mut letters) = (Parked::default(), None);
    loop {
        let news = inner.waiting.notified();
        tokio::pin!(news);
        news.as_mut().enable();
        let mut pause = LOOK;
        // Without a class there is no desk, and nothing that waits.
        if inner.has_classes() {
            match inner.sweep_timers().await {
                Ok(next) => pause = next.min(LOOK),
                Err(error) => tracing::debug!(%error, "what waits for its time is tried again"),
            }
            match inner.sweep_parked(&mut parked).await {
                // Where some had their target, more may.
                Ok(true) if parked.after.is_some() => pause = Duration::ZERO,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "what waits for its target is tried again");
                    parked = Parked::default();
                }
            }
            match inner.sweep_letters(letters.take()).await {
                Ok(after) => letters = after,
                Err(error) => tracing::debug!(%error, "old letters are let go of later"),
            }
        }
        tokio::select! {
            () = news => {}
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What one message came to; an error of its own keeps no others, one of the store all of them.
fn passed_over<T>(sent: Result<T, ProcessError>) -> Result<Option<T>, ProcessError> {
    match sent {
        Ok(fate) => Ok(Some(fate)),
        Err(ProcessError::Command(
            error @ (CommandError::Append(_) | CommandError::ShuttingDown),
        )) => Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "a message that waits is tried again");
            Ok(None)
        }
    }
}

impl Inner {
    pub(super) fn has_classes(&self) -> bool {
        self.engine.catalog_now().classes().next().is_some()
    }

    /// Sends what is due; returns how long it is until the next is. What cannot go now is passed over
    /// and stays: nothing behind it waits for it.
    async fn sweep_timers(&self) -> Result<Duration, ProcessError> {
        let (mut after, mut blocked) = (None, HashSet::new());
        loop {
            let page = self.at_desk(TIMERS, Bytes::new(), after, ROWS).await?;
            for row in page.rows {
                let now_ms = self.clock.now_ms();
                let mut child = &*row.key;
                let due_ms = child.try_get_u64().unwrap_or(0);
                if due_ms > now_ms {
                    return Ok(Duration::from_millis(due_ms - now_ms));
                }
                if child.first() == Some(&TIMER_MARK) {
                    let fired = self.fire(&row.key, &row.value, now_ms).await;
                    passed_over(fired)?;
                    continue;
                }
                let Ok(letter) = serde_json::from_slice::<Letter>(&row.value) else { continue };
                let lot = (TIMERS, &row.key, child);
                passed_over(self.send_waiting(lot, letter, &mut blocked, now_ms).await)?;
            }
            match page.more_after {
                Some(key) => after = Some(key),
                None => return Ok(LOOK),
            }
        }
    }

    /// Sends what has a target by now, a page at a time; returns whether anything was sent.
    async fn sweep_parked(&self, parked: &mut Parked) -> Result<bool, ProcessError> {
        let after = parked.after.take();
        if after.is_none() {
            parked.blocked.clear();
        }
        let page = self.at_desk(PARKED, Bytes::new(), after, ROWS).await?;
        let mut any = false;
        for row in page.rows {
            let Ok(letter) = serde_json::from_slice::<Letter>(&row.value) else { continue };
            let lot = (PARKED, &row.key, read_parked_key(&row.key).unwrap_or_default());
            let (until_ms, target) = (letter.until_ms, letter.target.clone());
            let sent = self.send_waiting(lot, letter, &mut parked.blocked, until_ms).await;
            match passed_over(sent)? {
                Some(Fate::Sent) => any = true,
                Some(Fate::NoTarget) => drop(parked.blocked.insert(target)),
                Some(Fate::Taken) | None => {}
            }
        }
        parked.after = page.more_after;
        Ok(any)
    }

    /// Sends a message that waited, unless its target is among those that have no room now. What has no
    /// target at `until_ms`, or can be no message, becomes a dead letter.
    async fn send_waiting(
        &self,
        (owner, key, child): (OwnerId, &Bytes, &[u8]),
        letter: Letter,
        blocked: &mut HashSet<Box<str>>,
        until_ms: u64,
    ) -> Result<Fate, ProcessError> {
        if blocked.contains(&letter.target) {
            return Ok(Fate::NoTarget);
        }
        // It was pending from the start.
        let change = TallyChange::default();
        match self.send_letter((owner, key), child, &letter, change).await {
            Ok(Fate::NoTarget) if until_ms <= self.clock.now_ms() => {
                let why = format!("there is no '{}'", letter.target);
                self.give_up((owner, key, child), letter, Fault::new("target_not_found", why)).await
            }
            Err(ProcessError::Push(PushError::Batch(error))) => {
                let fault = Fault::new("payload_too_large", error.to_string());
                self.give_up((owner, key, child), letter, fault).await
            }
            Err(error) => {
                blocked.insert(letter.target);
                Err(error)
            }
            sent => sent,
        }
    }

    /// What has waited in vain becomes a dead letter.
    pub(super) async fn give_up(
        &self,
        (owner, key, child): (OwnerId, &Bytes, &[u8]),
        letter: Letter,
        fault: Fault,
    ) -> Result<Fate, ProcessError> {
        let desk = self.ensure_desk().await?;
        let mut step = Step { states: vec![take(desk, owner, key)], ..Step::default() };
        if let Some(root) = Address::parse(&letter.cascade) {
            let Fault { code, message: reason } = fault;
            let dead = Letter { code, reason, since_ms: self.clock.now_ms(), ..letter };
            let value = serde_json::to_vec(&dead).unwrap_or_default().into();
            step.states.push(StateChanges {
                owner: StateOwner::Number(DEAD),
                partition: desk,
                ops: vec![StateOp::Put { key: dead_key(root, child), value }],
                may_miss: true,
            });
            let change = TallyChange { pending: -1, refused: 1, ..TallyChange::default() };
            step.states.push(count(root, change));
            step.roots.push(root);
        }
        self.carry_out(&step).await
    }
}
