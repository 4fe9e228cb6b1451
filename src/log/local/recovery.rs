//! Opens the local log: finds the heads and hands over what the state has not applied.
//!
//! In: the journal's records and how far each shard was applied. Out: entries in order, heads, and
//! hints for reading; or why log and state do not fit together. Called by `LocalLog::open`.

use std::sync::Arc;

use super::record::{self, KIND_ENTRIES, KIND_HEADS, Malformed};
use crate::base::files::Files;
use crate::base::place::ShardId;
use crate::journal::{
    self, HEADER_BYTES, Journal, PAGE_BYTES, Record, RecoverError, RecoveryReport,
};
use crate::log::StoredEntry;

/// How far a shard was applied to the state that opens the log. The default says: not at all.
///
/// Rows must not be persisted before the log is synced up to what they include: after a crash they
/// would be ahead of it and refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// Number of the first entry that is not applied.
    pub next_index: u64,
    /// Everything of this shard before this position is applied. The later the better: the log is
    /// read from the earliest of all shards on, so a checkpoint should move idle shards along.
    pub position: u64,
}

/// What opening the local log found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OpenReport {
    /// What the journal found and cut.
    pub journal: RecoveryReport,
    /// Entries handed over.
    pub entries: u64,
    /// Per shard, number of its oldest entry that was read (handed over or not); `None` without one.
    pub first_index: Vec<Option<u64>>,
}

/// Why the local log was not opened. Nothing of it was deleted. Entries that were handed over
/// before the error must be forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("the log is in use by another process")]
    InUse,
    /// The segments could not be opened.
    #[error(transparent)]
    Journal(RecoverError),
    /// The records verify and yet make no sense: another version wrote them, or a fault in ours.
    #[error("the log's record at position {position} makes no sense: {reason}")]
    Malformed {
        /// Where.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// The log belongs to another store than the folder's identity says.
    #[error("the log belongs to another store")]
    OtherStore,
    /// The state covers more than the log has: the machine lost entries that were not synced, or
    /// they do not belong together. The rows must be made anew from the log.
    #[error("the state has applied shard {shard} up to entry {applied}, the log ends before")]
    StateAhead {
        /// The shard.
        shard: ShardId,
        /// How many of its entries are applied.
        applied: u64,
    },
    /// The log no longer has entries that the state has not applied.
    #[error("shard {shard} needs entry {needed}, the log begins at {first}")]
    Gap {
        /// The shard.
        shard: ShardId,
        /// The entry that should come next.
        needed: u64,
        /// The oldest entry there is.
        first: u64,
    },
    /// The system did not give the log its thread.
    #[error("starting the log's thread: {0}")]
    Thread(std::io::Error),
}

impl From<RecoverError> for OpenError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::InUse => Self::InUse,
            other => Self::Journal(other),
        }
    }
}

/// A place to begin reading at: entries of a shard from its head on lie behind the position.
#[derive(Clone, Debug)]
pub(super) struct Hint {
    /// Where a record starts.
    pub(super) position: u64,
    /// Head of each shard there; `None` where the scan had not learnt it yet.
    pub(super) heads: Vec<Option<u64>>,
}

pub(super) struct Recovered {
    pub(super) journal: Journal,
    pub(super) heads: Vec<u64>,
    pub(super) hints: Vec<Hint>,
    /// Where the newest record of heads starts.
    pub(super) heads_at: Option<u64>,
    pub(super) report: OpenReport,
}

pub(super) fn recover(
    files: Arc<dyn Files>,
    config: &journal::Config,
    shards: usize,
    applied: &[Applied],
    visit: &mut dyn FnMut(StoredEntry),
) -> Result<Recovered, OpenError> {
    let all_applied: Vec<Applied> =
        (0..shards).map(|shard| applied.get(shard).copied().unwrap_or_default()).collect();
    let scan_from = scan_from(&*files, &all_applied)?;
    let mut scan = Scan::new(&all_applied, visit);
    let opened = Journal::open(files, config, scan_from, &mut |record| scan.take(&record));
    let (journal, report) = opened.map_err(|error| match error {
        // The scan begins in the segment that holds the earliest position: the log ends before it.
        RecoverError::ScanBeyondEnd { .. } => earliest_is_ahead(&all_applied),
        other => other.into(),
    })?;
    let finished = scan.finish(journal.end())?;
    Ok(Recovered {
        journal,
        heads: finished.heads,
        hints: finished.hints,
        heads_at: finished.heads_at,
        report: OpenReport {
            journal: report,
            entries: finished.entries,
            first_index: finished.first_index,
        },
    })
}

/// The first record of the segment that holds the earliest position anything may be missing from;
/// `None` for everything. Positions inside a segment are no use to the journal: they are those of
/// entries, and it scans from records.
fn scan_from(files: &dyn Files, applied: &[Applied]) -> Result<Option<u64>, OpenError> {
    let earliest = applied.iter().map(|shard| shard.position).min().unwrap_or(0);
    let names = files.list().map_err(|source| RecoverError::Io {
        action: "listing",
        name: "the log's folder".to_owned(),
        source,
    })?;
    let base_of = |name: &String| name.strip_suffix(".seg").and_then(|digits| digits.parse().ok());
    let bases = names.iter().filter_map(base_of);
    let base: Option<u64> = bases.filter(|base: &u64| *base < earliest).max();
    Ok(base.map(|base| base + PAGE_BYTES))
}

