//! Calls of servers elsewhere: made until they are answered, each answer one message.
//!
//! A call is a key at the desk that the step which asked for it put there, so it survives anything that
//! the log survives. Before it is made its key is put off, so of several engines one makes it, and
//! another time comes where whoever made it is gone: the server may be asked more than once. What it
//! says takes the place of the call in one transaction, so that comes once, as a message that is due.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;

use crate::process::call::Call;
use crate::process::envelope::Envelope;
use crate::process::evaluate::raw;
use crate::process::keys::{Address, EFFECTS, TIMERS, timer_key};
use crate::process::letters::{Fate, id_of, take};
use crate::process::outgoing::count;
use crate::process::record::{Fault, Letter};
use crate::process::step::Step;
use crate::process::{Inner, ProcessError};
use crate::shard::transaction::{StateChanges, StateOwner};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::OwnerId;
use crate::state::tally::TallyChange;

/// Calls that one engine makes at a time.
pub(super) const CALLS_MAX: usize = 32;
/// How long a call is tried where its entry has no `ttl_ms`, milliseconds.
pub(super) const TRIED_MS: u64 = 24 * 60 * 60 * 1000;
/// How long nobody else makes a call that one engine makes, milliseconds.
const CLAIM_MS: u64 = 30_000;
/// How long one call may take: well below the claim.
const CALL: Duration = Duration::from_secs(10);
/// Pause before the second attempt, milliseconds; twice as long before each further one.
const RETRY_MS: u64 = 1_000;
/// The longest one.
const RETRY_MS_MAX: u64 = 5 * 60_000;
/// How often the desk is looked at for what others put there.
const LOOK: Duration = Duration::from_millis(500);
/// What is looked at in one turn.
const ROWS: usize = 256;

/// A call that is to be made now.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Box<str>,
    /// Its address.
    pub url: Box<str>,
    /// The same for each attempt, and for no other call.
    pub id: Box<str>,
    /// What is said, in JSON unless `is_bytes`.
    pub body: Bytes,
    /// Whether the body is bytes.
    pub is_bytes: bool,
}

/// What a server said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// What kind of body it has.
    pub content_type: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// What a call comes to.
pub type Answering = Pin<Box<dyn Future<Output = Result<Answer, String>> + Send>>;

/// Makes calls.
pub trait Outside: Send + Sync {
    /// Makes one call, within `within`. The error says why there is no answer.
    fn call(&self, request: Request, within: Duration) -> Answering;
}

/// A call that this engine makes.
struct Claimed {
    key: Bytes,
    child: Bytes,
    letter: Letter,
    _place: OwnedSemaphorePermit,
}

/// Makes calls until `stop` says so. Those under way then are made again later.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut calls = tokio::task::JoinSet::new();
    loop {
        let news = inner.waiting.notified();
        tokio::pin!(news);
        news.as_mut().enable();
        let mut pause = LOOK;
        if inner.has_classes() {
            match inner.sweep_calls(&mut calls).await {
                Ok(next) => pause = next.min(LOOK),
                Err(error) => tracing::debug!(%error, "calls are made later"),
            }
        }
        tokio::select! {
            () = news => {}
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        while calls.try_join_next().is_some() {}
    }
}

impl Inner {
    /// Begins the calls that are due; returns how long it is until the next is.
    async fn sweep_calls(
        self: &Arc<Self>,
        calls: &mut tokio::task::JoinSet<()>,
    ) -> Result<Duration, ProcessError> {
        let mut after = None;
        loop {
            let page = self.at_desk(EFFECTS, Bytes::new(), after, ROWS).await?;
            for row in page.rows {
                let (now_ms, mut child) = (self.clock.now_ms(), row.key.clone());
                let due_ms = child.try_get_u64().unwrap_or(0);
                if due_ms > now_ms {
                    return Ok(Duration::from_millis(due_ms - now_ms));
                }
                let Ok(letter) = serde_json::from_slice::<Letter>(&row.value) else { continue };
                // Whoever ends one says so.
                let place = Arc::clone(&self.calls).try_acquire_owned();
                let Ok(_place) = place else { return Ok(LOOK) };
                let claimed = self.put_off(&row.key, &child, letter, now_ms + CLAIM_MS).await?;
                if let Some((key, letter)) = claimed {
                    let claimed = Claimed { key, child, letter, _place };
                    calls.spawn(Arc::clone(self).make(claimed));
                }
            }
            match page.more_after {
                Some(key) => after = Some(key),
                None => return Ok(LOOK),
            }
        }
    }

