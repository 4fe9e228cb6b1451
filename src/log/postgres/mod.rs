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
    Lock, MessageRow, Orders, Place, Projected, ProjectionError, ProjectionStore, Step,
};

use self::link::Link;
use self::session::{NoSession, Role, connect};
use self::shared::{LINES, Shared};
use super::vault::Vault;
use super::{
    Append, AppendError, Bounds, Claim, Connections, Durability, Extent, FollowedShard, Front, Log,
    LogFuture, Proposal, ReadError, StoredEntry, Wake,
};
use crate::base::place::ShardId;
use crate::log::identity::{Identity, Loaded};

/// Pause between two tries to open.
const OPEN_PAUSE: Duration = Duration::from_millis(200);
/// How long preparing the schema may take beyond the patience of opening.
const SCHEMA_MAX: Duration = Duration::from_secs(60);
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("onrush-postgres")
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let config = Arc::new(config);
        let opened = runtime.block_on(open(Arc::clone(&config), newcomer));
        match opened {
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

async fn open(
    config: Arc<PostgresConfig>,
    newcomer: &Identity,
) -> Result<(Arc<Shared>, Loaded), OpenError> {
    let (mut client, driver) = first_session(&config).await?;
    // Longer than the server lets a statement take, which is mostly the one to say so.
    let limit = config.open_patience + SCHEMA_MAX;
    let preparing = schema::prepare(&mut client, &config, newcomer);
    let prepared = tokio::time::timeout(limit, preparing).await;
    driver.abort();
    let late = |_| OpenError::Unreachable("preparing the schema took too long".to_owned());
    let loaded = prepared.map_err(late)??;
    let shards = usize::from(loaded.identity().shards.get()) + 1;
    let shared = Arc::new(Shared::new(Arc::clone(&config), shards));
    let links = [&shared.follower, &shared.bodies, &shared.upkeep];
    let links: Vec<&Link> = links.into_iter().chain(&shared.writers).collect();
    let all = async {
        for link in &links {
            link.connected().await;
        }
    };
    if tokio::time::timeout(config.open_patience, all).await.is_err() {
        let reason = links.iter().find_map(|link| link.session().err());
        let reason = reason.unwrap_or_else(|| "not all connections could be made".to_owned());
        return Err(OpenError::Unreachable(reason));
    }
    let session = shared.upkeep.session().map_err(OpenError::Unreachable)?;
    match tokio::time::timeout(config.open_patience, shared.learn(&session)).await {
        Ok(learnt) => learnt.map_err(|error| OpenError::Schema(error.to_string()))?,
        Err(_late) => return Err(OpenError::Unreachable("it stopped answering".to_owned())),
    }
    Ok((shared, loaded))
}

/// The first session; a database that is still starting is waited for.
async fn first_session(
    config: &PostgresConfig,
) -> Result<(tokio_postgres::Client, tokio::task::JoinHandle<()>), OpenError> {
    let mut last = "it did not answer".to_owned();
    let trying = async {
        loop {
            match connect(config, Role::Upkeep).await {
                Err(NoSession { reason, is_final: false }) => last = reason,
                ended => return ended,
            }
            tokio::time::sleep(OPEN_PAUSE).await;
        }
    };
    match tokio::time::timeout(config.open_patience, trying).await {
        Ok(ended) => Ok(ended?),
        Err(_late) => Err(OpenError::Unreachable(format!("{}: {last}", config.database))),
    }
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
        self.shared.writers.iter().any(|writer| writer.session().is_ok())
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
        let is_keeper = self.shared.is_keeper.load(Ordering::Acquire);
        is_keeper.then(|| self.shared.pieces.load().front()).flatten()
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
