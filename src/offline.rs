//! Looking at the folder of a log while no server has it: what it holds, whether all of it can be
//! read, and what was set aside.
//!
//! In: a folder. Out: text: a table for people, JSON for programs. Changes nothing: a torn tail is
//! told and left, a damaged record is told and kept. Called by `main`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use crate::base::files::{DiskFiles, Files};
use crate::failover::record::Spilled;
use crate::journal::{self, RecoverError};

/// Why a folder was not looked at, or what is wrong with what is in it.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no such folder, or it cannot be read.
    #[error("{folder}: {source}")]
    Folder {
        /// Its path.
        folder: String,
        /// The disk's error.
        source: std::io::Error,
    },
    /// The log cannot be read, or not to its end.
    #[error("{0}")]
    Log(#[from] RecoverError),
    /// There is no batch set aside under this number.
    #[error("there is no batch {0} here; `onrush log quarantine FOLDER` lists those that are")]
    NoBatch(u64),
    /// What was set aside there is no batch.
    #[error("batch {position} cannot be read: {reason}")]
    Unreadable {
        /// Its number.
        position: u64,
        /// Why.
        reason: String,
    },
}

/// What a log holds.
#[derive(Debug, Default, Serialize)]
pub struct Held {
    /// Position of its oldest record.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Segment files.
    pub segments: u64,
    /// Records, all of which could be read.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Bytes behind the end, from a write that a crash cut short; the next start removes them.
    pub torn_bytes: u64,
    /// Of a failover log: batches.
    pub batches: u64,
    /// Of a failover log: messages.
    pub messages: u64,
    /// Of a failover log: batches that may stand in the store already.
    pub doubtful_batches: u64,
    /// Of a failover log: when its oldest batch came, unix milliseconds.
    pub oldest_ms: Option<u64>,
}

/// A batch that was set aside.
#[derive(Debug, Serialize)]
pub struct SetAside {
    /// Its number: its position in the failover log.
    pub position: u64,
    /// Why no shard took it.
    pub reason: String,
    /// Its messages; `None` when it cannot be read.
    pub messages: Option<u32>,
    /// Its partition.
    pub partition: Option<String>,
}

/// What to say of a folder that could not be read.
fn failed(folder: &Path) -> impl Fn(std::io::Error) -> OfflineError + Copy {
    move |source| OfflineError::Folder { folder: folder.display().to_string(), source }
}

fn open(folder: &Path) -> Result<DiskFiles, OfflineError> {
    let failed = failed(folder);
    // Opening makes folders that are missing, and here nothing is to be made.
    std::fs::metadata(folder).map_err(failed)?;
    DiskFiles::open(folder).map_err(failed)
}

/// Reads all of a log, checking every checksum. Waits for the disk; shows its progress on a terminal.
///
/// # Errors
/// [`OfflineError`]: what is wrong, and where.
pub fn read(folder: &Path) -> Result<Held, OfflineError> {
    let files = open(folder)?;
    let progress = progress(folder);
    let mut held = Held::default();
    let report = journal::inspect(&files, &mut |record| {
        held.payload_bytes += record.payload.len() as u64;
        progress.set_position(held.payload_bytes);
        note(&mut held, record.payload);
    })?;
    progress.finish_and_clear();
    (held.start, held.end) = (report.start, report.end);
    (held.segments, held.records) = (report.segments, report.records);
    held.torn_bytes = report.torn.map_or(0, |torn| torn.bytes);
    Ok(held)
}

fn note(held: &mut Held, payload: Bytes) {
    // Records of the store's own log are no batches of a failover log; they are only counted.
    let Ok(spilled) = Spilled::decode(payload) else { return };
    held.batches += 1;
    held.messages += u64::from(spilled.push.batch.count());
    held.doubtful_batches += u64::from(spilled.doubt.is_some());
    held.oldest_ms = Some(held.oldest_ms.unwrap_or(u64::MAX).min(spilled.time_ms));
}

fn progress(folder: &Path) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| entry.metadata().ok()).map(|it| it.len()).sum();
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {eta}");
    let bar = ProgressBar::new(bytes);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// What was set aside in a folder, oldest first.
///
/// # Errors
/// [`OfflineError::Folder`].
pub fn set_aside(folder: &Path) -> Result<Vec<SetAside>, OfflineError> {
    let mut names = open(folder)?.list().map_err(failed(folder))?;
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let Some(position) = name.strip_suffix(".batch").and_then(|it| it.parse().ok()) else {
            continue;
        };
        let reason = std::fs::read_to_string(folder.join(name.replace(".batch", ".reason")));
        let batch = batch(folder, position).ok();
        found.push(SetAside {
            position,
            reason: reason.unwrap_or_else(|_| "unknown".to_owned()),
            messages: batch.as_ref().map(|it| it.push.batch.count()),
            partition: batch.map(|it| it.partition.as_str().to_owned()),
        });
    }
    Ok(found)
}

fn batch(folder: &Path, position: u64) -> Result<Spilled, OfflineError> {
    let path = folder.join(format!("{position:020}.batch"));
    let bytes = std::fs::read(path).map_err(|_| OfflineError::NoBatch(position))?;
    let unreadable = |reason: String| OfflineError::Unreadable { position, reason };
    Spilled::decode(bytes.into()).map_err(|error| unreadable(error.to_string()))
}