    /// Lets a call be due at another time, once more tried. `None` where somebody else has it.
    async fn put_off(
        &self,
        key: &Bytes,
        child: &[u8],
        mut letter: Letter,
        due_ms: u64,
    ) -> Result<Option<(Bytes, Letter)>, ProcessError> {
        if let Some(call) = &mut letter.call {
            call.attempts = call.attempts.saturating_add(1);
        }
        let later = timer_key(due_ms, child);
        let fate = self.replace(key, (EFFECTS, later.clone()), &letter).await?;
        Ok((fate == Fate::Sent).then_some((later, letter)))
    }

    /// Puts a letter in the place of a call.
    async fn replace(
        &self,
        key: &Bytes,
        (owner, new): (OwnerId, Bytes),
        letter: &Letter,
    ) -> Result<Fate, ProcessError> {
        let desk = self.ensure_desk().await?;
        let states = vec![take(desk, EFFECTS, key), kept(desk, owner, new, letter)];
        self.carry_out(&Step { states, ..Step::default() }).await
    }

    /// Lets a call that was given up be made after all.
    pub(super) async fn call_again(
        &self,
        (desk, owner, key): (u32, OwnerId, &Bytes),
        child: &[u8],
        letter: &Letter,
        change: TallyChange,
    ) -> Result<Fate, ProcessError> {
        let (now_ms, mut letter) = (self.clock.now_ms(), letter.clone());
        (letter.code, letter.reason) = Default::default();
        (letter.since_ms, letter.until_ms) = (now_ms, now_ms.saturating_add(TRIED_MS));
        letter.call.iter_mut().for_each(|call| call.attempts = 0);
        let due = timer_key(now_ms, child);
        let states = vec![take(desk, owner, key), kept(desk, EFFECTS, due, &letter)];
        let mut step = Step { states, has_waiting: true, ..Step::default() };
        if let Some(root) = Address::parse(&letter.cascade) {
            step.states.push(count(root, change));
            step.roots.push(root);
        }
        self.carry_out(&step).await
    }

    async fn make(self: Arc<Self>, claimed: Claimed) {
        let Some(call) = claimed.letter.call.clone() else { return };
        let made = match self.is_called_off(&claimed.letter).await {
            true => Ok(answer_of(&json!({ "cancelled": true }))),
            false => self.ask(&call, &claimed).await,
        };
        let done = match made {
            Ok(answer) => self.answer(&claimed, answer).await.map(|_| ()),
            Err(why) => self.try_again(claimed, &call, why).await,
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a call is made again when its claim is over");
        }
        self.waiting.notify_waiters();
    }

    /// Whether nobody wants the answer any more; not where that cannot be read.
    async fn is_called_off(&self, letter: &Letter) -> bool {
        let Some(root) = Address::parse(&letter.cascade) else { return false };
        self.standing(root).await.is_ok_and(|standing| standing.status() == "cancelled")
    }

    /// Makes a call; the error says why it is to be made again.
    async fn ask(&self, call: &Call, claimed: &Claimed) -> Result<Box<RawValue>, String> {
        let (body, is_json) = claimed.letter.says();
        let Call { method, url, .. } = call.clone();
        let id = id_of(&claimed.child).into();
        let request = Request { method, url, id, body, is_bytes: !is_json };
        let answer = self.outside.call(request, CALL).await?;
        match answer.status {
            408 | 425 | 429 | 500.. => Err(format!("status {}", answer.status)),
            _ => Ok(told(call, &answer)),
        }
    }

