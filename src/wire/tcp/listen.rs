//! Accepting connections, up to the limit, until told to stop.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::wire::tcp::Config;
use crate::wire::tcp::connection::Connection;
use crate::wire::tcp::stream::Stream;
use crate::wire::tls::Port;
use crate::wire::{Rooms, opened};

/// Serves connections until `stop` turns true; then answers what is under way and returns when all
/// connections are closed. A connection over the limit is closed at once.
pub async fn serve(
    listener: TcpListener,
    rooms: Arc<Rooms>,
    config: Arc<Config>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file handles, mostly: those that are open go on, and some will close.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(
                limit = config.connections_max,
                "a connection over the limit was closed"
            );
            continue;
        };
        opened::set(&stream);
        let (rooms, config, stop) = (Arc::clone(&rooms), Arc::clone(&config), stop.clone());
        connections.spawn(async move {
            rooms.telemetry.connections.add(1);
            let telemetry = Arc::clone(&rooms.telemetry);
            if let Some(stream) = open(stream, &config).await {
                Connection::new(stream, rooms, config, stop).run().await;
            }
            telemetry.connections.sub(1);
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// A connection's bytes, once both sides have agreed on keys where there are any.
async fn open(stream: TcpStream, config: &Config) -> Option<Stream> {
    match &config.tls {
        None => Some(Stream::Plain(stream)),
        Some(tls) => Stream::encrypted(tls.accept(Port::Tcp, stream).await?).ok(),
    }
}
