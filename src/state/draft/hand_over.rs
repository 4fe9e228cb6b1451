//! Deciding hand-overs: whoever appends messages leases them in the same entry.
//!
//! A consumer that sends a message to a partition that it consumes too would pop it a commit later. Here
//! it gets the lease with the append, but only where that is what a pop would have found: the group holds
//! nothing there, waits for nothing, and is done with all that came before. Nothing new comes into the
//! log by it. Pure; called by `shard` between a mark and its end.

use crate::base::place::PartitionNumber;
use crate::state::draft::Draft;
use crate::state::draft::gates::Rules;
use crate::state::draft::push::Pushed;
use crate::state::effect::LeaseToken;
use crate::state::model::Lease;

impl Draft<'_> {
    /// Leases what this draft has just pushed into a partition. Returns when the lease ends, unix
    /// milliseconds; `None` where it is left to be popped, and nothing was decided. So are messages of
    /// which some were there before, and those of a partition that this draft makes.
    pub fn hand_over(
        &mut self,
        partition: PartitionNumber,
        pushed: &Pushed,
        group: &str,
        token: LeaseToken,
        lease_ms: u64,
    ) -> Option<u64> {
        let Pushed::Stored { first_seq, count, .. } = pushed else { return None };
        let queue = self.state.partition(partition)?.queue;
        let rules = Rules::of(self.context.catalog.get(queue)?);
        if rules.delay_ms > 0 || rules.window_ms > 0 {
            return None;
        }
        let group = self.state.group(queue, group)?;
        let cursor = self.cursor(partition, group)?;
        let is_idle = cursor.lease.is_none() && cursor.progress.next == *first_seq;
        if !is_idle || cursor.progress.waits_until_ms() > self.now_ms {
            return None;
        }
        let (until_ms, from) = (self.now_ms.saturating_add(lease_ms), *first_seq);
        let to = from + u64::from(*count);
        self.lease(partition, group, cursor, Lease { token, until_ms, from, to });
        Some(until_ms)
    }
}
