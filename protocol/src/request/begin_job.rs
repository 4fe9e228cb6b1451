//! BeginJob: has dead letters given back, pushed again or deleted, many at a time.
//!
//! In: which letters, how many, how fast. Answered by `JobBegun` at once; the job goes on by itself.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `action`: 0 redrive, 1 requeue, 2 delete |
//! | 1 + n | `queue`: a name |
//! | 1 + n | `group`: a name; of 0 bytes for all |
//! | 1 + n | `partition`: a name; of 0 bytes for all |
//! | 2 + n | `error`: a long text of at most 1 024 bytes that their errors have in them; of 0 bytes for any |
//! | 8 | `limit`: letters to be moved, at most; 0 for all |
//! | 4 | `rate`: letters a second, at most 1 000 000; 0 for as fast as it goes |
//! | 1 | `dry_run`: 0 or 1 |
//! | 1 | `scope`: only when `action` is 1: 0 the queue itself, 1 another |
//! | 1 + n | `to_queue`: a name; only when `scope` is 1 |
//! | 1 + n | `to_partition`: only when `action` is 1: a name; of 0 bytes for the one it was in |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::{JOB_ERROR_BYTES_MAX, JOB_RATE_MAX};
use crate::name::{GroupName, PartitionName, QueueName};
use crate::primitive::{Reader, in_range, put_flag, put_long, put_short};
use crate::request::scope::{put_scope, read_scope};
use crate::response::JobKind;
use crate::text::LongText;

/// What a job does with letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobAction {
    /// Gives them back to their groups.
    Redrive,
    /// Pushes them as new messages.
    Requeue {
        /// Where to; the queue they were in when `None`. It is made if it does not exist.
        queue: Option<QueueName>,
        /// Into which partition; one called as that they were in when `None`.
        partition: Option<PartitionName>,
    },
    /// Deletes them.
    Delete,
}

impl JobAction {
    /// What kind of job it makes.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Redrive => JobKind::Redrive,
            Self::Requeue { .. } => JobKind::Requeue,
            Self::Delete => JobKind::Delete,
        }
    }
}

/// Begins a job over dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginJob {
    /// What it does with them.
    pub action: JobAction,
    /// Whose letters.
    pub queue: QueueName,
    /// Only of this group.
    pub group: Option<GroupName>,
    /// Only of this partition.
    pub partition: Option<PartitionName>,
    /// Only those whose error has this in it; empty for any. At most 1 024 bytes.
    pub error: LongText,
    /// Letters to be moved, at most; 0 for all.
    pub limit: u64,
    /// Letters a second, at most 1 000 000; 0 for as fast as it goes.
    pub rate: u32,
    /// Whether they are only counted.
    pub dry_run: bool,
}

impl BeginJob {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.action.kind().number());
        put_short(out, self.queue.as_bytes());
        put_short(out, self.group.as_ref().map(GroupName::as_bytes).unwrap_or_default());
        put_short(out, self.partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
        put_long(out, self.error.as_bytes());
        out.put_u64_le(self.limit);
        out.put_u32_le(self.rate);
        put_flag(out, self.dry_run);
        if let JobAction::Requeue { queue, partition } = &self.action {
            put_scope(out, queue.as_ref());
            put_short(out, partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let kind = JobKind::read(&mut reader)?;
        let queue = reader.short("queue", QueueName::parse)?;
        let group = reader.optional("group", GroupName::parse)?;
        let partition = reader.optional("partition", PartitionName::parse)?;
        let offset = reader.at();
        let error = reader.long("error", LongText::parse)?;
        let bytes = error.as_bytes().len() as u64;
        in_range("error", offset, bytes, 0, JOB_ERROR_BYTES_MAX as u64)?;
        let limit = reader.u64("limit")?;
        let rate = reader.u32_in("rate", 0, JOB_RATE_MAX)?;
        let dry_run = reader.flag("dry_run")?;
        let action = match kind {
            JobKind::Redrive => JobAction::Redrive,
            JobKind::Delete => JobAction::Delete,
            JobKind::Requeue => JobAction::Requeue {
                queue: read_scope(&mut reader)?,
                partition: reader.optional("to_partition", PartitionName::parse)?,
            },
        };
        reader.end()?;
        Ok(Self { action, queue, group, partition, error, limit, rate, dry_run })
    }
}
