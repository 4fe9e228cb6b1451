//! A message goes in, and its sender waits for as much as he wants to know.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use onrush_protocol::name::{PartitionName, QueueName};
use onrush_protocol::qos::Qos;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::base::post::Mailbox;
use crate::buffer::receipt::{Accepted, Signer, Stored};
use crate::ingest::{PushError, PushTerms, is_own_id};
use crate::process::board::Deadline;
use crate::process::codec::Codec;
use crate::process::definition::{Create, Definition, Mode};
pub use crate::process::envelope::Terms;
use crate::process::envelope::{Envelope, HEADER};
use crate::process::errands::Errand;
use crate::process::keys::{Address, STOPPED};
use crate::process::look::InstanceShown;
use crate::process::runtime::ENVELOPE;
use crate::process::tree::Standing;
use crate::process::{Inner, ProcessError, Processes};
use crate::state::catalog::QueueDefinition;
use crate::state::draft::push::Pushed;
use crate::state::draft::transaction::StateOp;
use crate::state::effect::{ProducerSub, Sequence};

/// Fields of a message that only the room writes: those that no guest may, and whom an answer goes to,
/// which a guest does say.
fn reserved() -> impl Iterator<Item = &'static str> {
    ENVELOPE.into_iter().chain(["reply_to"])
}

/// What the sender of a message waits for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Await {
    /// That it is durable.
    Accepted,
    /// That it is evaluated.
    Slot,
    /// The first answer of its cascade to `$reply`.
    Reply,
    /// That nothing of its cascade is pending.
    #[default]
    Cascade,
}

/// A message for a process.
#[derive(Clone, Debug)]
pub struct PushOrder {
    /// The class.
    pub class: QueueName,
    /// The instance.
    pub key: PartitionName,
    /// The message, a JSON text.
    pub message: Bytes,
    /// What tells whether it was pushed before.
    pub transaction_id: Option<String>,
    /// The trace that it and its cascade are part of.
    pub trace_id: Option<[u8; 16]>,
    /// How far its cascade may go.
    pub terms: Terms,
    /// Who pushes, where that is known.
    pub sub: Option<ProducerSub>,
    /// Whether its sender waits for what comes of it: a process that is stopped takes only messages for
    /// later.
    pub waits: bool,
    /// Whether it is evaluated though its class is in manual mode, also after a crash; whoever pushes asks
    /// for that with [`Processes::run_to`] when it stands.
    pub runs: bool,
}

/// What became of a push by the time it was durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// It stands here.
    Stored {
        /// Where, which is its push's id too.
        address: Address,
        /// Whether it was there before.
        duplicate: bool,
        /// Whether it defines the instance rather than being a message.
        defines: bool,
    },
    /// The store is away: it is kept, and will stand somewhere.
    Kept,
}

/// What is looked at of a message before it is taken.
#[derive(Deserialize)]
pub(super) struct Kind<'a> {
    #[serde(borrow, rename = "type", alias = "Type")]
    kind: Option<std::borrow::Cow<'a, str>>,
    /// First state keys of the instance that it defines.
    pub(super) init: Option<Box<RawValue>>,
}

impl Kind<'_> {
    /// Whether it is no message but the definition of an instance.
    pub(super) fn defines(&self) -> bool {
        self.kind.as_deref() == Some("Process")
    }
}

/// What a push asks of its process.
#[derive(Clone, Copy)]
struct Asks {
    defines: bool,
    waits: bool,
}

