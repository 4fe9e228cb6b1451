//! The unmodified PyPI client `queen-mq` against a whole server, its base URL ending in `/queen`.
//!
//! The client lives in `target/py`, where `tools/test` puts it. Where it is missing this test fails
//! and says so: a compatibility that nobody looked at is none.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use onrush::config::{Secret, Settings};
use onrush::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_the_python_client_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/py/bin/python");
    assert!(python.exists(), "no {}: run tools/test, which fetches it", python.display());
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.path().to_owned();
    settings.encryption.key = Secret::new("7e".repeat(32));
    let server = Server::start(&settings).await.unwrap();
    let base = format!("http://{}/queen", server.http_addr());
    let mut command = Command::new(python);
    command.arg(root.join("tests/queen_python/flows.py")).arg(base);
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    let flows = stdout.lines().filter(|line| line.starts_with("ok: ")).count();
    assert_eq!(flows, 26, "{stdout}\n{stderr}");
    server.stop(Duration::from_secs(30)).await;
}
