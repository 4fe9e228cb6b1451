//! A door between the server and its database that can be slammed in the middle of any byte, shut, or
//! turned into a hole that swallows everything.
//!
//! In: a place to forward to. Out: a port. While it is armed it counts the bytes of one direction over
//! all connections, and where the count is full it cuts every connection, that byte included or not
//! as asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Not armed.
const NEVER: i64 = i64::MAX / 2;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    ToDatabase,
    ToServer,
}

/// What becomes of connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Door {
    Open,
    /// Those that there are end, and new ones as soon as they are made.
    Shut,
    /// None ends, and nothing comes through; what was sent does when it is open again.
    Swallows,
}

/// A running door.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    /// Bytes that may still pass, per direction.
    left: [AtomicI64; 2],
    cuts: AtomicU64,
    /// Changes when all connections are to end.
    era: watch::Sender<u64>,
    door: watch::Sender<Door>,
}

impl Proxy {
    /// Opens a door to `to`.
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let left = [AtomicI64::new(NEVER), AtomicI64::new(NEVER)];
        let (era, door) = (watch::Sender::new(0), watch::Sender::new(Door::Open));
        let shared = Arc::new(Shared { to, left, cuts: AtomicU64::new(0), era, door });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(Arc::clone(&accepting), stream));
            }
        });
        Self { addr, shared }
    }

    /// Cuts everything when `bytes` more have passed in one direction.
    pub(crate) fn cut_after(&self, way: Way, bytes: u64) {
        self.shared.left[way as usize].store(bytes as i64, Ordering::SeqCst);
    }

    /// Lets everything pass.
    pub(crate) fn disarm(&self) {
        self.shared.left.iter().for_each(|left| left.store(NEVER, Ordering::SeqCst));
    }

    /// Does this to all connections from now on.
    pub(crate) fn set(&self, door: Door) {
        self.shared.door.send_replace(door);
    }

    /// How often it has cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

async fn forward(shared: Arc<Shared>, server: TcpStream) {
    let Ok(database) = TcpStream::connect(shared.to).await else { return };
    let mut era = shared.era.subscribe();
    era.mark_unchanged();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_database, mut to_database) = database.into_split();
    tokio::select! {
        () = pump(&shared, Way::ToDatabase, &mut from_server, &mut to_database) => {}
        () = pump(&shared, Way::ToServer, &mut from_database, &mut to_server) => {}
        _ = era.changed() => {}
        () = until(&shared, |door| door == Door::Shut) => {}
    }
}

async fn until(shared: &Shared, is_so: impl Fn(Door) -> bool) {
    // The sender lives as long as we do.
    let _ = shared.door.subscribe().wait_for(|door| is_so(*door)).await;
}

async fn pump(
    shared: &Shared,
    way: Way,
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let Ok(count) = from.read(&mut bytes).await else { return };
        if count == 0 {
            return;
        }
        until(shared, |door| door != Door::Swallows).await;
        let left = shared.left[way as usize].fetch_sub(count as i64, Ordering::SeqCst);
        if left > NEVER / 2 {
            shared.left[way as usize].store(NEVER, Ordering::SeqCst);
        }
        let passes = usize::try_from(left.max(0)).unwrap().min(count);
        if to.write_all(&bytes[..passes]).await.is_err() {
            return;
        }
        if passes < count || left == count as i64 {
            // What has passed is on its way; then all lines go dead at once.
            shared.left[way as usize].store(NEVER, Ordering::SeqCst);
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            shared.era.send_modify(|era| *era += 1);
            return;
        }
    }
}
