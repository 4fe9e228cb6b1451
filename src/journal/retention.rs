//! Drops whole sealed segments below a mark.
//!
//! In: a position that nobody needs anything before. Out: files removed, oldest first, each
//! durably gone before the next goes: a crash never leaves a gap. Slices that were handed out stay
//! readable. Called by the journal's door.

use super::error::DropError;
use super::page::segment_name;
use super::segments::Segments;
use crate::base::files::Files;

/// Removes the segments that end at or before `position` and come before `active_base`; returns
/// how many.
pub(super) fn drop_before(
    files: &dyn Files,
    segments: &Segments,
    active_base: u64,
    position: u64,
) -> Result<usize, DropError> {
    let mut count = 0;
    for segment in segments.all().iter() {
        let base = segment.base();
        if base >= active_base || segment.limit() > position {
            break;
        }
        let removed = files.remove(&segment_name(base)).and_then(|()| files.sync_dir());
        removed.map_err(|source| DropError { segment: base, source })?;
        segments.forget(base);
        count += 1;
    }
    Ok(count)
}
