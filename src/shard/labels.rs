//! Which names an entry, or all of the state, has for people. Pure.
//!
//! In: effects, or a replica. Out: labels for a log that people read too. Called by `round` for what is
//! appended, and by the server's composition for what was there before its log kept names.

use crate::base::place::PartitionNumber;
use crate::log::label::Label;
use crate::shard::replica::Replica;
use crate::state::care::Care;
use crate::state::catalog::QueueDefinition;
use crate::state::effect::{Effect, Entry};
use crate::state::model::Partition;

/// The names that an entry brings or takes away, in its order.
#[must_use]
pub fn of_entry(entry: &Entry) -> Vec<Label> {
    entry.effects.iter().filter_map(of_effect).collect()
}

fn of_effect(effect: &Effect) -> Option<Label> {
    match effect {
        Effect::CreatePartition { number, queue, name } => {
            Some(Label::Partition { number: *number, queue: *queue, name: name.clone() })
        }
        Effect::DefineQueue(definition) => Some(of_queue(definition)),
        Effect::Project { queue, on } => Some(Label::Rows { queue: *queue, on: *on }),
        Effect::ForgetQueue { queue } => Some(Label::Gone { queue: *queue }),
        Effect::Care(Care::Erase { partition, seq }) => {
            Some(Label::Erased { number: *partition, first: *seq, last: *seq })
        }
        // That shards let go of a queue's partitions follows from the catalog's word.
        _ => None,
    }
}

fn of_queue(definition: &QueueDefinition) -> Label {
    Label::Queue { queue: definition.id, name: definition.name.clone() }
}

fn of_partition((number, partition): (PartitionNumber, &Partition)) -> Label {
    Label::Partition { number, queue: partition.queue, name: partition.name.clone() }
}

/// All names that there are: queues first, then partitions, each followed by what is deleted in it.
pub fn of_replica(replica: &Replica) -> impl Iterator<Item = Label> + '_ {
    let queues = replica.catalog.catalog().iter().map(|definition| of_queue(definition));
    let partitions = replica.shards.iter().flat_map(|shard| {
        let queues: Vec<_> = shard.queues().collect();
        let partitions = queues.into_iter().flat_map(|queue| shard.partitions_of(queue));
        partitions.flat_map(move |(number, partition)| {
            let erased = shard.erased().of(number).iter();
            let erased = erased.map(move |(first, last)| Label::Erased {
                number,
                first: *first,
                last: *last,
            });
            std::iter::once(of_partition((number, partition))).chain(erased)
        })
    });
    queues.chain(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::place::{ShardCount, StoreKey};

    #[test]
    fn a_partition_is_named_when_it_is_made_and_as_long_as_it_lives() {
        let made = Effect::CreatePartition { number: 1, queue: 7, name: "p".into() };
        let entry = |effects| Entry { time_ms: 1, origin: Default::default(), effects };
        let labels =
            of_entry(&entry(vec![made.clone(), Effect::Trim { partition: 1, base_seq: 0 }]));
        assert_eq!(labels, [Label::Partition { number: 1, queue: 7, name: "p".into() }]);
        let mut replica = Replica::new(ShardCount::new(4).unwrap(), StoreKey([1; 16]));
        replica.apply(1, &entry(vec![made]), 0, 10);
        assert_eq!(of_replica(&replica).collect::<Vec<_>>(), labels);
        let erase = Effect::Care(Care::Erase { partition: 1, seq: 4 });
        let erased = [Label::Erased { number: 1, first: 4, last: 4 }];
        assert_eq!(of_entry(&entry(vec![erase.clone()])), erased);
        replica.apply(1, &entry(vec![erase]), 10, 10);
        assert_eq!(of_replica(&replica).skip(1).collect::<Vec<_>>(), erased);
        replica.apply(1, &entry(vec![Effect::DropQueue { queue: 7 }]), 20, 10);
        assert_eq!(of_replica(&replica).count(), 0);
        let gone = of_entry(&entry(vec![Effect::ForgetQueue { queue: 7 }]));
        assert_eq!(gone, [Label::Gone { queue: 7 }]);
    }
}
