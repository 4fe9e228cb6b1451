//! The command line: which commands there are, and what all of them take.
//!
//! In: arguments. Out: [`Cli`], every value read. What a command takes for itself stands in its own file.
//! Called by `main`, and by the commands that write completions and manual pages.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    ack, config, context, dlq, groups, lag, maintenance, messages, pop, push, queues, seek, shell,
    tail, traces,
};
use crate::moments;
use crate::output::Format;
use crate::target::Place;

const AFTER: &str = "\
Exit codes:
  0    done
  1    the server refused it, or a part of it was not done
  2    the command line, the input or a file is wrong, or nobody said yes
  3    the server cannot be reached, or its answer did not come
  4    the token is missing or unknown, or may not do this
  5    there was nothing to pop
  130  interrupted

Answers are tables on a terminal and JSON on a pipe; NO_COLOR turns colours off.";

/// Onrush from the command line: queues, messages, consumer groups, dead letters.
#[derive(Debug, Parser)]
#[command(name = "onrushctl", version, after_help = AFTER, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) all: Globals,
}

/// What every command takes.
#[derive(Args, Debug)]
pub(crate) struct Globals {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Longest that an answer may take, what a pop waits aside
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = moments::duration, help_heading = "Server")]
    pub(crate) timeout: Duration,
    /// How answers are written; without it tables on a terminal and JSON on a pipe
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", help_heading = "Output")]
    pub(crate) output: Option<Format>,
    /// Do not ask before something is deleted or skipped
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) yes: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Queues: list, show, create, configure, clear, delete
    #[command(subcommand, alias = "queue")]
    Queues(queues::Command),
    /// Push messages: one, or a stream of JSON lines from standard input
    Push(push::Push),
    /// Take messages out, under a lease
    Pop(pop::Pop),
    /// Show the newest messages of a queue, and those that come
    Tail(tail::Tail),
    /// Say what became of messages that were popped
    Ack(ack::Ack),
    /// Consumer groups: list, show, delete
    #[command(subcommand, alias = "group")]
    Groups(groups::Command),
    /// Send a consumer group to a time or an end of a queue
    Seek(seek::Seek),
    /// Where consumer groups lag, the longest lag first
    Lag(lag::Lag),
    /// Dead letters: list, show, redrive, requeue, delete, and the jobs that do so
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Single messages: list, get, delete, retry, move to the dead letters
    #[command(subcommand, alias = "message")]
    Messages(messages::Command),
    /// What happened to messages: show, name, names, add
    #[command(subcommand, alias = "trace")]
    Traces(traces::Command),
    /// Hold back pushes or pops for a while
    #[command(subcommand)]
    Maintenance(maintenance::Command),
    /// Named servers: add, use, list, delete
    #[command(subcommand, alias = "contexts")]
    Context(context::Command),
    /// Which server commands go to, and who said so: show, path
    #[command(subcommand)]
    Config(config::Command),
    /// The server in numbers
    Status,
    /// Whether the server takes work; exit code 1 where it does not
    Health,
    /// Print completions for a shell
    Completions(shell::Completions),
    /// Print the manual page, or write the pages of all commands into a folder
    Man(shell::Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_shape_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_all_commands_take_may_stand_anywhere() {
        for line in [
            "onrushctl --context prod -o json --yes queues list",
            "onrushctl queues list --context prod -o json --yes",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.all.place.context.as_deref(), Some("prod"));
            assert_eq!((cli.all.output, cli.all.yes), (Some(Format::Json), true));
        }
    }
}
