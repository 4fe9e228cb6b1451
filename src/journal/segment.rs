//! One segment: a file of fixed size, written at its end and read through a read-only map.
//!
//! In: a folder, a base position and a capacity. Out: written bytes, and slices of them without a
//! copy. Knows pages and bytes, not records. All `unsafe` of the house is here: one map. Called by
//! `writer` and `prepare` (create, write, sync), `survey` (open) and `reader` (slices).

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use super::error::{Damage, RecoverError};
use super::page::{PAGE_BYTES, Page, segment_name};
use super::record::StoreId;
use crate::base::files::{File, Files, read_exact_at, write_all_at};

/// Suffix of a segment file that is not complete; such a file holds no record.
pub(super) const UNFINISHED_SUFFIX: &str = ".tmp";

pub(super) struct Segment {
    base: u64,
    capacity: u64,
    file: Arc<dyn File>,
    /// The whole file, mapped; `None` on a simulated disk, where slices are copies.
    map: Option<Mapped>,
}

/// Why a segment was not created.
#[derive(Debug)]
pub(super) enum CreateError {
    /// No space. Nothing of it is left; it may succeed later.
    Full,
    /// The unfinished file was given up. It may succeed later, with another file.
    GivenUp(io::Error),
    /// The file is finished, but whether its name is durable is unknown: use nothing more.
    InDoubt(io::Error),
}

/// A segment on its way: a file that has all its space but not its name yet.
pub(super) struct Unfinished {
    segment: Segment,
    name: String,
}

impl Unfinished {
    /// Begins a segment: allocates its space and writes its page.
    pub(super) fn begin(
        files: &dyn Files,
        store: &StoreId,
        base: u64,
        capacity: u64,
    ) -> Result<Self, CreateError> {
        let name = format!("{}{UNFINISHED_SUFFIX}", segment_name(base));
        match Self::fill(files, &name, store, base, capacity) {
            Ok(segment) => Ok(Self { segment, name }),
            Err(error) => Err(given_up(files, &name, error)),
        }
    }

    fn fill(
        files: &dyn Files,
        name: &str,
        store: &StoreId,
        base: u64,
        capacity: u64,
    ) -> io::Result<Segment> {
        if files.exists(name)? {
            files.remove(name)?;
        }
        let file = files.create_new(name)?;
        file.allocate(capacity)?;
        let page = Page { store: *store, base, capacity }.encode();
        write_all_at(&*file, &mut [IoSlice::new(&page)], 0)?;
        let map = map(&*file, capacity)?;
        Ok(Segment { base, capacity, file, map })
    }

    /// Bytes of the file.
    pub(super) fn capacity(&self) -> u64 {
        self.segment.capacity
    }

    /// Whether [`Unfinished::write_zeros`] makes later syncs faster: on a real disk.
    pub(super) fn gains_by_zeros(&self) -> bool {
        self.segment.map.is_some()
    }

    /// Writes zeros over zeros, durably. Allocated space that was never written costs a change of
    /// metadata, and so another write, at the sync that follows the first write there.
    pub(super) fn write_zeros(&self, offset: u64, zeros: &[u8]) -> io::Result<()> {
        write_all_at(&*self.segment.file, &mut [IoSlice::new(zeros)], offset)?;
        self.segment.file.sync_data()
    }

    /// Makes the segment durable and gives it its name, in this order, so that a crash leaves
    /// either no segment or one that can be opened.
    pub(super) fn finish(self, files: &dyn Files) -> Result<Segment, CreateError> {
        if let Err(error) = self.segment.file.sync_all() {
            return Err(given_up(files, &self.name, error));
        }
        let name = segment_name(self.segment.base);
        let named = files.rename(&self.name, &name).and_then(|()| files.sync_dir());
        named.map_err(CreateError::InDoubt)?;
        Ok(self.segment)
    }

    /// Removes the file: `error` happened to it, so it must not be used.
    pub(super) fn give_up(self, files: &dyn Files, error: io::Error) -> CreateError {
        given_up(files, &self.name, error)
    }
}

fn given_up(files: &dyn Files, name: &str, error: io::Error) -> CreateError {
    // It holds no record; if it cannot be removed now, the next start does.
    let _ = files.remove(name);
    if is_full(&error) { CreateError::Full } else { CreateError::GivenUp(error) }
}

impl Segment {
    /// Creates a segment, complete and durable.
    pub(super) fn create(
        files: &dyn Files,
        store: &StoreId,
        base: u64,
        capacity: u64,
    ) -> Result<Self, CreateError> {
        Unfinished::begin(files, store, base, capacity)?.finish(files)
    }

