//! Opens the store that the settings name, in files or in a database, and starts its engine.
//!
//! In: settings. Out: a running engine and what it stands on; or why not, in words. In files: identity,
//! rows, the log's tail. In a database: see `database`.

mod database;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::database::Found;
use super::{Doing, Ground, StartError};
use crate::base::clock::{Clock, SystemClock};
use crate::base::files::{DiskFiles, Files};
use crate::base::place::ShardCount;
use crate::base::random::{Random, SystemRandom};
use crate::buffer::ring::RingLimits;
use crate::buffer::{self, Buffers};
use crate::config::{Durability, Settings};
use crate::failover;
use crate::log::Log;
use crate::log::identity::Identity;
use crate::log::local::{Applied, LocalConfig, LocalLog, Promise, StoreLock};
use crate::log::postgres::{
    Database, DatabaseFigures, Encryption, PostgresConfig, ProjectionStore, Roots, SchemaName,
};
use crate::sealing::Keyring;
use crate::sealing::keys::KeySource;
use crate::shard::failover::{Patience, Standby};
use crate::shard::replica::Replica;
use crate::shard::{self, Engine, Parts};
use crate::state::kv::Kv;
use crate::state::kv::disk::{DiskKv, DiskKvConfig, OpenError};
use crate::state::ledger::DedupPolicy;
use crate::telemetry::Telemetry;

/// Where entries are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreKind {
    /// In files of this machine.
    Embedded,
    /// In PostgreSQL.
    Postgres,
}

impl StoreKind {
    /// In one word, as clients are told.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
        }
    }
}

/// Which store it is, for those who are told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreWords {
    /// Of which kind.
    pub kind: StoreKind,
    /// Where it is, without secrets.
    pub place: String,
}

/// A store that is open.
pub(super) struct Opened {
    pub(super) engine: Arc<Engine>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) ground: Ground,
    pub(super) store_words: StoreWords,
    /// What projecting works on, where the store is in a database.
    pub(super) projection: Option<ProjectionStore>,
    /// What the database itself counts, where the store is in one.
    pub(super) figures: Option<DatabaseFigures>,
}

/// Opens the store that the settings name and starts its engine. Waits; not to be called by a thread
/// that runs asynchronous tasks.
pub(super) fn open(settings: &Settings) -> Result<Opened, StartError> {
    let folder = &settings.server.data_dir;
    let what = || format!("opening the data folder {}", folder.display());
    std::fs::create_dir_all(folder).doing(what())?;
    let files = DiskFiles::open(folder.join("log")).doing(what())?;
    let lock = StoreLock::take(&files, folder).doing(what())?;
    let home = DiskFiles::open(folder).doing(what())?;
    let ground = |kv, files| Ground {
        home: Arc::new(home),
        files: Arc::new(files),
        kv,
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        lock: Some(lock),
    };
    let telemetry = Arc::new(Telemetry::default());
    if let Some(config) = postgres_config(settings)? {
        let other = DiskFiles::open(folder).doing(what())?;
        return open_on_database(settings, config, &other, |kv| ground(kv, files), telemetry);
    }
    let identity = identity(settings, &files, &SystemRandom, SystemClock::new().now_ms())?;
    let cache_bytes = settings.store.cache_bytes;
    let ground = ground(open_kv(&folder.join("state"), identity.shards, cache_bytes)?, files);
    let engine = Arc::new(start_engine(settings, &ground, Arc::clone(&telemetry))?);
    let place = format!("embedded log in {}", folder.display());
    Ok(Opened {
        engine,
        telemetry,
        ground,
        store_words: StoreWords { kind: StoreKind::Embedded, place },
        projection: None,
        figures: None,
    })
}

/// The same where the log is in a database.
fn open_on_database(
    settings: &Settings,
    config: PostgresConfig,
    home: &dyn Files,
    ground: impl FnOnce(Arc<dyn Kv>) -> Ground,
    telemetry: Arc<Telemetry>,
) -> Result<Opened, StartError> {
    let place = format!("PostgreSQL at {}, schema {}", config.database, config.schema.as_str());
    let Found { log, identity, kv, replica, is_away } =
        database::find(settings, config, home, &place)?;
    let (ground, log) = (ground(kv), Arc::new(log));
    let folder = database::failover_folder(&identity);
    let mut standby = standby(settings, &ground, &folder, &replica)?;
    if is_away {
        standby = standby.away(database::settle(Arc::clone(&log)));
    }
    let (projection, figures) = (Some(log.projection()), Some(log.figures()));
    let seals = keyring(settings, &ground)?;
    let parts = parts(settings, &ground, log, Arc::clone(&telemetry), standby, seals);
    let config = shard::Config {
        sole_writer: false,
        follow_interval_ms: settings.database.follow_interval_ms,
        parts_bytes_min: settings.database.parts_bytes_min,
        ..shard_config(settings)
    };
    let engine = Engine::start(replica, parts, config).doing("starting the engine's threads")?;
    let store_words = StoreWords { kind: StoreKind::Postgres, place };
    let engine = Arc::new(engine);
    Ok(Opened { engine, telemetry, ground, store_words, projection, figures })
}

