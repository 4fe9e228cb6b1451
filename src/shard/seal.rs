//! Sealing late: what was put into its ring, or into the failover log, before its queue asked for
//! encryption.
//!
//! In: rings that were taken, and what is replayed. Out: the same, with nothing in clear of a queue that
//! asks for encryption: sealed now, or refused where there is no key. Admission has sealed all else, so
//! that there is hardly ever anything to do. Called by the lane before it decides or keeps anything.

use crate::base::place::{QueueId, ShardId};
use crate::buffer::receipt::PushRefusal;
use crate::buffer::ring::{Pending, Ring};
use crate::sealing::{Keyring, Place};
use crate::shard::lane::Lane;
use crate::shard::round::Replay;
use crate::state::catalog::Catalog;
use crate::state::draft::DecideError;
use crate::state::draft::push::PushBatch;

impl Lane {
    /// Sees to it that none of these rings holds anything in clear that must be sealed.
    pub(super) fn seal_late(&mut self, all: &mut Vec<(ShardId, Vec<Ring>)>) {
        let catalog = self.replica.catalog.catalog();
        if !catalog.has_sealing() {
            return;
        }
        let mut refused = Vec::new();
        for ring in all.iter_mut().flat_map(|(_, rings)| rings) {
            if !catalog.seals(ring.queue) {
                continue;
            }
            let place = Place { queue: ring.queue, partition: ring.partition.as_str() };
            let mut is_clear = false;
            for pending in &mut ring.pending {
                let before = pending.bytes();
                is_clear |= !seal(&self.seals, place, &mut pending.push);
                // All of it is given back one day.
                self.buffers.budget().add(pending.bytes().saturating_sub(before));
            }
            if is_clear {
                let clear = ring.take_where(|it| !it.push.batch.is_sealed());
                refused.extend(clear.into_iter().map(|it| (ring.queue, it)));
            }
        }
        all.iter_mut().for_each(|(_, rings)| rings.retain(|it| !it.pending.is_empty()));
        all.retain(|(_, rings)| !rings.is_empty());
        self.buffers.give_back(refused.iter().map(|(_, it)| Pending::bytes(it)).sum());
        for (queue, pending) in refused {
            self.refuse(queue, pending, &PushRefusal::Decide(DecideError::NotSealed));
        }
    }

    /// The same for what waited in the failover log; what cannot be sealed is refused when it is decided,
    /// and set aside.
    pub(super) fn seal_replay(&self, replay: &mut Replay) {
        let catalog: &Catalog = self.replica.catalog.catalog();
        let must = |queue: QueueId| catalog.has_sealing() && catalog.seals(queue);
        for item in replay.items.iter_mut().filter(|it| must(it.spilled.queue)) {
            let spilled = &mut item.spilled;
            let place = Place { queue: spilled.queue, partition: spilled.partition.as_str() };
            seal(&self.seals, place, &mut spilled.push);
        }
    }
}

/// Whether it is sealed now.
fn seal(seals: &Keyring, place: Place<'_>, push: &mut PushBatch) -> bool {
    if push.batch.is_sealed() {
        return true;
    }
    let sealed = seals.seal(place, &push.batch);
    sealed.map(|batch| push.batch = batch).is_ok()
}
