//! The schema: made and brought up to date when a store is opened, by whoever comes first.
//!
//! In: a session and the identity that a new store would get. Out: the store's own identity. Numbered
//! steps run in one transaction under one advisory lock, so several engines may start at once and a
//! step that fails leaves nothing behind. A schema that knows more steps than this program is refused:
//! a newer one has changed it. Called by opening.
//!
//! ```text
//! steps(step)                                    what was applied
//! store(format, id, key, shards, created_ms)     who the store is: one row
//! heads(shard → head, bytes, tail, piece, …)     next entry; bytes ever appended; of the last entry;
//!                                                the piece being filled; whose turn it is (`turns`)
//! log(shard, head, piece, part → bytes, brief)   entries, a row for each 8000 bytes of one, partitioned
//!                                                by piece; `brief` is the entry without payloads, for
//!                                                other engines
//! entries                                        a view of the log: entries whole
//! pieces(piece, shard → first, bytes, tail)      what heads said when a piece was begun
//! checkpoints(shard → head, save, …)             the newest whole checkpoint of a shard
//! checkpoint_parts(shard, save, part → body)     its parts
//! queues(queue → name, gone)                     names that people know
//! partitions(shard, number → queue, name)        the same
//! erased(shard, number, seq)                     messages that were deleted one by one
//! message_rows(queue, partition, seq → …)        messages of queues that ask for it
//! projected(shard → next, skipped)               how far those rows are
//! ```

use tokio_postgres::{Client, GenericClient, Transaction};

use super::config::{PostgresConfig, SchemaName};
use super::error::{OpenError, of_schema};
use super::shared::LINES;
use crate::base::place::{ShardCount, StoreKey};
use crate::log::identity::{Identity, Loaded};

