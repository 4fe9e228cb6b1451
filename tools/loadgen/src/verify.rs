//! Holds what came out against what went in: lost, duplicated, reordered, damaged.
//!
//! In: every message in the order in which it was handed out, and at the end the producers'
//! ledgers. Out: [`Integrity`]. One number for each (producer, partition) is enough while all is
//! well: the next one expected. Only gaps take memory, so millions of messages a second cost a
//! compare and an add each. Called by consumers.

use std::collections::HashMap;

use onrush_protocol::Qos;
use serde::Serialize;

use crate::numbers::{Ledger, Range};
use crate::payload::Stamp;

/// Checks one run's messages as they come out.
pub(crate) struct Verifier {
    /// The upper half of this run's producer numbers.
    mark: u16,
    partitions: usize,
    /// The next number expected, by producer and partition.
    next: Vec<u64>,
    /// Numbers that were stepped over and have not come since.
    missing: HashMap<(u32, u32), Vec<(u64, u64)>>,
    /// The next sequence number of the server's own, by partition.
    server_next: HashMap<u32, u64>,
    found: Integrity,
}

/// What the check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Integrity {
    /// Messages that came out, each counted once.
    pub(crate) received: u64,
    /// Accepted, and never came out.
    pub(crate) lost: u64,
    /// Came out more than once.
    pub(crate) duplicated: u64,
    /// Came out behind a later one of the same producer and partition, or against the server's
    /// own sequence.
    pub(crate) reordered: u64,
    /// Payload not as it was sent.
    pub(crate) damaged: u64,
    /// Refused, and came out all the same.
    pub(crate) refused_but_stored: u64,
    /// Numbers that the server's own sequences leave out.
    pub(crate) sequence_gaps: u64,
    /// Of another run, in a queue that both use; not checked.
    pub(crate) foreign: u64,
}

impl Integrity {
    /// Adds what another group's check found.
    pub(crate) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.damaged += other.damaged;
        self.refused_but_stored += other.refused_but_stored;
        self.sequence_gaps += other.sequence_gaps;
        self.foreign += other.foreign;
    }

    /// Whether the server kept its promises. Only exactly once promises that nothing comes out
    /// twice; the others are told of it all the same.
    pub(crate) fn is_sound(&self, qos: Qos) -> bool {
        let faults = [
            self.lost,
            self.reordered,
            self.damaged,
            self.refused_but_stored,
            self.sequence_gaps,
            if qos == Qos::ExactlyOnce { self.duplicated } else { 0 },
        ];
        faults.iter().all(|&count| count == 0)
    }
}

impl Verifier {
    pub(crate) fn new(mark: u16, producers: usize, partitions: usize) -> Self {
        Self {
            mark,
            partitions,
            next: vec![0; producers * partitions],
            missing: HashMap::new(),
            server_next: HashMap::new(),
            found: Integrity::default(),
        }
    }

    /// How many of this run's messages have come out, each counted once.
    pub(crate) fn received(&self) -> u64 {
        self.found.received
    }

    /// A run of messages with consecutive sequence numbers begins at `first_seq`.
    pub(crate) fn sequence(&mut self, partition_number: u32, first_seq: u64, count: u64) {
        let next = self.server_next.entry(partition_number).or_insert(first_seq);
        if first_seq > *next {
            self.found.sequence_gaps += first_seq - *next;
        } else if first_seq < *next {
            self.found.reordered += 1;
        }
        *next = (first_seq + count).max(*next);
    }

