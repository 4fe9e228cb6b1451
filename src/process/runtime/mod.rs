//! Guest code: what a class does with one message, and what that may cost.
//!
//! In: a call (a message at its slot, or a start, or a change of version), a view of the state keys of
//! one instance, and limits. Out: an [`Outcome`]: output and outbox, or the reason why there are none.
//! Nothing here appends, waits or talks to anybody: the caller commits what came out, or nothing.
//! Called by the rest of the room.

mod call;
mod gathered;
mod limits;
pub mod luau;
mod meter;
mod outcome;
#[cfg(test)]
mod rig;
pub mod wasm;

pub use call::{Call, CallKind, Message};
pub(super) use gathered::bytes_of;
pub use limits::Limits;
pub use outcome::{GuestError, OutboxEntry, Outcome, Reply};

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Clock;
use meter::Watch;

/// Code of a class, compiled; shared by all its instances and threads.
pub trait Module: Send + Sync {
    /// Evaluates one call and returns what the guest made of it. Blocks the thread for as long as the
    /// guest runs: at most `limits.wall_ms`, and a little more where one step of it takes long.
    ///
    /// Writes go to `state` while the guest runs and when it has ended. When the outcome's result is
    /// an error they must be thrown away, and so is the outbox: the slot changed nothing.
    ///
    /// The same call on the same state has the same outcome, byte for byte, whatever ran before it:
    /// guests have no clock, no I/O and no memory but their state. Only [`GuestError::TimeExceeded`] and
    /// [`GuestError::StateUnavailable`] depend on the world.
    fn evaluate(&self, call: Call<'_>, state: &mut dyn StateView, limits: &Limits) -> Outcome;
}

/// The state keys of one instance, as they are at the slot being evaluated. Values are JSON texts.
///
/// A view sees its own writes. It is asked from the thread that evaluates and may block it.
pub trait StateView {
    /// The value of a key; `None` where there is none.
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, StateFault>;

    /// Sets a key.
    fn put(&mut self, key: &str, value: Bytes) -> Result<(), StateFault>;

    /// Removes a key, if it is there.
    fn remove(&mut self, key: &str) -> Result<(), StateFault>;

    /// The first keys that begin with `prefix`, at most `limit`, with their values, in the order of
    /// the bytes of the keys.
    fn scan(&mut self, prefix: &str, limit: usize) -> Result<Vec<(String, Bytes)>, StateFault>;
}

/// Why a view cannot answer. Ends the evaluation: a guest cannot catch it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateFault {
    /// The instance may not hold that much; a failure of the slot.
    #[error("{what}: at most {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// The store cannot be reached. Not the guest's doing: nothing may be committed for the slot, and it
    /// is evaluated again later.
    #[error("the state cannot be read: {0}")]
    Unavailable(String),
}

/// Fields of a message that the engine sets and that no guest may.
pub(super) const ENVELOPE: [&str; 12] = [
    "id",
    "transaction_id",
    "slot",
    "timestamp",
    "from",
    "from_slot",
    "from_index",
    "cascade",
    "parent",
    "depth",
    "hops_left",
    "in_reply_to",
];

/// What code is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// A Luau script.
    Luau,
    /// A WebAssembly module.
    Wasm,
}

/// What a script finds beside the guest API.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Prelude {
    /// Nothing.
    #[default]
    None,
    /// `Handlers`, `Send`, `ao` and globals that are kept, as scripts written for AO expect them.
    Ao,
}

/// Code to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What errors name, before the line: the class.
    pub name: &'a str,
    /// What it is written in.
    pub language: Language,
    /// For scripts.
    pub prelude: Prelude,
    /// The script's text; or the module in binary or base64.
    pub code: &'a [u8],
}

/// Where code is compiled. Dropping it ends the thread that watches the time; modules keep it alive.
pub struct Runtimes {
    watch: Arc<Watch>,
    waiting: luau::Waiting,
}

impl Runtimes {
    /// With a clock for time limits: the machine's, since a guest that runs forever does so in real
    /// time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { watch: Arc::new(Watch::new(clock)), waiting: luau::Waiting::default() }
    }

    /// Compiles code and checks that it has what a module must have, which runs its top level within
    /// `limits`. Takes a millisecond or two, or as long as `limits` allow.
    pub fn compile(
        &self,
        source: &Source<'_>,
        limits: &Limits,
    ) -> Result<Arc<dyn Module>, GuestError> {
        let invalid = |message: &str| GuestError::ModuleInvalid { message: message.to_owned() };
        match source.language {
            Language::Luau => {
                let code = std::str::from_utf8(source.code).map_err(|_| invalid("not UTF-8"))?;
                let (name, prelude) = (source.name, source.prelude);
                let (watch, waiting) = (&self.watch, &self.waiting);
                let module = luau::LuauModule::new(name, code, prelude, limits, watch, waiting)?;
                Ok(Arc::new(module))
            }
            Language::Wasm if source.prelude != Prelude::None => {
                Err(invalid("a WebAssembly module has no prelude"))
            }
            Language::Wasm => {
                Ok(Arc::new(wasm::WasmModule::new(source.code, limits, &self.watch)?))
            }
        }
    }
}

/// The state that a module sees while it is checked.
struct NoState;

impl StateView for NoState {
    fn get(&mut self, _: &str) -> Result<Option<Bytes>, StateFault> {
        Ok(None)
    }

    fn put(&mut self, _: &str, _: Bytes) -> Result<(), StateFault> {
        Ok(())
    }

    fn remove(&mut self, _: &str) -> Result<(), StateFault> {
        Ok(())
    }

    fn scan(&mut self, _: &str, _: usize) -> Result<Vec<(String, Bytes)>, StateFault> {
        Ok(Vec::new())
    }
}
