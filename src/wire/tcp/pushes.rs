//! Pushes of one connection that wait for their receipts.
//!
//! Receipts come section by section; when all of a push are there, its answer is encoded. Pure
//! bookkeeping; called by the connection.

use bytes::{Bytes, BytesMut};
use onrush_protocol::batch::{BatchError, RecordBatch};
use onrush_protocol::code::Code;
use onrush_protocol::response::{
    AckedItem, PushOutcome, PushStatus, Receipts, Response, SectionReceipt,
};

use crate::buffer::receipt::{Accepted, Delivery, Receipt, Stored};
use crate::state::draft::push::Pushed;
use crate::wire::tcp::{Config, failure};

/// What a section of receipts takes beside its outcomes, and what each outcome takes, bytes.
const RECEIPT_BYTES: usize = 32;
const OUTCOME_BYTES: usize = 17;

/// Bytes of the frame that an answer may still need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room(usize);

impl Room {
    /// All of a frame.
    pub(super) fn of(config: &Config) -> Self {
        Self(config.frame_bytes_max.saturating_sub(2 * RECEIPT_BYTES))
    }

    /// Takes off what the answers to so many acks need.
    pub(super) fn take_acks(&mut self, count: usize) {
        self.0 = self.0.saturating_sub(count * AckedItem::BYTES);
    }

    /// Takes off what the answer may need for a batch. Any record with an id may turn out to be a
    /// duplicate, and then there is an outcome for each record: an answer that no frame holds could not
    /// be given, after everything was done. What is no batch is refused later, with its reason.
    pub(super) fn take(&mut self, batch: &Bytes) -> Result<(), BatchError> {
        let outcomes = match RecordBatch::parse_trusted(batch.clone()) {
            Ok(batch) if batch.has_transaction_ids() => batch.count(),
            Ok(_) | Err(_) => 0,
        };
        let left = self.0.saturating_sub(RECEIPT_BYTES);
        let limit = left / OUTCOME_BYTES;
        if outcomes as usize > limit {
            return Err(BatchError::Count { count: outcomes, limit: limit as u32 });
        }
        self.0 = left - outcomes as usize * OUTCOME_BYTES;
        Ok(())
    }
}

/// Pushes by slot; a slot is the `request` of their signers.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    slots: Vec<Option<Waiting>>,
    free: Vec<usize>,
    /// Slots whose client was told that time ran out: a late receipt finds nobody.
    generation: u32,
    /// No push's time runs out before this, in the clock's microseconds.
    next_expiry_us: u64,
}

#[derive(Debug)]
struct Waiting {
    request_id: u64,
    generation: u32,
    started_us: u64,
    deadline_us: u64,
    missing: usize,
    is_store_away: bool,
    first: Option<SectionReceipt>,
    more: Vec<Option<SectionReceipt>>,
}

/// A push that has all its receipts.
#[derive(Debug)]
pub(super) struct Answered {
    /// When it came, in the clock's microseconds.
    pub(super) started_us: u64,
}

