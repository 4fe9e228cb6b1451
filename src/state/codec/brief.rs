//! Entries without their batches: what another engine has to know of them. Applying an entry takes no
//! payload, and one of 100 messages is 100 times as long as what is said about it.
//!
//! A brief is the entry with the batches of Append and Relocate left out; headers still say how long
//! each effect is in the log, for the places that follow from it.

use bytes::{Bytes, BytesMut};

use super::{
    EFFECT_HEADER, EntryError, Rope, TAG_APPEND, TAG_RELOCATE, decode_each, decode_effect,
    effect_header, of_chunk, read_chunk_start,
};
use crate::state::effect::{Effect, Entry};

/// An entry's brief; `None` where there is little to leave out.
#[must_use]
pub fn encode_brief(entry: &Entry) -> Option<Bytes> {
    let batches = entry.effects.iter().map(|effect| match effect {
        Effect::Append { batch, .. } | Effect::Relocate { batch, .. } => batch.len(),
        _ => 0,
    });
    let left_out: usize = batches.sum();
    let parts = Rope::new(true).entry(entry);
    let mut brief = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| brief.extend_from_slice(part));
    (left_out > brief.len()).then(|| brief.freeze())
}

/// Decodes a brief: the entry, its batches empty, and how many bytes each effect has in the log.
///
/// # Errors
/// [`EntryError`] where the bytes are not what [`encode_brief`] writes.
pub fn decode_brief(bytes: Bytes) -> Result<(Entry, Vec<u32>), EntryError> {
    let mut lens = Vec::new();
    let entry = decode_each(bytes, |bytes| {
        let (tag, flags, len) = effect_header(bytes)?;
        lens.push(len.saturating_add(EFFECT_HEADER) as u32);
        if tag == TAG_APPEND || tag == TAG_RELOCATE {
            let (chunk, fingerprints) = read_chunk_start(flags, bytes)?;
            return Ok(of_chunk(tag, chunk, fingerprints));
        }
        if len > bytes.len() {
            return Err(EntryError { field: "effect length", problem: "past the entry's end" });
        }
        decode_effect(tag, flags, &mut bytes.split_to(len))
    })?;
    Ok((entry, lens))
}
