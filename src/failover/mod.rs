//! The segment log that takes over: batches that the store cannot take now, kept until it can.
//!
//! In: batches on their way into a shard. Out: the same batches in the same order, for the lane to
//! push again. What was written here is durable when [`Spill::write`] returns; how far it was pushed
//! again is said by the shards themselves ([`crate::state::effect::Effect::Replayed`]), in the very
//! entries that hold the batches, so that no crash can repeat or lose one. Called by the lane, which
//! is the only one that writes and reads here.
//!
//! [`record`] bytes, [`gate`] which partitions must queue up here, [`quarantine`] what no shard takes.

pub mod gate;
pub mod quarantine;
pub mod record;

use std::sync::Arc;

use crate::base::files::Files;
use crate::failover::record::{Spilled, SpilledError};
use crate::journal::{self, Journal, Prepare, Reader, RecoverError};
use crate::state::effect::SpillId;

/// Kind of journal records that hold a batch.
const KIND_BATCH: u8 = 1;

/// How batches are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Config {
    /// Bytes of a segment file; see [`journal::Config::segment_bytes`]. Default 16 MiB.
    pub segment_bytes: u64,
    /// Most bytes of all segments together; beyond it pushes are refused. Default 8 GiB.
    pub disk_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, disk_bytes_max: 8 << 30 }
    }
}

/// Not all of some batches were kept.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{error}; {kept} batches were kept before that")]
pub struct Unkept {
    /// So many from the first on were kept, and are durable.
    pub kept: usize,
    /// So many behind those are in the log, and nobody knows whether they are durable: they may come
    /// out of it.
    pub doubtful: usize,
    /// Why there are not more.
    pub error: SpillError,
}

/// Why batches were not kept.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SpillError {
    /// The failover log has as many bytes as it may.
    #[error("the failover log holds its limit of {limit} bytes")]
    Full {
        /// The limit.
        limit: u64,
    },
    /// There is no space on its disk.
    #[error("the failover log's disk is full")]
    DiskFull,
    /// It failed before: nothing more is accepted until a restart.
    #[error("the failover log failed: {0}")]
    Failed(String),
}

/// A batch read back.
#[derive(Debug)]
pub struct Waiting {
    /// Its place.
    pub position: u64,
    /// The place behind it: replayed up to here, it is done.
    pub end: u64,
    /// The batch, or why these bytes are none.
    pub batch: Result<Spilled, SpilledError>,
    /// The record's bytes.
    pub bytes: bytes::Bytes,
}

/// An engine's failover log.
pub struct Spill {
    journal: Journal,
    reader: Reader,
    disk_bytes_max: u64,
}

impl Spill {
    /// Opens the log in `files`, or begins one; `visit` gets everything that is there, in order.
    /// Waits for reading it.
    ///
    /// # Errors
    /// [`RecoverError`]: it is damaged, in use, or the disk failed. Nothing was deleted.
    pub fn open(
        files: Arc<dyn Files>,
        config: Config,
        visit: &mut dyn FnMut(Waiting),
    ) -> Result<Self, RecoverError> {
        let journal_config = journal::Config {
            segment_bytes: config.segment_bytes,
            // A segment is written before its time only where every push waits for it.
            prepare: Prepare::WhenNeeded,
            ..journal::Config::default()
        };
        let (journal, _) = Journal::open(files, &journal_config, None, &mut |record| {
            visit(waiting(record));
        })?;
        let reader = journal.reader(journal.start());
        Ok(Self { journal, reader, disk_bytes_max: config.disk_bytes_max })
    }

    /// Its id, by which shards name it.
    #[must_use]
    pub fn id(&self) -> SpillId {
        self.journal.store()
    }

    /// Keeps batches; they are durable when this returns. Returns where each ends. Waits for the
    /// disk: one sync for all of them.
    ///
    /// # Errors
    /// [`Unkept`]: some of them may be kept, or come out of here, all the same.
    pub fn write(&self, batches: &[Spilled]) -> Result<Vec<u64>, Unkept> {
        if self.used_bytes() > self.disk_bytes_max {
            let error = SpillError::Full { limit: self.disk_bytes_max };
            return Err(Unkept { kept: 0, doubtful: 0, error });
        }
        let (mut ends, mut failed) = (Vec::with_capacity(batches.len()), None);
        for batch in batches {
            match self.journal.append(KIND_BATCH, &batch.encode()) {
                Ok(appended) => ends.push(appended.end),
                Err(error) => {
                    failed = Some(append_error(&error));
                    break;
                }
            }
        }
        // What is written is made durable even where the rest does not fit: it will be read from here.
        if let Some(end) = ends.last()
            && let Err(error) = self.journal.sync_to(*end)
        {
            let error = failed.unwrap_or(SpillError::Failed(error.to_string()));
            return Err(Unkept { kept: 0, doubtful: ends.len(), error });
        }
        match failed {
            Some(error) => Err(Unkept { kept: ends.len(), doubtful: 0, error }),
            None => Ok(ends),
        }
    }

    /// The next batch that was not read yet; `None` at the end.
    ///
    /// # Errors
    /// [`journal::ReadError`]: what comes next cannot be read now; it stays where it is.
    pub fn read_next(&mut self) -> Result<Option<Waiting>, journal::ReadError> {
        Ok(self.reader.next_record()?.map(waiting))
    }

    /// Where the next read begins.
    #[must_use]
    pub fn read_position(&self) -> u64 {
        self.reader.position()
    }

