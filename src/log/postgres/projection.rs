//! What projecting messages into rows asks of the database: what there is to do, entries, and one
//! transaction that takes rows and how far they lead.
//!
//! In: rows, made from entries by the `projection` room. Out: entries in the order of their shards, or why
//! there are none now. Only the session that holds an advisory lock writes; and should two ever believe
//! that they do, the position moves for one of them only. Has a connection of its own. Called by the
//! `projection` room.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::PostgresLog;
use super::copied::{Blob, Json, Uuid};
use super::error::words;
use super::link::Link;
use super::schema::lock_key;
use super::session::{Role, Session};
use super::shared::Shared;
use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::log::StoredEntry;

/// Entries that one read brings at most.
const ENTRIES_MAX: i64 = 512;
/// Rows of deleted queues that one statement takes away.
const SWEPT_MAX: i64 = 20_000;
/// Longer than any statement here takes: the server itself gives one up after a minute.
const STATEMENT_MAX: Duration = Duration::from_secs(70);

const QUEUES: &str = "SELECT queue, name, rows_from, gone IS NOT NULL FROM queues \
     WHERE gone IS NULL AND cardinality(rows_from) > 0 OR gone IS NOT NULL AND has_rows";
const PROGRESS: &str = "SELECT shard, next, head, entries, seconds FROM projection ORDER BY shard";
const BEGIN_SHARDS: &str = "INSERT INTO projected (shard, next) \
     SELECT shard, 0 FROM heads ON CONFLICT (shard) DO NOTHING";
const POSITIONS: &str = "SELECT shard, next FROM projected";
const NAMES: &str = "SELECT number, queue, name FROM partitions \
     WHERE shard = $1::int4 AND number = ANY($2::int8[])";
/// Moves positions that are where they were believed to be. Parameters: by shard its number, where it
/// was, where it is now, and how many entries were gone.
const MOVE: &str = "
UPDATE projected SET next = moved.next, skipped = projected.skipped + moved.skipped
  FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::int8[]) AS moved (shard, was, next, skipped)
 WHERE projected.shard = moved.shard AND projected.next = moved.was";
const COPY: &str = "COPY message_rows (queue, partition, seq, id, transaction_id, time, payload, \
     payload_bytes) FROM STDIN BINARY";
/// The same row by row, with the words that the view `messages` has for what a column cannot hold.
const INSERT: &str = "
INSERT INTO message_rows (queue, partition, seq, id, transaction_id, time, payload, payload_bytes)
VALUES ($1, $2, $3, $4, as_text($5), $6, CASE WHEN $7 THEN as_json($8) END, $8)";
/// Parameters: by message its queue and partition, by name, and its sequence.
const REMOVE: &str = "
DELETE FROM message_rows AS old
 USING unnest($1::text[], $2::text[], $3::int8[]) AS gone (queue, partition, seq)
 WHERE old.queue = gone.queue AND old.partition = gone.partition AND old.seq = gone.seq";
const SWEEP: &str = "DELETE FROM message_rows WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM message_rows WHERE queue = $1 LIMIT $2))";
const SWEPT: &str = "UPDATE queues SET has_rows = false, rows_from = NULL WHERE queue = $1";

/// A queue whose messages are to be rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Projected {
    /// Its number.
    pub queue: QueueId,
    /// Its name, as the database has it.
    pub name: Arc<str>,
    /// By shard: from which entry on.
    pub from: Vec<u64>,
}

/// A shard that may have something to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The shard.
    pub shard: ShardId,
    /// What the database has as its position; it may be lower than where there is something to do.
    pub was: u64,
    /// The entry to look at next.
    pub next: u64,
    /// Entries that the shard has.
    pub head: u64,
}

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// Queues that ask for rows.
    pub queues: Vec<Projected>,
    /// Queues that are gone, whose rows are to go before others of their name come.
    pub gone: Vec<(QueueId, Option<String>)>,
    /// The shards, with how far they are.
    pub places: Vec<Place>,
    /// Entries behind, of all shards.
    pub entries: u64,
    /// Age of the oldest entry that is to be looked at, seconds.
    pub seconds: f64,
}

/// A message on its way into a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MessageRow {
    /// Name of its queue.
    pub queue: Arc<str>,
    /// Name of its partition.
    pub partition: Arc<str>,
    /// Its sequence.
    pub seq: u64,
    /// Its id.
    pub id: [u8; 16],
    /// Its transaction id, or its own id as text.
    pub transaction_id: Box<str>,
    /// When it was pushed, unix milliseconds.
    pub time_ms: u64,
    /// Whether its producer called it JSON.
    pub is_json: bool,
    /// The payload; `None` where it is sealed.
    pub payload: Option<Bytes>,
}

