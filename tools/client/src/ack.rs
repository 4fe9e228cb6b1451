//! Acknowledging: says what became of messages, one or thousands, in as few ranges as they make.
//!
//! In: received messages and an outcome. Out: one request for each lease, with neighbours joined
//! to ranges, and an [`AckReport`]. The joining is pure. Called by users and by the consumer.

use std::collections::BTreeMap;

use onrush_protocol::limits::ACK_ITEMS_MAX;
use onrush_protocol::request::{Ack, AckItem, AckOutcome};
use onrush_protocol::{Code, GroupName, LeaseToken, LongText, NO_LEASE, Request, Response};

use crate::client::{Client, Repeat};
use crate::connection::mismatch;
use crate::error::{Error, Refusal};
use crate::received::ReceivedMessage;

/// What an ack did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckReport {
    /// How many messages were settled.
    pub acked: u64,
    /// How many of them went to the dead letters.
    pub dead_lettered: u64,
    /// Ranges that the server refused.
    pub refused: Vec<RefusedRange>,
}

/// Messages of one partition that were not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRange {
    /// The partition's number.
    pub partition: u32,
    /// The first message's sequence number.
    pub first_seq: u64,
    /// The last message's sequence number, inclusive.
    pub last_seq: u64,
    /// Why.
    pub refusal: Refusal,
}

impl AckReport {
    pub(crate) fn is_retryable(&self) -> bool {
        self.refused.iter().all(|range| range.refusal.code().is_some_and(Code::is_retryable))
    }

    fn absorb(&mut self, other: Self) {
        self.acked += other.acked;
        self.dead_lettered += other.dead_lettered;
        self.refused.extend(other.refused);
    }
}

impl std::fmt::Display for AckReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} messages were settled, {} ranges refused", self.acked, self.refused.len())?;
        match self.refused.first() {
            Some(range) => write!(
                f,
                ", first {}..={} of partition {}: {}",
                range.first_seq, range.last_seq, range.partition, range.refusal
            ),
            None => Ok(()),
        }
    }
}

impl Client {
    /// Says that messages were done: `&popped`, a slice, or one message. Messages of several
    /// pops may be mixed; each lease is one request. Waits until the server has stored it.
    /// Messages without a lease need no ack and are skipped.
    ///
    /// # Errors
    /// [`Error::Ack`] when ranges were refused (their lease had ended, say): the others were
    /// done. Any other [`Error`] ends it between two leases. Repeating it is safe.
    pub async fn ack<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a ReceivedMessage>,
    ) -> Result<AckReport, Error> {
        self.settle(messages, AckOutcome::Completed, "").await
    }

    /// Says that messages failed: each counts an attempt, and comes again or goes to the dead
    /// letters as its queue says. `error` is cut at 4096 bytes.
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn nack<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a ReceivedMessage>,
        error: &str,
    ) -> Result<AckReport, Error> {
        self.settle(messages, AckOutcome::Failed, error).await
    }

    /// As [`Self::ack`], with any outcome.
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn settle<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a ReceivedMessage>,
        outcome: AckOutcome,
        error: &str,
    ) -> Result<AckReport, Error> {
        let error = LongText::lossy(error);
        let mut plan = AckPlan::default();
        for message in messages {
            plan.add(message, outcome, &error);
        }
        self.send_acks(plan).await
    }

    pub(crate) async fn send_acks(&self, plan: AckPlan) -> Result<AckReport, Error> {
        let mut report = AckReport::default();
        for request in plan.requests() {
            report.absorb(self.send_ack(request).await?);
        }
        if report.refused.is_empty() { Ok(report) } else { Err(Error::Ack(Box::new(report))) }
    }

    async fn send_ack(&self, ack: Ack) -> Result<AckReport, Error> {
        let request = Request::Ack(ack);
        // Under a lease a second one settles nothing twice: the lease went with the first.
        let answer = match self.request(Repeat::Safe, &request).await? {
            Response::Acked(acked) => acked,
            other => return Err(mismatch("ack", &other)),
        };
        let Request::Ack(ack) = request else { return Ok(AckReport::default()) };
        if answer.items.len() != ack.items.len() {
            return Err(Error::Protocol("not one answer for each item of an ack".to_owned()));
        }
        let mut report = AckReport::default();
        for (item, answer) in ack.items.iter().zip(&answer.items) {
            report.acked += u64::from(answer.acked);
            report.dead_lettered += u64::from(answer.dead_lettered);
            if answer.code != 0 {
                report.refused.push(RefusedRange {
                    partition: item.partition,
                    first_seq: item.first_seq,
                    last_seq: item.last_seq,
                    refusal: Refusal::bare(answer.code),
                });
            }
        }
        Ok(report)
    }
}

