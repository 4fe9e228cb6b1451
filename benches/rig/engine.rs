//! An engine in memory for benches of the rooms around it: no socket, no disk.
//!
//! In: nothing. Out: the engine, with the queue `orders`, and the rooms' handles on it. Its lane sleeps
//! unless somebody asks for a commit.

use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use onrush::base::clock::SystemClock;
use onrush::base::place::{ShardCount, StoreKey};
use onrush::base::random::SeededRandom;
use onrush::buffer::ring::RingLimits;
use onrush::buffer::{self, Buffers};
use onrush::catalog::{AutoCreate, Catalogs};
use onrush::log::simulated::SimulatedLog;
use onrush::sealing::Keyring;
use onrush::shard::replica::Replica;
use onrush::shard::{Config, Engine, Parts};
use onrush::state::kv::memory::MemoryKv;
use onrush::telemetry::Telemetry;
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use onrush_protocol::name::QueueName;

/// Shards of the engine, as a server has them unless set.
pub(crate) const SHARDS: u16 = 64;
const SEED: u64 = 7;

/// A running engine.
pub(crate) struct Rig {
    pub(crate) engine: Arc<Engine>,
    pub(crate) catalogs: Catalogs,
    #[allow(dead_code, reason = "only admission counts")]
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) queue: QueueName,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    /// Starts it; rings take whatever comes.
    pub(crate) fn start() -> Self {
        let shards = ShardCount::new(SHARDS).expect("in range");
        let ring = RingLimits { messages_max: u32::MAX, bytes_max: u64::MAX };
        let buffers = buffer::Config { ring, budget_bytes: u64::MAX };
        let telemetry = Arc::new(Telemetry::default());
        let parts = Parts {
            log: Arc::new(SimulatedLog::new(SEED, shards)),
            kv: Arc::new(MemoryKv::new()),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SeededRandom::new(SEED)),
            buffers: Arc::new(Buffers::new(SHARDS, buffers)),
            telemetry: Arc::clone(&telemetry),
            seals: Arc::new(Keyring::empty()),
            standby: None,
        };
        let replica = Replica::new(shards, StoreKey([3; 16]));
        let engine = Engine::start(replica, parts, Config::default()).expect("a thread");
        let engine = Arc::new(engine);
        let catalogs = Catalogs::new(Arc::clone(&engine), AutoCreate::Yes);
        let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = builder.expect("a runtime");
        let queue: QueueName = "orders".parse().expect("a name");
        runtime.block_on(catalogs.find_or_create(&queue)).expect("a queue");
        Self { engine, catalogs, telemetry, queue, runtime }
    }

    /// Waits on this thread.
    #[allow(dead_code, reason = "only commits are waited for")]
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Stops it.
    pub(crate) fn stop(self) {
        self.runtime.block_on(self.engine.stop());
    }
}

/// A batch of so many messages of 100 bytes; with ids of their producer if `ids` says so.
pub(crate) fn batch(messages: usize, ids: bool) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for at in 0..messages {
        let id = ids.then(|| format!("order-{at:08}"));
        let transaction_id = id.as_deref();
        let record = NewRecord { transaction_id, payload: &[b'x'; 100], ..NewRecord::default() };
        builder.push(&record).expect("a small record fits");
    }
    builder.finish().expect("there are records")
}

/// Runs that are over soon: these figures stand beside each other, nobody reads their last digit.
pub(crate) fn short_runs() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
}
