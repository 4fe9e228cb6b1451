//! A server to ask, and a client that sends exactly what it is told.

#[path = "../support/store.rs"]
pub(crate) mod store;

use std::time::Duration;

use onrush::config::Settings;
use onrush::server::Server;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server on a folder that goes with it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) folder: tempfile::TempDir,
    settings: Settings,
}

/// A server that was stopped, with what it left.
#[allow(dead_code, reason = "not every test does something between")]
pub(crate) struct Resting {
    pub(crate) folder: tempfile::TempDir,
    settings: Settings,
}

#[allow(dead_code, reason = "not every test does something between")]
impl Resting {
    /// Starts it again on the same store, on new ports.
    pub(crate) async fn start(self) -> World {
        let Self { folder, settings } = self;
        let server = Server::start(&settings).await.unwrap();
        World { server, folder, settings }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The status and the error's text and code.
    pub(crate) fn error(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        (self.status, text("error"), text("code"))
    }
}

/// Settings for a server on any free ports.
fn settings(folder: &std::path::Path) -> Settings {
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.to_owned();
    settings
}

impl World {
    /// A server with the defaults.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with settings of its own.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        change(&mut settings);
        store::choose(&mut settings);
        let server = Server::start(&settings).await.unwrap();
        Self { server, folder, settings }
    }

    /// Stops the server in order and starts it again on the same store.
    #[allow(dead_code, reason = "not every test restarts")]
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same with other settings from then on.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let Self { server, folder, mut settings } = self;
        change(&mut settings);
        server.stop(Duration::from_secs(10)).await;
        let server = Server::start(&settings).await.unwrap();
        Self { server, folder, settings }
    }

    /// Stops the server in order; [`Resting::start`] starts it again.
    #[allow(dead_code, reason = "not every test does something between")]
    pub(crate) async fn stop(self) -> Resting {
        let Self { server, folder, settings } = self;
        server.stop(Duration::from_secs(10)).await;
        Resting { folder, settings }
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Wire {
        let stream = TcpStream::connect(self.server.http_addr()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, read: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.connect().await.ask(method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &body.to_string()).await
    }

    /// Pushes items at the root.
    pub(crate) async fn push(&self, items: Value) -> Answer {
        self.post("/api/v1/push", &serde_json::json!({ "items": items })).await
    }
}

/// A connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, "", body).await
    }

    /// The same with more header lines, each with its line end.
    pub(crate) async fn ask_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Answer {
        self.send(&request(method, path, headers, body)).await;
        self.answer().await
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads one answer; fails the test when none comes.
    pub(crate) async fn answer(&mut self) -> Answer {
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, self.read_answer()).await.expect("an answer within a minute")
    }

    async fn read_answer(&mut self) -> Answer {
        let head_end = loop {
            if let Some(at) = self.read.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "closed inside of a head: {:?}", self.read);
        };
        let head = String::from_utf8(self.read[..head_end].to_vec()).unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map(|(_, value)| value.trim().parse::<usize>().unwrap());
        assert!(length.is_some() || status == 204, "every answer says how long it is: {head}");
        let end = head_end + length.unwrap_or(0);
        while self.read.len() < end {
            assert!(self.more().await, "closed inside of a body");
        }
        let body = self.read[head_end..end].to_vec();
        self.read.drain(..end);
        Answer { status, head, body }
    }

    /// Whether the server has closed the connection, and said nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let patience = Duration::from_secs(60);
        let more = tokio::time::timeout(patience, self.more()).await;
        !more.expect("closed or answered within a minute")
    }

    async fn more(&mut self) -> bool {
        match self.stream.read_buf(&mut self.read).await {
            Ok(count) => count > 0,
            Err(error) => panic!("reading an answer: {error}"),
        }
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
