//! Accepting HTTP connections, up to the limit, until told to stop.
//!
//! In: a listener. Out: connections that are served, each in a task of its own. When the server
//! stops, requests under way are finished, parked ones get their answer at once, and idle
//! connections close. Called by the server's composition.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::wire::http::pace::{Pace, PaceLimits, Paced};
use crate::wire::http::route::{self, Doors};
use crate::wire::http::table::{self, Rules};
use crate::wire::http::{Api, Config, admin, sampler};
use crate::wire::tls::Port;
use crate::wire::{Rooms, opened};

/// How often the meter takes a sample.
const SAMPLE: Duration = Duration::from_secs(1);

/// Serves until `stop` turns true; then answers what is under way and returns when all connections
/// are closed. A connection over the limit is closed at once.
pub async fn serve(
    listener: TcpListener,
    rooms: Arc<Rooms>,
    config: Arc<Config>,
    mut stop: watch::Receiver<bool>,
) {
    let (root, queen) = Api::pair(Arc::clone(&rooms), Arc::clone(&config), stop.clone());
    let router = admin::router(Arc::clone(&root), Arc::clone(&queen));
    let meter = Arc::clone(&root.meter);
    let rules = Rules::of(&table::labels());
    let doors = Arc::new(Doors { root, queen, router, rules });
    let room = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    let sampling = sampler::run(Arc::clone(&doors.root), stop.clone());
    connections.spawn(sampling);
    let mut samples = tokio::time::interval(SAMPLE);
    samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = samples.tick() => {
                meter.sample(rooms.clock.monotonic_us(), rooms.telemetry.pushed.get());
                note_waiting(&rooms);
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file handles, mostly: those that are open go on, and some will close.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            let limit = config.connections_max;
            tracing::warn!(limit, "a connection over the limit was closed");
            continue;
        };
        let (doors, config, stop) = (Arc::clone(&doors), Arc::clone(&config), stop.clone());
        let telemetry = Arc::clone(&rooms.telemetry);
        connections.spawn(async move {
            telemetry.http_connections.add(1);
            opened::set(&stream);
            match &config.tls {
                None => connection(stream, doors, &config, stop).await,
                Some(tls) => {
                    if let Some(stream) = tls.accept(Port::Http, stream).await {
                        connection(stream, doors, &config, stop).await;
                    }
                }
            }
            telemetry.http_connections.sub(1);
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Since when something waits in the failover log.
fn note_waiting(rooms: &Rooms) {
    let since = &rooms.telemetry.spill_since_ms;
    match rooms.telemetry.spill_waiting.get() {
        0 => since.set(0),
        _ if since.get() == 0 => since.set(rooms.clock.now_ms()),
        _ => {}
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    doors: Arc<Doors>,
    config: &Config,
    mut stop: watch::Receiver<bool>,
) {
    let pace = Arc::new(Pace::new(Arc::clone(&doors.root.rooms.clock)));
    let io = TokioIo::new(Paced::new(stream, Arc::clone(&pace)));
    let served = Arc::clone(&pace);
    let service = service_fn(move |request| {
        let (doors, serving) = (Arc::clone(&doors), served.serve());
        async move {
            let answer = route::handle(&doors, request).await;
            drop(serving);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_header_size(config.header_bytes_max);
    // Our own pace tells a slow head from a resting connection; hyper's timer does not.
    builder.header_read_timeout(None);
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let limits =
        PaceLimits { head_us: micros(config.header_timeout), idle_us: micros(config.idle_timeout) };
    let mut looks = tokio::time::interval((config.header_timeout / 2).max(SAMPLE / 100));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        tokio::select! {
            done = connection.as_mut() => {
                // A client that hung up, or sent what is no HTTP and was told so.
                if let Err(error) = done {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            _ = looks.tick() => {
                if pace.is_over(limits) {
                    return;
                }
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
