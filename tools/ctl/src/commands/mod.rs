//! What each command does: one file per theme, which holds its part of the command line too.
//!
//! In: a command line. Out: what was asked for, or the first fault. Called by `main`.

pub(crate) mod ack;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod dlq;
pub(crate) mod groups;
pub(crate) mod jobs;
pub(crate) mod lag;
pub(crate) mod maintenance;
pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod pop;
pub(crate) mod push;
pub(crate) mod push_input;
pub(crate) mod queues;
pub(crate) mod seek;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod traces;

use crate::cli::{Cli, Command, Globals};
use crate::contexts::Contexts;
use crate::fault::Fault;
use crate::output::Output;
use crate::session::Session;
use crate::target::{self, Place};

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Result<(), Fault> {
    let Cli { command, all } = cli;
    match command {
        Command::Context(command) => context::run(command, &all),
        Command::Config(command) => config::run(&command, &all),
        Command::Completions(command) => shell::complete(&command, &Output::new(None)),
        Command::Man(command) => shell::write_pages(&command, &Output::new(None)),
        command => talk(command, all).await,
    }
}

/// The commands that need a server.
async fn talk(command: Command, all: Globals) -> Result<(), Fault> {
    let Globals { place, timeout, output, yes } = all;
    let target = target::resolve(place, Place::of_environment(), &Contexts::load()?)?.target;
    let mut session = Session::new(Output::new(output), target, timeout, yes);
    let session = &mut session;
    match command {
        Command::Queues(command) => queues::run(session, command).await,
        Command::Push(command) => push::run(session, command).await,
        Command::Pop(command) => pop::run(session, command).await,
        Command::Tail(command) => tail::run(session, command).await,
        Command::Ack(command) => ack::run(session, command).await,
        Command::Groups(command) => groups::run(session, command).await,
        Command::Seek(command) => seek::run(session, command).await,
        Command::Lag(command) => lag::run(session, command).await,
        Command::Dlq(command) => dlq::run(session, command).await,
        Command::Messages(command) => messages::run(session, command).await,
        Command::Traces(command) => traces::run(session, command).await,
        Command::Maintenance(command) => maintenance::run(session, command).await,
        Command::Status => status::run(session).await,
        Command::Health => status::health(session).await,
        // These need no server, and were done before.
        Command::Context(_) | Command::Config(_) | Command::Completions(_) | Command::Man(_) => {
            Ok(())
        }
    }
}
