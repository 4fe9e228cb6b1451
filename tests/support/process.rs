//! The server as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

/// The server's binary. `SERVER_BIN` names another one, a release build for figures, say. Tests of other
/// packages find it where cargo has put theirs, once it is built.
pub(crate) fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("SERVER_BIN") {
        return named.into();
    }
    if let Some(built) = option_env!("CARGO_BIN_EXE_onrush") {
        return built.into();
    }
    let test = std::env::current_exe().unwrap();
    let beside = test.ancestors().nth(2).unwrap().join("onrush");
    assert!(beside.is_file(), "{} is not built: cargo build --workspace --bins", beside.display());
    beside
}

/// A running server; killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    addr: Option<SocketAddr>,
    http: Option<String>,
}

impl ServerProcess {
    /// Starts the binary under test on `folder`, on ports that the system chooses.
    #[allow(dead_code, reason = "some tests bring settings of their own")]
    pub(crate) fn spawn(folder: &Path) -> Self {
        Self::spawn_with(folder, &["store.segment_bytes=4MiB", "store.checkpoint_interval_ms=100"])
    }

    /// As [`Self::spawn`], with settings of one's own.
    pub(crate) fn spawn_with(folder: &Path, settings: &[&str]) -> Self {
        Self::spawn_saying("warn", folder, settings)
    }

    /// As [`Self::spawn_with`], with a level for what it says to standard error.
    pub(crate) fn spawn_saying(level: &str, folder: &Path, settings: &[&str]) -> Self {
        Self::spawn_within(&[], level, folder, settings)
    }

    /// As [`Self::spawn_saying`], with variables in its environment.
    pub(crate) fn spawn_within(
        environment: &[(&str, &Path)],
        level: &str,
        folder: &Path,
        settings: &[&str],
    ) -> Self {
        let mut child = Command::new(binary())
            .args(["--http-addr", "127.0.0.1:0", "--tcp-addr", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--log-level", level])
            // A word for tests, which a server would refuse.
            .env_remove("ONRUSH_TEST_STORE")
            .envs(environment.iter().copied())
            .args(settings.iter().flat_map(|setting| ["--set", *setting]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().map(BufReader::new);
        Self { child, output, addr: None, http: None }
    }

    /// Waits for its greeting; returns where the binary protocol is served.
    pub(crate) async fn listening(&mut self) -> SocketAddr {
        let mut output = self.output.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            (line, output)
        });
        let (line, output) = line.await.unwrap();
        self.output = Some(output);
        let Some((_, rest)) = line.split_once("tcp://") else {
            let mut errors = String::new();
            let _ = self.child.kill();
            self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("the server did not start: {line:?} {errors}");
        };
        let addr = rest.split_whitespace().next().unwrap().parse().unwrap();
        self.addr = Some(addr);
        self.http =
            rest.split_whitespace().find(|word| word.starts_with("http://")).map(Into::into);
        addr
    }

    /// `http://127.0.0.1:port`, as [`Self::listening`] found it.
    #[allow(dead_code, reason = "not every test speaks HTTP")]
    pub(crate) fn http_url(&self) -> String {
        self.http.clone().unwrap()
    }

    /// Where the binary protocol is served, as [`Self::listening`] found it.
    #[allow(dead_code, reason = "not every test asks twice")]
    pub(crate) fn listening_at(&self) -> SocketAddr {
        self.addr.unwrap()
    }

    /// Resident memory that is the process's own, bytes: without pages of mapped files, which the
    /// system takes back when it needs them.
    #[allow(dead_code, reason = "not every test asks for memory")]
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// All resident memory, bytes.
    #[allow(dead_code, reason = "not every test asks for memory")]
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// SIGTERM, and waits until it is gone: it stops in order.
    #[allow(dead_code, reason = "not every test stops its server in order")]
    pub(crate) fn terminate(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// SIGSTOP: it holds everything it holds and does nothing, until [`Self::thaw`].
    #[allow(dead_code, reason = "not every test freezes its server")]
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    #[allow(dead_code, reason = "not every test freezes its server")]
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    #[allow(dead_code, reason = "not every test sends signals")]
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// What it says to standard error; to be read on, or it stands still one day.
    #[allow(dead_code, reason = "not every test reads what a server says")]
    pub(crate) fn errors(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Gone already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
