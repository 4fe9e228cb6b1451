//! A request's body: as large as allowed, as fast as allowed, or refused.
//!
//! In: a body that is still coming. Out: all of it in one piece, or a refusal: 413 as soon as its
//! announced or real size passes the limit, before more of it is kept; 408 when it comes slower
//! than any real link, because a slow body is how one client holds many connections. Called by
//! `route`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use onrush_protocol::code::Code;
use tokio::time::timeout;

use crate::base::clock::Clock;
use crate::wire::http::status::{Failure, TOO_LARGE};

/// Reserved at once for a body that announces its size; what is larger grows as it comes.
const RESERVED_BYTES_MAX: usize = 256 * 1024;
/// A refused body goes on being read for this long and no longer, so that its client gets to
/// read the refusal instead of a reset.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes per second that a body must bring on average, once its time of grace is over.
const BYTES_PER_SECOND_MIN: u64 = 64 * 1024;

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Bytes.
    pub(super) bytes_max: usize,
    /// How long it may take whatever its size.
    pub(super) grace: Duration,
}

/// Reads a whole body. `will_wait` tells that its client waits for our consent before it sends any.
pub(super) async fn read(
    body: Incoming,
    limits: BodyLimits,
    will_wait: bool,
    clock: &dyn Clock,
) -> Result<Bytes, Failure> {
    let announced = body.size_hint().lower();
    if announced > limits.bytes_max as u64 {
        if !will_wait {
            tokio::spawn(linger(body));
        }
        return Err(too_large(limits.bytes_max));
    }
    collect(body, announced as usize, limits, clock).await
}

async fn collect(
    mut body: Incoming,
    announced: usize,
    limits: BodyLimits,
    clock: &dyn Clock,
) -> Result<Bytes, Failure> {
    let bytes_max = limits.bytes_max;
    let started_us = clock.monotonic_us();
    let mut whole = BytesMut::new();
    loop {
        let spent = Duration::from_micros(clock.monotonic_us().saturating_sub(started_us));
        let left = allowed(limits.grace, whole.len() as u64).saturating_sub(spent);
        let Ok(frame) = timeout(left, body.frame()).await else { return Err(too_slow()) };
        let Some(frame) = frame else { break };
        let frame =
            frame.map_err(|error| Failure::malformed(format!("the body ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.is_empty() && data.len() == announced {
            // In one piece, as most are: no copy.
            return Ok(data);
        }
        if whole.len() + data.len() > bytes_max {
            tokio::spawn(linger(body));
            return Err(too_large(bytes_max));
        }
        if whole.is_empty() {
            whole.reserve(announced.min(RESERVED_BYTES_MAX));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// How long a body may have taken when this much of it is there.
fn allowed(grace: Duration, bytes: u64) -> Duration {
    grace + Duration::from_millis(bytes * 1000 / BYTES_PER_SECOND_MIN)
}

fn too_slow() -> Failure {
    let message = "the body did not come in time";
    Failure::of_http(StatusCode::REQUEST_TIMEOUT, "timed_out", message)
}

fn too_large(bytes_max: usize) -> Failure {
    Failure::new(Code::MessageTooLarge, TOO_LARGE).limit(bytes_max as u64)
}

/// Throws away what still comes.
async fn linger(mut body: Incoming) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever sends longer than that is cut off.
    let _ = timeout(LINGER, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_keeps_coming_may_take_long_and_one_that_trickles_may_not() {
        let grace = Duration::from_secs(30);
        assert_eq!(allowed(grace, 0), grace);
        assert_eq!(allowed(grace, 64 << 20), Duration::from_secs(30 + 1024));
        assert!(allowed(grace, 100) < Duration::from_secs(31), "a byte now and then");
    }
}