/// A message whose row goes, for the message was deleted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GoneRow {
    /// Name of its queue.
    pub queue: Arc<str>,
    /// Name of its partition.
    pub partition: Arc<str>,
    /// Its sequence.
    pub seq: u64,
}

/// What some entries mean for rows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RowChanges {
    /// Rows that come.
    pub rows: Vec<MessageRow>,
    /// Rows that go, those of `rows` among them.
    pub gone: Vec<GoneRow>,
}

/// How far one commit leads in a shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// The shard.
    pub shard: ShardId,
    /// Its position as it was stored.
    pub was: u64,
    /// Its new position.
    pub next: u64,
    /// Entries in between that were gone before they were looked at.
    pub skipped: u64,
}

/// Why projecting does not go on now. Nothing of the step stands, and it may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The database is away, or did not do it.
    #[error("{0}")]
    Away(String),
    /// Another engine has moved the position meanwhile.
    #[error("another engine projects too")]
    Moved,
}

impl From<tokio_postgres::Error> for ProjectionError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Away(words(&error))
    }
}

/// The database, as projecting sees it.
pub struct ProjectionStore {
    shared: Arc<Shared>,
    link: Link,
    /// Which session holds the lock.
    locked_by: Mutex<Option<u64>>,
}

impl PostgresLog {
    /// What projecting works on; makes a connection of its own.
    #[must_use]
    pub fn projection(&self) -> ProjectionStore {
        let shared = Arc::clone(&self.shared);
        let (config, witness) = (Arc::clone(&shared.config), Arc::clone(&shared.witness));
        let _entered = shared.runtime().enter();
        let link = Link::keep(config, Role::Projector, witness);
        drop(_entered);
        ProjectionStore { shared, link, locked_by: Mutex::new(None) }
    }
}

impl ProjectionStore {
    /// What there is to do, as of now.
    ///
    /// # Errors
    /// [`ProjectionError::Away`].
    pub async fn orders(&self) -> Result<Orders, ProjectionError> {
        self.with(async |session| {
            let client = &session.client;
            let mut orders = Orders::default();
            let stored = client.query(POSITIONS, &[]).await?;
            let stored: Vec<(i32, i64)> =
                stored.iter().map(|row| (row.get(0), row.get(1))).collect();
            for row in client.query(PROGRESS, &[]).await? {
                let (shard, next, head): (i32, i64, i64) = (row.get(0), row.get(1), row.get(2));
                let was = stored.iter().find(|it| it.0 == shard).map_or(0, |it| it.1);
                let (shard, was, next, head) =
                    (shard as ShardId, was as u64, next as u64, head as u64);
                orders.places.push(Place { shard, was, next, head });
                orders.entries += row.get::<_, i64>(3) as u64;
                orders.seconds = orders.seconds.max(row.get(4));
            }
            // After the heads: whoever asked before one of the entries that are to be looked at must
            // be seen here, or its rows would be passed by.
            for row in client.query(QUEUES, &[]).await? {
                let queue = row.get::<_, i64>(0) as QueueId;
                let name: Option<String> = row.get(1);
                if row.get(3) {
                    orders.gone.push((queue, name));
                    continue;
                }
                let from: Vec<i64> = row.get(2);
                let from = from.into_iter().map(|first| first as u64).collect();
                orders.queues.push(Projected {
                    queue,
                    name: name.unwrap_or_default().into(),
                    from,
                });
            }
            if orders.queues.is_empty() {
                let Orders { queues, gone, .. } = orders;
                return Ok(Orders { queues, gone, ..Orders::default() });
            }
            Ok(orders)
        })
        .await
    }

    /// Whether this engine is the one that projects, from here until its connection breaks; and
    /// whether it has only just become it, so that orders from before do not count.
    ///
    /// # Errors
    /// [`ProjectionError::Away`].
    pub async fn take_lock(&self) -> Result<Lock, ProjectionError> {
        let key = lock_key(&self.shared.config.schema, "projector");
        self.with(async |session| {
            if *self.locked_by.lock() == Some(session.serial) {
                return Ok(Lock::Held);
            }
            let asked = format!("SELECT pg_try_advisory_lock({key})");
            if !session.client.query_one(&asked, &[]).await?.get::<_, bool>(0) {
                return Ok(Lock::Others);
            }
            session.client.execute(BEGIN_SHARDS, &[]).await?;
            *self.locked_by.lock() = Some(session.serial);
            Ok(Lock::Taken)
        })
        .await
    }

