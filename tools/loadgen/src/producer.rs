//! One producer's side of a connection: push frames out, receipts in.
//!
//! In: a template, a pace, a window. Out: frames with numbered messages, and the record of which
//! numbers the server took, refused, or left open. A refusal for want of room is no error: the
//! numbers are noted, the connection pauses for as long as the server asked, and goes on with new
//! ones (sending the old ones again would overtake what was accepted since). Driven by the engine.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::response::{Failure, PushStatus, Receipts, SectionReceipt};
use onrush_protocol::{Code, Opcode, Outcome};

use crate::engine::{Answer, Dialogue};
use crate::numbers::{Ledger, Numbers, Share};
use crate::pace::Pace;
use crate::tally::Tally;
use crate::template::Template;

/// Pause after a refusal without advice, in nanoseconds.
const PAUSE_NS: u64 = 1_000_000;

/// What one producer is told.
pub(crate) struct ProducerTerms {
    /// The run's mark in the upper half, the producer's index in the lower.
    pub(crate) producer: u32,
    pub(crate) partitions: u32,
    /// Those of the partitions that it pushes to; `None` for all of them.
    pub(crate) route: Option<Arc<[u32]>>,
    /// The partition to begin with, so that producers do not walk in step.
    pub(crate) first_partition: u32,
    pub(crate) batch: u32,
    pub(crate) in_flight: usize,
    pub(crate) pace: Pace,
    /// Part of messages that repeat an earlier one's transaction id, 0 to 1.
    pub(crate) duplicates: f64,
    /// Stops after this many messages, in full batches.
    pub(crate) messages_max: u64,
    /// Begins nothing that is meant for then or later.
    pub(crate) end_ns: u64,
}

/// A producer.
pub(crate) struct Producer {
    terms: ProducerTerms,
    template: Template,
    /// How many batches in turn, over all partitions of its route.
    turn: u32,
    begun: u64,
    /// By place in the window; the low half of a request id says which.
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    /// The upper half of the next request id: tells two users of one place apart.
    generation: u32,
    seqs: Vec<u64>,
    paused_until_ns: u64,
    numbers: Numbers,
}

/// One request under way.
#[derive(Clone, Copy)]
struct Flight {
    generation: u32,
    intended_ns: u64,
    share: Share,
}

impl Producer {
    pub(crate) fn new(terms: ProducerTerms, template: Template) -> Self {
        let places = u32::try_from(terms.in_flight.max(1)).unwrap_or(u32::MAX);
        let ProducerTerms { partitions, batch, duplicates, producer, .. } = terms;
        Self {
            turn: terms.first_partition,
            begun: 0,
            flights: vec![None; places as usize],
            free: (0..places).rev().collect(),
            generation: 0,
            seqs: Vec::with_capacity(batch as usize),
            paused_until_ns: 0,
            numbers: Numbers::new(partitions, batch, duplicates, u64::from(producer)),
            terms,
            template,
        }
    }

    /// What became of its numbers.
    pub(crate) fn into_ledger(self) -> Ledger {
        self.numbers.ledger
    }

    /// Whether everything that it was meant to send was sent.
    fn is_finished(&self, now_ns: u64) -> bool {
        self.begun >= self.terms.messages_max
            || self.terms.pace.due_ns().unwrap_or(now_ns) >= self.terms.end_ns
    }

    /// Ends the flight that an answer belongs to.
    fn land(&mut self, request_id: u64) -> Result<Flight, String> {
        let (place, generation) = (request_id as u32, (request_id >> 32) as u32);
        let flight = self
            .flights
            .get_mut(place as usize)
            .and_then(|flight| flight.take_if(|flight| flight.generation == generation));
        let Some(flight) = flight else {
            return Err(format!("an answer to request {request_id}, which waits for none"));
        };
        self.free.push(place);
        Ok(flight)
    }

    fn next_partition(&mut self) -> u32 {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        match self.terms.route.as_deref() {
            Some(route) => {
                let at = turn as usize % route.len().max(1);
                route.get(at).copied().unwrap_or_default()
            }
            None => turn % self.terms.partitions.max(1),
        }
    }

    fn receipt(&mut self, tally: &mut Tally, now_ns: u64, flight: Flight, body: &[u8]) {
        match read_receipt(body) {
            Ok(Outcomes::Taken { count, duplicates, number }) => {
                self.numbers.learn(flight.share, number);
                if count != self.terms.batch {
                    tally.error("receipt for another number of messages", 1);
                }
                let wrong = duplicates.abs_diff(flight.share.repeated);
                tally.error("message wrongly told new from duplicate", u64::from(wrong));
                tally.duplicates += u64::from(duplicates);
                tally.answered(u64::from(count), flight.intended_ns, now_ns);
                self.numbers.accepted(flight.share);
            }
            Ok(Outcomes::Refused(failure)) => self.refuse(tally, now_ns, flight, &failure),
            Err(error) => {
                tally.error(&error, 1);
                self.numbers.unknown(flight.share);
            }
        }
    }

