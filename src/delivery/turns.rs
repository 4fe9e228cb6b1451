//! Which of several queues a consumer's pop asks first: the one with the higher priority, but none is
//! passed over for ever.
//!
//! In: queues with their priorities, and how each pop ended. Out: an order. A queue that had its turn
//! starts anew; one that was not asked, because another one had messages before its turn came, is
//! passed over once more. Whoever was passed over [`PATIENCE`] times is asked before all others, the
//! longest waiting first, whatever its priority; below that the priority counts, and among equals
//! again who was passed over more often: they take turns. So a queue with messages is asked at the
//! latest by the (`PATIENCE` + n)th pop of its group that finds anything, n being the queues that the
//! pop could ask. Kept per group, on each server for itself, and forgotten when it stops. Called by
//! `discover`.

use hashbrown::HashMap;
use onrush_protocol::name::GroupName;
use parking_lot::Mutex;

use crate::base::place::QueueId;

/// Pops that a queue with messages may be passed over for.
const PATIENCE: u32 = 16;
/// Groups that are remembered; beyond that all are forgotten, and begin anew.
const GROUPS_MAX: usize = 4096;

/// How often each queue was passed over.
type Passed = HashMap<QueueId, u32>;

/// How often queues were passed over, by group.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<GroupName, Passed>>);

impl Turns {
    /// Puts queues into the order in which they are to be asked.
    pub(super) fn sort<T>(
        &self,
        group: &GroupName,
        queues: &mut [T],
        of: impl Fn(&T) -> (QueueId, i32),
    ) {
        let groups = self.0.lock();
        let passed = groups.get(group);
        queues.sort_by_key(|queue| {
            let (id, priority) = of(queue);
            let passed = passed.and_then(|it| it.get(&id)).copied().unwrap_or(0);
            let is_patient = passed < PATIENCE;
            // Those without patience come first, and among them only how long they wait counts.
            let priority = if is_patient { -i64::from(priority) } else { 0 };
            (is_patient, priority, std::cmp::Reverse(passed), id)
        });
    }

    /// Of `queues`, in the order asked, the one at `served` had messages; those before it were asked
    /// in vain, and those behind it not at all.
    pub(super) fn note(&self, group: &GroupName, queues: &[QueueId], served: usize) {
        let mut groups = self.0.lock();
        if groups.len() >= GROUPS_MAX && !groups.contains_key(group) {
            groups.clear();
        }
        let passed = groups.entry(group.detach()).or_default();
        for (at, queue) in queues.iter().enumerate() {
            if at <= served {
                passed.remove(queue);
            } else {
                *passed.entry(*queue).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(turns: &Turns, queues: &[(QueueId, i32)]) -> Vec<QueueId> {
        let mut queues = queues.to_vec();
        turns.sort(&GroupName::queue_mode(), &mut queues, |it| *it);
        queues.into_iter().map(|(id, _)| id).collect()
    }

    /// A pop: the first queue in order that has messages serves.
    fn pop(turns: &Turns, queues: &[(QueueId, i32)], has: impl Fn(QueueId) -> bool) -> Option<u32> {
        let ids = order(turns, queues);
        let served = ids.iter().position(|id| has(*id)).unwrap_or(ids.len());
        turns.note(&GroupName::queue_mode(), &ids, served);
        ids.get(served).copied()
    }

    #[test]
    fn a_higher_priority_is_served_first_and_equals_take_turns() {
        let turns = Turns::default();
        let queues = [(1, 0), (2, 5), (3, 5), (4, -1)];
        let served: Vec<_> = (0..4).map(|_| pop(&turns, &queues, |_| true).unwrap()).collect();
        assert_eq!(served, [2, 3, 2, 3]);
        assert_eq!(pop(&turns, &queues, |id| id == 4 || id == 1), Some(1));
    }

    #[test]
    fn a_low_priority_gets_its_turn_after_it_was_passed_over_so_often() {
        let turns = Turns::default();
        let queues = [(1, i32::MAX), (2, i32::MIN)];
        let served: Vec<_> = (0..=PATIENCE).map(|_| pop(&turns, &queues, |_| true)).collect();
        assert_eq!(served.iter().filter(|it| **it == Some(2)).count(), 1);
        assert_eq!(served.last(), Some(&Some(2)));
    }

    proptest! {
        #[test]
        fn no_queue_with_messages_is_passed_over_for_longer_than_it_is_said(
            priorities in prop::collection::vec(-3..4_i32, 1..7),
            others in prop::collection::vec(any::<u8>(), 60),
        ) {
            let queues: Vec<(QueueId, i32)> = (0..).zip(priorities).collect();
            let bound = PATIENCE as usize + queues.len();
            for (starving, _) in &queues {
                let turns = Turns::default();
                let mut waited = 0;
                for has in &others {
                    let served = pop(&turns, &queues, |id| id == *starving || has >> id & 1 == 1);
                    waited = if served == Some(*starving) { 0 } else { waited + 1 };
                    prop_assert!(waited < bound, "{} waits since {} pops", starving, waited);
                }
            }
        }

        #[test]
        fn nobody_comes_before_a_higher_priority_unless_passed_over_too_often(
            priorities in prop::collection::vec(-3..4_i32, 2..7), pops in 1..(PATIENCE as usize)
        ) {
            let queues: Vec<(QueueId, i32)> = (0..).zip(priorities).collect();
            let turns = Turns::default();
            let highest = queues.iter().map(|it| it.1).max();
            for _ in 0..pops {
                let served = pop(&turns, &queues, |_| true).unwrap();
                prop_assert_eq!(Some(queues[served as usize].1), highest);
            }
        }
    }
}
