//! The log seam: what every store behind the shards must promise.
//!
//! A shard changes only by entries appended here. An append is conditional on each shard's head and
//! atomic over all its shards, which is all the fencing that several engines need: whoever appends
//! at the expected head was current, everyone else reads what is missing and decides again.
//!
//! In: ropes of bytes per shard. Out: positions, or why not. A log knows no effect and no message.
//! Called by `shard`; implemented by [`local`] on the journal, [`postgres`] on a database, and
//! [`simulated`] for tests.

#[cfg(test)]
mod contract;
pub mod identity;
pub mod label;
pub mod local;
pub mod postgres;
pub mod simulated;
pub mod vault;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use self::label::Label;
use self::vault::Vault;
use crate::base::place::ShardId;
use crate::telemetry::latency::Latency;

/// A boxed future: one per group commit, so its allocation does not count.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something to call when there are news.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// One shard's entry, offered at the head that its decider saw.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The shard it changes.
    pub shard: ShardId,
    /// How many entries the shard had when this one was decided; it becomes entry number `expected`.
    pub expected_head: u64,
    /// The entry's bytes as a rope: payloads are slices of the frames that brought them.
    pub parts: Vec<Bytes>,
    /// What whoever follows reads instead, where there is something shorter and [`Log::wants_briefs`].
    pub brief: Option<Bytes>,
    /// Another shard and the head that it had when this was decided, where the decision rests on it. If
    /// that head has moved, the append is refused as a conflict of that shard. It is compared and not
    /// held: an append that moves it at the same moment may go by unseen. A log with one writer has
    /// nothing to compare.
    pub relies_on: Option<(ShardId, u64)>,
    /// What of it has a name that people know. A log that only engines read has no use for it.
    pub labels: Vec<Label>,
}

impl Proposal {
    /// Bytes of the entry.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether the entry has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }
}

/// What an append waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Durability {
    /// Handed to the operating system: survives the process, not the machine. Readable at once.
    Written,
    /// Survives the machine: fdatasync returned, or the database committed. Covers everything
    /// appended before it too.
    Synced,
}

/// What became of an append that was carried out as asked or not at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Append {
    /// All entries stand; the position of each entry's first byte, in the order proposed.
    Appended(Vec<u64>),
    /// Nothing was appended: these shards' heads are not where the proposals expected them.
    Conflict(Vec<ShardId>),
}

/// Why an append did not happen, or may have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    /// No room for the entries: nothing was appended; may be tried again when there is space.
    #[error("the log's disk is full")]
    DiskFull,
    /// The store was not reached: nothing was appended; may be tried again.
    #[error("the log is not reachable: {0}")]
    Unavailable(String),
    /// The answer was lost: the entries stand all or not at all; read the heads to know.
    #[error("the log's answer was lost")]
    OutcomeUnknown,
    /// An earlier write or sync failed: nothing more is accepted until a restart.
    #[error("the log is poisoned by an earlier failure: {0}")]
    Poisoned(String),
    /// The entries together are larger than the log takes at once: nothing was appended.
    #[error("an append of {bytes} bytes is over the log's limit of {limit}")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// Most bytes of one append.
        limit: u64,
    },
}

/// Why bytes or entries could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// They were there and are gone by retention or compaction.
    #[error("position {0} is before the log's start")]
    TooOld(u64),
    /// There is nothing (yet) at this position.
    #[error("position {0} is past the log's end")]
    PastEnd(u64),
    /// What is there is not what was written.
    #[error("damaged log at position {position}: {reason}")]
    Corrupt {
        /// Where.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// The store could not be asked now; may be tried again.
    #[error("the log is not reachable: {0}")]
    Unavailable(String),
}

/// One entry of one shard, read back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEntry {
    /// Its shard.
    pub shard: ShardId,
    /// Its number in the shard, dense from 0.
    pub index: u64,
    /// Position of its first byte; bodies inside it are at `position + offset`.
    pub position: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// One entry of one shard as whoever follows it gets it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Followed {
    /// The entry; its bytes are its brief where it has one.
    pub entry: StoredEntry,
    /// Whether they are.
    pub is_brief: bool,
    /// Bytes that it has in the log.
    pub len: u64,
}

