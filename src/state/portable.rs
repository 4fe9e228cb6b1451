//! A shard's rows as bytes that another machine can take: a checkpoint to be kept beside the log.
//!
//! In: the rows of one shard. Out: parts of about a mebibyte, each with a check of its own, in an order
//! in which they may simply be written: the row that says what has been applied comes last, so a
//! machine that stops halfway has a shard without a history and begins again. Pure but for reading and
//! writing rows. Called by `shard`: the checkpointer exports, start-up imports.
//!
//! ```text
//! part: version u8 | row … | CRC-32 of everything before, u32
//! row:  space u8 | generation u32 (of transaction ids, else 0) | key u16 | value u32 | key | value
//! of a transaction id, key: partition u32, big-endian | fingerprint u128; value: sequence u64 | time u64
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::base::place::{ShardCount, ShardId};
use crate::state::kv::{IdRow, Kv, KvError, RowChange, Scan, Space};
use crate::state::rows;

/// The layout of a part.
const VERSION: u8 = 1;
/// Bytes after which a part is given away.
const PART_BYTES: usize = 1 << 20;
/// Bytes of a row beside its key and value.
const ROW_HEADER_BYTES: usize = 11;
/// Bytes of a transaction id's key and of its value.
const ID_BYTES: (usize, usize) = (20, 16);
/// What stands for transaction ids where other rows name their space.
const IDS: u8 = 7;
/// Rows removed in one batch.
const REMOVED_PER_BATCH: usize = 4_096;

/// Why a part was not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PartError {
    /// It is not what was given away.
    #[error("a part of the checkpoint is damaged: {0}")]
    Damaged(&'static str),
    /// Another version made it.
    #[error("the checkpoint has version {0}, this one reads {VERSION}")]
    Version(u8),
}

/// Gives away the rows of a shard, part by part. Nobody may write rows of the shard meanwhile.
///
/// # Errors
/// What reading rows or giving away says.
pub fn export<E: From<KvError>>(
    shard: ShardId,
    count: ShardCount,
    kv: &dyn Kv,
    give: &mut dyn FnMut(Bytes) -> Result<(), E>,
) -> Result<(), E> {
    let mut out = Parts { part: begin(), failed: None, give };
    let (from, to) = (rows::shard_key(shard, 0), rows::shard_key(shard + 1, 0));
    let mut partitions: u32 = 0;
    if shard == count.catalog() {
        out.rows(kv, Space::Queues, &from, &to)?;
        out.rows(kv, Space::Care, &from, &to)?;
        out.rows(kv, Space::Queries, &from, &to)?;
    } else {
        for space in [Space::Groups, Space::Partitions, Space::Letters, Space::Care] {
            out.rows(kv, space, &from, &to)?;
        }
        kv.scan(Space::Partitions, &from, &to, &mut |_, _| {
            partitions += 1;
            Scan::Continue
        })?;
    }
    for local in 0..partitions {
        let Some(number) = count.number(shard, local) else { break };
        let (from, to) = rows::keys_of_partition(number);
        for space in [Space::Runs, Space::Dead, Space::States] {
            out.rows(kv, space, &from, &to)?;
        }
    }
    if shard != count.catalog() {
        out.ids(kv, shard, count)?;
    }
    let (meta, end) = (rows::meta_key(shard), rows::meta_key(shard + 1));
    out.rows(kv, Space::Meta, &meta, &end)?;
    out.give_away()
}

/// What a part holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Part {
    /// Rows to put.
    pub rows: Vec<RowChange>,
    /// Transaction ids to put.
    pub ids: Vec<IdRow>,
}

/// The rows of a part.
///
/// # Errors
/// [`PartError`]: nothing of it is to be believed.
pub fn read_part(part: &Bytes) -> Result<Part, PartError> {
    const CUT_OFF: PartError = PartError::Damaged("cut off");
    let end = part.len().checked_sub(4).ok_or(CUT_OFF)?;
    let (mut body, mut check) = (part.slice(..end), part.slice(end..));
    if check.get_u32_le() != crc32fast::hash(&body) {
        return Err(PartError::Damaged("its check does not hold"));
    }
    match body.try_get_u8().map_err(|_| CUT_OFF)? {
        VERSION => {}
        other => return Err(PartError::Version(other)),
    }
    let mut found = Part::default();
    while body.has_remaining() {
        if body.remaining() < ROW_HEADER_BYTES {
            return Err(CUT_OFF);
        }
        let (tag, generation) = (body.get_u8(), body.get_u32_le());
        let (key_len, value_len) = (usize::from(body.get_u16_le()), body.get_u32_le() as usize);
        if body.remaining() < key_len.saturating_add(value_len) {
            return Err(CUT_OFF);
        }
        let (mut key, mut value) = (body.split_to(key_len), body.split_to(value_len));
        if tag == IDS {
            let id = read_id(generation, &mut key, &mut value);
            found.ids.push(id.ok_or(PartError::Damaged("a transaction id of another length"))?);
            continue;
        }
        let space = space(tag).ok_or(PartError::Damaged("unknown space"))?;
        found.rows.push(RowChange { space, key: key.to_vec(), value: Some(value.to_vec()) });
    }
    Ok(found)
}

