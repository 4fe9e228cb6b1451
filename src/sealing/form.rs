//! The form of a sealed payload: its bytes, and the way there and back for a whole batch.
//!
//! In: a batch, the place that it is for, keys that are ready. Out: the same batch with every payload
//! sealed, or opened again. Each payload is sealed for itself, so a batch can be cut and a message be
//! kept alone without a key. Pure. Called by the ring.
//!
//! ```text
//! u8 version = 1 | u32 key | 16 salt | u32 counter | ciphertext | 16 tag
//! ```
//!
//! A key seals under a salt of its own choosing (HKDF-SHA256) with the counter as nonce, which never
//! comes twice under one salt. What is authenticated beside the payload: version, key, queue,
//! partition, and everything of the record that stands in clear.

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use bytes::{BufMut, BytesMut};
use onrush_protocol::batch::{Record, RecordBatch};
use onrush_protocol::limits::BATCH_BYTES_MAX;

use super::key::{KeyId, SALT_BYTES, Salt};
use super::{OpenError, SealError};
use crate::base::place::QueueId;

const VERSION: u8 = 1;
/// Bytes before the ciphertext.
const HEAD_BYTES: usize = 1 + 4 + SALT_BYTES + 4;
const TAG_BYTES: usize = 16;
/// How many bytes a message grows by.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;
/// Bytes of the largest batch once it is sealed: a batch of very many very small messages outgrows it,
/// and is refused before it could be too large for a log.
pub(super) const SEALED_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// What a message is sealed for: nowhere else does it open.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The queue, by the number that is never given again.
    pub queue: QueueId,
    /// The partition's name.
    pub partition: &'a str,
}

/// A key that seals, and what is written beside what it sealed.
pub(super) struct Sealer<'a> {
    pub(super) id: KeyId,
    pub(super) salt: &'a Salt,
    pub(super) key: &'a LessSafeKey,
    /// The counter of the first record; as many are its own as there are records.
    pub(super) counter: u32,
}

/// Bytes of a batch once it is sealed.
pub(super) fn sealed_bytes(batch: &RecordBatch) -> usize {
    batch.bytes().len() + OVERHEAD_BYTES * batch.count() as usize
}

/// Seals every payload.
pub(super) fn seal(
    sealer: &Sealer<'_>,
    place: Place<'_>,
    batch: &RecordBatch,
) -> Result<RecordBatch, SealError> {
    let mut bound = Bound::new(place);
    let mut counter = sealer.counter;
    let sealed = batch.rewrite(true, sealed_bytes(batch), |record, out| {
        out.put_u8(VERSION);
        out.put_u32_le(sealer.id.0);
        out.put_slice(sealer.salt);
        out.put_u32_le(counter);
        let from = out.len();
        out.put_slice(record.payload);
        let (nonce, aad) = (nonce(counter), bound.to(sealer.id, record));
        let text = out.get_mut(from..).unwrap_or_default();
        let tag = sealer.key.seal_in_place_separate_tag(nonce, aad, text);
        out.put_slice(tag.map_err(|_| SealError::Failed)?.as_ref());
        counter = counter.wrapping_add(1);
        Ok(())
    });
    sealed.map_err(|(_, error)| error)
}

/// Opens every payload; `key` knows the keys. Fails with the index of the first that does not open.
pub(super) fn open<K: AsRef<LessSafeKey>>(
    place: Place<'_>,
    batch: &RecordBatch,
    key: impl Fn(KeyId, &Salt) -> Result<K, OpenError>,
) -> Result<RecordBatch, (u32, OpenError)> {
    let mut bound = Bound::new(place);
    // Messages that were sealed one after the other share their key.
    let mut held: Option<((KeyId, Salt), K)> = None;
    batch.rewrite(false, batch.bytes().len(), |record, out| {
        let Head { id, salt, counter, sealed } = Head::read(record.payload)?;
        let held = match held.take() {
            Some(known) if known.0 == (id, salt) => held.insert(known),
            _ => held.insert(((id, salt), key(id, &salt)?)),
        };
        let from = out.len();
        out.put_slice(sealed);
        let (nonce, aad) = (nonce(counter), bound.to(id, record));
        let text = out.get_mut(from..).unwrap_or_default();
        let opened = held.1.as_ref().open_in_place(nonce, aad, text);
        let end = from + opened.map_err(|_| OpenError::Broken(id))?.len();
        out.truncate(end);
        Ok(())
    })
}

/// What stands before a ciphertext.
struct Head<'a> {
    id: KeyId,
    salt: Salt,
    counter: u32,
    /// Ciphertext and tag.
    sealed: &'a [u8],
}

impl<'a> Head<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, OpenError> {
        let cut_off = OpenError::Malformed("it is cut off");
        let (version, rest) = payload.split_first().ok_or(cut_off)?;
        if *version != VERSION {
            return Err(OpenError::Malformed("its form is unknown"));
        }
        let (id, rest) = rest.split_first_chunk().ok_or(cut_off)?;
        let (salt, rest) = rest.split_first_chunk().ok_or(cut_off)?;
        let (counter, sealed) = rest.split_first_chunk().ok_or(cut_off)?;
        let (id, counter) = (KeyId(u32::from_le_bytes(*id)), u32::from_le_bytes(*counter));
        Ok(Self { id, salt: *salt, counter, sealed })
    }
}

fn nonce(counter: u32) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let (place, _) = bytes.split_at_mut(4);
    place.copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What is authenticated beside a payload; one buffer for a whole batch.
struct Bound {
    bytes: BytesMut,
    /// Bytes that all records share.
    shared: usize,
}

impl Bound {
    fn new(place: Place<'_>) -> Self {
        let name = place.partition.as_bytes();
        let mut bytes = BytesMut::with_capacity(64 + name.len());
        bytes.put_u8(VERSION);
        bytes.put_u32_le(place.queue);
        // With its length, so that no other name and record give the same bytes.
        bytes.put_u32_le(name.len() as u32);
        bytes.put_slice(name);
        let shared = bytes.len();
        Self { bytes, shared }
    }

    fn to(&mut self, id: KeyId, record: &Record<'_>) -> Aad<&[u8]> {
        self.bytes.truncate(self.shared);
        self.bytes.put_u32_le(id.0);
        self.bytes.put_slice(record.clear);
        Aad::from(&self.bytes)
    }
}
