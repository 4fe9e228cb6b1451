//! The binary: allocator, command line, exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use onrush::base::random::SystemRandom;
use onrush::cli::{Cli, Command, ConfigCommand, LogArgs, LogCommand, TokenCommand};
use onrush::offline::{self, OfflineError};
use onrush::{config, run};

/// Small messages come and go by the million; the system's allocator would be the busiest function.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The code of a process that was asked for something it cannot do.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    keep_pages_small();
    match Cli::parse().into_command() {
        Command::Config(ConfigCommand::Template) => {
            print(Ok::<_, config::ConfigError>(config::template()))
        }
        Command::Config(ConfigCommand::Show(args)) => {
            print(config::load(&args.into_inputs()).map(|loaded| config::show(&loaded)))
        }
        Command::Log(command) => print(look(command)),
        Command::Token(TokenCommand::New { name, role }) => {
            print(run::new_token(&name, &role, &SystemRandom))
        }
        Command::Serve(args) => match config::load(&args.into_inputs()) {
            Ok(loaded) => serve(&loaded.settings),
            Err(error) => refuse(&error),
        },
    }
}

fn look(command: LogCommand) -> Result<String, OfflineError> {
    let as_json = |args: &LogArgs| args.json || !std::io::stdout().is_terminal();
    Ok(match command {
        LogCommand::Inspect(log) | LogCommand::Verify(log) => {
            let held = offline::read(&log.folder)?;
            if as_json(&log) { json(&held) } else { offline::table(&held) }
        }
        LogCommand::Quarantine { log, show: Some(position) } => {
            offline::messages(&log.folder, position)?
        }
        LogCommand::Quarantine { log, show: None } => {
            let all = offline::set_aside(&log.folder)?;
            if as_json(&log) { json(&all) } else { offline::set_aside_table(&all) }
        }
    })
}

fn json(shown: &impl serde::Serialize) -> String {
    // Numbers and texts always have a form in JSON.
    serde_json::to_string(shown).unwrap_or_default() + "\n"
}

fn print(text: Result<String, impl std::fmt::Display>) -> ExitCode {
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