    /// Reads from `position` on again.
    pub fn read_from(&mut self, position: u64) {
        self.reader = self.journal.reader(position.max(self.journal.start()));
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.reader.position() >= self.journal.end()
    }

    /// Gives back the space of whole segments before `position`: shards say that they have it.
    ///
    /// # Errors
    /// [`journal::DropError`]: some segments are still there; a later call drops them.
    pub fn let_go(&self, position: u64) -> Result<(), journal::DropError> {
        self.journal.drop_before(position).map(|_| ())
    }

    /// Bytes of its files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.journal.segments().iter().map(|segment| segment.bytes).sum()
    }
}

fn waiting(record: journal::Record) -> Waiting {
    let journal::Record { position, end, kind, payload } = record;
    let batch = match kind {
        KIND_BATCH => Spilled::decode(payload.clone()),
        _ => Err(SpilledError { field: "kind", problem: "unknown" }),
    };
    Waiting { position, end, batch, bytes: payload }
}

fn append_error(error: &journal::AppendError) -> SpillError {
    if error.is_retryable() {
        return SpillError::DiskFull;
    }
    SpillError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use onrush_protocol::batch::{BatchBuilder, NewRecord};
    use onrush_protocol::qos::Qos;

    use super::*;
    use crate::base::files::DiskFiles;
    use crate::base::sim::{SimDisk, Survival};
    use crate::state::draft::push::PushBatch;

    const SEGMENT_BYTES: u64 = 64 << 10;

    fn batch(payload: &[u8]) -> Spilled {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
        let push =
            PushBatch { batch: builder.finish().unwrap(), fingerprints: Vec::new(), sub: None };
        let (partition, qos) = ("p".parse().unwrap(), Qos::AtLeastOnce);
        Spilled { queue: 1, partition, qos, time_ms: 5, doubt: None, push }
    }

    fn payload(waiting: &Waiting) -> Vec<u8> {
        let batch = &waiting.batch.as_ref().unwrap().push.batch;
        batch.records().next().unwrap().payload.to_vec()
    }

    fn open(folder: &tempfile::TempDir, disk_bytes_max: u64) -> (Spill, Vec<Waiting>) {
        let files = Arc::new(DiskFiles::open(folder.path().join("failover")).unwrap());
        let config = Config { segment_bytes: SEGMENT_BYTES, disk_bytes_max };
        let mut found = Vec::new();
        let spill = Spill::open(files, config, &mut |waiting| found.push(waiting)).unwrap();
        (spill, found)
    }

    #[test]
    fn batches_come_back_in_order_now_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut spill, found) = open(&folder, u64::MAX);
        assert!(found.is_empty() && spill.is_read());
        let ends = spill.write(&[batch(b"1"), batch(b"2")]).unwrap();
        spill.write(&[batch(b"3")]).unwrap();
        let mut read = Vec::new();
        while let Some(waiting) = spill.read_next().unwrap() {
            read.push((payload(&waiting), waiting.end));
        }
        assert!(spill.is_read());
        assert_eq!(read.len(), 3);
        assert_eq!((read[0].1, read[1].1), (ends[0], ends[1]));
        let id = spill.id();
        drop(spill);
        let (spill, found) = open(&folder, u64::MAX);
        assert_eq!(spill.id(), id);
        let payloads: Vec<_> = found.iter().map(payload).collect();
        assert_eq!(payloads, [b"1", b"2", b"3"]);
    }

    #[test]
    fn a_full_log_refuses_and_takes_again_when_it_was_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let (spill, _) = open(&folder, 4 * SEGMENT_BYTES);
        let mut last = 0;
        let error = loop {
            match spill.write(&[batch(&[7; 8_000])]) {
                Ok(ends) => last = ends[0],
                Err(error) => break error,
            }
        };
        let full = SpillError::Full { limit: 4 * SEGMENT_BYTES };
        assert_eq!(error, Unkept { kept: 0, doubtful: 0, error: full });
        spill.let_go(last).unwrap();
        assert!(spill.used_bytes() <= 2 * SEGMENT_BYTES);
        spill.write(&[batch(b"again")]).unwrap();
    }

    #[test]
    fn batches_before_one_that_does_not_fit_are_kept_and_said_to_be() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(2 * SEGMENT_BYTES));
        let config = Config { segment_bytes: SEGMENT_BYTES, disk_bytes_max: u64::MAX };
        let open = || {
            let mut found = Vec::new();
            let spill = Spill::open(disk.files(), config, &mut |it| found.push(payload(&it)));
            (spill.unwrap(), found)
        };
        let (mut spill, _) = open();
        let batches: Vec<Spilled> = (0..20).map(|at| batch(&[at; 10_000])).collect();
        let unkept = spill.write(&batches).unwrap_err();
        let Unkept { kept, doubtful: 0, error: SpillError::DiskFull } = unkept else {
            panic!("{unkept:?}")
        };
        assert!((1..20).contains(&kept), "{kept}");
        let mut read = 0;
        while spill.read_next().unwrap().is_some() {
            read += 1;
        }
        assert_eq!(read, kept);
        drop(spill);
        disk.crash_with(Survival::None);
        let (_spill, found) = open();
        let expected: Vec<Vec<u8>> = (0..kept).map(|at| vec![at as u8; 10_000]).collect();
        assert_eq!(found, expected, "they are durable");
    }
}
