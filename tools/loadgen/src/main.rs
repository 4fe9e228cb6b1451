//! `onrush-load`: how fast, how late, and whether nothing was lost.
//!
//! In: a command line. Out: a table or NDJSON on standard output; exit code 0 when the run passed,
//! 1 when something was lost, reordered, damaged or went wrong (or came out twice
//! at QoS 2), 2 when there was no run.
//!
//! | file | what it decides |
//! |---|---|
//! | `arguments` | what may be said on the command line |
//! | `run` | which phases a command has |
//! | `engine` | many connections on one thread |
//! | `producer`, `consumer` | what is said on one connection |
//! | `template`, `payload`, `numbers`, `pace` | what is sent, and when |
//! | `verify` | lost, duplicated, reordered |
//! | `floor` | what bounds any such engine here |
//! | `http` | the same over HTTP/1.1 |
//! | `tally`, `report`, `progress`, `machine` | what is counted and shown |

mod arguments;
mod clock;
mod consumer;
mod engine;
mod error;
mod floor;
mod http;
mod machine;
mod numbers;
mod pace;
mod payload;
mod producer;
mod progress;
mod report;
mod run;
mod tally;
mod template;
mod verify;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    let is_json = arguments.command.parts().1.json;
    match run::run(&arguments.command) {
        Ok(report) => {
            if is_json {
                progress::print_json(&report);
            } else {
                report.print_table();
            }
            if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("onrush-load: {error}");
            ExitCode::from(2)
        }
    }
}
