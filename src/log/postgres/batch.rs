//! One append as the parameters of its statement. Pure.
//!
//! In: proposals. Out: arrays for the statement, the bodies as ropes that are copied once, into the
//! message itself; or the shards whose proposals do not follow each other. Positions follow from the
//! entry alone, so that all engines compute the same: see [`position`].

use std::error::Error;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::base::place::ShardId;
use crate::log::Proposal;

/// Bits of a position that say where in its entry a byte is: entries have at most 64 MiB.
const OFFSET_BITS: u32 = 26;
/// Bytes of an entry at most.
pub(super) const ENTRY_BYTES_MAX: u64 = 1 << OFFSET_BITS;

/// The position of an entry's first byte.
pub(super) fn position(index: u64) -> u64 {
    // Beyond 2^38 entries of one shard the log is full; at a million a second that is in three days,
    // and a shard makes some hundred a second.
    index.checked_shl(OFFSET_BITS).filter(|at| at >> OFFSET_BITS == index).unwrap_or(u64::MAX)
}

/// The entry and the offset in it that a position stands for.
pub(super) fn place(position: u64) -> (u64, u32) {
    (position >> OFFSET_BITS, (position & (ENTRY_BYTES_MAX - 1)) as u32)
}

/// The position behind the entries before `head`, the last of which has `tail` bytes.
pub(super) fn end(head: u64, tail: u64) -> u64 {
    head.checked_sub(1).map_or(0, |last| position(last).saturating_add(tail))
}

/// Parameters of an append.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    /// By shard.
    pub(super) shards: Vec<i32>,
    pub(super) expected: Vec<i64>,
    pub(super) entries: Vec<i32>,
    pub(super) bytes: Vec<i64>,
    pub(super) tails: Vec<i32>,
    /// By entry.
    pub(super) entry_shards: Vec<i32>,
    pub(super) entry_heads: Vec<i64>,
    pub(super) bodies: Bodies<'a>,
    pub(super) briefs: Vec<Option<&'a [u8]>>,
}

impl<'a> Batch<'a> {
    /// The parameters of all proposals, in the order of their shards.
    ///
    /// # Errors
    /// The shards whose proposals do not follow each other: no heads could satisfy them.
    pub(super) fn of(proposals: &'a [Proposal]) -> Result<Self, Vec<ShardId>> {
        let mut order: Vec<&Proposal> = proposals.iter().collect();
        // Stable: those of one shard stay as they were proposed.
        order.sort_by_key(|proposal| proposal.shard);
        let mut batch = Self::default();
        let mut torn = Vec::new();
        for proposal in order {
            let (shard, bytes) = (i32::from(proposal.shard), proposal.len());
            let head = i64::try_from(proposal.expected_head).unwrap_or(i64::MAX);
            let (size, tail) = (bytes as i64, i32::try_from(bytes).unwrap_or(i32::MAX));
            if batch.shards.last() == Some(&shard) {
                if batch.entry_heads.last().is_none_or(|last| last.saturating_add(1) != head) {
                    torn.push(proposal.shard);
                }
                batch.entries.last_mut().into_iter().for_each(|it| *it += 1);
                batch.bytes.last_mut().into_iter().for_each(|it| *it += size);
                batch.tails.last_mut().into_iter().for_each(|it| *it = tail);
            } else {
                batch.shards.push(shard);
                batch.expected.push(head);
                batch.entries.push(1);
                batch.bytes.push(size);
                batch.tails.push(tail);
            }
            batch.entry_shards.push(shard);
            batch.entry_heads.push(head);
            batch.bodies.0.push(&proposal.parts);
            batch.briefs.push(proposal.brief.as_deref());
        }
        torn.dedup();
        if torn.is_empty() { Ok(batch) } else { Err(torn) }
    }

    /// In the order of the statement that adds several entries.
    pub(super) fn parameters<'b>(&'b self, engine: &'b i64) -> [&'b (dyn ToSql + Sync); 10] {
        [
            &self.shards,
            &self.expected,
            &self.entries,
            &self.bytes,
            &self.tails,
            &self.entry_shards,
            &self.entry_heads,
            &self.bodies,
            engine,
            &self.briefs,
        ]
    }
}

/// Ropes as an array of `bytea`.
#[derive(Debug, Default)]
pub(super) struct Bodies<'a>(Vec<&'a [Bytes]>);

/// One rope as a `bytea`.
#[derive(Debug)]
pub(super) struct Body<'a>(pub(super) &'a [Bytes]);

type ToSqlError = Box<dyn Error + Sync + Send>;

fn rope_len(parts: &[Bytes]) -> Result<i32, ToSqlError> {
    Ok(i32::try_from(parts.iter().map(Bytes::len).sum::<usize>())?)
}

impl ToSql for Bodies<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, ToSqlError> {
        // Dimensions, no nulls, the type of elements; then the only dimension: its length, from 1.
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(Type::BYTEA.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1);
        for parts in &self.0 {
            out.put_i32(rope_len(parts)?);
            parts.iter().for_each(|part| out.put_slice(part));
        }
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::BYTEA_ARRAY
    }

    to_sql_checked!();
}

impl ToSql for Body<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, ToSqlError> {
        self.0.iter().for_each(|part| out.put_slice(part));
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::BYTEA
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(shard: ShardId, expected_head: u64, parts: &[&'static str]) -> Proposal {
        let parts = parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
        Proposal { shard, expected_head, parts, brief: None, labels: Vec::new() }
    }

    #[test]
    fn positions_grow_with_entries_and_lead_back_to_them() {
        assert_eq!((position(0), position(1)), (0, 1 << 26));
        assert_eq!(place(position(7) + 5), (7, 5));
        assert_eq!((end(0, 9), end(3, 9)), (0, position(2) + 9));
        // An entry of the largest size ends where the next one begins.
        assert_eq!(position(4) + ENTRY_BYTES_MAX, position(5));
        assert_eq!(position(1 << 38), u64::MAX);
        assert_eq!(place(u64::MAX).0, (1 << 38) - 1);
    }

    #[test]
    fn entries_are_grouped_by_shard_in_order() {
        let proposals =
            [propose(5, 2, &["ab", "c"]), propose(1, 9, &["d"]), propose(5, 3, &["", "efgh"])];
        let batch = Batch::of(&proposals).unwrap();
        assert_eq!((&batch.shards[..], &batch.expected[..]), (&[1, 5][..], &[9, 2][..]));
        assert_eq!((&batch.entries[..], &batch.bytes[..]), (&[1, 2][..], &[1, 7][..]));
        assert_eq!(batch.tails, [1, 4]);
        assert_eq!(
            (&batch.entry_shards[..], &batch.entry_heads[..]),
            (&[1, 5, 5][..], &[9, 2, 3][..])
        );
        let mut sql = BytesMut::new();
        batch.bodies.to_sql(&Type::BYTEA_ARRAY, &mut sql).unwrap();
        assert!(sql.ends_with(b"\0\0\0\x01d\0\0\0\x03abc\0\0\0\x04efgh"), "{sql:?}");
    }

    #[test]
    fn entries_of_a_shard_that_do_not_follow_each_other_are_named() {
        let twice = [propose(3, 1, &["a"]), propose(1, 1, &["b"]), propose(3, 1, &["c"])];
        assert_eq!(Batch::of(&twice).unwrap_err(), [3]);
        let gap = [propose(3, 1, &["a"]), propose(3, 3, &["c"])];
        assert_eq!(Batch::of(&gap).unwrap_err(), [3]);
    }
}
