//! The segments of an open log in order: which one holds a position.
//!
//! In: segments as they are created and dropped. Out: the segment of a position, without a lock,
//! since every read asks. Called by all of this room.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::segment::Segment;

/// Never empty: the last one takes the appends.
pub(super) struct Segments {
    list: ArcSwap<Vec<Arc<Segment>>>,
}

impl Segments {
    pub(super) fn new(list: Vec<Arc<Segment>>) -> Self {
        Self { list: ArcSwap::from_pointee(list) }
    }

    pub(super) fn all(&self) -> Arc<Vec<Arc<Segment>>> {
        self.list.load_full()
    }

    /// Position of the oldest record there is.
    pub(super) fn start(&self) -> u64 {
        self.list.load().first().map_or(0, |segment| segment.first())
    }

    pub(super) fn find(&self, position: u64) -> Option<Arc<Segment>> {
        let list = self.list.load();
        let after = list.partition_point(|segment| segment.base() <= position);
        list.get(after.checked_sub(1)?).filter(|segment| segment.holds(position)).cloned()
    }

    pub(super) fn push(&self, segment: &Arc<Segment>) {
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            list.push(Arc::clone(segment));
            list
        });
    }

    /// Forgets the segment of this base.
    pub(super) fn forget(&self, base: u64) {
        self.list.rcu(|list| {
            let kept = list.iter().filter(|segment| segment.base() != base);
            kept.cloned().collect::<Vec<_>>()
        });
    }
}
