//! Jobs, events and deleted messages as bytes: the same in rows and in effects.
//!
//! A row of [`super::super::kv::Space::Care`] has the key: shard (4), kind (1), number (8). Numbers in
//! keys are big-endian, in values little-endian. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::base::place::ShardId;
use crate::state::care::job::{Action, Job, JobState};
use crate::state::care::trace::TraceEvent;
use crate::state::codec::EntryError;
use crate::state::effect::Sequence;
use crate::state::rows::{meta_key, rest_text};

/// What a row of this space is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(in crate::state) enum Kind {
    /// That the index of dead letters is complete.
    Marker = 0,
    /// Deleted messages of a partition.
    Erased = 1,
    /// A job.
    Job = 2,
    /// A trace event.
    Trace = 3,
}

#[expect(clippy::big_endian_bytes, reason = "byte order of keys must be number order")]
pub(in crate::state) fn key(shard: ShardId, kind: Kind, number: u64) -> Vec<u8> {
    let mut key = meta_key(shard);
    key.put_u8(kind as u8);
    key.put_slice(&number.to_be_bytes());
    key
}

/// Where the rows of a kind begin and end.
pub(in crate::state) fn range(shard: ShardId, kind: Kind) -> (Vec<u8>, Vec<u8>) {
    let mut end = meta_key(shard);
    end.put_u8(kind as u8 + 1);
    (key(shard, kind, 0), end)
}

/// The number in a key.
pub(in crate::state) fn number_of(mut key: &[u8]) -> Option<u64> {
    key.try_get_u32().ok()?;
    key.try_get_u8().ok()?;
    key.try_get_u64().ok()
}

const CUT_OFF: EntryError = EntryError { field: "job or trace", problem: "cut off" };

fn short(_: bytes::TryGetError) -> EntryError {
    CUT_OFF
}

pub(in crate::state) fn ranges_value(ranges: &[(Sequence, Sequence)]) -> Vec<u8> {
    ranges
        .iter()
        .flat_map(|(first, last)| [first.to_le_bytes(), last.to_le_bytes()].concat())
        .collect()
}

pub(in crate::state) fn read_ranges(
    mut value: Bytes,
) -> Result<Vec<(Sequence, Sequence)>, EntryError> {
    let mut ranges = Vec::with_capacity(value.len() / 16);
    while value.has_remaining() {
        let first = value.try_get_u64_le().map_err(short)?;
        ranges.push((first, value.try_get_u64_le().map_err(short)?));
    }
    Ok(ranges)
}

