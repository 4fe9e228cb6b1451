//! Transaction: acks and pushes that stand or fall as a whole.
//!
//! In: leases that must live, acks that each name their group and lease, and sections as of a push.
//! All of it is refused for one part that is wrong: a bad name is an error of the whole. Answered by
//! `Committed`, or by a failure after which nothing of it was done.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | flags: bit 0 `fail_on_duplicate`; others 0 |
//! | 2 | count of leases that must live, at most 10 000 |
//! | 16 | each lease |
//! | 4 | count of acks, at most 10 000 |
//! | | each ack: |
//! | 1 + n | `group`: a name |
//! | 16 | `lease`: all zero for none |
//! | 4 | `partition`: its number |
//! | 8 | `first_seq` |
//! | 8 | `last_seq`: inclusive, not below `first_seq` |
//! | 1 | `outcome`: 0 completed, 1 failed, 2 retry, 3 dead letter |
//! | 2 + n | `error`: a long text, often empty |
//! | 2 | count of sections, at most 10 000 |
//! | | each section: |
//! | 1 + n | `queue`: a name |
//! | 1 + n | `partition`: a name |
//! | 4 + n | `batch`: a record batch |

use bytes::{BufMut, Bytes, BytesMut};

use super::{AckItem, PushSection};
use crate::LeaseToken;
use crate::decode_error::DecodeError;
use crate::limits::TRANSACTION_PARTS_MAX;
use crate::name::{GroupName, PartitionName, QueueName};
use crate::primitive::{Reader, in_range, put_blob, put_count16, put_count32, put_short};

const FLAG_FAIL_ON_DUPLICATE: u8 = 1 << 0;
const LEASE_BYTES: usize = 16;
/// Fewest bytes of an ack: all but its group and its error's text.
const ACK_BYTES_MIN: usize = 1 + LEASE_BYTES + AckItem::BYTES_MIN;
/// Fewest bytes of a section: three length fields around nothing.
const SECTION_BYTES_MIN: usize = 1 + 1 + 4;

/// Settles and brings in, as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Whether one record that was pushed before refuses the whole; else it is reported.
    pub fail_on_duplicate: bool,
    /// Leases that must live when it is decided.
    pub leases: Vec<LeaseToken>,
    /// Which messages, and what became of them.
    pub acks: Vec<TransactionAck>,
    /// The batches and where they go.
    pub sections: Vec<PushSection>,
}

/// One ack of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionAck {
    /// On whose behalf.
    pub group: GroupName,
    /// The lease under which they were popped, or [`NO_LEASE`](crate::NO_LEASE).
    pub lease: LeaseToken,
    /// Which messages, and what became of them. All of them must be open.
    pub item: AckItem,
}

impl Transaction {
    /// Appends the body. Copies the batches.
    ///
    /// # Panics
    /// Over 65 535 leases or sections. A peer refuses long before, at 10 000.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(if self.fail_on_duplicate { FLAG_FAIL_ON_DUPLICATE } else { 0 });
        put_count16(out, self.leases.len());
        self.leases.iter().for_each(|lease| out.put_slice(lease));
        put_count32(out, self.acks.len());
        for ack in &self.acks {
            put_short(out, ack.group.as_bytes());
            out.put_slice(&ack.lease);
            ack.item.encode(out);
        }
        put_count16(out, self.sections.len());
        for section in &self.sections {
            put_short(out, section.queue.as_bytes());
            put_short(out, section.partition.as_bytes());
            put_blob(out, &section.batch);
        }
    }

    /// Reads the body; batches share its memory and are not looked at.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let flags = reader.u8("flags")?;
        in_range("flags", 0, u64::from(flags), 0, u64::from(FLAG_FAIL_ON_DUPLICATE))?;
        let count = counted16(&mut reader, "leases", LEASE_BYTES)?;
        let mut leases = Vec::with_capacity(count);
        for _ in 0..count {
            leases.push(reader.array("lease")?);
        }
        let count = reader.count32("acks", ACK_BYTES_MIN, TRANSACTION_PARTS_MAX)?;
        let mut acks = Vec::with_capacity(count);
        for _ in 0..count {
            acks.push(TransactionAck {
                group: reader.short("group", GroupName::parse)?,
                lease: reader.array("lease")?,
                item: AckItem::decode(&mut reader)?,
            });
        }
        let count = counted16(&mut reader, "sections", SECTION_BYTES_MIN)?;
        let mut sections = Vec::with_capacity(count);
        for _ in 0..count {
            sections.push(PushSection {
                queue: reader.short("queue", QueueName::parse)?,
                partition: reader.short("partition", PartitionName::parse)?,
                batch: reader.blob("batch")?,
            });
        }
        reader.end()?;
        let fail_on_duplicate = flags & FLAG_FAIL_ON_DUPLICATE != 0;
        Ok(Self { fail_on_duplicate, leases, acks, sections })
    }
}

fn counted16(
    reader: &mut Reader<'_>,
    field: &'static str,
    bytes_min: usize,
) -> Result<usize, DecodeError> {
    let offset = reader.at();
    let count = reader.count16(field, bytes_min)?;
    in_range(field, offset, count as u64, 0, u64::from(TRANSACTION_PARTS_MAX))?;
    Ok(count)
}
