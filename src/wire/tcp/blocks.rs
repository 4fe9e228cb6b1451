//! What one connection has read and not yet taken, and the blocks that it is read into.
//!
//! In: bytes of a socket. Out: whole frames, as slices of the block that they were read into. Batches
//! in rings, in the log's I/O vectors and in the hot tail are such slices too. When the last of them is
//! gone the block is read into again: under load that saves the kernel clearing a fresh page for every
//! page received (a tenth of the server's time before). Called by `connection`.

use std::collections::VecDeque;

use bytes::BytesMut;
use onrush_protocol::frame;

/// Bytes read at a time: large enough that a system call carries many frames. Only blocks of this size
/// are used again.
const READ_BYTES: usize = 256 * 1024;
/// A new connection's first block; most connections never need more.
const FIRST_READ_BYTES: usize = 8 * 1024;
/// A block is read into until less than this part of it is free.
const FREE_PART: usize = 16;
/// Blocks kept for another turn: at 256 KiB each, as much as the hot tail can hold on to.
const SPENT_MAX: usize = 128;
/// Blocks that are looked at for one that is free: most are, oldest first, but one message that stays
/// long must not keep all others from being used.
const LOOKS: usize = 4;

/// Bytes that were read.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Those that are not taken yet; the rest of its room is read into.
    pub(super) bytes: BytesMut,
    /// Size of the block that `bytes` is in.
    block_bytes: usize,
    /// Blocks of [`READ_BYTES`] that were read into, oldest first.
    spent: VecDeque<BytesMut>,
}

impl Input {
    /// Makes room for a read; before a client is `known` only a little.
    pub(super) fn make_room(&mut self, known: bool) {
        let room = self.bytes.capacity();
        let is_low = room - self.bytes.len() <= self.block_bytes / FREE_PART;
        // The rest of a frame comes to where its beginning is: moving that would copy all of it.
        let begun = frame::frame_bytes(&self.bytes);
        let fits = begun.is_some_and(|bytes| self.bytes.len() < bytes && bytes <= room);
        if is_low && !fits {
            self.renew(if known { READ_BYTES } else { FIRST_READ_BYTES });
        }
    }

    /// Makes room for all of a frame that has begun, whose length was checked.
    pub(super) fn make_room_for_frame(&mut self, known: bool) {
        if let Some(bytes) = frame::frame_bytes(&self.bytes)
            && bytes > self.bytes.capacity()
        {
            self.renew(bytes.max(if known { READ_BYTES } else { FIRST_READ_BYTES }));
        }
    }

    /// Whether it holds more memory than a quiet connection should.
    pub(super) fn is_large(&self) -> bool {
        !self.spent.is_empty() || self.block_bytes > FIRST_READ_BYTES
    }

    /// Lets go of all memory that holds nothing.
    pub(super) fn let_go(&mut self) {
        self.spent = VecDeque::new();
        if self.bytes.is_empty() {
            (self.bytes, self.block_bytes) = (BytesMut::new(), 0);
        }
    }

    /// Goes on in another block of `block_bytes`. What was not taken yet comes along.
    fn renew(&mut self, block_bytes: usize) {
        let mut next = self.block(block_bytes);
        next.extend_from_slice(&self.bytes);
        let mut old = std::mem::replace(&mut self.bytes, next);
        if self.block_bytes == READ_BYTES && self.spent.len() < SPENT_MAX {
            old.clear();
            self.spent.push_back(old);
        }
        self.block_bytes = block_bytes;
    }

    fn block(&mut self, bytes: usize) -> BytesMut {
        let looks = if bytes == READ_BYTES { LOOKS.min(self.spent.len()) } else { 0 };
        for _ in 0..looks {
            let Some(mut oldest) = self.spent.pop_front() else { break };
            // Succeeds when no slice of the block is left.
            if oldest.try_reclaim(bytes) {
                return oldest;
            }
            self.spent.push_back(oldest);
        }
        BytesMut::with_capacity(bytes)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes};
    use onrush_protocol::opcode::Opcode;

    use super::*;

    /// A connection that reads from a stream as much as there is room for and takes the frames off, as
    /// `connection` does.
    #[derive(Default)]
    struct Reader {
        input: Input,
        reads: usize,
    }

