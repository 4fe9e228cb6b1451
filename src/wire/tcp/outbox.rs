//! Answers on their way out of a connection, from any task, in the order in which they came.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parts: Mutex<VecDeque<Bytes>>,
    arrived: Notify,
}

impl Outbox {
    /// Adds a frame, given in parts.
    pub(super) fn put(&self, parts: impl IntoIterator<Item = Bytes>) {
        let mut waiting = self.parts.lock();
        waiting.extend(parts.into_iter().filter(|part| !part.is_empty()));
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Takes everything that waits; returns how many bytes that is.
    pub(super) fn take(&self, out: &mut VecDeque<Bytes>) -> usize {
        let mut parts = self.parts.lock();
        let bytes = parts.iter().map(Bytes::len).sum();
        out.append(&mut parts);
        bytes
    }

    /// Waits until there may be something. One waiter at a time.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
