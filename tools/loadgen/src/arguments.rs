//! The command line, and what it may say.
//!
//! In: arguments. Out: [`Command`] with every value inside its limits, or an error that names the
//! argument and what it may be. Called by `main`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use onrush_protocol::Qos;
use onrush_protocol::limits::{MESSAGE_BYTES_MAX, POP_MESSAGES_MAX, RECORDS_MAX};
use serde::Serialize;

use crate::error::LoadError;
use crate::http::PAYLOAD_BYTES_MIN;
use crate::payload::STAMP_BYTES;

/// Most partitions that a name with eight digits can tell apart.
const PARTITIONS_MAX: u32 = 100_000_000;

/// Load generator for Onrush. Checks by itself that nothing was lost, repeated or reordered, and
/// measures what bounds any such engine on this machine.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Push as fast as it goes, or at --rate; then pop everything back and check it.
    Push(Load),
    /// Fill a queue, then measure how fast it is popped and acknowledged.
    Pop(Load),
    /// Producers and consumers at once, with latency from end to end.
    Mixed(Load),
    /// Only measure what bounds any such engine on this machine.
    Floor(Load),
}

impl Command {
    /// Its name and its settings.
    pub(crate) fn parts(&self) -> (&'static str, &Load) {
        match self {
            Self::Push(load) => ("push", load),
            Self::Pop(load) => ("pop", load),
            Self::Mixed(load) => ("mixed", load),
            Self::Floor(load) => ("floor", load),
        }
    }
}

/// Settings that all commands share.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Load {
    /// Host and port of the server: of its binary door, or its HTTP door with --http
    #[arg(long, default_value = "127.0.0.1:6631")]
    pub(crate) addr: String,
    /// Another server on the same store: connections that push are spread over all of them
    #[arg(long, value_name = "ADDR", conflicts_with = "http")]
    pub(crate) also: Vec<String>,
    /// With several servers: push to each of them only what belongs to its part of this many shards
    #[arg(long, value_name = "SHARDS", requires = "also")]
    pub(crate) affinity: Option<u16>,
    /// Secret for the server
    #[arg(long, env = "ONRUSH_TOKEN", hide_env_values = true)]
    #[serde(skip)]
    pub(crate) token: Option<String>,
    /// 0 buffered, 1 at least once, 2 exactly once
    #[arg(long, default_value_t = 1)]
    pub(crate) qos: u8,
    /// Messages in one push
    #[arg(long, default_value_t = 100)]
    pub(crate) batch: u32,
    /// Bytes of one payload
    #[arg(long, default_value_t = 100)]
    pub(crate) size: usize,
    /// Connections that push
    #[arg(long, default_value_t = 8)]
    pub(crate) connections: usize,
    /// Pushes under way on one connection
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Partitions that every connection pushes to in turn
    #[arg(long, default_value_t = 100)]
    pub(crate) partitions: u32,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds before that, which do not count
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// Messages per second in all: an open loop, where latency counts from the intended time
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Part of messages that repeat an earlier transaction id, as 1% or 0.01 (QoS 2)
    #[arg(long, default_value = "0", value_parser = parse_part)]
    pub(crate) duplicates: f64,
    /// Flush the server's buffer after so many milliseconds (QoS 0; 0: the server's default)
    #[arg(long, default_value_t = 0)]
    pub(crate) buffer_ms: u32,
    /// Flush the server's buffer at so many messages (QoS 0; 0: the server's default)
    #[arg(long, default_value_t = 0)]
    pub(crate) buffer_max: u32,
    /// Threads that push
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Connections that pop
    #[arg(long, default_value_t = 4)]
    pub(crate) pop_connections: usize,
    /// Pops under way on one connection
    #[arg(long, default_value_t = 2)]
    pub(crate) pop_in_flight: usize,
    /// Most messages of one pop
    #[arg(long, default_value_t = 10_000)]
    pub(crate) pop_batch: u32,
    /// Most partitions of one pop
    #[arg(long, default_value_t = 100)]
    pub(crate) pop_partitions: u16,
    /// Consumer groups that each read everything beside the producers (mixed); 0: nobody reads meanwhile
    #[arg(long, default_value_t = 1)]
    pub(crate) groups: u16,
    /// Measure so many times, alternately with what it is held against, and tell the median of the
    /// ratios: push against the floor, mixed against 1 group and none
    #[arg(long, value_name = "TIMES")]
    pub(crate) pairs: Option<u16>,
    /// Messages that are pushed before a pop is measured
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) messages: u64,
    /// Seconds without a message after which nothing more is expected to come out
    #[arg(long, default_value_t = 10.0)]
    pub(crate) idle: f64,
    /// Use this queue instead of one of this run's own; it is neither set up nor deleted
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Leave the run's queue behind
    #[arg(long)]
    pub(crate) keep: bool,
    /// Speak HTTP/1.1 instead of the binary protocol
    #[arg(long)]
    pub(crate) http: bool,
    /// Do not stamp, pop back and check
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Do not measure the floor
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Seconds of each measurement of the floor, before and after the run
    #[arg(long, default_value_t = 2.0)]
    pub(crate) floor_seconds: f64,
    /// Messages of a transaction where the floor is a database: more of them make it higher
    #[arg(long, default_value_t = 10_000)]
    pub(crate) floor_commit: u32,
    /// Threads of the floor's server
    #[arg(long, default_value_t = 1)]
    pub(crate) floor_threads: usize,
    /// Where the floor's file is written: the disk that the server uses
    #[arg(long, default_value = ".")]
    pub(crate) data_dir: PathBuf,
    /// Hold the run against raw COPY into this database: the one that the server stores into, or one
    /// on the same machine
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub(crate) database_url: Option<String>,
    /// Print lines of JSON, one a second and the result last
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
}