/// The database that the settings name; `None` without one.
fn postgres_config(settings: &Settings) -> Result<Option<PostgresConfig>, StartError> {
    let asked = &settings.database;
    let database = if asked.url.is_set() {
        Database::parse(asked.url.expose()).doing("reading database.url")?
    } else if asked.host.is_empty() {
        return Ok(None);
    } else {
        let encryption = match (asked.use_ssl, asked.verify_ssl) {
            (false, _) => Encryption::Prefer,
            (true, false) => Encryption::Require,
            (true, true) => Encryption::VerifyFull(Roots::System),
        };
        let (place, who) = ((&*asked.host, asked.port), (&*asked.user, asked.password.expose()));
        Database::from_parts(place, &asked.name, who, encryption).doing("reading database.host")?
    };
    let millis = Duration::from_millis;
    Ok(Some(PostgresConfig {
        schema: SchemaName::parse(&asked.schema).doing("reading database.schema")?,
        piece_bytes: settings.store.segment_bytes,
        connect_timeout: millis(asked.connect_timeout_ms),
        append_timeout: millis(asked.append_timeout_ms),
        // Whoever reads holds up the pushes behind it: it may wait no longer than they may.
        read_timeout: millis(asked.append_timeout_ms),
        lock_timeout: millis(asked.lock_timeout_ms),
        ..PostgresConfig::new(database, asked_shards(settings)?)
    }))
}

fn asked_shards(settings: &Settings) -> Result<ShardCount, StartError> {
    let asked = ShardCount::new(settings.store.shards as u16);
    asked.ok_or("out of range").doing("reading store.shards")
}

fn warn_of_shards(settings: &Settings, identity: &Identity) {
    let (asked, shards) = (settings.store.shards, identity.shards.get());
    if u32::from(shards) != asked {
        tracing::warn!(asked, shards, "the number of shards was fixed when the store was made");
    }
}

fn parts(
    settings: &Settings,
    ground: &Ground,
    log: Arc<dyn Log>,
    telemetry: Arc<Telemetry>,
    standby: Standby,
    seals: Arc<Keyring>,
) -> Parts {
    let shards = standby.shards();
    Parts {
        log,
        kv: Arc::clone(&ground.kv),
        clock: Arc::clone(&ground.clock),
        random: Arc::clone(&ground.random),
        buffers: Arc::new(Buffers::new(shards.get(), buffer_config(settings))),
        telemetry,
        seals,
        standby: Some(standby),
    }
}

/// Where the settings say that keys are.
pub(super) fn key_source(settings: &Settings) -> Result<KeySource, StartError> {
    let asked = &settings.encryption;
    let file = (!asked.key_ring.is_empty()).then(|| asked.key_ring.as_str().into());
    KeySource::new(asked.key.expose(), file).doing("reading the keys for encryption")
}

/// The keys as they are now. A ring that cannot be read is no reason to begin without one.
fn keyring(settings: &Settings, ground: &Ground) -> Result<Arc<Keyring>, StartError> {
    let keys = key_source(settings)?.load().doing("reading the keys for encryption")?;
    Ok(Arc::new(Keyring::new(keys, Arc::clone(&ground.random))))
}

/// The failover log, with what a run before left waiting in it.
fn standby(
    settings: &Settings,
    ground: &Ground,
    folder: &str,
    replica: &Replica,
) -> Result<Standby, StartError> {
    let asked = &settings.failover;
    let config =
        failover::Config { disk_bytes_max: asked.disk_bytes_max, ..failover::Config::default() };
    let patience = Patience { suspect_ms: asked.suspect_ms, probe_ms: asked.probe_ms };
    Standby::open(&*ground.home, folder, config, patience, replica).doing(format!(
        "opening the failover log in the folder `{folder}` (it holds messages that were answered for; \
         look at it with `onrush log verify`)"
    ))
}

