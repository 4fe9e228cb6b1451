//! Upkeep: pieces of the log are begun ahead, closed when they are full, and dropped when nobody
//! needs them.
//!
//! In: what the database says of heads, pieces and checkpoints, once an interval. Out: the view that
//! all readers share, and, at one engine at a time (the keeper, which holds an advisory lock for as long
//! as its connection lives), the changes. A piece is dropped when the keeper's shards have let go of
//! all of it and the database has checkpoints that cover it; dropping is one `DROP TABLE`, and nobody
//! who appends or reads waits for it. Runs as one task of the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::error::words;
use super::names;
use super::pieces::{Piece, Pieces};
use super::schema::{create_piece, lock_key};
use super::session::{NoSession, Role, Session, connect};
use super::shared::Shared;
use crate::base::place::ShardId;

/// The pieces after a number that is known, by number and shard; and the oldest that there is.
const PIECES: &str = "SELECT piece, first, bytes, tail FROM pieces WHERE piece > $1 \
                      ORDER BY piece, shard";
const OLDEST: &str = "SELECT min(piece) FROM pieces";
/// Entries that have still to become rows.
const NEEDED: &str = "SELECT shard, next FROM projection";
const BYTES: &str = "SELECT head, bytes FROM heads ORDER BY shard";

/// Closes a piece: from here on entries go to the next one, for every shard from its own head on.
/// Heads are locked in the order in which appends lock them.
const CLOSE: &str = "
WITH locked AS (
    SELECT shard FROM heads ORDER BY shard FOR UPDATE
), counted AS (
    SELECT count(*) AS shards FROM locked
), moved AS (
    UPDATE heads SET piece = $1::int4 + 1 FROM counted
     WHERE heads.piece = $1::int4 AND counted.shards > 0
    RETURNING heads.shard, heads.head, heads.bytes, heads.tail
)
INSERT INTO pieces (shard, piece, first, bytes, tail)
SELECT shard, $1::int4 + 1, head, bytes, tail FROM moved";

/// Tables of pieces older than the oldest one, and how far they are from being gone.
const LEFTOVERS: &str = "
SELECT class.relname::text, inherits.inhrelid IS NOT NULL, coalesce(inherits.inhdetachpending, false)
  FROM pg_class AS class
  JOIN pg_namespace AS schema ON schema.oid = class.relnamespace
  LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = class.oid
 WHERE schema.nspname = $1 AND class.relkind IN ('r', 'p') AND class.relname ~ '^log_[0-9]+$'
   AND substr(class.relname, 5)::int4 < $2";

/// Longer than any round takes: the server itself gives a statement up after a minute.
const ROUND_MAX: Duration = Duration::from_secs(180);
/// Rounds between two looks for tables that were left behind.
const ROUNDS_PER_SWEEP: u32 = 60;

/// No session.
pub(super) const NOBODY: u64 = 0;

/// What one round leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Rounds until tables that were left behind are looked for.
    until_sweep: u32,
}

/// Why a round did not come to its end; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    #[error("{0}")]
    Away(String),
    #[error("{}", words(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("{0}")]
    Damaged(String),
}

impl From<NoSession> for RoundError {
    fn from(error: NoSession) -> Self {
        Self::Away(error.reason)
    }
}