impl Processes {
    /// Pushes a message. Answers when it is durable, and waits for room for as long as any push.
    /// Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`ProcessError`]: it was not taken, unless the error says otherwise.
    pub async fn push(&self, order: PushOrder) -> Result<Taken, ProcessError> {
        let (waits, runs) = (order.waits, order.runs);
        let PushOrder { class, key, message, transaction_id, trace_id, terms, sub, .. } = order;
        let (queue, code) = self.inner.newest(&class)?;
        let from = format!("client:{}", sub.as_ref().map_or("", ProducerSub::as_str));
        if !code.definition.accepts(&from) {
            return Err(ProcessError::NotAccepted(from));
        }
        if transaction_id.as_deref().is_some_and(is_own_id) {
            return Err(PushError::OwnId { record: 0 }.into());
        }
        let kind = look_at(&message)?;
        if !kind.defines() && !code.definition.codecs.contains(&Codec::Json) {
            return Err(ProcessError::Codec);
        }
        let defines = kind.defines();
        let asks = Asks { defines, waits };
        self.inner.may_push(&queue.name, &key, &code.definition, asks).await?;
        let spawn = kind.init.filter(|_| defines);
        let runs = runs && code.definition.mode == Mode::Manual;
        let envelope = Envelope { terms, spawn, defines, runs, ..Envelope::default() };
        let header = envelope.write();
        let has_header = defines || runs || terms != Terms::default();
        let headers = [(HEADER, header.as_slice())];
        let mut builder = BatchBuilder::with_limits(*self.inner.ingest.limits());
        let record = NewRecord {
            transaction_id: transaction_id.as_deref(),
            trace_id,
            headers: if has_header { &headers } else { &[] },
            is_json: true,
            payload: &message,
        };
        builder.push(&record).map_err(PushError::from)?;
        let Some(batch) = builder.finish() else { return Ok(Taken::Kept) };
        Ok(match self.inner.store(&queue, key, batch, sub).await? {
            Accepted::Spilled { .. } => Taken::Kept,
            Accepted::Stored(stored) => taken(&stored, defines),
        })
    }

    /// Waits until a push is as far as is wanted, or until a time. Returns how it stands then, and
    /// whether that is as far as was wanted.
    /// Dropping the future changes nothing: the cascade goes on.
    ///
    /// # Errors
    /// [`ProcessError::Command`].
    pub async fn wait(
        &self,
        root: Address,
        level: Await,
        max_depth: Option<u32>,
        patience: Duration,
    ) -> Result<(Standing, bool), ProcessError> {
        let deadline = Deadline::after(&*self.inner.clock, patience);
        let seat = self.inner.board.sit(root.partition, root.seq);
        loop {
            let news = seat.notify.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let standing = self.inner.standing(root).await?;
            if standing.is_at(level) {
                return Ok((standing, true));
            }
            if let Some(depth) = max_depth
                && standing.slot.is_some()
                && self.inner.is_done_to(root, depth).await?
            {
                return Ok((standing, true));
            }
            if deadline.is_over() {
                return Ok((standing, false));
            }
            deadline.rest(news).await;
        }
    }

    /// Waits until a push stands otherwise than `mark` says, or until a time; see [`Standing::mark`].
    ///
    /// # Errors
    /// [`ProcessError::NoPush`], [`ProcessError::Command`].
    pub async fn changed(
        &self,
        root: Address,
        mark: &str,
        patience: Duration,
    ) -> Result<Standing, ProcessError> {
        let deadline = Deadline::after(&*self.inner.clock, patience);
        let seat = self.inner.board.sit(root.partition, root.seq);
        loop {
            let news = seat.notify.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let standing = self.inner.standing(root).await?;
            if standing.mark() != mark || deadline.is_over() {
                return Ok(standing);
            }
            deadline.rest(news).await;
        }
    }

    /// Stops an instance before its next step, or lets it go on. Answers when that is durable.
    ///
    /// # Errors
    /// [`ProcessError::NoClass`], [`ProcessError::NoProcess`], [`ProcessError::Command`].
    pub async fn set_stopped(
        &self,
        class: &QueueName,
        key: &PartitionName,
        reason: Option<&str>,
    ) -> Result<(), ProcessError> {
        let partition = self.instance(class, key).await?.partition;
        let key = Bytes::from_static(STOPPED);
        let op = match reason {
            Some(reason) => StateOp::Put { key, value: Bytes::copy_from_slice(reason.as_bytes()) },
            None => StateOp::Remove { key },
        };
        self.inner.change_meta(class, partition, op).await?;
        self.inner.look_again(partition);
        Ok(())
    }

    /// Lets a process whose class is in manual mode evaluate its messages up to a slot; others do so by
    /// themselves. Returns when that has begun.
    ///
    /// # Errors
    /// [`ProcessError::NoClass`], [`ProcessError::Command`].
    pub async fn run_to(
        &self,
        class: &QueueName,
        key: &PartitionName,
        slot: Sequence,
    ) -> Result<(), ProcessError> {
        let (queue, code) = self.inner.newest(class)?;
        if code.definition.mode == Mode::Manual {
            let (queue, class, key) = (queue.id, class.clone(), key.clone());
            // Whoever runs errands has stopped: then the server stops.
            let _ = self.inner.errands.send(Errand { queue, class, key, slot });
        }
        Ok(())
    }
}

