//! The connection that a client uses now, and how it gets the next one.
//!
//! In: requests for a connection. Out: the live one, or a new one; however many callers find it
//! dead, one of them dials and the others share what comes of it. It makes one attempt and never
//! sleeps: when to try again is the retry loop's decision. Called by the client.

use parking_lot::Mutex;

use crate::connection::{ConnectOptions, Connection};
use crate::error::Error;

/// One address and at most one live connection to it.
pub(crate) struct Session {
    addr: String,
    options: ConnectOptions,
    /// Guards nothing but its own value; never held while dialling.
    current: Mutex<Current>,
    /// Whoever holds it dials.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// How many attempts have ended, and why the last one failed.
    attempts: u64,
    failure: Option<Error>,
}

impl Session {
    pub(crate) fn new(addr: String, options: ConnectOptions) -> Self {
        let (current, dialling) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { addr, options, current, dialling }
    }

    pub(crate) fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// The live connection, if there is one.
    pub(crate) fn live(&self) -> Option<Connection> {
        self.current.lock().connection.clone().filter(|connection| !connection.is_closed())
    }

    /// A live connection. Waits for at most two attempts of `connect_timeout`: one that is under
    /// way, and its own.
    pub(crate) async fn connection(&self) -> Result<Connection, Error> {
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let attempts_before = self.current.lock().attempts;
        let _dialling = self.dialling.lock().await;
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        {
            // Somebody dialled while we waited, and failed: dialling again at once would only
            // queue up attempts against a server that is down.
            let current = self.current.lock();
            if current.attempts != attempts_before
                && let Some(failure) = &current.failure
            {
                return Err(failure.clone());
            }
        }
        let result = Connection::connect(&self.addr, &self.options).await;
        let mut current = self.current.lock();
        current.attempts += 1;
        current.failure = result.as_ref().err().cloned();
        current.connection = result.as_ref().ok().cloned();
        result
    }

    /// Forgets the connection; requests under way on it still get their answers.
    pub(crate) fn release(&self) {
        self.current.lock().connection = None;
    }
}
