//! A disk that lies by seed: files in memory which lose power, fail and fill up on demand.
//!
//! In: a seed and the faults to play. Out: [`Files`] that behave as a disk's worst legal day:
//!
//! * What was written but not synced is *pending*. [`SimDisk::crash`] lets each pending 512-byte
//!   sector survive or not, in any of its recent versions; a sector itself is never torn.
//! * A new, renamed or removed name is pending until `sync_dir`; at a crash it may be undone.
//! * A failed sync leaves what it should have saved readable but never to be saved, as Linux does:
//!   the next sync succeeds and proves nothing.
//! * Writes may be short or interrupted, space may end, and bits may flip.
//!
//! The same seed and the same calls in the same order give the same lies. Called by tests only.

mod content;
mod handles;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use self::content::Content;
use self::handles::SimFolder;
use self::names::{NameChange, Names};
use super::files::Files;
use super::random::SeededRandom;

/// Bytes that a power cut never splits.
pub const SECTOR_BYTES: u64 = 512;

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

/// What a disk was asked to do so far. Failed attempts count too.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Everything that changes the disk: writes, syncs, allocations, cuts and name changes.
    pub operations: u64,
    /// Vectored writes.
    pub writes: u64,
    /// Syncs of files and of folders.
    pub syncs: u64,
}

/// What pending changes do at a crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Survival {
    /// All are lost: the strictest power cut.
    None,
    /// All survive: the process died and the machine did not.
    All,
    /// Each survives or not.
    Each,
}

#[derive(Debug)]
struct World {
    random: SeededRandom,
    /// Grows with each crash; handles of an earlier epoch are dead.
    epoch: u64,
    powered: bool,
    operations_left: Option<u64>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    names: Names,
    locks: BTreeSet<String>,
    capacity_bytes: Option<u64>,
    short_writes: bool,
    syncs_until_failure: Option<u64>,
    syncs_always_fail: bool,
    writes_until_failure: Option<u64>,
    counts: Counts,
}

impl SimDisk {
    /// An empty disk without faults and without a limit of space.
    pub fn new(seed: u64) -> Self {
        let world = World {
            random: SeededRandom::new(seed),
            epoch: 0,
            powered: true,
            operations_left: None,
            files: BTreeMap::new(),
            next_file: 0,
            names: Names::default(),
            locks: BTreeSet::new(),
            capacity_bytes: None,
            short_writes: false,
            syncs_until_failure: None,
            syncs_always_fail: false,
            writes_until_failure: None,
            counts: Counts::default(),
        };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// The disk's top folder, valid until the next crash.
    pub fn files(&self) -> Arc<dyn Files> {
        let epoch = self.world.lock().epoch;
        Arc::new(SimFolder::top(self.clone(), epoch))
    }

    /// Cuts the power and restores it, with a survival chosen by the seed. Returns the choice.
    ///
    /// Handles and locks from before are dead: they answer with errors. Faults that were asked for
    /// are forgotten, except the limit of space.
    pub fn crash(&self) -> Survival {
        let survival = match self.world.lock().random.below(4) {
            0 => Survival::None,
            1 => Survival::All,
            _ => Survival::Each,
        };
        self.crash_with(survival);
        survival
    }

    /// As [`SimDisk::crash`], with this survival.
    pub fn crash_with(&self, survival: Survival) {
        let mut guard = self.world.lock();
        let world = &mut *guard;
        world.epoch += 1;
        world.powered = true;
        world.operations_left = None;
        world.short_writes = false;
        world.syncs_until_failure = None;
        world.syncs_always_fail = false;
        world.writes_until_failure = None;
        world.locks.clear();
        world.names.crash(survival, &world.random);
        world.files.retain(|file, _| world.names.holds(*file));
        for content in world.files.values_mut() {
            content.crash(survival, &world.random);
        }
    }

    /// The operation after `operations` more changing operations finds no power: it takes effect
    /// in part or not at all, and from then on everything fails until [`SimDisk::crash`].
    pub fn power_off_after(&self, operations: u64) {
        self.world.lock().operations_left = Some(operations);
    }

    /// Whether [`SimDisk::power_off_after`] has struck.
    pub fn is_off(&self) -> bool {
        !self.world.lock().powered
    }

    /// The `nth` sync from now (1 is the next) answers with an input/output error, once.
    pub fn fail_sync_at(&self, nth: u64) {
        self.world.lock().syncs_until_failure = Some(nth);
    }

    /// Every sync from now on answers with an input/output error.
    pub fn fail_every_sync(&self) {
        self.world.lock().syncs_always_fail = true;
    }

    /// The `nth` write from now (1 is the next) writes a part and answers with an error, once.
    pub fn fail_write_at(&self, nth: u64) {
        self.world.lock().writes_until_failure = Some(nth);
    }

    /// Whether writes are short or interrupted now and then.
    pub fn set_short_writes(&self, on: bool) {
        self.world.lock().short_writes = on;
    }

    /// Limits space to `bytes`, or lifts the limit. Counted are the bytes that named files have
    /// allocated; what exists is never taken away.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.lock().capacity_bytes = bytes;
    }

