//! Pushes of one round: each decided behind those before it, within the room that its queue has.
//!
//! In: rings of a shard. Out: a receipt for every push. Called by `round`.

use crate::base::place::{QueueId, ShardId};
use crate::buffer::receipt::{Accepted, PushRefusal, Receipt, Stored};
use crate::buffer::ring::Ring;
use crate::shard::round::{Round, tally_accepted};
use crate::state::draft::DecideError;
use crate::state::draft::push::Room;

impl Round<'_> {
    pub(super) fn rings(&mut self, shard: ShardId, rings: &[Ring], receipts: &mut Vec<Receipt>) {
        for ring in rings {
            let mut durable = false;
            let known = self.register_new_groups(shard, ring.queue);
            let mut left = self.room(ring.queue);
            let Some(draft) = self.draft(shard) else { continue };
            let placed = draft.place(ring.queue, ring.partition.as_str(), ring.hash);
            let placed = known.and(placed);
            for pending in &ring.pending {
                let is_durable = pending.qos.is_durable();
                durable |= is_durable;
                // Whoever is answered already has its place.
                let room = if is_durable { left } else { Room::default() };
                let stored: Result<_, DecideError> = placed.clone().and_then(|partition| {
                    let pushed = draft.push_within(partition, &pending.push, room)?;
                    Ok(Accepted::Stored(Stored { partition, pushed }))
                });
                if is_durable {
                    let count = stored.as_ref().map_or(0, |it| tally_accepted(it).0);
                    left.left = left.left.saturating_sub(count);
                }
                receipts.push(stored.map_err(PushRefusal::from));
            }
            if let Some(room) = self.rooms.get_mut(&ring.queue) {
                *room = left;
            }
            if durable {
                self.sync();
            }
        }
    }

    /// What a queue still takes in this round. What it lets go of in this round makes room for the
    /// next one.
    pub(super) fn room(&mut self, queue: QueueId) -> Room {
        let definition = self.context.catalog.get(queue);
        let limit = definition.map_or(0, |queue| queue.options.max_size);
        if limit == 0 {
            return Room::default();
        }
        let replica = self.replica;
        let waiting = self.reserved.iter().find(|(it, _)| *it == queue).map_or(0, |it| it.1);
        let count = || {
            let taken = replica.undone_of(queue).saturating_add(waiting);
            Room { left: limit.saturating_sub(taken), limit }
        };
        *self.rooms.entry(queue).or_insert_with(count)
    }
}
