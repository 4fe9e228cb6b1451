//! The server as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running server; killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl ServerProcess {
    /// Starts the binary under test on `folder`, on ports that the system chooses.
    pub(crate) fn spawn(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_onrush"))
            .args(["--http-addr", "127.0.0.1:0", "--tcp-addr", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--log-level", "warn", "--set", "store.segment_bytes=4MiB"])
            .args(["--set", "store.checkpoint_interval_ms=100"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().map(BufReader::new);
        Self { child, output }
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
        rest.split_whitespace().next().unwrap().parse().unwrap()
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
