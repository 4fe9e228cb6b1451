//! A store's identity in a folder, written once and never changed; and who may use the folder.
//!
//! In: a folder. Out: its identity, or a new one for an empty folder, durable before it is used.
//! Called by the server's composition, before the log is opened.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::files::{Files, FolderLock, read_exact_at, write_all_at};
use crate::base::place::{ShardCount, StoreKey};
use crate::base::random::Random;
use crate::log::identity::{Identity, Loaded};

/// Name of the file.
const FILE_NAME: &str = "store.json";
/// Name while it is being written.
const UNFINISHED_NAME: &str = "store.json.new";
/// Name of the file whose lock says that a process uses the folder.
const LOCK_NAME: &str = "store.lock";
/// The layout of a store's folder that this code writes and reads.
const FORMAT: u32 = 1;
/// Bytes of the file at most: ours has about 200.
const FILE_BYTES_MAX: u64 = 4_096;

/// Why a store's identity is not known. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be believed. The store must not be opened with a guess: restore the file.
    #[error("{FILE_NAME} is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// The folder was laid out by another version.
    #[error("{FILE_NAME} has format {found}, this version reads {FORMAT}")]
    Format {
        /// What the file says.
        found: u32,
    },
    /// The disk failed.
    #[error("{action} {name}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        name: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

/// The file's fields, in order.
#[derive(Deserialize, Serialize)]
struct Fields {
    format: u32,
    shards: u16,
    key: String,
    store: String,
    created_ms: u64,
    /// CRC-32 of the fields before, one per line.
    check: u32,
}

impl Fields {
    fn new(identity: &Identity) -> Self {
        let mut fields = Self {
            format: FORMAT,
            shards: identity.shards.get(),
            key: to_hex(&identity.key.0),
            store: to_hex(&identity.store),
            created_ms: identity.created_ms,
            check: 0,
        };
        fields.check = fields.computed_check();
        fields
    }

    fn computed_check(&self) -> u32 {
        let Self { format, shards, key, store, created_ms, check: _ } = self;
        crc32fast::hash(format!("{format}\n{shards}\n{key}\n{store}\n{created_ms}\n").as_bytes())
    }

    fn identity(&self) -> Result<Identity, IdentityError> {
        let damaged = |reason: &str| IdentityError::Damaged { reason: reason.to_owned() };
        if self.check != self.computed_check() {
            return Err(damaged("its check does not hold"));
        }
        if self.format != FORMAT {
            return Err(IdentityError::Format { found: self.format });
        }
        Ok(Identity {
            shards: ShardCount::new(self.shards)
                .ok_or_else(|| damaged("shards is not 1..=1024"))?,
            key: StoreKey(from_hex(&self.key).ok_or_else(|| damaged("key is not 32 hex digits"))?),
            store: from_hex(&self.store).ok_or_else(|| damaged("store is not 32 hex digits"))?,
            created_ms: self.created_ms,
        })
    }
}

impl Identity {
    /// The identity of the store in `files`; a new one with `shards` shards where there is none,
    /// which is durable when this returns.
    ///
    /// # Errors
    /// [`IdentityError`]: nothing is guessed about a file that cannot be read.
    pub fn load_or_create(
        files: &dyn Files,
        random: &dyn Random,
        shards: ShardCount,
        now_ms: u64,
    ) -> Result<Loaded, IdentityError> {
        if let Some(identity) = Self::load(files)? {
            return Ok(Loaded::Existing(identity));
        }
        let identity = Self::new(random, shards, now_ms);
        identity.write(files)?;
        Ok(Loaded::Created(identity))
    }

    /// The identity of the store in `files`; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::load_or_create`].
    pub fn load(files: &dyn Files) -> Result<Option<Self>, IdentityError> {
        let io = |source| IdentityError::Io { action: "reading", name: FILE_NAME, source };
        let file = match files.open(FILE_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let len = file.len().map_err(io)?;
        if len > FILE_BYTES_MAX {
            let reason = format!("{len} bytes are more than {FILE_BYTES_MAX}");
            return Err(IdentityError::Damaged { reason });
        }
        let mut bytes = vec![0; len as usize];
        read_exact_at(&*file, &mut bytes, 0).map_err(io)?;
        let fields: Fields = serde_json::from_slice(&bytes)
            .map_err(|error| IdentityError::Damaged { reason: error.to_string() })?;
        fields.identity().map(Some)
    }

    /// Notes the identity of a store that is kept elsewhere, in a folder for that alone; durable when
    /// this returns. Whatever was noted there before is replaced.
    ///
    /// # Errors
    /// [`IdentityError::Io`]: what was there before is still there.
    pub fn note(&self, files: &dyn Files) -> Result<(), IdentityError> {
        match Self::load(files) {
            Ok(Some(known)) if known == *self => Ok(()),
            _ => self.write(files),
        }
    }

    /// Under another name first: a crash leaves the whole file or none.
    fn write(&self, files: &dyn Files) -> Result<(), IdentityError> {
        let failed = |action, name| move |source| IdentityError::Io { action, name, source };
        let mut text = serde_json::to_vec_pretty(&Fields::new(self))
            .map_err(|error| failed("writing", FILE_NAME)(error.into()))?;
        text.push(b'\n');
        match files.remove(UNFINISHED_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", UNFINISHED_NAME)(error));
            }
            _ => {}
        }
        let create = || {
            let file = files.create_new(UNFINISHED_NAME)?;
            file.allocate(text.len() as u64)?;
            write_all_at(&*file, &mut [IoSlice::new(&text)], 0)?;
            file.sync_all()
        };
        create().map_err(failed("writing", UNFINISHED_NAME))?;
        let publish = || {
            files.rename(UNFINISHED_NAME, FILE_NAME)?;
            files.sync_dir()
        };
        publish().map_err(failed("naming", FILE_NAME))
    }
}