/// Runs rounds for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let pause = tokio::time::sleep(shared.config.upkeep_interval);
        tokio::select! {
            () = pause => {}
            () = shared.hurry.notified() => {}
        }
        match tokio::time::timeout(ROUND_MAX, shared.upkeep_round()).await {
            Ok(Ok(_changed)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "upkeep of the log goes on later"),
            // A connection that swallows everything; another one is made when it is cut.
            Err(_late) => drop(shared.upkeep.session().map(|session| session.sever())),
        }
        // Whoever hurries does not do so all the time.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Shared {
    /// One round; tells whether anything was changed.
    pub(super) async fn upkeep_round(&self) -> Result<bool, RoundError> {
        let mut round = self.round.lock().await;
        let session = self.upkeep.session().map_err(RoundError::Away)?;
        self.learn(&session).await?;
        if !self.take_lock(&mut round, &session).await? {
            return Ok(false);
        }
        let mut changed = self.begin_ahead(&session).await?;
        changed |= self.close_if_full(&session).await?;
        self.learn_needed(&session).await?;
        let dropped = self.let_go(&session).await?;
        if dropped || round.until_sweep == 0 {
            self.sweep(&session).await?;
            names::sweep(&session).await?;
            round.until_sweep = ROUNDS_PER_SWEEP;
        }
        round.until_sweep -= 1;
        Ok(changed || dropped)
    }

    /// Whether this engine is the keeper.
    async fn take_lock(
        &self,
        round: &mut Round,
        session: &Arc<Session>,
    ) -> Result<bool, RoundError> {
        if self.keeper.load(Ordering::Acquire) == session.serial {
            return Ok(true);
        }
        let key = lock_key(&self.config.schema, "keeper");
        let asked = format!("SELECT pg_try_advisory_lock({key})");
        let is_keeper: bool = session.client.query_one(&asked, &[]).await?.get(0);
        if is_keeper {
            round.until_sweep = 0;
        }
        self.keeper.store(if is_keeper { session.serial } else { NOBODY }, Ordering::Release);
        Ok(is_keeper)
    }

    /// Whether this engine is the one that sees to pieces and checkpoints. It is no more from when its
    /// connection ends: the lock went with it.
    pub(super) fn is_keeper(&self) -> bool {
        let keeper = self.keeper.load(Ordering::Acquire);
        keeper != NOBODY && self.upkeep.session().is_ok_and(|session| session.serial == keeper)
    }

    /// Brings what is known up to date.
    pub(super) async fn learn(&self, session: &Session) -> Result<(), RoundError> {
        let client = &session.client;
        let known = self.pieces.load_full();
        let newest = known.newest().map_or(-1, |piece| piece.number);
        let asked: [&(dyn ToSql + Sync); 1] = [&newest];
        let (oldest, newer, heads) = tokio::try_join!(
            client.query_one(OLDEST, &[]),
            client.query(PIECES, &asked),
            client.query(BYTES, &[]),
        )?;
        self.learn_kept(session).await?;
        for (shard, row) in (0..).zip(&heads) {
            self.note_head(shard, row.get::<_, i64>(0) as u64);
            self.note_bytes(shard, row.get::<_, i64>(1) as u64);
        }
        let oldest: Option<i32> = oldest.get(0);
        let oldest = oldest.ok_or_else(|| RoundError::Damaged("there are no pieces".into()))?;
        let newer = read_pieces(&newer, self.heads.len())?;
        let is_news = !newer.is_empty() || known.0.first().is_some_and(|it| it.number < oldest);
        if is_news {
            let mut pieces = Pieces::clone(&known);
            pieces.renew(oldest, newer);
            self.pieces.store(Arc::new(pieces));
        }
        Ok(())
    }

    /// What has still to become rows. Whoever asks for rows later asks for entries that are not there
    /// yet, so what is free by this is free.
    async fn learn_needed(&self, session: &Session) -> Result<(), RoundError> {
        let mut needed = vec![None; self.heads.len()];
        for row in session.client.query(NEEDED, &[]).await? {
            let (shard, next): (i32, i64) = (row.get(0), row.get(1));
            if let Some(needed) = usize::try_from(shard).ok().and_then(|at| needed.get_mut(at)) {
                *needed = Some(next as u64);
            }
        }
        *self.needed.lock() = needed;
        Ok(())
    }

    fn newest_piece(&self) -> Result<i32, RoundError> {
        let pieces = self.pieces.load();
        let newest = pieces.newest().map(|piece| piece.number);
        newest.ok_or_else(|| RoundError::Damaged("there are no pieces".into()))
    }

    /// Makes the table of the piece after the newest one.
    async fn begin_ahead(&self, session: &Session) -> Result<bool, RoundError> {
        let next = self.newest_piece()?.saturating_add(1);
        let name = format!("{}.log_{next}", self.config.schema.as_str());
        let found =
            session.client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await?;
        if found.get(0) {
            return Ok(false);
        }
        create_piece(&session.client, next, self.heads.len()).await?;
        Ok(true)
    }

    /// Closes the newest piece if it has its bytes.
    async fn close_if_full(&self, session: &Session) -> Result<bool, RoundError> {
        let newest = self.newest_piece()?;
        let before = self.pieces.load().newest().map_or(0, |piece| piece.bytes);
        if self.log_bytes().saturating_sub(before) < self.config.piece_bytes.max(1) {
            return Ok(false);
        }
        session.client.execute(CLOSE, &[&newest]).await?;
        self.learn(session).await?;
        self.begin_ahead(session).await?;
        Ok(true)
    }

    /// Forgets the oldest pieces that nobody needs; their tables go right after.
    async fn let_go(&self, session: &Session) -> Result<bool, RoundError> {
        let mut changed = false;
        while let Some(piece) = self.droppable() {
            session.client.execute("DELETE FROM pieces WHERE piece = $1", &[&piece]).await?;
            self.learn(session).await?;
            tracing::debug!(piece, "a piece of the log is given back");
            changed = true;
        }
        Ok(changed)
    }

    /// The oldest piece, if all shards have let go of it, checkpoints cover it, and nothing of it has
    /// still to become rows.
    fn droppable(&self) -> Option<i32> {
        let pieces = self.pieces.load();
        let (oldest, next) = pieces.oldest_closed()?;
        let ends = pieces.front()?.oldest_ends;
        let floors = self.floors.iter().map(|floor| floor.load(Ordering::Acquire));
        let is_free = ends.iter().zip(floors).all(|(end, floor)| floor >= *end);
        let kept = self.kept.lock();
        let is_covered = next.firsts.iter().zip(kept.iter()).all(|(first, kept)| {
            *first == 0 || kept.as_ref().is_some_and(|known| known.kept.head >= *first)
        });
        let needed = self.needed.lock();
        let is_projected =
            |(first, needed): (&u64, &Option<u64>)| needed.is_none_or(|it| it >= *first);
        let are_rows = next.firsts.iter().zip(needed.iter()).all(is_projected);
        (is_free && is_covered && are_rows).then_some(oldest.number)
    }

    /// Drops the tables of pieces that are forgotten. Detaching waits for transactions that may still
    /// look into them, a long dump for one; so it has a connection of its own, and what it does not
    /// come to it takes up the next time.
    async fn sweep(&self, session: &Session) -> Result<(), RoundError> {
        let schema = self.config.schema.as_str();
        let oldest = self.pieces.load().0.first().map_or(0, |piece| piece.number);
        let leftovers = session.client.query(LEFTOVERS, &[&schema, &oldest]).await?;
        if leftovers.is_empty() {
            return Ok(());
        }
        let (client, driver) = connect(&self.config, Role::Upkeep).await?;
        let mut swept = Ok(());
        for row in leftovers {
            let (name, attached, pending): (String, bool, bool) =
                (row.get(0), row.get(1), row.get(2));
            swept = drop_table(&client, &name, attached, pending).await;
            if swept.is_err() {
                break;
            }
        }
        driver.abort();
        Ok(swept?)
    }
}

