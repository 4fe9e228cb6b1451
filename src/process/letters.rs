//! Messages that lie at the desk: those that were refused, to be looked at and sent after all, and
//! those that wait for their time or their target. What they say is kept as they came: JSON, or bytes.
//!
//! Whoever sends one takes its key in the same transaction, so of several engines one does.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onrush_protocol::batch::{BatchBuilder, BatchError};
use serde_json::value::RawValue;

use crate::base::place::PartitionNumber;
use crate::ingest::PushError;
use crate::process::commit::StepError;
use crate::process::definition::Mode;
use crate::process::envelope::Envelope;
use crate::process::evaluate::raw;
use crate::process::faults::{Place, cross};
use crate::process::incoming::Incoming;
use crate::process::instance::page;
use crate::process::keys::{Address, CASCADES, DEAD, dead_prefix, read_child_key};
use crate::process::outgoing::{Outgoing, Parts, count};
use crate::process::record::{Fault, Letter};
use crate::process::step::Step;
use crate::process::target::{self, Target};
use crate::process::way::Waypoint;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::command::CommandError;
use crate::shard::transaction::{PlaceNote, StateChanges, StateOwner};
use crate::state::catalog::QueueDefinition;
use crate::state::draft::transaction::StateOp;
use crate::state::effect::OwnerId;
use crate::state::states::{StateAsk, StatePage};
use crate::state::tally::TallyChange;

/// Bytes of one page of letters.
const PAGE_BYTES: usize = 1 << 20;

/// A message that was refused.
#[derive(Debug)]
pub struct LetterShown {
    /// Its id.
    pub id: String,
    /// Where it was to go.
    pub target: Box<str>,
    /// Why it did not go.
    pub code: Box<str>,
    /// In words.
    pub reason: Box<str>,
    /// The push that it is part of.
    pub cascade: Box<str>,
    /// The message that it was sent for.
    pub parent: Option<String>,
    /// The process that sent it.
    pub from: Option<Box<str>>,
    /// How many messages lead to it.
    pub depth: u32,
    /// When it was refused, unix milliseconds.
    pub since_ms: u64,
    /// What it says.
    pub payload: Box<RawValue>,
    /// Whether that is a text that stands for bytes, in base64.
    pub base64: bool,
}

/// What is to become of a letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It was sent.
    Sent,
    /// Its target is not there.
    NoTarget,
    /// Somebody else took it.
    Taken,
}

impl Letter {
    /// The message of a slot itself, which failed.
    pub(super) fn of_message(
        message: &Incoming,
        target: String,
        fault: Fault,
        now_ms: u64,
    ) -> Self {
        let as_it_is = raw(&message.payload).filter(|_| message.is_json);
        let base64 = as_it_is.is_none();
        let text = || serde_json::to_vec(&STANDARD.encode(&message.payload)).ok();
        let payload = as_it_is.or_else(|| raw(&text()?)).unwrap_or_default();
        let mut envelope = Envelope::read(&message.envelope.write()).unwrap_or_default();
        envelope.sub = message.from.strip_prefix("client:").map(Into::into);
        envelope.runs = false;
        Self {
            target: target.into(),
            call: None,
            code: fault.code,
            reason: fault.message,
            cascade: message.root.id().into(),
            since_ms: now_ms,
            until_ms: 0,
            transaction_id: format!("r:{}", message.address.id()).into(),
            envelope: raw(&envelope.write()).unwrap_or_default(),
            payload,
            base64,
            trace_id: message.trace_id,
        }
    }

    /// Whether it can be a message at all.
    pub(super) fn fits(&self) -> Result<(), BatchError> {
        self.put(&mut BatchBuilder::new(), true, false)
    }

    /// `runs`: its process is in manual mode and evaluates it all the same.
    fn put(
        &self,
        builder: &mut BatchBuilder,
        is_process: bool,
        runs: bool,
    ) -> Result<(), BatchError> {
        let kept = self.envelope.get().as_bytes();
        let running = Envelope::read(kept).filter(|_| runs);
        let running = running.map(|envelope| Envelope { runs, ..envelope }.write());
        let envelope = is_process.then(|| running.as_deref().unwrap_or(kept));
        let (payload, is_json) = self.says();
        let (id, trace_id) = (&*self.transaction_id, self.trace_id);
        Parts { id, envelope, payload: &payload, trace_id }.put_as(builder, is_json)
    }

    /// What it says, and whether that is JSON.
    pub(super) fn says(&self) -> (Bytes, bool) {
        let text = self.payload.get().as_bytes();
        if !self.base64 {
            return (Bytes::copy_from_slice(text), true);
        }
        let text: String = serde_json::from_slice(text).unwrap_or_default();
        (STANDARD.decode(text).unwrap_or_default().into(), false)
    }
}