impl Inner {
    /// Stores a batch in the way of any push, but with an envelope that only the room may write.
    /// Waits for room and a commit.
    pub(super) async fn store(
        &self,
        queue: &QueueDefinition,
        key: PartitionName,
        batch: RecordBatch,
        sub: Option<ProducerSub>,
    ) -> Result<Accepted, ProcessError> {
        let mailbox = Arc::new(Mailbox::default());
        let signer = Signer { mailbox: Arc::clone(&mailbox), request: 0, section: 0 };
        let terms = PushTerms { qos: Qos::ExactlyOnce, buffer_ms: 0, buffer_max: 0, sub };
        self.ingest.push_own(queue, key, batch, terms, signer).await?;
        let mut arrived = Vec::new();
        loop {
            mailbox.take(&mut arrived);
            if let Some(delivery) = arrived.pop() {
                return Ok(delivery.receipt?);
            }
            mailbox.arrived().await;
        }
    }

    /// Whether a client may push to an instance now.
    async fn may_push(
        &self,
        class: &str,
        key: &PartitionName,
        definition: &Definition,
        asks: Asks,
    ) -> Result<(), ProcessError> {
        let shown = self.instance(class, key).await?;
        // One whose definition waits in its log is as good as there.
        let is_there = shown.as_ref().is_some_and(|it| it.version > 0 || it.next > it.done);
        if definition.create == Create::Explicit && !asks.defines && !is_there {
            return Err(ProcessError::NoProcess(format!("{class}/{}", key.as_str())));
        }
        let Some(InstanceShown { next, done, stopped, .. }) = shown else { return Ok(()) };
        let waiting = next.saturating_sub(done);
        match stopped.filter(|_| asks.waits) {
            _ if waiting >= definition.limits.backlog_soft => Err(ProcessError::Backlog(waiting)),
            Some(why) => Err(ProcessError::Stopped(why.into())),
            None => Ok(()),
        }
    }
}

fn taken(stored: &Stored, defines: bool) -> Taken {
    match address_of(stored) {
        Some(address) => {
            let mixed = match &stored.pushed {
                Pushed::Stored { .. } => None,
                Pushed::Mixed(outcomes) => outcomes.first(),
            };
            let duplicate = mixed.is_some_and(|outcome| outcome.duplicate);
            Taken::Stored { address, duplicate, defines }
        }
        None => Taken::Kept,
    }
}

/// Where the first record of a batch stands.
pub(super) fn address_of(stored: &Stored) -> Option<Address> {
    let Stored { partition, pushed } = stored;
    let (seq, time_ms) = match pushed {
        Pushed::Stored { first_seq, time_ms, .. } => (*first_seq, *time_ms),
        Pushed::Mixed(outcomes) => {
            let message = &outcomes.first()?.message;
            (message.seq, message.time_ms)
        }
    };
    Some(Address { partition: *partition, seq, time_ms })
}

/// Checks a message: JSON, and if it is an object, one without fields of ours.
pub(super) fn look_at(message: &[u8]) -> Result<Kind<'_>, ProcessError> {
    let nothing = Kind { kind: None, init: None };
    if message.first() != Some(&b'{') {
        let read: Result<IgnoredAny, _> = serde_json::from_slice(message);
        return read.map(|_| nothing).map_err(|error| ProcessError::Malformed(error.to_string()));
    }
    let fields: Result<std::collections::BTreeMap<std::borrow::Cow<'_, str>, IgnoredAny>, _> =
        serde_json::from_slice(message);
    let fields = fields.map_err(|error| ProcessError::Malformed(error.to_string()))?;
    if let Some(field) = reserved().find(|field| fields.contains_key(*field)) {
        return Err(ProcessError::Reserved(field));
    }
    Ok(serde_json::from_slice(message).unwrap_or(nothing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_json_without_fields_of_ours() {
        for field in reserved() {
            let message = format!(r#"{{"a": 1, "{field}": 2}}"#);
            let refused = look_at(message.as_bytes()).err();
            assert_eq!(refused, Some(ProcessError::Reserved(field)));
        }
        assert!(look_at(br#"{"From": 1, "type": "Message"}"#).is_ok());
        assert!(look_at(b"[1]").is_ok());
        assert!(matches!(look_at(b"{"), Err(ProcessError::Malformed(_))));
        assert!(matches!(look_at(b"1 2"), Err(ProcessError::Malformed(_))));
        let kind = look_at(br#"{"type": "Process", "init": {"a": 1}}"#).ok();
        assert_eq!(kind.and_then(|it| it.kind).as_deref(), Some("Process"));
    }
}