async fn drop_table(
    client: &Client,
    name: &str,
    attached: bool,
    pending: bool,
) -> Result<(), tokio_postgres::Error> {
    if attached {
        let how = if pending { "FINALIZE" } else { "CONCURRENTLY" };
        client.batch_execute(&format!("ALTER TABLE log DETACH PARTITION {name} {how}")).await?;
    }
    client.batch_execute(&format!("DROP TABLE {name}")).await
}

/// Rows ordered by piece and shard.
fn read_pieces(rows: &[tokio_postgres::Row], shards: usize) -> Result<Vec<Piece>, RoundError> {
    let mut pieces: Vec<Piece> = Vec::new();
    for row in rows {
        let number: i32 = row.get(0);
        if pieces.last().is_none_or(|last| last.number != number) {
            pieces.push(Piece { number, ..Piece::default() });
        }
        let Some(piece) = pieces.last_mut() else { continue };
        piece.firsts.push(row.get::<_, i64>(1) as u64);
        piece.bytes += row.get::<_, i64>(2) as u64;
        piece.tails.push(u64::try_from(row.get::<_, i32>(3)).unwrap_or(0));
    }
    match pieces.iter().find(|piece| piece.firsts.len() != shards) {
        Some(piece) => {
            let found = piece.firsts.len();
            let reason = format!("piece {} has {found} shards of {shards}", piece.number);
            Err(RoundError::Damaged(reason))
        }
        None => Ok(pieces),
    }
}

impl Shared {
    /// Notes that a shard needs nothing below a position.
    pub(super) fn lower_floor(&self, shard: ShardId, position: u64) {
        if let Some(floor) = self.floors.get(usize::from(shard)) {
            floor.fetch_max(position, Ordering::AcqRel);
        }
        if self.droppable().is_some() {
            self.hurry.notify_one();
        }
    }
}
