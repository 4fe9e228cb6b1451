//! One consumer's side of a connection: pops out, messages in, acks out.
//!
//! In: what to pop and how many pops at once. Out: counts, and every message at the verifier.
//! Each pop's messages are acknowledged as ranges, in one write with the next pop. Partitions are
//! held under a lease until then, so no other connection can be handed later messages before the
//! earlier ones were seen here. Driven by the engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire};

use bytes::{Bytes, BytesMut};
use onrush_protocol::request::{Ack, AckItem, AckOutcome, Pop};
use onrush_protocol::response::{Acked, Failure, Messages, MessagesSection};
use onrush_protocol::{BatchLimits, Code, LongText, Opcode, RecordBatch, Request};

use crate::engine::{Answer, Dialogue};
use crate::producer::describe;
use crate::tally::Tally;
use crate::template::partition_index;
use crate::verify::Verifier;

/// Pause after a failed pop, in nanoseconds.
const PAUSE_NS: u64 = 10_000_000;

/// How many messages will come out, once that is known.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Messages accepted so far, each counted once.
    pub(crate) messages: AtomicU64,
    /// Whether no more are to come.
    pub(crate) is_final: AtomicBool,
}

/// What all consumers of one thread share.
pub(crate) struct Consumption {
    pub(crate) tally: Tally,
    /// `None` when messages are only counted.
    pub(crate) verifier: Option<Verifier>,
    /// Messages that came out, when nobody verifies.
    pub(crate) received: u64,
    pub(crate) expected: Arc<Expected>,
    /// When the last message came.
    pub(crate) last_ns: u64,
    /// It ends after this long without one, in nanoseconds.
    pub(crate) idle_ns: u64,
}

impl Consumption {
    fn received(&self) -> u64 {
        self.verifier.as_ref().map_or(self.received, Verifier::received)
    }

    /// Whether all has come, or nothing comes any more.
    fn is_over(&self, now_ns: u64) -> bool {
        if !self.expected.is_final.load(Acquire) {
            return false;
        }
        self.received() >= self.expected.messages.load(Acquire)
            || now_ns.saturating_sub(self.last_ns) > self.idle_ns
    }
}

/// One connection that pops and acknowledges.
pub(crate) struct Consumer {
    /// What is asked, again and again.
    pop: Pop,
    in_flight: usize,
    pops: usize,
    flights: HashMap<u64, Flight>,
    next_id: u64,
    /// Acks that go out with the next pop.
    acks: Vec<(Ack, u64, u64)>,
    paused_until_ns: u64,
    scratch: BytesMut,
}

enum Flight {
    Pop { sent_ns: u64 },
    Ack { sent_ns: u64, messages: u64 },
}

impl Consumer {
    pub(crate) fn new(pop: Pop, in_flight: usize) -> Self {
        Self {
            pop,
            in_flight: in_flight.max(1),
            pops: 0,
            flights: HashMap::new(),
            next_id: 1,
            acks: Vec::new(),
            paused_until_ns: 0,
            scratch: BytesMut::new(),
        }
    }

    fn send(&mut self, request: &Request, flight: Flight, out: &mut Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        self.scratch.clear();
        request.encode_frame(id, &mut self.scratch);
        out.extend_from_slice(&self.scratch);
        self.flights.insert(id, flight);
    }

    fn messages(
        &mut self,
        shared: &mut Consumption,
        now_ns: u64,
        sent_ns: u64,
        body: &[u8],
    ) -> Result<(), String> {
        // One copy of the answer: batches in it are slices of this memory.
        let answer =
            Messages::decode(Bytes::copy_from_slice(body)).map_err(|error| error.to_string())?;
        let (mut items, mut count) = (Vec::new(), 0);
        for section in &answer.sections {
            count += check(shared, now_ns, section, &mut items)?;
        }
        if count == 0 {
            return Ok(());
        }
        shared.last_ns = now_ns;
        if self.pop.auto_ack {
            shared.tally.answered(count, sent_ns, now_ns);
        } else {
            let (group, lease) = (self.pop.group.clone(), answer.lease);
            self.acks.push((Ack { group, lease, items }, sent_ns, count));
        }
        Ok(())
    }
}