fn read_id(generation: u32, key: &mut Bytes, value: &mut Bytes) -> Option<IdRow> {
    let is_one = (key.len(), value.len()) == ID_BYTES;
    is_one.then(|| IdRow {
        generation,
        partition: key.get_u32(),
        fingerprint: key.get_u128_le(),
        seq: value.get_u64_le(),
        time_ms: value.get_u64_le(),
    })
}

/// Removes all rows of a shard, the one that says what has been applied first.
///
/// # Errors
/// [`KvError`] of the store.
pub fn clear(shard: ShardId, count: ShardCount, kv: &dyn Kv) -> Result<(), KvError> {
    let meta = RowChange { space: Space::Meta, key: rows::meta_key(shard), value: None };
    kv.write(&[meta])?;
    if shard != count.catalog() {
        kv.forget_ids(shard, count)?;
    }
    let by_shard = [Space::Partitions, Space::Groups, Space::Queues, Space::Letters, Space::Care];
    for space in by_shard.into_iter().chain([Space::Queries]) {
        let is_ours = |number: u32| number == u32::from(shard);
        remove(kv, space, &is_ours)?;
    }
    for space in [Space::Runs, Space::Dead, Space::States] {
        let is_ours = |number: u32| count.of_partition(number) == shard;
        remove(kv, space, &is_ours)?;
    }
    Ok(())
}

/// Removes the rows whose key begins with a number that is ours.
fn remove(kv: &dyn Kv, space: Space, is_ours: &dyn Fn(u32) -> bool) -> Result<(), KvError> {
    loop {
        let mut gone = Vec::new();
        kv.scan(space, &[], &[], &mut |key, _| {
            if rows::number_of_key(key).is_some_and(is_ours) {
                gone.push(RowChange { space, key: key.to_vec(), value: None });
            }
            if gone.len() < REMOVED_PER_BATCH { Scan::Continue } else { Scan::Stop }
        })?;
        kv.write(&gone)?;
        if gone.len() < REMOVED_PER_BATCH {
            return Ok(());
        }
    }
}

fn begin() -> BytesMut {
    let mut part = BytesMut::with_capacity(PART_BYTES / 16);
    part.put_u8(VERSION);
    part
}

/// Rows on their way into parts.
struct Parts<'a, E> {
    part: BytesMut,
    failed: Option<E>,
    give: &'a mut dyn FnMut(Bytes) -> Result<(), E>,
}

impl<E: From<KvError>> Parts<'_, E> {
    fn rows(&mut self, kv: &dyn Kv, space: Space, from: &[u8], to: &[u8]) -> Result<(), E> {
        kv.scan(space, from, to, &mut |key, value| self.row((tag(space), 0), key, value))?;
        self.failed.take().map_or(Ok(()), Err)
    }

    fn ids(&mut self, kv: &dyn Kv, shard: ShardId, count: ShardCount) -> Result<(), E> {
        let (mut key, mut value) = (Vec::with_capacity(ID_BYTES.0), Vec::with_capacity(ID_BYTES.1));
        kv.scan_ids(shard, count, &mut |id| {
            key.clear();
            key.put_u32(id.partition);
            key.put_u128_le(id.fingerprint);
            value.clear();
            value.put_u64_le(id.seq);
            value.put_u64_le(id.time_ms);
            self.row((IDS, id.generation), &key, &value)
        })?;
        self.failed.take().map_or(Ok(()), Err)
    }

    fn row(&mut self, (tag, generation): (u8, u32), key: &[u8], value: &[u8]) -> Scan {
        self.part.put_u8(tag);
        self.part.put_u32_le(generation);
        self.part.put_u16_le(key.len() as u16);
        self.part.put_u32_le(value.len() as u32);
        self.part.put_slice(key);
        self.part.put_slice(value);
        if self.part.len() >= PART_BYTES {
            self.failed = self.give_away().err();
        }
        if self.failed.is_some() { Scan::Stop } else { Scan::Continue }
    }

    fn give_away(&mut self) -> Result<(), E> {
        let mut part = std::mem::replace(&mut self.part, begin());
        part.put_u32_le(crc32fast::hash(&part));
        (self.give)(part.freeze())
    }
}

fn tag(space: Space) -> u8 {
    match space {
        Space::Meta => 1,
        Space::Partitions => 2,
        Space::Groups => 3,
        Space::Runs => 4,
        Space::Dead => 5,
        Space::Queues => 6,
        Space::Letters => 40,
        Space::Care => 41,
        Space::States => 30,
        Space::Queries => 31,
    }
}