/// Rows are derived: damaged ones are set aside, never deleted, and built again from the log.
fn open_kv(folder: &Path, count: ShardCount, cache_bytes: u64) -> Result<Arc<dyn Kv>, StartError> {
    let config = DiskKvConfig { cache_bytes, ..DiskKvConfig::default() };
    let what = format!("opening the state in {}", folder.display());
    let opened = match DiskKv::open(folder, count, config) {
        Ok(kv) => return Ok(Arc::new(kv)),
        Err(OpenError::Missing(_)) => DiskKv::create(folder, count, config),
        Err(error @ OpenError::Damaged { .. }) => {
            tracing::warn!(%error, "the state is damaged; it is set aside and built from the log");
            DiskKv::set_aside(folder).doing(what.clone())?;
            DiskKv::create(folder, count, config)
        }
        Err(error) => Err(error),
    };
    Ok(Arc::new(opened.doing(what)?))
}

/// Starts an engine on its ground, in files: identity, rows, the log's tail, the lane.
///
/// # Errors
/// [`StartError`]: the store is another's, damaged, or needs what this server does not have.
pub fn start_engine(
    settings: &Settings,
    ground: &Ground,
    telemetry: Arc<Telemetry>,
) -> Result<Engine, StartError> {
    let now_ms = ground.clock.now_ms();
    let identity = identity(settings, &*ground.files, &*ground.random, now_ms)?;
    warn_of_shards(settings, &identity);
    let (log, replica) = replay(settings, ground, &identity)?;
    let standby = standby(settings, ground, "failover", &replica)?;
    let seals = keyring(settings, ground)?;
    let parts = parts(settings, ground, Arc::new(log), telemetry, standby, seals);
    Engine::start(replica, parts, shard_config(settings)).doing("starting the engine's threads")
}

/// Who the store in these files is; a new one if there is none.
fn identity(
    settings: &Settings,
    files: &dyn Files,
    random: &dyn Random,
    now_ms: u64,
) -> Result<Identity, StartError> {
    let asked = asked_shards(settings)?;
    let loaded = Identity::load_or_create(files, random, asked, now_ms);
    Ok(loaded.doing("reading the store's identity")?.identity())
}

/// Brings the state up to the log: from its rows and the log's tail.
fn replay(
    settings: &Settings,
    ground: &Ground,
    identity: &Identity,
) -> Result<(LocalLog, Replica), StartError> {
    let replica = Replica::load(identity.shards, identity.key, &*ground.kv);
    let mut replica = replica.doing("reading the state")?;
    let applied = replica.applied().into_iter();
    let applied: Vec<Applied> =
        applied.map(|(next_index, position)| Applied { next_index, position }).collect();
    let mut damage = None;
    let opened = LocalLog::open(
        Arc::clone(&ground.files),
        &local_config(settings, identity),
        &applied,
        &mut |stored| {
            if let Err(error) = replica.apply_stored(&stored) {
                damage.get_or_insert(error);
            }
        },
    );
    let (log, report) = opened.doing(
        "opening the log (if its state is damaged: move the folder `state` away, and it is built \
         again from the log as far as that reaches back)",
    )?;
    if let Some(error) = damage {
        return Err(error).doing("applying the log");
    }
    tracing::info!(entries = report.entries, "the state is up to date with the log");
    Ok((log, replica))
}

fn local_config(settings: &Settings, identity: &Identity) -> LocalConfig {
    LocalConfig {
        segment_bytes: settings.store.segment_bytes,
        promise: match settings.store.durability {
            Durability::Sync => Promise::Synced,
            Durability::Os => Promise::Written,
        },
        store: Some(identity.store),
        ..LocalConfig::new(identity.shards)
    }
}

fn buffer_config(settings: &Settings) -> buffer::Config {
    let buffer = &settings.buffer;
    let messages_max = u32::try_from(buffer.ring_messages_max).unwrap_or(u32::MAX);
    let ring = RingLimits { messages_max, bytes_max: buffer.ring_bytes_max as u64 };
    buffer::Config { ring, budget_bytes: buffer.budget_bytes as u64 }
}

fn shard_config(settings: &Settings) -> shard::Config {
    let store = &settings.store;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    shard::Config {
        hot_tail_bytes: store.hot_tail_bytes as u64,
        checkpoint_interval_ms: store.checkpoint_interval_ms,
        retention_interval_ms: store.retention_interval_ms,
        dedup: DedupPolicy {
            horizon_ms: millis(store.dedup_horizon),
            generation_ms: millis(store.dedup_generation),
        },
        segment_bytes: store.segment_bytes,
        compaction_live_ratio: store.compaction_live_ratio,
        sole_writer: true,
        ..shard::Config::default()
    }
}
