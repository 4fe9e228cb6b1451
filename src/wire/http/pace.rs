//! How long a connection may rest, and how long a head may take.
//!
//! In: bytes that come and go, and requests that begin and end. Out: whether the connection should
//! be closed now. A connection that sends nothing between two requests may rest long; one that has
//! begun a head must finish it soon, because a slow head is how one client holds many connections.
//! A request that is served takes as long as it takes. Called by `listen`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::clock::Clock;

const HEAD: u8 = 0;
const RESTING: u8 = 1;
const SERVING: u8 = 2;

/// What a connection is doing, and since when.
pub(super) struct Pace {
    state: AtomicU8,
    since_us: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// How long it may do so, microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaceLimits {
    pub(super) head_us: u64,
    pub(super) idle_us: u64,
}

impl Pace {
    /// A new connection: its first head is due as if it had begun.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let since_us = AtomicU64::new(clock.monotonic_us());
        Self { state: AtomicU8::new(HEAD), since_us, clock }
    }

    /// A head is whole and its request is served; until the returned value is dropped.
    pub(super) fn serve(self: &Arc<Self>) -> Serving {
        self.state.store(SERVING, Ordering::Relaxed);
        Serving(Arc::clone(self))
    }

    /// Whether the connection has had its time.
    pub(super) fn is_over(&self, limits: PaceLimits) -> bool {
        let since = self.clock.monotonic_us().saturating_sub(self.since_us.load(Ordering::Relaxed));
        match self.state.load(Ordering::Relaxed) {
            HEAD => since > limits.head_us,
            RESTING => since > limits.idle_us,
            _ => false,
        }
    }

    fn enter(&self, state: u8) {
        self.since_us.store(self.clock.monotonic_us(), Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
    }

    fn bytes_came(&self) {
        if self.state.load(Ordering::Relaxed) == RESTING {
            self.enter(HEAD);
        }
    }

    /// An answer that is still being taken is no rest, nor is it the time of the next head, which may have
    /// begun to come; one that nobody takes is.
    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        let went = matches!(written, Poll::Ready(Ok(bytes)) if *bytes > 0);
        let state = self.state.load(Ordering::Relaxed);
        if went && state != SERVING {
            self.enter(state);
        }
    }
}

/// A request under way.
pub(super) struct Serving(Arc<Pace>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.enter(RESTING);
    }
}

/// A stream that tells its pace.
pub(super) struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.pace.bytes_came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.pace.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.pace.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::base::clock::ManualClock;

    const LIMITS: PaceLimits = PaceLimits { head_us: 10_000, idle_us: 75_000 };

    #[tokio::test]
    async fn a_connection_may_rest_longer_than_a_head_may_take() {
        let clock = ManualClock::new(0);
        let pace = Arc::new(Pace::new(Arc::new(clock.clone())));
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Paced::new(near, Arc::clone(&pace));
        clock.advance_monotonic_us(10_001);
        assert!(pace.is_over(LIMITS), "a first head that never comes");
        let request = pace.serve();
        clock.advance_monotonic_us(1_000_000);
        assert!(!pace.is_over(LIMITS), "a long poll");
        drop(request);
        clock.advance_monotonic_us(75_000);
        assert!(!pace.is_over(LIMITS), "resting");
        far.write_all(b"G").await.unwrap();
        near.read_u8().await.unwrap();
        clock.advance_monotonic_us(10_000);
        assert!(!pace.is_over(LIMITS), "a head has begun");
        far.write_all(b"E").await.unwrap();
        near.read_u8().await.unwrap();
        clock.advance_monotonic_us(1);
        assert!(pace.is_over(LIMITS), "a head that comes byte by byte");
        drop(pace.serve());
        clock.advance_monotonic_us(75_001);
        assert!(pace.is_over(LIMITS), "rested too long");
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_slowly_is_no_rest_and_one_that_nobody_takes_is() {
        let clock = ManualClock::new(0);
        let pace = Arc::new(Pace::new(Arc::new(clock.clone())));
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Paced::new(near, Arc::clone(&pace));
        drop(pace.serve());
        near.write_all(b"1234").await.unwrap();
        clock.advance_monotonic_us(75_000);
        far.read_u8().await.unwrap();
        near.write_all(b"5").await.unwrap();
        clock.advance_monotonic_us(75_000);
        assert!(!pace.is_over(LIMITS), "a byte went meanwhile");
        let mut write = std::pin::pin!(near.write_all(b"6"));
        let waits = std::future::poll_fn(|context| Poll::Ready(write.as_mut().poll(context)));
        assert!(waits.await.is_pending(), "nobody reads");
        clock.advance_monotonic_us(1);
        assert!(pace.is_over(LIMITS));
    }

    #[tokio::test]
    async fn a_request_that_comes_while_an_answer_is_taken_is_not_late() {
        let clock = ManualClock::new(0);
        let pace = Arc::new(Pace::new(Arc::new(clock.clone())));
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Paced::new(near, Arc::clone(&pace));
        drop(pace.serve());
        near.write_all(b"1").await.unwrap();
        far.write_all(b"G").await.unwrap();
        near.read_u8().await.unwrap();
        clock.advance_monotonic_us(LIMITS.head_us);
        near.write_all(b"2").await.unwrap();
        clock.advance_monotonic_us(LIMITS.head_us);
        assert!(!pace.is_over(LIMITS), "the answer was still going out");
        clock.advance_monotonic_us(1);
        assert!(pace.is_over(LIMITS), "and the head has its time from there");
    }
}