    fn refuse(&mut self, tally: &mut Tally, now_ns: u64, flight: Flight, failure: &Failure) {
        let code = failure.known();
        if code.is_none_or(|code| code.outcome() == Outcome::Unknown) {
            self.numbers.unknown(flight.share);
        } else {
            self.numbers.refused(flight.share);
        }
        match code {
            Some(Code::RingFull | Code::Busy) => tally.refused += u64::from(self.terms.batch),
            _ => tally.error(&describe(failure), 1),
        }
        let advice_ns = u64::from(failure.retry_after_ms) * 1_000_000;
        self.paused_until_ns = now_ns + advice_ns.max(PAUSE_NS);
    }
}

impl Dialogue for Producer {
    type Shared = Tally;

    fn speak(&mut self, _: &mut Tally, now_ns: u64, out: &mut Vec<u8>) {
        if now_ns < self.paused_until_ns {
            return;
        }
        while !self.is_finished(now_ns) {
            let intended_ns = self.terms.pace.due_ns().unwrap_or(now_ns);
            if intended_ns > now_ns {
                return;
            }
            let Some(place) = self.free.pop() else { return };
            let partition = self.next_partition();
            let share = self.numbers.next(partition, &mut self.seqs);
            let generation = self.generation;
            self.generation = self.generation.wrapping_add(1);
            let request_id = u64::from(generation) << 32 | u64::from(place);
            let producer = self.terms.producer;
            self.template.append(request_id, partition, producer, intended_ns, &self.seqs, out);
            if let Some(flight) = self.flights.get_mut(place as usize) {
                *flight = Some(Flight { generation, intended_ns, share });
            }
            self.begun += u64::from(self.terms.batch);
            self.terms.pace.advance();
        }
    }

    fn hear(&mut self, tally: &mut Tally, now_ns: u64, answer: &Answer<'_>) -> Result<(), String> {
        let flight = self.land(answer.request_id)?;
        match Opcode::from_number(answer.opcode) {
            Some(Opcode::Receipts) => self.receipt(tally, now_ns, flight, answer.body),
            Some(Opcode::Failure) => match Failure::decode(Bytes::copy_from_slice(answer.body)) {
                Ok(failure) => self.refuse(tally, now_ns, flight, &failure),
                Err(error) => return Err(error.to_string()),
            },
            _ => return Err(format!("opcode {} in answer to a push", answer.opcode)),
        }
        Ok(())
    }

    fn speaks_at(&self, _: &Tally, now_ns: u64) -> Option<u64> {
        if self.free.is_empty() || self.is_finished(now_ns) {
            return None;
        }
        let due_ns = self.terms.pace.due_ns().unwrap_or(0);
        Some(due_ns.max(self.paused_until_ns))
    }

    fn is_done(&self, _: &Tally, now_ns: u64) -> bool {
        self.free.len() == self.flights.len() && self.is_finished(now_ns)
    }

    fn lost(&mut self, tally: &mut Tally, now_ns: u64, reason: &str) {
        let mut outstanding = 0;
        for flight in self.flights.iter_mut().filter_map(Option::take) {
            self.numbers.unknown(flight.share);
            tally.unanswered(flight.intended_ns, now_ns);
            outstanding += 1;
        }
        tally.error(reason, outstanding.max(1));
        // What was due and never sent: the server was slower than the rate.
        while let Some(due_ns) = self.terms.pace.due_ns().filter(|due| *due < self.terms.end_ns) {
            tally.unsent += 1;
            tally.unanswered(due_ns, now_ns);
            self.terms.pace.advance();
        }
    }
}

/// What a push's one section came to.
enum Outcomes {
    Taken { count: u32, duplicates: u32, number: Option<u32> },
    Refused(Failure),
}

/// Reads the receipts of a push with one section. The two common shapes are read in place; they
/// are tens of thousands a second.
fn read_receipt(body: &[u8]) -> Result<Outcomes, String> {
    const PUSHED: u8 = 0;
    const BUFFERED: u8 = 2;
    let count = match body {
        [_, 1, 0, PUSHED, rest @ ..] if rest.len() == 24 => {
            rest.last_chunk::<4>().zip(Some(rest.first_chunk::<4>()))
        }
        [_, 1, 0, BUFFERED, rest @ ..] if rest.len() == 4 => rest.last_chunk::<4>().zip(Some(None)),
        _ => None,
    };
    if let Some((count, number)) = count {
        let number = number.map(|number| u32::from_le_bytes(*number));
        return Ok(Outcomes::Taken { count: u32::from_le_bytes(*count), duplicates: 0, number });
    }
    let receipts =
        Receipts::decode(Bytes::copy_from_slice(body)).map_err(|error| error.to_string())?;
    let mut sections = receipts.sections.into_iter();
    match (sections.next(), sections.next()) {
        (Some(SectionReceipt::Mixed { outcomes, partition }), None) => {
            let is_duplicate = |status| status == PushStatus::Duplicate;
            let duplicates = outcomes.iter().filter(|o| is_duplicate(o.status)).count() as u32;
            let (count, number) = (outcomes.len() as u32, Some(partition));
            Ok(Outcomes::Taken { count, duplicates, number })
        }
        (Some(SectionReceipt::Failed(failure)), None) => Ok(Outcomes::Refused(failure)),
        _ => Err("not one receipt for one section".to_owned()),
    }
}

/// A failure in a few words, the same for the same fault so that they can be counted.
pub(crate) fn describe(failure: &Failure) -> String {
    let name = failure.known().map_or("unknown code", Code::name);
    match failure.field.as_str() {
        "" => name.to_owned(),
        field => format!("{name} ({field})"),
    }
}
