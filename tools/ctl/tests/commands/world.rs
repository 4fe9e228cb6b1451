//! A server, and commands that are run against it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::ServerProcess;

/// How long something may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server and a home of its own.
pub(crate) struct World {
    pub(crate) server: ServerProcess,
    pub(crate) folder: TempDir,
    pub(crate) tcp: String,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Ran {
    /// What it said, once it has done all that it was asked.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// The lines of JSON that it printed.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.out.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless it ended with `code` and said all of `words` on standard error.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing: {self:?}");
        }
    }
}

/// A command without a server, with the surroundings of `home` alone.
pub(crate) fn bare(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onrushctl"));
    let variables = std::env::vars_os().map(|(name, _)| name);
    for name in variables.filter(|name| name.to_string_lossy().starts_with("ONRUSH_")) {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", home.join("config")).env_remove("NO_COLOR");
    command
}

/// Runs a command with this input.
pub(crate) fn run(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let text = input.to_owned();
    // A command that ends early does not take all of it.
    let writer = std::thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.into()
}

/// Waits until something is so.
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "this does not happen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// A server with settings of its own.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let common = ["store.segment_bytes=4MiB", "store.checkpoint_interval_ms=100"];
        let settings: Vec<&str> = common.iter().chain(settings).copied().collect();
        let mut server = ServerProcess::spawn_with(folder.path(), &settings);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tcp = runtime.block_on(server.listening()).to_string();
        Self { server, folder, tcp }
    }

    /// A command that finds the server in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(self.folder.path());
        command.env("ONRUSH_SERVER", self.server.http_url()).env("ONRUSH_TCP", &self.tcp);
        command.args(arguments);
        command
    }

    /// Runs a command with these arguments and this input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.command(arguments), input)
    }

    /// Runs a line, cut at its blanks.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_with(&line.split_whitespace().collect::<Vec<&str>>(), "")
    }

    /// Runs a line; the JSON that it answers with.
    pub(crate) fn json(&self, line: &str) -> Value {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{line}: {error}: {ran:?}"))
    }

    /// Runs a line; its table, without the titles, cut at two blanks or more.
    pub(crate) fn table(&self, line: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let text = self.run(&format!("{line} -o table")).done();
        let mut rows = text.lines().map(|row| {
            let cells = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<String>>()
        });
        (rows.next().unwrap_or_default(), rows.collect())
    }

    /// Pushes payloads, one a line.
    pub(crate) fn push(&self, queue: &str, payloads: &str) {
        let ran = self.run_with(&["push", queue], payloads);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// Pops all that there is for a group, and gives it up.
    pub(crate) fn bury(&self, queue: &str, group: &str, error: &str) {
        let line = format!("pop {queue} --group {group} -n 1000 --partitions 100 --from all");
        let popped = self.run(&line).done();
        let acked = self.run_with(&["ack", "--status", "dlq", "--error", error], &popped);
        assert_eq!(acked.code, 0, "{acked:?}");
    }
}
