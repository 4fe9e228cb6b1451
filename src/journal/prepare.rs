//! Makes the next segment before it is needed, so that rolling does not wait for the disk.
//!
//! In: how many bytes the record that comes next needs. Out: a durable, empty segment that follows
//! the last one. On a real disk its space is written with zeros before its time, because a sync
//! after the first write to merely allocated space must also write metadata: it takes 1.5 to 2.3
//! times as long for 4 KiB and 64 KiB, and equally long for 1 MiB (ext4, two cores, 2026-11).
//! All is done under the slot's lock: two segments are never made for one place. Called by
//! `writer` when it rolls and by the journal's helper thread in between.

use std::sync::Arc;

use parking_lot::Mutex;

use super::page::{PAGE_BYTES, segment_name};
use super::record::{StoreId, span};
use super::segment::{CreateError, Segment, Unfinished};
use crate::base::files::Files;

/// Bytes of zeros that are written in one step at most.
const ZEROS_BYTES: u64 = 4 << 20;

static ZEROS: [u8; ZEROS_BYTES as usize] = [0; ZEROS_BYTES as usize];

/// How fast the log grows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pace {
    /// Small groups: what a sync costs beside its bytes is what counts.
    Calm,
    /// More than [`BULK_BYTES_PER_SECOND`]: bytes are what counts.
    Bulk,
}

/// From here on, writing every byte twice costs more than zeros save: a third of what the disks
/// that this was measured on take (1 to 1.5 GB/s), so that a group's sync never waits for zeros.
pub(super) const BULK_BYTES_PER_SECOND: u64 = 64 << 20;

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
    /// A segment on its way, and how many of its bytes were written.
    unfinished: Option<(Unfinished, u64)>,
}

impl Preparer {
    pub(super) fn new(
        files: Arc<dyn Files>,
        store: StoreId,
        segment_bytes: u64,
        next_base: u64,
        ready: Option<Arc<Segment>>,
    ) -> Self {
        let slot = Slot { next_base, ready, unfinished: None };
        Self { files, store, segment_bytes, slot: Mutex::new(slot) }
    }

    /// The helper is woken each time that so many bytes were appended.
    pub(super) fn step_bytes(&self) -> u64 {
        (self.segment_bytes / 32).clamp(PAGE_BYTES, ZEROS_BYTES)
    }

    /// Goes on with the next segment while `used_bytes` of the present one are in use: at twice
    /// the pace of the appends, so that it is finished when half is used, without a burst of
    /// writes that every sync would have to wait for.
    ///
    /// Appends in bulk are better off without: their syncs gain nothing from zeros, and the disk
    /// would write everything twice.
    pub(super) fn go_on(&self, used_bytes: u64, pace: Pace) -> Result<(), CreateError> {
        let target = used_bytes.saturating_mul(2);
        // The lock is given back after each step: whoever needs the segment takes it as it is.
        while self.step(target, pace)? {}
        Ok(())
    }

    /// One step towards `target`; false when nothing is left to do for now.
    fn step(&self, target: u64, pace: Pace) -> Result<bool, CreateError> {
        let mut slot = self.slot.lock();
        if slot.ready.is_some() || target < self.step_bytes() {
            return Ok(false);
        }
        let (unfinished, written) = match slot.unfinished.take() {
            Some(unfinished) => unfinished,
            None => {
                let base = slot.next_base;
                let files = &*self.files;
                let begun = Unfinished::begin(files, &self.store, base, self.segment_bytes)?;
                (begun, PAGE_BYTES)
            }
        };
        let left = unfinished.capacity().saturating_sub(written);
        if left == 0 || pace == Pace::Bulk || !unfinished.gains_by_zeros() {
            slot.ready = Some(Arc::new(unfinished.finish(&*self.files)?));
            return Ok(false);
        }
        if written >= target {
            slot.unfinished = Some((unfinished, written));
            return Ok(false);
        }
        let count = left.min(self.step_bytes());
        let zeros = ZEROS.get(..count as usize).unwrap_or_default();
        if let Err(error) = unfinished.write_zeros(written, zeros) {
            return Err(unfinished.give_up(&*self.files, error));
        }
        slot.unfinished = Some((unfinished, written + count));
        Ok(true)
    }

    /// Hands out the next segment, with room for a record of `span_bytes`.
    pub(super) fn take(&self, span_bytes: u64) -> Result<Arc<Segment>, CreateError> {
        let mut slot = self.slot.lock();
        if let Some((unfinished, _)) = slot.unfinished.take() {
            slot.ready = Some(Arc::new(unfinished.finish(&*self.files)?));
        }
        let least = capacity_for(span_bytes);
        if slot.ready.as_ref().is_some_and(|ready| ready.capacity() < least) {
            self.discard(&mut slot)?;
        }
        let segment = match slot.ready.take() {
            Some(ready) => ready,
            None => {
                let capacity = self.bytes_for(span_bytes);
                Arc::new(Segment::create(&*self.files, &self.store, slot.next_base, capacity)?)
            }
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
}

/// Bytes of a segment that holds one record of `span_bytes`, its page and its seal.
fn capacity_for(span_bytes: u64) -> u64 {
    (PAGE_BYTES + span_bytes + span(0)).next_multiple_of(PAGE_BYTES)
}
