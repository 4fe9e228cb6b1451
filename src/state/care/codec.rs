//! The byte form of these effects' bodies; the header is the entry codec's own.
//!
//! ```text
//! Reopen, Exhume  u32 partition | u32 group | (u64 seq | u64 failed_ms) …
//! Erase           u32 partition | u64 seq
//! SetJob, Trace   as in their rows
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::state::care::{Care, rows};
use crate::state::codec::EntryError;

const TAG_REOPEN: u8 = 40;
const TAG_EXHUME: u8 = 41;
const TAG_ERASE: u8 = 42;
const TAG_SET_JOB: u8 = 43;
const TAG_TRACE: u8 = 44;

/// Whether a tag is one of these.
#[must_use]
pub fn is_ours(tag: u8) -> bool {
    (TAG_REOPEN..=TAG_TRACE).contains(&tag)
}

/// The tag of an effect.
#[must_use]
pub fn tag(care: &Care) -> u8 {
    match care {
        Care::Reopen { .. } => TAG_REOPEN,
        Care::Exhume { .. } => TAG_EXHUME,
        Care::Erase { .. } => TAG_ERASE,
        Care::SetJob(_) => TAG_SET_JOB,
        Care::Trace(_) => TAG_TRACE,
    }
}

/// Bytes of an effect's body.
#[must_use]
pub fn body_len(care: &Care) -> usize {
    match care {
        Care::Reopen { letters, .. } | Care::Exhume { letters, .. } => 8 + 16 * letters.len(),
        Care::Erase { .. } => 4 + 8,
        Care::SetJob(job) => rows::job_len(job),
        Care::Trace(event) => rows::trace_len(event),
    }
}

/// Writes an effect's body.
pub fn put(out: &mut BytesMut, care: &Care) {
    match care {
        Care::Reopen { partition, group, letters } | Care::Exhume { partition, group, letters } => {
            out.put_u32_le(*partition);
            out.put_u32_le(*group);
            for (seq, failed_ms) in letters {
                out.put_u64_le(*seq);
                out.put_u64_le(*failed_ms);
            }
        }
        Care::Erase { partition, seq } => {
            out.put_u32_le(*partition);
            out.put_u64_le(*seq);
        }
        Care::SetJob(job) => rows::put_job(out, job),
        Care::Trace(event) => rows::put_trace(out, event),
    }
}

/// Reads an effect's body.
///
/// # Errors
/// [`EntryError`] where it is not what [`put`] writes.
pub fn read(tag: u8, body: &mut Bytes) -> Result<Care, EntryError> {
    let short = |_| EntryError { field: "effect body", problem: "cut off" };
    match tag {
        TAG_REOPEN | TAG_EXHUME => {
            let partition = body.try_get_u32_le().map_err(short)?;
            let group = body.try_get_u32_le().map_err(short)?;
            // The bytes themselves bound the allocation.
            let mut letters = Vec::with_capacity(body.len() / 16);
            while body.has_remaining() {
                let seq = body.try_get_u64_le().map_err(short)?;
                letters.push((seq, body.try_get_u64_le().map_err(short)?));
            }
            Ok(match tag {
                TAG_REOPEN => Care::Reopen { partition, group, letters },
                _ => Care::Exhume { partition, group, letters },
            })
        }
        TAG_ERASE => {
            let partition = body.try_get_u32_le().map_err(short)?;
            Ok(Care::Erase { partition, seq: body.try_get_u64_le().map_err(short)? })
        }
        TAG_SET_JOB => Ok(Care::SetJob(Box::new(rows::read_job(body)?))),
        TAG_TRACE => Ok(Care::Trace(Box::new(rows::read_trace(body)?))),
        _ => Err(EntryError { field: "effect tag", problem: "unknown" }),
    }
}