fn earliest_is_ahead(applied: &[Applied]) -> OpenError {
    let earliest = applied.iter().zip(0..).min_by_key(|(shard, _)| shard.position);
    let (shard, applied) = earliest.map_or((0, 0), |(shard, number)| (number, shard.next_index));
    OpenError::StateAhead { shard, applied }
}

/// One walk over the records.
struct Scan<'a> {
    applied: &'a [Applied],
    visit: &'a mut dyn FnMut(StoredEntry),
    heads: Vec<Option<u64>>,
    first_index: Vec<Option<u64>>,
    hints: Vec<Hint>,
    heads_at: Option<u64>,
    entries: u64,
    /// The first thing that was wrong; the rest of the walk is then idle.
    failure: Option<OpenError>,
}

struct Finished {
    heads: Vec<u64>,
    hints: Vec<Hint>,
    heads_at: Option<u64>,
    first_index: Vec<Option<u64>>,
    entries: u64,
}

impl<'a> Scan<'a> {
    fn new(applied: &'a [Applied], visit: &'a mut dyn FnMut(StoredEntry)) -> Self {
        Self {
            applied,
            visit,
            heads: vec![None; applied.len()],
            first_index: vec![None; applied.len()],
            hints: Vec::new(),
            heads_at: None,
            entries: 0,
            failure: None,
        }
    }

    fn take(&mut self, record: &Record) {
        if self.failure.is_some() {
            return;
        }
        if self.hints.is_empty() {
            self.hint(record);
        }
        let taken = match record.kind {
            KIND_ENTRIES => self.take_entries(record),
            KIND_HEADS => self.take_heads(record),
            kind => Err(malformed(record.position, format!("kind {kind} is not known"))),
        };
        self.failure = taken.err();
    }

    fn hint(&mut self, record: &Record) {
        let position = record.position - HEADER_BYTES;
        self.hints.push(Hint { position, heads: self.heads.clone() });
    }

    fn take_entries(&mut self, record: &Record) -> Result<(), OpenError> {
        let wrong = |error: Malformed| malformed(record.position, error.to_string());
        for slot in record::entries(&record.payload).map_err(wrong)? {
            let slot = slot.map_err(wrong)?;
            let position = record.position + slot.offset;
            let number = usize::from(slot.shard);
            let (Some(head), Some(applied)) =
                (self.heads.get_mut(number), self.applied.get(number))
            else {
                let reason = format!("shard {} of {}", slot.shard, self.applied.len());
                return Err(malformed(position, reason));
            };
            if let Some(expected) = head.filter(|head| *head != slot.index) {
                let reason = format!(
                    "entry {} of shard {} where {expected} comes next",
                    slot.index, slot.shard
                );
                return Err(malformed(position, reason));
            }
            check_gap(slot.shard, *applied, *head, slot.index)?;
            *head = Some(slot.index + 1);
            if let Some(first) = self.first_index.get_mut(number) {
                first.get_or_insert(slot.index);
            }
            if slot.index >= applied.next_index {
                self.entries += 1;
                (self.visit)(StoredEntry {
                    shard: slot.shard,
                    index: slot.index,
                    position,
                    bytes: slot.bytes,
                });
            }
        }
        Ok(())
    }

    fn take_heads(&mut self, record: &Record) -> Result<(), OpenError> {
        let wrong = |error: Malformed| malformed(record.position, error.to_string());
        let told = record::decode_heads(&record.payload).map_err(wrong)?;
        if told.len() != self.heads.len() {
            let reason = format!("heads of {} shards instead of {}", told.len(), self.heads.len());
            return Err(malformed(record.position, reason));
        }
        for (((told, known), applied), shard) in
            told.iter().zip(&mut self.heads).zip(self.applied).zip(0..)
        {
            if let Some(known) = known.filter(|known| known != told) {
                let reason = format!("head {told} of shard {shard} instead of {known}");
                return Err(malformed(record.position, reason));
            }
            // Entries up to this head lie before the scan, or nowhere.
            check_gap(shard, *applied, *known, *told)?;
            *known = Some(*told);
        }
        self.hint(record);
        self.heads_at = Some(record.position - HEADER_BYTES);
        Ok(())
    }

    fn finish(self, end: u64) -> Result<Finished, OpenError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let mut heads = Vec::with_capacity(self.heads.len());
        for ((known, applied), shard) in self.heads.iter().zip(self.applied).zip(0..) {
            // A shard of which nothing was read has nothing behind the position it was applied to.
            let head = known.unwrap_or(applied.next_index);
            if head < applied.next_index || applied.position > end {
                return Err(OpenError::StateAhead { shard, applied: applied.next_index });
            }
            heads.push(head);
        }
        Ok(Finished {
            heads,
            hints: self.hints,
            heads_at: self.heads_at,
            first_index: self.first_index,
            entries: self.entries,
        })
    }
}

/// The first that is heard of a shard must reach back to what is applied. A state that has applied
/// nothing takes the log from wherever it begins: what was truncated is no longer needed by anyone.
fn check_gap(
    shard: ShardId,
    applied: Applied,
    known: Option<u64>,
    first: u64,
) -> Result<(), OpenError> {
    let is_new_state = applied == Applied::default();
    if known.is_none() && !is_new_state && first > applied.next_index {
        return Err(OpenError::Gap { shard, needed: applied.next_index, first });
    }
    Ok(())
}

fn malformed(position: u64, reason: String) -> OpenError {
    OpenError::Malformed { position, reason }
}
