//! A server of one's own and the client of it.

use std::time::Duration;

use onrush::config::{Secret, Settings};
use onrush::server::Server;
use queen_mq::{Config, Queen};

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
        let server = Server::start(&settings).await.unwrap();
        let url = format!("http://{}/queen", server.http_addr());
        let queen = Queen::connect(Config::new(url)).unwrap();
        Self { queen, server, _folder: folder }
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.server.stop(Duration::from_secs(10)).await;
    }
}
