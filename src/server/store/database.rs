//! Finds the store that is in a database: there, or, where the database is away and this machine has met
//! the store before, on this machine.
//!
//! In: settings. Out: the log, who the store is, and its state. There: the schema and the identity in it,
//! this machine's rows for that store, checkpoints where rows are missing or too old, the log's tail.
//! Here: the identity as it was noted when the store was met last, and what the rows say. Called by
//! `store`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Doing, StartError, open_kv, warn_of_shards};
use crate::base::clock::{Clock, SystemClock};
use crate::base::files::Files;
use crate::base::random::SystemRandom;
use crate::config::Settings;
use crate::log::identity::Identity;
use crate::log::postgres::{OpenError, PostgresConfig, PostgresLog};
use crate::log::{Log, ReadError};
use crate::shard::contact::Settle;
use crate::shard::labels;
use crate::shard::replica::Replica;
use crate::shard::restore::{RestoreError, restore};
use crate::state::kv::Kv;

/// How long to look for a database that refuses connections before beginning without it. One that takes
/// them and is slow is waited for longer: it may only have much to do.
const REFUSED_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two tries where nothing can be done without it.
const PAUSE: Duration = Duration::from_secs(1);

/// A store that was found.
pub(super) struct Found {
    pub(super) log: PostgresLog,
    pub(super) identity: Identity,
    pub(super) kv: Arc<dyn Kv>,
    pub(super) replica: Replica,
    /// The log was not reached; the state is what this machine knew.
    pub(super) is_away: bool,
}

/// Why a store was not found there.
enum Missed {
    /// The database is away.
    Away(String),
    /// Waiting does not help.
    Final(StartError),
}

/// Finds the store. Waits for a database that is away, for as long as it is, where this machine has not
/// met the store before.
pub(super) fn find(
    settings: &Settings,
    config: PostgresConfig,
    home: &dyn Files,
    place: &str,
) -> Result<Found, StartError> {
    let note = home.folder(&format!("met-{:08x}", crc32fast::hash(place.as_bytes())));
    let note = note.doing("opening the note of the store that was met last")?;
    let known = Identity::load(&*note).doing("reading the note of the store that was met last")?;
    let config = match known {
        Some(_) => PostgresConfig { refused_patience: REFUSED_PATIENCE, ..config },
        None => config,
    };
    loop {
        let reason = match meet(settings, &config, &*note, place) {
            Ok(found) => return Ok(found),
            Err(Missed::Final(error)) => return Err(error),
            Err(Missed::Away(reason)) => reason,
        };
        match known.map(|identity| (identity, recall(settings, &identity))) {
            Some((identity, Ok((kv, replica)))) => {
                tracing::warn!(
                    reason,
                    "the database is away: beginning with what this machine knows"
                );
                let log = PostgresLog::open_away(config, &identity);
                let log = log.doing(format!("opening {place}"))?;
                return Ok(Found { log, identity, kv, replica, is_away: true });
            }
            Some((_, Err(problem))) => tracing::warn!(
                reason,
                problem,
                "waiting for the database: what this machine knew of the store cannot be read"
            ),
            None => tracing::warn!(
                reason,
                "waiting for the database: this machine has not met the store there before, so there \
                 is nothing that pushes could be taken for"
            ),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Opens the store in the database, and brings this machine's rows up to it.
fn meet(
    settings: &Settings,
    config: &PostgresConfig,
    note: &dyn Files,
    place: &str,
) -> Result<Found, Missed> {
    let newcomer = Identity::new(&SystemRandom, config.shards, SystemClock::new().now_ms());
    let (log, loaded) = match PostgresLog::open(config.clone(), &newcomer) {
        Err(OpenError::Unreachable(reason)) => return Err(Missed::Away(reason)),
        opened => opened.doing(format!("opening {place}"))?,
    };
    let identity = loaded.identity();
    warn_of_shards(settings, &identity);
    let kv = open_kv(&rows(settings, &identity), identity.shards, settings.store.cache_bytes)?;
    let (store, never) = ((identity.shards, identity.key), AtomicBool::new(false));
    let (replica, restored) = match restore(&log, &*kv, store, &never) {
        Err(RestoreError::Read(ReadError::Unavailable(reason))) => {
            return Err(Missed::Away(reason));
        }
        restored => restored.doing("bringing the state up to the log")?,
    };
    let (entries, shards) = (restored.entries, restored.shards);
    tracing::info!(entries, shards, "the state is up to date with the log");
    match log.name_what_was_there(labels::of_replica(&replica), &never) {
        Err(error) if !log.is_reachable() => return Err(Missed::Away(error.to_string())),
        named => named.doing("bringing the store up to date")?,
    }
    identity.note(note).doing("noting which store this is")?;
    warn_of_others(settings, &identity);
    Ok(Found { log, identity, kv, replica, is_away: false })
}

/// Messages that were answered for may wait here for a store that is not the one in the database.
fn warn_of_others(settings: &Settings, identity: &Identity) {
    let own = failover_folder(identity);
    let Ok(entries) = std::fs::read_dir(&settings.server.data_dir) else { return };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for folder in names.filter(|name| name.starts_with("failover-") && !name.starts_with(&own)) {
        tracing::warn!(
            folder,
            "a failover log of another store is in the data folder; if messages wait in it, nobody \
             pushes them: look at it with `onrush log inspect`"
        );
    }
}

/// Name of the folder of the failover log for a store.
pub(super) fn failover_folder(identity: &Identity) -> String {
    format!("failover-{}", hex(identity))
}

/// What this machine's rows say of a store that it has met.
fn recall(settings: &Settings, identity: &Identity) -> Result<(Arc<dyn Kv>, Replica), String> {
    let folder = rows(settings, identity);
    if !folder.is_dir() {
        return Err(format!("{} is not there", folder.display()));
    }
    let kv = open_kv(&folder, identity.shards, settings.store.cache_bytes);
    let kv = kv.map_err(|error| error.to_string())?;
    let replica = Replica::load(identity.shards, identity.key, &*kv);
    Ok((kv, replica.map_err(|error| error.to_string())?))
}

/// What is done with the state of a store that is met only later.
pub(super) fn settle(log: Arc<PostgresLog>) -> Settle {
    Arc::new(move |replica, stop| {
        let naming = log.name_what_was_there(labels::of_replica(replica), stop);
        naming.map_err(|error| error.to_string())
    })
}

/// This machine's rows: those of another store would be believed.
fn rows(settings: &Settings, identity: &Identity) -> PathBuf {
    settings.server.data_dir.join(format!("state-{}", hex(identity)))
}

/// A store's id, as folders are named by it.
fn hex(identity: &Identity) -> String {
    identity.store.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<StartError> for Missed {
    fn from(error: StartError) -> Self {
        Self::Final(error)
    }
}
