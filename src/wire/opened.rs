//! How every socket that was accepted is set, by both doors.
//!
//! In: a socket. Out: the same, which sends at once, and notices some minutes after the other side has
//! gone without a word: a machine that lost its power or its network would hold its connection, and what
//! waits on it, for ever. Called by the two listeners.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A connection that is silent for so long is asked whether it is still there,
const ASKED_AFTER: Duration = Duration::from_secs(60);
/// and again so often, until the system has asked as often as it is set to (9 times on Linux).
const ASKED_EVERY: Duration = Duration::from_secs(15);

/// Sets an accepted socket. What the system does not take is left as it is.
pub(super) fn set(stream: &TcpStream) {
    if let Err(error) = set_all(stream) {
        tracing::debug!(%error, "a connection's socket could not be set");
    }
}

fn set_all(stream: &TcpStream) -> io::Result<()> {
    let asks = TcpKeepalive::new().with_time(ASKED_AFTER).with_interval(ASKED_EVERY);
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&asks)
}
