//! The running shards: pending → decide → append → apply → sign.
//!
//! [`Engine`] is what the rooms above hold: it takes commands and placed pushes and answers them.
//! Behind it one thread per engine, the lane (`lane`), owns all state ([`replica`]) and commits
//! everything that waits in one append ([`round`] decides, `finish` applies and signs). What other
//! engines appended is applied by following (`follow`). Consumers that wait are [`parked`] here, in
//! the loop that will bring their messages, rather than in the room that speaks to them: so the
//! commit that makes a message visible hands it on in the very next one, without a race. The newest
//! batches stay in the [`hot`] tail; `upkeep` writes checkpoints and lets retention work, `reclaim`
//! gives space back. [`transaction`] is what stands or falls as a whole, [`tend`] what operators ask,
//! [`look`] what is only looked at, [`groups`] how consumer groups stand, [`watch`] who waits for work
//! anywhere. [`restore`] builds the state at start where the log is shared with others, [`contact`] where it was
//! away then.

mod account;
mod bodies;
mod checkpointer;
pub mod command;
pub mod contact;
pub mod failover;
mod find;
mod finish;
mod flights;
mod follow;
pub mod groups;
pub mod hot;
pub mod labels;
mod lane;
pub mod look;
pub mod named;
pub mod parked;
mod reclaim;
mod refusals;
mod replay;
pub mod replica;
pub mod restore;
pub mod round;
pub mod schedule;
mod seal;
mod steady;
pub mod tend;
mod transact;
pub mod transaction;
mod upkeep;
pub mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::base::clock::Clock;
use crate::base::place::{ShardCount, ShardId, StoreKey};
use crate::base::random::Random;
use crate::buffer::Buffers;
use crate::buffer::receipt::PushRefusal;
use crate::log::{Extent, Log, ReadError};
use crate::sealing::Keyring;
use crate::shard::command::{Command, Inbox};
use crate::shard::failover::Standby;
use crate::shard::hot::HotTail;
use crate::shard::lane::Lane;
use crate::shard::parked::Parked;
use crate::shard::replica::Replica;
use crate::shard::schedule::Schedule;
use crate::shard::steady::Steady;
use crate::shard::watch::Watches;
use crate::state::ShardState;
use crate::state::catalog::Catalog;
use crate::state::codec::{self, Chunk};
use crate::state::effect::Origin;
use crate::state::kv::Kv;
use crate::state::ledger::DedupPolicy;
use crate::state::model::Run;
use crate::telemetry::Telemetry;

/// How the running shards behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Bytes of newest batches kept in memory.
    pub hot_tail_bytes: u64,
    /// How often each shard's changes become rows, milliseconds.
    pub checkpoint_interval_ms: u64,
    /// How often retention and compaction look around, milliseconds.
    pub retention_interval_ms: u64,
    /// How long transaction ids are remembered.
    pub dedup: DedupPolicy,
    /// The part of the log that is given back at a time, bytes.
    pub segment_bytes: u64,
    /// A part with less than this share of live bytes is compacted.
    pub compaction_live_ratio: f64,
    /// Whether nobody else appends to the log: then all of it up to its end is applied.
    pub sole_writer: bool,
    /// Where others append too: how often to look at what they did, milliseconds. While the log hears
    /// of it from them, a second at least; from an hour on, only when it must.
    pub follow_interval_ms: u64,
    /// Where the log works on several appends side by side: fewer bytes of pushes than this are not
    /// worth a round trip for each.
    pub parts_bytes_min: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hot_tail_bytes: 32 << 20,
            checkpoint_interval_ms: 5_000,
            retention_interval_ms: 300_000,
            dedup: DedupPolicy::default(),
            segment_bytes: 128 << 20,
            compaction_live_ratio: 0.25,
            sole_writer: true,
            follow_interval_ms: 50,
            parts_bytes_min: 256 << 10,
        }
    }
}

/// What an engine runs on.
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Rows.
    pub kv: Arc<dyn Kv>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the engine's number.
    pub random: Arc<dyn Random>,
    /// Rings.
    pub buffers: Arc<Buffers>,
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// Keys, for queues that ask for encryption.
    pub seals: Arc<Keyring>,
    /// Where pushes go while the store is away, or are held back; `None` = nowhere.
    pub standby: Option<Standby>,
}

/// A running engine. Shared; [`Engine::stop`] ends it in order, dropping the last handle cuts it off.
pub struct Engine {
    log: Arc<dyn Log>,
    kv: Arc<dyn Kv>,
    buffers: Arc<Buffers>,
    inbox: Arc<Inbox>,
    view: Arc<ArcSwap<Catalog>>,
    clock: Arc<dyn Clock>,
    seals: Arc<Keyring>,
    telemetry: Arc<Telemetry>,
    count: ShardCount,
    key: StoreKey,
    number: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the lane on a replica that has applied everything the log holds.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(mut replica: Replica, parts: Parts, config: Config) -> std::io::Result<Self> {
        let Parts { log, kv, clock, random, buffers, telemetry, seals, standby } = parts;
        standby.iter().for_each(|standby| standby.tell(&telemetry));
        replica.count_undone();
        let inbox = Arc::new(Inbox::default());
        let view = Arc::new(ArcSwap::from_pointee(replica.catalog.catalog().clone()));
        let (count, key) = (replica.count(), replica.key());
        if config.sole_writer {
            replica.tidy();
        }
        let checkpointer = checkpointer::Handle::start(
            Arc::clone(&log),
            Arc::clone(&kv),
            Arc::clone(&inbox),
            Arc::clone(&buffers),
            count,
        )?;
        let (number, thread) = (random.next_u64(), Mutex::default());
        let engine = Self {
            log,
            kv,
            buffers,
            inbox,
            view,
            clock,
            seals,
            telemetry,
            count,
            key,
            number,
            thread,
        };
        let lane = engine.lane(replica, checkpointer, standby, config)?;
        let closing = Closing(Arc::clone(&engine.inbox), Arc::clone(&engine.buffers));
        let thread = std::thread::Builder::new().name("onrush-lane".into()).spawn(move || {
            let _closing = closing;
            lane.run();
        })?;
        *engine.thread.lock() = Some(thread);
        Ok(engine)
    }

