//! Asking before something is lost.
//!
//! In: what is about to be done. Out: leave to do it, or a fault that says how to give it. People at a
//! terminal are asked; without one nothing is done until `--yes` says that it is meant. Called by commands
//! that delete or skip messages.

use std::io::{BufRead, IsTerminal, Write};

use crate::column::harmless;
use crate::fault::Fault;

/// Asks for leave to do what `what` says, such as «delete queue "orders" with all it holds».
pub(crate) fn confirm(is_meant: bool, what: &str) -> Result<(), Fault> {
    if is_meant {
        return Ok(());
    }
    let what = harmless(what);
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Fault::usage_with(
            format!("this would {what}; nothing was done"),
            "say --yes where nobody can be asked",
        ));
    }
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "This will {what}. Go on? [y/N] ").map_err(Fault::Output)?;
    terminal.flush().map_err(Fault::Output)?;
    let mut answer = String::new();
    // No answer is no leave.
    std::io::stdin().lock().read_line(&mut answer).unwrap_or_default();
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Fault::usage("nothing was done")),
    }
}