impl Load {
    /// The promise that is asked for.
    pub(crate) fn promise(&self) -> Qos {
        Qos::from_number(self.qos).unwrap_or_default()
    }

    /// How long the measured part takes.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// How long the part before it takes.
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    /// How long each measurement of the floor takes.
    pub(crate) fn floor_length(&self) -> Duration {
        Duration::from_secs_f64(self.floor_seconds)
    }

    /// Holds every value against its limits.
    ///
    /// # Errors
    /// [`LoadError::Argument`] naming the first that is outside.
    pub(crate) fn check(&self, command: &str) -> Result<(), LoadError> {
        let is_checked = !self.no_verify && command != "floor";
        let size_min = match (self.http, is_checked) {
            (true, _) => PAYLOAD_BYTES_MIN,
            (false, true) => STAMP_BYTES,
            (false, false) => 0,
        };
        let whole = |name, value: u64, min: u64, max: u64| match value {
            value if value < min || value > max => Err(LoadError::Argument {
                name,
                value: value.to_string(),
                allowed: format!("{min} to {max} are allowed"),
            }),
            _ => Ok(()),
        };
        let servers = 1 + self.also.len() as u64;
        whole("qos", u64::from(self.qos), 0, 2)?;
        whole("connections", self.connections as u64, servers, 0xffff - 1)?;
        whole("affinity", u64::from(self.affinity.unwrap_or(1024)), servers, 1024)?;
        whole("batch", u64::from(self.batch), 1, u64::from(RECORDS_MAX))?;
        whole("size", self.size as u64, size_min as u64, MESSAGE_BYTES_MAX as u64)?;
        whole("in-flight", self.in_flight as u64, 1, 1 << 20)?;
        whole("partitions", u64::from(self.partitions), 1, u64::from(PARTITIONS_MAX))?;
        whole("floor-commit", u64::from(self.floor_commit), 1, 1_000_000)?;
        whole("threads", self.threads as u64, 1, 1024)?;
        whole("pop-connections", self.pop_connections as u64, 1, 0xffff)?;
        whole("pop-in-flight", self.pop_in_flight as u64, 1, 1 << 20)?;
        whole("pop-batch", u64::from(self.pop_batch), 1, u64::from(POP_MESSAGES_MAX))?;
        whole("pop-partitions", u64::from(self.pop_partitions), 1, u64::from(u16::MAX))?;
        whole("groups", u64::from(self.groups), 0, 1_000)?;
        whole("pairs", u64::from(self.pairs.unwrap_or(1)), 1, 1_000)?;
        self.check_pairs(command)?;
        let positive = |name, value: f64, min: f64, max: f64| match value {
            value if !(min..=max).contains(&value) => Err(LoadError::Argument {
                name,
                value: value.to_string(),
                allowed: format!("{min} to {max} are allowed"),
            }),
            _ => Ok(()),
        };
        positive("seconds", self.seconds, 0.001, 1e6)?;
        positive("warmup", self.warmup, 0.0, 1e6)?;
        positive("idle", self.idle, 0.1, 1e6)?;
        positive("floor-seconds", self.floor_seconds, 0.1, 1e6)?;
        positive("rate", self.rate.unwrap_or(1.0), 0.001, 1e12)?;
        if self.duplicates > 0.0 && self.promise() != Qos::ExactlyOnce {
            return Err(LoadError::Argument {
                name: "duplicates",
                value: self.duplicates.to_string(),
                allowed: "only --qos 2 tells them apart".to_owned(),
            });
        }
        Ok(())
    }
}