impl Inner {
    /// Sends a letter, and takes it away under its key. `change` is what its cascade counts then.
    ///
    /// # Errors
    /// When it was not carried out, or perhaps was.
    pub(super) async fn send_letter(
        &self,
        (owner, key): (OwnerId, &Bytes),
        child: &[u8],
        letter: &Letter,
        change: TallyChange,
    ) -> Result<Fate, ProcessError> {
        let desk = self.ensure_desk().await?;
        if letter.call.is_some() {
            return self.call_again((desk, owner, key), child, letter, change).await;
        }
        let Some((queue, partition, is_process)) = self.resolve(&letter.target) else {
            return Ok(Fate::NoTarget);
        };
        let mut builder = BatchBuilder::new();
        let runs = self.runs_with_cascade(&queue, letter);
        letter.put(&mut builder, is_process, runs).map_err(PushError::from)?;
        let mut step = Step { states: vec![take(desk, owner, key)], ..Step::default() };
        let (is_auto, claim) = (false, None);
        let outgoing = builder.finish();
        let outgoing =
            outgoing.map(|batch| Outgoing { queue, partition, batch, runs, is_auto, claim });
        step.outgoing.extend(outgoing);
        if let Some(root) = Address::parse(&letter.cascade) {
            // A plain queue's message is done when it is there.
            let was_counted = owner != DEAD || change.messages > 0;
            let pending = change.pending - i64::from(!is_process && was_counted);
            step.states.push(count(root, TallyChange { pending, ..change }));
            step.roots.push(root);
            if read_child_key(child).is_some_and(|(.., index)| index > 0) {
                step.notes.push(PlaceNote {
                    append: 0,
                    record: 0,
                    owner: CASCADES,
                    partition: Some(root.partition),
                    key: Bytes::copy_from_slice(child),
                });
            }
        }
        cross(Place::Sending);
        self.carry_out(&step).await
    }

    /// Whether a message for a class in manual mode is evaluated with its cascade, as far as whoever
    /// pushed wanted that.
    fn runs_with_cascade(&self, queue: &QueueDefinition, letter: &Letter) -> bool {
        let Some(Envelope { terms, origin: Some(origin), .. }) =
            Envelope::read(letter.envelope.get().as_bytes())
        else {
            return false;
        };
        let catalog = self.engine.catalog_now();
        let newest = catalog.class(queue.id).and_then(|class| class.newest());
        let code = newest.and_then(|newest| self.modules.get(queue.id, &queue.name, newest).ok());
        let is_manual = code.is_some_and(|code| code.definition.mode == Mode::Manual);
        is_manual && terms.max_depth.is_none_or(|most| origin.depth <= most)
    }

    /// Commits a step that takes a letter.
    ///
    /// # Errors
    /// When it was not carried out, or perhaps was.
    pub(super) async fn carry_out(&self, step: &Step) -> Result<Fate, ProcessError> {
        match self.commit(None, step).await {
            Ok(committed) => {
                self.tell(step, &committed);
                Ok(Fate::Sent)
            }
            Err(StepError::Gone) => Ok(Fate::Taken),
            Err(StepError::Again | StepError::Tally(..)) => Ok(Fate::NoTarget),
            Err(StepError::Full(error)) => Err(CommandError::Decide(error).into()),
            Err(StepError::Closed(_, error)) => Err(error),
            Err(StepError::Later(error)) => Err(error.into()),
        }
    }

    /// A target as it is now.
    pub(super) fn resolve(
        &self,
        text: &str,
    ) -> Option<(Arc<QueueDefinition>, onrush_protocol::name::PartitionName, bool)> {
        let (Target::Named(queue, partition) | Target::Queue(queue, partition)) =
            target::parse(text)?
        else {
            return None;
        };
        let catalog = self.engine.catalog_now();
        let queue = Arc::clone(catalog.find(queue.as_str())?);
        let is_process = catalog.class(queue.id).is_some();
        Some((queue, partition, is_process))
    }

    /// A page of what an owner keeps at the desk.
    pub(super) async fn at_desk(
        &self,
        owner: OwnerId,
        prefix: Bytes,
        after: Option<Bytes>,
        rows_max: usize,
    ) -> Result<StatePage, ProcessError> {
        let partition = self.ensure_desk().await?;
        let ask = StateAsk { owner, partition, prefix, after, rows_max, bytes_max: PAGE_BYTES };
        Ok(self.engine.look(move |look| page(look, &ask)).await??)
    }
}

/// Takes a key at the desk away.
pub(super) fn take(desk: PartitionNumber, owner: OwnerId, key: &Bytes) -> StateChanges {
    StateChanges {
        owner: StateOwner::Number(owner),
        partition: desk,
        ops: vec![StateOp::Take { key: key.clone() }],
        may_miss: false,
    }
}

impl Processes {
    /// Messages that were refused, of one push or of all, in the order of their pushes; and the id to
    /// ask behind for more.
    ///
    /// # Errors
    /// [`ProcessError::NoPush`], [`ProcessError::Command`].
    pub async fn letters(
        &self,
        push: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<LetterShown>, Option<String>), ProcessError> {
        let prefix = match push {
            None => Bytes::new(),
            Some(push) => {
                let root = Address::parse(push).ok_or_else(|| ProcessError::NoPush(push.into()))?;
                dead_prefix(root)
            }
        };
        let after = after.map(|id| key_of(id).ok_or_else(|| ProcessError::NoPath(id.into())));
        let page = self.inner.at_desk(DEAD, prefix, after.transpose()?, limit).await?;
        let shown = page
            .rows
            .iter()
            .filter_map(|row| Some(shown(&row.key, serde_json::from_slice(&row.value).ok()?)));
        Ok((shown.collect(), page.more_after.as_deref().map(id_of)))
    }