/// Steps that lead from nothing to what the statements expect. A step that was released is never
/// changed; what must change becomes a further one.
const STEPS: &[&str] = &[
    "
CREATE TABLE store (
    only_row bool PRIMARY KEY DEFAULT true CHECK (only_row),
    id bytea NOT NULL,
    key bytea NOT NULL,
    shards int4 NOT NULL,
    created_ms int8 NOT NULL
);
CREATE TABLE heads (
    shard int4 PRIMARY KEY,
    head int8 NOT NULL,
    bytes int8 NOT NULL,
    tail int4 NOT NULL,
    piece int4 NOT NULL,
    turn_of int8 NOT NULL DEFAULT 0,
    turn_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
CREATE TABLE log (
    shard int4 NOT NULL,
    head int8 NOT NULL,
    piece int4 NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    body bytea NOT NULL,
    PRIMARY KEY (shard, head, piece)
) PARTITION BY RANGE (piece);
ALTER TABLE log ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE pieces (
    shard int4 NOT NULL,
    piece int4 NOT NULL,
    first int8 NOT NULL,
    bytes int8 NOT NULL,
    tail int4 NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, piece)
);
CREATE TABLE checkpoints (
    shard int4 PRIMARY KEY,
    head int8 NOT NULL,
    save int8 NOT NULL,
    parts int4 NOT NULL,
    bytes int8 NOT NULL,
    shard_bytes int8 NOT NULL,
    log_bytes int8 NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE checkpoint_parts (
    shard int4 NOT NULL,
    save int8 NOT NULL,
    part int4 NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (shard, save, part)
);
ALTER TABLE checkpoint_parts ALTER COLUMN body SET STORAGE EXTERNAL;
",
    include_str!("schema/2_names.sql"),
    include_str!("schema/3_reading.sql"),
    include_str!("schema/4_rows.sql"),
    include_str!("schema/5_sealed.sql"),
    include_str!("schema/6_briefs.sql"),
    include_str!("schema/7_parts.sql"),
    include_str!("schema/8_erased.sql"),
];

/// The number that engines agree on for what they lock in a schema; the second one tells what.
pub(super) fn lock_key(schema: &SchemaName, what: &str) -> String {
    format!("hashtextextended('onrush {} {what}', 0)", schema.as_str())
}

/// Which store is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Whichever is there; this one if none is.
    Any(&'a Identity),
    /// This one and no other.
    Known(&'a Identity),
}

/// Brings the schema up to date and finds who the store is. Waits for other engines that do the same.
pub(super) async fn prepare(
    client: &mut Client,
    config: &PostgresConfig,
    wanted: Wanted<'_>,
) -> Result<Loaded, OpenError> {
    let transaction = client.transaction().await.map_err(of_schema)?;
    // Others may need their time for the same.
    let lock = lock_key(&config.schema, "schema");
    let lock = format!("SET LOCAL lock_timeout = 30000; SELECT pg_advisory_xact_lock({lock})");
    transaction.batch_execute(&lock).await.map_err(of_schema)?;
    apply_steps(&transaction, &config.schema).await?;
    let found = transaction.query_opt("SELECT id, key, shards, created_ms FROM store", &[]).await;
    let found = found.map_err(of_schema)?.map(|row| identity(&row)).transpose()?;
    let loaded = match (found, wanted) {
        (Some(found), Wanted::Known(known)) if found.store != known.store => {
            return Err(OpenError::Other);
        }
        (Some(found), _) => Loaded::Existing(found),
        (None, Wanted::Known(_)) => return Err(OpenError::Other),
        (None, Wanted::Any(newcomer)) => {
            create_store(&transaction, newcomer).await.map_err(of_schema)?;
            Loaded::Created(*newcomer)
        }
    };
    let shards = i64::from(loaded.identity().shards.get()) + 1;
    let heads =
        transaction.query_one("SELECT count(*) FROM heads", &[]).await.map_err(of_schema)?;
    let heads: i64 = heads.get(0);
    if heads != shards {
        return Err(OpenError::Damaged(format!("{heads} heads instead of {shards}")));
    }
    transaction.commit().await.map_err(of_schema)?;
    Ok(loaded)
}

async fn apply_steps(transaction: &Transaction<'_>, schema: &SchemaName) -> Result<(), OpenError> {
    let name = schema.as_str();
    // Whoever may not make schemas can be given one that is empty.
    let exists = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    if transaction.query_opt(exists, &[&name]).await.map_err(of_schema)?.is_none() {
        transaction.batch_execute(&format!("CREATE SCHEMA {name}")).await.map_err(of_schema)?;
    }
    let steps = "CREATE TABLE IF NOT EXISTS steps \
                 (step int4 PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())";
    transaction.batch_execute(steps).await.map_err(of_schema)?;
    let applied = transaction.query_one("SELECT coalesce(max(step), 0) FROM steps", &[]).await;
    let found: i32 = applied.map_err(of_schema)?.get(0);
    let known = STEPS.len() as i32;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    // What functions of a step keep: nobody's temporary tables stand in for ours.
    let path = format!("SET LOCAL search_path = {name}, pg_catalog, pg_temp");
    transaction.batch_execute(&path).await.map_err(of_schema)?;
    for (step, sql) in (1..).zip(STEPS).skip(found.max(0) as usize) {
        tracing::info!(schema = name, step, "bringing the schema up to date");
        transaction.batch_execute(sql).await.map_err(of_schema)?;
        let note = "INSERT INTO steps (step) VALUES ($1)";
        transaction.execute(note, &[&step]).await.map_err(of_schema)?;
    }
    Ok(())
}

/// A store without entries: its identity, its heads, and the first piece with the one after it.
async fn create_store(
    transaction: &Transaction<'_>,
    identity: &Identity,
) -> Result<(), tokio_postgres::Error> {
    let shards = i32::from(identity.shards.get());
    let created = i64::try_from(identity.created_ms).unwrap_or(i64::MAX);
    let store = "INSERT INTO store (id, key, shards, created_ms) VALUES ($1, $2, $3, $4)";
    let (id, key) = (&identity.store[..], &identity.key.0[..]);
    transaction.execute(store, &[&id, &key, &shards, &created]).await?;
    let heads = "INSERT INTO heads (shard, head, bytes, tail, piece) \
                 SELECT shard, 0, 0, 0, 0 FROM generate_series(0, $1) AS shard";
    transaction.execute(heads, &[&shards]).await?;
    let piece = "INSERT INTO pieces SELECT shard, 0, 0, 0, 0 FROM generate_series(0, $1) AS shard";
    transaction.execute(piece, &[&shards]).await?;
    for piece in 0..2 {
        create_piece(transaction, piece, usize::from(identity.shards.get()) + 1).await?;
    }
    Ok(())
}

/// Whether a piece has a table for each line, or is one table: a database that spreads tables over
/// machines does so with one level of partitions only, and has a table for each of its parts anyway.
const HAS_LINES: &str = "SELECT NOT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'citus')";

/// Makes the partition of a piece: for each line a table of its own, in which the shards of that line
/// have their entries. Appends of different lines then never wait for each other to make a table or an
/// index longer, which took a quarter of their time when they shared one.
///
/// It is attached instead of created as a part, because that way nobody who appends or reads has to
/// wait. `shards` counts the catalog's among them.
pub(super) async fn create_piece(
    client: &impl GenericClient,
    piece: i32,
    shards: usize,
) -> Result<(), tokio_postgres::Error> {
    let has_lines: bool = client.query_one(HAS_LINES, &[]).await?.get(0);
    let next = piece.saturating_add(1);
    let table = if has_lines { lined_piece(piece, shards) } else { plain_piece(piece) };
    let attach = format!(
        "ALTER TABLE log ATTACH PARTITION log_{piece} FOR VALUES FROM ({piece}) TO ({next})"
    );
    client.batch_execute(&(table + &attach)).await
}

/// As the log, with nothing to vacuum because entries never change, and with rows of some kilobytes in
/// one place.
const LIKE_LOG: &str =
    "LIKE log INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING INDEXES";
const WITH: &str = "WITH (toast_tuple_target = 8160, autovacuum_enabled = off, \
                          toast.autovacuum_enabled = off)";

fn plain_piece(piece: i32) -> String {
    format!("CREATE TABLE log_{piece} ({LIKE_LOG}) {WITH};")
}

fn lined_piece(piece: i32, shards: usize) -> String {
    let mut sql = format!("CREATE TABLE log_{piece} ({LIKE_LOG}) PARTITION BY LIST (shard);");
    for line in 0..LINES.min(shards) {
        let of_line: Vec<String> =
            (line..shards).step_by(LINES).map(|shard| shard.to_string()).collect();
        let of_line = of_line.join(", ");
        sql += &format!(
            "CREATE TABLE log_{piece}_{line} PARTITION OF log_{piece} FOR VALUES IN ({of_line}) {WITH};"
        );
    }
    sql
}

fn identity(row: &tokio_postgres::Row) -> Result<Identity, OpenError> {
    let damaged = |what: &str| OpenError::Damaged(what.to_owned());
    let (id, key): (&[u8], &[u8]) = (row.get(0), row.get(1));
    let (shards, created_ms): (i32, i64) = (row.get(2), row.get(3));
    let shards = u16::try_from(shards).ok().and_then(ShardCount::new);
    Ok(Identity {
        shards: shards.ok_or_else(|| damaged("shards is not 1..=1024"))?,
        key: StoreKey(key.try_into().map_err(|_| damaged("its key has not 16 bytes"))?),
        store: id.try_into().map_err(|_| damaged("its id has not 16 bytes"))?,
        created_ms: u64::try_from(created_ms).unwrap_or(0),
    })
}
