//! Following: applying what the log has and this engine did not decide.
//!
//! Other engines append too, and an own append may stand though its answer was lost. In: the log.
//! Out: a replica that has caught up, consumers woken by what others brought, and whose entries were
//! seen. Called by the lane.

use crate::base::place::ShardId;
use crate::log::{AppendError, ReadError};
use crate::shard::lane::Lane;
use crate::shard::restore;
use crate::state::effect::Origin;

/// Bytes of entries that are read at a time.
const READ_BYTES: usize = 4 << 20;

fn unavailable(error: &dyn std::fmt::Display) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

impl Lane {
    /// Applies what the log has of a shard. Whose entries they were is added to `origins`, also of
    /// those that were applied before it failed.
    pub(super) fn follow(
        &mut self,
        shard: ShardId,
        origins: &mut Vec<Origin>,
    ) -> Result<(), AppendError> {
        let before = self.replica.head(shard);
        let followed = self.follow_to_end(shard, origins);
        if shard == self.replica.count().catalog() && self.replica.head(shard) > before {
            self.publish_catalog();
        }
        followed
    }

    fn follow_to_end(
        &mut self,
        shard: ShardId,
        origins: &mut Vec<Origin>,
    ) -> Result<(), AppendError> {
        loop {
            let from = self.replica.head(shard);
            let entries = match self.runtime.block_on(self.log.read(shard, from, READ_BYTES)) {
                Err(ReadError::TooOld(_)) => {
                    self.catch_up(shard)?;
                    continue;
                }
                entries => entries.map_err(|error| unavailable(&error))?,
            };
            if entries.is_empty() {
                return Ok(());
            }
            for stored in &entries {
                let applied = self.replica.apply_stored(stored);
                if let Some(entry) = applied.map_err(|error| unavailable(&error))? {
                    origins.push(entry.origin);
                    self.wake_parked(std::iter::once((shard, &entry)));
                }
            }
        }
    }

    /// This engine was away for so long that the others have let go of what it missed: it takes the
    /// shard from their checkpoint.
    fn catch_up(&mut self, shard: ShardId) -> Result<(), AppendError> {
        // Two who write rows of one shard would mix them. It ends soon, and this is tried again.
        if self.schedule.under_way().is_some() {
            return Err(unavailable(&"a checkpoint is under way"));
        }
        let head = self.replica.head(shard);
        tracing::warn!(shard, head, "the log no longer has what comes next");
        let count = self.replica.count();
        let caught = restore::catch_up(&*self.log, &*self.kv, count, shard, &self.runtime);
        caught.map_err(|error| unavailable(&error))?;
        self.replica.reload(shard, &*self.kv).map_err(|error| unavailable(&error))?;
        // What lay between is not known one by one: whoever waits looks for itself.
        self.tidied = false;
        self.skipped = true;
        self.wake_all();
        Ok(())
    }

    /// Looks at all heads and applies what is missing; tells whether anything was. The catalog comes
    /// last: no shard may hold a queue that it does not know yet.
    pub(super) fn follow_all(&mut self) -> Result<bool, AppendError> {
        self.follow_at_us = self.clock.monotonic_us() + self.config.follow_interval_ms * 1000;
        let shards = self.replica.count().get() + 1;
        let heads = self.runtime.block_on(self.log.heads(shards));
        let heads = heads.map_err(|error| unavailable(&error))?;
        let mut origins = Vec::new();
        for (shard, head) in (0..).zip(heads) {
            if head > self.replica.head(shard) {
                self.follow(shard, &mut origins)?;
            }
        }
        if !self.tidied {
            self.tidied = true;
            self.replica.tidy();
        }
        Ok(!origins.is_empty())
    }

    /// Learns now and then what others did, so that consumers waiting here get it too.
    pub(super) fn follow_if_due(&mut self) {
        let is_late = self.follow_at_us <= self.clock.monotonic_us();
        if self.config.sole_writer || self.is_down() || !is_late {
            return;
        }
        if let Err(error) = self.follow_all() {
            tracing::debug!(%error, "other engines could not be followed now");
        }
    }
}
