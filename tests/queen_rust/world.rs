//! A server of one's own and the client of it; `ONRUSH_TEST_STORE` says on which store.

#[path = "../support/store.rs"]
pub(crate) mod store;

use std::time::Duration;

use onrush::config::{Secret, Settings};
use onrush::server::Server;
use queen_mq::{Config, Queen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running server, on a folder that goes with it.
pub(crate) struct World {
    pub(crate) queen: Queen,
    pub(crate) server: Server,
    _folder: tempfile::TempDir,
}

impl World {
    /// A server with the defaults, and the client as its own manual has it.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with settings of its own.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
        settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
        settings.server.data_dir = folder.path().to_owned();
        settings.store.segment_bytes = 8 << 20;
        settings.encryption.key = Secret::new("7e".repeat(32));
        change(&mut settings);
        store::choose(&mut settings);
        let server = Server::start(&settings).await.unwrap();
        let queen = Queen::connect(Config::new(url_of(&server))).unwrap();
        Self { queen, server, _folder: folder }
    }

    /// Where the server answers this client.
    pub(crate) fn url(&self) -> String {
        url_of(&self.server)
    }

    /// Sends a request that the client has no call for, under `/queen`; the whole answer.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.server.http_addr()).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} /queen{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.server.stop(Duration::from_secs(10)).await;
    }
}

fn url_of(server: &Server) -> String {
    format!("http://{}/queen", server.http_addr())
}
