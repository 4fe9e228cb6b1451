//! Composition: builds the rooms from the cellar up, opens the doors, and closes them in walking
//! order. Decides nothing itself.
//!
//! Start: lock and identify the store, load rows, apply the log's tail, start the lane (`store`),
//! listen. Stop: accept nothing new, answer what is under way, commit what waits in the rings, write a
//! last checkpoint, sync the log.

mod access;
mod certificates;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::batch::BatchLimits;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::store::{StoreKind, StoreWords, start_engine};

use crate::base::clock::Clock;
use crate::base::files::Files;
use crate::base::random::Random;
use crate::catalog::{AutoCreate, Catalogs};
use crate::config::{Dialect, Durability, Settings, SubscriptionMode};
use crate::delivery::{Delivery, jobs};
use crate::ingest::{self, Ingest};
use crate::log::local::StoreLock;
use crate::process::{self, Processes};
use crate::projection::Projector;
use crate::sealing::watch::Watch;
use crate::shard::Engine;
use crate::state::kv::Kv;
use crate::telemetry::Telemetry;
use crate::transaction::Transactions;
use crate::wire::auth::Auth;
use crate::wire::calls::Caller;
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
    /// Ends before what it works on.
    projector: Option<Projector>,
    /// Looks after keys that may change.
    key_watch: Option<Watch>,
    rooms: Arc<Rooms>,
    stop: watch::Sender<bool>,
    doors: JoinSet<()>,
    http_addr: SocketAddr,
    tcp_addr: SocketAddr,
    store_words: StoreWords,
    /// Look at files that may change; end with the server.
    _watchers: JoinSet<()>,
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
        let opening = tokio::task::spawn_blocking(move || store::open(&owned));
        let opened = opening.await.doing("opening the store")??;
        Self::open_doors(settings, opened, http, tcp)
    }

    fn open_doors(
        settings: &Settings,
        opened: store::Opened,
        http_listener: TcpListener,
        tcp_listener: TcpListener,
    ) -> Result<Self, StartError> {
        let store::Opened { engine, telemetry, ground, store_words, projection, figures } = opened;
        let projector = projection.map(|store| Projector::start(store, Arc::clone(&telemetry)));
        let key_watch = Watch::start(
            store::key_source(settings)?,
            Arc::clone(engine.seals()),
            Duration::from_millis(settings.encryption.reload_ms),
        );
        let http_addr = http_listener.local_addr().doing("reading the HTTP address")?;
        let tcp_addr = tcp_listener.local_addr().doing("reading the TCP address")?;
        let auth = Arc::new(access::auth(settings, Arc::clone(&ground.clock))?);
        let rooms = Arc::new(rooms(
            settings,
            engine,
            telemetry,
            &ground,
            store_words.kind,
            Arc::clone(&auth),
        ));
        let (stop, stopped) = watch::channel(false);
        let mut doors = JoinSet::new();
        let mut watchers = JoinSet::new();
        watchers.spawn(access::watch_tokens(settings.clone(), auth));
        let tls = certificates::tls(settings)?;
        if let Some(tls) = &tls {
            watchers.spawn(certificates::watch(settings.clone(), Arc::clone(tls)));
        }
        let tcp_config = tcp::Config { tls: tls.clone(), ..tcp_config(settings, &store_words) };
        let tcp_config = Arc::new(tcp_config);
        let tcp_rooms = Arc::clone(&rooms);
        doors.spawn(tcp::listen::serve(tcp_listener, tcp_rooms, tcp_config, stopped.clone()));
        let database = figures.map(Arc::new);
        let http_config = http::Config { tls, database, ..http_config(settings, &store_words) };
        let http_config = Arc::new(http_config);
        let http_rooms = Arc::clone(&rooms);
        let is_alone = store_words.kind == StoreKind::Embedded;
        doors.spawn(jobs::run(Arc::clone(&rooms.engine), is_alone, stopped.clone()));
        doors.spawn(rooms.processes.clone().run(is_alone, stopped.clone()));
        doors.spawn(http::listen::serve(http_listener, http_rooms, http_config, stopped));
        Ok(Self {
            rooms,
            stop,
            doors,
            http_addr,
            tcp_addr,
            store_words,
            projector,
            _watchers: watchers,
            key_watch,
            _ground: ground,
        })
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

    /// Which store it has.
    #[must_use]
    pub fn store_words(&self) -> &StoreWords {
        &self.store_words
    }

    /// The rooms, for figures.
    #[must_use]
    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// Stops: nothing new is accepted, everything under way is answered, everything buffered is
    /// committed. Connections that do not end within `patience` are cut.
    pub async fn stop(mut self, patience: Duration) {
        drop(self.projector.take());
        drop(self.key_watch.take());
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

fn rooms(
    settings: &Settings,
    engine: Arc<Engine>,
    telemetry: Arc<Telemetry>,
    ground: &Ground,
    kind: StoreKind,
    auth: Arc<Auth>,
) -> Rooms {
    let auto_create =
        if settings.server.auto_create_queues { AutoCreate::Yes } else { AutoCreate::No };
    let catalogs = Catalogs::new(Arc::clone(&engine), auto_create);
    let catalogs = match kind {
        StoreKind::Postgres => catalogs.in_database(),
        StoreKind::Embedded => catalogs,
    };
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
    let ingest =
        Ingest::new(Arc::clone(&engine), catalogs.clone(), Arc::clone(&telemetry), admission);
    let delivery = Delivery::new(Arc::clone(&engine), catalogs.clone(), Arc::clone(&ground.random));
    let transactions = Transactions::new(Arc::clone(&engine), ingest.clone(), delivery.clone());
    let parts = process::Parts {
        engine: Arc::clone(&engine),
        ingest: ingest.clone(),
        catalogs: catalogs.clone(),
        delivery: delivery.clone(),
        clock: Arc::clone(&ground.clock),
        outside: Arc::new(Caller),
    };
    let processes = Processes::new(parts, process_config(settings));
    Rooms {
        ingest,
        delivery,
        transactions,
        catalogs,
        processes,
        telemetry,
        engine,
        clock: Arc::clone(&ground.clock),
        auth,
        random: Arc::clone(&ground.random),
    }
}

/// How processes are evaluated, and what classes may ask for.
fn process_config(settings: &Settings) -> process::Config {
    let (asked, default) = (&settings.processes, process::Config::default());
    process::Config {
        lease_ms: asked.lease_ms,
        pops_max: asked.places,
        evaluators: if asked.evaluators == 0 { default.evaluators } else { asked.evaluators },
        cache_bytes: asked.cache_bytes,
        maxima: process::definition::Bounds {
            fuel: asked.fuel_max,
            time_ms: asked.slot_time_max_ms,
            memory_bytes: asked.memory_bytes_max,
            outbox_entries: asked.outbox_entries_max,
            outbox_bytes: asked.outbox_bytes_max,
            state_bytes: asked.state_bytes_max,
            hops: asked.hops_max,
            messages: asked.messages_max,
            backlog_soft: asked.backlog_max,
            backlog_hard: asked.backlog_max,
            ..default.maxima
        },
    }
}

fn start_new(settings: &Settings) -> bool {
    matches!(settings.delivery.subscription_mode, SubscriptionMode::New | SubscriptionMode::NewOnly)
}

fn tcp_config(settings: &Settings, store_words: &StoreWords) -> tcp::Config {
    let wire = &settings.wire;
    tcp::Config {
        frame_bytes_max: wire.frame_bytes_max,
        in_flight_max: wire.in_flight_max,
        connections_max: wire.connections_max,
        hello_timeout: Duration::from_millis(wire.hello_timeout_ms),
        frame_timeout: Duration::from_millis(wire.frame_timeout_ms),
        push_timeout: Duration::from_millis(settings.buffer.append_timeout_ms),
        pop_bytes_max: settings.delivery.pop_bytes_max as u64,
        messages_max: settings.delivery.messages_max,
        start_new: start_new(settings),
        tls: None,
        store: store_words.kind.word(),
        // A database commits durably whatever is asked for.
        durability: match store_words.kind {
            StoreKind::Postgres => Durability::Sync.word(),
            StoreKind::Embedded => settings.store.durability.word(),
        },
    }
}

fn http_config(settings: &Settings, store_words: &StoreWords) -> http::Config {
    let delivery = &settings.delivery;
    http::Config {
        dialect: match settings.http.dialect {
            Dialect::Onrush => http::Dialect::Onrush,
            Dialect::Queen => http::Dialect::Queen,
        },
        data_dir: settings.server.data_dir.clone(),
        cors: http::Cors::parse(&settings.http.cors_origins),
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
        names_messages: store_words.kind == StoreKind::Postgres,
        ..http::Config::default()
    }
}
