//! Groups: how consumer groups stand, each in one queue.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `has_more`: 0 or 1 |
//! | 4 | count of groups, at most 1 000, each: |
//! | 1 + n | `queue`: a name |
//! | 1 + n | `group`: a name |
//! | 8 | `members`: leases that differ, and pops that wait |
//! | 8 | `partitions` of the queue |
//! | 8 | `lagging`: partitions with messages that the group has not settled |
//! | 8 | `behind`: those messages |
//! | 8 | `oldest_ms`: when the oldest of them was pushed; 0 when there is none or nobody asked |
//! | 8 | `since_ms`: when it was said where the group begins; 0 when that is not known |
//! | 1 | `start`: 1 beginning, 2 new, 3 time |
//! | 8 | `start` 3 only: signed milliseconds since 1970 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::GROUPS_PER_ANSWER_MAX;
use crate::name::{GroupName, QueueName};
use crate::primitive::{Reader, put_count32, put_flag, put_short};
use crate::request::SubscriptionStart;

/// Fewest bytes of a group.
const GROUP_BYTES_MIN: usize = 1 + 2 + 6 * 8 + 1;

/// Shows how groups stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Whether the list goes on behind these.
    pub has_more: bool,
    /// By queue and name; at most 1 000.
    pub groups: Vec<GroupStanding>,
}

/// How a group stands in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStanding {
    /// The queue.
    pub queue: QueueName,
    /// The group.
    pub group: GroupName,
    /// Leases that differ, and pops that wait at the server that was asked.
    pub members: u64,
    /// Partitions of the queue.
    pub partitions: u64,
    /// Partitions with messages that the group has not settled.
    pub lagging: u64,
    /// Those messages.
    pub behind: u64,
    /// When the oldest of them was pushed, in milliseconds since 1970; 0 when there is none or nobody
    /// asked.
    pub oldest_ms: u64,
    /// When it was said where the group begins, in milliseconds since 1970; 0 when that is not known.
    pub since_ms: u64,
    /// Where the group begins wherever it has no cursor. Never the default.
    pub start: SubscriptionStart,
}

impl Groups {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 groups.
    pub fn encode(&self, out: &mut BytesMut) {
        put_flag(out, self.has_more);
        put_count32(out, self.groups.len());
        for it in &self.groups {
            put_short(out, it.queue.as_bytes());
            put_short(out, it.group.as_bytes());
            let numbers =
                [it.members, it.partitions, it.lagging, it.behind, it.oldest_ms, it.since_ms];
            for number in numbers {
                out.put_u64_le(number);
            }
            it.start.encode(out);
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let has_more = reader.flag("has_more")?;
        let count = reader.count32("groups", GROUP_BYTES_MIN, GROUPS_PER_ANSWER_MAX)?;
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            groups.push(GroupStanding {
                queue: reader.short("queue", QueueName::parse)?,
                group: reader.short("group", GroupName::parse)?,
                members: reader.u64("members")?,
                partitions: reader.u64("partitions")?,
                lagging: reader.u64("lagging")?,
                behind: reader.u64("behind")?,
                oldest_ms: reader.u64("oldest_ms")?,
                since_ms: reader.u64("since_ms")?,
                start: SubscriptionStart::decode(&mut reader)?,
            });
        }
        reader.end()?;
        Ok(Self { has_more, groups })
    }
}
