//! Timers: messages to a process or queue at a time, again and again if that is wanted.
//!
//! A timer is a key at the desk, so it survives anything that the log survives. A turn sends its
//! message, takes the key and puts the next one in one transaction, so a turn happens once. Turns that
//! were missed while nothing ran are not made up for: the next one is the next that lies ahead.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use onrush_protocol::batch::{BatchBuilder, BatchError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ingest::PushError;
use crate::process::cron::Schedule;
use crate::process::envelope::Envelope;
use crate::process::keys::{TIMER_IDS, TIMERS};
use crate::process::letters::{Fate, take};
use crate::process::outgoing::{Outgoing, Parts};
use crate::process::step::Step;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::transaction::{StateChanges, StateOwner};
use crate::state::draft::transaction::StateOp;

/// Stands behind the time in a timer's key; what only waits has another byte there.
pub(super) const TIMER_MARK: u8 = 0xff;
/// Longest id of a timer in bytes.
const ID_BYTES_MAX: usize = 200;
/// Shortest interval, milliseconds.
const EVERY_MS_MIN: u64 = 10;

/// What is asked of a timer, and how it stands.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timer {
    /// Its name.
    #[serde(default)]
    pub id: Box<str>,
    /// Where its message goes.
    pub target: Box<str>,
    /// The message.
    pub message: Box<RawValue>,
    /// Once, at this time, unix milliseconds; or the first time of an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// Once, so long from now, milliseconds; or before the first time of an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Again and again, so far apart, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// At the times of this expression, in UTC: minute, hour, day of month, month, day of week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<Box<str>>,
    /// When it is due next, unix milliseconds.
    #[serde(default)]
    pub next_ms: u64,
    /// How often it was.
    #[serde(default)]
    pub turns: u64,
}

impl Timer {
    /// When it is due next, after a time; `None` for never.
    fn next_after(&self, now_ms: u64) -> Option<u64> {
        if let Some(cron) = &self.cron {
            let schedule = Schedule::parse(cron).ok()?;
            let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
            let next = schedule.next_after(now)?;
            return u64::try_from(next.as_millisecond()).ok();
        }
        let every_ms = self.every_ms?;
        let missed = now_ms.saturating_sub(self.next_ms) / every_ms;
        Some(self.next_ms + (missed + 1) * every_ms)
    }

    /// What one turn of it sends.
    fn batch(&self, envelope: Option<&[u8]>) -> Result<BatchBuilder, BatchError> {
        let mut builder = BatchBuilder::new();
        let id = format!("t:{}:{}", self.id, self.next_ms);
        let payload = self.message.get().as_bytes();
        Parts { id: &id, envelope, payload, trace_id: None }.put(&mut builder)?;
        Ok(builder)
    }

    fn check(&self) -> Result<(), ProcessError> {
        self.batch(None).map_err(PushError::from)?;
        let wrong = |text: &str| Err(ProcessError::Control(text.into()));
        if let Some(cron) = &self.cron {
            if self.every_ms.is_some() || self.at_ms.is_some() || self.delay_ms.is_some() {
                return wrong("a timer has cron, or everyMs, or a time, not several");
            }
            return Schedule::parse(cron).map(|_| ()).map_err(ProcessError::Control);
        }
        if self.every_ms.is_some_and(|every| every < EVERY_MS_MIN) {
            return wrong("everyMs must be 10 at least");
        }
        if self.every_ms.is_none() && self.at_ms.is_none() && self.delay_ms.is_none() {
            return wrong("a timer needs atMs, delayMs, everyMs or cron");
        }
        Ok(())
    }
}

fn row_key(due_ms: u64, id: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(9 + id.len());
    key.put_u64(due_ms);
    key.put_u8(TIMER_MARK);
    key.put_slice(id.as_bytes());
    key.freeze()
}

fn put(owner: u32, key: Bytes, value: Bytes, partition: u32) -> StateChanges {
    let ops = vec![StateOp::Put { key, value }];
    StateChanges { owner: StateOwner::Number(owner), partition, ops, may_miss: false }
}