fn space(tag: u8) -> Option<Space> {
    Some(match tag {
        1 => Space::Meta,
        2 => Space::Partitions,
        3 => Space::Groups,
        4 => Space::Runs,
        5 => Space::Dead,
        6 => Space::Queues,
        40 => Space::Letters,
        41 => Space::Care,
        30 => Space::States,
        31 => Space::Queries,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::kv::memory::MemoryKv;

    const ALL: [Space; 10] = [
        Space::Meta,
        Space::Partitions,
        Space::Groups,
        Space::Runs,
        Space::Dead,
        Space::Queues,
        Space::Letters,
        Space::Care,
        Space::States,
        Space::Queries,
    ];

    fn count() -> ShardCount {
        ShardCount::new(3).unwrap()
    }

    /// Every space, three shards and a catalog, some partitions; values tell where they belong.
    fn filled(runs: u64) -> MemoryKv {
        let kv = MemoryKv::new();
        let (mut all, mut ids) = (Vec::new(), Vec::new());
        let mut put = |space, key: Vec<u8>, value: String| {
            all.push(RowChange { space, key, value: Some(value.into_bytes()) });
        };
        for shard in 0..4 {
            put(Space::Meta, rows::meta_key(shard), format!("meta {shard}"));
        }
        put(Space::Queues, rows::shard_key(3, 9), "queue 9".into());
        put(Space::Queries, rows::shard_key(3, 2), "query 2".into());
        for shard in 0..3 {
            put(Space::Groups, rows::shard_key(shard, 0), format!("group of {shard}"));
            for local in 0..4 {
                let number = count().number(shard, local).unwrap();
                put(
                    Space::Partitions,
                    rows::shard_key(shard, local),
                    format!("partition {number}"),
                );
                for seq in 0..runs {
                    put(Space::Runs, rows::run_key(number, seq), format!("run {number} {seq}"));
                }
                put(Space::Dead, rows::dead_key(number, 1, 2), format!("dead {number}"));
                put(Space::States, rows::state_key(number, 5, b"k"), format!("state {number}"));
                for (generation, fingerprint) in [(3, u128::MAX), (4, u128::from(number))] {
                    let (seq, time_ms) = (u64::from(number) + 1, u64::from(shard) + 9);
                    ids.push(IdRow { generation, partition: number, fingerprint, seq, time_ms });
                }
            }
        }
        kv.write_with_ids(&all, ids).unwrap();
        kv
    }

    fn parts(kv: &dyn Kv, shard: ShardId) -> Vec<Bytes> {
        let mut parts = Vec::new();
        let exported: Result<(), KvError> = export(shard, count(), kv, &mut |part| {
            parts.push(part);
            Ok(())
        });
        exported.unwrap();
        parts
    }

    type Row = (Space, Vec<u8>, Vec<u8>);

    fn everything(kv: &dyn Kv) -> (Vec<Row>, Vec<IdRow>) {
        let (mut all, mut ids) = (Vec::new(), Vec::new());
        for shard in 0..3 {
            kv.scan_ids(shard, count(), &mut |id| {
                ids.push(*id);
                Scan::Continue
            })
            .unwrap();
        }
        for space in ALL {
            kv.scan(space, &[], &[], &mut |key, value| {
                all.push((space, key.to_vec(), value.to_vec()));
                Scan::Continue
            })
            .unwrap();
        }
        (all, ids)
    }

    #[test]
    fn shards_taken_one_by_one_are_the_whole_again_and_what_has_been_applied_comes_last() {
        // Enough for several parts.
        let kv = filled(9_000);
        let copy = MemoryKv::new();
        for shard in 0..4 {
            let parts = parts(&kv, shard);
            assert_eq!(parts.len() > 1, shard < 3);
            let read: Vec<Part> = parts.iter().map(|part| read_part(part).unwrap()).collect();
            let rows = || read.iter().flat_map(|part| &part.rows);
            let metas = rows().filter(|row| row.space == Space::Meta).count();
            assert_eq!((metas, rows().last().unwrap().space), (1, Space::Meta));
            for part in read {
                copy.write_with_ids(&part.rows, part.ids).unwrap();
            }
        }
        assert_eq!(everything(&copy), everything(&kv));
        assert_eq!(everything(&copy).1.len(), 24);
    }

    #[test]
    fn a_cleared_shard_leaves_the_others_as_they_were() {
        let kv = filled(3_000);
        for shard in [1, 3] {
            clear(shard, count(), &kv).unwrap();
            assert!(parts(&kv, shard).iter().all(|it| read_part(it).unwrap() == Part::default()));
        }
        let copy = MemoryKv::new();
        for shard in [0, 2] {
            for part in parts(&filled(3_000), shard) {
                let Part { rows, ids } = read_part(&part).unwrap();
                copy.write_with_ids(&rows, ids).unwrap();
            }
        }
        assert_eq!(everything(&kv), everything(&copy));
    }

    #[test]
    fn no_changed_byte_of_a_part_goes_unnoticed() {
        let part = parts(&filled(2), 0).remove(0);
        for at in 0..part.len() {
            let mut damaged = part.to_vec();
            damaged[at] ^= 0x10;
            assert!(read_part(&Bytes::from(damaged)).is_err(), "byte {at}");
            assert!(read_part(&part.slice(..at)).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn giving_away_stops_at_the_first_refusal() {
        let kv = filled(9_000);
        let mut given = 0;
        let refused = export(0, count(), &kv, &mut |_| {
            given += 1;
            Err(KvError("no room".into()))
        });
        assert_eq!((refused, given), (Err(KvError("no room".into())), 1));
    }
}
