//! Looking at a running engine: questions that change nothing.
//!
//! A question is a function that the lane calls between two commits with all it knows, so its answer
//! is of one moment. It must be short: whoever asks about many partitions passes some of them in each of
//! several questions (`tour`), and whoever needs many rows or any body takes what it needs to know where
//! they are, and reads them on a thread of its own ([`letters`], [`messages`]).

pub mod figures;
pub mod letters;
pub mod messages;
pub mod standings;
pub(in crate::shard) mod tour;

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::shard::Engine;
use crate::shard::command::{Command, CommandError};
use crate::shard::parked::Parked;
use crate::shard::replica::Replica;
use crate::state::kv::Kv;

/// What a question may look at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// All state.
    pub replica: &'a Replica,
    /// Rows.
    pub kv: &'a dyn Kv,
    /// Consumers that wait.
    pub parked: &'a Parked,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// A question on its way to the lane.
pub struct Question(Box<dyn FnOnce(&View<'_>) + Send>);

impl Question {
    pub(super) fn answer(self, view: &View<'_>) {
        (self.0)(view);
    }
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

impl Engine {
    /// Asks a question; answers between two commits.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`] when the engine stops.
    pub async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let question = Question(Box::new(move |view| {
            // Whoever asked may have gone.
            let _ = reply.send(question(view));
        }));
        self.submit(Command::Look(question));
        answer.await.map_err(|_| CommandError::ShuttingDown)
    }

    /// Rows, for reading beside the lane. What memory knows newer is not in them.
    pub(in crate::shard) fn rows(&self) -> Arc<dyn Kv> {
        Arc::clone(&self.kv)
    }
}

/// Does work that waits for disks or networks on a thread of its own.
pub(in crate::shard) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CommandError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CommandError::ShuttingDown)
}
