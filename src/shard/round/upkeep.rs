//! Upkeep in a round: what retention lets go of, and what is written again so that its space can be
//! given back.
//!
//! A queue may have a million partitions, so retention looks at some of them in each commit and says
//! where it goes on. Called by `round`.

use crate::base::place::{QueueId, ShardId};
use crate::shard::round::{Round, Work};
use crate::state::draft::upkeep::Diligence;

/// What one commit does for retention: for so long it keeps everybody else waiting.
const PER_COMMIT: Diligence = Diligence { partitions: 2048, runs: 4096 };

/// Where retention is to be looked at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    /// In these queues.
    pub queues: Vec<QueueId>,
    /// In the first of them from this shard on,
    pub shard: ShardId,
    /// and there from this one of its partitions on.
    pub partition: usize,
}

impl Retention {
    /// Whether it is to be looked at nowhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

impl Round<'_> {
    /// Returns what retention has still to look at.
    pub(super) fn upkeep(&mut self, work: &Work) -> Retention {
        let left = self.retain(&work.retention);
        for (shard, chunk) in &work.relocations {
            if let Some(draft) = self.draft(*shard) {
                draft.relocate(chunk);
            }
        }
        for (shard, letter) in &work.reburials {
            if let Some(draft) = self.draft(*shard) {
                draft.bury_again(letter);
            }
        }
        left
    }

    fn retain(&mut self, retention: &Retention) -> Retention {
        let (mut left, mut shards_done, mut from) =
            (PER_COMMIT, retention.shard, retention.partition);
        for (at, queue) in retention.queues.iter().enumerate() {
            let shards = self.replica.shards.iter().skip(usize::from(shards_done));
            for state in shards.filter(|state| state.knows(*queue)) {
                let Some(draft) = self.draft(state.shard()) else { continue };
                let partition = std::mem::take(&mut from);
                // Rows that cannot be read now are looked at when retention comes round again.
                if let Ok(Some(partition)) = draft.retain(*queue, partition, &mut left) {
                    let queues = retention.queues.iter().skip(at).copied().collect();
                    return Retention { queues, shard: state.shard(), partition };
                }
            }
            (shards_done, from) = (0, 0);
        }
        Retention::default()
    }
}
