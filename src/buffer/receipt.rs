//! The way back to the producer: receipts into the mailbox of its connection.
//!
//! One mailbox serves all requests of a connection, so that a commit of thousands of pushes wakes
//! each connection once, and its answers leave in one write.

use std::sync::Arc;

use crate::base::place::PartitionNumber;
use crate::base::post::Mailbox;
use crate::log::AppendError;
use crate::state::draft::DecideError;
use crate::state::draft::push::Pushed;

/// Why a push that was in its ring was not stored.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PushRefusal {
    /// It could not be decided: nothing was stored.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// The log did not take it, or perhaps did: see the error.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The engine stops: nothing was stored.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// A batch that is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Its partition.
    pub partition: PartitionNumber,
    /// What became of its records.
    pub pushed: Pushed,
}

/// A batch whose promise holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Accepted {
    /// It is in the store.
    Stored(Stored),
    /// It is durable in the failover log and will be in the store: after an outage, or when the
    /// maintenance ends.
    Spilled {
        /// Its records.
        count: u32,
        /// Whether the store is away; else it is held back on purpose, or by what came before it.
        is_store_away: bool,
    },
}

/// What a producer gets for one batch.
pub type Receipt = Result<Accepted, PushRefusal>;

/// A receipt and whose it is.
#[derive(Debug)]
pub struct Delivery {
    /// The request, as its connection numbers them.
    pub request: u64,
    /// Which section of the request.
    pub section: u32,
    /// The receipt.
    pub receipt: Receipt,
}

/// Signs the receipt of one batch, once.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Where it goes.
    pub mailbox: Arc<Mailbox<Delivery>>,
    /// The request.
    pub request: u64,
    /// Which section of the request.
    pub section: u32,
}

impl Signer {
    /// Puts the receipt into the mailbox.
    pub fn sign(self, receipt: Receipt) {
        let Self { mailbox, request, section } = self;
        // A producer that hung up does not want to know; what is stored stays stored.
        let _ = mailbox.put(Delivery { request, section, receipt });
    }
}
