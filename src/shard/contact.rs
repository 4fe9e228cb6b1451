//! First contact: an engine that was started while its store was away meets it.
//!
//! Until then the engine has the state that its own rows say, takes pushes into the failover log, and
//! refuses everything else. What happened in the store since is not known, nor whether the rows are of
//! its history at all. So the state is built from the store as at any start, by a thread of its own,
//! while pushes are taken on; then it takes the place of the old one. No checkpoint is written meanwhile:
//! the thread writes the same rows. Called by the lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::base::place::{ShardCount, StoreKey};
use crate::log::Log;
use crate::shard::lane::Lane;
use crate::shard::replica::Replica;
use crate::shard::restore;
use crate::state::ShardState;
use crate::state::kv::Kv;

/// What else is to be done with a state that was built from the store, before the store counts as met.
/// May wait, but not much longer than until the flag is raised: the engine stops then. An error is said
/// in words, and it is called again with another state.
pub type Settle = Arc<dyn Fn(&Replica, &AtomicBool) -> Result<(), String> + Send + Sync>;

/// Looks that a state which cannot be built is left alone for: building it may be a lot of work.
const LOOKS_BETWEEN: u32 = 20;

/// A contact that is still to be made.
pub(super) struct Contact {
    settle: Settle,
    under_way: Option<JoinHandle<Result<Replica, String>>>,
    /// Raised when nobody wants what is built any more.
    stop: Arc<AtomicBool>,
    /// Why it failed the last time; said once.
    problem: String,
    /// So many looks go by until it is tried again.
    rest: u32,
}

impl Contact {
    pub(super) fn new(settle: Settle) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        Self { settle, under_way: None, stop, problem: String::new(), rest: 0 }
    }

    /// The state, when it is built; begins to build it where that is not under way. Does not wait.
    fn poll(
        &mut self,
        log: &Arc<dyn Log>,
        kv: &Arc<dyn Kv>,
        store: (ShardCount, StoreKey),
    ) -> Option<Replica> {
        let Some(thread) = self.under_way.take() else {
            if self.rest > 0 {
                self.rest -= 1;
                return None;
            }
            self.begin(Arc::clone(log), Arc::clone(kv), store);
            return None;
        };
        if !thread.is_finished() {
            self.under_way = Some(thread);
            return None;
        }
        let built = thread.join().unwrap_or_else(|_| Err("building it panicked".into()));
        built.map_err(|problem| self.note(problem)).ok()
    }

    fn begin(&mut self, log: Arc<dyn Log>, kv: Arc<dyn Kv>, (count, key): (ShardCount, StoreKey)) {
        let (settle, stop) = (Arc::clone(&self.settle), Arc::clone(&self.stop));
        let build = move || {
            let restored = restore::restore(&*log, &*kv, (count, key), &stop);
            let (replica, restored) = restored.map_err(|error| error.to_string())?;
            settle(&replica, &stop)?;
            let (entries, shards) = (restored.entries, restored.shards);
            tracing::info!(entries, shards, "the state is up to date with the log");
            Ok(replica)
        };
        match std::thread::Builder::new().name("onrush-contact".into()).spawn(build) {
            Ok(thread) => self.under_way = Some(thread),
            Err(error) => self.note(error.to_string()),
        }
    }

    fn note(&mut self, problem: String) {
        self.rest = LOOKS_BETWEEN;
        if self.problem != problem {
            tracing::error!(problem, "the store is there, but the state cannot be built from it");
            self.problem = problem;
        }
    }

    /// Waits for a thread that is at it, which ends with what it has in its hands: nobody else may have
    /// the rows before.
    pub(super) fn finish(mut self) {
        self.stop.store(true, Ordering::Release);
        // A panic there was told by the panic hook; what it built is not wanted any more.
        let _ = self.under_way.take().map(JoinHandle::join);
    }
}

impl Lane {
    /// Whether the store was not met since the start.
    pub(super) fn is_before_contact(&self) -> bool {
        self.standby.as_ref().is_some_and(|standby| standby.contact.is_some())
    }

    /// Whether the state is built from what the store says; goes on with it where it is not. To be
    /// called while the store can be asked.
    pub(super) fn has_met_store(&mut self) -> bool {
        let store = (self.replica.count(), self.replica.key());
        let Some(standby) = &mut self.standby else { return true };
        let Some(contact) = &mut standby.contact else { return true };
        let Some(replica) = contact.poll(&self.log, &self.kv, store) else { return false };
        standby.contact = None;
        self.replica = replica;
        self.replica.count_undone();
        let last_ms = self.replica.shards.iter().map(ShardState::last_ms).max().unwrap_or(0);
        self.steady.note(last_ms, self.clock.monotonic_us());
        self.tidied = false;
        self.publish_catalog();
        true
    }
}
