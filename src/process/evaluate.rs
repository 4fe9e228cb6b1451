//! Evaluating some slots of an instance, one after the other, on what the slots before them left.
//!
//! Nothing is committed here: out comes what is to be. Runs on a thread that may wait. A slot whose
//! code fails leaves nothing but its record; code that panics has failed. When the store cannot be
//! read no slot is made up for it: what was evaluated before stands, and the rest is tried again.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use onrush_protocol::id::uuid_text;
use onrush_protocol::name::PartitionName;
use serde_json::value::RawValue;

use crate::base::clock::Clock;
use crate::base::place::{PartitionNumber, QueueId};
use crate::process::codec::Codec;
use crate::process::definition::{Create, Definition, Mode, OnError};
use crate::process::incoming::Incoming;
use crate::process::instance::{Dirty, Fetch, Instance, Overlay};
use crate::process::keys::Address;
use crate::process::modules::{Code, Modules};
use crate::process::record::{Fault, SlotRecord, SlotStatus};
use crate::process::runtime::{
    Call, CallKind, GuestError, Message, OutboxEntry, Outcome, Reply, StateFault, StateView,
};
use crate::state::catalog::{Catalog, QueueDefinition};
use crate::state::classes::Class;
use crate::state::effect::Sequence;

/// Slots of one step, at most.
const SLOTS_MAX: usize = 256;
/// Time after which a step ends, microseconds.
const STEP_US: u64 = 5_000;
/// Bytes of what it sends and returns, after which a step ends.
const STEP_BYTES: usize = 2 << 20;

/// What is said of a slot whose cascade was called off.
const CALLED_OFF: &str = "the cascade was called off";

/// An instance that is evaluated.
pub(super) struct Job {
    pub(super) queue: QueueId,
    /// The class's name.
    pub(super) class: Box<str>,
    pub(super) versions: Arc<Class>,
    pub(super) partition: PartitionNumber,
    pub(super) key: PartitionName,
    pub(super) modules: Arc<Modules>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fetch: Fetch,
}

/// One slot that was evaluated.
pub(super) struct Done {
    /// Its message, by its index among those that came in.
    pub(super) at: usize,
    pub(super) record: SlotRecord,
    pub(super) outbox: Vec<OutboxEntry>,
    /// The code that holds for it; `None` where there is none.
    pub(super) code: Option<Arc<Code>>,
}

/// What is to be committed.
#[derive(Default)]
pub(super) struct Evaluated {
    pub(super) done: Vec<Done>,
    pub(super) dirty: Dirty,
    /// Bytes by which that makes the state larger.
    pub(super) grown: i64,
    /// The version that the instance is at now.
    pub(super) version: u32,
    /// Why it stops, where it does.
    pub(super) stopped: Option<Box<str>>,
    /// Its one slot takes all state away.
    pub(super) wiped: bool,
    /// Why it ended before its time: the store cannot be read.
    pub(super) unavailable: Option<String>,
}

impl Evaluated {
    /// It stands: what is known of the instance is what it left.
    pub(super) fn leave(self, instance: &mut Instance, next: Sequence) {
        if self.wiped {
            instance.clear();
        }
        instance.version = self.version;
        instance.stopped = self.stopped;
        instance.keep(self.dirty, self.grown, next);
    }
}

/// What one slot came to.
struct Turn {
    record: SlotRecord,
    outbox: Vec<OutboxEntry>,
    code: Option<Arc<Code>>,
    /// The version that the instance is at after it.
    version: u32,
}

