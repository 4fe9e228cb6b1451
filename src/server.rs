//! Composition: builds the rooms from the cellar up, opens the doors, and closes them in walking
//! order. Decides nothing itself.
//!
//! Start: lock and identify the store, load rows, apply the log's tail, start the lane, listen. Stop:
//! accept nothing new, answer what is under way, commit what waits in the rings, write a last
//! checkpoint, sync the log.

mod postgres;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::batch::BatchLimits;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::base::clock::{Clock, SystemClock};
use crate::base::files::{DiskFiles, Files};
use crate::base::place::ShardCount;
use crate::base::random::{Random, SystemRandom};
use crate::buffer::ring::RingLimits;
use crate::buffer::{self, Buffers};
use crate::catalog::{AutoCreate, Catalogs};
use crate::config::{Dialect, Durability, Settings, SubscriptionMode};
use crate::delivery::Delivery;
use crate::failover;
use crate::ingest::{self, Ingest};
use crate::log::Log;
use crate::log::identity::Identity;
use crate::log::local::{Applied, LocalConfig, LocalLog, Promise, StoreLock};
use crate::shard::failover::{Patience, Standby};
use crate::shard::replica::Replica;
use crate::shard::{self, Engine, Parts};
use crate::state::kv::Kv;
use crate::state::kv::disk::{DiskKv, DiskKvConfig, OpenError};
use crate::state::ledger::DedupPolicy;
use crate::telemetry::Telemetry;
use crate::wire::{Rooms, http, tcp};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct StartError {
    /// What was being done.
    what: String,
    /// What went wrong.
    reason: String,
}

impl StartError {
    /// The process could not get what it runs on.
    pub(crate) fn runtime(error: std::io::Error) -> Self {
        Self { what: "starting the runtime".into(), reason: error.to_string() }
    }
}

/// Adds to an error what was being done.
trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, StartError>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, StartError> {
        self.map_err(|error| StartError { what: what.into(), reason: error.to_string() })
    }
}

/// What an engine stands on; tests bring their own.
pub struct Ground {
    /// The store's own folder.
    pub home: Arc<dyn Files>,
    /// The journal's folder.
    pub files: Arc<dyn Files>,
    /// Rows.
    pub kv: Arc<dyn Kv>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Keeps other processes out of the folder.
    pub lock: Option<StoreLock>,
}

/// A running server.
pub struct Server {
    rooms: Arc<Rooms>,
    stop: watch::Sender<bool>,
    doors: JoinSet<()>,
    http_addr: SocketAddr,
    tcp_addr: SocketAddr,
    /// Holds the folder's lock for as long as the server lives.
    _ground: Ground,
}

impl Server {
    /// Starts a server on the folder that the settings name. Returns when both ports listen.
    ///
    /// # Errors
    /// [`StartError`] in words for whoever started it.
    pub async fn start(settings: &Settings) -> Result<Self, StartError> {
        let http = TcpListener::bind(settings.server.http_addr).await;
        let http = http.doing(format!("cannot listen on {}", settings.server.http_addr))?;
        let tcp = TcpListener::bind(settings.server.tcp_addr).await;
        let tcp = tcp.doing(format!("cannot listen on {}", settings.server.tcp_addr))?;
        let owned = settings.clone();
        let opening = tokio::task::spawn_blocking(move || open_engine(&owned));
        let (engine, telemetry, ground) = opening.await.doing("opening the store")??;
        Self::open_doors(settings, engine, telemetry, ground, http, tcp)
    }