fn text_len(text: &str) -> usize {
    4 + text.len()
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn read_bytes(bytes: &mut Bytes) -> Result<Bytes, EntryError> {
    let len = bytes.try_get_u32_le().map_err(short)? as usize;
    if len > bytes.len() {
        return Err(CUT_OFF);
    }
    Ok(bytes.split_to(len))
}

fn read_text(bytes: &mut Bytes) -> Result<Box<str>, EntryError> {
    rest_text(&mut read_bytes(bytes)?)
}

fn optional_len(text: &Option<Box<str>>) -> usize {
    1 + text.as_deref().map_or(0, text_len)
}

fn put_optional(out: &mut BytesMut, text: &Option<Box<str>>) {
    out.put_u8(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn read_optional(bytes: &mut Bytes) -> Result<Option<Box<str>>, EntryError> {
    match bytes.try_get_u8().map_err(short)? {
        0 => Ok(None),
        _ => read_text(bytes).map(Some),
    }
}

pub(in crate::state) fn job_len(job: &Job) -> usize {
    let action = match &job.action {
        Action::Redrive | Action::Delete => 1,
        Action::Requeue { partition, .. } => 1 + 4 + optional_len(partition),
    };
    let cursor = 1 + job.cursor.map_or(0, |_| 16);
    let texts = optional_len(&job.group) + optional_len(&job.partition) + optional_len(&job.error);
    let names = text_len(&job.queue_name) + text_len(&job.problem);
    4 + action + 4 + names + texts + 8 + 4 + 1 + 8 + 1 + 24 + cursor + 16
}

pub(in crate::state) fn put_job(out: &mut BytesMut, job: &Job) {
    out.put_u32_le(job.id);
    match &job.action {
        Action::Redrive => out.put_u8(0),
        Action::Delete => out.put_u8(1),
        Action::Requeue { queue, partition } => {
            out.put_u8(2);
            out.put_u32_le(*queue);
            put_optional(out, partition);
        }
    }
    out.put_u32_le(job.queue);
    put_text(out, &job.queue_name);
    put_text(out, &job.problem);
    for text in [&job.group, &job.partition, &job.error] {
        put_optional(out, text);
    }
    out.put_u64_le(job.limit);
    out.put_u32_le(job.rate);
    out.put_u8(u8::from(job.dry_run));
    out.put_u64_le(job.created_ms);
    out.put_u8(job.state as u8);
    for count in [job.moved, job.skipped, job.deferred] {
        out.put_u64_le(count);
    }
    out.put_u8(u8::from(job.cursor.is_some()));
    if let Some((partition, group, seq)) = job.cursor {
        out.put_u32_le(partition);
        out.put_u32_le(group);
        out.put_u64_le(seq);
    }
    out.put_u64_le(job.engine);
    out.put_u64_le(job.stepped_ms);
}

pub(in crate::state) fn read_job(bytes: &mut Bytes) -> Result<Job, EntryError> {
    let id = bytes.try_get_u32_le().map_err(short)?;
    let action = match bytes.try_get_u8().map_err(short)? {
        0 => Action::Redrive,
        1 => Action::Delete,
        _ => {
            let queue = bytes.try_get_u32_le().map_err(short)?;
            Action::Requeue { queue, partition: read_optional(bytes)? }
        }
    };
    let queue = bytes.try_get_u32_le().map_err(short)?;
    let (queue_name, problem) = (read_text(bytes)?, read_text(bytes)?);
    let (group, partition) = (read_optional(bytes)?, read_optional(bytes)?);
    let error = read_optional(bytes)?;
    let limit = bytes.try_get_u64_le().map_err(short)?;
    let rate = bytes.try_get_u32_le().map_err(short)?;
    let dry_run = bytes.try_get_u8().map_err(short)? != 0;
    let created_ms = bytes.try_get_u64_le().map_err(short)?;
    let state = match bytes.try_get_u8().map_err(short)? {
        0 => JobState::Running,
        1 => JobState::Done,
        2 => JobState::Cancelled,
        _ => JobState::Failed,
    };
    let moved = bytes.try_get_u64_le().map_err(short)?;
    let skipped = bytes.try_get_u64_le().map_err(short)?;
    let deferred = bytes.try_get_u64_le().map_err(short)?;
    let cursor = match bytes.try_get_u8().map_err(short)? {
        0 => None,
        _ => {
            let partition = bytes.try_get_u32_le().map_err(short)?;
            let group = bytes.try_get_u32_le().map_err(short)?;
            Some((partition, group, bytes.try_get_u64_le().map_err(short)?))
        }
    };
    let engine = bytes.try_get_u64_le().map_err(short)?;
    let stepped_ms = bytes.try_get_u64_le().map_err(short)?;
    Ok(Job {
        id,
        action,
        queue,
        queue_name,
        group,
        partition,
        error,
        limit,
        rate,
        dry_run,
        created_ms,
        state,
        moved,
        skipped,
        deferred,
        cursor,
        engine,
        stepped_ms,
        problem,
    })
}

pub(in crate::state) fn trace_len(event: &TraceEvent) -> usize {
    let texts =
        [&event.transaction_id, &event.queue, &event.partition_name, &event.group, &event.kind];
    let texts: usize = texts.into_iter().map(|text| text_len(text)).sum();
    let names: usize = event.names.iter().map(|name| text_len(name)).sum();
    16 + 4 + 8 + 8 + texts + 2 + names + 4 + event.data.len()
}

pub(in crate::state) fn put_trace(out: &mut BytesMut, event: &TraceEvent) {
    out.put_slice(&event.id);
    out.put_u32_le(event.partition);
    out.put_u64_le(event.seq);
    out.put_u64_le(event.time_ms);
    for text in
        [&event.transaction_id, &event.queue, &event.partition_name, &event.group, &event.kind]
    {
        put_text(out, text);
    }
    out.put_u16_le(event.names.len() as u16);
    for name in &event.names {
        put_text(out, name);
    }
    out.put_u32_le(event.data.len() as u32);
    out.put_slice(&event.data);
}

pub(in crate::state) fn read_trace(bytes: &mut Bytes) -> Result<TraceEvent, EntryError> {
    let mut id = [0; 16];
    bytes.try_copy_to_slice(&mut id).map_err(short)?;
    let partition = bytes.try_get_u32_le().map_err(short)?;
    let seq = bytes.try_get_u64_le().map_err(short)?;
    let time_ms = bytes.try_get_u64_le().map_err(short)?;
    let mut texts: [Box<str>; 5] = Default::default();
    for text in &mut texts {
        *text = read_text(bytes)?;
    }
    let [transaction_id, queue, partition_name, group, kind] = texts;
    let mut names = Vec::new();
    for _ in 0..bytes.try_get_u16_le().map_err(short)? {
        names.push(read_text(bytes)?);
    }
    let data = read_bytes(bytes)?;
    Ok(TraceEvent {
        id,
        partition,
        seq,
        time_ms,
        transaction_id,
        queue,
        partition_name,
        group,
        kind,
        names,
        data,
    })
}