    /// What a server said becomes a message that is due. Where it is more than a message may be, only
    /// that it answered does.
    async fn answer(&self, claimed: &Claimed, said: Box<RawValue>) -> Result<Fate, ProcessError> {
        let letter = &claimed.letter;
        let mut envelope = Envelope::read(letter.envelope.get().as_bytes()).unwrap_or_default();
        envelope.reply_to = None;
        let envelope = raw(&envelope.write()).unwrap_or_default();
        let answer = |payload| Letter {
            payload,
            envelope: envelope.clone(),
            call: None,
            base64: false,
            until_ms: 0,
            ..letter.clone()
        };
        let mut answered = answer(said);
        if answered.fits().is_err() {
            answered = answer(answer_of(&json!({ "error": "payload_too_large" })));
        }
        let due = timer_key(self.clock.now_ms(), &claimed.child);
        self.replace(&claimed.key, (TIMERS, due), &answered).await
    }

    /// Lets a call that came to nothing be made again, as long as it may.
    async fn try_again(
        &self,
        claimed: Claimed,
        call: &Call,
        why: String,
    ) -> Result<(), ProcessError> {
        let Claimed { key, child, letter, .. } = claimed;
        let now_ms = self.clock.now_ms();
        if now_ms >= letter.until_ms {
            let fault = Fault::new("effect_failed", why);
            return self.give_up((EFFECTS, &key, &child), letter, fault).await.map(|_| ());
        }
        let doubled = RETRY_MS.saturating_mul(1 << call.attempts.saturating_sub(1).min(16));
        let due_ms = (now_ms + doubled.min(RETRY_MS_MAX)).min(letter.until_ms);
        let later = timer_key(due_ms, &child);
        self.replace(&key, (EFFECTS, later), &letter).await.map(|_| ())
    }
}

/// A letter at the desk.
pub(super) fn kept(desk: u32, owner: OwnerId, key: Bytes, letter: &Letter) -> StateChanges {
    let value = serde_json::to_vec(letter).unwrap_or_default().into();
    let ops = vec![StateOp::Put { key, value }];
    StateChanges { owner: StateOwner::Number(owner), partition: desk, ops, may_miss: false }
}

/// An answer as a message.
fn told(call: &Call, answer: &Answer) -> Box<RawValue> {
    let Answer { status, content_type, body } = answer;
    let mut told = json!({ "call": call.name(), "status": status });
    let (key, value) = match (serde_json::from_slice(body), std::str::from_utf8(body)) {
        (Ok(json), _) => ("body", json),
        (_, Ok(text)) => ("body", text.into()),
        _ => ("body_base64", STANDARD.encode(body).into()),
    };
    if let Some(told) = told.as_object_mut() {
        told.insert(key.into(), value);
        told.extend(content_type.as_deref().map(|it| ("content_type".into(), it.into())));
    }
    answer_of(&told)
}

fn answer_of(told: &serde_json::Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(told).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::call;

    #[test]
    fn an_answer_is_told_as_what_it_is() {
        let call = call::parse("GET https://a/x").unwrap();
        let told = |body: &'static [u8]| {
            let content_type = Some("text/plain".into());
            told(&call, &Answer { status: 404, content_type, body: body.into() }).get().to_owned()
        };
        let begin = r#"{"call":"GET https://a/x","status":404,"#;
        let end = r#","content_type":"text/plain"}"#;
        for (body, text) in [
            (br#"{"a": [1]}"#.as_slice(), r#""body":{"a":[1]}"#),
            (b"no", r#""body":"no""#),
            (b"\xff", r#""body_base64":"/w==""#),
        ] {
            let told: serde_json::Value = serde_json::from_str(&told(body)).unwrap();
            let meant = format!("{begin}{text}{end}");
            assert_eq!(told, serde_json::from_str::<serde_json::Value>(&meant).unwrap());
        }
    }
}
