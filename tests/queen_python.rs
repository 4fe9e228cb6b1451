//! The unmodified PyPI client `queen-mq` against a whole server, its base URL ending in `/queen`.
//!
//! The client lives in `target/py`, where `tools/test` puts it. Where it is missing this test fails
//! and says so: a compatibility that nobody looked at is none. `ONRUSH_TEST_STORE` says on which store.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/store.rs"]
mod store;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use onrush::config::{Secret, Settings};
use onrush::server::Server;
use serde_json::{Value, json};

const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";

/// Runs all flows of a file against a server of its own.
async fn flows(file: &str, change: impl FnOnce(&mut Settings), variables: &[(&str, String)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/py/bin/python");
    assert!(python.exists(), "no {}: run tools/test, which fetches it", python.display());
    let script = root.join("tests/queen_python").join(file);
    let source = std::fs::read_to_string(&script).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.path().to_owned();
    settings.encryption.key = Secret::new("7e".repeat(32));
    change(&mut settings);
    store::choose(&mut settings);
    let server = Server::start(&settings).await.unwrap();
    let mut command = Command::new(python);
    command.arg(script).arg(format!("http://{}/queen", server.http_addr()));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    let done = stdout.lines().filter(|line| line.starts_with("ok: ")).count();
    let written = source.lines().filter(|line| *line == "@flow").count();
    assert_eq!(done, written, "every flow was run\n{stdout}\n{stderr}");
    server.stop(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_messages_works() {
    flows("messages.py", |_| {}, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_groups_works() {
    flows("groups.py", |_| {}, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_transactions_works() {
    flows("transactions.py", |_| {}, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_streams_works() {
    flows("streams.py", |_| {}, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_queues_and_figures_works() {
    flows("admin.py", |_| {}, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_in_plain_words() {
    flows("refused.py", |_| {}, &[]).await;
}

/// A token of somebody with a role, good until some seconds from now or before.
fn token(sub: &str, role: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let exp = now.saturating_add_signed(seconds);
    let claims = json!({ "sub": sub, "role": role, "exp": exp });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_a_client_with_a_token_works() {
    let tokens: Value = json!({
        "read-only": token("rita", "read-only", 600),
        "read-write": token("ada", "read-write", 600),
        "admin": token("grace", "admin", 600),
        "expired": token("ada", "admin", -600),
    });
    let with_tokens = |settings: &mut Settings| {
        settings.auth.jwt_enabled = true;
        settings.auth.jwt_secret = Secret::new(SECRET);
    };
    flows("tokens.py", with_tokens, &[("ONRUSH_TOKENS", tokens.to_string())]).await;
}
