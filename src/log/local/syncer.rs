//! The log's thread: makes durable what nobody waits for.
//!
//! In: word that something was written without a sync. Out: a sync at most one interval later, so
//! that a pause never leaves entries undurable, and a mark in the journal when it has become quiet.
//! A failed sync poisons the journal, which tells the next append; this thread then ends. Called by
//! `local`.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::journal::Journal;

pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Everything written is durable, or somebody waits for it.
    Quiet,
    /// Something was written that nobody waits for.
    Dirty,
    Stopping,
}

impl Syncer {
    /// Starts the thread.
    pub(super) fn start(journal: Arc<Journal>, interval_ms: u64) -> io::Result<Self> {
        let state = Mutex::new(State::Quiet);
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let interval = Duration::from_millis(interval_ms);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("log-sync".to_owned())
            .spawn(move || theirs.run(&journal, interval))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Something was written that nobody waits for.
    pub(super) fn wake(&self) {
        let mut state = self.shared.state.lock();
        if *state == State::Quiet {
            *state = State::Dirty;
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn run(&self, journal: &Journal, interval: Duration) {
        let mut is_marked = true;
        loop {
            let mut state = self.state.lock();
            while *state == State::Quiet {
                if is_marked {
                    self.changed.wait(&mut state);
                } else if self.changed.wait_for(&mut state, interval).timed_out() {
                    break;
                }
            }
            if *state == State::Quiet {
                drop(state);
                // Proves that the last entries were durable: damage done to them later is then told
                // apart from a torn tail. Not worth an error: nothing depends on it.
                let _ = journal.mark();
                is_marked = true;
                continue;
            }
            // Others may write meanwhile; only a stop cuts the interval short.
            while *state != State::Stopping
                && !self.changed.wait_for(&mut state, interval).timed_out()
            {}
            if *state == State::Stopping {
                return;
            }
            *state = State::Quiet;
            drop(state);
            if journal.sync_to(journal.end()).is_err() {
                return;
            }
            is_marked = false;
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        *self.shared.state.lock() = State::Stopping;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the panic hook, and nothing more can be done about it here.
            let _ = thread.join();
        }
    }
}
