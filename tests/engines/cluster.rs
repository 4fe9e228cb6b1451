//! Engines that share one simulated log.

use std::sync::Arc;

use onrush::base::clock::{Clock, SystemClock};
use onrush::base::place::{ShardCount, StoreKey};
use onrush::log::simulated::SimulatedLog;
use onrush::shard::Config;
use onrush::shard::replica::Replica;
use onrush::state::kv::memory::MemoryKv;

use crate::engine::Ground;
use crate::station::Station;
use crate::transcript::Transcript;

/// Engines and their log.
pub(crate) struct Cluster {
    pub(crate) log: SimulatedLog,
    pub(crate) stations: Vec<Arc<Station>>,
}

impl Cluster {
    /// Starts `engines` on a new log.
    pub(crate) fn start(seed: u64, engines: u64) -> Self {
        Self::start_by(Arc::new(SystemClock::new()), seed, engines)
    }

    /// As [`Self::start`], by another clock.
    pub(crate) fn start_by(clock: Arc<dyn Clock>, seed: u64, engines: u64) -> Self {
        let shards = ShardCount::new(3).unwrap();
        let log = SimulatedLog::new(seed, shards);
        let stations =
            (0..engines).map(|number| Arc::new(station(&log, &clock, seed, number, shards)));
        let stations = stations.collect();
        Self { log, stations }
    }

    /// Starts one more engine, which knows nothing yet.
    pub(crate) fn join(&self, number: u64) -> Station {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        station(&self.log, &clock, 77, number, ShardCount::new(3).unwrap())
    }

    /// What the log says.
    pub(crate) fn transcript(&self) -> Transcript {
        let catalog = 3;
        let entries = self.log.entries().into_iter().filter(|entry| entry.shard != catalog);
        Transcript::of(entries.map(|entry| (entry.shard, entry.bytes)))
    }

    /// Stops all engines.
    pub(crate) async fn stop(&self) {
        for station in &self.stations {
            station.stop().await;
        }
    }
}

fn station(
    log: &SimulatedLog,
    clock: &Arc<dyn Clock>,
    seed: u64,
    number: u64,
    shards: ShardCount,
) -> Station {
    let ground = Ground {
        log: Arc::new(log.connect()),
        kv: Arc::new(MemoryKv::new()),
        clock: Arc::clone(clock),
        seed: seed * 1_000 + number,
        standby: None,
    };
    // Little is kept in memory and rows are written all the time, so that every path is walked.
    let config = Config {
        hot_tail_bytes: 2_000,
        checkpoint_interval_ms: 10,
        sole_writer: false,
        follow_interval_ms: 10,
        parts_bytes_min: 1,
        ..Config::default()
    };
    let replica = Replica::new(shards, StoreKey([5; 16]));
    let (engine, telemetry) = ground.start(replica, config);
    Station::new(engine, telemetry, seed * 1_000 + 500 + number)
}
