//! Files: the seam between Onrush and a folder on a disk.
//!
//! In: names and byte ranges. Out: bytes, or the operating system's error. [`DiskFiles`] is a real
//! folder; [`super::sim::SimDisk`] gives one that loses power. Called by `journal`, and by whoever
//! else keeps a file. Small on purpose: every method here is one that a simulated disk must lie
//! about convincingly.

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};

/// Slices that one vectored write takes at most (`IOV_MAX` of Linux).
pub const SLICES_PER_WRITE_MAX: usize = 1_024;

/// Bytes of a file name at most.
pub const NAME_BYTES_MAX: usize = 255;

/// One folder's world. Names are plain file names: no separators, 1 to [`NAME_BYTES_MAX`] bytes.
///
/// Creating, renaming and removing are durable only after [`Files::sync_dir`].
pub trait Files: Send + Sync + 'static {
    /// Creates a file that must not exist, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidInput` for a name with a separator, or the disk's error.
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput`, or the disk's error.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Names of the files (not folders) in here, sorted.
    ///
    /// # Errors
    /// The disk's error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file. Open handles and maps of it stay readable.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput`, or the disk's error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file, replacing one of the new name, as one step that a crash cannot halve.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput`, or the disk's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, renames and removals in this folder durable.
    ///
    /// # Errors
    /// The disk's error; the folder's state is then unknown until it is listed again.
    fn sync_dir(&self) -> io::Result<()>;

    /// Whether a file of that name is here.
    ///
    /// # Errors
    /// `InvalidInput`, or the disk's error.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Takes the lock file of that name for this process until the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else holds it, or the disk's error.
    fn lock(&self, name: &str) -> io::Result<Box<dyn FolderLock>>;

    /// The folder of that name in here, created (and its entry made durable) if missing.
    ///
    /// # Errors
    /// `InvalidInput`, or the disk's error.
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Files>>;
}

/// Held while a folder belongs to one process; dropping it gives the folder back.
pub trait FolderLock: Send + Sync {}

/// One open file. Any number of threads may use it at once.
pub trait File: Send + Sync {
    /// Writes some of `parts`, in order, at `offset`; returns how many bytes. One attempt: may be
    /// short, may be interrupted. Callers want [`write_all_at`].
    ///
    /// # Errors
    /// The disk's error.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Reads up to `bytes.len()` bytes from `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// The disk's error.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reserves space so that the file is at least `bytes` long and writes below that cannot meet
    /// a full disk. New bytes read as zero.
    ///
    /// # Errors
    /// `StorageFull` when there is no room, or the disk's error.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file's bytes durable, and its length as far as reading them needs it.
    ///
    /// # Errors
    /// The disk's error. What was written since the last good sync is then in doubt for ever:
    /// syncing again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes bytes and all metadata durable.
    ///
    /// # Errors
    /// As [`File::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts the file or extends it with zeros (without reserving space for them).
    ///
    /// # Errors
    /// The disk's error.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The disk's error.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The disk's error.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The operating system's file, for whoever maps it; `None` when there is none (simulated).
    fn os_file(&self) -> Option<&fs::File>;
}

/// Writes all of `parts`, in order, at `offset`: repeats after short and interrupted writes and
/// never passes more than [`SLICES_PER_WRITE_MAX`] slices at once. Leaves `parts` consumed.
///
/// # Errors
/// The disk's error, or `WriteZero` when the disk takes nothing; how much was written is unknown.
pub fn write_all_at(
    file: &dyn File,
    mut parts: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    // Drops empty leading slices, so that the loop ends when nothing is left.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        let count = parts.len().min(SLICES_PER_WRITE_MAX);
        let written = match file.write_at(parts.get(..count).unwrap_or_default(), offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        IoSlice::advance_slices(&mut parts, written);
        offset = offset.saturating_add(written as u64);
    }
    Ok(())
}

/// Reads exactly `bytes.len()` bytes from `offset`.
///
/// # Errors
/// `UnexpectedEof` when the file ends before, or the disk's error.
pub fn read_exact_at(file: &dyn File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                bytes = bytes.get_mut(count..).unwrap_or_default();
                offset = offset.saturating_add(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether `name` is a plain file name; both worlds refuse others in the same words.
pub(crate) fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(['/', '\0'])
        && name != "."
        && name != "..";
    if plain {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("file name of {} bytes: 1 to {NAME_BYTES_MAX}, no separators", name.len()),
    ))
}

/// A folder on a real disk. Files are 0600 and folders 0700: payloads are nobody else's.
#[derive(Debug)]
pub struct DiskFiles {
    path: PathBuf,
    folder: fs::File,
}

impl DiskFiles {
    /// Opens the folder at `path`, creating it and its parents if missing.
    ///
    /// # Errors
    /// The disk's error; `NotADirectory` when something else is there.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_durably(&path)?;
        let folder = fs::File::open(&path)?;
        if !folder.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { path, folder })
    }

    /// Where this folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Relative to the open folder and without following links, so that neither a renamed parent
    /// nor a planted link can lead a write elsewhere.
    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<fs::File> {
        check_name(name)?;
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(&self.folder, name, flags, mode)?.into())
    }
}

