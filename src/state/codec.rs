//! The byte form of entries: what a log stores for a shard.
//!
//! In: an [`Entry`]; out: a rope in which batches stand as the slices that arrived. Back from bytes
//! without copying them. Pure. Called by `shard` around every append and read.
//!
//! ```text
//! entry   u64 time_ms | u64 engine | u64 append | u32 effects | u32 0           32 bytes
//! effect  u8 tag | u8 flags | u16 0 | u32 body_len | body                      8 + body
//! body of Append and Relocate
//!         u32 partition | u32 count | u64 first_seq | u64 time_ms
//!         [u8 length | who pushed it, if flags bit 1]
//!         [16 × count fingerprints, if flags bit 0] | record batch
//! ```
//!
//! A batch's place in the log is its whole effect, so that sequence and time are read with it; a
//! run's place is one such effect or several that stand in a row.

mod brief;
mod letters;
mod states;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::base::place::PartitionNumber;
use crate::state::effect::{
    Effect, Entry, GroupStart, LeaseToken, Maintenance, Origin, ProducerSub, Progress, Sequence,
    SpillId,
};
use crate::state::queries::QueryDefinition;
use crate::state::{care, rows};

pub use self::brief::{decode_brief, encode_brief};
pub use self::letters::decode_dead;

/// Bytes before an entry's first effect.
pub const ENTRY_HEADER: usize = 32;
const EFFECT_HEADER: usize = 8;
const CHUNK_HEADER: usize = 24;
/// One move of a seek.
const SEEK_BYTES: usize = 4 + 8;
/// Owner, partition, and length of the key.
const STATE_HEADER: usize = 4 + 4 + 2;

/// Batches up to this size are copied behind their header: at 150 bytes a message, an I/O vector of
/// its own costs the kernel more than the copy costs us (measured by `benches/state.rs`).
const COPY_BYTES_MAX: usize = 1024;

const TAG_CREATE_PARTITION: u8 = 1;
const TAG_APPEND: u8 = 2;
const TAG_RELOCATE: u8 = 3;
const TAG_REGISTER_GROUP: u8 = 4;
const TAG_LEASE: u8 = 5;
const TAG_EXTEND: u8 = 6;
const TAG_SETTLE: u8 = 7;
const TAG_BURY: u8 = 8;
const TAG_TRIM: u8 = 9;
const TAG_DROP_QUEUE: u8 = 10;
const TAG_DEFINE_QUEUE: u8 = 11;
const TAG_FORGET_QUEUE: u8 = 12;
const TAG_DEFINE_GROUP: u8 = 13;
const TAG_REPLAYED: u8 = 14;
const TAG_MAINTAIN: u8 = 15;
const TAG_PROJECT: u8 = 16;
const TAG_SEEK: u8 = 25;
const TAG_DROP_GROUP: u8 = 26;
const TAG_FORGET_GROUP: u8 = 27;
const TAG_SUBSCRIBE: u8 = 28;
const TAG_PUT_STATE: u8 = 30;
const TAG_REMOVE_STATE: u8 = 31;
const TAG_DROP_STATES: u8 = 32;
const TAG_DEFINE_QUERY: u8 = 33;
const TAG_DEFINE_CLASS: u8 = 34;

const FLAG_FINGERPRINTS: u8 = 1;
/// Who pushed it is known; of Append, Relocate and Bury.
const FLAG_SUB: u8 = 2;
/// Of a dead letter: it says when it failed; it was written again.
const FLAG_FAILED_AT: u8 = 1 << 6;
const FLAG_AGAIN: u8 = 1 << 7;

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a valid entry: {field} is {problem}")]
pub struct EntryError {
    /// What was being read.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A batch read back from its place in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Its partition.
    pub partition: PartitionNumber,
    /// Sequence of its first record.
    pub first_seq: Sequence,
    /// Its records.
    pub count: u32,
    /// When it was pushed, unix milliseconds.
    pub time_ms: u64,
    /// Who pushed it, where that is known.
    pub sub: Option<ProducerSub>,
    /// The batch.
    pub batch: Bytes,
}

