//! A request's body: as large as allowed, as fast as allowed, or refused.
//!
//! In: a body that is still coming. Out: all of it in one piece, or a refusal: 413 as soon as its
//! announced or real size passes the limit, before more of it is kept; 408 when it does not come
//! in time. Called by `route`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use onrush_protocol::code::Code;
use tokio::time::timeout;

use crate::wire::http::status::{Failure, TOO_LARGE};

/// Reserved at once for a body that announces its size; what is larger grows as it comes.
const RESERVED_BYTES_MAX: usize = 256 * 1024;
/// A refused body goes on being read for this long and no longer, so that its client gets to
/// read the refusal instead of a reset.
const LINGER: Duration = Duration::from_secs(2);

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Bytes.
    pub(super) bytes_max: usize,
    /// From the end of the head to the end of the body.
    pub(super) time: Duration,
}

/// Reads a whole body. `will_wait` tells that its client waits for our consent before it sends any.
pub(super) async fn read(
    body: Incoming,
    limits: BodyLimits,
    will_wait: bool,
) -> Result<Bytes, Failure> {
    let announced = body.size_hint().lower();
    if announced > limits.bytes_max as u64 {
        if !will_wait {
            tokio::spawn(linger(body));
        }
        return Err(too_large(limits.bytes_max));
    }
    match timeout(limits.time, collect(body, announced as usize, limits.bytes_max)).await {
        Ok(collected) => collected,
        Err(_) => Err(Failure::of_http(
            StatusCode::REQUEST_TIMEOUT,
            "timed_out",
            "the body did not come in time",
        )),
    }
}

async fn collect(mut body: Incoming, announced: usize, bytes_max: usize) -> Result<Bytes, Failure> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
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

fn too_large(bytes_max: usize) -> Failure {
    Failure::new(Code::MessageTooLarge, TOO_LARGE).limit(bytes_max as u64)
}

/// Throws away what still comes.
async fn linger(mut body: Incoming) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever sends longer than that is cut off.
    let _ = timeout(LINGER, rest).await;
}
