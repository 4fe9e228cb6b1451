//! What a connection has to write, and how far it is.
//!
//! In: frames in parts that share the batches' memory. Out: as much as the socket takes. Called by
//! `connection`.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};

use bytes::{Buf, Bytes};

use crate::wire::tcp::stream::Stream;

/// Parts of one vectored write; more than the kernel takes at once would be of no use.
const WRITE_PARTS_MAX: usize = 256;

/// Parts on their way to the socket.
#[derive(Debug)]
pub(super) struct Output {
    parts: VecDeque<Bytes>,
    bytes: usize,
    has_left: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { parts: VecDeque::new(), bytes: 0, has_left: true }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether everything is on its way.
    pub(super) fn is_written(&self) -> bool {
        self.is_empty() && self.has_left
    }

    pub(super) fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    /// Takes what `from` puts behind the parts; it returns how many bytes that is.
    pub(super) fn take(&mut self, from: impl FnOnce(&mut VecDeque<Bytes>) -> usize) {
        self.bytes += from(&mut self.parts);
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// Where the other side is gone.
    pub(super) fn write(&mut self, stream: &mut Stream) -> Result<(), ()> {
        while !self.parts.is_empty() {
            let parts: smallvec::SmallVec<[IoSlice<'_>; 16]> =
                self.parts.iter().take(WRITE_PARTS_MAX).map(|part| IoSlice::new(part)).collect();
            let result = stream.try_write(&parts);
            drop(parts);
            match result {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(()),
            }
        }
        self.has_left = stream.try_flush().map_err(|_| ())?;
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(part) = self.parts.front_mut() {
            if part.len() > written {
                part.advance(written);
                return;
            }
            written -= part.len();
            self.parts.pop_front();
        }
    }
}
