//! Which piece holds an entry, and which pieces could go. Pure.
//!
//! A piece is a partition of the log: what was appended between two moments, all shards together. In:
//! what the heads said at those moments. Out: where to look for an entry, and the log's front.

use super::batch::end;
use crate::base::place::ShardId;
use crate::log::Front;

/// What the heads said when a piece was begun.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Piece {
    /// Its number.
    pub(super) number: i32,
    /// Number of its first entry, by shard.
    pub(super) firsts: Vec<u64>,
    /// Bytes of the last entry before it, by shard.
    pub(super) tails: Vec<u64>,
    /// Bytes that were ever appended before it, of all shards.
    pub(super) bytes: u64,
}

impl Piece {
    fn first(&self, shard: ShardId) -> u64 {
        self.firsts.get(usize::from(shard)).copied().unwrap_or(0)
    }

    /// Position behind everything before it, by shard.
    fn begins(&self) -> Vec<u64> {
        self.firsts.iter().zip(&self.tails).map(|(first, tail)| end(*first, *tail)).collect()
    }
}

/// The pieces that there are, oldest first; the last one is being filled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Pieces(pub(super) Vec<Piece>);

impl Pieces {
    /// First and last number of pieces that may hold an entry; `None` when it is gone.
    pub(super) fn holding(&self, shard: ShardId, index: u64) -> Option<(i32, i32)> {
        let behind = self.0.partition_point(|piece| piece.first(shard) <= index);
        let piece = self.0.get(behind.checked_sub(1)?)?;
        // Others may have begun further ones that are not known here yet.
        let last = if behind == self.0.len() { i32::MAX } else { piece.number };
        Some((piece.number, last))
    }

    /// The newest one, which is being filled.
    pub(super) fn newest(&self) -> Option<&Piece> {
        self.0.last()
    }

    /// Bytes that were given back.
    pub(super) fn given_back(&self) -> u64 {
        self.0.first().map_or(0, |oldest| oldest.bytes)
    }

    /// The oldest piece, if it is closed, and the one after it.
    pub(super) fn oldest_closed(&self) -> Option<(&Piece, &Piece)> {
        self.0.first().zip(self.0.get(1))
    }

    /// What could be given back. Nothing that is being filled.
    pub(super) fn front(&self) -> Option<Front> {
        let (oldest, next) = self.oldest_closed()?;
        let newest = self.newest()?;
        Some(Front {
            oldest_ends: next.begins(),
            oldest_bytes: next.bytes.saturating_sub(oldest.bytes),
            old_ends: newest.begins(),
            old_bytes: newest.bytes.saturating_sub(oldest.bytes),
        })
    }

    /// Adds what is newer and forgets what is gone.
    pub(super) fn renew(&mut self, oldest: i32, newer: Vec<Piece>) {
        self.0.retain(|piece| piece.number >= oldest);
        self.0.extend(newer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::position;
    use super::*;

    fn pieces() -> Pieces {
        let piece = |number, firsts: [u64; 2], tails: [u64; 2], bytes| {
            let (firsts, tails) = (firsts.to_vec(), tails.to_vec());
            Piece { number, firsts, tails, bytes }
        };
        Pieces(vec![
            piece(3, [10, 0], [5, 0], 1_000),
            piece(4, [20, 0], [7, 0], 1_500),
            piece(5, [20, 2], [7, 9], 1_600),
        ])
    }

    #[test]
    fn an_entry_is_looked_for_in_the_last_piece_that_began_before_it() {
        let pieces = pieces();
        assert_eq!(pieces.holding(0, 9), None);
        assert_eq!(pieces.holding(0, 10), Some((3, 3)));
        assert_eq!(pieces.holding(0, 19), Some((3, 3)));
        // The shard was idle while piece 4 was filled.
        assert_eq!(pieces.holding(0, 20), Some((5, i32::MAX)));
        assert_eq!(pieces.holding(1, 1), Some((4, 4)));
        assert_eq!(pieces.holding(1, 2), Some((5, i32::MAX)));
        assert_eq!(Pieces::default().holding(0, 0), None);
    }

    #[test]
    fn the_front_ends_where_the_next_piece_begins() {
        let front = pieces().front().unwrap();
        assert_eq!(front.oldest_ends, [position(19) + 7, 0]);
        assert_eq!(front.old_ends, [position(19) + 7, position(1) + 9]);
        assert_eq!((front.oldest_bytes, front.old_bytes), (500, 600));
        assert_eq!(pieces().given_back(), 1_000);
    }

    #[test]
    fn a_log_of_one_piece_gives_nothing_back() {
        let mut pieces = pieces();
        pieces.renew(5, Vec::new());
        assert_eq!((pieces.front(), pieces.given_back()), (None, 1_600));
    }
}