    /// One payload of partition `partition`, in the order of handing out. Returns its stamp when
    /// it is sound and one of this run's.
    pub(crate) fn message(&mut self, partition: Option<u32>, payload: &[u8]) -> Option<Stamp> {
        let Some(stamp) = Stamp::read(payload) else {
            self.found.damaged += 1;
            return None;
        };
        if (stamp.producer >> 16) as u16 != self.mark {
            self.found.foreign += 1;
            return None;
        }
        let producer = stamp.producer & 0xffff;
        let at = partition
            .filter(|&partition| (partition as usize) < self.partitions)
            .map(|partition| producer as usize * self.partitions + partition as usize);
        let Some((partition, next)) = partition.zip(at.and_then(|at| self.next.get_mut(at))) else {
            // A mark of ours in a partition or from a producer that we do not have.
            self.found.damaged += 1;
            return None;
        };
        if stamp.seq == *next {
            *next += 1;
            self.found.received += 1;
        } else if stamp.seq > *next {
            let gap = (*next, stamp.seq);
            *next = stamp.seq + 1;
            self.found.received += 1;
            self.missing.entry((producer, partition)).or_default().push(gap);
        } else if self.fill((producer, partition), stamp.seq) {
            self.found.received += 1;
            self.found.reordered += 1;
        } else {
            self.found.duplicated += 1;
        }
        Some(stamp)
    }

    /// Takes `seq` out of the gaps; `false` when it was in none.
    fn fill(&mut self, key: (u32, u32), seq: u64) -> bool {
        let Some(gaps) = self.missing.get_mut(&key) else { return false };
        let Some(at) = gaps.iter().position(|&(from, to)| (from..to).contains(&seq)) else {
            return false;
        };
        let (from, to) = gaps.swap_remove(at);
        gaps.extend([(from, seq), (seq + 1, to)].into_iter().filter(|(from, to)| from < to));
        true
    }

    /// The verdict, once nothing more comes out. Numbers that were refused, or of which nobody
    /// knows, are not lost; refused ones must not have come.
    pub(crate) fn close(mut self, ledgers: &[Ledger]) -> Integrity {
        for (producer, ledger) in ledgers.iter().enumerate() {
            for (partition, &given) in ledger.given.iter().enumerate() {
                let next = self.next.get(producer * self.partitions + partition);
                let next = next.copied().unwrap_or(0);
                if next < given {
                    let key = (producer as u32, partition as u32);
                    self.missing.entry(key).or_default().push((next, given));
                }
            }
            let unknown = self.missing_of(producer, &ledger.unknown);
            let refused = self.missing_of(producer, &ledger.refused);
            let refused_all: u64 = ledger.refused.iter().map(|range| range.to - range.from).sum();
            self.found.refused_but_stored += refused_all - refused;
            let missing: u64 = self
                .missing
                .iter()
                .filter(|((of, _), _)| *of as usize == producer)
                .flat_map(|(_, gaps)| gaps)
                .map(|(from, to)| to - from)
                .sum();
            self.found.lost += missing.saturating_sub(unknown + refused);
        }
        self.found
    }

