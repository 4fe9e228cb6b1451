//! From evaluated slots to one transaction: all of it stands, or nothing.
//!
//! In: what slots came to, and the catalog as it is. Out: the ack of the slots, the instance's state
//! keys, their records, what they sent as batches for its targets, and what their cascades count. An
//! entry goes to its target with a transaction id that is made of its source alone, so that it can
//! never come there twice. What does not go anywhere is refused: kept as a letter, or parked, as the
//! sender's class says.

mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::{BatchBuilder, BatchError};
use onrush_protocol::name::PartitionName;

use crate::base::place::{PartitionNumber, QueueId};
use crate::process::codec::Said;
use crate::process::definition::{Definition, Mode, OnError};
use crate::process::envelope::{Envelope, Origin, Terms, triple};
use crate::process::evaluate::{Done, Evaluated, Job, raw};
use crate::process::incoming::{ANY_HOPS, Incoming};
use crate::process::instance::version_value;
use crate::process::keys::{
    Address, CASCADES, DEAD, EFFECTS, META, PARKED, RESULTS, STATE, STOPPED, TIMERS, VERSION,
    child_key, dead_key, reply_key, skip_key, slot_key, timer_key,
};
use crate::process::outgoing::{Outgoing, Parts, count};
use crate::process::record::{EntryRecord, EntryStatus, Fault, Letter, SlotStatus};
use crate::process::route::{Entry, Route, Signpost, no};
use crate::shard::transaction::{PlaceNote, StateChanges, StateOwner};
use crate::state::catalog::{Catalog, QueueDefinition};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::{LeaseToken, OwnerId};
use crate::state::tally::{Tally, TallyChange};

/// What one step is to change, but for the ack.
#[derive(Default)]
pub(super) struct Step {
    /// Leases that must live, beside the one that is settled.
    pub(super) leases: Vec<LeaseToken>,
    /// Whether all state of the instance goes before it.
    pub(super) wipes: bool,
    pub(super) states: Vec<StateChanges>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) notes: Vec<PlaceNote>,
    /// Cascades whose tallies `states` counts on, by index.
    pub(super) tallied: HashMap<usize, Address>,
    /// Whether it puts something to the desk that waits.
    pub(super) has_waiting: bool,
    /// Messages, and cascades by their first, that somebody may wait for.
    pub(super) roots: Vec<Address>,
}

/// A batch that grows.
struct Growing {
    queue: Arc<QueueDefinition>,
    partition: PartitionName,
    builder: BatchBuilder,
    runs: bool,
    is_auto: bool,
}

