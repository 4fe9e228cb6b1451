//! The two sides of an HTTP run: one that pushes, one that pops.
//!
//! In: a connection and what to do with it. Out: counts in the shared tally, numbers in a ledger,
//! messages at the verifier. Each has one request under way, as HTTP/1.1 wants it; connections
//! make the concurrency. Spawned by `http`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use onrush_protocol::MessageId;

use super::body::{self, PushBody};
use super::exchange::{Exchange, Reply};
use crate::clock::{Clock, Span};
use crate::numbers::{Ledger, Numbers, Share};
use crate::pace::Pace;
use crate::tally::Tally;
use crate::template::partition_index;
use crate::verify::Verifier;

/// Pause after a refusal.
const PAUSE: Duration = Duration::from_millis(5);

/// How long one pop waits at the server, in milliseconds.
const WAIT_MS: u32 = 200;

/// One connection that pushes.
pub(super) struct Producer {
    pub(super) exchange: Exchange,
    pub(super) body: PushBody,
    pub(super) numbers: Numbers,
    pub(super) pace: Pace,
    pub(super) partitions: u32,
    pub(super) partition: u32,
    pub(super) batch: u32,
    pub(super) messages_max: u64,
}

impl Producer {
    /// Pushes until the span ends; returns what became of its numbers.
    pub(super) async fn run(
        mut self,
        clock: Clock,
        span: Span,
        tally: Rc<RefCell<Tally>>,
    ) -> Ledger {
        let (mut begun, mut seqs) = (0, Vec::new());
        loop {
            let due_ns = self.pace.due_ns();
            let intended_ns = due_ns.unwrap_or_else(|| clock.now_ns());
            if intended_ns >= span.end_ns || begun >= self.messages_max {
                break;
            }
            if clock.now_ns() >= span.give_up_ns {
                let mut tally = tally.borrow_mut();
                tally.unsent += 1;
                tally.unanswered(intended_ns, clock.now_ns());
                self.pace.advance();
                continue;
            }
            let early_ns = intended_ns.saturating_sub(clock.now_ns());
            if early_ns > 0 {
                tokio::time::sleep(Duration::from_nanos(early_ns)).await;
            }
            self.pace.advance();
            begun += u64::from(self.batch);
            let partition = self.partition;
            self.partition = (partition + 1) % self.partitions.max(1);
            let share = self.numbers.next(partition, &mut seqs);
            let body = Bytes::from(self.body.write(partition, intended_ns, &seqs));
            match self.exchange.ask(Method::POST, "/api/v1/push", body).await {
                Ok(reply) => {
                    let now_ns = clock.now_ns();
                    if !self.take(&reply, share, intended_ns, now_ns, &mut tally.borrow_mut()) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(reason) => {
                    self.numbers.unknown(share);
                    let mut tally = tally.borrow_mut();
                    tally.unanswered(intended_ns, clock.now_ns());
                    tally.error(&reason, 1);
                    break;
                }
            }
        }
        self.numbers.ledger
    }

    /// Takes one answer; `false` when the server wants a pause.
    fn take(
        &mut self,
        reply: &Reply,
        share: Share,
        intended_ns: u64,
        now_ns: u64,
        tally: &mut Tally,
    ) -> bool {
        match body::read_push(&reply.body) {
            Ok(said) if said.failures == 0 && said.taken == self.batch => {
                let wrong = said.duplicates.abs_diff(share.repeated);
                tally.error("message wrongly told new from duplicate", u64::from(wrong));
                tally.duplicates += u64::from(said.duplicates);
                tally.answered(u64::from(said.taken), intended_ns, now_ns);
                self.numbers.accepted(share);
                true
            }
            Ok(said) if said.taken == 0 && said.failures > 0 => {
                let code = said.failed.unwrap_or_default();
                self.refuse(&code, share, tally);
                false
            }
            Ok(_) => {
                // Some of it was taken, and it does not say which in order.
                tally.error("push taken in part", 1);
                self.numbers.unknown(share);
                false
            }
            Err(error) => {
                let is_busy = reply.status == StatusCode::TOO_MANY_REQUESTS;
                let refusal = reply.refusal().unwrap_or(error);
                self.refuse(if is_busy { "busy" } else { &refusal }, share, tally);
                false
            }
        }
    }

    fn refuse(&mut self, code: &str, share: Share, tally: &mut Tally) {
        if matches!(code, "busy" | "ring_full") {
            tally.refused += u64::from(self.batch);
            self.numbers.refused(share);
        } else {
            tally.error(code, 1);
            self.numbers.unknown(share);
        }
    }
}

/// What all connections that pop share.
pub(super) struct Popping {
    pub(super) tally: Tally,
    pub(super) verifier: Option<Verifier>,
    pub(super) received: u64,
    /// How many will come out, once that is known.
    pub(super) expected: Option<u64>,
    pub(super) last_ns: u64,
    pub(super) idle_ns: u64,
}

impl Popping {
    fn is_over(&self, now_ns: u64) -> bool {
        let Some(expected) = self.expected else { return false };
        let received = self.verifier.as_ref().map_or(self.received, Verifier::received);
        received >= expected || now_ns.saturating_sub(self.last_ns) > self.idle_ns
    }
}

/// One connection that pops and acknowledges.
pub(super) struct Consumer {
    pub(super) exchange: Exchange,
    pub(super) path: String,
    pub(super) group: String,
}

impl Consumer {
    pub(super) fn path(queue: &str, group: &str, batch: u32, partitions: u16) -> String {
        format!(
            "/api/v1/pop/queue/{queue}?batch={batch}&partitions={partitions}&wait=true\
             &timeout={WAIT_MS}&consumerGroup={group}"
        )
    }

