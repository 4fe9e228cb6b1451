//! Job: a job over dead letters and how far it is; alone as `JobBegun` and `JobCancelled`, and as `Jobs`.
//!
//! `Jobs` has a count of 4 bytes, at most 10 000, and then as many jobs. A job:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `id` |
//! | 1 | `action`: 0 redrive, 1 requeue, 2 delete |
//! | 1 | `state`: 0 running, 1 done, 2 cancelled, 3 failed |
//! | 1 + n | `queue`: a name |
//! | 1 + n | `group`: a name; of 0 bytes for all |
//! | 1 + n | `partition`: a name; of 0 bytes for all |
//! | 2 + n | `error`: a long text that errors have in them; of 0 bytes for any |
//! | 8 | `limit`: 0 for all |
//! | 4 | `rate`: letters a second; 0 for as fast as it goes |
//! | 1 | `dry_run`: 0 or 1 |
//! | 8 | `moved`: letters that it has moved |
//! | 8 | `skipped`: letters that it has left alone |
//! | 8 | `deferred`: letters around which a consumer holds messages: they come later |
//! | 8 | `created_ms` |
//! | 8 | `updated_ms` |
//! | 2 + n | `problem`: a long text; why it failed |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::JOBS_PER_ANSWER_MAX;
use crate::name::{GroupName, PartitionName, QueueName};
use crate::primitive::{Reader, numbered, put_count32, put_flag, put_long, put_short};
use crate::text::LongText;

numbered! {
    /// What a job does with dead letters.
    JobKind, "action",
    /// Gives them back to their groups.
    Redrive = 0,
    /// Pushes them as new messages.
    Requeue = 1,
    /// Deletes them.
    Delete = 2,
}

numbered! {
    /// Whether a job goes on.
    JobState, "state",
    /// It goes on.
    Running = 0,
    /// It has looked at everything.
    Done = 1,
    /// Somebody stopped it.
    Cancelled = 2,
    /// It cannot go on.
    Failed = 3,
}

/// A job over dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: u32,
    /// What it does with letters.
    pub kind: JobKind,
    /// Whether it goes on.
    pub state: JobState,
    /// Whose letters.
    pub queue: QueueName,
    /// Only of this group.
    pub group: Option<GroupName>,
    /// Only of this partition.
    pub partition: Option<PartitionName>,
    /// Only those whose error has this in it; empty for any.
    pub error: LongText,
    /// Letters to be moved, at most; 0 for all.
    pub limit: u64,
    /// Letters a second; 0 for as fast as it goes.
    pub rate: u32,
    /// Whether they are only counted.
    pub dry_run: bool,
    /// Letters that it has moved, or would have.
    pub moved: u64,
    /// Letters that it has looked at and left alone.
    pub skipped: u64,
    /// Letters around which a consumer holds messages: they come later.
    pub deferred: u64,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it last moved on, in milliseconds since 1970.
    pub updated_ms: u64,
    /// Why it failed; empty when it did not.
    pub problem: LongText,
}

/// Shows jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// Newest first; at most 10 000.
    pub jobs: Vec<Job>,
}

impl Jobs {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 jobs.
    pub fn encode(&self, out: &mut BytesMut) {
        put_count32(out, self.jobs.len());
        self.jobs.iter().for_each(|job| job.encode(out));
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let count = reader.count32("jobs", Job::BYTES_MIN, JOBS_PER_ANSWER_MAX)?;
        let mut jobs = Vec::with_capacity(count);
        for _ in 0..count {
            jobs.push(Job::read(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { jobs })
    }
}

impl Job {
    /// Fewest bytes of a job: all but its texts.
    const BYTES_MIN: usize = 4 + 1 + 1 + 3 + 2 + 8 + 4 + 1 + 5 * 8 + 2;

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.id);
        out.put_u8(self.kind.number());
        out.put_u8(self.state.number());
        put_short(out, self.queue.as_bytes());
        put_short(out, self.group.as_ref().map(GroupName::as_bytes).unwrap_or_default());
        put_short(out, self.partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
        put_long(out, self.error.as_bytes());
        out.put_u64_le(self.limit);
        out.put_u32_le(self.rate);
        put_flag(out, self.dry_run);
        let counts = [self.moved, self.skipped, self.deferred, self.created_ms, self.updated_ms];
        counts.iter().for_each(|number| out.put_u64_le(*number));
        put_long(out, self.problem.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let job = Self::read(&mut reader)?;
        reader.end()?;
        Ok(job)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: reader.u32("id")?,
            kind: JobKind::read(reader)?,
            state: JobState::read(reader)?,
            queue: reader.short("queue", QueueName::parse)?,
            group: reader.optional("group", GroupName::parse)?,
            partition: reader.optional("partition", PartitionName::parse)?,
            error: reader.long("error", LongText::parse)?,
            limit: reader.u64("limit")?,
            rate: reader.u32("rate")?,
            dry_run: reader.flag("dry_run")?,
            moved: reader.u64("moved")?,
            skipped: reader.u64("skipped")?,
            deferred: reader.u64("deferred")?,
            created_ms: reader.u64("created_ms")?,
            updated_ms: reader.u64("updated_ms")?,
            problem: reader.long("problem", LongText::parse)?,
        })
    }
}
