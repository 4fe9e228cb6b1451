//! Which processes belong to a cluster: those that work in its data folder.
//!
//! The server's processes all change into it and stay there, so they are found without asking the
//! server, which may be frozen or dead; and nothing else is ever signalled.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// The processes that work in `folder`.
pub(crate) fn working_in(folder: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let works_here = |number: &i32| {
        // One that ended meanwhile works nowhere.
        std::fs::read_link(format!("/proc/{number}/cwd")).is_ok_and(|cwd| cwd == folder)
    };
    numbers.filter(works_here).filter_map(Pid::from_raw).collect()
}

/// Sends a signal to every process that works in `folder`; returns to how many.
pub(crate) fn signal_all(folder: &Path, signal: Signal) -> usize {
    // One that is gone by now needs no signal.
    working_in(folder).into_iter().filter(|pid| kill_process(*pid, signal).is_ok()).count()
}
