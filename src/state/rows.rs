//! Byte forms of state: rows of the key-value store, and the parts that entries share with them.
//!
//! Keys are big-endian so that their byte order is their number order; values little-endian. Pure.
//! Called by `codec` (shared parts) and `checkpoint` (rows out and in).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use onrush_protocol::options::QueueOptions;

use crate::base::place::{PartitionNumber, ShardId};
use crate::state::care::graves::DeadPlace;
use crate::state::catalog::QueueDefinition;
use crate::state::codec::EntryError;
use crate::state::effect::{GroupIndex, GroupStart, LeaseToken, OwnerId, Progress, Sequence};
use crate::state::model::{Cursor, Group, Lease, Partition, Run};

const CUT_OFF: EntryError = EntryError { field: "row", problem: "cut off" };
const OPTION_COUNT: usize = 15;

fn short(_: bytes::TryGetError) -> EntryError {
    CUT_OFF
}

// Big-endian bytes are denied elsewhere so that nothing on disk or wire is written so by accident;
// keys are the one place where their order is the point.
#[expect(clippy::big_endian_bytes, reason = "byte order of keys must be number order")]
fn key_u32(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

#[expect(clippy::big_endian_bytes, reason = "byte order of keys must be number order")]
fn key_u64(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Key of a shard's row of what has been applied.
#[must_use]
pub fn meta_key(shard: ShardId) -> Vec<u8> {
    key_u32(u32::from(shard)).to_vec()
}

/// Key of the row at `index` of a shard's partitions or groups.
#[must_use]
pub fn shard_key(shard: ShardId, index: u32) -> Vec<u8> {
    [key_u32(u32::from(shard)), key_u32(index)].concat()
}

/// The index in a key of [`shard_key`].
pub(super) fn index_of_key(mut key: &[u8]) -> Option<u32> {
    key.try_get_u32().ok()?;
    key.try_get_u32().ok()
}

/// The number that every key begins with: a shard's or a partition's.
pub(super) fn number_of_key(mut key: &[u8]) -> Option<u32> {
    key.try_get_u32().ok()
}

/// Where the rows of a partition begin and end, in any space whose keys begin with its number.
pub(super) fn keys_of_partition(partition: PartitionNumber) -> (Vec<u8>, Vec<u8>) {
    let end = partition.checked_add(1).map(|next| key_u32(next).to_vec());
    (key_u32(partition).to_vec(), end.unwrap_or_default())
}

/// Key of a run.
#[must_use]
pub fn run_key(partition: PartitionNumber, first_seq: Sequence) -> Vec<u8> {
    [key_u32(partition).as_slice(), &key_u64(first_seq)].concat()
}

/// Key of a dead letter.
#[must_use]
pub fn dead_key(partition: PartitionNumber, group: GroupIndex, seq: Sequence) -> Vec<u8> {
    [key_u32(partition).as_slice(), &key_u32(group), &key_u64(seq)].concat()
}

/// The parts of a key of [`dead_key`].
pub(super) fn parts_of_dead_key(mut key: &[u8]) -> Option<(PartitionNumber, GroupIndex, Sequence)> {
    Some((key.try_get_u32().ok()?, key.try_get_u32().ok()?, key.try_get_u64().ok()?))
}

/// Reads a dead letter's row: whose it is, and where it lies.
#[must_use]
pub fn parse_dead(
    key: &[u8],
    value: &[u8],
) -> Option<((PartitionNumber, GroupIndex, Sequence), DeadPlace)> {
    let (position, len) = read_pair(value)?;
    // Older rows do not say when.
    let failed_ms = value.get(16..).and_then(|mut rest| rest.try_get_u64_le().ok()).unwrap_or(0);
    Some((parts_of_dead_key(key)?, DeadPlace { position, len: len as u32, failed_ms }))
}

/// A dead letter's row.
pub(super) fn dead_value(place: &DeadPlace) -> Vec<u8> {
    let mut value = pair_value(place.position, u64::from(place.len));
    value.put_u64_le(place.failed_ms);
    value
}

/// Key of a state key.
#[must_use]
pub fn state_key(partition: PartitionNumber, owner: OwnerId, key: &[u8]) -> Vec<u8> {
    [key_u32(partition).as_slice(), &key_u32(owner), key].concat()
}

/// The parts of a key of [`state_key`].
pub(super) fn parts_of_state_key(mut key: &[u8]) -> Option<(PartitionNumber, OwnerId, &[u8])> {
    Some((key.try_get_u32().ok()?, key.try_get_u32().ok()?, key))
}

/// Two numbers as a value: a dead letter's position and length.
pub(super) fn pair_value(first: u64, second: u64) -> Vec<u8> {
    [first.to_le_bytes(), second.to_le_bytes()].concat()
}

/// Reads [`pair_value`].
pub(super) fn read_pair(mut value: &[u8]) -> Option<(u64, u64)> {
    Some((value.try_get_u64_le().ok()?, value.try_get_u64_le().ok()?))
}

pub(super) fn run_value(run: &Run) -> Vec<u8> {
    let mut value = Vec::with_capacity(24);
    value.put_u64_le(run.position);
    value.put_u64_le(run.time_ms);
    value.put_u32_le(run.len);
    value.put_u32_le(run.count);
    value
}

pub(super) fn read_run(mut key: &[u8], mut value: &[u8]) -> Option<Run> {
    key.try_get_u32().ok()?;
    Some(Run {
        first_seq: key.try_get_u64().ok()?,
        position: value.try_get_u64_le().ok()?,
        time_ms: value.try_get_u64_le().ok()?,
        len: value.try_get_u32_le().ok()?,
        count: value.try_get_u32_le().ok()?,
    })
}

/// Reads a run's row with the partition that it belongs to.
#[must_use]
pub fn parse_run(key: &[u8], value: &[u8]) -> Option<(PartitionNumber, Run)> {
    let mut partition = key;
    Some((partition.try_get_u32().ok()?, read_run(key, value)?))
}

pub(super) fn group_value(group: &Group) -> Vec<u8> {
    let mut value = BytesMut::with_capacity(14 + group.name.len());
    value.put_u32_le(group.queue);
    put_start(&mut value, group.start);
    value.put_u8(u8::from(group.live));
    value.put_slice(group.name.as_bytes());
    value.to_vec()
}

pub(super) fn start_len(start: GroupStart) -> usize {
    if matches!(start, GroupStart::Time(_)) { 1 + 8 } else { 1 }
}

pub(super) fn put_start(out: &mut BytesMut, start: GroupStart) {
    match start {
        GroupStart::Beginning => out.put_u8(0),
        GroupStart::New => out.put_u8(1),
        GroupStart::Time(time_ms) => {
            out.put_u8(2);
            out.put_u64_le(time_ms);
        }
    }
}

pub(super) fn read_start(bytes: &mut Bytes) -> Result<GroupStart, EntryError> {
    Ok(match bytes.try_get_u8().map_err(short)? {
        0 => GroupStart::Beginning,
        1 => GroupStart::New,
        2 => GroupStart::Time(bytes.try_get_u64_le().map_err(short)?),
        _ => return Err(EntryError { field: "group start", problem: "unknown" }),
    })
}

pub(super) fn read_group(mut value: Bytes) -> Result<Group, EntryError> {
    let queue = value.try_get_u32_le().map_err(short)?;
    let start = read_start(&mut value)?;
    let live = value.try_get_u8().map_err(short)? != 0;
    let name = rest_text(&mut value)?;
    let (ready, ready_count, standing) = Default::default();
    Ok(Group { queue, name, start, live, ready, ready_count, standing })
}

/// Bits of a partition's second field. Rows of older servers do not say when the newest message came.
const LIVE: u8 = 1;
const SAYS_NEWEST: u8 = 2;

pub(super) fn partition_value(partition: &Partition) -> Vec<u8> {
    let mut value = BytesMut::with_capacity(64);
    value.put_u32_le(partition.queue);
    value.put_u8(SAYS_NEWEST | if partition.live { LIVE } else { 0 });
    value.put_u64_le(partition.newest_ms);
    value.put_u64_le(partition.next_seq);
    value.put_u64_le(partition.base_seq);
    value.put_u32_le(partition.cursors.len() as u32);
    for cursor in &partition.cursors {
        value.put_u32_le(cursor.group);
        put_progress(&mut value, &cursor.progress());
        value.put_u8(u8::from(cursor.lease.is_some()));
        if let Some(lease) = &cursor.lease {
            value.put_slice(&lease.token);
            value.put_u64_le(lease.until_ms);
            value.put_u64_le(lease.from);
            value.put_u64_le(lease.to);
        }
    }
    value.put_slice(partition.name.as_bytes());
    value.to_vec()
}

/// Reads a partition's row; `last_ms` is when anything in its shard came last.
pub(super) fn read_partition(mut value: Bytes, last_ms: u64) -> Result<Partition, EntryError> {
    let queue = value.try_get_u32_le().map_err(short)?;
    let bits = value.try_get_u8().map_err(short)?;
    let newest_ms = match bits & SAYS_NEWEST {
        0 => last_ms,
        _ => value.try_get_u64_le().map_err(short)?,
    };
    let next_seq = value.try_get_u64_le().map_err(short)?;
    let base_seq = value.try_get_u64_le().map_err(short)?;
    let mut cursors = smallvec::SmallVec::new();
    for _ in 0..value.try_get_u32_le().map_err(short)? {
        let group = value.try_get_u32_le().map_err(short)?;
        let progress = read_progress(&mut value)?;
        let lease = match value.try_get_u8().map_err(short)? {
            0 => None,
            _ => Some(Box::new(read_lease(&mut value).map_err(short)?)),
        };
        let mut cursor = Cursor { lease, ..Cursor::at(0, group) };
        cursor.set_progress(progress);
        cursors.push(cursor);
    }
    let name = rest_text(&mut value)?;
    let (runs, stored_seq) = (smallvec::SmallVec::new(), next_seq);
    let (at_end, dirty) = (0, false);
    Ok(Partition {
        name,
        next_seq,
        base_seq,
        stored_seq,
        newest_ms,
        runs,
        cursors,
        at_end,
        queue,
        live: bits & LIVE != 0,
        dirty,
    })
}

fn read_lease(value: &mut Bytes) -> Result<Lease, bytes::TryGetError> {
    let mut token = LeaseToken::default();
    value.try_copy_to_slice(&mut token)?;
    Ok(Lease {
        token,
        until_ms: value.try_get_u64_le()?,
        from: value.try_get_u64_le()?,
        to: value.try_get_u64_le()?,
    })
}

/// Stands beside the count of attempts where a time follows it: no count is that large.
const WAITS: u32 = 1 << 31;

pub(super) fn progress_len(progress: &Progress) -> usize {
    let wait = if progress.not_before_ms > 0 { 8 } else { 0 };
    8 + 4 + 16 * progress.settled.len() + 4 + wait + 12 * progress.attempts.len()
}

pub(super) fn put_progress(out: &mut BytesMut, progress: &Progress) {
    out.put_u64_le(progress.next);
    out.put_u32_le(progress.settled.len() as u32);
    for (first, last) in &progress.settled {
        out.put_u64_le(*first);
        out.put_u64_le(*last);
    }
    let waits = if progress.not_before_ms > 0 { WAITS } else { 0 };
    out.put_u32_le(progress.attempts.len() as u32 | waits);
    if waits > 0 {
        out.put_u64_le(progress.not_before_ms);
    }
    for (seq, attempts) in &progress.attempts {
        out.put_u64_le(*seq);
        out.put_u32_le(*attempts);
    }
}

pub(super) fn read_progress(bytes: &mut Bytes) -> Result<Progress, EntryError> {
    let next = bytes.try_get_u64_le().map_err(short)?;
    let settled_count = bytes.try_get_u32_le().map_err(short)? as usize;
    let mut settled = Vec::with_capacity(settled_count.min(bytes.len() / 16));
    for _ in 0..settled_count {
        let first = bytes.try_get_u64_le().map_err(short)?;
        settled.push((first, bytes.try_get_u64_le().map_err(short)?));
    }
    let attempts_count = bytes.try_get_u32_le().map_err(short)?;
    let not_before_ms = match attempts_count & WAITS {
        0 => 0,
        _ => bytes.try_get_u64_le().map_err(short)?,
    };
    let attempts_count = (attempts_count & !WAITS) as usize;
    let mut attempts = Vec::with_capacity(attempts_count.min(bytes.len() / 12));
    for _ in 0..attempts_count {
        let seq = bytes.try_get_u64_le().map_err(short)?;
        attempts.push((seq, bytes.try_get_u32_le().map_err(short)?));
    }
    Ok(Progress { next, settled, attempts, not_before_ms })
}

pub(super) fn queue_len(queue: &QueueDefinition) -> usize {
    4 + 8
        + 1
        + 8 * OPTION_COUNT
        + 3 * 2
        + queue.name.len()
        + queue.namespace.len()
        + queue.task.len()
}

pub(super) fn put_queue(out: &mut BytesMut, queue: &QueueDefinition) {
    out.put_u32_le(queue.id);
    out.put_u64_le(queue.created_ms);
    out.put_u8(OPTION_COUNT as u8);
    for option in option_values(queue) {
        out.put_u64_le(option);
    }
    for text in [&queue.name, &queue.namespace, &queue.task] {
        out.put_u16_le(text.len() as u16);
        out.put_slice(text.as_bytes());
    }
}

pub(super) fn read_queue(bytes: &mut Bytes) -> Result<QueueDefinition, EntryError> {
    let id = bytes.try_get_u32_le().map_err(short)?;
    let created_ms = bytes.try_get_u64_le().map_err(short)?;
    let mut values = [0_u64; OPTION_COUNT];
    let count = bytes.try_get_u8().map_err(short)? as usize;
    if count != OPTION_COUNT {
        return Err(EntryError { field: "queue options", problem: "of another count" });
    }
    for value in &mut values {
        *value = bytes.try_get_u64_le().map_err(short)?;
    }
    let mut texts: [Box<str>; 3] = Default::default();
    for text in &mut texts {
        let len = bytes.try_get_u16_le().map_err(short)? as usize;
        if len > bytes.len() {
            return Err(CUT_OFF);
        }
        *text = rest_text(&mut bytes.split_to(len))?;
    }
    let [name, namespace, task] = texts;
    let ttl_asked = values.get(TTL_PLACE).is_some_and(|ttl| ttl & TTL_ASKED != 0);
    let (options, sealed) = options_from(values);
    Ok(QueueDefinition { id, name, namespace, task, created_ms, options, sealed, ttl_asked })
}

/// Of the value for encryption: it is asked for; it was ever asked for.
const ENCRYPTION_ON: u64 = 1 << 0;
const ENCRYPTION_EVER: u64 = 1 << 1;
/// Where `ttl` stands among the options, and what stands beside its 32 bits where it was asked for.
const TTL_PLACE: usize = 2;
const TTL_ASKED: u64 = 1 << 32;

fn option_values(queue: &QueueDefinition) -> [u64; OPTION_COUNT] {
    let QueueDefinition { options, ttl_asked, .. } = queue;
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    [
        u64::from(options.lease_time_s),
        options.max_size,
        u64::from(options.ttl_s) | if *ttl_asked { TTL_ASKED } else { 0 },
        u64::from(options.retry_limit),
        u64::from(options.retry_delay_ms),
        u64::from(options.dead_letter_queue),
        u64::from(options.dlq_after_max_retries),
        i64::from(options.priority) as u64,
        u64::from(options.delayed_processing_s),
        u64::from(options.window_buffer_s),
        u64::from(options.retention_s),
        u64::from(options.completed_retention_s),
        u64::from(options.retention_enabled),
        flag(options.encryption_enabled, ENCRYPTION_ON) | flag(queue.sealed, ENCRYPTION_EVER),
        u64::from(options.max_wait_time_s),
    ]
}

/// The options, and whether encryption was ever asked for.
fn options_from(values: [u64; OPTION_COUNT]) -> (QueueOptions, bool) {
    let [
        lease,
        max_size,
        ttl,
        limit,
        delay,
        dlq,
        dlq_after,
        priority,
        delayed,
        window,
        retention,
        completed,
        enabled,
        encryption,
        max_wait,
    ] = values;
    let options = QueueOptions {
        lease_time_s: lease as u32,
        max_size,
        ttl_s: ttl as u32,
        retry_limit: limit as u32,
        retry_delay_ms: delay as u32,
        dead_letter_queue: dlq != 0,
        dlq_after_max_retries: dlq_after != 0,
        priority: priority as i64 as i32,
        delayed_processing_s: delayed as u32,
        window_buffer_s: window as u32,
        retention_s: retention as u32,
        completed_retention_s: completed as u32,
        retention_enabled: enabled != 0,
        encryption_enabled: encryption & ENCRYPTION_ON != 0,
        max_wait_time_s: max_wait as u32,
    };
    (options, encryption != 0)
}

/// The rest of `bytes` as text.
pub(super) fn rest_text(bytes: &mut Bytes) -> Result<Box<str>, EntryError> {
    let rest = bytes.split_off(0);
    let text = std::str::from_utf8(&rest);
    text.map(Into::into).map_err(|_| EntryError { field: "text", problem: "not UTF-8" })
}
