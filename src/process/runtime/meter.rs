//! How long a guest may run: steps, and time on the clock.
//!
//! In: limits, and each step that a guest takes. Out: whether it must stop, and why. Reading a clock at
//! each step would cost as much as the step, and reading it at every hundredth would come too late where
//! one step takes long; so a thread writes the time down while guests run, and steps read that.
//! Called by the runtimes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{GuestError, Limits};
use crate::base::clock::Clock;

/// How often the time is written down.
const TICK: Duration = Duration::from_millis(5);
/// Ticks without a guest after which the thread sleeps until there is one.
const IDLE_TICKS: u32 = 200;

/// The time as guests see it pass: a thread that writes it down, ended when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    face: Arc<Face>,
}

struct Face {
    clock: Arc<dyn Clock>,
    /// Milliseconds of the monotonic clock, at most a tick old while guests run.
    now_ms: AtomicU64,
    /// Guests that began, ever.
    begun: AtomicU64,
    asleep: AtomicBool,
    over: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl std::fmt::Debug for Face {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Face").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

impl Face {
    fn write_down(&self) -> u64 {
        let now = self.clock.monotonic_us() / 1_000;
        self.now_ms.store(now, Ordering::Relaxed);
        now
    }

    /// Writes the time down until nobody is left who could read it.
    fn run(&self) {
        let (mut seen, mut idle) = (0, 0);
        while !self.over.load(Ordering::Acquire) {
            self.write_down();
            let begun = self.begun.load(Ordering::Acquire);
            idle = if begun == seen { idle + 1 } else { 0 };
            seen = begun;
            let mut held = self.lock.lock();
            if idle < IDLE_TICKS {
                self.wake.wait_for(&mut held, TICK);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            // Somebody who began before seeing that we sleep would not wake us.
            while self.begun.load(Ordering::SeqCst) == seen && !self.over.load(Ordering::Acquire) {
                self.wake.wait(&mut held);
            }
            self.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }

    fn wake_up(&self) {
        let _held = self.lock.lock();
        self.wake.notify_all();
    }
}

impl Watch {
    /// Starts the thread. Without one (the machine has no room for it) time limits are not kept, fuel
    /// limits are.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let face = Arc::new(Face {
            clock,
            now_ms: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            over: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let of_thread = Arc::clone(&face);
        let started = std::thread::Builder::new()
            .name("guest-watch".to_owned())
            .spawn(move || of_thread.run());
        if let Err(error) = started {
            tracing::error!(%error, "no thread that watches the time of guests");
        }
        Self { face }
    }

    /// Says that a guest begins; returns the time.
    fn begin(&self) -> u64 {
        self.face.begun.fetch_add(1, Ordering::SeqCst);
        if self.face.asleep.load(Ordering::SeqCst) {
            self.face.wake_up();
        }
        self.face.write_down()
    }

    fn now_ms(&self) -> u64 {
        self.face.now_ms.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.face.over.store(true, Ordering::Release);
        self.face.wake_up();
    }
}

/// Why a guest must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stop {
    /// No more steps.
    Fuel = 1,
    /// No more time.
    Time = 2,
    /// No more memory.
    Memory = 3,
    /// For a reason that is written down elsewhere.
    Refused = 4,
}

impl Stop {
    fn of(code: u8) -> Option<Self> {
        [Self::Fuel, Self::Time, Self::Memory, Self::Refused]
            .into_iter()
            .find(|stop| *stop as u8 == code)
    }

    /// The error that it is; `None` where the reason is written down elsewhere.
    pub(super) fn error(self, limits: &Limits) -> Option<GuestError> {
        match self {
            Self::Fuel => Some(GuestError::FuelExhausted { limit: limits.fuel }),
            Self::Time => Some(GuestError::TimeExceeded { limit: limits.wall_ms }),
            Self::Memory => Some(GuestError::MemoryExceeded { limit: limits.memory_bytes }),
            Self::Refused => None,
        }
    }
}

/// The meter of one VM. Its guest's thread is the only one that writes to it.
#[derive(Debug)]
pub(super) struct Meter {
    watch: Arc<Watch>,
    fuel_left: AtomicU64,
    deadline_ms: AtomicU64,
    stop: AtomicU8,
}

impl Meter {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self {
            watch,
            fuel_left: AtomicU64::new(0),
            deadline_ms: AtomicU64::new(0),
            stop: AtomicU8::new(0),
        }
    }

    /// Begins an evaluation with full limits.
    pub(super) fn begin(&self, limits: &Limits) {
        let now = self.watch.begin();
        self.fuel_left.store(limits.fuel, Ordering::Relaxed);
        self.deadline_ms.store(now.saturating_add(limits.wall_ms), Ordering::Relaxed);
        self.stop.store(0, Ordering::Relaxed);
    }

    /// Counts `steps`. Once it said stop it says so for ever, so that a guest that catches the error gets
    /// it again at its next step.
    pub(super) fn take(&self, steps: u64) -> Result<(), Stop> {
        if let Some(stop) = self.stopped() {
            return Err(stop);
        }
        let left = self.fuel_left.load(Ordering::Relaxed);
        match left.checked_sub(steps) {
            Some(left) => self.fuel_left.store(left, Ordering::Relaxed),
            None => {
                self.fuel_left.store(0, Ordering::Relaxed);
                return Err(self.stop(Stop::Fuel));
            }
        }
        if self.watch.now_ms() >= self.deadline_ms.load(Ordering::Relaxed) {
            return Err(self.stop(Stop::Time));
        }
        Ok(())
    }

    /// Ends the guest at its next step at the latest. The first reason counts.
    pub(super) fn stop(&self, why: Stop) -> Stop {
        if let Some(earlier) = self.stopped() {
            return earlier;
        }
        self.stop.store(why as u8, Ordering::Relaxed);
        why
    }

    /// Why the guest was ended, if it was.
    pub(super) fn stopped(&self) -> Option<Stop> {
        Stop::of(self.stop.load(Ordering::Relaxed))
    }

    /// Steps left.
    pub(super) fn fuel_left(&self) -> u64 {
        self.fuel_left.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    fn meter() -> Meter {
        Meter::new(Arc::new(Watch::new(Arc::new(SystemClock::new()))))
    }

    #[test]
    fn fuel_ends_and_stays_at_its_end() {
        let meter = meter();
        meter.begin(&Limits { fuel: 3, ..Limits::default() });
        assert_eq!(meter.take(3), Ok(()));
        assert_eq!(meter.take(1), Err(Stop::Fuel));
        assert_eq!(meter.take(0), Err(Stop::Fuel));
        assert_eq!(meter.stop(Stop::Memory), Stop::Fuel, "the first reason counts");
        meter.begin(&Limits::default());
        assert_eq!(meter.take(1), Ok(()));
    }

    #[test]
    fn time_ends_a_guest_also_after_the_watch_fell_asleep() {
        let meter = meter();
        for _ in 0..2 {
            meter.begin(&Limits { wall_ms: 20, ..Limits::default() });
            // Ends when time passes; a watch that sleeps would let it hang.
            while meter.take(0).is_ok() {
                std::thread::yield_now();
            }
            assert_eq!(meter.stopped(), Some(Stop::Time));
            while !meter.watch.face.asleep.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }
}