impl Processes {
    /// Sets a timer, in place of one with its id. Answers when that is durable.
    ///
    /// # Errors
    /// [`ProcessError::Control`] for what is no timer.
    pub async fn set_timer(&self, id: &str, mut timer: Timer) -> Result<Timer, ProcessError> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(ProcessError::Control(format!("an id has 1 to {ID_BYTES_MAX} bytes")));
        }
        timer.check()?;
        let now_ms = self.inner.clock.now_ms();
        timer.id = id.into();
        timer.turns = 0;
        timer.next_ms = match timer.cron {
            Some(_) => timer.next_after(now_ms).unwrap_or(u64::MAX),
            None => {
                let first = timer.delay_ms.or(timer.every_ms).unwrap_or(0);
                timer.at_ms.unwrap_or(now_ms.saturating_add(first))
            }
        };
        let inner = &self.inner;
        let desk = inner.ensure_desk().await?;
        for _ in 0..10 {
            let mut step = Step::default();
            if let Some(old) = self.timer(id).await? {
                step.states.push(take(desk, TIMERS, &row_key(old.next_ms, id)));
            }
            step.states.extend(kept(&timer, desk));
            if inner.carry_out(&step).await? == Fate::Sent {
                inner.waiting.notify_waiters();
                return Ok(timer);
            }
            // It had its turn meanwhile, or somebody else set it.
        }
        Err(ProcessError::Control("the timer is being changed by others".into()))
    }

    /// A timer.
    ///
    /// # Errors
    /// [`ProcessError::Command`].
    pub async fn timer(&self, id: &str) -> Result<Option<Timer>, ProcessError> {
        self.inner.timer(id).await
    }

    /// Timers in the order of their ids, as many as fit one answer.
    ///
    /// # Errors
    /// [`ProcessError::Command`].
    pub async fn timers(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Timer>, ProcessError> {
        let after = after.map(|id| Bytes::copy_from_slice(id.as_bytes()));
        let page = self.inner.at_desk(TIMER_IDS, Bytes::new(), after, limit).await?;
        Ok(page.rows.iter().filter_map(|row| serde_json::from_slice(&row.value).ok()).collect())
    }

    /// Stops a timer for good.
    ///
    /// # Errors
    /// [`ProcessError::NoPath`] where there is none.
    pub async fn stop_timer(&self, id: &str) -> Result<(), ProcessError> {
        let desk = self.inner.ensure_desk().await?;
        for _ in 0..10 {
            let timer = self.timer(id).await?.ok_or_else(|| ProcessError::NoPath(id.into()))?;
            let name = Bytes::copy_from_slice(id.as_bytes());
            let row = row_key(timer.next_ms, id);
            let states = vec![take(desk, TIMERS, &row), take(desk, TIMER_IDS, &name)];
            if self.inner.carry_out(&Step { states, ..Step::default() }).await? == Fate::Sent {
                return Ok(());
            }
        }
        Err(ProcessError::Control("the timer is being changed by others".into()))
    }
}

/// The keys of a timer.
fn kept(timer: &Timer, desk: u32) -> [StateChanges; 2] {
    let value: Bytes = serde_json::to_vec(timer).unwrap_or_default().into();
    let id = Bytes::copy_from_slice(timer.id.as_bytes());
    let row = row_key(timer.next_ms, &timer.id);
    [put(TIMERS, row, value.clone(), desk), put(TIMER_IDS, id, value, desk)]
}

impl Inner {
    async fn timer(&self, id: &str) -> Result<Option<Timer>, ProcessError> {
        let key = Bytes::copy_from_slice(id.as_bytes());
        let page = self.at_desk(TIMER_IDS, key.clone(), None, 1).await?;
        let row = page.rows.into_iter().find(|row| row.key == key);
        Ok(row.and_then(|row| serde_json::from_slice(&row.value).ok()))
    }

    /// A timer's turn. A row that its id does not name is left of somebody who set it at the same time:
    /// it goes without one.
    pub(super) async fn fire(
        &self,
        key: &Bytes,
        value: &[u8],
        now_ms: u64,
    ) -> Result<(), ProcessError> {
        let Ok(mut timer) = serde_json::from_slice::<Timer>(value) else { return Ok(()) };
        let desk = self.ensure_desk().await?;
        let mut step = Step { states: vec![take(desk, TIMERS, key)], ..Step::default() };
        if self.timer(&timer.id).await?.is_none_or(|it| it.next_ms != timer.next_ms) {
            return self.carry_out(&step).await.map(|_| ());
        }
        let envelope = Envelope { timer: Some(timer.id.clone()), ..Envelope::default() }.write();
        // A target that is not there misses its turn; the timer goes on.
        if let Some((queue, partition, is_process)) = self.resolve(&timer.target) {
            let builder = timer.batch(is_process.then_some(envelope.as_slice()));
            let mut builder = builder.map_err(PushError::from)?;
            let outgoing = builder.finish().map(|batch| Outgoing {
                queue,
                partition,
                batch,
                runs: false,
                is_auto: false,
                claim: None,
            });
            step.outgoing.extend(outgoing);
        } else {
            tracing::warn!(timer = &*timer.id, target = &*timer.target, "a timer has no target");
        }
        let next_ms = timer.next_after(now_ms);
        timer.turns += 1;
        match next_ms {
            Some(next_ms) => {
                timer.next_ms = next_ms;
                step.states.extend(kept(&timer, desk));
            }
            None => {
                let id = Bytes::copy_from_slice(timer.id.as_bytes());
                step.states.push(take(desk, TIMER_IDS, &id));
            }
        }
        self.carry_out(&step).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_turns_are_not_made_up_for() {
        let text = r#"{"target": "a/b", "message": {}, "everyMs": 100, "next_ms": 0}"#;
        assert!(serde_json::from_str::<Timer>(text).is_err(), "a field that is none");
        let text = r#"{"target": "a/b", "message": {}, "everyMs": 100, "nextMs": 1000}"#;
        let timer: Timer = serde_json::from_str(text).unwrap();
        assert_eq!(timer.next_after(1000), Some(1100));
        assert_eq!(timer.next_after(1099), Some(1100));
        assert_eq!(timer.next_after(5050), Some(5100), "once, and not forty times");
    }
}
