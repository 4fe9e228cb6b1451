//! The desk: a partition of a queue of the room's own, beside which lies what waits.
//!
//! Letters that were refused, messages that wait for their time or for their target. The queue is
//! made with the first class. Its one message makes the partition and is never read.

use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::name::{PartitionName, QueueName};

use crate::base::place::PartitionNumber;
use crate::ingest::PushError;
use crate::process::commit::GROUP;
use crate::process::{Inner, ProcessError};
use crate::shard::command::CommandError;

/// The desk's queue has the name of the group.
const QUEUE: &str = GROUP;
const PARTITION: &str = "desk";

impl Inner {
    /// The desk's partition, if it was met before.
    pub(super) fn desk(&self) -> Option<PartitionNumber> {
        self.desk.get().copied()
    }

    /// The desk's partition, which is made where there is none.
    ///
    /// # Errors
    /// When it could not be made.
    pub(super) async fn ensure_desk(&self) -> Result<PartitionNumber, ProcessError> {
        for _ in 0..2 {
            if let Some(desk) = self.desk() {
                return Ok(desk);
            }
            let key: PartitionName = PARTITION.parse().unwrap_or_default();
            if let Some(number) = self.number(QUEUE, &key).await? {
                return Ok(*self.desk.get_or_init(|| number));
            }
            self.open_desk(key).await?;
        }
        Err(ProcessError::Command(CommandError::ShuttingDown))
    }

    async fn open_desk(&self, key: PartitionName) -> Result<(), ProcessError> {
        let queue: QueueName = QUEUE.parse().unwrap_or_default();
        let definition = match self.catalogs.find(&queue) {
            Some(found) => found,
            None => self.catalogs.make_own(&queue).await?,
        };
        let mut builder = BatchBuilder::new();
        let record = NewRecord {
            transaction_id: Some("open"),
            is_json: true,
            payload: b"{}",
            ..NewRecord::default()
        };
        builder.push(&record).map_err(PushError::from)?;
        let Some(batch) = builder.finish() else { return Ok(()) };
        self.store(&definition, key, batch, None).await.map(|_| ())
    }
}