    /// How many numbers of these ranges are missing.
    fn missing_of(&self, producer: usize, ranges: &[Range]) -> u64 {
        let mut count = 0;
        for range in ranges {
            let gaps = self.missing.get(&(producer as u32, range.partition));
            for (from, to) in gaps.into_iter().flatten() {
                count += range.to.min(*to).saturating_sub(range.from.max(*from));
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::STAMP_BYTES;

    const MARK: u16 = 0xbeef;

    fn payload(producer: u32, seq: u64) -> Vec<u8> {
        let mut place = [0; STAMP_BYTES];
        let producer = u32::from(MARK) << 16 | producer;
        Stamp { producer, seq, sent_ns: 1 }.write(crc32fast::hash(b"x"), &mut place);
        [&place[..], b"x"].concat()
    }

    /// One producer, one partition, `given` numbers; `order` came out.
    fn verdict(order: &[u64], ledger: Ledger) -> Integrity {
        let mut verifier = Verifier::new(MARK, 1, 1);
        for &seq in order {
            verifier.message(Some(0), &payload(0, seq));
        }
        verifier.close(&[ledger])
    }

    fn given(count: u64) -> Ledger {
        Ledger { given: vec![count], ..Ledger::default() }
    }

    fn range(from: u64, to: u64) -> Range {
        Range { partition: 0, from, to }
    }

    #[test]
    fn all_in_order_is_sound() {
        let found = verdict(&[0, 1, 2, 3], given(4));
        assert!(found.is_sound(Qos::ExactlyOnce));
        assert_eq!(found.received, 4);
    }

    #[test]
    fn one_missing_in_the_middle_or_at_the_end_is_lost() {
        assert_eq!(verdict(&[0, 2, 3], given(4)).lost, 1);
        assert_eq!(verdict(&[0, 1], given(4)).lost, 2);
        assert_eq!(verdict(&[], given(4)).lost, 4);
    }

    #[test]
    fn one_that_comes_late_is_reordered_and_not_lost() {
        let found = verdict(&[0, 2, 1, 3], given(4));
        assert_eq!((found.reordered, found.lost, found.duplicated), (1, 0, 0));
    }

    #[test]
    fn one_that_comes_twice_is_duplicated() {
        let found = verdict(&[0, 1, 1, 2, 0], given(3));
        assert_eq!((found.duplicated, found.reordered, found.lost), (2, 0, 0));
        let late_twice = verdict(&[0, 2, 1, 1], given(3));
        assert_eq!((late_twice.duplicated, late_twice.reordered), (1, 1));
    }

    #[test]
    fn what_was_refused_is_not_lost_and_must_not_come() {
        let ledger = || Ledger { refused: vec![range(1, 3)], ..given(4) };
        assert!(verdict(&[0, 3], ledger()).is_sound(Qos::ExactlyOnce));
        assert_eq!(verdict(&[0, 1, 3], ledger()).refused_but_stored, 1);
        // A refusal does not excuse another loss.
        assert_eq!(verdict(&[0], ledger()).lost, 1);
    }

    #[test]
    fn what_nobody_knows_may_come_or_not() {
        let ledger = || Ledger { unknown: vec![range(1, 3)], ..given(4) };
        assert!(verdict(&[0, 3], ledger()).is_sound(Qos::ExactlyOnce));
        assert!(verdict(&[0, 1, 2, 3], ledger()).is_sound(Qos::ExactlyOnce));
    }

    #[test]
    fn a_damaged_payload_counts_as_damaged_and_lost() {
        let mut verifier = Verifier::new(MARK, 1, 1);
        let mut damaged = payload(0, 0);
        damaged[2] ^= 1;
        verifier.message(Some(0), &damaged);
        verifier.message(Some(0), &payload(0, 1));
        let found = verifier.close(&[given(2)]);
        assert_eq!((found.damaged, found.lost), (1, 1));
    }

    #[test]
    fn producers_and_partitions_are_told_apart() {
        let mut verifier = Verifier::new(MARK, 2, 2);
        for (producer, partition) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            for seq in 0..3 {
                verifier.message(Some(partition), &payload(producer, seq));
            }
        }
        let ledger = || Ledger { given: vec![3, 3], ..Ledger::default() };
        let found = verifier.close(&[ledger(), ledger()]);
        assert!(found.is_sound(Qos::ExactlyOnce));
        assert_eq!(found.received, 12);
    }

    #[test]
    fn another_run_in_the_same_queue_is_left_alone() {
        let mut verifier = Verifier::new(MARK.wrapping_add(1), 1, 1);
        verifier.message(Some(0), &payload(0, 0));
        let found = verifier.close(&[given(0)]);
        assert_eq!((found.foreign, found.is_sound(Qos::ExactlyOnce)), (1, true));
    }

    #[test]
    fn the_servers_own_sequence_must_be_dense() {
        let mut verifier = Verifier::new(MARK, 1, 1);
        verifier.sequence(7, 0, 10);
        verifier.sequence(7, 10, 5);
        verifier.sequence(8, 3, 1);
        assert_eq!(verifier.found, Integrity::default());
        verifier.sequence(7, 17, 1);
        verifier.sequence(7, 4, 1);
        assert_eq!((verifier.found.sequence_gaps, verifier.found.reordered), (2, 1));
    }
}
