//! How a group's progress in a partition moves: never back, never past what is not settled.
//!
//! Pure arithmetic on sequences. Called by `draft` (deciding) and `apply` (trimming).

use crate::state::effect::{Progress, Sequence};

impl Progress {
    /// Whether a message is settled.
    #[must_use]
    pub fn is_settled(&self, seq: Sequence) -> bool {
        seq < self.next || self.range_of(seq).is_some()
    }

    /// Marks `first..=last` settled; `next` moves over everything that is settled without a gap.
    pub fn settle(&mut self, first: Sequence, last: Sequence) {
        if last < first || last < self.next {
            return;
        }
        let mut joined = (first.max(self.next), last);
        self.settled.retain(|(from, to)| {
            let apart = *to + 1 < joined.0 || joined.1 + 1 < *from;
            if !apart {
                joined = (joined.0.min(*from), joined.1.max(*to));
            }
            apart
        });
        let at = self.settled.partition_point(|(from, _)| *from < joined.0);
        self.settled.insert(at, joined);
        self.attempts.retain(|(seq, _)| *seq < first || *seq > last);
        self.absorb();
    }

    /// Makes a settled message open again, with no attempt counted: the one way in which a cursor goes
    /// back.
    pub fn reopen(&mut self, seq: Sequence) {
        if seq < self.next {
            if seq + 1 < self.next {
                self.settled.insert(0, (seq + 1, self.next - 1));
            }
            self.next = seq;
        } else if let Some(at) =
            self.settled.iter().position(|(first, last)| (*first..=*last).contains(&seq))
        {
            let (first, last) = self.settled.remove(at);
            if seq < last {
                self.settled.insert(at, (seq + 1, last));
            }
            if first < seq {
                self.settled.insert(at, (first, seq - 1));
            }
        }
    }

    /// Forgets everything below `base`: it is gone from the partition.
    pub fn advance_to(&mut self, base: Sequence) {
        self.next = self.next.max(base);
        self.settled.retain(|(_, to)| *to >= base);
        self.attempts.retain(|(seq, _)| *seq >= base);
        self.absorb();
    }

    /// Failed attempts of a message so far.
    #[must_use]
    pub fn attempts_of(&self, seq: Sequence) -> u32 {
        let found = self.attempts.binary_search_by_key(&seq, |(at, _)| *at);
        found.ok().and_then(|at| self.attempts.get(at)).map_or(0, |(_, attempts)| *attempts)
    }

    /// Counts one more failed attempt of a message that is not settled; returns its new count.
    pub fn fail(&mut self, seq: Sequence) -> u32 {
        match self.attempts.binary_search_by_key(&seq, |(at, _)| *at) {
            Ok(at) => self.attempts.get_mut(at).map_or(0, |(_, attempts)| {
                *attempts = attempts.saturating_add(1);
                *attempts
            }),
            Err(at) => {
                self.attempts.insert(at, (seq, 1));
                1
            }
        }
    }

    /// Lets nothing be handed out before `until_ms`.
    pub fn wait_until(&mut self, until_ms: u64) {
        self.not_before_ms = self.not_before_ms.max(until_ms);
    }

    /// Before when nothing is handed out, unix milliseconds; 0 where that is no time. A delay may outlive
    /// the message that it was for: one that was deleted, or that was let go of by its age.
    #[must_use]
    pub fn waits_until_ms(&self) -> u64 {
        if self.attempts.is_empty() { 0 } else { self.not_before_ms }
    }

    /// Forgets a delay that is over, or that no message is left for.
    pub fn forget_waiting(&mut self, now_ms: u64) {
        if self.not_before_ms <= now_ms || self.attempts.is_empty() {
            self.not_before_ms = 0;
        }
    }

    /// The unsettled parts of `[from, to)`, ascending, as half-open ranges.
    #[must_use]
    pub fn open_ranges(&self, from: Sequence, to: Sequence) -> Vec<(Sequence, Sequence)> {
        let mut open = Vec::new();
        let mut at = from.max(self.next);
        for (first, last) in &self.settled {
            if *first >= to {
                break;
            }
            if *first > at {
                open.push((at, *first));
            }
            at = at.max(*last + 1);
        }
        if at < to {
            open.push((at, to));
        }
        open
    }

    /// Whether anything below `to` is not settled.
    #[must_use]
    pub fn has_open(&self, to: Sequence) -> bool {
        // `next` itself is never settled, or it would have moved.
        self.next < to
    }

    fn range_of(&self, seq: Sequence) -> Option<(Sequence, Sequence)> {
        let after = self.settled.partition_point(|(from, _)| *from <= seq);
        let range = self.settled.get(after.checked_sub(1)?)?;
        (range.1 >= seq).then_some(*range)
    }

    fn absorb(&mut self) {
        let next = &mut self.next;
        self.settled.retain(|(from, to)| {
            if *from <= *next {
                *next = (*next).max(*to + 1);
            }
            *from > *next
        });
        let next = self.next;
        self.attempts.retain(|(seq, _)| *seq >= next);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn settling_out_of_order_moves_next_only_over_whole_stretches() {
        let mut progress = Progress::default();
        progress.settle(2, 3);
        assert_eq!((progress.next, progress.settled.as_slice()), (0, &[(2, 3)][..]));
        progress.settle(0, 1);
        assert_eq!((progress.next, progress.settled.len()), (4, 0));
    }

    #[test]
    fn open_ranges_leave_out_what_is_settled() {
        let mut progress = Progress::default();
        progress.settle(2, 3);
        progress.settle(6, 6);
        assert_eq!(progress.open_ranges(0, 8), vec![(0, 2), (4, 6), (7, 8)]);
    }

    proptest! {
        #[test]
        fn progress_equals_a_set_of_settled_sequences(
            steps in prop::collection::vec((0_u64..40, 0_u64..6, 0_u64..40), 0..40)
        ) {
            let (mut progress, mut model) = (Progress::default(), BTreeSet::new());
            for (first, more, reopened) in steps {
                progress.settle(first, first + more);
                model.extend(first..=first + more);
                if more == 0 {
                    progress.reopen(reopened);
                    model.remove(&reopened);
                }
                let next = (0..).find(|seq| !model.contains(seq)).unwrap();
                prop_assert_eq!(progress.next, next);
                for seq in 0..60 {
                    prop_assert_eq!(progress.is_settled(seq), model.contains(&seq), "seq {}", seq);
                }
                let open: Vec<u64> =
                    progress.open_ranges(0, 60).into_iter().flat_map(|(a, b)| a..b).collect();
                let expected: Vec<u64> = (0..60).filter(|seq| !model.contains(seq)).collect();
                prop_assert_eq!(open, expected);
                for pair in progress.settled.windows(2) {
                    prop_assert!(pair[0].1 + 1 < pair[1].0, "ranges touch");
                }
            }
        }
    }
}