    /// Pops until all has come, or nothing comes any more.
    pub(super) async fn run(mut self, clock: Clock, shared: Rc<RefCell<Popping>>) {
        while !shared.borrow().is_over(clock.now_ns()) {
            if let Err(reason) = self.round(clock, &shared).await {
                shared.borrow_mut().tally.error(&reason, 1);
                return;
            }
        }
    }

    async fn round(&mut self, clock: Clock, shared: &RefCell<Popping>) -> Result<(), String> {
        let sent_ns = clock.now_ns();
        let reply = self.exchange.ask(Method::GET, &self.path, Bytes::new()).await?;
        if let Some(refusal) = reply.refusal() {
            shared.borrow_mut().tally.error(&format!("pop: {refusal}"), 1);
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        }
        if reply.status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        let messages = body::read_pop(&reply.body)?;
        if messages.is_empty() {
            return Ok(());
        }
        let now_ns = clock.now_ns();
        {
            let Popping { tally, verifier, received, last_ns, .. } = &mut *shared.borrow_mut();
            *last_ns = now_ns;
            *received += messages.len() as u64;
            for message in &messages {
                let Some(verifier) = verifier.as_mut() else { break };
                if let Ok((_, partition, seq)) = message.id.parse().map(MessageId::parts) {
                    verifier.sequence(partition, seq, 1);
                }
                let partition = partition_index(message.partition.as_bytes());
                if let Some(stamp) = verifier.message(partition, &body::unhex(&message.data)) {
                    tally.arrived(stamp.sent_ns, now_ns);
                }
            }
        }
        let acks = Bytes::from(body::write_acks(&self.group, &messages)?);
        let reply = self.exchange.ask(Method::POST, "/api/v1/ack/batch", acks).await?;
        let tally = &mut shared.borrow_mut().tally;
        if let Some(refusal) = reply.refusal() {
            tally.error(&format!("ack: {refusal}"), 1);
            return Ok(());
        }
        let (done, refused) = body::read_acks(&reply.body)?;
        if let Some(refused) = refused {
            tally.error(&format!("ack: {refused}"), messages.len() as u64 - done);
        }
        tally.answered(done, sent_ns, clock.now_ns());
        Ok(())
    }
}