    /// A message that was refused, and the messages that led to it, the first of its cascade before all
    /// others; of a long way the end.
    ///
    /// # Errors
    /// [`ProcessError::NoPath`] where there is no such letter, [`ProcessError::Command`].
    pub async fn letter_with_way(
        &self,
        id: &str,
    ) -> Result<(LetterShown, Vec<Waypoint>), ProcessError> {
        let (key, letter) = self.letter(id).await?;
        let shown = shown(&key, letter);
        let parent = shown.parent.as_deref().and_then(Address::parse);
        let way = match parent {
            Some(parent) => self.inner.way_to(parent).await?,
            None => Vec::new(),
        };
        Ok((shown, way))
    }

    /// Sends a message that was refused after all, with the limits of its class anew. Answers when that
    /// is durable.
    ///
    /// # Errors
    /// [`ProcessError::NoPath`] where there is no such letter, [`ProcessError::NoProcess`] where its
    /// target is still not there.
    pub async fn redrive(&self, id: &str) -> Result<(), ProcessError> {
        let (key, mut letter) = self.letter(id).await?;
        let mut envelope = Envelope::read(letter.envelope.get().as_bytes()).unwrap_or_default();
        (envelope.terms.hops, envelope.terms.messages_max) = (None, 0);
        envelope.until_ms = 0;
        letter.envelope = raw(&envelope.write()).unwrap_or_default();
        let truncated = -i64::from(matches!(&*letter.code, "hop_limit" | "cascade_limit"));
        // A first message has no cascade but its own: sent again it begins another.
        let more = i64::from(envelope.origin.is_some());
        let change = TallyChange {
            pending: more,
            messages: more,
            refused: -1,
            truncated,
            ..TallyChange::default()
        };
        let child = key.slice(4.min(key.len())..);
        match self.inner.send_letter((DEAD, &key), &child, &letter, change).await? {
            Fate::Sent => Ok(()),
            Fate::NoTarget => Err(ProcessError::NoProcess(letter.target.into())),
            Fate::Taken => Err(ProcessError::NoPath(id.into())),
        }
    }

    /// Throws away a message that was refused.
    ///
    /// # Errors
    /// [`ProcessError::NoPath`] where there is no such letter.
    pub async fn discard(&self, id: &str) -> Result<(), ProcessError> {
        let (key, _) = self.letter(id).await?;
        let desk = self.inner.ensure_desk().await?;
        let step = Step { states: vec![take(desk, DEAD, &key)], ..Step::default() };
        match self.inner.carry_out(&step).await? {
            Fate::Sent => Ok(()),
            Fate::NoTarget | Fate::Taken => Err(ProcessError::NoPath(id.into())),
        }
    }

    async fn letter(&self, id: &str) -> Result<(Bytes, Letter), ProcessError> {
        let missing = || ProcessError::NoPath(id.into());
        let key = key_of(id).ok_or_else(missing)?;
        let page = self.inner.at_desk(DEAD, key.clone(), None, 1).await?;
        let row = page.rows.into_iter().find(|row| row.key == key).ok_or_else(missing)?;
        let letter = serde_json::from_slice(&row.value);
        let letter = letter.map_err(|_| ProcessError::Command(CommandError::ShuttingDown))?;
        Ok((key, letter))
    }
}

fn shown(key: &[u8], letter: Letter) -> LetterShown {
    let Envelope { origin, sub, .. } =
        Envelope::read(letter.envelope.get().as_bytes()).unwrap_or_default();
    LetterShown {
        id: id_of(key),
        target: letter.call.map_or(letter.target, |call| call.name().into()),
        code: letter.code,
        reason: letter.reason,
        cascade: letter.cascade,
        parent: origin.as_ref().map(|origin| origin.parent().id()),
        depth: origin.as_ref().map_or(0, |origin| origin.depth),
        from: match (origin, sub) {
            (Some(origin), _) => Some(origin.from),
            (None, sub) => sub.map(|sub| format!("client:{sub}").into()),
        },
        since_ms: letter.since_ms,
        payload: letter.payload,
        base64: letter.base64,
    }
}

/// A key as the id of a letter.
pub(super) fn id_of(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn key_of(id: &str) -> Option<Bytes> {
    if !id.len().is_multiple_of(2) || !id.is_ascii() || id.len() > 256 {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(id.get(at..at + 2)?, 16).ok();
    (0..id.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_letter_is_its_key() {
        let key = Bytes::from_static(&[0, 1, 0xfe, 0x80]);
        assert_eq!(id_of(&key), "0001fe80");
        assert_eq!(key_of("0001fe80"), Some(key));
        for wrong in ["0", "0g", "\u{e9}"] {
            assert_eq!(key_of(wrong), None, "{wrong}");
        }
    }
}
