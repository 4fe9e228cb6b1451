//! The log in PostgreSQL: for a database that users run already, for several engines, for more than
//! one machine holds.
//!
//! In: proposals of many shards. Out: one transaction per append that moves the shards' heads where
//! they still are as expected and adds a row per entry; so whoever appends was current, and several
//! engines need no other agreement. A position is the entry's number and an offset in it: every engine
//! computes the same ones. Called by `shard` through [`Log`].
//!
//! Everything waits with a deadline: a connection that broke is noticed at once, one that swallows
//! everything within seconds. While the database is away appends fail at once, and connections are
//! made again in the background. An append whose answer was lost is never called failed.
//!
//! | file | decides |
//! |---|---|
//! | `arrival` | that the store is found: at the start, or later where the database is away then |
//! | `config` | where the database is, and every deadline |
//! | `schema` | tables, and who the store is |
//! | `statements` | SQL of the sessions |
//! | `session`, `tls`, `link` | one connection; encrypted; kept |
//! | `witness` | whether a database met again is the one it was |
//! | `batch`, `append` | an append as parameters; its outcome |
//! | `names` | names of queues and partitions, for people |
//! | `turns` | that of several engines each comes to its turn |
//! | `news` | that engines hear of each other's appends |
//! | `read`, `cache` | heads, entries, bodies; entries in memory |
//! | `pieces`, `upkeep` | which piece holds what; begun, closed, dropped |
//! | `checkpoints` | whole checkpoints for machines without rows |
//! | `projection`, `copied` | messages as rows, for people; values as COPY takes them |
//! | `figures` | what the database itself counts |
//! | `shared` | what all of these know |
//! | `error` | what an error means |
//!
//! The schema takes no extension. A pooler that gives a session's statements to several servers
//! (transaction pooling) does not serve: statements are prepared, and one lock lasts as long as its
//! session.

mod append;
mod arrival;
mod batch;
mod cache;
mod checkpoints;
mod config;
mod copied;
mod error;
mod figures;
mod link;
mod names;
mod news;
mod pieces;
mod projection;
mod read;
mod schema;
mod session;
mod shared;
mod statements;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;
mod turns;
mod upkeep;
mod witness;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;

pub use self::config::{
    Database, Encryption, PostgresConfig, Roots, SchemaName, SchemaNameError, UrlError,
};
pub use self::error::OpenError;
pub use self::figures::DatabaseFigures;
pub use self::names::NamingError;
pub use self::projection::{
    GoneRow, Lock, MessageRow, Orders, Place, Projected, ProjectionError, ProjectionStore,
    RowChanges, Step,
};

use self::shared::{LINES, Shared};
use super::vault::Vault;
use super::{
    Append, AppendError, Bounds, Claim, Connections, Durability, Extent, FollowedShard, Front, Log,
    LogFuture, Proposal, ReadError, StoredEntry, Wake,
};
use crate::base::place::ShardId;
use crate::log::identity::{Identity, Loaded};

/// Beyond the deadline of reading, for a body that another thread waits for.
const BODY_GRACE: Duration = Duration::from_secs(1);

/// The open log. It has a thread of its own for connections and upkeep.
pub struct PostgresLog {
    shared: Arc<Shared>,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

impl PostgresLog {
    /// Opens the store in the configured schema, bringing its tables up to date, or makes one with
    /// the identity of `newcomer`. Returns who the store is.
    ///
    /// Waits up to `open_patience` for a database that is not reachable yet, and for other engines
    /// that open at the same time. Not to be called by a thread that runs asynchronous tasks.
    ///
    /// # Errors
    /// [`OpenError`]; at once where waiting cannot help.
    pub fn open(config: PostgresConfig, newcomer: &Identity) -> Result<(Self, Loaded), OpenError> {
        let runtime = runtime()?;
        match runtime.block_on(arrival::open(Arc::new(config), newcomer)) {
            Ok((shared, loaded)) => {
                runtime.spawn(upkeep::run(Arc::clone(&shared)));
                runtime.spawn(news::run(Arc::clone(&shared)));
                Ok((Self { shared, runtime: Some(runtime) }, loaded))
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The log of a store that this machine knows, while its database is away: it is met as soon as
    /// it is there, and until then nothing can be read or appended. A database that holds another store
    /// then is not touched. Does not wait.
    ///
    /// # Errors
    /// [`OpenError::Thread`].
    pub fn open_away(config: PostgresConfig, identity: &Identity) -> Result<Self, OpenError> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let shared = Arc::new(Shared::new(Arc::new(config), identity));
        drop(entered);
        runtime.spawn(arrival::arrive(Arc::clone(&shared), *identity));
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// Where it is, without a password.
    #[must_use]
    pub fn place(&self) -> String {
        self.shared.config.database.to_string()
    }

    /// Whether the database can be appended to now, or why not.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn health(&self) -> Result<(), String> {
        self.shared.writers.iter().try_for_each(|writer| writer.session().map(|_| ()))
    }
}

/// The log's own thread.
fn runtime() -> Result<Runtime, OpenError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("onrush-postgres").enable_all();
    builder.build().map_err(OpenError::Thread)
}

impl Log for PostgresLog {
    fn append<'a>(
        &'a self,
        proposals: &'a [Proposal],
        // Every commit is durable: entries that a crash of the server took back would live on in the
        // engines that applied them.
        _durability: Durability,
    ) -> LogFuture<'a, Result<Append, AppendError>> {
        Box::pin(self.shared.append(proposals))
    }

