//! `onrushctl`: Onrush from the command line.
//!
//! In: a command line, a configuration file, the environment, and for some commands lines of JSON on
//! standard input. Out: tables for people at a terminal, JSON for programs, on standard output; what went wrong
//! and what to do next on standard error; an exit code that says which kind of thing went wrong.
//!
//! | file | what it decides |
//! |---|---|
//! | `cli` | which commands there are, and what all of them take |
//! | `fault` | what can go wrong, its exit code, and what to do next |
//! | `contexts`, `target` | named servers on disk; which one is spoken to |
//! | `http`, `session` | how it is spoken to |
//! | `output`, `table`, `column`, `indent` | how answers look |
//! | `confirm`, `progress`, `interrupt` | what people are asked and shown meanwhile, and how they end it |
//! | `moments`, `address`, `lines`, `delivered` | times, ids, input lines and messages as text |
//! | `commands` | one file per theme |

mod address;
mod cli;
mod column;
mod commands;
mod confirm;
mod contexts;
mod delivered;
mod fault;
mod http;
mod indent;
mod interrupt;
mod lines;
mod moments;
mod output;
mod progress;
mod session;
mod table;
mod target;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use fault::Fault;

fn main() -> ExitCode {
    // What clap itself refuses ends with 2, which is the code for it here too.
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(commands::run(cli));
            // A thread may still wait for standard input; nobody waits for it.
            runtime.shutdown_background();
            done
        }
        Err(error) => {
            Err(Fault::Machine { what: "the runtime".to_owned(), reason: error.to_string() })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            fault.tell();
            ExitCode::from(fault.exit_code())
        }
    }
}