    impl Reader {
        fn read(&mut self, stream: &mut &[u8], most: usize) -> Vec<Bytes> {
            self.input.make_room(true);
            let bytes = &mut self.input.bytes;
            let room = bytes.capacity() - bytes.len();
            assert!(room > 0, "a read without room looks like the stream's end");
            let (now, later) = stream.split_at(room.min(most).min(stream.len()));
            bytes.put_slice(now);
            *stream = later;
            self.reads += 1;
            let mut bodies = Vec::new();
            while let Some(frame) = frame::decode(&mut self.input.bytes, 16 << 20).unwrap() {
                bodies.push(frame.body);
            }
            self.input.make_room_for_frame(true);
            bodies
        }

        /// Blocks that it keeps or is in.
        fn blocks(&self) -> usize {
            self.input.spent.len() + 1
        }
    }

    fn frames(bytes: usize, count: usize) -> Vec<u8> {
        let mut out = BytesMut::new();
        for _ in 0..count {
            frame::encode(Opcode::Push.number(), 1, &mut out, |out| out.put_bytes(7, bytes));
        }
        out.to_vec()
    }

    #[test]
    fn blocks_are_used_again_once_nothing_refers_to_them() {
        let mut reader = Reader::default();
        let stream = frames(1000, 40_000);
        let mut rest = &stream[..];
        let mut held: VecDeque<Vec<Bytes>> = VecDeque::new();
        while !rest.is_empty() {
            held.push_back(reader.read(&mut rest, usize::MAX));
            // As a commit later: what came before the last two reads is done with.
            if held.len() > 2 {
                held.pop_front();
            }
        }
        assert!(stream.len() > 100 * READ_BYTES && reader.reads > 100);
        assert!(reader.blocks() <= 4, "{} blocks for {} reads", reader.blocks(), reader.reads);
    }

    #[test]
    fn one_message_that_stays_does_not_keep_other_blocks_from_being_used() {
        let mut reader = Reader::default();
        let stream = frames(1000, 20_000);
        let mut rest = &stream[..];
        let mut stays = Vec::new();
        while !rest.is_empty() {
            let bodies = reader.read(&mut rest, usize::MAX);
            if stays.len() < 3 {
                stays.extend(bodies.last().cloned());
            }
        }
        assert!(reader.blocks() <= 6, "{}", reader.blocks());
    }

    #[test]
    fn a_quiet_connection_lets_go_and_blocks_are_used_again_afterwards() {
        let mut reader = Reader::default();
        let stream = frames(1000, 2_000);
        for _ in 0..2 {
            let mut rest = &stream[..];
            while !rest.is_empty() {
                reader.read(&mut rest, usize::MAX);
            }
            assert!(reader.input.is_large() && reader.blocks() <= 3, "{}", reader.blocks());
            reader.input.let_go();
            assert!(!reader.input.is_large() && reader.input.bytes.capacity() == 0);
        }
    }

    #[test]
    fn the_blocks_of_large_frames_are_not_kept_and_their_bytes_are_not_moved() {
        let mut reader = Reader::default();
        let stream = frames(3 << 20, 4);
        let mut rest = &stream[..];
        let mut taken = 0;
        while !rest.is_empty() {
            let Input { bytes, block_bytes, .. } = &reader.input;
            let (before, is_inside) =
                (bytes.as_ptr(), *block_bytes > READ_BYTES && !bytes.is_empty());
            let now = reader.read(&mut rest, 100_000).len();
            if is_inside && now == 0 {
                assert_eq!(reader.input.bytes.as_ptr(), before);
            }
            taken += now;
        }
        assert_eq!(taken, 4);
        assert!(reader.input.spent.iter().all(|block| block.capacity() <= READ_BYTES));
        assert!(reader.blocks() <= 2, "{}", reader.blocks());
    }

    #[test]
    fn a_slow_sender_that_nobody_knows_yet_gets_one_small_block() {
        let mut input = Input::default();
        for at in 0..FIRST_READ_BYTES - 1024 {
            input.make_room(false);
            input.bytes.put_u8(0xff);
            assert_eq!((input.bytes.len(), input.block_bytes), (at + 1, FIRST_READ_BYTES));
        }
        assert!(input.spent.is_empty() && !input.is_large());
    }
}
