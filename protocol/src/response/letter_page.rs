//! LetterPage: dead letters with their messages, newest failure first.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `has_more`: 0 or 1 |
//! | 1 | `is_counted`: 0 or 1: whether it is known how many there are |
//! | 8 | `total`; only when `is_counted` is 1 |
//! | 4 | count of letters, at most 1 000, each: |
//! | 1 + n | `queue`: a name |
//! | 4 | `partition`: its number |
//! | 1 + n | `partition_name`: a name |
//! | 1 + n | `group`: a name |
//! | 8 | `seq` |
//! | 8 | `time_ms`: when the message was stored |
//! | 8 | `failed_ms`: when it became a dead letter; 0 when that is not known |
//! | 4 | `attempts` |
//! | 1 | `reason`: 0 retries exhausted, 1 asked for, 2 lease ended too often |
//! | 2 + n | `error`: a long text |
//! | 2 + n | `producer`: a long text; of 0 bytes when nobody is known |
//! | 4 + n | `batch`: a record batch of the message alone; of 0 bytes when it cannot be shown |
//! | 2 + n | `problem`: a long text; why it cannot be shown |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::PAGE_ITEMS_MAX;
use crate::name::{GroupName, PartitionName, QueueName};
use crate::primitive::{Reader, numbered, put_blob, put_count32, put_flag, put_long, put_short};
use crate::text::LongText;

numbered! {
    /// Why a message became a dead letter.
    LetterReason, "reason",
    /// It failed more often than the queue allows.
    RetriesExhausted = 0,
    /// Its consumer asked for it, or whoever runs the queue.
    Asked = 1,
    /// Its leases ended too often.
    LeaseExpired = 2,
}

/// Shows dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterPage {
    /// Whether there are more behind these.
    pub has_more: bool,
    /// How many there are in all, where that is known.
    pub total: Option<u64>,
    /// Newest failure first; at most 1 000.
    pub letters: Vec<Letter>,
}

/// A message that a group could not settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its queue.
    pub queue: QueueName,
    /// Its partition's number.
    pub partition: u32,
    /// Its partition's name.
    pub partition_name: PartitionName,
    /// The group.
    pub group: GroupName,
    /// The message's place in the partition.
    pub seq: u64,
    /// When the message was stored, in milliseconds since 1970 by the server's clock.
    pub time_ms: u64,
    /// When it became a dead letter, in milliseconds since 1970; 0 when that is not known.
    pub failed_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it is one.
    pub reason: LetterReason,
    /// What the consumer said of it; often empty.
    pub error: LongText,
    /// Who pushed it, as the server knows it; empty when nobody is known.
    pub producer: LongText,
    /// A record batch of the message alone, not yet parsed; empty when it cannot be shown.
    pub batch: Bytes,
    /// Why it cannot be shown.
    pub problem: LongText,
}

impl LetterPage {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 letters.
    pub fn encode(&self, out: &mut BytesMut) {
        put_flag(out, self.has_more);
        put_flag(out, self.total.is_some());
        if let Some(total) = self.total {
            out.put_u64_le(total);
        }
        put_count32(out, self.letters.len());
        self.letters.iter().for_each(|letter| letter.encode(out));
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let has_more = reader.flag("has_more")?;
        let total = match reader.flag("is_counted")? {
            true => Some(reader.u64("total")?),
            false => None,
        };
        let count = reader.count32("letters", Letter::BYTES_MIN, PAGE_ITEMS_MAX)?;
        let mut letters = Vec::with_capacity(count);
        for _ in 0..count {
            letters.push(Letter::decode(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { has_more, total, letters })
    }
}

impl Letter {
    /// Fewest bytes of a letter: all but its texts and its batch.
    const BYTES_MIN: usize = 1 + 4 + 2 + 2 + 3 * 8 + 4 + 1 + 2 + 2 + 4 + 2;

    /// Bytes that it takes in a page.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        let names = self.queue.as_bytes().len()
            + self.partition_name.as_bytes().len()
            + self.group.as_bytes().len();
        let texts = [&self.error, &self.producer, &self.problem];
        let texts: usize = texts.iter().map(|text| text.as_bytes().len()).sum();
        Self::BYTES_MIN + names + texts + self.batch.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.queue.as_bytes());
        out.put_u32_le(self.partition);
        put_short(out, self.partition_name.as_bytes());
        put_short(out, self.group.as_bytes());
        out.put_u64_le(self.seq);
        out.put_u64_le(self.time_ms);
        out.put_u64_le(self.failed_ms);
        out.put_u32_le(self.attempts);
        out.put_u8(self.reason.number());
        put_long(out, self.error.as_bytes());
        put_long(out, self.producer.as_bytes());
        put_blob(out, &self.batch);
        put_long(out, self.problem.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            queue: reader.short("queue", QueueName::parse)?,
            partition: reader.u32("partition")?,
            partition_name: reader.short("partition_name", PartitionName::parse)?,
            group: reader.short("group", GroupName::parse)?,
            seq: reader.u64("seq")?,
            time_ms: reader.u64("time_ms")?,
            failed_ms: reader.u64("failed_ms")?,
            attempts: reader.u32("attempts")?,
            reason: LetterReason::read(reader)?,
            error: reader.long("error", LongText::parse)?,
            producer: reader.long("producer", LongText::parse)?,
            batch: reader.blob("batch")?,
            problem: reader.long("problem", LongText::parse)?,
        })
    }
}
