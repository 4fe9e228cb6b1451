//! An engine on a store in PostgreSQL: connects, finds out who the store is, brings local rows up to
//! what the database says.
//!
//! Rows and the failover log belong to one store; their folders carry its id, so that a server which
//! is pointed at another database begins anew instead of mixing them. Called by the composition.

use std::sync::Arc;
use std::time::Duration;

use super::{Doing, Ground, Opened, StartError, launch, open_kv, standby};
use crate::base::clock::{Clock, SystemClock};
use crate::base::files::DiskFiles;
use crate::base::place::{ShardCount, ShardId};
use crate::base::random::SystemRandom;
use crate::config::Settings;
use crate::log::Log;
use crate::log::identity::Identity;
use crate::log::local::StoreLock;
use crate::log::postgres::{Database, OpenError, PostgresConfig, PostgresLog, SchemaName};
use crate::shard::replica::Replica;
use crate::telemetry::Telemetry;

/// Bytes of entries that are read at a time.
const READ_BYTES: usize = 8 << 20;
/// Pause between two tries to read a database that does not answer now.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn open(settings: &Settings) -> Result<Opened, StartError> {
    let folder = &settings.server.data_dir;
    let what = || format!("opening the data folder {}", folder.display());
    std::fs::create_dir_all(folder).doing(what())?;
    let home = Arc::new(DiskFiles::open(folder).doing(what())?);
    let lock = StoreLock::take(&*home, folder).doing(what())?;
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
    let shards = ShardCount::new(settings.store.shards as u16);
    let shards = shards.ok_or("out of range").doing("reading store.shards")?;
    let newcomer = Identity::new(&*random, shards, clock.now_ms());
    let config = config(settings, shards)?;
    let (log, loaded) = connect(&config, &newcomer)?;
    let identity = loaded.identity();
    let id = short(&identity);
    let kv = open_kv(&folder.join(format!("state-{id}")), settings.store.cache_bytes)?;
    let ground = Ground { home: home.clone(), files: home, kv, clock, random, lock: Some(lock) };
    let replica = Replica::load(identity.shards, identity.key, &*ground.kv);
    let mut replica = replica.doing(format!(
        "reading the state (if it is damaged: move the folder `state-{id}` away, and it is built \
         again from the database)"
    ))?;
    catch_up(&log, &mut replica)?;
    let standby = standby(settings, &ground, &format!("failover-{id}"), &replica)?;
    let telemetry = Arc::new(Telemetry::default());
    let log = Arc::new(log);
    let engine = launch(settings, &ground, Arc::clone(&telemetry), log, replica, standby)?;
    Ok((Arc::new(engine), telemetry, ground))
}

fn config(settings: &Settings, shards: ShardCount) -> Result<PostgresConfig, StartError> {
    let database = &settings.database;
    let place = Database::parse(database.url.expose()).doing("reading database.url")?;
    let schema = SchemaName::parse(&database.schema).doing("reading database.schema")?;
    Ok(PostgresConfig {
        schema,
        piece_bytes: settings.store.segment_bytes,
        connect_timeout: Duration::from_millis(database.connect_timeout_ms),
        append_timeout: Duration::from_millis(database.append_timeout_ms),
        read_timeout: Duration::from_millis(database.read_timeout_ms),
        lock_timeout: Duration::from_millis(database.lock_timeout_ms),
        ..PostgresConfig::new(place, shards)
    })
}

/// Opens the log; waits for a database that is away, for as long as it is.
fn connect(
    config: &PostgresConfig,
    newcomer: &Identity,
) -> Result<(PostgresLog, crate::log::identity::Loaded), StartError> {
    loop {
        match PostgresLog::open(config.clone(), newcomer) {
            Err(OpenError::Unreachable(reason)) => {
                tracing::warn!(reason, "waiting for the database");
            }
            opened => return opened.doing("opening the store in PostgreSQL"),
        }
    }
}

/// Applies what the database has and local rows have not.
fn catch_up(log: &PostgresLog, replica: &mut Replica) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::runtime)?;
    let mut entries = 0_u64;
    // The catalog comes first here: nobody is served before all of it is applied.
    let shards = (0..=replica.count().get()).rev();
    for shard in shards {
        entries += runtime.block_on(catch_up_shard(log, replica, shard))?;
    }
    tracing::info!(entries, "the state is up to date with the database");
    Ok(())
}

async fn catch_up_shard(
    log: &PostgresLog,
    replica: &mut Replica,
    shard: ShardId,
) -> Result<u64, StartError> {
    let mut applied = 0;
    loop {
        let found = match log.read(shard, replica.head(shard), READ_BYTES).await {
            Err(crate::log::ReadError::Unavailable(reason)) => {
                tracing::warn!(reason, "waiting for the database");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            found => found.doing("reading the log in the database")?,
        };
        if found.is_empty() {
            return Ok(applied);
        }
        for stored in &found {
            replica.apply_stored(stored).doing("applying the log")?;
            applied += 1;
        }
    }
}

/// Enough of a store's id to tell stores apart, as part of a file's name.
fn short(identity: &Identity) -> String {
    identity.store.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