/// The messages of a batch that was set aside, one JSON object a line, as they could be pushed again.
/// A payload that is not JSON is given as text where it is UTF-8, else as a list of bytes; one that is
/// encrypted is not given.
///
/// # Errors
/// [`OfflineError::NoBatch`], [`OfflineError::Unreadable`].
pub fn messages(folder: &Path, position: u64) -> Result<String, OfflineError> {
    let spilled = batch(folder, position)?;
    let mut out = String::new();
    for record in spilled.push.batch.records() {
        let text = std::str::from_utf8(record.payload);
        let payload = match (record.is_json, text) {
            // Here is no key.
            _ if spilled.push.batch.is_sealed() => Value::Null,
            (true, _) => serde_json::from_slice(record.payload).unwrap_or(Value::Null),
            (false, Ok(text)) => json!(text),
            (false, Err(_)) => json!(record.payload),
        };
        let line = json!({
            "queueId": spilled.queue,
            "partition": spilled.partition.as_str(),
            "transactionId": record.transaction_id,
            "bufferedMs": spilled.time_ms,
            "isEncrypted": spilled.push.batch.is_sealed(),
            "payload": payload,
        });
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{line}");
    }
    Ok(out)
}

/// A log's contents for people.
#[must_use]
pub fn table(held: &Held) -> String {
    let mut rows = vec![
        ("positions", format!("{} to {}", held.start, held.end)),
        ("segments", held.segments.to_string()),
        ("records", held.records.to_string()),
        ("payload", format!("{} bytes", held.payload_bytes)),
        ("torn tail", format!("{} bytes", held.torn_bytes)),
    ];
    if held.batches > 0 {
        rows.push(("batches", held.batches.to_string()));
        rows.push(("messages", held.messages.to_string()));
        rows.push(("of unknown outcome", format!("{} batches", held.doubtful_batches)));
    }
    let line = |(name, value): &(&str, String)| format!("{name:<20}{value}\n");
    rows.iter().map(line).collect()
}

/// What was set aside, for people.
#[must_use]
pub fn set_aside_table(all: &[SetAside]) -> String {
    if all.is_empty() {
        return "nothing is set aside\n".to_owned();
    }
    let mut out = format!("{:<22}{:<10}{:<24}reason\n", "position", "messages", "partition");
    for one in all {
        let messages = one.messages.map_or("?".to_owned(), |count| count.to_string());
        let partition = one.partition.as_deref().unwrap_or("?");
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<22}{messages:<10}{partition:<24}{}", one.position, one.reason);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onrush_protocol::batch::{BatchBuilder, NewRecord};
    use onrush_protocol::qos::Qos;

    use super::*;
    use crate::failover::{Config, Spill, quarantine::Quarantine};
    use crate::state::draft::push::PushBatch;

    fn spilled(payload: &[u8]) -> Spilled {
        let mut builder = BatchBuilder::new();
        let transaction_id = Some("t-1");
        builder.push(&NewRecord { payload, transaction_id, ..NewRecord::default() }).unwrap();
        let push =
            PushBatch { batch: builder.finish().unwrap(), fingerprints: Vec::new(), sub: None };
        let (partition, qos) = ("customer".parse().unwrap(), Qos::AtLeastOnce);
        Spilled { queue: 4, partition, qos, time_ms: 17, doubt: None, push }
    }

    #[test]
    fn a_failover_log_is_counted_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let files = Arc::new(DiskFiles::open(folder.path()).unwrap());
        let spill = Spill::open(files, Config::default(), &mut |_| {}).unwrap();
        spill.write(&[spilled(b"one"), spilled(b"two")]).unwrap();
        assert!(matches!(read(folder.path()), Err(OfflineError::Log(RecoverError::InUse))));
        drop(spill);
        let held = read(folder.path()).unwrap();
        assert_eq!((held.records, held.batches, held.messages), (2, 2, 2));
        assert_eq!((held.oldest_ms, held.doubtful_batches), (Some(17), 0));
        assert!(table(&held).contains("messages            2\n"), "{}", table(&held));
        let missing = folder.path().join("nowhere");
        assert!(matches!(read(&missing), Err(OfflineError::Folder { .. })));
        assert!(!missing.exists(), "looking makes no folder");
    }

    #[test]
    fn what_is_set_aside_is_listed_and_its_messages_can_be_had() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(set_aside_table(&set_aside(folder.path()).unwrap()), "nothing is set aside\n");
        let quarantine = Quarantine::new(Arc::new(DiskFiles::open(folder.path()).unwrap()));
        quarantine.keep(40, &spilled(b"one").encode(), "the queue was deleted").unwrap();
        quarantine.keep(8, &[Bytes::from_static(b"x")], "not a batch").unwrap();
        let all = set_aside(folder.path()).unwrap();
        assert_eq!((all[0].position, all[0].messages), (8, None));
        assert_eq!((all[1].position, all[1].messages), (40, Some(1)));
        assert!(set_aside_table(&all).contains("the queue was deleted"));
        let line: Value = serde_json::from_str(&messages(folder.path(), 40).unwrap()).unwrap();
        assert_eq!(line["payload"], json!("one"));
        assert_eq!(
            (&line["partition"], &line["transactionId"]),
            (&json!("customer"), &json!("t-1"))
        );
        assert!(matches!(messages(folder.path(), 41), Err(OfflineError::NoBatch(41))));
        assert!(matches!(messages(folder.path(), 8), Err(OfflineError::Unreadable { .. })));
    }
}
