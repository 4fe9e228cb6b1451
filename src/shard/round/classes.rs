//! Code for queues: which version is new, and whether it may be.
//!
//! Called by `round`.

use crate::base::place::QueueId;
use crate::shard::command::{Classed, DefineClass};
use crate::shard::round::Round;
use crate::state::effect::Effect;

impl Round<'_> {
    /// Gives a queue's messages code, or a new version of it. A queue that is not there is made with it, so
    /// that nobody ever meets it without its code.
    pub(super) fn define_class(&mut self, define: &DefineClass) -> Classed {
        let found = self.find(define.queue.as_str());
        let newest = found.as_ref().map_or(0, |queue| self.newest_class(queue.id));
        if define.expected.is_some_and(|expected| expected != newest) {
            return Classed::Conflict(newest);
        }
        let queue = found.unwrap_or_else(|| self.make(&define.queue, None, ("", ""), define.asked));
        self.sync();
        let (version, text) = (newest.saturating_add(1), define.text.clone());
        self.catalog.push(Effect::DefineClass { queue: queue.id, version, text });
        Classed::Defined(queue.id, version)
    }

    /// The newest version of a class with what this round did to it; 0 where the queue is none.
    pub(super) fn newest_class(&self, queue: QueueId) -> u32 {
        let new = self.catalog.iter().rev().find_map(|effect| match effect {
            Effect::DefineClass { queue: of, version, .. } if *of == queue => Some(*version),
            _ => None,
        });
        let known = || self.catalog_state().class(queue)?.newest().map(|it| it.version);
        new.or_else(known).unwrap_or(0)
    }

    /// Ends all leases of groups of this name.
    pub(super) fn let_go(&mut self, group: &str) -> usize {
        let shards = 0..self.replica.count().get();
        shards.filter_map(|shard| Some(self.draft(shard)?.let_all_go(group))).sum()
    }
}
