//! What waits at the desk is sent when its time has come, or its target.
//!
//! Nothing here is in memory: what is due, the desk's keys say, in the order of their times. Looked at
//! when something was put there, when a class or queue came, and now and then for other engines.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::process::keys::{Address, DEAD, PARKED, TIMERS, dead_key};
use crate::process::letters::{Fate, take};
use crate::process::outgoing::count;
use crate::process::record::Letter;
use crate::process::step::Step;
use crate::process::timers::TIMER_MARK;
use crate::process::{Inner, ProcessError};
use crate::shard::transaction::{StateChanges, StateOwner};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::OwnerId;
use crate::state::tally::TallyChange;

/// How often the desk is looked at for what others put there.
const LOOK: Duration = Duration::from_millis(500);
/// What is looked at in one turn.
const ROWS: usize = 256;

/// Looks after the desk until `stop` says so.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut parked_after = None;
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
            match inner.sweep_parked(parked_after.take()).await {
                Ok(after) => parked_after = after,
                Err(error) => tracing::debug!(%error, "what waits for its target is tried again"),
            }
        }
        tokio::select! {
            () = news => {}
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

impl Inner {
    pub(super) fn has_classes(&self) -> bool {
        self.engine.catalog_now().classes().next().is_some()
    }

    /// Sends what is due; returns how long it is until the next is.
    async fn sweep_timers(&self) -> Result<Duration, ProcessError> {
        let page = self.at_desk(TIMERS, Bytes::new(), None, ROWS).await?;
        for row in page.rows {
            let now_ms = self.clock.now_ms();
            let mut key = &*row.key;
            let due_ms = key.try_get_u64().unwrap_or(0);
            if due_ms > now_ms {
                return Ok(Duration::from_millis(due_ms - now_ms));
            }
            if key.first() == Some(&TIMER_MARK) {
                self.fire(&row.key, &row.value, now_ms).await?;
                continue;
            }
            let Ok(letter) = serde_json::from_slice::<Letter>(&row.value) else { continue };
            // It was pending from the start.
            let change = TallyChange::default();
            let sent = self.send_letter((TIMERS, &row.key), key, &letter, change).await?;
            if sent == Fate::NoTarget {
                self.give_up(TIMERS, &row.key, key, letter).await?;
            }
        }
        Ok(if page.more_after.is_some() { Duration::ZERO } else { LOOK })
    }

    /// Sends what has a target by now, a page at a time; returns where the next begins.
    async fn sweep_parked(&self, after: Option<Bytes>) -> Result<Option<Bytes>, ProcessError> {
        let page = self.at_desk(PARKED, Bytes::new(), after, ROWS).await?;
        for row in page.rows {
            let Ok(letter) = serde_json::from_slice::<Letter>(&row.value) else { continue };
            let child = row.key.iter().position(|byte| *byte == 0);
            let child = child.and_then(|at| row.key.get(at + 1..)).unwrap_or_default().to_vec();
            let change = TallyChange::default();
            let sent = self.send_letter((PARKED, &row.key), &child, &letter, change).await?;
            if sent == Fate::NoTarget && letter.until_ms <= self.clock.now_ms() {
                self.give_up(PARKED, &row.key, &child, letter).await?;
            }
        }
        Ok(page.more_after)
    }

    /// What has waited in vain becomes a dead letter.
    async fn give_up(
        &self,
        owner: OwnerId,
        key: &Bytes,
        child: &[u8],
        letter: Letter,
    ) -> Result<Fate, ProcessError> {
        let desk = self.ensure_desk().await?;
        let mut step = Step { states: vec![take(desk, owner, key)], ..Step::default() };
        if let Some(root) = Address::parse(&letter.cascade) {
            let reason = format!("there is no '{}'", letter.target);
            let (code, reason) = ("target_not_found".into(), reason.into());
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