    fn open_doors(
        settings: &Settings,
        engine: Arc<Engine>,
        telemetry: Arc<Telemetry>,
        ground: Ground,
        http_listener: TcpListener,
        tcp_listener: TcpListener,
    ) -> Result<Self, StartError> {
        let http_addr = http_listener.local_addr().doing("reading the HTTP address")?;
        let tcp_addr = tcp_listener.local_addr().doing("reading the TCP address")?;
        let rooms = Arc::new(rooms(settings, engine, telemetry, &ground));
        let (stop, stopped) = watch::channel(false);
        let mut doors = JoinSet::new();
        let tcp_config = Arc::new(tcp_config(settings));
        let tcp_rooms = Arc::clone(&rooms);
        doors.spawn(tcp::listen::serve(tcp_listener, tcp_rooms, tcp_config, stopped.clone()));
        let http_config = Arc::new(http_config(settings));
        let http_rooms = Arc::clone(&rooms);
        doors.spawn(http::listen::serve(http_listener, http_rooms, http_config, stopped));
        Ok(Self { rooms, stop, doors, http_addr, tcp_addr, _ground: ground })
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where the binary protocol is served.
    #[must_use]
    pub fn tcp_addr(&self) -> SocketAddr {
        self.tcp_addr
    }

    /// The rooms, for figures.
    #[must_use]
    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// Stops: nothing new is accepted, everything under way is answered, everything buffered is
    /// committed. Connections that do not end within `patience` are cut.
    pub async fn stop(mut self, patience: Duration) {
        // An error means that no door is open any more.
        let _ = self.stop.send(true);
        // What waits for messages would keep its connection open for as long as it likes.
        self.rooms.engine.release();
        let closing = async { while self.doors.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, closing).await.is_err() {
            tracing::warn!("connections that did not end in time were cut");
            self.doors.shutdown().await;
        }
        self.rooms.engine.stop().await;
    }
}

/// An engine, its counters, and what it stands on.
type Opened = (Arc<Engine>, Arc<Telemetry>, Ground);

/// Opens the store that the settings name and starts its engine.
fn open_engine(settings: &Settings) -> Result<Opened, StartError> {
    match settings.database.url.is_set() {
        true => postgres::open(settings),
        false => open_embedded(settings),
    }
}

fn open_embedded(settings: &Settings) -> Result<Opened, StartError> {
    let folder = &settings.server.data_dir;
    let what = || format!("opening the data folder {}", folder.display());
    std::fs::create_dir_all(folder).doing(what())?;
    let files = DiskFiles::open(folder.join("log")).doing(what())?;
    let lock = StoreLock::take(&files, folder).doing(what())?;
    let kv = open_kv(&folder.join("state"), settings.store.cache_bytes)?;
    let ground = Ground {
        home: Arc::new(DiskFiles::open(folder).doing(what())?),
        files: Arc::new(files),
        kv,
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        lock: Some(lock),
    };
    let telemetry = Arc::new(Telemetry::default());
    let engine = start_engine(settings, &ground, Arc::clone(&telemetry))?;
    Ok((Arc::new(engine), telemetry, ground))
}

/// Rows are derived: damaged ones are set aside, never deleted, and built again from the log.
fn open_kv(folder: &Path, cache_bytes: u64) -> Result<Arc<dyn Kv>, StartError> {
    let config = DiskKvConfig { cache_bytes, ..DiskKvConfig::default() };
    let what = format!("opening the state in {}", folder.display());
    let opened = match DiskKv::open(folder, config) {
        Ok(kv) => return Ok(Arc::new(kv)),
        Err(OpenError::Missing(_)) => DiskKv::create(folder, config),
        Err(error @ OpenError::Damaged { .. }) => {
            tracing::warn!(%error, "the state is damaged; it is set aside and built from the log");
            DiskKv::set_aside(folder).doing(what.clone())?;
            DiskKv::create(folder, config)
        }
        Err(error) => Err(error),
    };
    Ok(Arc::new(opened.doing(what)?))
}

/// Starts an engine on its ground: identity, rows, the log's tail, the lane.
///
/// # Errors
/// [`StartError`]: the store is another's, damaged, or needs what this server does not have.
pub fn start_engine(
    settings: &Settings,
    ground: &Ground,
    telemetry: Arc<Telemetry>,
) -> Result<Engine, StartError> {
    let asked = ShardCount::new(settings.store.shards as u16);
    let asked = asked.ok_or("out of range").doing("reading store.shards")?;
    let now_ms = ground.clock.now_ms();
    let loaded = Identity::load_or_create(&*ground.files, &*ground.random, asked, now_ms);
    let identity = loaded.doing("reading the store's identity")?.identity();
    if identity.shards != asked {
        tracing::warn!(
            asked = asked.get(),
            shards = identity.shards.get(),
            "the number of shards was fixed when the store was made"
        );
    }
    let (log, replica) = replay(settings, ground, &identity)?;
    let standby = standby(settings, ground, "failover", &replica)?;
    launch(settings, ground, telemetry, Arc::new(log), replica, standby)
}

/// Starts an engine on a replica that has what its log says.
fn launch(
    settings: &Settings,
    ground: &Ground,
    telemetry: Arc<Telemetry>,
    log: Arc<dyn Log>,
    replica: Replica,
    standby: Standby,
) -> Result<Engine, StartError> {
    let buffers = Arc::new(Buffers::new(replica.count().get(), buffer_config(settings)));
    let parts = Parts {
        log,
        kv: Arc::clone(&ground.kv),
        clock: Arc::clone(&ground.clock),
        random: Arc::clone(&ground.random),
        buffers,
        telemetry,
        standby: Some(standby),
    };
    Engine::start(replica, parts, shard_config(settings)).doing("starting the engine's threads")
}

/// The failover log, with what a run before left waiting in it.
fn standby(
    settings: &Settings,
    ground: &Ground,
    folder: &str,
    replica: &Replica,
) -> Result<Standby, StartError> {
    let failover = &settings.failover;
    let config =
        failover::Config { disk_bytes_max: failover.disk_bytes_max, ..failover::Config::default() };
    let patience = Patience { suspect_ms: failover.suspect_ms, probe_ms: failover.probe_ms };
    let opened = Standby::open(&*ground.home, folder, config, patience, replica);
    opened.doing(
        "opening the failover log (it holds messages that were answered for; look at it with \
         `onrush log verify`)",
    )
}

/// Brings the state up to the log: from its rows and the log's tail.
fn replay(
    settings: &Settings,
    ground: &Ground,
    identity: &Identity,
) -> Result<(LocalLog, Replica), StartError> {
    let replica = Replica::load(identity.shards, identity.key, &*ground.kv);
    let mut replica = replica.doing("reading the state")?;
    let applied = replica.applied().into_iter();
    let applied: Vec<Applied> =
        applied.map(|(next_index, position)| Applied { next_index, position }).collect();
    let mut damage = None;
    let opened = LocalLog::open(
        Arc::clone(&ground.files),
        &local_config(settings, identity),
        &applied,
        &mut |stored| {
            if let Err(error) = replica.apply_stored(&stored) {
                damage.get_or_insert(error);
            }
        },
    );
    let (log, report) = opened.doing(
        "opening the log (if its state is damaged: move the folder `state` away, and it is built \
         again from the log as far as that reaches back)",
    )?;
    if let Some(error) = damage {
        return Err(error).doing("applying the log");
    }
    tracing::info!(entries = report.entries, "the state is up to date with the log");
    Ok((log, replica))
}

fn rooms(
    settings: &Settings,
    engine: Arc<Engine>,
    telemetry: Arc<Telemetry>,
    ground: &Ground,
) -> Rooms {
    let auto_create =
        if settings.server.auto_create_queues { AutoCreate::Yes } else { AutoCreate::No };
    let catalogs = Catalogs::new(Arc::clone(&engine), auto_create);
    let admission = ingest::Config {
        limits: BatchLimits {
            batch_bytes_max: settings.wire.batch_bytes_max,
            message_bytes_max: settings.wire.message_bytes_max,
            ..BatchLimits::default()
        },
        buffer_ms: settings.buffer.buffer_ms as u32,
        buffer_max: settings.buffer.buffer_max as u32,
        room_timeout: Duration::from_millis(settings.buffer.append_timeout_ms),
    };
    Rooms {
        ingest: Ingest::new(
            Arc::clone(&engine),
            catalogs.clone(),
            Arc::clone(&telemetry),
            admission,
        ),
        delivery: Delivery::new(Arc::clone(&engine), catalogs.clone(), Arc::clone(&ground.random)),
        catalogs,
        telemetry,
        engine,
        clock: Arc::clone(&ground.clock),
        random: Arc::clone(&ground.random),
    }
}

fn token(settings: &Settings) -> Option<Arc<str>> {
    settings.server.token.is_set().then(|| settings.server.token.expose().into())
}

fn start_new(settings: &Settings) -> bool {
    matches!(settings.delivery.subscription_mode, SubscriptionMode::New | SubscriptionMode::NewOnly)
}

fn tcp_config(settings: &Settings) -> tcp::Config {
    let wire = &settings.wire;
    tcp::Config {
        frame_bytes_max: wire.frame_bytes_max,
        in_flight_max: wire.in_flight_max,
        connections_max: wire.connections_max,
        hello_timeout: Duration::from_millis(wire.hello_timeout_ms),
        frame_timeout: Duration::from_millis(wire.frame_timeout_ms),
        push_timeout: Duration::from_millis(settings.buffer.append_timeout_ms),
        pop_bytes_max: settings.delivery.pop_bytes_max as u64,
        start_new: start_new(settings),
        token: token(settings),
        store: if settings.database.url.is_set() { "postgres" } else { "embedded" },
        durability: settings.store.durability.word(),
    }
}

fn http_config(settings: &Settings) -> http::Config {
    let delivery = &settings.delivery;
    http::Config {
        dialect: match settings.http.dialect {
            Dialect::Onrush => http::Dialect::Onrush,
            Dialect::Queen => http::Dialect::Queen,
        },
        token: token(settings),
        body_bytes_max: settings.http.body_bytes_max,
        header_timeout: Duration::from_millis(settings.http.header_timeout_ms),
        idle_timeout: Duration::from_millis(settings.http.idle_timeout_ms),
        connections_max: settings.wire.connections_max,
        batch_target_bytes: settings.wire.batch_target_bytes,
        push_timeout: Duration::from_millis(settings.buffer.append_timeout_ms),
        pop_timeout_ms: delivery.pop_timeout_ms,
        pop_batch: delivery.pop_batch,
        pop_bytes_max: delivery.pop_bytes_max as u64,
        messages_max: delivery.messages_max,
        start_new: start_new(settings),
        names_messages: settings.database.url.is_set(),
        ..http::Config::default()
    }
}

fn local_config(settings: &Settings, identity: &Identity) -> LocalConfig {
    LocalConfig {
        segment_bytes: settings.store.segment_bytes,
        promise: match settings.store.durability {
            Durability::Sync => Promise::Synced,
            Durability::Os => Promise::Written,
        },
        store: Some(identity.store),
        ..LocalConfig::new(identity.shards)
    }
}

fn buffer_config(settings: &Settings) -> buffer::Config {
    let buffer = &settings.buffer;
    let messages_max = u32::try_from(buffer.ring_messages_max).unwrap_or(u32::MAX);
    let ring = RingLimits { messages_max, bytes_max: buffer.ring_bytes_max as u64 };
    buffer::Config { ring, budget_bytes: buffer.budget_bytes as u64 }
}

fn shard_config(settings: &Settings) -> shard::Config {
    let store = &settings.store;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    shard::Config {
        hot_tail_bytes: store.hot_tail_bytes as u64,
        checkpoint_interval_ms: store.checkpoint_interval_ms,
        retention_interval_ms: store.retention_interval_ms,
        dedup: DedupPolicy {
            horizon_ms: millis(store.dedup_horizon),
            generation_ms: millis(store.dedup_generation),
        },
        segment_bytes: store.segment_bytes,
        compaction_live_ratio: store.compaction_live_ratio,
        sole_writer: !settings.database.url.is_set(),
        follow_interval_ms: settings.database.follow_interval_ms,
    }
}