    /// Entries of a place from `next` on and before its head, oldest first, at most about `bytes_max`
    /// bytes; and how many were gone before the first of them. What has come behind the head since is
    /// left to orders of its own time.
    ///
    /// # Errors
    /// [`ProjectionError::Away`].
    pub async fn read(
        &self,
        place: Place,
        bytes_max: usize,
    ) -> Result<(u64, Vec<StoredEntry>), ProjectionError> {
        let Place { shard, next, head, .. } = place;
        let pieces = self.shared.pieces.load_full();
        let (from, piece, last) = match pieces.holding(shard, next) {
            Some((piece, last)) => (next, piece, last),
            // Not while every engine knows of the position. But a gap that nobody passes helps nobody.
            None => match pieces.0.first() {
                Some(oldest) => {
                    let from = oldest.firsts.get(usize::from(shard)).copied().unwrap_or(next);
                    (from.max(next), oldest.number, i32::MAX)
                }
                None => return Err(ProjectionError::Away("there are no pieces".to_owned())),
            },
        };
        let bytes = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let (number, first) = (i32::from(shard), from as i64);
        let rows = self
            .with(async |session| {
                let asked: [&(dyn ToSql + Sync); 6] =
                    [&number, &first, &bytes, &piece, &last, &ENTRIES_MAX];
                Ok(session.client.query(&session.statements.read, &asked).await?)
            })
            .await?;
        let mut entries = Vec::with_capacity(rows.len());
        for (index, row) in (from..).zip(rows) {
            if row.get::<_, i64>(0) as u64 != index || index >= head {
                break;
            }
            let (position, bytes) = (super::batch::position(index), row.get(1));
            let bytes = Bytes::copy_from_slice(bytes);
            entries.push(StoredEntry { shard, index, position, bytes });
        }
        Ok((from - next, entries))
    }

    /// Queue and name of partitions of a shard. Those of queues that are long gone may be missing.
    ///
    /// # Errors
    /// [`ProjectionError::Away`].
    pub async fn names(
        &self,
        shard: ShardId,
        numbers: &[PartitionNumber],
    ) -> Result<Vec<(PartitionNumber, QueueId, String)>, ProjectionError> {
        let numbers: Vec<i64> = numbers.iter().map(|number| i64::from(*number)).collect();
        self.with(async |session| {
            let rows = session.client.query(NAMES, &[&i32::from(shard), &numbers]).await?;
            let name = |row: &tokio_postgres::Row| {
                let (number, queue): (i64, i64) = (row.get(0), row.get(1));
                (number as PartitionNumber, queue as QueueId, row.get(2))
            };
            Ok(rows.iter().map(name).collect())
        })
        .await
    }

    /// Takes some rows of a queue that is gone away; tells whether it was the last of them.
    ///
    /// # Errors
    /// [`ProjectionError::Away`].
    pub async fn sweep(&self, queue: QueueId, name: Option<&str>) -> Result<bool, ProjectionError> {
        self.with(async |session| {
            self.ensure_locked(session)?;
            if let Some(name) = name
                && session.client.execute(SWEEP, &[&name, &SWEPT_MAX]).await? > 0
            {
                return Ok(false);
            }
            session.client.execute(SWEPT, &[&i64::from(queue)]).await?;
            Ok(true)
        })
        .await
    }

    /// Writes rows, takes rows away, and writes where that leads: all of it or nothing.
    ///
    /// # Errors
    /// [`ProjectionError`].
    pub async fn commit(
        &self,
        changes: &RowChanges,
        steps: &[Step],
    ) -> Result<(), ProjectionError> {
        self.with(async |session| {
            self.ensure_locked(session)?;
            match transact(session, changes, steps, Way::Copy).await {
                // A value that a column cannot hold, or JSON that `jsonb` cannot.
                Err(Refused::Value) => match transact(session, changes, steps, Way::Insert).await {
                    Err(Refused::Value) => {
                        let reason = "a row is refused by the database".to_owned();
                        Err(ProjectionError::Away(reason))
                    }
                    Err(Refused::Other(error)) => Err(error),
                    Ok(()) => Ok(()),
                },
                Err(Refused::Other(error)) => Err(error),
                Ok(()) => Ok(()),
            }
        })
        .await
    }

    /// A connection that was made again since has no lock yet.
    fn ensure_locked(&self, session: &Session) -> Result<(), ProjectionError> {
        let is_held = *self.locked_by.lock() == Some(session.serial);
        is_held.then_some(()).ok_or_else(|| ProjectionError::Away("the lock is lost".to_owned()))
    }

