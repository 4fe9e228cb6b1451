//! Bytes on their way out: many frames as one buffer that one `writev` can take.
//!
//! In: heads of frames and the batches that follow them. Out: a [`Buf`] whose slices are theirs,
//! so that no batch is copied; small pieces are packed together, because a slice of its own costs
//! the kernel more than copying it. Called by the writer task alone.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Pieces up to this many bytes are copied into one slice with their neighbours.
const PACK_BYTES_MAX: usize = 4096;

/// A queue of slices that are written in order.
#[derive(Default)]
pub(super) struct Outbox {
    slices: VecDeque<Bytes>,
    packed: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Adds a piece behind all others.
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.bytes += piece.len();
        if piece.len() <= PACK_BYTES_MAX {
            self.packed.extend_from_slice(&piece);
        } else {
            self.seal();
            self.slices.push_back(piece);
        }
    }

    /// Ends the packed piece, so that everything stands in `slices`. Call before writing.
    pub(super) fn seal(&mut self) {
        if !self.packed.is_empty() {
            self.slices.push_back(self.packed.split().freeze());
        }
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.slices.front().map(Bytes::as_ref).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (place, slice) in out.iter_mut().zip(&self.slices) {
            *place = IoSlice::new(slice);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.bytes, "nobody writes more than there is");
        self.bytes = self.bytes.saturating_sub(count);
        while count > 0 {
            let Some(front) = self.slices.front_mut() else { return };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_whatever_the_writer_takes() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for (index, bytes) in [3, PACK_BYTES_MAX, PACK_BYTES_MAX + 1, 1, 9000].iter().enumerate() {
            let piece = vec![index as u8; *bytes];
            expected.extend_from_slice(&piece);
            outbox.push(Bytes::from(piece));
        }
        outbox.seal();
        let mut written = Vec::new();
        for step in (1..).map(|n| n * 7) {
            if !outbox.has_remaining() {
                break;
            }
            let mut slices = [IoSlice::new(&[]); 64];
            let count = outbox.chunks_vectored(&mut slices);
            let all: Vec<u8> =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            assert_eq!(all.len(), outbox.remaining());
            let taken = step.min(all.len());
            written.extend_from_slice(&all[..taken]);
            outbox.advance(taken);
        }
        assert_eq!(written, expected);
    }

    #[test]
    fn small_pieces_share_one_slice() {
        let mut outbox = Outbox::default();
        for _ in 0..10 {
            outbox.push(Bytes::from_static(b"frame"));
        }
        outbox.seal();
        assert_eq!(outbox.slices.len(), 1);
        assert_eq!(outbox.remaining(), 50);
    }
}
