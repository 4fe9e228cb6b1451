//! Names of partitions that were handed out lately, by number.
//!
//! Acks answer with names and ask with numbers; the shards know the names, but asking them costs a
//! turn of the lane. Numbers are never used twice, so what is here stays true. Bounded. Filled by
//! `pop` and `ack`, read by `ack`.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::base::place::PartitionNumber;

/// Partitions remembered; about 100 bytes each.
const PARTITIONS_MAX: usize = 65_536;

/// The names of one partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Names {
    pub(super) queue: Arc<str>,
    pub(super) partition: Arc<str>,
}

/// Names by number.
#[derive(Debug, Default)]
pub(super) struct PartitionNames(
    Mutex<HashMap<PartitionNumber, Names, foldhash::fast::RandomState>>,
);

impl PartitionNames {
    /// The names of a partition, if they are remembered.
    pub(super) fn get(&self, number: PartitionNumber) -> Option<Names> {
        self.0.lock().get(&number).cloned()
    }

    /// Remembers the names of a partition; when there is no room, forgets all others first, which
    /// costs each of them one look-up.
    pub(super) fn remember(&self, number: PartitionNumber, queue: &str, partition: &str) {
        let mut names = self.0.lock();
        if names.contains_key(&number) {
            return;
        }
        if names.len() >= PARTITIONS_MAX {
            names.clear();
        }
        names.insert(number, Names { queue: queue.into(), partition: partition.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_remembered_up_to_the_limit() {
        let names = PartitionNames::default();
        for number in 0..PARTITIONS_MAX as u32 {
            names.remember(number, "q", "p");
        }
        assert_eq!(&*names.get(0).unwrap().partition, "p");
        names.remember(PARTITIONS_MAX as u32, "q", "last");
        assert_eq!(names.get(0), None);
        assert_eq!(&*names.get(PARTITIONS_MAX as u32).unwrap().partition, "last");
    }
}