impl Pushes {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Opens a slot for a push of `sections` sections; returns the `request` for its signers.
    pub(super) fn open(
        &mut self,
        request_id: u64,
        sections: usize,
        started_us: u64,
        deadline_us: u64,
    ) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let others = if self.len() == 0 { u64::MAX } else { self.next_expiry_us };
        self.next_expiry_us = others.min(deadline_us);
        let waiting = Waiting {
            request_id,
            generation: self.generation,
            started_us,
            deadline_us,
            missing: sections,
            is_store_away: false,
            first: None,
            more: vec![None; sections.saturating_sub(1)],
        };
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(waiting),
            None => self.slots.push(Some(waiting)),
        }
        (u64::from(self.generation) << 32) | slot as u64
    }

    /// Takes a receipt from the engine.
    pub(super) fn deliver(&mut self, delivery: Delivery, out: &mut BytesMut) -> Option<Answered> {
        let Delivery { request, section, receipt } = delivery;
        if matches!(receipt, Ok(Accepted::Spilled { is_store_away: true, .. }))
            && let Some(waiting) = self.waiting_mut(request)
        {
            waiting.is_store_away = true;
        }
        self.fill(request, section, section_receipt(receipt), out)
    }

    /// Whether a push still waits for its receipts.
    pub(super) fn is_open(&self, request: u64) -> bool {
        let slot = (request & u64::from(u32::MAX)) as usize;
        let waiting = self.slots.get(slot).and_then(Option::as_ref);
        waiting.is_some_and(|it| u64::from(it.generation) == request >> 32)
    }

    /// When [`Self::expire`] may have something to do, in the clock's microseconds; `None` while nothing
    /// waits.
    pub(super) fn next_expiry_us(&self) -> Option<u64> {
        (self.len() > 0).then_some(self.next_expiry_us)
    }

    fn waiting_mut(&mut self, request: u64) -> Option<&mut Waiting> {
        let slot = (request & u64::from(u32::MAX)) as usize;
        let waiting = self.slots.get_mut(slot)?.as_mut();
        waiting.filter(|it| u64::from(it.generation) == request >> 32)
    }

    /// Takes a section's receipt; when it was the last one, encodes the answer.
    pub(super) fn fill(
        &mut self,
        request: u64,
        section: u32,
        receipt: SectionReceipt,
        out: &mut BytesMut,
    ) -> Option<Answered> {
        let slot = (request & u64::from(u32::MAX)) as usize;
        let place = self.slots.get_mut(slot)?;
        let waiting = place.as_mut().filter(|it| u64::from(it.generation) == request >> 32)?;
        let target = match section.checked_sub(1) {
            None => &mut waiting.first,
            Some(at) => waiting.more.get_mut(at as usize)?,
        };
        if target.replace(receipt).is_none() {
            waiting.missing -= 1;
        }
        if waiting.missing > 0 {
            return None;
        }
        let waiting = place.take()?;
        self.free.push(slot);
        let sections = waiting.first.into_iter().chain(waiting.more.into_iter().flatten());
        let sections = sections.collect();
        answer(waiting.request_id, !waiting.is_store_away, sections, out);
        Some(Answered { started_us: waiting.started_us })
    }

    /// Answers pushes whose time ran out: what became of them is unknown.
    pub(super) fn expire(&mut self, now_us: u64, out: &mut BytesMut) {
        if self.next_expiry_us().is_none_or(|at_us| now_us < at_us) {
            return;
        }
        self.next_expiry_us = u64::MAX;
        for (slot, place) in self.slots.iter_mut().enumerate() {
            let Some(deadline_us) = place.as_ref().map(|it| it.deadline_us) else { continue };
            if deadline_us > now_us {
                self.next_expiry_us = self.next_expiry_us.min(deadline_us);
            } else if let Some(waiting) = place.take() {
                self.free.push(slot);
                let failure = failure::plain(Code::TimedOut, &"the push was not committed in time");
                Response::Failure(failure).encode_frame(waiting.request_id, out);
            }
        }
    }
}

fn answer(request_id: u64, store_healthy: bool, sections: Vec<SectionReceipt>, out: &mut BytesMut) {
    let is_buffered = |it: &SectionReceipt| matches!(it, SectionReceipt::Buffered { .. });
    let receipts = Receipts { buffered: sections.iter().any(is_buffered), store_healthy, sections };
    Response::Receipts(receipts).encode_frame(request_id, out);
}

/// A receipt as the protocol has it.
pub(super) fn section_receipt(receipt: Receipt) -> SectionReceipt {
    let Stored { partition, pushed } = match receipt {
        Ok(Accepted::Stored(stored)) => stored,
        Ok(Accepted::Spilled { count, .. }) => return SectionReceipt::Buffered { count },
        Err(refusal) => return SectionReceipt::Failed(failure::refusal(&refusal)),
    };
    match pushed {
        Pushed::Stored { first_seq, count, time_ms } => {
            SectionReceipt::Pushed { partition, first_seq, time_ms, count }
        }
        Pushed::Mixed(outcomes) => {
            let outcome = |it: &crate::state::draft::push::RecordOutcome| PushOutcome {
                status: if it.duplicate { PushStatus::Duplicate } else { PushStatus::Pushed },
                seq: it.message.seq,
                time_ms: it.message.time_ms,
            };
            let outcomes = outcomes.iter().map(outcome).collect();
            SectionReceipt::Mixed { partition, outcomes }
        }
    }
}
