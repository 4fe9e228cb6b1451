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
/// Bytes of each part of an entry but the last: a row that fills a page of the database. As one row an
/// entry would be cut by the database itself, into rows and index entries of a quarter of this, which
/// took a third of an append.
pub(super) const PART_BYTES: usize = 8_000;

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
    /// By part of an entry: the entry's shard and number, the part's bytes, the brief of the entry with
    /// its first part, the part's place, and the bytes of the entry.
    pub(super) entry_shards: Vec<i32>,
    pub(super) entry_heads: Vec<i64>,
    pub(super) parts: Parts<'a>,
    pub(super) briefs: Vec<Option<&'a [u8]>>,
    pub(super) places: Vec<i32>,
    pub(super) lens: Vec<i32>,
    /// Other shards, and the heads that they must still have.
    pub(super) relied: Vec<i32>,
    pub(super) relied_heads: Vec<i64>,
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
            batch.add_parts(proposal, shard, head, tail);
            batch.rely_on(proposal.relies_on);
        }
        torn.dedup();
        if torn.is_empty() { Ok(batch) } else { Err(torn) }
    }

    fn rely_on(&mut self, other: Option<(ShardId, u64)>) {
        let Some((shard, head)) = other else { return };
        let (shard, head) = (i32::from(shard), i64::try_from(head).unwrap_or(i64::MAX));
        if self.relied.last() != Some(&shard) || self.relied_heads.last() != Some(&head) {
            self.relied.push(shard);
            self.relied_heads.push(head);
        }
    }

    fn add_parts(&mut self, proposal: &'a Proposal, shard: i32, head: i64, len: i32) {
        let mut brief = proposal.brief.as_deref();
        for (place, part) in (0..).zip(cut(&proposal.parts)) {
            self.entry_shards.push(shard);
            self.entry_heads.push(head);
            self.parts.0.push(part);
            self.briefs.push(brief.take());
            self.places.push(place);
            self.lens.push(len);
        }
    }

    /// In the order of the statement that adds several entries.
    pub(super) fn parameters<'b>(&'b self, engine: &'b i64) -> [&'b (dyn ToSql + Sync); 14] {
        [
            &self.shards,
            &self.expected,
            &self.entries,
            &self.bytes,
            &self.tails,
            &self.entry_shards,
            &self.entry_heads,
            &self.parts,
            engine,
            &self.briefs,
            &self.places,
            &self.lens,
            &self.relied,
            &self.relied_heads,
        ]
    }
}

/// A rope cut into parts of [`PART_BYTES`] and a rest; an empty one has one empty part.
fn cut(rope: &[Bytes]) -> Vec<Part<'_>> {
    let mut left: usize = rope.iter().map(Bytes::len).sum();
    let (mut rope, mut skip) = (rope, 0);
    let mut parts = Vec::with_capacity(left.div_ceil(PART_BYTES).max(1));
    loop {
        let part = Part { rope, skip, len: left.min(PART_BYTES) };
        left -= part.len;
        parts.push(part);
        if left == 0 {
            return parts;
        }
        skip += PART_BYTES;
        while let Some((first, rest)) = rope.split_first()
            && skip >= first.len()
        {
            skip -= first.len();
            rope = rest;
        }
    }
}

/// Some bytes of a rope.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    /// What it begins in, and what follows.
    rope: &'a [Bytes],
    /// Bytes before it.
    skip: usize,
    len: usize,
}

impl Part<'_> {
    fn put(self, out: &mut BytesMut) {
        let Self { rope, mut skip, mut len } = self;
        for bytes in rope {
            let bytes = bytes.get(skip..).unwrap_or_default();
            let bytes = bytes.get(..len).unwrap_or(bytes);
            out.put_slice(bytes);
            (skip, len) = (0, len - bytes.len());
            if len == 0 {
                return;
            }
        }
    }
}

/// Parts of ropes as an array of `bytea`.
#[derive(Debug, Default)]
pub(super) struct Parts<'a>(Vec<Part<'a>>);

/// One rope as a `bytea`.
#[derive(Debug)]
pub(super) struct Body<'a>(pub(super) &'a [Bytes]);

type ToSqlError = Box<dyn Error + Sync + Send>;

impl ToSql for Parts<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, ToSqlError> {
        out.reserve(self.0.iter().map(|part| part.len + 4).sum());
        // Dimensions, no nulls, the type of elements; then the only dimension: its length, from 1.
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(Type::BYTEA.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1);
        for part in &self.0 {
            out.put_i32(i32::try_from(part.len)?);
            part.put(out);
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
        Proposal { shard, expected_head, parts, brief: None, relies_on: None, labels: Vec::new() }
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
        batch.parts.to_sql(&Type::BYTEA_ARRAY, &mut sql).unwrap();
        assert!(sql.ends_with(b"\0\0\0\x01d\0\0\0\x03abc\0\0\0\x04efgh"), "{sql:?}");
        assert_eq!((&batch.places[..], &batch.lens[..]), (&[0, 0, 0][..], &[1, 3, 4][..]));
    }

    #[test]
    fn an_entry_is_cut_into_parts_wherever_its_rope_is_joined() {
        let whole: Vec<u8> = (0..3 * PART_BYTES + 7).map(|n| (n % 251) as u8).collect();
        for len in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, whole.len()] {
            let entry = &whole[..len];
            for joint in [1, 7, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, whole.len()] {
                let mut rope: Vec<Bytes> =
                    entry.chunks(joint).map(Bytes::copy_from_slice).collect();
                rope.insert(rope.len() / 2, Bytes::new());
                let parts: Vec<Vec<u8>> = cut(&rope)
                    .into_iter()
                    .map(|part| {
                        let mut out = BytesMut::new();
                        part.put(&mut out);
                        assert_eq!(out.len(), part.len);
                        out.to_vec()
                    })
                    .collect();
                assert_eq!(parts.concat(), entry);
                assert_eq!(parts.len(), len.div_ceil(PART_BYTES).max(1));
                let (_, full) = parts.split_last().unwrap();
                assert!(full.iter().all(|part| part.len() == PART_BYTES));
            }
        }
    }

    #[test]
    fn a_brief_goes_with_the_first_part_of_its_entry() {
        let mut proposal = propose(2, 5, &[]);
        proposal.parts = vec![Bytes::from(vec![7; PART_BYTES + 1])];
        proposal.brief = Some(Bytes::from_static(b"brief"));
        let all = [proposal];
        let batch = Batch::of(&all).unwrap();
        assert_eq!(batch.briefs, [Some(&b"brief"[..]), None]);
        assert_eq!((&batch.places[..], &batch.entries[..]), (&[0, 1][..], &[1][..]));
        assert_eq!(batch.lens, [PART_BYTES as i32 + 1; 2]);
    }

    #[test]
    fn entries_of_a_shard_that_do_not_follow_each_other_are_named() {
        let twice = [propose(3, 1, &["a"]), propose(1, 1, &["b"]), propose(3, 1, &["c"])];
        assert_eq!(Batch::of(&twice).unwrap_err(), [3]);
        let gap = [propose(3, 1, &["a"]), propose(3, 3, &["c"])];
        assert_eq!(Batch::of(&gap).unwrap_err(), [3]);
    }
}
