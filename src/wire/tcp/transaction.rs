//! Transactions over the binary protocol: a request becomes an order, what became of it an answer.

use onrush_protocol::NO_LEASE;
use onrush_protocol::request::{AckItem as WireItem, AckOutcome, Transaction, TransactionAck};
use onrush_protocol::response::{
    AckedItem, Committed as Answer, Failure, Response, SectionReceipt,
};

use crate::buffer::receipt::Accepted;
use crate::ingest::PushError;
use crate::shard::transaction::{Committed, OnDuplicate, Reach, Refusal};
use crate::state::draft::ack::Verdict;
use crate::state::effect::ProducerSub;
use crate::transaction::{AckOrder, AppendOrder, Order, TransactionError, Which};
use crate::wire::tcp::failure;
use crate::wire::tcp::pushes::{self, Room};
use crate::wire::{Rooms, codes};

/// Carries out a transaction whose answer is sure to fit.
pub(super) async fn transact(
    rooms: &Rooms,
    request: Transaction,
    sub: Option<ProducerSub>,
    mut room: Room,
) -> Result<Response, Failure> {
    let Transaction { fail_on_duplicate, leases, acks, sections } = request;
    room.take_acks(acks.len());
    for (index, section) in sections.iter().enumerate() {
        let taken = room.take(&section.batch).map_err(PushError::from);
        taken.map_err(|error| refused(&TransactionError::Push { index, error }))?;
    }
    let appends = sections.into_iter().map(|section| AppendOrder {
        queue: section.queue,
        partition: section.partition,
        batch: section.batch,
    });
    let order = Order {
        leases,
        acks: acks.into_iter().map(ack).collect(),
        states: None,
        appends: appends.collect(),
        on_duplicate: if fail_on_duplicate { OnDuplicate::Fail } else { OnDuplicate::Report },
        sub,
    };
    let committed = rooms.transactions.commit(order).await.map_err(|error| refused(&error))?;
    Ok(Response::Committed(answer(committed)))
}

fn ack(ack: TransactionAck) -> AckOrder {
    let TransactionAck { group, lease, item } = ack;
    let WireItem { partition, first_seq, last_seq, outcome, error } = item;
    AckOrder {
        group,
        token: (lease != NO_LEASE).then_some(lease),
        partition,
        which: Which::Range(first_seq, last_seq),
        verdict: verdict(outcome),
        error: error.as_str().into(),
        reach: Reach::Named,
    }
}

/// A consumer's word as the rooms know it.
pub(super) fn verdict(outcome: AckOutcome) -> Verdict {
    match outcome {
        AckOutcome::Completed => Verdict::Completed,
        AckOutcome::Failed => Verdict::Failed,
        AckOutcome::Retry => Verdict::Retry,
        AckOutcome::DeadLetter => Verdict::Dead,
    }
}

fn answer(committed: Committed) -> Answer {
    let Committed { acks, appends, .. } = committed;
    let acks = acks.iter().map(|acked| AckedItem {
        code: 0,
        acked: acked.settled,
        dead_lettered: acked.buried,
        lease_released: acked.released,
    });
    let sections: Vec<SectionReceipt> = appends
        .into_iter()
        .map(|stored| pushes::section_receipt(Ok(Accepted::Stored(stored))))
        .collect();
    Answer { acks: acks.collect(), sections }
}

/// A refusal that names the part to blame, and its index as the limit's number.
fn refused(error: &TransactionError) -> Failure {
    let plain = || failure::plain(codes::of_transaction_error(error), error);
    let part = |field: &str, index: usize| plain().blaming(field, index as u64);
    match error {
        TransactionError::Refused(Refusal::Lease(index)) => part("leases", *index),
        TransactionError::Refused(Refusal::Ack { index, .. }) => part("acks", *index),
        TransactionError::Refused(
            Refusal::Append { index, .. } | Refusal::Duplicate { index, .. },
        )
        | TransactionError::Push { index, .. } => part("sections", *index),
        TransactionError::TooLarge { field, limit, .. } => plain().blaming(field, *limit),
        TransactionError::Refused(
            Refusal::NoPartition(_)
            | Refusal::NoQuery
            | Refusal::Tally { .. }
            | Refusal::NoKey(_)
            | Refusal::States(_),
        )
        | TransactionError::Command(_) => plain(),
    }
}
