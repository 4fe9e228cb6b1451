//! The binary: allocator, command line, exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use onrush::cli::{Cli, Command, ConfigCommand};
use onrush::{config, run};

/// Small messages come and go by the million; the system's allocator would be the busiest function.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The code of a process that was asked for something it cannot do.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    keep_pages_small();
    let text = match Cli::parse().into_command() {
        Command::Config(ConfigCommand::Template) => Ok(config::template()),
        Command::Config(ConfigCommand::Show(args)) => {
            config::load(&args.into_inputs()).map(|loaded| config::show(&loaded))
        }
        Command::Serve(args) => match config::load(&args.into_inputs()) {
            Ok(loaded) => return serve(&loaded.settings),
            Err(error) => Err(error),
        },
    };
    match text {
        // A reader that went away, as `| head` does, is no fault of ours.
        Ok(text) => match std::io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => refuse(&error),
    }
}

/// Asks the system for no huge pages. With them, memory that the allocator gave back comes again 2 MiB
/// at a time when one page of it is touched, and stays: more than half of what the key-value store
/// seemed to use was that. Call it before there is much memory; a huge page that exists is not split.
fn keep_pages_small() {
    // A kernel that cannot do this runs the server as well, only larger.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn serve(settings: &config::Settings) -> ExitCode {
    let is_terminal = std::io::stdout().is_terminal();
    match run::serve(settings, is_terminal, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    // Nobody to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "onrush: {error}");
    ExitCode::from(REFUSED)
}
