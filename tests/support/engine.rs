//! A whole engine on ground that a test brings: its log, its rows, its failover log.

use std::sync::Arc;

use onrush::base::clock::Clock;
use onrush::base::random::SeededRandom;
use onrush::buffer::{self, Buffers};
use onrush::log::Log;
use onrush::log::simulated::SimulatedLog;
use onrush::sealing::Keyring;
use onrush::shard::failover::Standby;
use onrush::shard::replica::Replica;
use onrush::shard::{Config, Engine, Parts};
use onrush::state::kv::Kv;
use onrush::state::kv::memory::MemoryKv;
use onrush::telemetry::Telemetry;

/// What an engine stands on.
pub(crate) struct Ground {
    pub(crate) log: Arc<SimulatedLog>,
    pub(crate) kv: Arc<MemoryKv>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The engine's number is drawn from it.
    pub(crate) seed: u64,
    pub(crate) standby: Option<Standby>,
}

impl Ground {
    /// Starts an engine on what `replica` knows; its counters come with it.
    pub(crate) fn start(self, replica: Replica, config: Config) -> (Engine, Arc<Telemetry>) {
        let telemetry = Arc::new(Telemetry::default());
        let parts = Parts {
            log: self.log as Arc<dyn Log>,
            kv: self.kv as Arc<dyn Kv>,
            clock: self.clock,
            random: Arc::new(SeededRandom::new(self.seed)),
            buffers: Arc::new(Buffers::new(replica.count().get(), buffer::Config::default())),
            telemetry: Arc::clone(&telemetry),
            seals: Arc::new(Keyring::empty()),
            standby: self.standby,
        };
        (Engine::start(replica, parts, config).unwrap(), telemetry)
    }
}
