//! Which numbers the next batch's messages have, and what became of them.
//!
//! In: partitions in turn, answers. Out: slots of a batch, and at the end the [`Ledger`] that the
//! verifier holds the messages against. Pure but for its own random choice of duplicates. Called
//! by producers of both protocols.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Gives out numbers, one sequence for each partition.
pub(crate) struct Numbers {
    batch: u32,
    /// Part of messages that repeat an old number, 0 to 1.
    duplicates: f64,
    random: SmallRng,
    /// The newest number known to be stored, by partition; what duplicates repeat. A number that
    /// is still under way might be refused, and its repetition would then be the first.
    stored: Vec<Option<u64>>,
    pub(crate) ledger: Ledger,
}

/// Which numbers one producer gave out, and which of them need not arrive.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How many numbers were given out, by partition.
    pub(crate) given: Vec<u64>,
    /// Numbers that the server refused, and must not hand out.
    pub(crate) refused: Vec<Range>,
    /// Numbers of which nobody knows; they may arrive or not.
    pub(crate) unknown: Vec<Range>,
    /// Messages that were accepted, duplicates aside.
    pub(crate) accepted: u64,
    /// What the server calls a partition, where a receipt told; by partition.
    pub(crate) names: Vec<Option<u32>>,
}

/// Numbers from `from` up to and without `to`, of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) partition: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What one batch holds: its new numbers, and how many of its messages repeat an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) range: Range,
    pub(crate) repeated: u32,
}

impl Numbers {
    pub(crate) fn new(partitions: u32, batch: u32, duplicates: f64, seed: u64) -> Self {
        let partitions = partitions as usize;
        let random = SmallRng::seed_from_u64(seed);
        let stored = if duplicates > 0.0 { vec![None; partitions] } else { Vec::new() };
        let (given, names) = (vec![0; partitions], vec![None; partitions]);
        let ledger = Ledger { given, names, ..Ledger::default() };
        Self { batch, duplicates, random, stored, ledger }
    }

    /// Numbers the messages of the next batch of `partition`; `seqs` is theirs after.
    pub(crate) fn next(&mut self, partition: u32, seqs: &mut Vec<u64>) -> Share {
        let given = self.ledger.given.get_mut(partition as usize);
        let from = given.as_ref().map_or(0, |given| **given);
        let repeatable = self.stored.get(partition as usize).copied().flatten();
        let (mut to, mut repeated) = (from, 0);
        seqs.clear();
        for _ in 0..self.batch {
            match repeatable {
                Some(seq) if self.random.random_bool(self.duplicates) => {
                    repeated += 1;
                    seqs.push(seq);
                }
                _ => {
                    seqs.push(to);
                    to += 1;
                }
            }
        }
        if let Some(given) = given {
            *given = to;
        }
        Share { range: Range { partition, from, to }, repeated }
    }

    /// A receipt told the server's number of a partition.
    pub(crate) fn learn(&mut self, share: Share, number: Option<u32>) {
        if let Some(known) = self.ledger.names.get_mut(share.range.partition as usize) {
            *known = number.or(*known);
        }
    }

    /// The batch was stored.
    pub(crate) fn accepted(&mut self, share: Share) {
        let Range { partition, from, to } = share.range;
        self.ledger.accepted += to - from;
        if to > from
            && let Some(stored) = self.stored.get_mut(partition as usize)
        {
            *stored = Some(to - 1);
        }
    }

    /// The batch was refused, and nothing of it was done.
    pub(crate) fn refused(&mut self, share: Share) {
        self.ledger.refused.push(share.range);
    }

    /// Nobody knows what became of the batch.
    pub(crate) fn unknown(&mut self, share: Share) {
        self.ledger.unknown.push(share.range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_in_each_partition() {
        let mut numbers = Numbers::new(2, 3, 0.0, 1);
        let mut seqs = Vec::new();
        for from in [0, 3, 6] {
            for partition in [0, 1] {
                let share = numbers.next(partition, &mut seqs);
                assert_eq!(share.range, Range { partition, from, to: from + 3 });
                assert_eq!(seqs, [from, from + 1, from + 2]);
            }
        }
        assert_eq!(numbers.ledger.given, [9, 9]);
    }

    #[test]
    fn only_numbers_known_to_be_stored_are_repeated() {
        let mut numbers = Numbers::new(1, 1000, 0.5, 1);
        let mut seqs = Vec::new();
        let first = numbers.next(0, &mut seqs);
        assert_eq!(first.repeated, 0);
        assert_eq!(numbers.next(0, &mut seqs).repeated, 0);
        numbers.accepted(first);
        let third = numbers.next(0, &mut seqs);
        assert!((300..700).contains(&third.repeated));
        assert_eq!(seqs.iter().filter(|&&seq| seq == 999).count(), third.repeated as usize);
        assert_eq!(third.range.to - third.range.from, u64::from(1000 - third.repeated));
    }
}
