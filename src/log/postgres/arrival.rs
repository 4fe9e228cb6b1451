//! Arrival: finding the store in its schema, at the start, or later where the database is away then.
//!
//! In: the configuration, and who the store is or would be. Out: connections, and what is known of
//! heads, pieces and checkpoints. Called by opening; runs as a task of the log until the store is met.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::config::PostgresConfig;
use super::error::OpenError;
use super::schema::{self, Wanted};
use super::session::{NoSession, Role, connect};
use super::shared::Shared;
use super::{news, upkeep};
use crate::log::identity::{Identity, Loaded};

/// Pause between two tries to open.
const OPEN_PAUSE: Duration = Duration::from_millis(200);
/// How long preparing the schema may take beyond the patience of opening.
const SCHEMA_MAX: Duration = Duration::from_secs(60);

/// Finds the store that is there, or makes the newcomer one.
pub(super) async fn open(
    config: Arc<PostgresConfig>,
    newcomer: &Identity,
) -> Result<(Arc<Shared>, Loaded), OpenError> {
    let (client, driver) = first_session(&config).await?;
    let loaded = prepare(client, driver, &config, Wanted::Any(newcomer)).await?;
    let shared = Arc::new(Shared::new(config, &loaded.identity()));
    settle(&shared).await?;
    Ok((shared, loaded))
}

/// Meets a store that is known, however long that takes, and goes on as the log's tasks.
pub(super) async fn arrive(shared: Arc<Shared>, identity: Identity) {
    let mut last = String::new();
    while let Err(error) = meet(&shared, &identity).await {
        let is_other = matches!(error, OpenError::Other);
        if is_other {
            shared.witness.meet(None);
        }
        let reason = error.to_string();
        match reason == last {
            true => tracing::debug!(reason, "the store is not met yet"),
            // A person has to see to everything but a database that is away.
            false if matches!(error, OpenError::Unreachable(_)) => {
                tracing::warn!(reason, "the store is not met yet");
            }
            false => tracing::error!(reason, "the store is not met yet"),
        }
        last = reason;
        tokio::time::sleep(OPEN_PAUSE).await;
    }
    tokio::join!(upkeep::run(Arc::clone(&shared)), news::run(shared));
}

async fn meet(shared: &Shared, identity: &Identity) -> Result<(), OpenError> {
    let (client, driver) = connect(&shared.config, Role::Upkeep).await?;
    prepare(client, driver, &shared.config, Wanted::Known(identity)).await?;
    settle(shared).await
}

/// The first session; a database that is still starting is waited for.
async fn first_session(
    config: &PostgresConfig,
) -> Result<(tokio_postgres::Client, JoinHandle<()>), OpenError> {
    // Pauses are all that it takes where connections are refused: that is said at once.
    let (mut last, mut paused) = ("it did not answer".to_owned(), Duration::ZERO);
    let trying = async {
        loop {
            match connect(config, Role::Upkeep).await {
                Err(NoSession { reason, is_final: false }) => last = reason,
                ended => return ended,
            }
            if paused >= config.refused_patience {
                let reason = format!("{}: {last}", config.database);
                return Err(NoSession { reason, is_final: false });
            }
            tokio::time::sleep(OPEN_PAUSE).await;
            paused += OPEN_PAUSE;
        }
    };
    match tokio::time::timeout(config.open_patience, trying).await {
        Ok(ended) => Ok(ended?),
        Err(_late) => Err(OpenError::Unreachable(format!("{}: {last}", config.database))),
    }
}

/// Brings the schema up to date over a session of its own.
async fn prepare(
    mut client: tokio_postgres::Client,
    driver: JoinHandle<()>,
    config: &PostgresConfig,
    wanted: Wanted<'_>,
) -> Result<Loaded, OpenError> {
    // Longer than the server lets a statement take, which is mostly the one to say so.
    let limit = config.open_patience + SCHEMA_MAX;
    let prepared = tokio::time::timeout(limit, schema::prepare(&mut client, config, wanted)).await;
    driver.abort();
    let late = |_| OpenError::Unreachable("preparing the schema took too long".to_owned());
    prepared.map_err(late)?
}

/// Waits for all connections and learns what there is.
async fn settle(shared: &Shared) -> Result<(), OpenError> {
    let patience = shared.config.open_patience;
    let all = async {
        for link in shared.links() {
            link.connected().await;
        }
    };
    if tokio::time::timeout(patience, all).await.is_err() {
        let reason = shared.links().find_map(|link| link.session().err());
        let reason = reason.unwrap_or_else(|| "not all connections could be made".to_owned());
        return Err(OpenError::Unreachable(reason));
    }
    let session = shared.upkeep.session().map_err(OpenError::Unreachable)?;
    match tokio::time::timeout(patience, shared.learn(&session)).await {
        Ok(learnt) => learnt.map_err(|error| OpenError::Schema(error.to_string()))?,
        Err(_late) => return Err(OpenError::Unreachable("it stopped answering".to_owned())),
    }
    shared.has_arrived.store(true, Ordering::Release);
    Ok(())
}
