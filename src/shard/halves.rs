//! Two appends at once: many pushes are committed in two halves, where the store works on two appends
//! side by side. A database spends most of an append in one process for each connection, while the
//! lane waits; two of them use two cores and share the sync.
//!
//! In: work that is nothing but pushes. Out: two works whose shards have nothing to do with each other,
//! both committed. Called by the lane.

use std::collections::BTreeSet;

use crate::base::place::ShardId;
use crate::buffer::ring::Ring;
use crate::log::Append;
use crate::shard::follow::all;
use crate::shard::lane::{Lane, Offered};
use crate::shard::round::{Plan, Work};

impl Lane {
    /// Two halves of about the same size.
    ///
    /// # Errors
    /// The work itself, where it is more than pushes, or little, or would be committed one half after
    /// the other all the same.
    pub(super) fn halves(&self, mut work: Work) -> Result<[Work; 2], Box<Work>> {
        let bytes = |rings: &[Ring]| rings.iter().map(Ring::bytes).sum::<u64>();
        let all: u64 = work.rings.iter().map(|(_, rings)| bytes(rings)).sum();
        let is_worth_it =
            self.log.width() > 1 && work.rings.len() > 1 && all >= self.config.halves_bytes_min;
        // Whose lease ends is found in any shard.
        if !is_worth_it || !work.is_only_pushes() || self.timer_due() {
            return Err(Box::new(work));
        }
        let mut first = Work::default();
        let mut taken = 0;
        while taken < all / 2 && work.rings.len() > 1 {
            let Some(of_shard) = work.rings.pop() else { break };
            taken += bytes(&of_shard.1);
            first.rings.push(of_shard);
        }
        Ok([first, work])
    }

    /// Commits both halves, side by side if nothing speaks against it.
    pub(super) fn commit_halves(&mut self, halves: [Work; 2]) {
        let plans = halves.each_ref().map(|half| self.decide(half));
        let [first, second] = &plans;
        if !may_go_side_by_side(first, second) {
            for half in halves {
                self.commit_whole(half, None);
            }
            return;
        }
        let started = self.clock.monotonic_us();
        let appends = vec![
            self.log.append(&first.proposals, first.durability),
            self.log.append(&second.proposals, second.durability),
        ];
        let answers = self.runtime.block_on(all(appends));
        self.telemetry.commit_latency.record(self.clock.monotonic_us() - started, 2);
        let offered = plans.into_iter().zip(answers);
        let offered = offered.map(|(plan, answer)| Offered { plan, answer });
        // Those that stand are applied first: whatever else happened, following must not meet them.
        let (standing, others): (Vec<_>, Vec<_>) = halves
            .into_iter()
            .zip(offered)
            .partition(|(_, offered)| matches!(offered.answer, Ok(Append::Appended(_))));
        for (work, offered) in standing.into_iter().chain(others) {
            self.commit_whole(work, Some(offered));
        }
    }
}

/// Whether two plans touch different shards, and neither wants a look at what others did.
fn may_go_side_by_side(first: &Plan, second: &Plan) -> bool {
    let shards =
        |plan: &Plan| plan.entries.iter().map(|(shard, _)| *shard).collect::<BTreeSet<ShardId>>();
    let are_apart = shards(first).is_disjoint(&shards(second));
    let are_something = !first.proposals.is_empty() && !second.proposals.is_empty();
    are_apart && are_something && !first.is_doubtful() && !second.is_doubtful()
}
