//! Answers on their way out of a connection, from any task, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Frames that wait to be written.
#[derive(Debug)]
pub(super) struct Outbox {
    parts: Mutex<VecDeque<Bytes>>,
    bell: Arc<Notify>,
}

impl Outbox {
    /// Nothing waits yet; what comes rings `bell`.
    pub(super) fn new(bell: Arc<Notify>) -> Self {
        Self { parts: Mutex::default(), bell }
    }

    /// Adds a frame, given in parts.
    pub(super) fn put(&self, parts: impl IntoIterator<Item = Bytes>) {
        let mut waiting = self.parts.lock();
        waiting.extend(parts.into_iter().filter(|part| !part.is_empty()));
        drop(waiting);
        self.bell.notify_one();
    }

    /// Takes everything that waits; returns how many bytes that is.
    pub(super) fn take(&self, out: &mut VecDeque<Bytes>) -> usize {
        let mut parts = self.parts.lock();
        let bytes = parts.iter().map(Bytes::len).sum();
        out.append(&mut parts);
        bytes
    }
}