/// Checks one partition's messages and notes the ranges to acknowledge.
fn check(
    shared: &mut Consumption,
    now_ns: u64,
    section: &MessagesSection,
    items: &mut Vec<AckItem>,
) -> Result<u64, String> {
    let limits = BatchLimits {
        batch_bytes_max: usize::MAX,
        message_bytes_max: usize::MAX,
        ..BatchLimits::default()
    };
    let partition = partition_index(section.partition_name.as_bytes());
    let mut total = 0;
    for chunk in &section.chunks {
        let Consumption { tally, verifier, received, .. } = &mut *shared;
        let count = match verifier {
            Some(verifier) => {
                let batch = RecordBatch::parse(chunk.batch.clone(), &limits)
                    .map_err(|error| format!("a batch that was handed out: {error}"))?;
                verifier.sequence(section.partition, chunk.first_seq, u64::from(batch.count()));
                for record in batch.records() {
                    if let Some(stamp) = verifier.message(partition, record.payload) {
                        tally.arrived(stamp.sent_ns, now_ns);
                    }
                }
                u64::from(batch.count())
            }
            None => {
                let batch = RecordBatch::parse_trusted(chunk.batch.clone())
                    .map_err(|error| format!("a batch that was handed out: {error}"))?;
                *received += u64::from(batch.count());
                u64::from(batch.count())
            }
        };
        total += count;
        let (first_seq, last_seq) = (chunk.first_seq, chunk.first_seq + count - 1);
        match items.last_mut() {
            Some(last) if last.partition == section.partition && last.last_seq + 1 == first_seq => {
                last.last_seq = last_seq;
            }
            _ => items.push(AckItem {
                partition: section.partition,
                first_seq,
                last_seq,
                outcome: AckOutcome::Completed,
                error: LongText::default(),
            }),
        }
    }
    Ok(total)
}

impl Dialogue for Consumer {
    type Shared = Consumption;

    fn speak(&mut self, shared: &mut Consumption, now_ns: u64, out: &mut Vec<u8>) {
        for (ack, sent_ns, messages) in std::mem::take(&mut self.acks) {
            self.send(&Request::Ack(ack), Flight::Ack { sent_ns, messages }, out);
        }
        if now_ns < self.paused_until_ns || shared.is_over(now_ns) {
            return;
        }
        while self.pops < self.in_flight {
            self.pops += 1;
            let request = Request::Pop(self.pop.clone());
            self.send(&request, Flight::Pop { sent_ns: now_ns }, out);
        }
    }

    fn hear(
        &mut self,
        shared: &mut Consumption,
        now_ns: u64,
        answer: &Answer<'_>,
    ) -> Result<(), String> {
        let Some(flight) = self.flights.remove(&answer.request_id) else {
            return Err(format!(
                "an answer to request {}, which waits for none",
                answer.request_id
            ));
        };
        if matches!(flight, Flight::Pop { .. }) {
            self.pops -= 1;
        }
        match (Opcode::from_number(answer.opcode), flight) {
            (Some(Opcode::Messages), Flight::Pop { sent_ns }) => {
                self.messages(shared, now_ns, sent_ns, answer.body)
            }
            (Some(Opcode::Acked), Flight::Ack { sent_ns, messages }) => {
                let acked = Acked::decode(Bytes::copy_from_slice(answer.body))
                    .map_err(|error| error.to_string())?;
                for item in acked.items.iter().filter(|item| item.code != 0) {
                    let name = Code::from_number(item.code).map_or("unknown code", Code::name);
                    shared.tally.error(&format!("ack: {name}"), 1);
                }
                shared.tally.answered(messages, sent_ns, now_ns);
                Ok(())
            }
            (Some(Opcode::Failure), _) => {
                let failure = Failure::decode(Bytes::copy_from_slice(answer.body))
                    .map_err(|error| error.to_string())?;
                shared.tally.error(&format!("pop: {}", describe(&failure)), 1);
                self.paused_until_ns = now_ns + PAUSE_NS;
                Ok(())
            }
            _ => Err(format!("opcode {} in answer to a pop or an ack", answer.opcode)),
        }
    }

    fn speaks_at(&self, shared: &Consumption, now_ns: u64) -> Option<u64> {
        if !self.acks.is_empty() {
            return Some(0);
        }
        if shared.is_over(now_ns) {
            return None;
        }
        (self.pops < self.in_flight).then_some(self.paused_until_ns)
    }

    fn is_done(&self, shared: &Consumption, now_ns: u64) -> bool {
        self.flights.is_empty() && self.acks.is_empty() && shared.is_over(now_ns)
    }

    fn lost(&mut self, shared: &mut Consumption, _: u64, reason: &str) {
        shared.tally.error(reason, (self.flights.len() as u64).max(1));
        self.flights.clear();
    }
}