impl Files for DiskFiles {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.open_at(name, OFlags::CREATE | OFlags::EXCL)?;
        Ok(Arc::new(DiskFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile { file: self.open_at(name, OFlags::empty())? }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Names that are not UTF-8 are not ours: every name that we give is ASCII.
            if let (true, Ok(name)) =
                (entry.file_type()?.is_file(), entry.file_name().into_string())
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        check_name(name)?;
        match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn FolderLock>> {
        let file = self.open_at(name, OFlags::CREATE)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(DiskLock { _file: file }))
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Files>> {
        check_name(name)?;
        Ok(Arc::new(Self::open(self.path.join(name))?))
    }
}

/// Creates the folder and its missing parents, each durable before something is put into it.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_durably(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else was faster; whether it is a folder is found out by opening it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    fs::File::open(parent)?.sync_all()
}

/// The kernel gives the lock back when the file is closed, however the process ends.
#[derive(Debug)]
struct DiskLock {
    _file: fs::File,
}

impl FolderLock for DiskLock {}

#[derive(Debug)]
struct DiskFile {
    file: fs::File,
}

impl File for DiskFile {
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.file, parts, offset)?)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        use rustix::io::Errno;
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return fill_with_zeros(self, bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn os_file(&self) -> Option<&fs::File> {
        Some(&self.file)
    }
}

/// Reserves space on a file system that cannot: writes zeros from the present end on.
fn fill_with_zeros(file: &dyn File, bytes: u64) -> io::Result<()> {
    let mut offset = file.len()?;
    let zeros = vec![0; 1 << 20];
    while offset < bytes {
        let count = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(zeros.len());
        let chunk = zeros.get(..count).unwrap_or_default();
        write_all_at(file, &mut [IoSlice::new(chunk)], offset)?;
        offset += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> (tempfile::TempDir, DiskFiles) {
        let folder = tempfile::tempdir().unwrap();
        let files = DiskFiles::open(folder.path().join("outer/inner")).unwrap();
        (folder, files)
    }

    #[test]
    fn files_and_folders_are_the_owners_alone() {
        let (_folder, files) = folder();
        files.create_new("a").unwrap();
        files.folder("more").unwrap();
        let mode =
            |name: &str| files.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode("a"), mode("more")), (0o700, 0o600, 0o700));
    }

    #[test]
    fn names_are_created_listed_renamed_and_removed() {
        let (_folder, files) = folder();
        files.create_new("b").unwrap();
        files.create_new("a").unwrap();
        files.folder("more").unwrap();
        let twice = files.create_new("a").map(|_| ()).unwrap_err();
        assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(files.list().unwrap(), ["a", "b"]);
        files.rename("a", "b").unwrap();
        files.sync_dir().unwrap();
        assert_eq!(files.list().unwrap(), ["b"]);
        assert!(files.exists("b").unwrap() && !files.exists("a").unwrap());
        files.remove("b").unwrap();
        assert_eq!(files.remove("b").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let (_folder, files) = folder();
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b", &long] {
            let error = files.create_new(name).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
            assert!(files.remove(name).is_err() && files.folder(name).is_err());
        }
        std::os::unix::fs::symlink("/etc/hostname", files.path().join("link")).unwrap();
        assert!(files.open("link").is_err());
    }

    #[test]
    fn many_slices_are_written_in_order_at_their_offset() {
        let (_folder, files) = folder();
        let file = files.create_new("a").unwrap();
        let parts: Vec<Vec<u8>> = (0..2_500_u32).map(|n| vec![n as u8; (n % 4) as usize]).collect();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        write_all_at(&*file, &mut slices, 10).unwrap();
        let expected = parts.concat();
        let mut bytes = vec![0; expected.len()];
        read_exact_at(&*file, &mut bytes, 10).unwrap();
        assert_eq!(bytes, expected);
        let beyond = read_exact_at(&*file, &mut [0; 20], expected.len() as u64).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn allocated_bytes_are_zeros_and_keep_what_was_written() {
        let (_folder, files) = folder();
        let file = files.create_new("a").unwrap();
        write_all_at(&*file, &mut [IoSlice::new(b"abc")], 0).unwrap();
        file.allocate(5_000).unwrap();
        fill_with_zeros(&*file, 9_000).unwrap();
        assert_eq!(file.len().unwrap(), 9_000);
        let mut bytes = vec![1; 9_000];
        read_exact_at(&*file, &mut bytes, 0).unwrap();
        assert_eq!(bytes[..3], *b"abc");
        assert!(bytes[3..].iter().all(|byte| *byte == 0));
        file.set_len(2).unwrap();
        file.sync_all().unwrap();
        assert_eq!((file.len().unwrap(), file.is_empty().unwrap()), (2, false));
    }

    #[test]
    fn a_lock_is_held_by_one_until_it_is_dropped() {
        let (_folder, files) = folder();
        let lock = files.lock("LOCK").unwrap();
        let second = files.lock("LOCK").map(|_| ()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        assert!(files.lock("LOCK").is_ok());
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused() {
        let (_folder, files) = folder();
        files.create_new("a").unwrap();
        assert!(DiskFiles::open(files.path().join("a")).is_err());
        assert!(files.folder("a").is_err());
    }
}
