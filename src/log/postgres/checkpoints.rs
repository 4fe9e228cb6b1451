//! Checkpoints in the database: a machine without rows starts from them, and what they cover may go.
//!
//! In: parts of a shard's checkpoint. Out: the newest whole one per shard. Parts are added one by one
//! under a number of their own, and count only when the row that names them does, so half a checkpoint
//! is never read and two engines that save at once do not mix. Called through [`Vault`].

use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::types::ToSql;

use super::PostgresLog;
use super::batch::Body;
use super::error::{of_append, of_read};
use super::session::Session;
use super::shared::Shared;
use crate::base::place::ShardId;
use crate::base::random::{Random, SystemRandom};
use crate::log::vault::{Kept, Saving, Vault};
use crate::log::{AppendError, LogFuture, ReadError};

/// How much a shard's log grows for each byte of a checkpoint that is written.
const GROWTH_PER_BYTE: u64 = 4;
/// A checkpoint is not worth its while for less of a shard's log than this; nor, as far as this allows,
/// for less than the shard's part of a piece, since space comes back in pieces.
const BYTES_MIN: u64 = 64 << 10;
const BYTES_MIN_OF_LARGE_PIECES: u64 = 1 << 20;

const ADD: &str = "INSERT INTO checkpoint_parts (shard, save, part, body) VALUES ($1, $2, $3, $4)";

/// Only a whole checkpoint, and only one that is newer than what is kept.
const FINISH: &str = "
INSERT INTO checkpoints (shard, head, save, parts, bytes, shard_bytes, log_bytes)
SELECT $1::int4, $2::int8, $3::int8, $4::int4, $5::int8, $6::int8, $7::int8
 WHERE (SELECT count(*) FROM checkpoint_parts WHERE shard = $1 AND save = $3) = $8
ON CONFLICT (shard) DO UPDATE
   SET head = excluded.head, save = excluded.save, parts = excluded.parts,
       bytes = excluded.bytes, shard_bytes = excluded.shard_bytes,
       log_bytes = excluded.log_bytes, created = now()
 WHERE checkpoints.head <= excluded.head";

/// What is kept by now.
const KEPT: &str =
    "SELECT shard, head, save, parts, bytes, shard_bytes, log_bytes FROM checkpoints";

/// Some parts of checkpoints that were replaced or never finished.
const SWEEP: &str = "
DELETE FROM checkpoint_parts
 WHERE shard = $1::int4 AND (save, part) IN (
       SELECT part.save, part.part FROM checkpoint_parts AS part JOIN checkpoints AS kept
              ON kept.shard = part.shard AND kept.save <> part.save
        WHERE part.shard = $1::int4 LIMIT $2::int8)";
/// So many at a time: all parts of a large shard would take longer than a statement may.
const SWEPT_PARTS: i64 = 64;

const PART: &str = "SELECT body FROM checkpoint_parts WHERE shard = $1 AND save = $2 AND part = $3";

/// A checkpoint, and how large the log was then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) kept: Kept,
    shard_bytes: u64,
    log_bytes: u64,
}

impl Shared {
    /// Learns which checkpoints there are.
    pub(super) async fn learn_kept(&self, session: &Session) -> Result<(), tokio_postgres::Error> {
        let rows = session.client.query(KEPT, &[]).await?;
        let mut known = self.kept.lock();
        for row in &rows {
            let found = read_known(row);
            if let Some(known) = known.get_mut(usize::from(found.kept.shard)) {
                *known = Some(found);
            }
        }
        Ok(())
    }

    /// Writing costs at most a quarter of what the log has grown since: either the shard's own log, or, for a
    /// shard that rests while others go on and that holds their oldest piece back, its share of all.
    fn is_worth(&self, shard: ShardId, head: u64) -> bool {
        let known = self.kept.lock().get(usize::from(shard)).copied().flatten();
        let (kept_head, size, shard_bytes, log_bytes) = known
            .map_or((0, 0, 0, 0), |it| (it.kept.head, it.kept.bytes, it.shard_bytes, it.log_bytes));
        let shards = self.heads.len() as u64;
        let of_piece = self.config.piece_bytes / shards.max(1);
        let least = of_piece.clamp(BYTES_MIN, BYTES_MIN_OF_LARGE_PIECES);
        let price = size.saturating_mul(GROWTH_PER_BYTE).max(least);
        let grown = self.shard_bytes(shard).saturating_sub(shard_bytes);
        let all_grown = self.log_bytes().saturating_sub(log_bytes);
        head > kept_head && (grown >= price || all_grown / shards.max(1) >= price)
    }
}

fn read_known(row: &tokio_postgres::Row) -> Known {
    let number = |column: usize| row.get::<_, i64>(column) as u64;
    let small = |column: usize| row.get::<_, i32>(column);
    Known {
        kept: Kept {
            shard: small(0) as ShardId,
            head: number(1),
            save: number(2),
            parts: small(3) as u32,
            bytes: number(4),
        },
        shard_bytes: number(5),
        log_bytes: number(6),
    }
}

