//! What all parts of the log in a database share: connections, and what is known of the log.
//!
//! Everything known here is a memory of answers: heads only grow, so the largest one heard of is the
//! best one known. Called by `append`, `read`, `upkeep` and `checkpoints`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Sleep, Timeout};

use super::batch::position;
use super::cache::Cache;
use super::checkpoints::Known;
use super::config::PostgresConfig;
use super::link::Link;
use super::news::News;
use super::pieces::Pieces;
use super::session::{Role, Session};
use super::turns::Turns;
use super::upkeep::NOBODY;
use super::witness::Witness;
use crate::base::place::ShardId;
use crate::log::identity::Identity;
use crate::log::{Connections, ReadError};

/// Lines: a shard's appends go by the same one always, and each can be under way beside the others. So
/// many connections there are for appending, and tables of a piece.
pub(super) const LINES: usize = 8;

/// The log but for its thread.
pub(super) struct Shared {
    pub(super) config: Arc<PostgresConfig>,
    runtime: tokio::runtime::Handle,
    /// Two appends to different shards go side by side: each connection is served by a process of the
    /// database of its own.
    pub(super) writers: [Link; LINES],
    /// Which of them an append uses.
    pub(super) appending: [AtomicBool; LINES],
    pub(super) follower: Link,
    pub(super) bodies: Link,
    pub(super) upkeep: Link,
    pub(super) witness: Arc<Witness>,
    pub(super) turns: Turns,
    pub(super) news: Arc<News>,
    /// By shard: the largest head heard of.
    pub(super) heads: Vec<AtomicU64>,
    /// By shard: bytes ever appended, as last heard of.
    bytes: Vec<AtomicU64>,
    /// By shard: nothing below this position is needed, says this engine.
    pub(super) floors: Vec<AtomicU64>,
    pub(super) pieces: ArcSwap<Pieces>,
    /// By shard: the first entry that has still to become rows, where any have to.
    pub(super) needed: Mutex<Vec<Option<u64>>>,
    /// By shard: the checkpoint that the database has.
    pub(super) kept: Mutex<Vec<Option<Known>>>,
    pub(super) cache: Mutex<Cache>,
    /// Which session holds the lock of whoever sees to pieces and checkpoints, if one of ours does.
    pub(super) keeper: AtomicU64,
    /// Upkeep has a reason not to wait.
    pub(super) hurry: Notify,
    /// One round of upkeep at a time.
    pub(super) round: tokio::sync::Mutex<super::upkeep::Round>,
    /// The schema is up to date and what it holds is known. Until then nobody may go by what is not.
    pub(super) has_arrived: AtomicBool,
}

impl Shared {
    /// Begins to make its connections. To be called within the runtime that will serve them.
    pub(super) fn new(config: Arc<PostgresConfig>, identity: &Identity) -> Self {
        let shards = usize::from(identity.shards.get()) + 1;
        let witness = Arc::new(Witness::new(shards, identity.store));
        let link = |role| Link::keep(Arc::clone(&config), role, Arc::clone(&witness));
        let zeros = || (0..shards).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self {
            runtime: tokio::runtime::Handle::current(),
            writers: std::array::from_fn(|_| link(Role::Writer)),
            appending: Default::default(),
            follower: link(Role::Follower),
            bodies: link(Role::Bodies),
            upkeep: link(Role::Upkeep),
            witness: Arc::clone(&witness),
            turns: Turns::default(),
            news: Arc::default(),
            heads: zeros(),
            bytes: zeros(),
            floors: zeros(),
            pieces: ArcSwap::default(),
            needed: Mutex::new(vec![None; shards]),
            kept: Mutex::new(vec![None; shards]),
            cache: Mutex::new(Cache::new(config.cache_bytes)),
            keeper: AtomicU64::new(NOBODY),
            hurry: Notify::new(),
            round: tokio::sync::Mutex::default(),
            has_arrived: AtomicBool::new(false),
            config,
        }
    }