/// Bytes of an effect in the log.
#[must_use]
pub fn encoded_len(effect: &Effect) -> usize {
    EFFECT_HEADER + body_len(effect)
}

fn body_len(effect: &Effect) -> usize {
    match effect {
        Effect::CreatePartition { name, .. } => 4 + 4 + name.len(),
        Effect::Append { fingerprints, sub, batch, .. } => {
            CHUNK_HEADER + sub_len(sub) + 16 * fingerprints.len() + batch.len()
        }
        Effect::Relocate { sub, batch, .. } => CHUNK_HEADER + sub_len(sub) + batch.len(),
        Effect::RegisterGroup { name, start, .. } => 4 + 4 + rows::start_len(*start) + name.len(),
        Effect::DefineGroup { name, start, .. } | Effect::Subscribe { name, start, .. } => {
            4 + rows::start_len(*start) + name.len()
        }
        Effect::ForgetGroup { name, .. } => 4 + 1 + name.len(),
        Effect::Seek { moves, .. } => 4 + 4 + SEEK_BYTES * moves.len(),
        Effect::Lease { .. } => 4 + 4 + 16 + 8 + 8 + 8,
        Effect::Extend { .. } => 4 + 4 + 8,
        Effect::Settle { progress, .. } => 4 + 4 + 1 + rows::progress_len(progress),
        Effect::Bury(dead) => {
            let texts = dead.error.len() + sub_len(&dead.sub);
            let failed = if dead.failed_ms > 0 { 8 } else { 0 };
            4 + 4 + 8 + 8 + 4 + 1 + 4 + failed + texts + dead.batch.len()
        }
        Effect::Care(it) => care::codec::body_len(it),
        Effect::Trim { .. } => 4 + 8,
        Effect::Replayed { .. } => 16 + 8,
        Effect::DropQueue { .. }
        | Effect::DropGroup { .. }
        | Effect::ForgetQueue { .. }
        | Effect::Maintain(_) => 4,
        Effect::Project { .. } => 4 + 1,
        Effect::DefineQueue(definition) => rows::queue_len(definition),
        Effect::PutState { key, value, .. } => STATE_HEADER + key.len() + value.len(),
        Effect::RemoveState { key, .. } => STATE_HEADER + key.len(),
        Effect::DropStates { .. } => 4,
        Effect::DefineQuery(query) => query.encoded_len(),
        Effect::DefineClass { text, .. } => 4 + 4 + text.len(),
    }
}

fn sub_len(sub: &Option<ProducerSub>) -> usize {
    sub.as_ref().map_or(0, |sub| 1 + sub.as_str().len())
}

fn sub_flag(sub: &Option<ProducerSub>) -> u8 {
    if sub.is_some() { FLAG_SUB } else { 0 }
}

/// Encodes an entry as a rope.
#[must_use]
pub fn encode(entry: &Entry) -> Vec<Bytes> {
    Rope::new(false).entry(entry)
}

struct Rope {
    parts: Vec<Bytes>,
    head: BytesMut,
    /// Batches of appends are left out.
    is_brief: bool,
}

impl Rope {
    fn new(is_brief: bool) -> Self {
        Self { parts: Vec::new(), head: BytesMut::with_capacity(4096), is_brief }
    }

    fn entry(mut self, entry: &Entry) -> Vec<Bytes> {
        self.head.put_u64_le(entry.time_ms);
        self.head.put_u64_le(entry.origin.engine);
        self.head.put_u64_le(entry.origin.append);
        self.head.put_u32_le(entry.effects.len() as u32);
        self.head.put_u32_le(0);
        for effect in &entry.effects {
            self.effect(effect, entry.time_ms);
        }
        self.finish()
    }

    fn header(&mut self, tag: u8, flags: u8, effect: &Effect) {
        self.head.reserve(EFFECT_HEADER + 64);
        self.head.put_u8(tag);
        self.head.put_u8(flags);
        self.head.put_u16_le(0);
        self.head.put_u32_le(body_len(effect) as u32);
    }

