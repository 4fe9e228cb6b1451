//! The command line: its shape, and nothing of what it does.
//!
//! In: the arguments of the process. Out: a [`Command`], and the settings that flags gave as
//! [`FlagValue`]s, which `config::load` lays over file and environment. Flags of settings are made
//! from the table of `config`, so a flag, its help and its default cannot disagree with it. Called by
//! `main`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};

use crate::config::{self, FlagValue, Inputs, SETTINGS};

/// A message ingestion engine: ordered partitions, three promises, one log.
#[derive(Debug, Parser)]
#[command(name = "onrush", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it the server is started.
    #[command(subcommand)]
    command: Option<Command>,
    /// Settings for the case without a command.
    #[command(flatten)]
    settings: SettingArgs,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server (also without this word)
    Serve(SettingArgs),
    /// Show settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at the folder of a log while no server has it; nothing is changed
    #[command(subcommand)]
    Log(LogCommand),
}

/// What can be done about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token: prints it, and the line that the server needs to know it. The token itself is
    /// shown this once and kept nowhere
    New {
        /// Its name, which stands beside what its holder pushes
        name: String,
        /// What its holder may do: read-only, read-write or admin
        #[arg(long, default_value = "read-write", value_parser = ["read-only", "read-write", "admin"])]
        role: String,
    },
}

/// What can be seen of a log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Tell what a log holds
    Inspect(LogArgs),
    /// Read all of a log and check every checksum; exit code 2 and the place where it is damaged
    Verify(LogArgs),
    /// List batches that no shard took, or print the messages of one
    Quarantine {
        /// Which folder, and how it is told.
        #[command(flatten)]
        log: LogArgs,
        /// Print the messages of the batch with this position, one JSON object a line
        #[arg(long, value_name = "POSITION")]
        show: Option<u64>,
    },
}

/// Which log.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Folder of the log: the one that holds its segment files, or the batches that were set aside
    pub folder: PathBuf,
    /// Tell it as JSON, also on a terminal
    #[arg(long)]
    pub json: bool,
}

/// What can be shown of settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a commented configuration file with every default
    Template,
    /// Print the settings in effect and who gave each; secrets are not shown
    Show(SettingArgs),
}

/// Settings as flags gave them.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs {
    config_file: Option<PathBuf>,
    flags: Vec<FlagValue>,
}

impl Cli {
    /// The command, [`Command::Serve`] when there is none.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.settings))
    }
}

impl SettingArgs {
    /// These flags together with the environment of the process: all that `config::load` asks for.
    pub fn into_inputs(self) -> Inputs {
        let environment = std::env::vars_os().collect();
        Inputs { config_file: self.config_file, environment, flags: self.flags }
    }
}

const CONFIG: &str = "config";
const SET: &str = "set";
const HEADING: &str = "Settings";

impl Args for SettingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Read settings from this file (also variable ONRUSH_CONFIG)");
        let set = Arg::new(SET)
            .long(SET)
            .value_name("SECTION.KEY=VALUE")
            .action(ArgAction::Append)
            .value_parser(parse_pair)
            .help("Set any setting of the template; may be repeated");
        let own = config::defaults().filter_map(|(setting, default)| {
            let flag = setting.flag?;
            let help = setting.docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            let help = format!("{help} Allowed: {}. Default: {default}.", setting.rule.allowed());
            // The first sentence is enough beside a flag; the whole text shows with --help.
            let short = help.split_inclusive(". ").next().unwrap_or_default().trim_end().to_owned();
            Some(Arg::new(flag).long(flag).value_name("VALUE").help(short).long_help(help))
        });
        command
            .args([config].into_iter().chain(own).chain([set]).map(|arg| arg.help_heading(HEADING)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let own = SETTINGS.iter().filter_map(|setting| {
            let value = matches.get_one::<String>(setting.flag?)?;
            Some(FlagValue {
                flag: format!("--{}", setting.flag?),
                key: setting.path.to_owned(),
                value: value.clone(),
            })
        });
        let set = matches.get_many::<(String, String)>(SET).unwrap_or_default();
        let set = set.map(|(key, value)| FlagValue {
            flag: format!("--{SET}"),
            key: key.clone(),
            value: value.clone(),
        });
        Ok(Self { config_file: matches.get_one(CONFIG).cloned(), flags: own.chain(set).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected section.key=value")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(arguments.split_whitespace()).map(Cli::into_command)
    }

    fn flags(command: Command) -> Vec<(String, String)> {
        let (Command::Serve(args) | Command::Config(ConfigCommand::Show(args))) = command else {
            return Vec::new();
        };
        args.flags.into_iter().map(|flag| (flag.key, flag.value)).collect()
    }

    #[test]
    fn the_shape_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_meant_when_no_command_is_named() {
        for line in ["onrush --data-dir x", "onrush serve --data-dir x"] {
            let command = parse(line).unwrap();
            assert!(matches!(command, Command::Serve(_)), "{line}");
            assert_eq!(flags(command), [("server.data_dir".to_owned(), "x".to_owned())]);
        }
        assert!(matches!(parse("onrush").unwrap(), Command::Serve(_)));
    }

    #[test]
    fn flags_before_a_command_are_refused_instead_of_lost() {
        assert!(parse("onrush --data-dir x config show").is_err());
        assert!(parse("onrush --data-dir x serve").is_err());
    }

    #[test]
    fn any_setting_can_be_set_and_keeps_what_follows_the_first_equals_sign() {
        let command = parse("onrush config show --set a.b=c=d --set e.f=").unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(flags(command), [pair("a.b", "c=d"), pair("e.f", "")]);
        assert!(parse("onrush --set a.b").is_err());
    }

    #[test]
    fn every_flag_of_the_table_exists_and_there_are_seven_of_them() {
        let named: Vec<&str> = SETTINGS.iter().filter_map(|setting| setting.flag).collect();
        assert_eq!(named.len(), 7);
        for flag in named {
            assert_eq!(flags(parse(&format!("onrush --{flag} v")).unwrap()).len(), 1, "--{flag}");
        }
    }

    #[test]
    fn the_file_is_named_by_a_flag() {
        let Command::Serve(args) = parse("onrush --config a.toml").unwrap() else {
            panic!("serve is the default");
        };
        assert_eq!(args.into_inputs().config_file, Some(PathBuf::from("a.toml")));
    }
}