impl Job {
    /// The process as others call it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.class, self.key.as_str())
    }

    /// How messages of a class are evaluated; `None` where its code is not known here.
    pub(super) fn mode_of(&self, catalog: &Catalog, queue: &QueueDefinition) -> Option<Mode> {
        let newest = catalog.class(queue.id).and_then(|class| class.newest())?;
        let code = self.modules.get(queue.id, &queue.name, newest).ok()?;
        Some(code.definition.mode)
    }

    /// Evaluates slots until the step is full. `cancelled` are cascades that were called off.
    pub(super) fn evaluate(
        &self,
        instance: &mut Instance,
        incoming: &[Incoming],
        cancelled: &HashSet<Address>,
    ) -> Evaluated {
        let began_us = self.clock.monotonic_us();
        let mut evaluated = Evaluated { version: instance.version, ..Evaluated::default() };
        let mut bytes = 0;
        let first = incoming.first().map_or(0, |message| message.address.seq);
        // One behind a message that was taken out of the log is for the next step: a step settles its
        // slots as one range.
        let together = (first..).zip(incoming).take_while(|(seq, it)| it.address.seq == *seq);
        for (at, (_, message)) in together.enumerate().take(SLOTS_MAX) {
            if message.envelope.resets && at > 0 {
                // What lies before it is committed first: it has a step of its own.
                break;
            }
            let is_cancelled = cancelled.contains(&message.root);
            let turn = match self.turn(instance, &mut evaluated, message, is_cancelled) {
                Ok(turn) => turn,
                Err(reason) => {
                    evaluated.unavailable = Some(reason);
                    break;
                }
            };
            let Turn { record, outbox, code, version } = turn;
            evaluated.version = version;
            bytes += outbox.iter().map(|entry| entry.payload.len()).sum::<usize>();
            bytes += record.output.as_ref().map_or(0, |output| output.get().len());
            let halts = code.as_ref().is_some_and(|it| it.definition.on_error == OnError::Halt);
            if halts && record.status == SlotStatus::Failed {
                let slot = message.address.seq;
                evaluated.stopped = Some(format!("slot {slot} failed").into());
            }
            evaluated.wiped = record.status == SlotStatus::Reset;
            evaluated.done.push(Done { at, record, outbox, code });
            let took_us = self.clock.monotonic_us().saturating_sub(began_us);
            if evaluated.wiped
                || evaluated.stopped.is_some()
                || took_us > STEP_US
                || bytes > STEP_BYTES
            {
                break;
            }
        }
        evaluated
    }

    /// Evaluates one slot.
    fn turn(
        &self,
        instance: &mut Instance,
        evaluated: &mut Evaluated,
        message: &Incoming,
        is_cancelled: bool,
    ) -> Result<Turn, String> {
        let now_ms = self.clock.now_ms();
        let (mut record, version) = (self.record(message, now_ms), evaluated.version);
        if instance.skips(message.address.seq) {
            let fault = Fault::new("skipped", "somebody let it be passed over");
            (record.status, record.error) = (SlotStatus::Skipped, Some(fault));
            return Ok(Turn { record, outbox: Vec::new(), code: None, version });
        }
        if message.envelope.resets {
            record.status = SlotStatus::Reset;
            return Ok(Turn { record, outbox: Vec::new(), code: None, version: 0 });
        }
        let code = self.versions.at(message.address.time_ms);
        let code = code.map(|code| self.modules.get(self.queue, &self.class, code));
        let code = match code {
            Some(Ok(code)) => code,
            missing => {
                let why = missing.and_then(Result::err).map(|error| error.to_string());
                let why = why.unwrap_or_else(|| "the class is gone".into());
                record.fail("module_invalid", why);
                return Ok(Turn { record, outbox: Vec::new(), code: None, version });
            }
        };
        record.version = code.version;
        let passed_over = if is_cancelled {
            Some((SlotStatus::Cancelled, "cancelled", CALLED_OFF))
        } else {
            passed_over(&code.definition, version, message, now_ms)
        };
        if let Some((status, code_word, why)) = passed_over {
            (record.status, record.error) = (status, Some(Fault::new(code_word, why)));
            return Ok(Turn { record, outbox: Vec::new(), code: Some(code), version });
        }
        let began_us = self.clock.monotonic_us();
        let (partition, step) = (self.partition, &evaluated.dirty);
        let (slot, fetch) = (Dirty::new(), &self.fetch);
        let (grown, bytes_max) = ((evaluated.grown, 0), code.definition.limits.state_bytes);
        let mut view = Overlay { partition, instance, step, slot, grown, bytes_max, fetch };
        let outcome = self.run(&code, version, message, &mut view);
        let (written, grown) = (view.slot, view.grown.1);
        record.took_us = self.clock.monotonic_us().saturating_sub(began_us);
        record.take(&outcome);
        match outcome.result {
            Ok(reply) => {
                evaluated.dirty.extend(written);
                evaluated.grown += grown;
                let version = code.version;
                Ok(Turn { record, outbox: reply.outbox, code: Some(code), version })
            }
            Err(error) if error.is_transient() => Err(error.to_string()),
            Err(_) => Ok(Turn { record, outbox: Vec::new(), code: Some(code), version }),
        }
    }

    /// Runs what the slot asks of the code: a start or a change of version before its message.
    fn run(
        &self,
        code: &Code,
        version: u32,
        message: &Incoming,
        view: &mut Overlay<'_>,
    ) -> Outcome {
        let before = match version {
            0 => Some(CallKind::Init),
            other if other != code.version => Some(CallKind::Migrate { from_version: other }),
            _ => None,
        };
        let mut outcome = Outcome {
            result: Ok(Reply::default()),
            printed: String::new(),
            printed_truncated: false,
            fuel: 0,
        };
        if before == Some(CallKind::Init)
            && let Err(fault) = start(code, message, view)
        {
            return Outcome { result: Err(of_fault(fault)), ..outcome };
        }
        let words = Words::of(message);
        let handle = (!message.envelope.defines).then_some(CallKind::Handle);
        for kind in before.into_iter().chain(handle) {
            let is_handle = kind == CallKind::Handle;
            let call = Call {
                kind,
                message: is_handle.then(|| words.message(message, &code.definition)),
                class: &self.class,
                key: self.key.as_str(),
                slot: message.address.seq,
                now_ms: message.address.time_ms,
                seed: seed(self.partition, message.address.seq),
                version: code.version,
            };
            let module = &code.module;
            let run = || module.evaluate(call, view, &code.limits);
            let next = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Outcome {
                result: Err(GuestError::Guest { message: "the module panicked".into() }),
                printed: String::new(),
                printed_truncated: false,
                fuel: 0,
            });
            outcome.fuel += next.fuel;
            outcome.printed.push_str(&next.printed);
            outcome.printed_truncated |= next.printed_truncated;
            outcome.result = match (outcome.result, next.result) {
                (Ok(earlier), Ok(mut reply)) => {
                    reply.outbox.splice(0..0, earlier.outbox);
                    Ok(reply)
                }
                (_, result) => result,
            };
            if outcome.result.is_err() {
                break;
            }
        }
        outcome
    }

    /// The record of a message that was called off before its turn.
    pub(super) fn called_off(&self, message: &Incoming) -> SlotRecord {
        let fault = Some(Fault::new("cancelled", CALLED_OFF));
        let record = self.record(message, self.clock.now_ms());
        SlotRecord { status: SlotStatus::Cancelled, error: fault, ..record }
    }

    /// A record of a slot that is yet to be evaluated.
    fn record(&self, message: &Incoming, now_ms: u64) -> SlotRecord {
        let parent = message.envelope.origin.as_ref().map(|origin| origin.parent().id().into());
        SlotRecord {
            status: if message.envelope.defines { SlotStatus::Created } else { SlotStatus::Ok },
            version: 0,
            message_id: message.address.id().into(),
            from: message.from.clone(),
            cascade: message.root.id().into(),
            parent,
            trace_id: message.trace_id.map(uuid),
            depth: message.depth(),
            pushed_ms: message.address.time_ms,
            evaluated_ms: now_ms,
            took_us: 0,
            fuel: 0,
            output: None,
            output_truncated: false,
            printed: Box::default(),
            printed_truncated: false,
            error: None,
            outbox: Vec::new(),
        }
    }
}

