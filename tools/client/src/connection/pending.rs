//! Requests that wait for their answers.
//!
//! In: a request's id on its way out; a frame on its way in. Out: the frame at the caller that
//! waits for it. Each waiting request holds one place of the connection's window until its answer
//! is there, even when the caller has gone: the server is still busy with it. Called by the
//! connection's callers, its reader and its writer.

use std::collections::HashMap;

use onrush_protocol::Frame;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::Error;

/// One request's way back to its caller.
struct Waiting {
    answer: oneshot::Sender<Result<Frame, Error>>,
    /// Freed when the answer is there.
    _place: OwnedSemaphorePermit,
}

/// All requests of one connection that have no answer yet.
pub(super) struct Pending {
    table: Mutex<Table>,
}

struct Table {
    waiting: HashMap<u64, Waiting>,
    next_id: u64,
    /// Why nothing is taken any more.
    ended: Option<String>,
    /// When the peer was last heard of.
    heard: Instant,
}

impl Pending {
    pub(super) fn new() -> Self {
        let (waiting, heard) = (HashMap::new(), Instant::now());
        Self { table: Mutex::new(Table { waiting, next_id: 1, ended: None, heard }) }
    }

    /// A number for a request and the way its answer will come, or why none will.
    pub(super) fn register(
        &self,
        place: OwnedSemaphorePermit,
    ) -> Result<(u64, oneshot::Receiver<Result<Frame, Error>>), Error> {
        let mut table = self.table.lock();
        if let Some(reason) = &table.ended {
            return Err(Error::Disconnected { reason: reason.clone(), sent: false });
        }
        let id = table.next_id;
        table.next_id += 1;
        let (answer, receiver) = oneshot::channel();
        table.waiting.insert(id, Waiting { answer, _place: place });
        Ok((id, receiver))
    }

    /// Hands frames to those who wait for them. A frame that answers nothing means that the two
    /// sides disagree about the stream, so it ends the connection.
    pub(super) fn deliver(&self, frames: impl Iterator<Item = Frame>) -> Result<(), String> {
        let mut table = self.table.lock();
        table.heard = Instant::now();
        for frame in frames {
            let Some(waiting) = table.waiting.remove(&frame.request_id) else {
                return Err(format!(
                    "an answer to request {}, which waits for none",
                    frame.request_id
                ));
            };
            // A caller that has gone needs no answer.
            drop(waiting.answer.send(Ok(frame)));
        }
        Ok(())
    }

    /// Ends everything: whoever waits learns that the outcome is unknown, whoever comes that
    /// nothing was sent. Only the first reason counts.
    pub(super) fn end(&self, reason: &str) {
        let waiting = {
            let mut table = self.table.lock();
            if table.ended.is_some() {
                return;
            }
            table.ended = Some(reason.to_owned());
            std::mem::take(&mut table.waiting)
        };
        for (_, waiting) in waiting {
            let error = Error::Disconnected { reason: reason.to_owned(), sent: true };
            drop(waiting.answer.send(Err(error)));
        }
    }

    /// Whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.table.lock().ended.is_some()
    }

    /// Whether the peer said anything since `when`.
    pub(super) fn heard_since(&self, when: Instant) -> bool {
        self.table.lock().heard >= when
    }
}
