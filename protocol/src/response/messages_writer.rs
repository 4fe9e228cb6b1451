//! Writes a frame of messages as a rope, so that a server never copies payloads.
//!
//! In: sections, chunks and attempts, in the order of the wire. Out: a list of [`Bytes`] that,
//! written one after the other, are the frame: small pieces of our own between the batches as
//! they lie in the log or the hot tail. Called by the server's dispatch.

use bytes::{BufMut, Bytes, BytesMut};

use super::messages::{Attempts, put_attempts, put_head, put_section_head};
use crate::LeaseToken;
use crate::frame;
use crate::limits::FRAME_HEADER_BYTES;
use crate::name::{PartitionName, QueueName};
use crate::opcode::Opcode;
use crate::primitive::{put_count32, put_long};
use crate::text::LongText;

/// Where the count of sections stands: after the frame's header, the lease and its end.
const COUNT_AT: usize = FRAME_HEADER_BYTES + 16 + 8;

/// Which answer carries the messages; they differ in their opcode and in what a chunk says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessagesKind {
    /// `Messages`.
    #[default]
    Plain,
    /// `KnownMessages`: each chunk says who pushed it.
    Known,
    /// `AnyMessages`: as `Known`.
    Any,
}

impl MessagesKind {
    /// The answer's opcode.
    #[must_use]
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Plain => Opcode::Messages,
            Self::Known => Opcode::KnownMessages,
            Self::Any => Opcode::AnyMessages,
        }
    }
}

/// A frame of messages in the making.
#[derive(Debug)]
pub struct MessagesWriter {
    kind: MessagesKind,
    /// All that is not a batch, with the counts still to be filled in.
    head: BytesMut,
    /// The batches, each with the place in `head` that it comes after.
    batches: Vec<(usize, Bytes)>,
    batches_bytes: usize,
    sections: u16,
}

/// One section in the making; [`Self::end`] completes it.
#[derive(Debug)]
#[must_use = "a section counts once it is ended"]
pub struct SectionWriter<'a> {
    writer: &'a mut MessagesWriter,
    /// Where the section began, to take it back.
    head_from: usize,
    batches_from: usize,
    /// Where the count of chunks stands.
    chunks_at: usize,
    chunks: u32,
    is_ended: bool,
}

impl MessagesWriter {
    /// A frame without sections.
    #[must_use]
    pub fn new(kind: MessagesKind, lease: &LeaseToken, lease_until_ms: u64) -> Self {
        let mut head = BytesMut::with_capacity(256);
        head.put_slice(&[0; FRAME_HEADER_BYTES]);
        put_head(&mut head, lease, lease_until_ms);
        head.put_u16_le(0);
        Self { kind, head, batches: Vec::new(), batches_bytes: 0, sections: 0 }
    }

    /// Begins a section. A section that is dropped without an [`end`](SectionWriter::end) is
    /// taken back whole.
    pub fn section(
        &mut self,
        queue: &QueueName,
        partition: u32,
        partition_name: &PartitionName,
    ) -> SectionWriter<'_> {
        let (head_from, batches_from) = (self.head.len(), self.batches.len());
        put_section_head(&mut self.head, queue, partition, partition_name);
        let chunks_at = self.head.len();
        self.head.put_u32_le(0);
        SectionWriter {
            writer: self,
            head_from,
            batches_from,
            chunks_at,
            chunks: 0,
            is_ended: false,
        }
    }

    /// How many sections are complete.
    #[must_use]
    pub fn sections(&self) -> u16 {
        self.sections
    }

    /// How many bytes the frame would have now, its header included.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.head.len() + self.batches_bytes
    }

    /// The frame as pieces to be written one after the other. The batches are the very `Bytes`
    /// that were given.
    ///
    /// # Panics
    /// Over 4 GiB; [`Self::frame_bytes`] shows how large it has become.
    #[must_use]
    pub fn finish(mut self, request_id: u64) -> Vec<Bytes> {
        let body_bytes = self.frame_bytes() - FRAME_HEADER_BYTES;
        let header = frame::header(self.kind.opcode().number(), request_id, body_bytes);
        self.fill(0, &header);
        let sections = self.sections.to_le_bytes();
        self.fill(COUNT_AT, &sections);
        let head = self.head.freeze();
        let mut pieces = Vec::with_capacity(2 * self.batches.len() + 1);
        let mut from = 0;
        for (to, batch) in self.batches {
            pieces.push(head.slice(from..to));
            pieces.push(batch);
            from = to;
        }
        if from < head.len() {
            pieces.push(head.slice(from..));
        }
        pieces
    }

    /// Fills in what was left open at `at`.
    fn fill(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl SectionWriter<'_> {
    /// Adds a batch, whose first record has the sequence number `first_seq`. Who pushed it is said where
    /// the answer has a place for that, cut at 4096 bytes.
    ///
    /// # Panics
    /// Over 4 GiB of batch; limits end long before.
    pub fn chunk(&mut self, first_seq: u64, time_ms: u64, producer: &str, batch: Bytes) {
        let head = &mut self.writer.head;
        head.put_u64_le(first_seq);
        head.put_u64_le(time_ms);
        if self.writer.kind != MessagesKind::Plain {
            put_long(head, LongText::lossy(producer).as_bytes());
        }
        put_count32(head, batch.len());
        self.writer.batches_bytes += batch.len();
        self.writer.batches.push((self.writer.head.len(), batch));
        self.chunks += 1;
    }

    /// Ends the section with the attempts of its messages that were tried before.
    ///
    /// # Panics
    /// At the 65 536th section; no pop may ask for so many.
    pub fn end(mut self, attempts: &[Attempts]) {
        put_attempts(&mut self.writer.head, attempts);
        let (at, chunks) = (self.chunks_at, self.chunks.to_le_bytes());
        self.writer.fill(at, &chunks);
        self.writer.sections =
            self.writer.sections.checked_add(1).expect("at most 65 535 sections in one answer");
        self.is_ended = true;
    }
}

impl Drop for SectionWriter<'_> {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        self.writer.head.truncate(self.head_from);
        for (_, batch) in self.writer.batches.drain(self.batches_from..) {
            self.writer.batches_bytes -= batch.len();
        }
    }
}
