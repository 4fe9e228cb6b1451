//! The two tasks of a connection: one reads answers, one writes requests.
//!
//! In: a byte stream's two halves. Out: frames at those who wait for them, requests on the wire.
//! Either task ends the whole connection when its half fails. They decide nothing else. Spawned
//! by the handshake.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use onrush_protocol::frame::{self, Frame};
use onrush_protocol::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;

use super::Outgoing;
use super::outbox::Outbox;
use super::pending::Pending;
use crate::error::Error;

/// Fewest bytes offered to one read: many small answers come with one call.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Most requests that are packed before one write begins.
const PACK_REQUESTS_MAX: usize = 256;

/// Reads answers until the stream ends, and then ends the connection.
pub(super) async fn read_answers<R>(mut read: R, mut buffer: BytesMut, pending: Arc<Pending>)
where
    R: AsyncRead + Unpin,
{
    let mut frames = Vec::new();
    let reason = loop {
        if let Err(error) = decode_all(&mut buffer, &mut frames) {
            break error;
        }
        if !frames.is_empty() {
            match pending.deliver(frames.drain(..)) {
                Ok(()) => {}
                Err(reason) => break reason,
            }
        }
        match fill(&mut read, &mut buffer).await {
            Ok(0) => break "the server closed it".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    pending.end(&reason);
}

/// Writes requests until nobody can send any more, then closes this direction.
pub(super) async fn write_requests<W>(
    mut write: W,
    mut queue: UnboundedReceiver<Outgoing>,
    pending: Arc<Pending>,
) where
    W: AsyncWrite + Unpin,
{
    let mut outbox = Outbox::default();
    let mut next = Vec::with_capacity(PACK_REQUESTS_MAX);
    while queue.recv_many(&mut next, PACK_REQUESTS_MAX).await > 0 {
        for outgoing in next.drain(..) {
            outbox.push(outgoing.head);
            outbox.push(outgoing.batch);
        }
        outbox.seal();
        let written = match write.write_all_buf(&mut outbox).await {
            Ok(()) => write.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            pending.end(&error.to_string());
            return;
        }
    }
    // The peer may have gone already; there is nothing left to say either way.
    drop(write.shutdown().await);
}

/// Writes one piece, for the handshake.
pub(super) async fn write_all<W>(write: &mut W, piece: Bytes) -> Result<(), Error>
where
    W: AsyncWrite + Unpin,
{
    let written = match write.write_all(&piece).await {
        Ok(()) => write.flush().await,
        Err(error) => Err(error),
    };
    written.map_err(|error| Error::Disconnected { reason: error.to_string(), sent: false })
}

/// Reads one frame, for the handshake. What follows it stays in `buffer`.
pub(super) async fn read_frame<R>(read: &mut R, buffer: &mut BytesMut) -> Result<Frame, Error>
where
    R: AsyncRead + Unpin,
{
    loop {
        match frame::decode(buffer, FRAME_BYTES_MAX) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(Error::Protocol(error.to_string())),
        }
        let reason = match fill(read, buffer).await {
            Ok(0) => "the server closed it".to_owned(),
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        return Err(Error::Disconnected { reason, sent: false });
    }
}

fn decode_all(buffer: &mut BytesMut, frames: &mut Vec<Frame>) -> Result<(), String> {
    loop {
        match frame::decode(buffer, FRAME_BYTES_MAX) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Reads once, with room for the rest of a frame whose length is known already.
async fn fill<R>(read: &mut R, buffer: &mut BytesMut) -> std::io::Result<usize>
where
    R: AsyncRead + Unpin,
{
    // `decode` has refused lengths above its limit, so this never grows beyond one frame.
    let rest = frame::frame_bytes(buffer).map_or(0, |whole| whole.saturating_sub(buffer.len()));
    buffer.reserve(rest.max(READ_BYTES));
    read.read_buf(buffer).await
}
