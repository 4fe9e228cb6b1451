//! Where decisions find the bodies of messages: in the hot tail, or else in the log.

use crate::base::place::ShardId;
use crate::log::{Extent, Log};
use crate::shard::hot::HotTail;
use crate::state::Bodies;
use crate::state::codec::{self, Chunk};
use crate::state::model::Run;

/// Bodies from the hot tail, or else from the log.
pub(super) struct LogBodies<'a> {
    pub(super) hot: &'a HotTail,
    pub(super) log: &'a dyn Log,
}

impl Bodies for LogBodies<'_> {
    fn chunks(&self, shard: ShardId, run: &Run) -> Option<Vec<Chunk>> {
        if let Some(chunks) = self.hot.find(shard, run) {
            return Some(chunks);
        }
        let place = self.log.body(shard, Extent { position: run.position, len: run.len }).ok()?;
        codec::decode_chunks(place).ok()
    }

    fn is_near(&self, shard: ShardId, run: &Run) -> bool {
        self.hot.find(shard, run).is_some() || self.log.is_near(shard, run.position)
    }
}