/// Why the code of a slot is not run, where it is not.
fn passed_over(
    definition: &Definition,
    version: u32,
    message: &Incoming,
    now_ms: u64,
) -> Option<(SlotStatus, &'static str, &'static str)> {
    let until_ms = message.envelope.until_ms;
    match () {
        () if until_ms > 0 && until_ms < now_ms => {
            Some((SlotStatus::Expired, "expired", "its time was over"))
        }
        () if !definition.accepts(&message.from) => {
            let why = "the class takes no messages from this sender";
            Some((SlotStatus::Refused, "not_accepted", why))
        }
        () if !message.envelope.defines
            && !definition.codecs.contains(&Codec::of(message.is_json)) =>
        {
            let why = "the class takes no messages in this form";
            Some((SlotStatus::Refused, "codec_rejected", why))
        }
        () if definition.create == Create::Explicit
            && version == 0
            && !message.envelope.defines
            && message.envelope.spawn.is_none() =>
        {
            let why = "only its definition makes a process of this class";
            Some((SlotStatus::Refused, "process_not_found", why))
        }
        () if message.envelope.spawn.is_some() && version > 0 => {
            Some((SlotStatus::Refused, "process_exists", "the process exists already"))
        }
        () => None,
    }
}

impl SlotRecord {
    fn fail(&mut self, code: &str, why: impl Into<Box<str>>) {
        (self.status, self.error) = (SlotStatus::Failed, Some(Fault::new(code, why)));
    }

