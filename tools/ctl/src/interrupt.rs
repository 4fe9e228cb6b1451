//! Ctrl-C, and what else asks a program to end.
//!
//! In: signals. Out: a future that ends when the first one comes. From its making on the signals no longer end
//! the process by themselves, so that a command can put its things in order first. Called by commands that
//! run for long.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::fault::Fault;

/// Signals that ask for an end.
pub(crate) struct Interrupt {
    key: Signal,
    end: Signal,
    hang_up: Signal,
}

impl Interrupt {
    pub(crate) fn new() -> Result<Self, Fault> {
        let on = |kind| {
            signal(kind).map_err(|error| Fault::Machine {
                what: "waiting for signals".to_owned(),
                reason: error.to_string(),
            })
        };
        Ok(Self {
            key: on(SignalKind::interrupt())?,
            end: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the first signal. One that came since [`Self::new`] counts; dropping the future loses none.
    pub(crate) async fn came(&mut self) {
        tokio::select! {
            _ = self.key.recv() => {}
            _ = self.end.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
