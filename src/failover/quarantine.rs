//! Batches that no shard takes: set aside with the reason, one file each, so that they hold up
//! nobody and are still there.
//!
//! In: a record of the failover log and why it was refused. Out: a durable file
//! `POSITION.batch` with the record's bytes, and `POSITION.reason` beside it for people. A record
//! that is set aside twice has one file. Called by the lane and by `onrush log`.

use std::io;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::files::{self, Files};
use crate::failover::record::Spilled;

/// Where batches are set aside.
pub struct Quarantine {
    files: Arc<dyn Files>,
}

impl Quarantine {
    /// In this folder.
    #[must_use]
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self { files }
    }

    /// Sets a record aside; it is durable when this returns. Tells whether it was not there before.
    /// Waits for the disk.
    ///
    /// # Errors
    /// The disk's: the record must stay where it is.
    pub fn keep(&self, position: u64, record: &[Bytes], reason: &str) -> io::Result<bool> {
        let name = format!("{position:020}.batch");
        if self.files.exists(&name)? {
            return Ok(false);
        }
        self.write(
            &format!("{position:020}.reason"),
            &[Bytes::copy_from_slice(reason.as_bytes())],
        )?;
        // The batch's name appears last, so that whoever sees it sees all of it.
        self.write(&name, record)?;
        Ok(true)
    }

    fn write(&self, name: &str, parts: &[Bytes]) -> io::Result<()> {
        let draft = format!("{name}.new");
        if self.files.exists(&draft)? {
            self.files.remove(&draft)?;
        }
        let file = self.files.create_new(&draft)?;
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        files::write_all_at(&*file, &mut slices, 0)?;
        file.sync_all()?;
        self.files.rename(&draft, name)?;
        self.files.sync_dir()
    }

    /// What is set aside. Reads the beginning of each file.
    ///
    /// # Errors
    /// The disk's.
    pub fn tally(&self) -> io::Result<SetAside> {
        let mut found = SetAside::default();
        for name in self.files.list()?.iter().filter(|name| name.ends_with(".batch")) {
            let file = self.files.open(name)?;
            let mut begins = [0; 2];
            let read = file.read_at(&mut begins, 0)?;
            found.add(begins.get(..read).unwrap_or_default(), file.len()?);
        }
        Ok(found)
    }
}

/// How much is set aside.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SetAside {
    /// Batches, each in a file of its own.
    pub batches: u64,
    /// Of those, answered before they were durable.
    pub buffered: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl SetAside {
    /// Adds a batch of so many bytes whose record begins so.
    pub fn add(&mut self, begins: &[u8], bytes: u64) {
        self.batches += 1;
        self.buffered += u64::from(Spilled::was_buffered(begins));
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files::DiskFiles;

    #[test]
    fn what_is_set_aside_is_there_once_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let files = Arc::new(DiskFiles::open(folder.path().join("quarantine")).unwrap());
        let quarantine = Quarantine::new(files);
        let record = [Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        quarantine.keep(17, &record, "the queue was deleted").unwrap();
        quarantine.keep(17, &record, "again").unwrap();
        quarantine.keep(18, &[Bytes::from_static(&[1, 0, 7])], "answered before").unwrap();
        quarantine.keep(19, &[Bytes::from_static(&[1, 2, 7])], "answered after").unwrap();
        quarantine.keep(20, &[Bytes::from_static(&[1])], "no batch at all").unwrap();
        let tally = SetAside { batches: 4, buffered: 1, bytes: 10 };
        assert_eq!(quarantine.tally().unwrap(), tally);
        let path = folder.path().join("quarantine");
        let read = |name: &str| std::fs::read(path.join(name)).unwrap();
        assert_eq!(read("00000000000000000017.batch"), b"abc");
        assert_eq!(read("00000000000000000017.reason"), b"the queue was deleted");
    }
}
