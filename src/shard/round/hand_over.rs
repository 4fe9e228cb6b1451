//! Messages of a transaction that go straight to whoever appended them.
//!
//! In: batches as they were stored. Out: leases on them, where nobody else has anything to do there
//! first. Called by `transactions`, behind all else that a transaction changes.

use crate::buffer::receipt::Stored;
use crate::shard::round::Round;
use crate::shard::transaction::{HandOver, TransactionAppend};

impl Round<'_> {
    /// For each batch up to the last one that is to be handed over, when its lease ends.
    pub(super) fn hand_over(
        &mut self,
        appends: &[TransactionAppend],
        stored: &[Stored],
    ) -> Vec<Option<u64>> {
        let Some(last) = appends.iter().rposition(|append| append.claim.is_some()) else {
            return Vec::new();
        };
        if self.maintenance().pop {
            return Vec::new();
        }
        let pairs = appends.iter().zip(stored).take(last + 1);
        let handed = pairs.map(|(append, Stored { partition, pushed })| {
            let HandOver { group, token, lease_ms } = append.claim.as_ref()?;
            let draft = self.draft(self.replica.count().of_partition(*partition))?;
            draft.hand_over(*partition, pushed, group.as_str(), *token, *lease_ms)
        });
        handed.collect()
    }
}
