//! The way back to the producer: receipts into the mailbox of its connection.
//!
//! One mailbox serves all requests of a connection, so that a commit of thousands of pushes wakes
//! each connection once, and its answers leave in one write.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::place::PartitionNumber;
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

/// What a producer gets for one batch.
pub type Receipt = Result<Stored, PushRefusal>;

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

/// Receipts on their way to one connection.
#[derive(Debug, Default)]
pub struct Mailbox {
    deliveries: Mutex<Vec<Delivery>>,
    arrived: Notify,
}

impl Mailbox {
    /// Takes all receipts that are there, into an empty `out`.
    pub fn take(&self, out: &mut Vec<Delivery>) {
        std::mem::swap(out, &mut *self.deliveries.lock());
    }

    /// Waits until there may be a receipt; may return without one. One waiter at a time.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn put(&self, delivery: Delivery) {
        let mut deliveries = self.deliveries.lock();
        let first = deliveries.is_empty();
        deliveries.push(delivery);
        drop(deliveries);
        if first {
            self.arrived.notify_one();
        }
    }
}

/// Signs the receipt of one batch, once.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Where it goes.
    pub mailbox: Arc<Mailbox>,
    /// The request.
    pub request: u64,
    /// Which section of the request.
    pub section: u32,
}

impl Signer {
    /// Puts the receipt into the mailbox.
    pub fn sign(self, receipt: Receipt) {
        let Self { mailbox, request, section } = self;
        mailbox.put(Delivery { request, section, receipt });
    }
}