impl Load {
    /// What is run several times must have something to be held against.
    fn check_pairs(&self, command: &str) -> Result<(), LoadError> {
        let refuse = |name, value: u16, allowed: &str| {
            let (value, allowed) = (value.to_string(), allowed.to_owned());
            Err(LoadError::Argument { name, value, allowed })
        };
        if self.groups != 1 && (command != "mixed" || self.http) {
            return refuse("groups", self.groups, "only mixed over the binary protocol has them");
        }
        let Some(pairs) = self.pairs else { return Ok(()) };
        match command {
            "push" if self.no_floor => {
                refuse("pairs", pairs, "there is no floor to hold it against")
            }
            "mixed" if self.groups < 2 => {
                refuse("pairs", pairs, "--groups 2 or more are held against 1 and none")
            }
            "push" | "mixed" => Ok(()),
            _ => refuse("pairs", pairs, "only push and mixed are held against something"),
        }
    }
}

/// A part of 1, as `1%` or `0.01`; below 1, or nothing new would ever be sent.
fn parse_part(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let part = number.trim().parse::<f64>().map_err(|error| error.to_string())? / unit;
    if (0.0..1.0).contains(&part) { Ok(part) } else { Err("0 up to 100% are allowed".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_may_be_said_in_two_ways() {
        assert_eq!(parse_part("1%"), Ok(0.01));
        assert_eq!(parse_part("0.25"), Ok(0.25));
        assert!(parse_part("100%").is_err());
        assert!(parse_part("-1%").is_err());
        assert!(parse_part("many").is_err());
    }

    #[test]
    fn the_everyday_call_is_understood() {
        let line = "onrush-load push --addr 127.0.0.1:6631 --qos 2 --batch 100 --size 100 \
                    --connections 8 --in-flight 64 --partitions 100 --seconds 5 --rate 1000 \
                    --duplicates 1% --http --json";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let (name, load) = arguments.command.parts();
        assert_eq!((name, load.duplicates, load.http), ("push", 0.01, true));
        load.check(name).unwrap();
    }

    #[test]
    fn pairs_are_refused_where_there_is_nothing_to_hold_a_run_against() {
        let check = |line: &str| {
            let line = format!("onrush-load {line}");
            let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
            let (name, load) = arguments.command.parts();
            load.check(name).map_err(|error| error.to_string())
        };
        for line in ["push --pairs 5", "mixed --groups 10 --pairs 3", "mixed --groups 0"] {
            check(line).unwrap();
        }
        for (line, word) in [
            ("pop --pairs 2", "--pairs is 2; only push and mixed"),
            ("mixed --pairs 2", "--pairs is 2; --groups 2 or more"),
            ("push --pairs 2 --no-floor", "--pairs is 2; there is no floor"),
            ("push --groups 2", "--groups is 2; only mixed"),
            ("mixed --http --groups 2", "--groups is 2; only mixed over the binary"),
            ("push --pairs 0", "--pairs is 0; 1 to 1000"),
        ] {
            let refused = check(line).unwrap_err();
            assert!(refused.starts_with(word), "{line}: {refused}");
        }
    }

    #[test]
    fn a_value_outside_its_limits_is_named() {
        let line = "onrush-load push --size 23";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let (name, load) = arguments.command.parts();
        assert_eq!(
            load.check(name).unwrap_err().to_string(),
            "--size is 23; 24 to 4194304 are allowed"
        );
    }
}
