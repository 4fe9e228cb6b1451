//! What leaves the room in a transaction: batches for targets, and what cascades count.

use std::sync::Arc;

use onrush_protocol::batch::{BatchBuilder, BatchError, NewRecord, RecordBatch};
use onrush_protocol::name::PartitionName;

use crate::process::envelope::HEADER;
use crate::process::keys::{Address, CASCADES, tally_key};
use crate::shard::transaction::{StateChanges, StateOwner};
use crate::state::catalog::QueueDefinition;
use crate::state::draft::transaction::StateOp;
use crate::state::effect::LeaseToken;
use crate::state::tally::TallyChange;

/// A batch on its way to a target.
pub(super) struct Outgoing {
    pub(super) queue: Arc<QueueDefinition>,
    pub(super) partition: PartitionName,
    pub(super) batch: RecordBatch,
    /// Whether its target's class is in manual mode, and its messages are to be evaluated all the same:
    /// whoever pushed wanted them to be.
    pub(super) runs: bool,
    /// Whether its target is evaluated by itself.
    pub(super) is_auto: bool,
    /// The lease by which it goes on at once, where that is asked for.
    pub(super) claim: Option<LeaseToken>,
}

/// A record to be.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) id: &'a str,
    pub(super) envelope: Option<&'a [u8]>,
    pub(super) payload: &'a [u8],
    pub(super) trace_id: Option<[u8; 16]>,
}

impl Parts<'_> {
    pub(super) fn put(&self, builder: &mut BatchBuilder) -> Result<(), BatchError> {
        self.put_as(builder, true)
    }

    /// As [`Self::put`], whatever the payload is.
    pub(super) fn put_as(
        &self,
        builder: &mut BatchBuilder,
        is_json: bool,
    ) -> Result<(), BatchError> {
        let header = self.envelope.map(|envelope| [(HEADER, envelope)]);
        builder.push(&NewRecord {
            transaction_id: Some(self.id),
            trace_id: self.trace_id,
            headers: header.as_ref().map_or(&[], |header| header.as_slice()),
            is_json,
            payload: self.payload,
        })
    }
}

/// A change of a cascade's tally.
pub(super) fn count(root: Address, change: TallyChange) -> StateChanges {
    StateChanges {
        owner: StateOwner::Number(CASCADES),
        partition: root.partition,
        ops: vec![StateOp::Tally { key: tally_key(root), change }],
        may_miss: true,
    }
}
