//! How consumer groups stand, all over a queue's partitions.
//!
//! Sums are counters, shard by shard, so a group costs the same however many partitions its queue has.
//! Who is a member is asked of the leases, some at a time. Called by `delivery`.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use crate::base::place::{QueueId, ShardId};
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::shard::look::View;
use crate::shard::look::tour::STRIDE;
use crate::state::LeaseKey;
use crate::state::catalog::Subscription;
use crate::state::effect::{GroupIndex, LeaseToken};

/// How a group stands in a queue, in counters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupStanding {
    /// The queue.
    pub queue: QueueId,
    /// The queue's name.
    pub queue_name: Box<str>,
    /// The group.
    pub group: Box<str>,
    /// Where it begins, and since when that is known.
    pub subscription: Subscription,
    /// Partitions of the queue.
    pub partitions: u64,
    /// Messages that it has not settled.
    pub behind: u64,
    /// Partitions with such messages.
    pub lagging: u64,
    /// Partitions that it holds.
    pub leased: u64,
    /// Consumers: leases that differ, and pops that wait at this engine.
    pub members: u64,
}

impl Engine {
    /// How all groups stand, of one queue or of all, by queue and name. Each is of one moment but for
    /// its members; they are not of the same one.
    ///
    /// # Errors
    /// [`CommandError::ShuttingDown`].
    pub async fn group_standings(
        &self,
        queue: Option<QueueId>,
    ) -> Result<Vec<GroupStanding>, CommandError> {
        let mut found = Vec::new();
        let mut from = Some((queue.unwrap_or(0), Box::<str>::default()));
        while let Some(place) = from.take() {
            let step = self.look(move |view| {
                let next = add_sums(view, queue, place, &mut found);
                (found, next)
            });
            (found, from) = step.await?;
        }
        self.count_members(found).await
    }

    async fn count_members(
        &self,
        mut standings: Vec<GroupStanding>,
    ) -> Result<Vec<GroupStanding>, CommandError> {
        if standings.iter().all(|it| it.leased == 0) {
            return Ok(standings);
        }
        let places = standings.iter().enumerate();
        let places = places.map(|(at, it)| ((it.queue, it.group.clone()), at)).collect();
        let mut holders = Holders { places, seen: HashSet::new() };
        for shard in 0..self.shards().get() {
            let mut from = Some(None);
            while let Some(behind) = from.take() {
                let step = self.look(move |view| {
                    let next = holders.add(view, shard, behind, STRIDE);
                    (holders, next)
                });
                (holders, from) = step.await?;
            }
        }
        for (at, _) in holders.seen {
            standings.get_mut(at).into_iter().for_each(|it| it.members += 1);
        }
        Ok(standings)
    }
}

/// A queue and the name of a group of its.
type Place = (QueueId, Box<str>);

/// Adds groups from a place on, as many as one look may ask all shards about; tells where the next
/// ones are.
fn add_sums(
    view: &View<'_>,
    only: Option<QueueId>,
    (queue, group): Place,
    found: &mut Vec<GroupStanding>,
) -> Option<Place> {
    let catalog = view.replica.catalog.catalog();
    let mut asked = 0;
    let rest = catalog.iter().skip_while(|it| it.id < queue);
    for definition in rest.take_while(|it| only.is_none_or(|only| only == it.id)) {
        // A queue without groups is looked at too.
        asked += 1;
        for (name, subscription) in catalog.groups(definition.id) {
            if definition.id == queue && name < &*group {
                continue;
            }
            if asked >= STRIDE {
                return Some((definition.id, name.into()));
            }
            let mut standing = GroupStanding {
                queue: definition.id,
                queue_name: definition.name.clone(),
                group: name.into(),
                subscription,
                partitions: 0,
                behind: 0,
                lagging: 0,
                leased: 0,
                members: view.parked.count(&definition.name, name),
            };
            standing.add_shards(view);
            found.push(standing);
            asked += view.replica.shards.len();
        }
        if asked >= STRIDE {
            return Some((definition.id.checked_add(1)?, Box::default()));
        }
    }
    None
}

impl GroupStanding {
    fn add_shards(&mut self, view: &View<'_>) {
        for shard in &view.replica.shards {
            self.partitions += shard.partitions_in(self.queue) as u64;
            let group = shard.group(self.queue, &self.group).and_then(|it| shard.group_at(it));
            let Some(group) = group else { continue };
            self.behind += shard.behind(group);
            self.lagging += group.standing.open_partitions;
            self.leased += group.standing.leased;
        }
    }
}

/// Who holds leases.
struct Holders {
    /// Where each group is among the standings.
    places: BTreeMap<Place, usize>,
    /// A group's place and a token of its, each once.
    seen: HashSet<(usize, LeaseToken)>,
}

impl Holders {
    /// Adds leases of a shard behind one; tells which one to go on behind.
    fn add(
        &mut self,
        view: &View<'_>,
        shard: ShardId,
        behind: Option<LeaseKey>,
        most: usize,
    ) -> Option<Option<LeaseKey>> {
        let state = view.replica.shards.get(usize::from(shard))?;
        let mut known: BTreeMap<GroupIndex, Option<usize>> = BTreeMap::new();
        let (mut passed, mut last) = (0, None);
        for (key, index, token) in state.leases_behind(behind).take(most) {
            let place = *known.entry(index).or_insert_with(|| {
                let group = state.group_at(index)?;
                self.places.get(&(group.queue, group.name.clone())).copied()
            });
            self.seen.extend(place.map(|at| (at, token)));
            (passed, last) = (passed + 1, Some(key));
        }
        (passed == most).then_some(last)
    }
}