    /// Bytes that named files have allocated.
    pub fn allocated(&self) -> u64 {
        self.world.lock().allocated()
    }

    /// Inverts a bit of a file, on the medium and in the cache. False when there is no such byte.
    /// Names in folders are written `folder/name`.
    pub fn flip_bit(&self, path: &str, byte: u64, bit: u8) -> bool {
        let mut world = self.world.lock();
        let Some(file) = world.names.get(path) else { return false };
        world.files.get_mut(&file).is_some_and(|content| content.flip_bit(byte, bit))
    }

    /// All bytes of a file as a reader sees them now.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let world = self.world.lock();
        let content = world.files.get(&world.names.get(path)?)?;
        let mut bytes = vec![0; usize::try_from(content.len()).ok()?];
        content.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Puts a file there, durable at once, replacing one of that name.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut world = self.world.lock();
        let file = world.new_file();
        if let Some(content) = world.files.get_mut(&file) {
            content.set_len(bytes.len() as u64);
            content.write(bytes, 0);
            content.sync();
        }
        world.names.put_durable(path, file);
    }

    /// Names of all files in all folders, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.world.lock().names.paths()
    }

    /// What the disk was asked to do so far.
    pub fn counts(&self) -> Counts {
        self.world.lock().counts
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.counts().writes
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.counts().syncs
    }
}

/// Whether the power is there for an operation, or leaves during it.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Power {
    On,
    Leaving,
}

impl World {
    fn check(&self, epoch: u64) -> io::Result<()> {
        if epoch != self.epoch {
            return Err(io::Error::other("handle from before the crash"));
        }
        if !self.powered {
            return Err(power_is_off());
        }
        Ok(())
    }

    /// Counts a changing operation, which may be the one that finds no power.
    fn begin(&mut self, epoch: u64) -> io::Result<Power> {
        self.check(epoch)?;
        self.counts.operations += 1;
        match self.operations_left.as_mut() {
            Some(0) => {
                self.powered = false;
                Ok(Power::Leaving)
            }
            Some(left) => {
                *left -= 1;
                Ok(Power::On)
            }
            None => Ok(Power::On),
        }
    }

    fn change_name(&mut self, epoch: u64, change: NameChange) -> io::Result<()> {
        let power = self.begin(epoch)?;
        if power == Power::On || self.random.chance(500) {
            self.names.change(change);
        }
        if power == Power::On { Ok(()) } else { Err(power_is_off()) }
    }

    /// Counts a sync; an error when it is one that shall fail.
    fn begin_sync(&mut self, epoch: u64) -> io::Result<SyncFate> {
        let power = self.begin(epoch)?;
        self.counts.syncs += 1;
        if power == Power::Leaving {
            return Err(power_is_off());
        }
        let fails_now = counts_down_to_zero(&mut self.syncs_until_failure);
        Ok(if fails_now || self.syncs_always_fail { SyncFate::Fails } else { SyncFate::Works })
    }

    fn new_file(&mut self) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Content::default());
        file
    }

    fn allocated(&self) -> u64 {
        let named = self.files.iter().filter(|(file, _)| self.names.holds(**file));
        named.map(|(_, content)| content.allocated()).sum()
    }

    /// Reserves the file's first `bytes`.
    fn reserve(&mut self, file: u64, bytes: u64) -> io::Result<()> {
        let bytes = bytes.next_multiple_of(SECTOR_BYTES);
        let used = self.allocated();
        let Some(content) = self.files.get_mut(&file) else { return Ok(()) };
        let more = bytes.saturating_sub(content.allocated());
        if more > 0 && self.capacity_bytes.is_some_and(|capacity| used + more > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.reserve(bytes);
        Ok(())
    }
}

enum SyncFate {
    Works,
    Fails,
}

fn power_is_off() -> io::Error {
    io::Error::other("the simulated disk has no power")
}

fn device_error() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

/// True when the counter reaches its end with this call; it is then forgotten.
fn counts_down_to_zero(counter: &mut Option<u64>) -> bool {
    let Some(left) = counter.as_mut() else { return false };
    *left = left.saturating_sub(1);
    let done = *left == 0;
    if done {
        *counter = None;
    }
    done
}
