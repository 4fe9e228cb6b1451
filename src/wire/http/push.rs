//! The push route: a body in, batches into the rings, receipts back, one answer.
//!
//! In: the whole body. Out: an answer once the promise of its QoS holds for every item, or has
//! failed for it. One item's failure is never another's. Dropping the future takes nothing back
//! that was taken in. Called by `route`.

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use onrush_protocol::code::Code;
use onrush_protocol::id::uuid_text;
use tokio::time::timeout;

use crate::base::post::Mailbox;
use crate::base::random::Random;
use crate::buffer::receipt::{Accepted, Delivery, Receipt, Signer, Stored};
use crate::ingest::{PushError, PushTerms};
use crate::state::draft::push::Pushed;
use crate::state::effect::ProducerSub;
use crate::state::ledger::First;
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::ids::Uuid;
use crate::wire::http::push_answer::{self, Outcome, Outcomes};
use crate::wire::http::push_pack::{self, Packed, Section};
use crate::wire::http::push_parse::{self, PushItem, PushRequest};
use crate::wire::http::status::{Answer, Failure};

/// Who pushes, and what the request says for all of its items.
#[derive(Debug, Default)]
pub(super) struct Origin<'a> {
    /// Who it is, where that is known.
    pub(super) sub: Option<ProducerSub>,
    /// The trace context of items that have none of their own.
    pub(super) context: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// Who sends a request with these headers.
    pub(super) fn of(headers: &'a HeaderMap, sub: Option<ProducerSub>) -> Self {
        let context = headers.get(push_pack::TRACEPARENT);
        Self { sub, context: context.and_then(|value| value.to_str().ok()) }
    }

    /// Gives messages without a trace context that of the request. One that is none is overlooked, as its
    /// standard asks.
    pub(super) fn give_context(&self, items: &mut [PushItem<'a>]) {
        let Some(context) = self.context.filter(|text| push_parse::is_trace_context(text)) else {
            return;
        };
        for item in items.iter_mut().filter(|item| item.traceparent.is_none()) {
            item.traceparent = Some(context.into());
        }
    }
}

/// Pushes a body. Waits until every item is answered for, the configured time at most; then what became
/// of the rest is not known.
pub(super) async fn push<'a>(
    api: &Api,
    body: &'a [u8],
    origin: Origin<'a>,
) -> Result<Answer, Failure> {
    let rooms = &api.rooms;
    let started_us = rooms.clock.monotonic_us();
    let mut request = push_parse::parse(body, api.dialect)?;
    origin.give_context(&mut request.items);
    // What waits in the failover log is tried again, and is asked for by its id until it is stored.
    let may_wait = api.config.names_messages || rooms.catalogs.maintenance().push;
    if may_wait && request.qos.is_durable() {
        name_messages(&mut request.items, &*rooms.random);
    }
    let target = api.config.batch_target_bytes;
    let packed = push_pack::pack(&request.items, *rooms.ingest.limits(), target)?;
    let outcomes = take_in(api, &request, packed, origin.sub).await;
    rooms.telemetry.push_latency.record(rooms.clock.monotonic_us() - started_us, 1);
    Ok(push_answer::answer(api.dialect, &request.items, &outcomes))
}

