//! The binary: reads the command line and does what it says. A trial until the server is there.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use onrush::cli::{Cli, Command, ConfigCommand};
use onrush::config;

/// The code of a process that was asked for something it cannot do.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let text = match Cli::parse().into_command() {
        Command::Config(ConfigCommand::Template) => Ok(config::template()),
        Command::Serve(args) | Command::Config(ConfigCommand::Show(args)) => {
            config::load(&args.into_inputs()).map(|loaded| config::show(&loaded))
        }
    };
    match text {
        // A reader that went away, as `| head` does, is no fault of ours.
        Ok(text) => match std::io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "onrush: {error}");
            ExitCode::from(REFUSED)
        }
    }
}
