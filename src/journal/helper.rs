//! The journal's thread: makes the next segment and syncs sealed ones while appends go on.
//!
//! In: a word that a segment was sealed. Out: an empty segment in the preparer's slot, and sealed
//! bytes that are durable before a caller has to wait for them. Decides nothing: without it the
//! append that needs a segment makes it. Called by the journal's door.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::prepare::Preparer;
use super::segment::CreateError;
use super::writer::Writer;

pub(super) struct Helper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    signal: Mutex<Signal>,
    changed: Condvar,
}

struct Signal {
    /// Sealed segments end here, if there is news.
    sealed_until: Option<u64>,
    must_stop: bool,
}

impl Helper {
    /// Starts the thread, which makes the first segment ahead at once.
    pub(super) fn start(writer: Arc<Writer>, preparer: Arc<Preparer>) -> io::Result<Self> {
        let signal = Signal { sealed_until: Some(0), must_stop: false };
        let shared = Arc::new(Shared { signal: Mutex::new(signal), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("journal-helper".to_owned())
            .spawn(move || run(&of_thread, &writer, &preparer))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says that everything before `sealed_until` is in sealed segments.
    pub(super) fn wake(&self, sealed_until: u64) {
        self.shared.signal.lock().sealed_until = Some(sealed_until);
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

fn run(shared: &Shared, writer: &Writer, preparer: &Preparer) {
    loop {
        let sealed_until = {
            let mut signal = shared.signal.lock();
            loop {
                if signal.must_stop {
                    return;
                }
                if let Some(sealed_until) = signal.sealed_until.take() {
                    break sealed_until;
                }
                shared.changed.wait(&mut signal);
            }
        };
        if writer.poison_cause().is_some() {
            continue;
        }
        // Without space or file handles the append that needs the segment tries again, and tells.
        if let Err(CreateError::InDoubt(error)) = preparer.prepare() {
            writer.poison("creating a segment", &error);
            continue;
        }
        // A failure poisons the writer, which tells every caller.
        let _ = writer.sync_to(sealed_until);
    }
}
