//! The journal's thread: makes the next segment and syncs sealed ones while appends go on.
//!
//! In: a word now and then that the log has grown. Out: an empty segment in the preparer's slot, and sealed
//! bytes that are durable before a caller has to wait for them. Decides nothing: without it the
//! append that needs a segment makes it. Called by the journal's door.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::prepare::{BULK_BYTES_PER_SECOND, Pace, Preparer};
use super::segment::CreateError;
use super::segments::Segments;
use super::writer::Writer;
use crate::base::clock::{Clock, SystemClock};

pub(super) struct Helper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Default)]
struct Signal {
    has_grown: bool,
    must_stop: bool,
}

impl Helper {
    /// Starts the thread.
    pub(super) fn start(
        writer: Arc<Writer>,
        preparer: Arc<Preparer>,
        segments: Arc<Segments>,
    ) -> io::Result<Self> {
        let signal = Mutex::new(Signal::default());
        let shared = Arc::new(Shared { signal, changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("journal-helper".to_owned())
            .spawn(move || run(&of_thread, &writer, &preparer, &segments))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says that the log has grown by a step or by a segment.
    pub(super) fn wake(&self) {
        self.shared.signal.lock().has_grown = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.shared.signal.lock().must_stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic over there has been told by its own message.
            let _ = thread.join();
        }
    }
}

/// Bytes of sealed segments that stay in the system's page cache. Consumers that keep up read from
/// the hot tail; those that lag read whole segments in order, which a disk does well. Pages that are
/// given back early are used again for the segments that come next, and that is what counts: on the
/// virtual machine that this was measured on, writing into pages which the system has to get first
/// runs at 0.3 GB/s, into pages just given back at 5 GB/s.
pub const CACHED_BYTES: u64 = 256 << 20;

/// Lets sealed, durable segments go that are more than [`CACHED_BYTES`] behind; returns the position
/// up to which that is done.
fn let_go(segments: &Segments, writer: &Writer, done: u64) -> u64 {
    let synced = writer.synced();
    let until = synced.saturating_sub(CACHED_BYTES);
    let all = segments.all();
    let old = all.iter().filter(|it| it.limit() > done && it.limit() <= until);
    old.inspect(|segment| segment.let_go()).map(|it| it.limit()).max().unwrap_or(done)
}

fn run(shared: &Shared, writer: &Writer, preparer: &Preparer, segments: &Segments) {
    let mut gone = let_go(segments, writer, 0);
    let (base, used_bytes) = writer.active();
    let mut meter = Meter::new(base + used_bytes);
    loop {
        {
            let mut signal = shared.signal.lock();
            while !signal.has_grown && !signal.must_stop {
                shared.changed.wait(&mut signal);
            }
            if signal.must_stop {
                return;
            }
            signal.has_grown = false;
        }
        if writer.poison_cause().is_some() {
            continue;
        }
        let (base, used_bytes) = writer.active();
        let pace = meter.pace(base + used_bytes);
        if writer.synced() < base {
            // A failure poisons the writer, which tells every caller.
            let _ = writer.sync_to(base);
        }
        gone = let_go(segments, writer, gone);
        // Without space or file handles the append that needs the segment tries again, and tells.
        if let Err(CreateError::InDoubt(error)) = preparer.go_on(used_bytes, pace) {
            writer.poison("creating a segment", &error);
        }
    }
}

/// Measures how fast the log grows, from one wake to the next.
struct Meter {
    clock: SystemClock,
    end: u64,
    at_us: u64,
}

impl Meter {
    fn new(end: u64) -> Self {
        let clock = SystemClock::new();
        let at_us = clock.monotonic_us();
        Self { clock, end, at_us }
    }

    fn pace(&mut self, end: u64) -> Pace {
        let at_us = self.clock.monotonic_us();
        let (grown, took_us) = (end.saturating_sub(self.end), at_us - self.at_us);
        (self.end, self.at_us) = (end, at_us);
        let is_bulk = grown.saturating_mul(1_000_000) / took_us.max(1) > BULK_BYTES_PER_SECOND;
        if is_bulk { Pace::Bulk } else { Pace::Calm }
    }
}