impl From<StoredEntry> for Followed {
    fn from(entry: StoredEntry) -> Self {
        let len = entry.bytes.len() as u64;
        Self { entry, is_brief: false, len }
    }
}

/// What became of asking for a turn.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claim {
    /// Whether it was given: others wait for a moment.
    pub is_ours: bool,
    /// The heads of the shards asked for.
    pub heads: Vec<(ShardId, u64)>,
}

/// What following one shard brought.
pub type FollowedShard = Result<Vec<Followed>, ReadError>;

/// A place inside the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// First byte.
    pub position: u64,
    /// Number of bytes.
    pub len: u32,
}

/// How space comes back: what could go first, and up to where anything could go at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Front {
    /// Position behind the oldest piece, by shard, the catalog's last. It goes as a whole, when no
    /// shard needs anything below these.
    pub oldest_ends: Vec<u64>,
    /// Bytes of the oldest piece.
    pub oldest_bytes: u64,
    /// Position behind everything that is no longer being filled, by shard.
    pub old_ends: Vec<u64>,
    /// Bytes of all that, the oldest piece among them.
    pub old_bytes: u64,
}

impl Front {
    /// The front of a log in which all shards share one order of positions, from `start` to `end`,
    /// in pieces of about `piece_bytes`.
    fn of_one_order(start: u64, end: u64, piece_bytes: u64, shards: usize) -> Option<Self> {
        let old_end = end.saturating_sub(piece_bytes);
        let oldest_end = start.saturating_add(piece_bytes);
        (oldest_end <= old_end).then(|| Self {
            oldest_ends: vec![oldest_end; shards],
            oldest_bytes: piece_bytes,
            old_ends: vec![old_end; shards],
            old_bytes: old_end - start,
        })
    }
}