/// Makes a step.
pub(super) struct Builder<'a> {
    job: &'a Job,
    signs: Signpost<'a>,
    /// The partition that keeps what waits; see `desk`.
    desk: PartitionNumber,
    /// Tallies that refused what was to be counted.
    known: &'a HashMap<Address, Tally>,
    /// Targets that take nothing, and why.
    closed: &'a HashMap<(QueueId, PartitionName), Fault>,
    growing: Vec<Growing>,
    open: HashMap<(QueueId, PartitionName), usize>,
    notes: Vec<PlaceNote>,
    tallies: HashMap<Address, TallyChange>,
    /// Ids of its guest's own that entries of the slot have by now, with where those go.
    suffixes: HashSet<(Box<str>, Box<str>)>,
    /// State keys by owner and partition, in the order in which they were first met.
    changes: Vec<((OwnerId, PartitionNumber), Vec<StateOp>)>,
    places: HashMap<(OwnerId, PartitionNumber), usize>,
    now_ms: u64,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        job: &'a Job,
        catalog: &'a Catalog,
        desk: PartitionNumber,
        known: &'a HashMap<Address, Tally>,
        closed: &'a HashMap<(QueueId, PartitionName), Fault>,
    ) -> Self {
        Self {
            job,
            signs: Signpost { job, catalog },
            desk,
            known,
            closed,
            growing: Vec::new(),
            open: HashMap::new(),
            notes: Vec::new(),
            tallies: HashMap::new(),
            suffixes: HashSet::new(),
            changes: Vec::new(),
            places: HashMap::new(),
            now_ms: job.clock.now_ms(),
        }
    }

    /// The step of what was evaluated. Fills in what became of outboxes.
    pub(super) fn build(
        mut self,
        incoming: &[Incoming],
        evaluated: &mut Evaluated,
        earlier_version: u32,
    ) -> Step {
        let partition = self.job.partition;
        let mut roots = Vec::new();
        for done in &mut evaluated.done {
            let Some(message) = incoming.get(done.at) else { continue };
            self.slot(message, done);
            roots.push(message.root);
            if !message.is_root() {
                roots.push(message.address);
            }
            if done.record.status == SlotStatus::Skipped {
                let key = skip_key(message.address.seq);
                self.change(META, partition, StateOp::Remove { key });
            }
            let value = serde_json::to_vec(&done.record).unwrap_or_default().into();
            let key = slot_key(message.address.seq);
            self.change(RESULTS, partition, StateOp::Put { key, value });
        }
        for (key, value) in &evaluated.dirty {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let op = match value.clone() {
                Some(value) => StateOp::Put { key, value },
                None => StateOp::Remove { key },
            };
            self.change(STATE, partition, op);
        }
        if evaluated.version != earlier_version {
            let (key, value) = (Bytes::from_static(VERSION), version_value(evaluated.version));
            self.change(META, partition, StateOp::Put { key, value });
        }
        if let Some(why) = &evaluated.stopped {
            let value = Bytes::copy_from_slice(why.as_bytes());
            let key = Bytes::from_static(STOPPED);
            self.change(META, partition, StateOp::Put { key, value });
        }
        Step { wipes: evaluated.wiped, ..self.finish(roots) }
    }

    fn finish(self, roots: Vec<Address>) -> Step {
        let Self { growing, notes, tallies, changes, .. } = self;
        let waits = |owner: OwnerId| [TIMERS, PARKED, EFFECTS].contains(&owner);
        let has_waiting = changes.iter().any(|((owner, _), _)| waits(*owner));
        let mut states: Vec<StateChanges> = changes
            .into_iter()
            .map(|((owner, partition), ops)| StateChanges {
                owner: StateOwner::Number(owner),
                partition,
                ops,
                may_miss: owner != STATE && owner != RESULTS,
            })
            .collect();
        let mut tallied = HashMap::new();
        for (root, change) in tallies {
            tallied.insert(states.len(), root);
            states.push(count(root, change));
        }
        let finished = growing.into_iter().filter_map(|mut growing| {
            let batch = growing.builder.finish()?;
            let Growing { queue, partition, runs, is_auto, .. } = growing;
            Some(Outgoing { queue, partition, batch, runs, is_auto, claim: None })
        });
        let outgoing = finished.collect();
        Step { states, outgoing, notes, tallied, has_waiting, roots, ..Step::default() }
    }

    /// One slot: its entries, and what its cascade counts.
    fn slot(&mut self, message: &Incoming, done: &mut Done) {
        let mut change = TallyChange { depth: message.depth(), ..TallyChange::default() };
        match message.is_root() {
            true => change.messages = 1,
            false => change.pending = -1,
        }
        change.errors = i64::from(done.record.status.is_error());
        // State that was taken away does not come back.
        let is_certain = matches!(done.record.status, SlotStatus::Cancelled | SlotStatus::Reset);
        change.unless_cancelled = !is_certain;
        let definition = done.code.as_ref().map(|code| &code.definition);
        if let Some(definition) = definition {
            change.messages_max = message.messages_max(definition).min(i64::MAX as u64) as i64;
        }
        let is_alone = message.is_root() && done.outbox.is_empty();
        self.add(message.root, &change, is_alone);
        let Some(code) = done.code.clone() else { return };
        done.record.outbox.clear();
        self.suffixes.clear();
        for (index, entry) in (1..).zip(&done.outbox) {
            let (said, fault) = Said::read(&entry.payload);
            let entry = Entry { message, definition: &code.definition, index, entry, said };
            let record = self.entry(entry, fault);
            done.record.outbox.push(record);
        }
        let is_dead = match done.record.status {
            SlotStatus::Failed => code.definition.on_error == OnError::Dlq,
            SlotStatus::Expired => true,
            // Whoever pushed it knows and has it; what a process sent, nobody has.
            SlotStatus::Refused => !message.is_root(),
            _ => false,
        };
        if is_dead {
            self.bury_own(message, done);
        }
    }

    /// Counts on the tally of a cascade. One that is over with its first message needs none.
    fn add(&mut self, root: Address, change: &TallyChange, is_alone: bool) {
        if is_alone && !self.tallies.contains_key(&root) && !self.known.contains_key(&root) {
            return;
        }
        let sum = self.tallies.entry(root).or_default();
        sum.pending += change.pending;
        sum.messages += change.messages;
        sum.errors += change.errors;
        sum.refused += change.refused;
        sum.truncated += change.truncated;
        sum.lost += change.lost;
        sum.depth = sum.depth.max(change.depth);
        sum.messages_max = sum.messages_max.max(change.messages_max);
        sum.unless_cancelled |= change.unless_cancelled;
    }

    fn change(&mut self, owner: OwnerId, partition: PartitionNumber, op: StateOp) {
        let place = (owner, partition);
        let next = self.changes.len();
        let at = *self.places.entry(place).or_insert(next);
        if at == next {
            self.changes.push((place, Vec::new()));
        }
        if let Some((_, ops)) = self.changes.get_mut(at) {
            ops.push(op);
        }
    }

    /// Sends an entry, or finds out why not.
    fn entry(&mut self, mut entry: Entry<'_>, fault: Option<Fault>) -> EntryRecord {
        let Entry { message, definition, index, entry: sent, .. } = entry;
        let mut record = EntryRecord {
            index,
            target: sent.target.as_deref().map(Into::into),
            status: EntryStatus::Sent,
            to: None,
            error: None,
        };
        let hops = message.hops_left(definition);
        let route = self.signs.route(&entry);
        // What is refused by a limit can be sent after all: its letter says where to.
        let name = match &route {
            Route::Queue(queue, partition, true) => {
                format!("{}/{}", queue.name, partition.as_str())
            }
            Route::Queue(queue, partition, false) => {
                format!("queue:{}/{}", queue.name, partition.as_str())
            }
            Route::Unknown(name) => name.to_string(),
            Route::Outside(call, _) => call.name(),
            Route::Reply | Route::No(..) => sent.target.clone().unwrap_or_default(),
        };
        let route = match (self.limited(&entry, hops, route), fault) {
            (Route::No(why), _) => Route::No(why),
            (_, Some(fault)) => Route::No(fault),
            (route, None) => self.coded(&mut entry, route),
        };
        let route = self.only_once(&entry, &name, route);
        let sending = Sending { entry: &entry, name: &name, hops };
        match route {
            Route::Reply => {
                let (address, root) = (message.address, message.root);
                let key = reply_key(root, address.partition, address.seq, index);
                let value = entry.said.as_json();
                self.change(CASCADES, root.partition, StateOp::Put { key, value });
                record.status = EntryStatus::Replied;
            }
            Route::Queue(queue, partition, is_process) => {
                record.to = Some(name.as_str().into());
                record.status = match self.send(&sending, queue, partition, is_process) {
                    Ok(status) => status,
                    Err(error) => return self.too_large(&sending, &error, record),
                };
            }
            Route::Outside(call, answer_to) => {
                record.to = Some(name.as_str().into());
                record.status = match self.call(&sending, call, answer_to) {
                    Ok(status) => status,
                    Err(error) => return self.too_large(&sending, &error, record),
                };
            }
            Route::Unknown(to) => return self.unknown(&sending, &to, record),
            Route::No(fault) => {
                self.refuse(&sending, &fault);
                (record.status, record.error) = (EntryStatus::Refused, Some(fault));
            }
        }
        record
    }

    /// A route, unless its target takes nothing in this form.
    fn coded(&self, entry: &mut Entry<'_>, route: Route) -> Route {
        let Route::Queue(queue, _, true) = &route else { return route };
        match self.signs.said(&entry.said, queue) {
            Ok(said) => {
                entry.said = said;
                route
            }
            Err(fault) => Route::No(fault),
        }
    }

    /// A route, unless the slot has sent something with the same id of its guest's own there: the second
    /// would be taken for the first, and its cascade would wait for it for ever.
    fn only_once(&mut self, entry: &Entry<'_>, name: &str, route: Route) -> Route {
        let Some(suffix) = &entry.entry.transaction_suffix else { return route };
        let goes = matches!(route, Route::Queue(..) | Route::Unknown(_));
        if goes && !self.suffixes.insert((name.into(), suffix.as_str().into())) {
            return no("duplicate", format!("the slot has sent '{suffix}' there before"));
        }
        route
    }

    /// A route, unless a limit of the cascade ends it or its target is closed.
    fn limited(&self, entry: &Entry<'_>, hops: u32, route: Route) -> Route {
        let Entry { message, definition, .. } = entry;
        if !matches!(route, Route::Queue(..) | Route::Unknown(_) | Route::Outside(..)) {
            return route;
        }
        if hops == 0 {
            return no("hop_limit", "as many messages followed one after the other as may");
        }
        if self.is_full(message.root, definition, message) {
            return no("cascade_limit", "the cascade has as many messages as it may");
        }
        let Route::Queue(queue, partition, _) = &route else { return route };
        if self.closed.is_empty() {
            return route;
        }
        let closed = self.closed.get(&(queue.id, partition.clone()));
        closed.map_or(route, |fault| Route::No(fault.clone()))
    }

    /// Whether a cascade has as many messages as it may, as far as that is known.
    fn is_full(&self, root: Address, definition: &Definition, message: &Incoming) -> bool {
        let Some(known) = self.known.get(&root) else { return false };
        let added = self.tallies.get(&root).map_or(0, |change| change.messages);
        let most = message.messages_max(definition).min(i64::MAX as u64) as i64;
        known.messages + added >= most
    }

    /// An entry that is larger than a message may be.
    fn too_large(
        &mut self,
        sending: &Sending<'_>,
        error: &BatchError,
        record: EntryRecord,
    ) -> EntryRecord {
        let fault = Fault::new("payload_too_large", error.to_string());
        self.refuse(sending, &fault);
        EntryRecord { status: EntryStatus::Refused, error: Some(fault), ..record }
    }

    /// Puts an entry into the batch for its target, or among the timers.
    fn send(
        &mut self,
        sending: &Sending<'_>,
        queue: Arc<QueueDefinition>,
        partition: PartitionName,
        is_process: bool,
    ) -> Result<EntryStatus, BatchError> {
        let pending = TallyChange { pending: 1, messages: 1, ..TallyChange::default() };
        if let Some(delay_ms) = sending.entry.entry.delay_ms.filter(|delay| *delay > 0) {
            let due_ms = self.now_ms.saturating_add(delay_ms);
            let letter = self.letter(sending, None, 0);
            letter.fits()?;
            self.wait(TIMERS, timer_key(due_ms, &sending.child_key()), &letter);
            self.add(sending.root(), &pending, false);
            return Ok(EntryStatus::Delayed);
        }
        let mode = if is_process { self.job.mode_of(self.signs.catalog, &queue) } else { None };
        let runs = mode == Some(Mode::Manual) && sending.entry.message.lets_run();
        let envelope = || Envelope { runs, ..self.envelope(sending) }.write();
        let envelope = is_process.then(envelope);
        let id = self.transaction_id(sending.entry);
        let Said { payload, is_json, .. } = &sending.entry.said;
        let trace_id = sending.entry.message.trace_id;
        let record = Parts { id: &id, envelope: envelope.as_deref(), payload, trace_id };
        let (append, record) = self.put(queue, partition, &record, *is_json)?;
        if let Some(growing) = self.growing.get_mut(append) {
            growing.runs |= runs;
            growing.is_auto = mode == Some(Mode::Auto);
        }
        self.notes.push(PlaceNote {
            append,
            record,
            owner: CASCADES,
            partition: Some(sending.root().partition),
            key: sending.child_key(),
        });
        let queued = TallyChange { messages: 1, ..TallyChange::default() };
        self.add(sending.root(), if is_process { &pending } else { &queued }, false);
        Ok(if is_process { EntryStatus::Sent } else { EntryStatus::Queued })
    }

    /// Adds a record to the batch for its target; returns where it is.
    fn put(
        &mut self,
        queue: Arc<QueueDefinition>,
        partition: PartitionName,
        record: &Parts<'_>,
        is_json: bool,
    ) -> Result<(usize, usize), BatchError> {
        let place = (queue.id, partition.clone());
        if let Some(at) = self.open.get(&place).copied()
            && let Some(growing) = self.growing.get_mut(at)
        {
            let index = growing.builder.count() as usize;
            match record.put_as(&mut growing.builder, is_json) {
                Ok(()) => return Ok((at, index)),
                // It may fit the next one.
                Err(BatchError::Count { .. } | BatchError::TooLarge { field: "batch", .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut builder = BatchBuilder::new();
        record.put_as(&mut builder, is_json)?;
        let at = self.growing.len();
        self.growing.push(Growing { queue, partition, builder, runs: false, is_auto: false });
        self.open.insert(place, at);
        Ok((at, 0))
    }

    /// Keeps an entry that goes nowhere as a letter, with its cascade.
    fn refuse(&mut self, sending: &Sending<'_>, fault: &Fault) {
        let is_limit = matches!(&*fault.code, "hop_limit" | "cascade_limit");
        let letter = self.letter(sending, Some(fault), 0);
        self.bury(sending.root(), &sending.child_key(), &letter, i64::from(is_limit));
    }

    /// Keeps the message of a slot itself.
    fn bury_own(&mut self, message: &Incoming, done: &Done) {
        let fault = done.record.error.clone();
        let fault = fault.unwrap_or_else(|| Fault::new("failed", "it failed"));
        let letter = Letter::of_message(message, self.job.name(), fault, self.now_ms);
        let Address { partition, seq, .. } = message.address;
        self.bury(message.root, &child_key(message.root, partition, seq, 0), &letter, 0);
    }

    fn bury(&mut self, root: Address, child: &[u8], letter: &Letter, truncated: i64) {
        let change = TallyChange { refused: 1, truncated, ..TallyChange::default() };
        self.add(root, &change, false);
        let value = serde_json::to_vec(letter).unwrap_or_default().into();
        self.change(DEAD, self.desk, StateOp::Put { key: dead_key(root, child), value });
    }

    fn letter(&self, sending: &Sending<'_>, fault: Option<&Fault>, until_ms: u64) -> Letter {
        let Entry { message, said, .. } = sending.entry;
        let (payload, base64) = said.as_kept();
        let (code, reason) = fault
            .map_or_else(Default::default, |fault| (fault.code.clone(), fault.message.clone()));
        Letter {
            target: sending.name.into(),
            call: None,
            code,
            reason,
            cascade: message.root.id().into(),
            since_ms: self.now_ms,
            until_ms,
            transaction_id: match fault {
                // Sent after all, it must not be taken for the one that it was refused for.
                Some(fault) if &*fault.code == "duplicate" => self.id_by_index(sending.entry),
                _ => self.transaction_id(sending.entry),
            }
            .into(),
            envelope: raw(&self.envelope(sending).write()).unwrap_or_default(),
            payload: raw(&payload).unwrap_or_default(),
            base64,
            trace_id: message.trace_id,
        }
    }

    /// The same for the same source, whenever and by whomever it is evaluated.
    fn transaction_id(&self, entry: &Entry<'_>) -> String {
        let (partition, slot) = (self.job.partition, entry.message.address.seq);
        match &entry.entry.transaction_suffix {
            Some(suffix) => format!("p:{partition}:{slot}:s:{suffix}"),
            None => self.id_by_index(entry),
        }
    }

    fn id_by_index(&self, entry: &Entry<'_>) -> String {
        format!("p:{}:{}:{}", self.job.partition, entry.message.address.seq, entry.index)
    }

    fn envelope(&self, sending: &Sending<'_>) -> Envelope {
        let Entry { message, definition, index, entry, .. } = sending.entry;
        let hops = match sending.hops {
            ANY_HOPS => ANY_HOPS,
            hops => hops.saturating_sub(1),
        };
        let until_ms = entry.ttl_ms.map_or(0, |ttl| self.now_ms.saturating_add(ttl));
        Envelope {
            terms: Terms {
                hops: Some(hops),
                messages_max: message.messages_max(definition),
                max_depth: message.envelope.terms.max_depth,
            },
            origin: Some(Origin {
                root: triple(message.root),
                parent: triple(message.address),
                index: *index,
                from: self.job.name().into(),
                depth: message.depth().saturating_add(1),
            }),
            reply_to: entry.reply_to.as_deref().map(Into::into),
            until_ms,
            spawn: entry.spawn_init.as_deref().and_then(raw),
            sub: None,
            timer: None,
            defines: false,
            resets: false,
            runs: false,
        }
    }
}

/// An entry that goes somewhere, or would.
struct Sending<'a> {
    entry: &'a Entry<'a>,
    /// Where to, by its full name.
    name: &'a str,
    hops: u32,
}

impl Sending<'_> {
    fn root(&self) -> Address {
        self.entry.message.root
    }

    fn child_key(&self) -> Bytes {
        let address = self.entry.message.address;
        child_key(self.root(), address.partition, address.seq, self.entry.index)
    }
}