    /// Asks over the connection, and cuts it where nothing is heard.
    async fn with<T>(
        &self,
        ask: impl AsyncFnOnce(&Session) -> Result<T, ProjectionError>,
    ) -> Result<T, ProjectionError> {
        let session = self.link.session().map_err(ProjectionError::Away)?;
        match self.shared.within(STATEMENT_MAX, ask(&session)).await {
            Ok(answer) => answer,
            Err(_late) => {
                session.sever();
                Err(ProjectionError::Away("the database did not answer in time".to_owned()))
            }
        }
    }
}

/// Who projects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lock {
    /// This engine, as before.
    Held,
    /// This engine, from now on.
    Taken,
    /// Another one.
    Others,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// As a binary COPY: the database takes every value as it is, or none.
    Copy,
    /// One by one, with other words for values that it does not take.
    Insert,
}

/// Why a transaction was undone.
enum Refused {
    Value,
    Other(ProjectionError),
}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        let is_value = |code: &SqlState| ["22", "54"].iter().any(|it| code.code().starts_with(it));
        match error.code().is_some_and(is_value) {
            true => Self::Value,
            false => Self::Other(error.into()),
        }
    }
}

async fn transact(
    session: &Session,
    changes: &RowChanges,
    steps: &[Step],
    way: Way,
) -> Result<(), Refused> {
    let RowChanges { rows, gone } = changes;
    let client = &session.client;
    client.batch_execute("BEGIN").await?;
    let written = match step(session, steps).await {
        Ok(()) if rows.is_empty() => Ok(()),
        Ok(()) if way == Way::Copy => copy(session, rows).await,
        Ok(()) => insert(session, rows).await,
        Err(refused) => Err(refused),
    };
    // Behind the rows: a message may be pushed and deleted in the same entries.
    let written = match written {
        Ok(()) if !gone.is_empty() => remove(session, gone).await,
        written => written,
    };
    if written.is_err() {
        client.batch_execute("ROLLBACK").await?;
        return written;
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

async fn step(session: &Session, steps: &[Step]) -> Result<(), Refused> {
    let shards: Vec<i32> = steps.iter().map(|step| i32::from(step.shard)).collect();
    let column = |of: fn(&Step) -> u64| steps.iter().map(|step| of(step) as i64).collect();
    let (was, next, skipped): (Vec<i64>, Vec<i64>, Vec<i64>) =
        (column(|step| step.was), column(|step| step.next), column(|step| step.skipped));
    let asked: [&(dyn ToSql + Sync); 4] = [&shards, &was, &next, &skipped];
    let moved = session.client.execute(MOVE, &asked).await?;
    match moved == steps.len() as u64 {
        true => Ok(()),
        false => Err(Refused::Other(ProjectionError::Moved)),
    }
}

async fn remove(session: &Session, gone: &[GoneRow]) -> Result<(), Refused> {
    let queues: Vec<&str> = gone.iter().map(|row| &*row.queue).collect();
    let partitions: Vec<&str> = gone.iter().map(|row| &*row.partition).collect();
    let seqs: Vec<i64> = gone.iter().map(|row| row.seq as i64).collect();
    let asked: [&(dyn ToSql + Sync); 3] = [&queues, &partitions, &seqs];
    session.client.execute(REMOVE, &asked).await?;
    Ok(())
}

async fn copy(session: &Session, rows: &[MessageRow]) -> Result<(), Refused> {
    const TYPES: [Type; 8] = [
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
        Type::UUID,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::JSONB,
        Type::BYTEA,
    ];
    let sink = session.client.copy_in(COPY).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for row in rows {
        let (seq, time) = (row.seq as i64, UNIX_EPOCH + Duration::from_millis(row.time_ms));
        let payload = row.payload.as_deref();
        let json = payload.filter(|_| row.is_json).map(Json);
        let values: [&(dyn ToSql + Sync); 8] = [
            &&*row.queue,
            &&*row.partition,
            &seq,
            &Uuid(row.id),
            &&*row.transaction_id,
            &time,
            &json,
            &payload.map(Blob),
        ];
        writer.as_mut().write(&values).await?;
    }
    writer.finish().await?;
    Ok(())
}

async fn insert(session: &Session, rows: &[MessageRow]) -> Result<(), Refused> {
    let statement = session.client.prepare(INSERT).await?;
    for row in rows {
        let (seq, time) = (row.seq as i64, UNIX_EPOCH + Duration::from_millis(row.time_ms));
        let payload = row.payload.as_deref().map(Blob);
        let values: [&(dyn ToSql + Sync); 8] = [
            &&*row.queue,
            &&*row.partition,
            &seq,
            &Uuid(row.id),
            &Blob(row.transaction_id.as_bytes()),
            &time,
            &row.is_json,
            &payload,
        ];
        session.client.execute(&statement, &values).await?;
    }
    Ok(())
}