/// Gives messages that have no transaction id one. A random UUID and not one of time: the text of a
/// message's own id is a UUID of time, and the one must not be taken for the other.
fn name_messages(items: &mut [PushItem<'_>], random: &dyn Random) {
    for item in items.iter_mut().filter(|item| item.transaction_id.is_none()) {
        let text = uuid_text(Uuid::random(random).0);
        item.transaction_id = Some(String::from_utf8_lossy(&text).into_owned().into());
    }
}

/// Takes all sections in, one after the other so that a partition keeps its order, and waits for
/// their receipts.
async fn take_in(
    api: &Api,
    request: &PushRequest<'_>,
    packed: Packed,
    sub: Option<ProducerSub>,
) -> Outcomes {
    let Packed { sections, refused } = packed;
    let PushRequest { qos, buffer_ms, buffer_max, .. } = *request;
    let terms = PushTerms { qos, buffer_ms, buffer_max, sub };
    let mut results = Results::new(request.items.len());
    for (index, error) in refused {
        results.set(index, Outcome::Failed(Failure::batch(&error)));
    }
    let mailbox = Arc::new(Mailbox::default());
    let until_us = api.rooms.clock.monotonic_us() + api.config.push_timeout.as_micros() as u64;
    let mut waiting = 0_usize;
    for (number, section) in sections.iter().enumerate() {
        let first = section.items.first().and_then(|index| request.items.get(*index as usize));
        let signer = Signer { mailbox: Arc::clone(&mailbox), request: 0, section: number as u32 };
        let signer = qos.is_durable().then_some(signer);
        match admit(api, section, first, terms.clone(), signer, until_us).await {
            Ok(_) if qos.is_durable() => waiting += 1,
            Ok(_) => section.items.iter().for_each(|index| results.set(*index, Outcome::Buffered)),
            Err(error) => {
                let code = codes::of_push_error_at(&error, qos);
                results.fail(&section.items, code, &error);
            }
        }
    }
    // The lane counts what it refuses itself.
    api.rooms.telemetry.push_failed.add(results.failed);
    let receive = receive(&mailbox, &sections, waiting, &mut results);
    // Too late is told below, item by item: those that have their receipt keep it.
    let left_us = until_us.saturating_sub(api.rooms.clock.monotonic_us());
    let _ = timeout(Duration::from_micros(left_us), receive).await;
    results.finish(!qos.is_durable())
}

/// Waits for the receipts of `waiting` sections.
async fn receive(
    mailbox: &Mailbox<Delivery>,
    sections: &[Section],
    mut waiting: usize,
    results: &mut Results,
) {
    let mut arrived = Vec::new();
    while waiting > 0 {
        mailbox.take(&mut arrived);
        if arrived.is_empty() {
            mailbox.arrived().await;
        }
        for Delivery { section, receipt, .. } in arrived.drain(..) {
            waiting = waiting.saturating_sub(1);
            if let Some(section) = sections.get(section as usize) {
                results.sign(&section.items, receipt);
            }
        }
    }
}

/// Takes one section into its ring; waits where its queue has to be made, or, until `until_us`, where the
/// ring is full.
async fn admit(
    api: &Api,
    section: &Section,
    first: Option<&PushItem<'_>>,
    terms: PushTerms,
    signer: Option<Signer>,
    until_us: u64,
) -> Result<u32, PushError> {
    let Section { queue, partition, batch, .. } = section;
    if let Some(PushItem { namespace, task, .. }) = first
        && (namespace.is_some() || task.is_some())
        && api.rooms.catalogs.find(queue).is_none()
    {
        let labels = (namespace.as_deref(), task.as_deref());
        api.rooms.catalogs.find_or_create_in(queue, labels.0, labels.1).await?;
    }
    let ingest = &api.rooms.ingest;
    match ingest.try_push(queue, partition.clone(), batch.clone(), terms, signer)? {
        Ok(count) => Ok(count),
        Err(later) => ingest.push_later(queue, later, until_us).await,
    }
}

/// Outcomes as they come in.
struct Results {
    items: Vec<Option<Outcome>>,
    failed: u64,
    db_healthy: bool,
}

impl Results {
    fn new(items: usize) -> Self {
        Self { items: vec![None; items], failed: 0, db_healthy: true }
    }

    fn set(&mut self, index: u32, outcome: Outcome) {
        self.failed += u64::from(matches!(outcome, Outcome::Failed(_)));
        if let Some(place) = self.items.get_mut(index as usize) {
            *place = Some(outcome);
        }
    }

    fn fail(&mut self, items: &[u32], code: Code, error: &dyn std::fmt::Display) {
        self.db_healthy &= !is_about_the_store(code);
        let failure = match code {
            Code::MessageTooLarge | Code::BatchTooLarge => {
                Failure::new(code, super::status::TOO_LARGE)
            }
            _ => Failure::new(code, error.to_string()),
        };
        for index in items {
            self.set(*index, Outcome::Failed(failure.clone()));
        }
    }

    fn sign(&mut self, items: &[u32], receipt: Receipt) {
        let Stored { partition, pushed } = match receipt {
            Ok(Accepted::Stored(stored)) => stored,
            Ok(Accepted::Spilled { is_store_away, .. }) => {
                self.db_healthy &= !is_store_away;
                return items.iter().for_each(|index| self.set(*index, Outcome::Buffered));
            }
            Err(refusal) => return self.fail(items, codes::of_push_refusal(&refusal), &refusal),
        };
        match pushed {
            Pushed::Stored { first_seq, time_ms, .. } => {
                for (seq, index) in (first_seq..).zip(items) {
                    let message = First { seq, time_ms };
                    self.set(*index, Outcome::Stored { partition, message, duplicate: false });
                }
            }
            Pushed::Mixed(outcomes) => {
                for (outcome, index) in outcomes.iter().zip(items) {
                    let (message, duplicate) = (outcome.message, outcome.duplicate);
                    self.set(*index, Outcome::Stored { partition, message, duplicate });
                }
            }
        }
    }

    fn finish(self, qos0: bool) -> Outcomes {
        let Self { items, db_healthy, .. } = self;
        let late = || {
            let message = "the push was not committed in time";
            Outcome::Failed(Failure::new(Code::TimedOut, message))
        };
        let items = items.into_iter().map(|outcome| outcome.unwrap_or_else(late)).collect();
        Outcomes { items, qos0, db_healthy }
    }
}

/// Whether a refusal says that the store did not do its part.
fn is_about_the_store(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::OutcomeUnknown | Code::Poisoned | Code::DiskFull | Code::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use crate::wire::http::dialect::Dialect;

    #[test]
    fn messages_without_a_transaction_id_are_given_different_ones() {
        let body = br#"{"items":[{"queue":"q","payload":1},{"queue":"q","payload":2},
            {"queue":"q","payload":3,"transactionId":"own"}]}"#;
        let mut request = push_parse::parse(body, Dialect::Onrush).unwrap();
        name_messages(&mut request.items, &SeededRandom::new(1));
        let ids: Vec<&str> =
            request.items.iter().map(|it| it.transaction_id.as_deref().unwrap()).collect();
        assert_eq!(ids[2], "own");
        assert_ne!(ids[0], ids[1]);
        for id in &ids[..2] {
            let uuid = uuid::Uuid::parse_str(id).unwrap();
            assert_eq!(uuid.get_version_num(), 4, "a UUID of time names a message by its place");
        }
    }
}
