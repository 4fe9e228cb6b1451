//! A connection that comes back: one task keeps a session, and makes another when it is gone.
//!
//! In: the configuration. Out: the session of this moment, or at once why there is none: nobody waits
//! for a database that is away. Called by everything that talks to the database.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::config::PostgresConfig;
use super::session::{NoSession, Role, Session};
use super::witness::Witness;

/// Pause after a session that ended; a new one is mostly there at once.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Beyond the deadline of the connection itself: settings and statements take round trips too.
const SET_UP_MAX: Duration = Duration::from_secs(5);

/// A kept connection. Dropped, it is cut.
pub(super) struct Link {
    state: Arc<State>,
    keeper: tokio::task::AbortHandle,
}

struct State {
    session: ArcSwapOption<Session>,
    /// Why there is none, for as long as there is none.
    reason: Mutex<String>,
    /// How many sessions there were.
    count: watch::Sender<u64>,
}

impl Link {
    /// Begins to keep a connection; the first one is on its way when this returns. To be called
    /// within a runtime.
    pub(super) fn keep(config: Arc<PostgresConfig>, role: Role, witness: Arc<Witness>) -> Self {
        let state = Arc::new(State {
            session: ArcSwapOption::empty(),
            reason: Mutex::new("it is being connected".to_owned()),
            count: watch::Sender::new(0),
        });
        let keeping = keep(config, role, witness, Arc::clone(&state));
        Self { state, keeper: tokio::spawn(keeping).abort_handle() }
    }

    /// The session of this moment.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn session(&self) -> Result<Arc<Session>, String> {
        match self.state.session.load_full() {
            Some(session) if !session.is_over() => Ok(session),
            _ => Err(self.state.reason.lock().clone()),
        }
    }

    /// Cuts the session of this moment; another one is made when the database answers.
    pub(super) fn sever(&self) {
        if let Some(session) = &*self.state.session.load() {
            session.sever();
        }
    }

    /// Waits until there is a session for the first time.
    pub(super) async fn connected(&self) {
        let mut count = self.state.count.subscribe();
        // The sender lives as long as we do.
        let _ = count.wait_for(|count| *count > 0).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
        if let Some(session) = self.state.session.swap(None) {
            session.sever();
        }
    }
}

async fn keep(config: Arc<PostgresConfig>, role: Role, witness: Arc<Witness>, state: Arc<State>) {
    let mut pause = PAUSE_MIN;
    loop {
        let opening = open(&config, role, &witness);
        let limit = config.connect_timeout + SET_UP_MAX;
        let opened = tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
            let reason = format!("no session within {} ms", limit.as_millis());
            Err(NoSession { reason, is_final: false })
        });
        match opened {
            Ok((session, driver)) => {
                if *state.count.borrow() > 0 {
                    tracing::info!(?role, "the database is reached again");
                }
                *state.reason.lock() = "the connection broke".to_owned();
                state.session.store(Some(Arc::new(session)));
                state.count.send_modify(|count| *count += 1);
                // However it ends: told to those who wait on it, and here only a reason to go on.
                let _ = driver.await;
                state.session.store(None);
                tracing::warn!(?role, "a connection to the database is lost");
                pause = PAUSE_MIN;
            }
            Err(NoSession { reason, .. }) => {
                tracing::debug!(?role, reason, "the database is not reached");
                *state.reason.lock() = reason;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Opens a session, if it is with the database whose entries were seen.
async fn open(
    config: &PostgresConfig,
    role: Role,
    witness: &Witness,
) -> Result<(Session, JoinHandle<()>), NoSession> {
    let (session, driver) = Session::open(config, role).await?;
    match witness.compare(&session.client).await? {
        Ok(()) => Ok((session, driver)),
        Err(foreign) => {
            tracing::error!(?role, %foreign, "this is not the database that it was");
            Err(NoSession { reason: foreign.to_string(), is_final: false })
        }
    }
}
