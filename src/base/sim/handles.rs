//! What a simulated disk hands out: folders, files and locks that die with a crash.
//!
//! In: the calls of [`Files`] and [`File`]. Out: the same calls on the disk's world, after asking
//! whether the handle is of this epoch, whether there is power, and whether this call shall fail.
//! Called by `sim`, and through the traits by whoever is tested.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::content::Content;
use super::names::NameChange;
use super::{Power, SimDisk, SyncFate, counts_down_to_zero, device_error, power_is_off};
use crate::base::files::{File, Files, FolderLock, check_name};
use crate::base::random::SeededRandom;

#[derive(Debug)]
pub(super) struct SimFolder {
    disk: SimDisk,
    epoch: u64,
    /// Empty, or the folder's name and a slash.
    prefix: String,
}

impl SimFolder {
    pub(super) fn top(disk: SimDisk, epoch: u64) -> Self {
        Self { disk, epoch, prefix: String::new() }
    }

    fn path(&self, name: &str) -> io::Result<String> {
        check_name(name)?;
        Ok(format!("{}{name}", self.prefix))
    }

    fn handle(&self, file: u64) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.disk.clone(), epoch: self.epoch, file })
    }
}

impl Files for SimFolder {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path(name)?;
        let mut world = self.disk.world.lock();
        world.check(self.epoch)?;
        if world.names.get(&path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = world.new_file();
        world.change_name(self.epoch, NameChange::Link { path, file })?;
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path(name)?;
        let world = self.disk.world.lock();
        world.check(self.epoch)?;
        world.names.get(&path).map(|file| self.handle(file)).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let world = self.disk.world.lock();
        world.check(self.epoch)?;
        let paths = world.names.paths();
        let names = paths.iter().filter_map(|path| path.strip_prefix(&self.prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        let mut world = self.disk.world.lock();
        world.check(self.epoch)?;
        if world.names.get(&path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change_name(self.epoch, NameChange::Unlink { path })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        let mut world = self.disk.world.lock();
        world.check(self.epoch)?;
        let file = world.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        world.change_name(self.epoch, NameChange::Rename { from, to, file })
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut guard = self.disk.world.lock();
        let world = &mut *guard;
        match world.begin_sync(self.epoch)? {
            SyncFate::Works => world.names.sync(&self.prefix),
            SyncFate::Fails => {
                world.names.lose_pending(&self.prefix, &world.random);
                return Err(device_error());
            }
        }
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        let path = self.path(name)?;
        let world = self.disk.world.lock();
        world.check(self.epoch)?;
        Ok(world.names.get(&path).is_some())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn FolderLock>> {
        let path = self.path(name)?;
        let mut world = self.disk.world.lock();
        world.check(self.epoch)?;
        if !world.locks.insert(path.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.disk.clone(), epoch: self.epoch, path }))
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Files>> {
        let prefix = format!("{}/", self.path(name)?);
        self.disk.world.lock().check(self.epoch)?;
        Ok(Arc::new(Self { disk: self.disk.clone(), epoch: self.epoch, prefix }))
    }
}

struct SimLock {
    disk: SimDisk,
    epoch: u64,
    path: String,
}

impl FolderLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world.lock();
        // After a crash the lock is not ours any more.
        if world.epoch == self.epoch {
            world.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    epoch: u64,
    file: u64,
}

impl SimFile {
    /// Runs `act` on the content unless the handle is dead.
    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut world = self.disk.world.lock();
        world.check(self.epoch)?;
        world.files.get_mut(&self.file).map(act).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.disk.world.lock();
        let world = &mut *guard;
        let fate = world.begin_sync(self.epoch)?;
        let content = world.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        match fate {
            SyncFate::Works => content.sync(),
            SyncFate::Fails => {
                content.lose_pending(&world.random);
                return Err(device_error());
            }
        }
        Ok(())
    }
}

impl File for SimFile {
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(part);
        }
        let mut guard = self.disk.world.lock();
        let world = &mut *guard;
        let power = world.begin(self.epoch)?;
        world.counts.writes += 1;
        let fails = counts_down_to_zero(&mut world.writes_until_failure);
        let mut count = bytes.len();
        if fails || power == Power::Leaving {
            count = below(&world.random, count + 1);
        } else if world.short_writes && world.random.chance(300) {
            count = below(&world.random, count);
            if count == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        world.reserve(self.file, offset.saturating_add(count as u64))?;
        let content = world.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        content.write(bytes.get(..count).unwrap_or_default(), offset);
        match power {
            Power::Leaving => Err(power_is_off()),
            Power::On if fails => Err(device_error()),
            Power::On => Ok(count),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|content| content.read(bytes, offset))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world.lock();
        if world.begin(self.epoch)? == Power::Leaving {
            return Err(power_is_off());
        }
        world.reserve(self.file, bytes)?;
        let content = world.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        if content.len() < bytes {
            content.set_len(bytes);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world.lock();
        if world.begin(self.epoch)? == Power::Leaving {
            return Err(power_is_off());
        }
        let content = world.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        content.set_len(bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|content| content.len())
    }

    fn os_file(&self) -> Option<&std::fs::File> {
        None
    }
}

fn below(random: &SeededRandom, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).unwrap_or(0)
}
