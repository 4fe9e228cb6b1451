//! Reading the local log: where to begin, and which entries to give.
//!
//! In: a shard and the number of an entry. Out: entries, walked out of the journal's records. Heads
//! written into the log now and then tell where a shard's entries can be found, so a reader that
//! jumps begins near; one that goes on begins where it stopped. Called by `local`: by followers and
//! tests, not on the path of a message.

use super::record::{self, KIND_ENTRIES};
use super::recovery::Hint;
use super::{LocalLog, read_error};
use crate::base::place::ShardId;
use crate::journal::Reader;
use crate::log::{ReadError, StoredEntry};

/// Places to begin reading at.
pub(super) struct Hints {
    /// Places to begin reading at, oldest first.
    pub(super) places: Vec<Hint>,
    /// Record of heads after the log has grown to here.
    pub(super) next_at: u64,
    pub(super) every_bytes: u64,
    /// Where the newest record of heads starts; entries may be dropped up to its segment.
    pub(super) heads_at: Option<u64>,
}

impl LocalLog {
    pub(super) fn read_now(
        &self,
        shard: ShardId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let known = self.shard(shard);
        let mut found = Vec::new();
        if from >= *known.head.lock() {
            return Ok(found);
        }
        let mut reader = self.reader_for(shard, from);
        let mut bytes = 0;
        let mut record_start = reader.position();
        while let Some(record) = reader.next_record().map_err(read_error)? {
            if record.kind == KIND_ENTRIES {
                let corrupt =
                    |reason: String| ReadError::Corrupt { position: record.position, reason };
                for slot in record::entries(&record.payload).map_err(|e| corrupt(e.to_string()))? {
                    let slot = slot.map_err(|e| corrupt(e.to_string()))?;
                    if slot.shard != shard || slot.index < from {
                        continue;
                    }
                    if found.is_empty() && slot.index != from {
                        return Err(ReadError::TooOld(self.journal.start()));
                    }
                    bytes += slot.bytes.len();
                    if !found.is_empty() && bytes > bytes_max {
                        *known.resume.lock() = (slot.index, record_start);
                        return Ok(found);
                    }
                    let position = record.position + slot.offset;
                    let (index, bytes) = (slot.index, slot.bytes);
                    found.push(StoredEntry { shard, index, position, bytes });
                }
            }
            record_start = record.end;
            if bytes >= bytes_max.max(1) && !found.is_empty() {
                break;
            }
        }
        match found.last() {
            Some(last) => *known.resume.lock() = (last.index + 1, record_start),
            None => return Err(ReadError::TooOld(self.journal.start())),
        }
        Ok(found)
    }

    /// A reader that begins before entry `from` of the shard, and not far before if that is known.
    pub(super) fn reader_for(&self, shard: ShardId, from: u64) -> Reader {
        let start = self.journal.start();
        let (next, resume_at) = *self.shard(shard).resume.lock();
        let resume = (next <= from).then_some(resume_at);
        let hints = self.hints.lock();
        let leads = |hint: &&Hint| {
            let head = hint.heads.get(usize::from(shard)).copied().flatten();
            head.is_some_and(|head| head <= from)
        };
        let hint = hints.places.iter().rev().find(leads).map(|hint| hint.position);
        let position = resume.into_iter().chain(hint).max().unwrap_or(start);
        self.journal.reader(position.max(start))
    }
}
