//! A server in this process, on ports of its own and a folder of its own.

#[path = "store.rs"]
pub(crate) mod store;

use std::time::Duration;

use onrush::config::Settings;
use onrush::server::Server;
use onrush_client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server for one test; stopped in order at its end, or cut off when dropped.
pub(crate) struct TestServer {
    server: Option<Server>,
    folder: tempfile::TempDir,
    settings: Settings,
}

impl TestServer {
    /// A server with default settings.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server with some settings changed.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
        settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
        settings.server.data_dir = folder.path().join("data");
        // Small files, so that a test costs no gigabyte of disk.
        settings.store.segment_bytes = 8 << 20;
        change(&mut settings);
        store::choose(&mut settings);
        let server = Server::start(&settings).await.unwrap();
        Self { server: Some(server), folder, settings }
    }

    #[allow(dead_code, reason = "not every test looks behind the doors")]
    pub(crate) fn rooms(&self) -> &std::sync::Arc<onrush::wire::Rooms> {
        self.running().rooms()
    }

    fn running(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// A client of its binary port.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.running().tcp_addr().to_string()).await.unwrap()
    }

    /// `http://127.0.0.1:port`.
    #[allow(dead_code, reason = "not every test speaks HTTP")]
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.running().http_addr())
    }

    /// Dead letters of a queue as the HTTP door tells them.
    #[allow(dead_code, reason = "not every test has dead letters")]
    pub(crate) async fn dead_letters(&self, queue: &str) -> Vec<serde_json::Value> {
        let url = self.url();
        let address = url.trim_start_matches("http://").to_owned();
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "GET /api/v1/dlq?queue={queue} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["messages"].as_array().unwrap().clone()
    }

    /// Its binary port.
    #[allow(dead_code, reason = "not every test speaks the protocol by hand")]
    pub(crate) fn tcp_addr(&self) -> std::net::SocketAddr {
        self.running().tcp_addr()
    }

    /// Stops it in order and starts it again on the same folder, on new ports.
    #[allow(dead_code, reason = "not every test restarts")]
    pub(crate) async fn restart(mut self) -> Self {
        self.server.take().unwrap().stop(Duration::from_secs(10)).await;
        let server = Server::start(&self.settings).await.unwrap();
        Self { server: Some(server), folder: self.folder, settings: self.settings }
    }

    /// Stops it in order; [`Self::start_again`] starts it on the same folder.
    #[allow(dead_code, reason = "not every test does something between")]
    pub(crate) async fn stop_and_keep(mut self) -> (Settings, tempfile::TempDir) {
        self.server.take().unwrap().stop(Duration::from_secs(10)).await;
        (self.settings, self.folder)
    }

    /// Starts what was stopped, on new ports.
    #[allow(dead_code, reason = "not every test does something between")]
    pub(crate) async fn start_again(settings: Settings, folder: tempfile::TempDir) -> Self {
        let server = Server::start(&settings).await.unwrap();
        Self { server: Some(server), folder, settings }
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) {
        self.server.take().unwrap().stop(Duration::from_secs(10)).await;
    }
}
