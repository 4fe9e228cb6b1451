//! Guest code: what a class does with one message, and what that may cost.
//!
//! In: a call (a message at its slot, or a start, or a change of version), a view of the state keys of
//! one instance, and limits. Out: an [`Outcome`]: output and outbox, or the reason why there are none.
//! Nothing here appends, waits or talks to anybody: the caller commits what came out, or nothing.
//! Called by the rest of the room.

mod call;
mod limits;
mod outcome;

pub use call::{Call, CallKind, Message};
pub use limits::Limits;
pub use outcome::{GuestError, OutboxEntry, Outcome, Reply};

use bytes::Bytes;

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