    fn take(&mut self, outcome: &Outcome) {
        self.fuel = outcome.fuel;
        self.printed = outcome.printed.as_str().into();
        self.printed_truncated = outcome.printed_truncated;
        match &outcome.result {
            Ok(reply) => {
                self.output_truncated = reply.output_truncated;
                self.output = reply.output.as_deref().and_then(raw);
            }
            Err(error) => self.fail(error.code(), error.to_string()),
        }
    }
}

/// JSON text as it stands; `None` where it is none.
pub(super) fn raw(text: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(text).ok()
}

/// The first state keys of an instance: those of its class, and those that it was made with.
fn start(code: &Code, message: &Incoming, view: &mut Overlay<'_>) -> Result<(), StateFault> {
    for (key, value) in &code.definition.init {
        view.put(key, value.get().to_owned().into())?;
    }
    let given = message.envelope.spawn.as_ref();
    let given: std::collections::BTreeMap<Box<str>, Box<RawValue>> =
        given.and_then(|given| serde_json::from_str(given.get()).ok()).unwrap_or_default();
    for (key, value) in given {
        view.put(&key, value.get().to_owned().into())?;
    }
    Ok(())
}

fn of_fault(fault: StateFault) -> GuestError {
    match fault {
        StateFault::Limit { what, limit } => GuestError::StateLimit { what, limit },
        StateFault::Unavailable(reason) => GuestError::StateUnavailable { reason },
    }
}

fn uuid(id: [u8; 16]) -> Box<str> {
    String::from_utf8_lossy(&uuid_text(id)).into()
}

/// Texts that a message lends to its code.
struct Words {
    id: String,
    cascade: String,
    parent: Option<String>,
}

impl Words {
    fn of(message: &Incoming) -> Self {
        let parent = message.envelope.origin.as_ref().map(|origin| origin.parent().id());
        Self { id: message.address.id(), cascade: message.root.id(), parent }
    }

    fn message<'a>(&'a self, message: &'a Incoming, definition: &Definition) -> Message<'a> {
        let origin = message.envelope.origin.as_ref();
        let parent = self.parent.as_deref();
        Message {
            payload: &message.payload,
            is_json: message.is_json,
            id: &self.id,
            transaction_id: message.transaction_id.as_deref().unwrap_or(&self.id),
            timestamp_ms: message.address.time_ms,
            from: &message.from,
            from_slot: origin.map(|origin| origin.parent().seq),
            from_index: origin.map(|origin| origin.index),
            cascade: &self.cascade,
            parent,
            depth: message.depth(),
            hops_left: message.hops_left(definition),
            in_reply_to: parent,
            reply_to: message.envelope.reply_to.as_deref(),
        }
    }
}

/// What random numbers of a slot come from: the same whenever it is evaluated.
fn seed(partition: PartitionNumber, slot: u64) -> u64 {
    let mut mixed = (u64::from(partition) << 32 ^ slot).wrapping_add(0x9e37_79b9_7f4a_7c15);
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        mixed = (mixed ^ mixed >> 30).wrapping_mul(multiplier);
    }
    mixed ^ mixed >> 31
}
