//! Processes: a partition whose messages are evaluated in order by code, and whose outgoing messages
//! are pushed on until none is left.
//!
//! A class is a queue with code; an instance is one of its partitions; a slot is a message with its
//! sequence. A slot is evaluated once: what it wrote, returned and sent is committed with its
//! acknowledgement as one append, so a crash loses and doubles nothing, and what is left to do is
//! what the log says it is. In: definitions, pushes, questions. Out: answers, and messages to other
//! processes and queues. Called by `wire`.
//!
//! | file | decides |
//! |---|---|
//! | [`definition`], `modules` | what a class says, and its code; [`runtime`] guests, `native` code of our own |
//! | [`class`], `gone` | which classes there are; what waits in one that goes |
//! | [`push`], `cancel` | a message goes in, and what its sender waits for; and what is not evaluated of it never is |
//! | `runner` | which instances are evaluated, `places` of which classes, `lot` for how long, `turns` whose code runs next; `errands` which are in manual mode |
//! | `evaluate` | slots in order; `instance` their state keys |
//! | `step`, `outgoing`, `commit` | what slots came to, as one transaction; `target`, `route`, `codec` where messages go and in which form, `envelope` where they come from; `hand_over` what goes on at once |
//! | `desk`, [`letters`], [`bulk`], `sweep` | what was refused, or waits for its time or its target; [`timers`], `cron` |
//! | [`effects`], `call` | servers elsewhere are asked, and answer by a message |
//! | [`control`], [`trial`], [`verify`] | what is done to an instance beside its messages, and what would come of them |
//! | `trim` | what became of slots is let go of |
//! | [`look`], [`tree`], [`sent`], [`way`], `board` | what became of slots and cascades, and who waits for it |
//! | [`faults`] | where a test may let it all end |
//! | [`keys`], [`record`] | where all that is kept, and in which form |

mod board;
pub mod bulk;
mod call;
mod cancel;
pub mod class;
pub mod codec;
mod commit;
pub mod control;
mod cron;
pub mod definition;
mod desk;
pub mod effects;
mod envelope;
mod errands;
mod evaluate;
pub mod faults;
mod gone;
mod hand_over;
mod incoming;
mod instance;
pub mod keys;
pub mod letters;
pub mod look;
mod lot;
mod modules;
mod native;
mod outgoing;
mod places;
pub mod push;
pub mod record;
mod route;
mod runner;
pub mod runtime;
pub mod sent;
mod step;
mod sweep;
mod target;
pub mod timers;
pub mod tree;
pub mod trial;
mod trim;
mod turns;
pub mod verify;
pub mod way;

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::base::clock::Clock;
use crate::base::place::PartitionNumber;
use crate::catalog::{CatalogError, Catalogs};
use crate::delivery::Delivery;
use crate::ingest::{Ingest, PushError};
use crate::process::board::Board;
use crate::process::definition::{Bounds, DefinitionError};
use crate::process::effects::Outside;
use crate::process::errands::Errand;
use crate::process::instance::Cache;
use crate::process::modules::Modules;
use crate::process::places::Places;
use crate::process::turns::Turns;
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::state::kv::KvError;

/// How the room works.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long an instance is held at a time, milliseconds: how long it rests when an engine that
    /// shares the store is gone.
    pub lease_ms: u64,
    /// Instances that are worked off at a time, in multiples of what one pop takes; beside one such
    /// multiple of every class, which is its own.
    pub pops_max: usize,
    /// Evaluations at a time, of code that is quick; and half as many of code that is slow.
    pub evaluators: usize,
    /// Bytes of state keys kept in memory.
    pub cache_bytes: usize,
    /// The most that a class may ask for.
    pub maxima: Bounds,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let maxima = Bounds::maxima();
        Self { lease_ms: 10_000, pops_max: 64, evaluators: cores, cache_bytes: 64 << 20, maxima }
    }
}

/// What the room stands on.
pub struct Parts {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The way in.
    pub ingest: Ingest,
    /// Queues.
    pub catalogs: Catalogs,
    /// The way out, for messages that are to be evaluated.
    pub delivery: Delivery,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whoever asks servers elsewhere.
    pub outside: Arc<dyn Outside>,
}