impl Vault for PostgresLog {
    fn is_due(&self, shard: ShardId, head: u64) -> bool {
        self.shared.is_keeper() && self.shared.is_worth(shard, head)
    }

    fn save(&self, shard: ShardId, head: u64) -> Box<dyn Saving + '_> {
        Box::new(Writing {
            shared: Arc::clone(&self.shared),
            shard,
            head,
            save: SystemRandom.next_u64() >> 1,
            parts: 0,
            bytes: 0,
        })
    }

    fn kept(&self) -> LogFuture<'_, Result<Vec<Kept>, ReadError>> {
        Box::pin(async move {
            let session = self.shared.upkeep.session().map_err(ReadError::Unavailable)?;
            let asking = self.shared.learn_kept(&session);
            match self.shared.within(self.shared.config.read_timeout, asking).await {
                Ok(learnt) => learnt.map_err(|error| of_read(&error))?,
                Err(_late) => return Err(late_read(&session)),
            }
            Ok(self.shared.kept.lock().iter().flatten().map(|known| known.kept).collect())
        })
    }

    fn part(&self, kept: Kept, part: u32) -> LogFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(async move {
            let session = self.shared.upkeep.session().map_err(ReadError::Unavailable)?;
            let (shard, save, part) = (i32::from(kept.shard), kept.save as i64, part as i32);
            let asked: [&(dyn ToSql + Sync); 3] = [&shard, &save, &part];
            let asking = session.client.query_opt(PART, &asked);
            match self.shared.within(self.shared.config.read_timeout, asking).await {
                Ok(Ok(Some(row))) => Ok(Bytes::copy_from_slice(row.get(0))),
                Ok(Ok(None)) => Err(ReadError::TooOld(0)),
                Ok(Err(error)) => Err(of_read(&error)),
                Err(_late) => Err(late_read(&session)),
            }
        })
    }
}

fn late_read(session: &Session) -> ReadError {
    session.sever();
    ReadError::Unavailable("the database did not answer in time".to_owned())
}

/// A checkpoint that is being written.
struct Writing {
    shared: Arc<Shared>,
    shard: ShardId,
    head: u64,
    save: u64,
    parts: u32,
    bytes: u64,
}

impl Writing {
    async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, AppendError> {
        let session = self.shared.upkeep.session().map_err(AppendError::Unavailable)?;
        let limit = self.shared.config.append_timeout;
        match self.shared.within(limit, session.client.execute(sql, values)).await {
            Ok(done) => done.map_err(|error| of_append(&error)),
            Err(_late) => {
                session.sever();
                Err(AppendError::OutcomeUnknown)
            }
        }
    }

    async fn put(&self) -> Result<(), AppendError> {
        let (shard, save) = (i32::from(self.shard), self.save as i64);
        let (head, parts, bytes) = (self.head as i64, i64::from(self.parts), self.bytes as i64);
        let (shard_bytes, log_bytes) =
            (self.shared.shard_bytes(self.shard) as i64, self.shared.log_bytes() as i64);
        let count = self.parts as i32;
        let values: [&(dyn ToSql + Sync); 8] =
            [&shard, &head, &save, &count, &bytes, &shard_bytes, &log_bytes, &parts];
        let put = self.execute(FINISH, &values).await?;
        if let Ok(session) = self.shared.upkeep.session() {
            // Known a moment later otherwise.
            let learning = self.shared.learn_kept(&session);
            let _ = self.shared.within(self.shared.config.read_timeout, learning).await;
        }
        self.shared.hurry.notify_one();
        let known = self.shared.kept.lock().get(usize::from(self.shard)).copied().flatten();
        if put == 0 && known.is_none_or(|known| known.kept.head < self.head) {
            let reason = "another engine saved a checkpoint at the same time".to_owned();
            return Err(AppendError::Unavailable(reason));
        }
        // Left behind, it would only take room until the next one is finished.
        while self.execute(SWEEP, &[&shard, &SWEPT_PARTS]).await.is_ok_and(|parts| parts > 0) {}
        Ok(())
    }
}

impl Saving for Writing {
    fn add(&mut self, part: Bytes) -> LogFuture<'_, Result<(), AppendError>> {
        let (shard, save, number) = (i32::from(self.shard), self.save as i64, self.parts as i32);
        self.parts += 1;
        self.bytes += part.len() as u64;
        Box::pin(async move {
            let body = [part];
            self.execute(ADD, &[&shard, &save, &number, &Body(&body)]).await.map(|_| ())
        })
    }

    fn finish(self: Box<Self>) -> LogFuture<'static, Result<(), AppendError>> {
        Box::pin(async move { self.put().await })
    }
}
