//! Messages that were deleted one by one: ranges of sequences by partition.
//!
//! A group that comes later, or goes back, must not meet them. They are forgotten when retention
//! takes their place in the partition. Pure; changed by `apply` only.

use std::collections::BTreeMap;

use crate::base::place::PartitionNumber;
use crate::state::effect::{Progress, Sequence};

/// Deleted messages of one shard.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Erased(BTreeMap<PartitionNumber, Vec<(Sequence, Sequence)>>);

impl Erased {
    /// The ranges of a partition, first and last, ascending.
    #[must_use]
    pub fn of(&self, partition: PartitionNumber) -> &[(Sequence, Sequence)] {
        self.0.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// Whether a message was deleted.
    #[must_use]
    pub fn has(&self, partition: PartitionNumber, seq: Sequence) -> bool {
        self.of(partition).iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }

    pub(in crate::state) fn add(&mut self, partition: PartitionNumber, seq: Sequence) {
        let ranges = self.0.entry(partition).or_default();
        // The arithmetic of settled ranges: joined where they touch.
        let mut joined = Progress { settled: std::mem::take(ranges), ..Progress::default() };
        // A range that begins at 0 would be swallowed by the cursor: everything is one further here.
        joined.settled.iter_mut().for_each(|range| *range = (range.0 + 1, range.1 + 1));
        joined.settle(seq + 1, seq + 1);
        joined.settled.iter_mut().for_each(|range| *range = (range.0 - 1, range.1 - 1));
        *ranges = joined.settled;
    }

    pub(in crate::state) fn put(
        &mut self,
        partition: PartitionNumber,
        ranges: Vec<(Sequence, Sequence)>,
    ) {
        self.0.insert(partition, ranges);
    }

    /// Forgets what lies below `base`; tells whether anything did.
    pub(in crate::state) fn trim(&mut self, partition: PartitionNumber, base: Sequence) -> bool {
        let Some(ranges) = self.0.get_mut(&partition) else { return false };
        let before = ranges.len();
        ranges.retain(|(_, last)| *last >= base);
        let changed = ranges.len() != before;
        if ranges.is_empty() {
            self.0.remove(&partition);
        }
        changed
    }

    pub(in crate::state) fn forget(&mut self, partition: PartitionNumber) -> bool {
        self.0.remove(&partition).is_some()
    }

    /// Settles in a group's progress what was deleted; tells whether that changed it.
    pub(in crate::state) fn lay_over(
        &self,
        partition: PartitionNumber,
        progress: &mut Progress,
    ) -> bool {
        let mut changed = false;
        for (first, last) in self.of(partition) {
            if !progress.open_ranges(*first, last + 1).is_empty() {
                progress.settle(*first, *last);
                changed = true;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_where_they_touch_and_go_with_their_place() {
        let mut erased = Erased::default();
        for seq in [5, 0, 6, 1, 9] {
            erased.add(2, seq);
        }
        assert_eq!(erased.of(2), [(0, 1), (5, 6), (9, 9)]);
        assert!(erased.has(2, 6) && !erased.has(2, 7) && !erased.has(3, 6));
        assert!(erased.trim(2, 6));
        assert_eq!(erased.of(2), [(5, 6), (9, 9)]);
        let mut progress = Progress { next: 5, ..Progress::default() };
        assert!(erased.lay_over(2, &mut progress));
        assert_eq!((progress.next, progress.settled.as_slice()), (7, &[(9, 9)][..]));
        assert!(!erased.lay_over(2, &mut progress));
    }
}