/// Held while a store's folder belongs to this process; dropping it gives the folder back.
pub struct StoreLock {
    _lock: Box<dyn FolderLock>,
}

/// Why a store's folder was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("the store in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The disk failed.
    #[error("locking the store in {}: {source}", folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl StoreLock {
    /// Takes the folder for this process. `folder` is its name for errors.
    ///
    /// # Errors
    /// [`LockError::InUse`] while somebody else has it.
    pub fn take(files: &dyn Files, folder: &Path) -> Result<Self, LockError> {
        match files.lock(LOCK_NAME) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(LockError::InUse(folder.to_path_buf()))
            }
            Err(source) => Err(LockError::Io { folder: folder.to_path_buf(), source }),
        }
    }
}

fn to_hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_le_bytes(*bytes).swap_bytes())
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let is_ours = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_ours)?;
    Some(number.swap_bytes().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files::DiskFiles;
    use crate::base::random::SeededRandom;
    use crate::base::sim::SimDisk;

    fn shards(count: u16) -> ShardCount {
        ShardCount::new(count).unwrap()
    }

    fn load_or_create(files: &dyn Files, count: u16) -> Result<Loaded, IdentityError> {
        Identity::load_or_create(files, &SeededRandom::new(u64::from(count)), shards(count), 77)
    }

    #[test]
    fn an_identity_stays_what_it_was_made_as_whatever_is_asked_for_later() {
        let folder = tempfile::tempdir().unwrap();
        let files = DiskFiles::open(folder.path()).unwrap();
        let Loaded::Created(made) = load_or_create(&files, 64).unwrap() else { panic!() };
        assert_eq!((made.shards.get(), made.created_ms), (64, 77));
        assert_ne!(made.key.0, made.store);
        let Loaded::Existing(found) = load_or_create(&files, 8).unwrap() else { panic!() };
        assert_eq!(found, made);
    }

    #[test]
    fn any_changed_byte_of_the_file_is_noticed_or_changes_nothing() {
        let disk = SimDisk::new(1);
        let made = load_or_create(&*disk.files(), 16).unwrap().identity();
        let bytes = disk.contents(FILE_NAME).unwrap();
        let mut refused = 0;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                disk.put(FILE_NAME, &damaged);
                match Identity::load(&*disk.files()) {
                    // White space between fields, or a hex digit's case that the check rejects.
                    Ok(found) => assert_eq!(found, Some(made), "byte {at} bit {bit}"),
                    Err(IdentityError::Damaged { .. } | IdentityError::Format { .. }) => {
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        assert!(refused > bytes.len() * 6, "{refused} of {}", bytes.len() * 8);
    }

    #[test]
    fn what_is_noted_is_found_and_takes_the_place_of_what_was() {
        let disk = SimDisk::new(1);
        for seed in 1..4 {
            let store = Identity::new(&SeededRandom::new(seed), shards(4), seed);
            for _ in 0..2 {
                store.note(&*disk.files()).unwrap();
                disk.crash();
                assert_eq!(Identity::load(&*disk.files()).unwrap(), Some(store));
            }
        }
        let files = disk.files();
        // Damaged: there is nothing to lose.
        disk.put(FILE_NAME, b"{");
        let store = Identity::new(&SeededRandom::new(9), shards(4), 9);
        store.note(&*files).unwrap();
        assert_eq!(Identity::load(&*files).unwrap(), Some(store));
    }

    #[test]
    fn another_format_is_named_and_a_long_or_empty_file_refused() {
        let disk = SimDisk::new(1);
        let files = disk.files();
        let made = load_or_create(&*files, 16).unwrap().identity();
        let mut fields = Fields::new(&made);
        fields.format = 9;
        fields.check = fields.computed_check();
        disk.put(FILE_NAME, &serde_json::to_vec(&fields).unwrap());
        assert!(matches!(Identity::load(&*files), Err(IdentityError::Format { found: 9 })));
        for bytes in [vec![], vec![b' '; 5_000]] {
            disk.put(FILE_NAME, &bytes);
            assert!(matches!(Identity::load(&*files), Err(IdentityError::Damaged { .. })));
        }
    }

    #[test]
    fn a_power_cut_at_any_step_leaves_a_whole_identity_or_none() {
        let (mut whole, mut none) = (0, 0);
        for seed in 0..60 {
            for operations in 0..8 {
                let disk = SimDisk::new(seed);
                disk.power_off_after(operations);
                let made = load_or_create(&*disk.files(), 16).ok();
                disk.crash();
                match (made, Identity::load(&*disk.files()).unwrap()) {
                    (Some(made), found) => assert_eq!(found, Some(made.identity())),
                    (None, Some(found)) => {
                        assert_eq!(found.shards, shards(16));
                        whole += 1;
                    }
                    (None, None) => none += 1,
                }
                assert!(load_or_create(&*disk.files(), 32).is_ok());
            }
        }
        assert!(whole > 0 && none > 0, "{whole} {none}");
    }

    #[test]
    fn a_folder_is_taken_by_one_at_a_time_and_the_error_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = DiskFiles::open(folder.path()).unwrap();
        let first = StoreLock::take(&files, folder.path()).unwrap();
        let Err(refused) = StoreLock::take(&files, folder.path()) else { panic!() };
        assert!(matches!(&refused, LockError::InUse(at) if at == folder.path()));
        assert!(refused.to_string().contains(&folder.path().display().to_string()));
        drop(first);
        assert!(StoreLock::take(&files, folder.path()).is_ok());
    }
}
