//! Where a crash would hurt most: places at which a test may let the server die.
//!
//! Nothing is armed but by [`arm`], which only tests call; then the server ends at once, as by a kill,
//! when it comes to the place for the n-th time. Costs one relaxed load where nothing is armed.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// A place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Place {
    /// An instance was taken, nothing is evaluated.
    BeforeEvaluation = 1,
    /// A step is evaluated, nothing of it is offered.
    AfterEvaluation = 2,
    /// A step was handed to the lane; it may stand or not.
    Committing = 3,
    /// A step stands; nobody was told.
    Committed = 4,
    /// Something that waited at the desk is about to be sent.
    Sending = 5,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 5] = [
        Self::BeforeEvaluation,
        Self::AfterEvaluation,
        Self::Committing,
        Self::Committed,
        Self::Sending,
    ];
}

static ARMED: AtomicU8 = AtomicU8::new(0);
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Lets the server die when it comes to `place` for the `nth` time from now, from 1.
pub fn arm(place: Place, nth: u64) {
    LEFT.store(nth, Ordering::SeqCst);
    ARMED.store(place as u8, Ordering::SeqCst);
}

/// The server comes to a place.
pub(super) fn cross(place: Place) {
    if ARMED.load(Ordering::Relaxed) == place as u8 && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}
