//! Makes the next segment before it is needed, so that rolling does not wait for the disk.
//!
//! In: how many bytes the record that comes next needs. Out: a durable, empty segment that follows
//! the last one. The slot's lock is held while a segment is made: two are never made for one
//! place. Called by `writer` when it rolls and by the journal's helper thread in between.

use std::sync::Arc;

use parking_lot::Mutex;

use super::page::{PAGE_BYTES, segment_name};
use super::record::{StoreId, span};
use super::segment::{CreateError, Segment};
use crate::base::files::Files;

pub(super) struct Preparer {
    files: Arc<dyn Files>,
    store: StoreId,
    segment_bytes: u64,
    slot: Mutex<Slot>,
}

struct Slot {
    /// Base of the segment that comes next.
    next_base: u64,
    ready: Option<Arc<Segment>>,
}

impl Preparer {
    pub(super) fn new(
        files: Arc<dyn Files>,
        store: StoreId,
        segment_bytes: u64,
        next_base: u64,
        ready: Option<Arc<Segment>>,
    ) -> Self {
        Self { files, store, segment_bytes, slot: Mutex::new(Slot { next_base, ready }) }
    }

    /// Makes the next segment unless it is there.
    pub(super) fn prepare(&self) -> Result<(), CreateError> {
        let mut slot = self.slot.lock();
        if slot.ready.is_none() {
            let segment = self.create(slot.next_base, self.segment_bytes)?;
            slot.ready = Some(segment);
        }
        Ok(())
    }

    /// Hands out the next segment, with room for a record of `span_bytes`.
    pub(super) fn take(&self, span_bytes: u64) -> Result<Arc<Segment>, CreateError> {
        let mut slot = self.slot.lock();
        let least = capacity_for(span_bytes);
        if slot.ready.as_ref().is_some_and(|ready| ready.capacity() < least) {
            self.discard(&mut slot)?;
        }
        let segment = match slot.ready.take() {
            Some(ready) => ready,
            None => self.create(slot.next_base, least.max(self.segment_bytes))?,
        };
        slot.next_base = segment.limit();
        Ok(segment)
    }

    /// Bytes that [`Preparer::take`] would ask the disk for.
    pub(super) fn bytes_for(&self, span_bytes: u64) -> u64 {
        capacity_for(span_bytes).max(self.segment_bytes)
    }

    /// Removes an empty segment that is too small for the record that comes next.
    fn discard(&self, slot: &mut Slot) -> Result<(), CreateError> {
        let name = segment_name(slot.next_base);
        slot.ready = None;
        let removed = self.files.remove(&name).and_then(|()| self.files.sync_dir());
        removed.map_err(CreateError::InDoubt)
    }

    fn create(&self, base: u64, capacity: u64) -> Result<Arc<Segment>, CreateError> {
        Segment::create(&*self.files, &self.store, base, capacity).map(Arc::new)
    }
}

/// Bytes of a segment that holds one record of `span_bytes`, its page and its seal.
fn capacity_for(span_bytes: u64) -> u64 {
    (PAGE_BYTES + span_bytes + span(0)).next_multiple_of(PAGE_BYTES)
}
