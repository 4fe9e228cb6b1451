//! KnownMessages: as `Messages`, with who pushed each batch; also the body of `AnyMessages`.
//!
//! A client decodes here; a server writes with [`MessagesWriter`](super::MessagesWriter). The body is that of
//! `Messages`, but for a chunk:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `first_seq` |
//! | 8 | `time_ms` |
//! | 2 + n | `producer`: a long text; of 0 bytes when nobody is known |
//! | 4 + n | `batch` |

use bytes::{BufMut, Bytes, BytesMut};

use super::messages::{SECTION_BYTES_MIN, put_attempts, put_head, put_section_head};
use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_blob, put_count16, put_count32, put_long};
use crate::response::{Messages, MessagesSection};
use crate::text::LongText;

/// Hands messages out, and says who pushed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMessages {
    /// The messages.
    pub messages: Messages,
    /// Who pushed each chunk of each section, in their order, as the server knows it: the name of the token
    /// that it was pushed with. Empty where nobody is known. A chunk without one has an empty one.
    pub producers: Vec<LongText>,
}

impl KnownMessages {
    /// Appends the body. Copies the batches.
    ///
    /// # Panics
    /// Over 65 535 sections; no pop may ask for more.
    pub fn encode(&self, out: &mut BytesMut) {
        let messages = &self.messages;
        let mut producers = self.producers.iter();
        put_head(out, &messages.lease, messages.lease_until_ms);
        put_count16(out, messages.sections.len());
        for section in &messages.sections {
            put_section_head(out, &section.queue, section.partition, &section.partition_name);
            put_count32(out, section.chunks.len());
            for chunk in &section.chunks {
                out.put_u64_le(chunk.first_seq);
                out.put_u64_le(chunk.time_ms);
                put_long(out, producers.next().map(LongText::as_bytes).unwrap_or_default());
                put_blob(out, &chunk.batch);
            }
            put_attempts(out, &section.attempts);
        }
    }

    /// Reads the body. Names and batches share its memory.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let lease = reader.array("lease")?;
        let lease_until_ms = reader.u64("lease_until_ms")?;
        let count = reader.count16("sections", SECTION_BYTES_MIN)?;
        let (mut sections, mut producers) = (Vec::with_capacity(count), Vec::new());
        for _ in 0..count {
            sections.push(MessagesSection::decode(&mut reader, Some(&mut producers))?);
        }
        reader.end()?;
        Ok(Self { messages: Messages { lease, lease_until_ms, sections }, producers })
    }
}