/// The store behind the shards. Shared by all lanes; every method may be called from any thread.
///
/// Positions grow within a shard and say nothing across shards: a log that several engines append to
/// has no order but each shard's own.
///
/// Dropping a future of `append` leaves the outcome open, as [`AppendError::OutcomeUnknown`] does.
pub trait Log: Send + Sync + 'static {
    /// Appends all proposals or none; they are durable as asked when it answers. Entries of one
    /// shard take their order from their expected heads; a later append is never durable before
    /// an earlier one.
    fn append<'a>(
        &'a self,
        proposals: &'a [Proposal],
        durability: Durability,
    ) -> LogFuture<'a, Result<Append, AppendError>>;

    /// How many appends to different shards it carries out side by side; more wait for each other.
    fn width(&self) -> usize {
        1
    }

    /// Entries of `shard` from number `from` on, oldest first; at most about `bytes_max` bytes but
    /// at least one entry where there is one. Empty when there is none yet.
    fn read(
        &self,
        shard: ShardId,
        from: u64,
        bytes_max: usize,
    ) -> LogFuture<'_, Result<Vec<StoredEntry>, ReadError>>;

    /// Entries of several shards, each from a number on, as [`Self::read`] gives them but for their
    /// payloads where they have briefs; of all shards together about `bytes_max` bytes, of each at least
    /// one entry. Answers in the order asked.
    fn follow<'a>(
        &'a self,
        asked: &'a [(ShardId, u64)],
        bytes_max: usize,
    ) -> LogFuture<'a, Vec<FollowedShard>> {
        Box::pin(async move {
            let each = bytes_max / asked.len().max(1);
            let mut found = Vec::with_capacity(asked.len());
            for (shard, from) in asked {
                let entries = self.read(*shard, *from, each).await;
                found.push(entries.map(|it| it.into_iter().map(Followed::from).collect()));
            }
            found
        })
    }

    /// Whether somebody follows who would rather not read payloads.
    fn wants_briefs(&self) -> bool {
        false
    }

    /// Where appends to shards lately lost against another engine's: asks for the turn on these, before
    /// anything is decided, so that what is decided will stand. `None` where nobody else was met lately,
    /// or the store cannot be asked. A turn is a courtesy and proves nothing.
    fn claim<'a>(&'a self, _shards: &'a [ShardId]) -> LogFuture<'a, Option<Claim>> {
        Box::pin(std::future::ready(None))
    }

    /// How many entries the shard has.
    fn head(&self, shard: ShardId) -> LogFuture<'_, Result<u64, ReadError>>;

    /// The heads of the shards below `count`, by number; no instant at which all of them were so is
    /// promised. A log behind a network asks for all at once.
    fn heads(&self, count: u16) -> LogFuture<'_, Result<Vec<u64>, ReadError>> {
        Box::pin(async move {
            let mut heads = Vec::with_capacity(usize::from(count));
            for shard in 0..count {
                heads.push(self.head(shard).await?);
            }
            Ok(heads)
        })
    }

    /// Bytes inside an entry of `shard`. May touch the disk; local logs answer without waiting for
    /// anything but a page fault.
    fn body(&self, shard: ShardId, extent: Extent) -> Result<Bytes, ReadError>;

    /// Whether reading a body of `shard` at `position` will most likely not wait for a disk or a
    /// network: then it is not worth a thread of its own.
    fn is_near(&self, shard: ShardId, position: u64) -> bool;

    /// Whether the store can be asked now, as far as is known without asking it. A store that is
    /// part of this process always can.
    fn is_reachable(&self) -> bool {
        true
    }

    /// Whether what was reached last in the store's place is another store: nothing that is kept for
    /// this one would ever get there.
    fn is_other(&self) -> bool {
        false
    }

    /// Whether what was reached last is the store without entries that were seen in it, or with others
    /// in their place: it is not used again before a restart.
    fn is_taken_back(&self) -> bool {
        false
    }

    /// Makes everything appended so far durable.
    fn sync(&self) -> LogFuture<'_, Result<(), AppendError>>;

    /// Tells that `shard` needs nothing below `position` any more. Space comes back when all
    /// shards said so, in pieces, at once or soon.
    fn truncate_before(&self, shard: ShardId, position: u64) -> Result<(), AppendError>;

    /// What could be given back; `None` while nothing is old enough, or while another engine sees
    /// to it.
    fn front(&self) -> Option<Front>;

    /// A position that the next entry of `shard` will not lie before: nothing of the shard stands
    /// between its newest entry that this engine knows of and here.
    fn end_of(&self, shard: ShardId) -> u64;

    /// Everything of `shard` before this position survives the machine.
    fn durable_to(&self, shard: ShardId) -> u64;

    /// How much was ever appended, given back and made durable.
    fn bounds(&self) -> Bounds;

    /// Calls `wake` whenever another engine has appended, as soon as it is heard of; once in a while
    /// it is not. A log that nobody else appends to never calls.
    fn on_news(&self, _wake: Wake) {}

    /// Whether that is heard of now, so that looking what others did is only to be safe.
    fn hears_news(&self) -> bool {
        false
    }

    /// How its syncs went; `None` where the log does not sync anything itself.
    fn syncs(&self) -> Option<Syncs<'_>> {
        None
    }

    /// Connections to where the log is; none where it is part of this process.
    fn connections(&self) -> Connections {
        Connections::default()
    }

    /// Where checkpoints are kept that other machines can start from; `None` for a log that only this
    /// machine has.
    fn vault(&self) -> Option<&dyn Vault> {
        None
    }
}

/// How making a log durable went since it was opened.
#[derive(Clone, Copy, Debug)]
pub struct Syncs<'a> {
    /// How long each took.
    pub took: &'a Latency,
    /// How many failed: one at most, because nothing is appended after it.
    pub failed: u64,
}

/// Connections to a store, as they are now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// On which an append waits for its answer.
    pub active: u64,
    /// All others.
    pub idle: u64,
}

impl Connections {
    /// All of them.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.active + self.idle
    }
}

/// The extent of a whole log in bytes, counted from its beginning. Only to be compared with each
/// other: these are no positions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// What was given back.
    pub start: u64,
    /// What was appended.
    pub end: u64,
    /// What of it survives the machine.
    pub synced: u64,
}
