//! Following: applying what the log has and this engine did not decide.
//!
//! Other engines append too, and an own append may stand though its answer was lost. In: the log.
//! Out: a replica that has caught up, consumers woken by what others brought, and which own entries
//! were met. Called by the lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::place::ShardId;
use crate::buffer::Buffers;
use crate::log::{AppendError, FollowedShard, Log, ReadError};
use crate::shard::Config;
use crate::shard::lane::Lane;
use crate::shard::restore;

/// Bytes of entries that are read at a time, of all shards together.
const READ_BYTES: usize = 8 << 20;

/// How often to look what others did where it is heard of: for what was not heard.
const NET_INTERVAL_MS: u64 = 1_000;
/// News do not make an engine follow more often than this: whoever appends all the time is followed in
/// larger steps.
const NEWS_GAP_US: u64 = 3_000;
/// And not more often than this where no consumer waits here: whoever asks for something looks first.
const QUIET_GAP_US: u64 = 25_000;
/// An engine that is to look as seldom as this looks only when it must, whatever it hears.
const SELDOM_MS: u64 = 3_600_000;

/// A flag that is raised, with the bell rung, when others have appended.
pub(super) fn hear(log: &dyn Log, config: &Config, buffers: &Arc<Buffers>) -> Arc<AtomicBool> {
    let news = Arc::new(AtomicBool::new(false));
    if !config.sole_writer && config.follow_interval_ms < SELDOM_MS {
        let (raised, buffers) = (Arc::clone(&news), Arc::clone(buffers));
        log.on_news(Box::new(move || {
            raised.store(true, Ordering::Release);
            buffers.bell().ring();
        }));
    }
    news
}

fn unavailable(error: &dyn std::fmt::Display) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

impl Lane {
    /// Applies what the log has of shards, each up to the head given, and then of the catalog. Own
    /// entries among them are noted in `seen_own`. All are followed even if one cannot be read.
    ///
    /// All are asked for at once: behind a network the round trips would take longer than another
    /// engine's next append.
    pub(super) fn follow(&mut self, heads: &[(ShardId, u64)]) -> Result<(), AppendError> {
        let catalog = self.replica.count().catalog();
        let is_open =
            |lane: &Self, (shard, head): &(ShardId, u64)| lane.replica.head(*shard) < *head;
        let mut failed = None;
        let mut open: Vec<(ShardId, u64)> =
            heads.iter().copied().filter(|it| it.0 != catalog && is_open(self, it)).collect();
        let is_news = !open.is_empty() || heads.iter().any(|it| is_open(self, it));
        while !open.is_empty() {
            let asked: Vec<(ShardId, u64)> =
                open.iter().map(|(shard, _)| (*shard, self.replica.head(*shard))).collect();
            let read = self.runtime.block_on(self.log.follow(&asked, READ_BYTES));
            let mut rest = Vec::new();
            for (next, entries) in open.into_iter().zip(read) {
                match self.take(next.0, entries) {
                    Ok(()) if is_open(self, &next) => rest.push(next),
                    Ok(()) => {}
                    Err(error) => drop(failed.get_or_insert(error)),
                }
            }
            open = rest;
        }
        // To its end, and last: a shard may not hold a queue that is not known yet, for it would look
        // like one that was forgotten.
        if is_news || !self.tidied {
            let followed = self.follow_catalog(catalog);
            failed = failed.or(followed.err());
        }
        failed.map_or(Ok(()), Err)
    }

    fn follow_catalog(&mut self, catalog: ShardId) -> Result<(), AppendError> {
        let before = self.replica.head(catalog);
        let followed = loop {
            let from = self.replica.head(catalog);
            let read = self.runtime.block_on(self.log.follow(&[(catalog, from)], READ_BYTES));
            let entries = read.into_iter().next().unwrap_or(Ok(Vec::new()));
            if entries.as_ref().is_ok_and(Vec::is_empty) {
                break Ok(());
            }
            if let Err(error) = self.take(catalog, entries) {
                break Err(error);
            }
        };
        if self.replica.head(catalog) > before {
            self.publish_catalog();
        }
        followed
    }

    /// Applies entries that were read.
    fn take(&mut self, shard: ShardId, entries: FollowedShard) -> Result<(), AppendError> {
        let entries = match entries {
            Err(ReadError::TooOld(_)) => return self.catch_up(shard),
            entries => entries.map_err(|error| unavailable(&error))?,
        };
        if entries.is_empty() {
            return Err(unavailable(&"the log does not have what its heads say"));
        }
        for followed in &entries {
            let applied = self.replica.apply_followed(followed);
            if let Some(entry) = applied.map_err(|error| unavailable(&error))? {
                if entry.origin.engine == self.origin.engine {
                    self.seen_own.push(entry.origin);
                }
                self.wake_parked(std::iter::once((shard, &entry)));
            }
        }
        Ok(())
    }

    /// This engine was away for so long that the others have let go of what it missed: it takes the
    /// shard from their checkpoint.
    fn catch_up(&mut self, shard: ShardId) -> Result<(), AppendError> {
        // Two who write rows of one shard would mix them. It ends soon, and this is tried again.
        if self.schedule.is_under_way() {
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

    /// Looks at all heads and applies what is missing; tells whether anything was.
    pub(super) fn follow_all(&mut self) -> Result<bool, AppendError> {
        let interval_ms = match self.log.hears_news() {
            true => self.config.follow_interval_ms.max(NET_INTERVAL_MS),
            false => self.config.follow_interval_ms,
        };
        self.followed_at_us = self.clock.monotonic_us();
        self.follow_at_us = self.followed_at_us + interval_ms * 1000;
        let heads = self.heads()?;
        let applied = |lane: &Self| heads.iter().map(|it| lane.replica.head(it.0)).sum::<u64>();
        let before = applied(self);
        self.follow(&heads)?;
        if !self.tidied {
            self.tidied = true;
            self.replica.tidy();
        }
        Ok(applied(self) > before)
    }

    /// The heads of all shards, the catalog's last.
    pub(super) fn heads(&self) -> Result<Vec<(ShardId, u64)>, AppendError> {
        let shards = self.replica.count().get() + 1;
        let heads = self.runtime.block_on(self.log.heads(shards));
        Ok((0..).zip(heads.map_err(|error| unavailable(&error))?).collect())
    }

    /// Whether it is time to look what others did.
    pub(super) fn is_follow_due(&self) -> bool {
        !self.config.sole_writer && self.next_follow_us() <= self.clock.monotonic_us()
    }

    /// When it is, in the clock's microseconds.
    pub(super) fn next_follow_us(&self) -> u64 {
        let gap_us = match self.parked.is_empty() && self.watches.is_empty() {
            true => QUIET_GAP_US,
            false => NEWS_GAP_US,
        };
        match self.news.load(Ordering::Acquire) {
            true => self.follow_at_us.min(self.followed_at_us + gap_us),
            false => self.follow_at_us,
        }
    }

    /// Learns now and then what others did, so that consumers waiting here get it too.
    pub(super) fn follow_if_due(&mut self) {
        if self.is_down() || !self.is_follow_due() {
            return;
        }
        self.news.store(false, Ordering::Release);
        if let Err(error) = self.follow_all() {
            tracing::debug!(%error, "other engines could not be followed now");
        }
    }
}
