//! ListGroups: asks how groups stand, in one queue or in all.
//!
//! In: the queue, and which part of the list. Answered by `Groups`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `with_oldest`: 0 or 1: whether to look for the oldest message that each group has not settled |
//! | 4 | `skip`: groups left out |
//! | 4 | `limit`: groups wanted, 1 to 1 000 |
//! | 1 | `scope`: 0 all queues, 1 one |
//! | 1 + n | `queue`: a name; only when `scope` is 1 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::GROUPS_PER_ANSWER_MAX;
use crate::name::QueueName;
use crate::primitive::{Reader, in_range, put_flag};
use crate::request::scope::{put_scope, read_scope};

/// Asks how groups stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListGroups {
    /// Whether to look for the oldest message that each group has not settled: all partitions of a
    /// queue in which a group lags are looked at for it.
    pub with_oldest: bool,
    /// Groups of the list that are left out.
    pub skip: u32,
    /// Groups wanted: 1 to 1 000.
    pub limit: u32,
    /// The queue; all of them when `None`.
    pub queue: Option<QueueName>,
}

impl ListGroups {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_flag(out, self.with_oldest);
        out.put_u32_le(self.skip);
        out.put_u32_le(self.limit);
        put_scope(out, self.queue.as_ref());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let with_oldest = reader.flag("with_oldest")?;
        let skip = reader.u32("skip")?;
        let offset = reader.at();
        let limit = reader.u32("limit")?;
        in_range("limit", offset, u64::from(limit), 1, u64::from(GROUPS_PER_ANSWER_MAX))?;
        let queue = read_scope(&mut reader)?;
        reader.end()?;
        Ok(Self { with_oldest, skip, limit, queue })
    }
}
