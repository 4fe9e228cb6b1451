//! Writes checkpoints beside the lane: one thread, one batch of shards at a time.
//!
//! Rows are written only when the log is durable up to what they include; otherwise a power cut
//! could leave rows that know more than the log. Where the log has a vault, the shard's rows go there
//! whole when that is due.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::runtime::Runtime;

use crate::base::place::{ShardCount, ShardId};
use crate::buffer::Buffers;
use crate::log::Log;
use crate::shard::command::{Command, Inbox};
use crate::state::checkpoint::Checkpoint;
use crate::state::kv::{Kv, KvError};
use crate::state::portable;

/// Hands checkpoints to the thread. Dropped, it waits for the thread: whoever stopped the engine may
/// open its log again.
#[derive(Debug)]
pub(super) struct Handle {
    sender: Option<mpsc::Sender<Vec<Checkpoint>>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Starts the thread; it ends when the handle is dropped.
    pub(super) fn start(
        log: Arc<dyn Log>,
        kv: Arc<dyn Kv>,
        inbox: Arc<Inbox>,
        buffers: Arc<Buffers>,
        count: ShardCount,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Vec<Checkpoint>>();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = std::thread::Builder::new().name("onrush-checkpoint".into());
        let thread = thread.spawn(move || {
            while let Ok(batch) = receiver.recv() {
                let heads: Vec<_> = batch.iter().map(|it| (it.shard, it.head)).collect();
                let written = match write(&*log, &*kv, batch, &runtime) {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::error!(%error, "a checkpoint could not be written; memory keeps it");
                        false
                    }
                };
                // While the rows are still those of the checkpoint.
                for (shard, head) in heads.iter().copied().filter(|_| written) {
                    if let Err(error) = save(&*log, &*kv, count, (shard, head), &runtime) {
                        tracing::warn!(shard, %error, "the log's vault keeps an older checkpoint");
                    }
                }
                let shards = heads.into_iter().map(|(shard, _)| shard).collect();
                inbox.put(Command::CheckpointDone { shards, written });
                buffers.bell().ring();
            }
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Writes checkpoints in the background; `CheckpointDone` tells when they are there.
    pub(super) fn write(&self, batch: Vec<Checkpoint>) {
        // The thread lives as long as this handle.
        let _ = self.sender.as_ref().map(|sender| sender.send(batch));
    }
}

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Log(#[from] crate::log::AppendError),
}

/// Writes checkpoints as one batch, in the caller's thread.
pub(super) fn write(
    log: &dyn Log,
    kv: &dyn Kv,
    mut batch: Vec<Checkpoint>,
    runtime: &Runtime,
) -> Result<(), WriteError> {
    if batch.iter().any(|checkpoint| log.durable_to(checkpoint.shard) < checkpoint.position) {
        runtime.block_on(log.sync())?;
    }
    let mut rows = Vec::new();
    let mut ids = Vec::with_capacity(batch.iter().map(|checkpoint| checkpoint.ids.len()).sum());
    for checkpoint in &mut batch {
        checkpoint.resolve(kv)?;
        rows.append(&mut checkpoint.rows);
        ids.extend(checkpoint.ids.rows());
    }
    kv.write_with_ids(&rows, ids)?;
    Ok(())
}

/// Saves the rows of a shard, which include `head` entries, in the log's vault, if that is due.
fn save(
    log: &dyn Log,
    kv: &dyn Kv,
    count: ShardCount,
    (shard, head): (ShardId, u64),
    runtime: &Runtime,
) -> Result<(), WriteError> {
    let Some(vault) = log.vault().filter(|vault| vault.is_due(shard, head)) else { return Ok(()) };
    let mut saving = vault.save(shard, head);
    portable::export(shard, count, kv, &mut |part| {
        runtime.block_on(saving.add(part)).map_err(WriteError::from)
    })?;
    Ok(runtime.block_on(saving.finish())?)
}