    /// The lane that is to serve this engine.
    fn lane(
        &self,
        replica: Replica,
        checkpointer: checkpointer::Handle,
        standby: Option<Standby>,
        config: Config,
    ) -> std::io::Result<Lane> {
        let now_us = self.clock.monotonic_us();
        let last_ms = replica.shards.iter().map(ShardState::last_ms).max().unwrap_or(0);
        Ok(Lane {
            log: Arc::clone(&self.log),
            kv: Arc::clone(&self.kv),
            clock: Arc::clone(&self.clock),
            buffers: Arc::clone(&self.buffers),
            inbox: Arc::clone(&self.inbox),
            view: Arc::clone(&self.view),
            telemetry: Arc::clone(&self.telemetry),
            seals: Arc::clone(&self.seals),
            replica,
            hot: HotTail::new(config.hot_tail_bytes),
            parked: Parked::default(),
            ages: account::Ages::default(),
            watches: Watches::default(),
            config,
            schedule: Schedule::new(
                config.checkpoint_interval_ms,
                config.retention_interval_ms,
                now_us,
            ),
            checkpointer,
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build()?,
            origin: Origin { engine: self.number, append: 0 },
            rotation: 0,
            turn: 0,
            moving: reclaim::Moving::default(),
            retention: round::Retention::default(),
            steady: Steady::new(last_ms, now_us),
            again: Vec::new(),
            held: Vec::new(),
            standby,
            poisoned: false,
            failed_in_a_row: 0,
            checkpoints_failed: false,
            follow_at_us: 0,
            followed_at_us: 0,
            news: follow::hear(&*self.log, &config, &self.buffers),
            tidied: config.sole_writer,
            skipped: false,
            seen_own: Vec::new(),
            stopping: None,
        })
    }

    /// Hands a command to the lane. Its answer comes through the command's own sender; if the
    /// engine has stopped, the sender is dropped.
    pub fn submit(&self, command: Command) {
        self.inbox.put(command);
        self.buffers.bell().ring();
    }

    /// The rings.
    #[must_use]
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The queues as of the last commit; swapped whole, never changed. Hold it briefly.
    #[must_use]
    pub fn catalog_now(&self) -> arc_swap::Guard<Arc<Catalog>> {
        self.view.load()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> ShardCount {
        self.count
    }

    /// The store's key.
    #[must_use]
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Its number among the engines of its store: random at every start.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The engine's clock.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Keys, for queues that ask for encryption.
    #[must_use]
    pub fn seals(&self) -> &Arc<Keyring> {
        &self.seals
    }

    /// Counters.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The log, for its figures.
    #[must_use]
    pub fn log(&self) -> &dyn Log {
        &*self.log
    }

    /// Whether reading a run will most likely not wait for the disk.
    #[must_use]
    pub fn is_near(&self, shard: ShardId, run: &Run) -> bool {
        self.log.is_near(shard, run.position)
    }

    /// Reads batches that are not in memory any more. May wait for the disk.
    ///
    /// # Errors
    /// [`ReadError`] as the log says.
    pub fn read(&self, shard: ShardId, run: &Run) -> Result<Vec<Chunk>, ReadError> {
        let place = self.log.body(shard, Extent { position: run.position, len: run.len });
        let chunks = place.and_then(|place| decode_place(run, place));
        if matches!(chunks, Err(ReadError::Corrupt { .. })) {
            self.telemetry.corrupt.add(1);
        }
        chunks
    }

    /// Lets nobody wait for messages any more: who does is answered that the engine stops. To be
    /// called before the doors close, which answer everything that is under way.
    pub fn release(&self) {
        self.submit(Command::Release);
    }

    /// Commits what waits, writes a last checkpoint, syncs the log and ends the lane. Producers and
    /// consumers should be gone by then; what comes later is not answered.
    pub async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        self.submit(Command::Stop(reply));
        // An error means that the lane is gone already.
        let _ = stopped.await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // It has answered; all that is left is to return.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// An engine that is dropped without [`Engine::stop`] is cut off, as by a crash: its lane ends by itself
/// after the commit that is under way, and what was not committed is not answered for.
impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.abandon();
        self.buffers.bell().ring();
    }
}

/// However the lane ends, nobody waits for it any longer.
struct Closing(Arc<Inbox>, Arc<Buffers>);

impl Drop for Closing {
    fn drop(&mut self) {
        let Self(inbox, buffers) = self;
        inbox.close();
        for shard in 0..buffers.shards() {
            let rings = buffers.drain(shard, u64::MAX);
            for signer in rings.into_iter().flat_map(|it| it.pending).filter_map(|it| it.signer) {
                signer.sign(Err(PushRefusal::ShuttingDown));
            }
        }
    }
}

fn decode_place(run: &Run, place: Bytes) -> Result<Vec<Chunk>, ReadError> {
    codec::decode_chunks(place)
        .map_err(|error| ReadError::Corrupt { position: run.position, reason: error.to_string() })
}