    /// Opens an existing segment whose name says `base`; tells which store it belongs to.
    pub(super) fn open(files: &dyn Files, base: u64) -> Result<(Self, StoreId), RecoverError> {
        let name = segment_name(base);
        let io = |action| {
            let name = name.clone();
            move |source| RecoverError::Io { action, name, source }
        };
        let corrupt = |damage| RecoverError::Corrupt { segment: base, position: base, damage };
        let file = files.open(&name).map_err(io("opening"))?;
        let found = file.len().map_err(io("measuring"))?;
        if found < PAGE_BYTES {
            return Err(corrupt(Damage::Length { found, expected: PAGE_BYTES }));
        }
        let mut bytes = vec![0; PAGE_BYTES as usize];
        read_exact_at(&*file, &mut bytes, 0).map_err(io("reading"))?;
        let page = Page::decode(&bytes).map_err(corrupt)?;
        if page.base != base {
            return Err(corrupt(Damage::Misnamed { found: page.base }));
        }
        if page.capacity != found {
            return Err(corrupt(Damage::Length { found, expected: page.capacity }));
        }
        let map = map(&*file, found).map_err(io("mapping"))?;
        Ok((Self { base, capacity: found, file, map }, page.store))
    }

    /// Position of the file's first byte.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of the file.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Position of the first record.
    pub(super) fn first(&self) -> u64 {
        self.base.saturating_add(PAGE_BYTES)
    }

    /// Position after the file's last byte: the base of the segment that follows.
    pub(super) fn limit(&self) -> u64 {
        self.base.saturating_add(self.capacity)
    }

    /// Whether the position is one of this file's bytes.
    pub(super) fn holds(&self, position: u64) -> bool {
        (self.base..self.limit()).contains(&position)
    }

    /// `len` bytes from `position` on; `None` when they are not all inside this segment.
    pub(super) fn slice(&self, position: u64, len: u64) -> io::Result<Option<Bytes>> {
        let inside = position.checked_sub(self.base).and_then(|start| {
            let end = start.checked_add(len)?;
            (end <= self.capacity).then_some(start)
        });
        let Some(start) = inside else { return Ok(None) };
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if let Some(map) = &self.map {
            let Ok(start) = usize::try_from(start) else { return Ok(None) };
            return Ok(Some(map.bytes.slice(start..start + len)));
        }
        let mut copy = vec![0; len];
        read_exact_at(&*self.file, &mut copy, start)?;
        Ok(Some(copy.into()))
    }

    /// Writes `parts` at `position`, which must not have been handed out by [`Segment::slice`].
    pub(super) fn write(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        write_all_at(&*self.file, parts, position.saturating_sub(self.base))
    }

    /// Tells the system that this segment's pages need not stay in memory; whoever reads them
    /// later reads them from the disk. Only a hint: it changes no byte and cannot fail usefully.
    #[expect(unsafe_code, reason = "giving back a map's pages; see SAFETY")]
    pub(super) fn let_go(&self) {
        if let Some(mapped) = &self.map {
            // SAFETY: on a shared, read-only map of a file this forgets which pages are present and
            // nothing else: the next read finds the same bytes in the file. Nobody writes through
            // the map, so nothing can be lost.
            let _ = unsafe { mapped.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
        if let Some(file) = self.file.os_file() {
            let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Whether an error says that there is no space.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The whole file as bytes, if it is one of the operating system's.
#[expect(unsafe_code, reason = "reading the log without a copy needs a map; see SAFETY")]
fn map(file: &dyn File, capacity: u64) -> io::Result<Option<Mapped>> {
    let Some(os_file) = file.os_file() else { return Ok(None) };
    let len = usize::try_from(capacity).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: a map is sound while nobody changes or cuts the bytes that are read through it.
    // * The journal keeps that promise: slices are made of bytes that were written before; the
    //   writer only writes after the end of all records, recovery changes bytes only behind the
    //   valid end and before anybody gets a slice of them, and no segment is ever cut or reused.
    // * Other processes are kept out by the folder's lock and by file modes 0600 and 0700.
    // * The length was checked against the file (`open`) or allocated (`fill`) just before, so that
    //   no page lies beyond the file's end. The map lives as long as the last slice of it.
    let map = unsafe { memmap2::MmapOptions::new().len(len).map(os_file)? };
    let map = Arc::new(map);
    Ok(Some(Mapped { bytes: Bytes::from_owner(Owner(Arc::clone(&map))), map }))
}

/// A file's bytes, and the map that they are read through.
struct Mapped {
    bytes: Bytes,
    map: Arc<memmap2::Mmap>,
}

struct Owner(Arc<memmap2::Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