    fn bytes(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_BYTES_MAX {
            self.head.put_slice(bytes);
        } else {
            self.parts.push(self.head.split().freeze());
            self.parts.push(bytes.clone());
        }
    }

    fn batch(&mut self, batch: &Bytes) {
        if !self.is_brief {
            self.bytes(batch);
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.head.is_empty() {
            self.parts.push(self.head.freeze());
        }
        self.parts
    }

    fn chunk(&mut self, partition: u32, count: u32, first_seq: u64, time_ms: u64) {
        self.head.put_u32_le(partition);
        self.head.put_u32_le(count);
        self.head.put_u64_le(first_seq);
        self.head.put_u64_le(time_ms);
    }

    fn effect(&mut self, effect: &Effect, now_ms: u64) {
        match effect {
            Effect::Append { partition, first_seq, count, fingerprints, sub, batch } => {
                let flags = if fingerprints.is_empty() { 0 } else { FLAG_FINGERPRINTS };
                self.header(TAG_APPEND, flags | sub_flag(sub), effect);
                self.chunk(*partition, *count, *first_seq, now_ms);
                self.sub(sub);
                for fingerprint in fingerprints {
                    self.head.put_u128_le(*fingerprint);
                }
                self.batch(batch);
            }
            Effect::Relocate { partition, first_seq, count, time_ms, sub, batch } => {
                self.header(TAG_RELOCATE, sub_flag(sub), effect);
                self.chunk(*partition, *count, *first_seq, *time_ms);
                self.sub(sub);
                self.batch(batch);
            }
            Effect::Bury(dead) => {
                let failed = if dead.failed_ms > 0 { FLAG_FAILED_AT } else { 0 };
                let again = if dead.is_again { FLAG_AGAIN } else { 0 };
                self.header(TAG_BURY, sub_flag(&dead.sub) | failed | again, effect);
                self.dead(dead);
            }
            Effect::Care(it) => {
                self.header(care::codec::tag(it), 0, effect);
                care::codec::put(&mut self.head, it);
            }
            Effect::Replayed { spill, position } => {
                self.header(TAG_REPLAYED, 0, effect);
                self.head.put_slice(spill);
                self.head.put_u64_le(*position);
            }
            Effect::Seek { group, moves } => {
                self.number(TAG_SEEK, *group, effect);
                self.head.reserve(4 + SEEK_BYTES * moves.len());
                self.head.put_u32_le(moves.len() as u32);
                for (partition, next) in moves {
                    self.head.put_u32_le(*partition);
                    self.head.put_u64_le(*next);
                }
            }
            Effect::PutState { .. } | Effect::RemoveState { .. } => self.state(effect),
            _ => self.small(effect),
        }
    }

    fn sub(&mut self, sub: &Option<ProducerSub>) {
        if let Some(sub) = sub {
            let name = sub.as_str();
            self.head.reserve(1 + name.len());
            // Its type holds 255 bytes at most.
            self.head.put_u8(name.len() as u8);
            self.head.put_slice(name.as_bytes());
        }
    }

    fn subscription(
        &mut self,
        tag: u8,
        queue: u32,
        name: &str,
        start: GroupStart,
        effect: &Effect,
    ) {
        self.number(tag, queue, effect);
        rows::put_start(&mut self.head, start);
        self.head.put_slice(name.as_bytes());
    }

    fn number(&mut self, tag: u8, number: u32, effect: &Effect) {
        self.header(tag, 0, effect);
        self.head.put_u32_le(number);
    }

    fn small(&mut self, effect: &Effect) {
        match effect {
            Effect::CreatePartition { number, queue, name } => {
                self.header(TAG_CREATE_PARTITION, 0, effect);
                self.head.put_u32_le(*number);
                self.head.put_u32_le(*queue);
                self.head.put_slice(name.as_bytes());
            }
            Effect::RegisterGroup { .. }
            | Effect::DefineGroup { .. }
            | Effect::Subscribe { .. }
            | Effect::ForgetGroup { .. }
            | Effect::DropGroup { .. } => self.group(effect),
            Effect::Lease { partition, group, token, until_ms, from, to } => {
                self.header(TAG_LEASE, 0, effect);
                self.head.put_u32_le(*partition);
                self.head.put_u32_le(*group);
                self.head.put_slice(token);
                self.head.put_u64_le(*until_ms);
                self.head.put_u64_le(*from);
                self.head.put_u64_le(*to);
            }
            Effect::Extend { partition, group, until_ms } => {
                self.header(TAG_EXTEND, 0, effect);
                self.head.put_u32_le(*partition);
                self.head.put_u32_le(*group);
                self.head.put_u64_le(*until_ms);
            }
            Effect::Settle { partition, group, progress, release } => {
                self.header(TAG_SETTLE, 0, effect);
                self.head.put_u32_le(*partition);
                self.head.put_u32_le(*group);
                self.head.put_u8(u8::from(*release));
                rows::put_progress(&mut self.head, progress);
            }
            Effect::Trim { partition, base_seq } => {
                self.header(TAG_TRIM, 0, effect);
                self.head.put_u32_le(*partition);
                self.head.put_u64_le(*base_seq);
            }
            Effect::DropQueue { queue } => self.number(TAG_DROP_QUEUE, *queue, effect),
            Effect::ForgetQueue { queue } => self.number(TAG_FORGET_QUEUE, *queue, effect),
            Effect::DropStates { owner } => self.number(TAG_DROP_STATES, *owner, effect),
            Effect::Maintain(_)
            | Effect::Project { .. }
            | Effect::DefineQueue(_)
            | Effect::DefineQuery(_)
            | Effect::DefineClass { .. } => self.of_catalog(effect),
            Effect::Append { .. }
            | Effect::Relocate { .. }
            | Effect::Bury(_)
            | Effect::PutState { .. }
            | Effect::RemoveState { .. }
            | Effect::Care(_)
            | Effect::Seek { .. }
            | Effect::Replayed { .. } => {}
        }
    }
}

/// Decodes an entry; batches are slices of `bytes`.
///
/// # Errors
/// [`EntryError`] where the bytes are not what [`encode`] writes.
pub fn decode(bytes: Bytes) -> Result<Entry, EntryError> {
    decode_each(bytes, |bytes| {
        let (tag, flags, mut body) = effect_parts(bytes)?;
        decode_effect(tag, flags, &mut body)
    })
}

fn decode_each(
    mut bytes: Bytes,
    mut effect: impl FnMut(&mut Bytes) -> Result<Effect, EntryError>,
) -> Result<Entry, EntryError> {
    let short = |_| EntryError { field: "entry header", problem: "cut off" };
    let time_ms = bytes.try_get_u64_le().map_err(short)?;
    let engine = bytes.try_get_u64_le().map_err(short)?;
    let append = bytes.try_get_u64_le().map_err(short)?;
    let count = bytes.try_get_u32_le().map_err(short)?;
    bytes.try_get_u32_le().map_err(short)?;
    // An effect has at least its header, so the bytes themselves bound the allocation.
    let mut effects = Vec::with_capacity((count as usize).min(bytes.len() / EFFECT_HEADER));
    for _ in 0..count {
        effects.push(effect(&mut bytes)?);
    }
    if bytes.has_remaining() {
        return Err(EntryError { field: "entry", problem: "followed by more bytes" });
    }
    Ok(Entry { time_ms, origin: Origin { engine, append }, effects })
}

/// Decodes the effects at a run's place in the log: one batch or several in a row.
///
/// # Errors
/// [`EntryError`] where there is anything but Append and Relocate.
pub fn decode_chunks(mut place: Bytes) -> Result<Vec<Chunk>, EntryError> {
    let mut chunks = Vec::with_capacity(1);
    while place.has_remaining() {
        let (tag, flags, mut body) = effect_parts(&mut place)?;
        if tag != TAG_APPEND && tag != TAG_RELOCATE {
            return Err(EntryError { field: "chunk", problem: "another effect" });
        }
        chunks.push(read_chunk(flags, &mut body)?.0);
    }
    Ok(chunks)
}

const CUT_OFF: EntryError = EntryError { field: "effect body", problem: "cut off" };

fn effect_parts(bytes: &mut Bytes) -> Result<(u8, u8, Bytes), EntryError> {
    let (tag, flags, len) = effect_header(bytes)?;
    if len > bytes.len() {
        return Err(EntryError { field: "effect length", problem: "past the entry's end" });
    }
    Ok((tag, flags, bytes.split_to(len)))
}

/// Tag, flags, and bytes of the body.
fn effect_header(bytes: &mut Bytes) -> Result<(u8, u8, usize), EntryError> {
    let short = |_| EntryError { field: "effect header", problem: "cut off" };
    let tag = bytes.try_get_u8().map_err(short)?;
    let flags = bytes.try_get_u8().map_err(short)?;
    bytes.try_get_u16_le().map_err(short)?;
    let len = bytes.try_get_u32_le().map_err(short)? as usize;
    Ok((tag, flags, len))
}

fn read_chunk(flags: u8, body: &mut Bytes) -> Result<(Chunk, Vec<u128>), EntryError> {
    let (mut chunk, fingerprints) = read_chunk_start(flags, body)?;
    chunk.batch = std::mem::take(body);
    Ok((chunk, fingerprints))
}

/// What stands before the batch.
fn read_chunk_start(flags: u8, body: &mut Bytes) -> Result<(Chunk, Vec<u128>), EntryError> {
    let short = |_| CUT_OFF;
    let partition = body.try_get_u32_le().map_err(short)?;
    let count = body.try_get_u32_le().map_err(short)?;
    let first_seq = body.try_get_u64_le().map_err(short)?;
    let time_ms = body.try_get_u64_le().map_err(short)?;
    let sub = read_sub(flags, body).map_err(short)?;
    let mut fingerprints = Vec::new();
    if flags & FLAG_FINGERPRINTS != 0 {
        if (body.len() / 16) < count as usize {
            return Err(CUT_OFF);
        }
        fingerprints.reserve_exact(count as usize);
        for _ in 0..count {
            fingerprints.push(body.try_get_u128_le().map_err(short)?);
        }
    }
    let batch = Bytes::new();
    Ok((Chunk { partition, first_seq, count, time_ms, sub, batch }, fingerprints))
}

/// Who pushed it. One that is no text is as unknown as none: what was pushed counts for more.
fn read_sub(flags: u8, body: &mut Bytes) -> Result<Option<ProducerSub>, bytes::TryGetError> {
    if flags & FLAG_SUB == 0 {
        return Ok(None);
    }
    let len = usize::from(body.try_get_u8()?).min(body.len());
    let name = body.split_to(len);
    Ok(std::str::from_utf8(&name).ok().and_then(ProducerSub::new))
}

/// The effect of a chunk.
fn of_chunk(tag: u8, chunk: Chunk, fingerprints: Vec<u128>) -> Effect {
    let Chunk { partition, first_seq, count, time_ms, sub, batch } = chunk;
    match tag {
        TAG_RELOCATE => Effect::Relocate { partition, first_seq, count, time_ms, sub, batch },
        _ => Effect::Append { partition, first_seq, count, fingerprints, sub, batch },
    }
}

fn decode_effect(tag: u8, flags: u8, body: &mut Bytes) -> Result<Effect, EntryError> {
    let effect = match tag {
        TAG_APPEND | TAG_RELOCATE => {
            let (chunk, fingerprints) = read_chunk(flags, body)?;
            of_chunk(tag, chunk, fingerprints)
        }
        TAG_BURY => Effect::Bury(letters::read_dead(flags, body).map_err(|_| CUT_OFF)?),
        tag if care::codec::is_ours(tag) => Effect::Care(care::codec::read(tag, body)?),
        TAG_DEFINE_QUEUE => Effect::DefineQueue(Box::new(rows::read_queue(body)?)),
        TAG_REPLAYED => {
            let mut spill = SpillId::default();
            body.try_copy_to_slice(&mut spill).map_err(|_| CUT_OFF)?;
            let position = body.try_get_u64_le().map_err(|_| CUT_OFF)?;
            Effect::Replayed { spill, position }
        }
        TAG_DEFINE_QUERY => Effect::DefineQuery(Box::new(QueryDefinition::read(body)?)),
        TAG_DEFINE_CLASS => states::read_class(body)?,
        TAG_PUT_STATE | TAG_REMOVE_STATE => states::read_state(tag, body)?,
        _ => decode_small(tag, body)?,
    };
    if body.has_remaining() {
        return Err(EntryError { field: "effect body", problem: "longer than its effect" });
    }
    Ok(effect)
}

fn read_moves(body: &mut Bytes) -> Result<Vec<(PartitionNumber, Sequence)>, EntryError> {
    let count = body.try_get_u32_le().map_err(|_| CUT_OFF)? as usize;
    if body.len() / SEEK_BYTES < count {
        return Err(CUT_OFF);
    }
    Ok((0..count).map(|_| (body.get_u32_le(), body.get_u64_le())).collect())
}

fn decode_small(tag: u8, body: &mut Bytes) -> Result<Effect, EntryError> {
    let short = |_| CUT_OFF;
    let first = body.try_get_u32_le().map_err(short)?;
    Ok(match tag {
        TAG_CREATE_PARTITION => {
            let queue = body.try_get_u32_le().map_err(short)?;
            Effect::CreatePartition { number: first, queue, name: rows::rest_text(body)? }
        }
        TAG_REGISTER_GROUP => {
            let queue = body.try_get_u32_le().map_err(short)?;
            let start = rows::read_start(body)?;
            Effect::RegisterGroup { group: first, queue, name: rows::rest_text(body)?, start }
        }
        TAG_DEFINE_GROUP => {
            let start = rows::read_start(body)?;
            Effect::DefineGroup { queue: first, name: rows::rest_text(body)?, start }
        }
        TAG_SUBSCRIBE => {
            let start = rows::read_start(body)?;
            Effect::Subscribe { queue: first, name: rows::rest_text(body)?, start }
        }
        TAG_FORGET_GROUP => {
            let keep_start = body.try_get_u8().map_err(short)? != 0;
            Effect::ForgetGroup { queue: first, name: rows::rest_text(body)?, keep_start }
        }
        TAG_DROP_GROUP => Effect::DropGroup { group: first },
        TAG_SEEK => Effect::Seek { group: first, moves: read_moves(body)? },
        TAG_LEASE => {
            let group = body.try_get_u32_le().map_err(short)?;
            let mut token = LeaseToken::default();
            body.try_copy_to_slice(&mut token).map_err(short)?;
            let until_ms = body.try_get_u64_le().map_err(short)?;
            let from = body.try_get_u64_le().map_err(short)?;
            let to = body.try_get_u64_le().map_err(short)?;
            Effect::Lease { partition: first, group, token, until_ms, from, to }
        }
        TAG_EXTEND => {
            let group = body.try_get_u32_le().map_err(short)?;
            let until_ms = body.try_get_u64_le().map_err(short)?;
            Effect::Extend { partition: first, group, until_ms }
        }
        TAG_SETTLE => {
            let group = body.try_get_u32_le().map_err(short)?;
            let release = body.try_get_u8().map_err(short)? != 0;
            let progress: Progress = rows::read_progress(body)?;
            Effect::Settle { partition: first, group, progress, release }
        }
        TAG_TRIM => {
            let base_seq = body.try_get_u64_le().map_err(short)?;
            Effect::Trim { partition: first, base_seq }
        }
        TAG_DROP_QUEUE => Effect::DropQueue { queue: first },
        TAG_DROP_STATES => Effect::DropStates { owner: first },
        TAG_FORGET_QUEUE => Effect::ForgetQueue { queue: first },
        TAG_PROJECT => {
            let on = body.try_get_u8().map_err(short)? != 0;
            Effect::Project { queue: first, on }
        }
        TAG_MAINTAIN => Effect::Maintain(Maintenance { push: first & 1 != 0, pop: first & 2 != 0 }),
        _ => return Err(EntryError { field: "effect tag", problem: "unknown" }),
    })
}
