//! Processes: messages that are evaluated by code, and what that code sends on.
//!
//! In: a message at its slot, and the state of the process it was sent to. Out: what became of it:
//! changes of state, an output, messages to others.

pub mod runtime;
