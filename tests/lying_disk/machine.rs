//! A machine that can lose its power: a disk and rows that outlive the engine.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use onrush::base::clock::SystemClock;
use onrush::base::place::ShardId;
use onrush::base::random::{Random, SeededRandom};
use onrush::base::sim::{SimDisk, Survival};
use onrush::config::Settings;
use onrush::log::identity::Identity;
use onrush::log::local::{LocalConfig, LocalLog};
use onrush::server::{Ground, start_engine};
use onrush::state::kv::memory::MemoryKv;
use onrush::telemetry::Telemetry;

use crate::station::Station;
use crate::transcript::Transcript;

pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    kv: Arc<MemoryKv>,
    random: SeededRandom,
    settings: Settings,
}

impl Machine {
    /// A new machine with an empty disk; small segments, little memory, rows all the time.
    pub(crate) fn new(seed: u64) -> Self {
        let mut settings = Settings::default();
        settings.store.shards = 3;
        settings.store.segment_bytes = 64 << 10;
        settings.store.hot_tail_bytes = 2_000;
        settings.store.checkpoint_interval_ms = 5;
        settings.server.data_dir = PathBuf::from("unused");
        let kv = Arc::new(MemoryKv::with_crashes());
        let random = SeededRandom::new(seed ^ 0xD15C);
        Self { disk: SimDisk::new(seed), kv, random, settings }
    }

    /// Starts the whole engine on what the disk has.
    pub(crate) fn start(&self) -> Result<Station, String> {
        let seed = self.random.next_u64();
        let ground = Ground {
            home: self.disk.files(),
            files: self.disk.files(),
            kv: Arc::clone(&self.kv) as _,
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SeededRandom::new(seed)),
            lock: None,
        };
        let telemetry = Arc::new(Telemetry::default());
        let engine = start_engine(&self.settings, &ground, Arc::clone(&telemetry));
        let engine = engine.map_err(|error| error.to_string())?;
        Ok(Station::new(engine, telemetry, seed.wrapping_add(1)))
    }

    /// The power goes and comes back: what was not synced is lost in part, and so are rows.
    pub(crate) fn crash(&self) {
        self.disk.crash();
        self.lose_rows();
    }

    /// As [`Self::crash`], with nothing surviving that was not synced.
    pub(crate) fn crash_hard(&self) {
        self.disk.crash_with(Survival::None);
        self.lose_rows();
    }

    fn lose_rows(&self) {
        let kept = self.random.below(self.kv.unpersisted() as u64 + 1) as usize;
        self.kv.crash(kept);
    }

    /// What the log says; no engine may be running.
    pub(crate) fn transcript(&self) -> Transcript {
        let files = self.disk.files();
        let identity = Identity::load(&*files).unwrap().expect("a store");
        let config = LocalConfig {
            segment_bytes: self.settings.store.segment_bytes,
            store: Some(identity.store),
            ..LocalConfig::new(identity.shards)
        };
        let catalog = identity.shards.catalog();
        let mut entries: Vec<(ShardId, Bytes)> = Vec::new();
        let opened = LocalLog::open(files, &config, &[], &mut |entry| {
            if entry.shard != catalog {
                entries.push((entry.shard, entry.bytes));
            }
        });
        drop(opened.unwrap());
        Transcript::of(entries.into_iter())
    }
}
