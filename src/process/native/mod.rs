//! Modules that are part of the server: for work that is always the same, and for tests.
//!
//! | name | does |
//! |---|---|
//! | `echo` | returns the message, and sends it back to a process that sent it |
//! | `counter` | counts messages, or adds `add`; returns the sum |
//! | `router` | sends the message on to all of `to`, or where its `rules` say |
//! | `ledger` | accounts: `mint`, `transfer`, `balance`, sub-ledgers |
//! | `fan` | one message to each of `targets`, or `count` of them; counts what comes back |
//! | `ring` | passes a token on to the next of `size` processes |
//! | `kv` | `set`, `get`, `delete`, `scan` |
//! | `pingpong`, `ping_server`, `publisher`, `guarded`, `faulty`, `sleeper`, `fickle` | for trying things out |
//!
//! But for the last two they hold to the same rules as guests: no clock, no I/O, no memory but their state.

mod basic;
mod fan;
mod ledger;
mod toolkit;
mod trials;

use std::sync::Arc;

use crate::process::native::toolkit::{Native, Work};
use crate::process::runtime::Module;

/// The module with this name.
pub(super) fn find(name: &str) -> Option<Arc<dyn Module>> {
    let work: Work = match name {
        "echo" => basic::echo,
        "counter" => basic::counter,
        "router" => basic::router,
        "kv" => basic::kv,
        "ledger" => ledger::ledger,
        "fan" => fan::fan,
        "ring" => fan::ring,
        "pingpong" => trials::pingpong,
        "ping_server" => trials::ping_server,
        "publisher" => trials::publisher,
        "guarded" => trials::guarded,
        "faulty" => trials::faulty,
        "sleeper" => trials::sleeper,
        "fickle" => trials::fickle,
        _ => return None,
    };
    Some(Arc::new(Native(work)))
}