/// Messages to be settled, by group and lease. Pure.
#[derive(Default)]
pub(crate) struct AckPlan {
    leases: BTreeMap<(GroupName, LeaseToken), Vec<AckItem>>,
}

impl AckPlan {
    /// Adds one message; those that no lease holds are settled already.
    pub(crate) fn add(&mut self, message: &ReceivedMessage, outcome: AckOutcome, error: &LongText) {
        if *message.lease() == NO_LEASE {
            return;
        }
        let key = (message.group().clone(), *message.lease());
        let (partition, seq, error) = (message.partition(), message.seq, error.clone());
        let item = AckItem { partition, first_seq: seq, last_seq: seq, outcome, error };
        let items = self.leases.entry(key).or_default();
        // Messages mostly come in order, so most join the range before them at once.
        match items.last_mut() {
            Some(last) if joins(last, &item) => last.last_seq = item.last_seq,
            _ => items.push(item),
        }
    }

    /// The requests that say it all, each with at most 100 000 ranges.
    fn requests(self) -> impl Iterator<Item = Ack> {
        self.leases.into_iter().flat_map(|((group, lease), items)| {
            let ranges = joined(items);
            let chunks: Vec<Vec<AckItem>> =
                ranges.chunks(ACK_ITEMS_MAX as usize).map(<[AckItem]>::to_vec).collect();
            chunks.into_iter().map(move |items| Ack { group: group.clone(), lease, items })
        })
    }
}

/// Sorts by partition and sequence and joins neighbours with the same fate.
fn joined(mut items: Vec<AckItem>) -> Vec<AckItem> {
    items.sort_by_key(|item| (item.partition, item.first_seq));
    let mut ranges: Vec<AckItem> = Vec::with_capacity(items.len());
    for item in items {
        match ranges.last_mut() {
            Some(last) if joins(last, &item) => last.last_seq = last.last_seq.max(item.last_seq),
            _ => ranges.push(item),
        }
    }
    ranges
}

/// Whether `next` continues `last`, or says again what it says.
fn joins(last: &AckItem, next: &AckItem) -> bool {
    last.partition == next.partition
        && last.outcome == next.outcome
        && last.error == next.error
        && next.first_seq >= last.first_seq
        && next.first_seq <= last.last_seq.saturating_add(1)
        && next.last_seq >= last.last_seq
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(partition: u32, seq: u64, outcome: AckOutcome) -> AckItem {
        let error = LongText::default();
        AckItem { partition, first_seq: seq, last_seq: seq, outcome, error }
    }

    fn ranges(items: &[AckItem]) -> Vec<(u32, u64, u64)> {
        items.iter().map(|item| (item.partition, item.first_seq, item.last_seq)).collect()
    }

    #[test]
    fn neighbours_become_one_range_in_whatever_order_they_come() {
        let items = [5, 3, 4, 9, 8, 3].map(|seq| item(1, seq, AckOutcome::Completed));
        assert_eq!(ranges(&joined(items.to_vec())), [(1, 3, 5), (1, 8, 9)]);
    }

    #[test]
    fn a_gap_is_never_acknowledged_with_its_neighbours() {
        let items = [0, 2, 4].map(|seq| item(1, seq, AckOutcome::Completed));
        assert_eq!(ranges(&joined(items.to_vec())), [(1, 0, 0), (1, 2, 2), (1, 4, 4)]);
    }

    #[test]
    fn partitions_and_outcomes_do_not_mix() {
        let items = vec![
            item(2, 1, AckOutcome::Completed),
            item(1, 1, AckOutcome::Completed),
            item(1, 2, AckOutcome::Failed),
            item(1, 3, AckOutcome::Completed),
        ];
        assert_eq!(ranges(&joined(items)), [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 1)]);
    }

    #[test]
    fn ten_thousand_messages_in_order_are_one_item() {
        let items: Vec<_> = (0..10_000).map(|seq| item(7, seq, AckOutcome::Completed)).collect();
        assert_eq!(ranges(&joined(items)), [(7, 0, 9_999)]);
    }
}