    fn width(&self) -> usize {
        LINES
    }

    fn read(
        &self,
        shard: ShardId,
        from: u64,
        bytes_max: usize,
    ) -> LogFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        Box::pin(self.shared.read_entries(shard, from, bytes_max))
    }

    fn follow<'a>(
        &'a self,
        asked: &'a [(ShardId, u64)],
        bytes_max: usize,
    ) -> LogFuture<'a, Vec<FollowedShard>> {
        Box::pin(self.shared.follow_entries(asked, bytes_max))
    }

    fn claim<'a>(&'a self, shards: &'a [ShardId]) -> LogFuture<'a, Option<Claim>> {
        Box::pin(self.shared.claim(shards))
    }

    fn wants_briefs(&self) -> bool {
        self.shared.news.has_others()
    }

    fn head(&self, shard: ShardId) -> LogFuture<'_, Result<u64, ReadError>> {
        Box::pin(self.shared.read_head(shard))
    }

    fn heads(&self, count: u16) -> LogFuture<'_, Result<Vec<u64>, ReadError>> {
        Box::pin(self.shared.read_heads(usize::from(count)))
    }

    fn body(&self, shard: ShardId, extent: Extent) -> Result<Bytes, ReadError> {
        if let Some(found) = self.shared.body_in_memory(shard, extent) {
            return found;
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let shared = Arc::clone(&self.shared);
        self.shared.runtime().spawn(async move {
            // Whoever gave up waiting does not want it any more.
            let _ = answer.send(shared.read_body(shard, extent).await);
        });
        let late = |_| ReadError::Unavailable("the body did not come in time".to_owned());
        let limit = self.shared.config.read_timeout + BODY_GRACE;
        answered.recv_timeout(limit).map_err(late)?
    }

    fn is_near(&self, shard: ShardId, position: u64) -> bool {
        self.shared.cache.lock().contains(shard, batch::place(position).0)
    }

    fn is_reachable(&self) -> bool {
        self.shared.has_arrived.load(Ordering::Acquire)
            && self.shared.writers.iter().any(|writer| writer.session().is_ok())
    }

    fn is_other(&self) -> bool {
        self.shared.witness.is_other()
    }

    fn is_taken_back(&self) -> bool {
        self.shared.witness.is_taken_back()
    }

    fn sync(&self) -> LogFuture<'_, Result<(), AppendError>> {
        // Everything is durable already; what is left to promise is that the next append can be.
        Box::pin(async { self.shared.ping().await.map_err(AppendError::Unavailable) })
    }

    fn truncate_before(&self, shard: ShardId, position: u64) -> Result<(), AppendError> {
        self.shared.lower_floor(shard, position);
        Ok(())
    }

    fn front(&self) -> Option<Front> {
        // One engine moves what lives and lets go; if all did, they would do it twice.
        self.shared.is_keeper().then(|| self.shared.pieces.load().front()).flatten()
    }

    fn end_of(&self, shard: ShardId) -> u64 {
        self.shared.end_of(shard)
    }

    fn durable_to(&self, _shard: ShardId) -> u64 {
        u64::MAX
    }

    fn bounds(&self) -> Bounds {
        let end = self.shared.log_bytes();
        Bounds { start: self.shared.pieces.load().given_back(), end, synced: end }
    }

    fn on_news(&self, wake: Wake) {
        self.shared.news.on_news(wake);
    }

    fn hears_news(&self) -> bool {
        self.shared.news.is_heard()
    }

    fn connections(&self) -> Connections {
        self.shared.connections()
    }

    fn vault(&self) -> Option<&dyn Vault> {
        Some(self)
    }
}

impl Drop for PostgresLog {
    fn drop(&mut self) {
        // Connections are cut with their tasks; what was sent on them may still be carried out.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