/// Why something about processes was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProcessError {
    /// There is no such class.
    #[error("there is no class '{0}'")]
    NoClass(String),
    /// There is no such instance.
    #[error("there is no process '{0}'")]
    NoProcess(String),
    /// The process has no such slot, or it was not evaluated.
    #[error("the process has no slot {0}")]
    NoSlot(u64),
    /// The slot is evaluated already.
    #[error("slot {0} is evaluated already")]
    Evaluated(u64),
    /// What a process was given is not all there any more.
    #[error("it cannot be replayed: {0}")]
    NotWhole(String),
    /// There is no such push.
    #[error("there is no push '{0}'")]
    NoPush(String),
    /// There is no such thing below the path.
    #[error("there is nothing at '{0}'")]
    NoPath(String),
    /// Another version is the newest.
    #[error("the class is at version {0}")]
    Version(u32),
    /// A definition was refused.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A field that only the room writes was set.
    #[error("the field '{0}' is set by the server")]
    Reserved(&'static str),
    /// A field says something that it cannot say.
    #[error("{0}")]
    Control(String),
    /// The message is no message.
    #[error("{0}")]
    Malformed(String),
    /// The class takes no messages from the caller.
    #[error("the class takes no messages from {0}")]
    NotAccepted(String),
    /// The class takes no messages in this form.
    #[error("the class takes no messages in JSON")]
    Codec,
    /// The process is stopped.
    #[error("the process is stopped: {0}")]
    Stopped(String),
    /// Nothing of the push is pending.
    #[error("the push '{0}' is complete: there is nothing to call off")]
    Complete(String),
    /// The process has more waiting than clients may add to.
    #[error("the process has {0} messages waiting")]
    Backlog(u64),
    /// The message was not taken.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The message was not stored, or perhaps was: see the error.
    #[error(transparent)]
    Refused(#[from] crate::buffer::receipt::PushRefusal),
    /// The queue was not made or changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The engine did not carry it out.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<KvError> for ProcessError {
    fn from(error: KvError) -> Self {
        Self::Command(CommandError::Decide(error.into()))
    }
}

/// Classes, instances and cascades.
#[derive(Clone)]
pub struct Processes {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    ingest: Ingest,
    catalogs: Catalogs,
    delivery: Delivery,
    clock: Arc<dyn Clock>,
    config: Config,
    modules: Arc<Modules>,
    cache: Cache,
    board: Board,
    /// A class was defined here.
    defined: Notify,
    /// Something was put to the desk that waits.
    waiting: Notify,
    /// An instance was resumed here.
    resumed: Notify,
    /// Pops whose instances are not all worked off.
    places: Places,
    turns: Turns,
    desk: OnceLock<PartitionNumber>,
    outside: Arc<dyn Outside>,
    /// Calls that this engine may make beside those that it makes.
    calls: Arc<Semaphore>,
    /// Instances that were stopped, or resumed, while they may have been under way.
    stops: Mutex<HashSet<PartitionNumber>>,
    /// Instances in manual mode that are to be evaluated.
    errands: mpsc::UnboundedSender<Errand>,
    /// Where those are taken from, until somebody does.
    errands_to_run: Mutex<Option<mpsc::UnboundedReceiver<Errand>>>,
    /// What is under way is to end soon.
    stopping: AtomicBool,
    /// No other engine works on the store, so that nobody else says anything of instances.
    is_alone: AtomicBool,
    /// Held by everything under way.
    busy: Arc<()>,
}

impl Processes {
    /// The room. Nothing is evaluated before [`Self::run`].
    #[must_use]
    pub fn new(parts: Parts, config: Config) -> Self {
        let Parts { engine, ingest, catalogs, delivery, clock, outside } = parts;
        let (errands, to_run) = mpsc::unbounded_channel();
        let inner = Inner {
            engine,
            ingest,
            catalogs,
            delivery,
            config,
            modules: Arc::new(Modules::new(Arc::clone(&clock))),
            cache: Cache::new(config.cache_bytes),
            board: Board::default(),
            defined: Notify::new(),
            waiting: Notify::new(),
            resumed: Notify::new(),
            places: Places::new(config.pops_max),
            turns: Turns::new(config.evaluators, Arc::clone(&clock)),
            clock,
            desk: OnceLock::new(),
            outside,
            calls: Arc::new(Semaphore::new(effects::CALLS_MAX)),
            stops: Mutex::default(),
            errands,
            errands_to_run: Mutex::new(Some(to_run)),
            stopping: AtomicBool::new(false),
            is_alone: AtomicBool::new(false),
            busy: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Evaluates messages until `stop` says so, then ends what is under way. `is_alone`: nobody else
    /// works on the store, so that what an earlier life of this server held is free at once.
    pub async fn run(self, is_alone: bool, stop: watch::Receiver<bool>) {
        runner::run(self.inner, is_alone, stop).await;
    }
}