    /// All of its connections but the one for news.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        [&self.follower, &self.bodies, &self.upkeep].into_iter().chain(&self.writers)
    }

    /// First and last number of pieces that may hold an entry.
    ///
    /// # Errors
    /// It is gone; or nothing is known yet, for the database was away all the time.
    pub(super) fn pieces_of(&self, shard: ShardId, index: u64) -> Result<(i32, i32), ReadError> {
        let pieces = self.pieces.load();
        if pieces.newest().is_none() {
            return Err(ReadError::Unavailable("the database was not reached yet".to_owned()));
        }
        pieces.holding(shard, index).ok_or(ReadError::TooOld(position(index)))
    }

    /// A session to append with: one that no other append uses, if there is one. A writer that has no
    /// session now, while others have, is no reason to call the database away.
    pub(super) fn writer(&self) -> Result<(Arc<Session>, Appending<'_>), String> {
        let (mut used, mut problem) = (None, None);
        for (writer, is_used) in self.writers.iter().zip(&self.appending) {
            match writer.session() {
                Err(reason) => drop(problem.get_or_insert(reason)),
                Ok(session) if is_used.swap(true, Ordering::AcqRel) => {
                    used.get_or_insert(session);
                }
                Ok(session) => return Ok((session, Appending(Some(is_used)))),
            }
        }
        let session = used.ok_or_else(|| problem.unwrap_or_default())?;
        Ok((session, Appending(None)))
    }

    /// Cuts all connections: the database left a question without an answer for longer than it may, and
    /// most likely swallows what is sent over the others too. Whoever tried them one after the other
    /// would wait as long for each; new ones show by answering that there is somebody.
    pub(super) fn sever_all(&self) {
        self.links().for_each(Link::sever);
    }

    /// Whether another append is under way beside the caller's.
    pub(super) fn is_accompanied(&self) -> bool {
        self.appending.iter().filter(|is_used| is_used.load(Ordering::Acquire)).count() > 1
    }

    /// Connections that are open; those work on which an append waits.
    pub(super) fn connections(&self) -> Connections {
        let is_open = |link: &&Link| link.session().is_ok();
        let others = [&self.follower, &self.bodies, &self.upkeep];
        let open = self.writers.iter().chain(others).filter(is_open).count();
        let writers = self.writers.iter().zip(&self.appending);
        let used =
            writers.filter(|(link, is_used)| is_used.load(Ordering::Acquire) && is_open(link));
        let active = used.count();
        Connections { active: active as u64, idle: open.saturating_sub(active) as u64 }
    }

    /// A future with a deadline, by the log's own timers: whoever polls it may have none.
    pub(super) fn within<F: Future>(&self, limit: Duration, future: F) -> Timeout<F> {
        let _entered = self.runtime.enter();
        tokio::time::timeout(limit, future)
    }

    /// A pause, by the log's own timers.
    pub(super) fn sleep(&self, pause: Duration) -> Sleep {
        let _entered = self.runtime.enter();
        tokio::time::sleep(pause)
    }

    pub(super) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub(super) fn note_head(&self, shard: ShardId, head: u64) {
        if let Some(known) = self.heads.get(usize::from(shard)) {
            known.fetch_max(head, Ordering::AcqRel);
        }
    }

    pub(super) fn note_bytes(&self, shard: ShardId, bytes: u64) {
        if let Some(known) = self.bytes.get(usize::from(shard)) {
            known.fetch_max(bytes, Ordering::AcqRel);
        }
    }

    /// An append of this engine: the sum of bytes is corrected by the next look at the heads.
    pub(super) fn note_appended(&self, shard: ShardId, head: u64, more: u64) {
        self.note_head(shard, head);
        if let Some(known) = self.bytes.get(usize::from(shard)) {
            known.fetch_add(more, Ordering::AcqRel);
        }
    }

    pub(super) fn known_head(&self, shard: ShardId) -> u64 {
        self.heads.get(usize::from(shard)).map_or(0, |head| head.load(Ordering::Acquire))
    }

    /// Bytes ever appended to a shard, about.
    pub(super) fn shard_bytes(&self, shard: ShardId) -> u64 {
        self.bytes.get(usize::from(shard)).map_or(0, |bytes| bytes.load(Ordering::Acquire))
    }

    /// Bytes ever appended, about.
    pub(super) fn log_bytes(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.load(Ordering::Acquire)).sum()
    }

    /// Position that the next entry begins at, as far as heads are known.
    pub(super) fn end_of(&self, shard: ShardId) -> u64 {
        position(self.known_head(shard))
    }
}

/// An append under way, until it is dropped, and the mark of the session that is its own; an append
/// that shares the session of another has none.
pub(super) struct Appending<'a>(Option<&'a AtomicBool>);

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        if let Some(is_used) = self.0 {
            is_used.store(false, Ordering::Release);
        }
    }
}
