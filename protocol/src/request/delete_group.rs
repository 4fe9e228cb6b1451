//! DeleteGroup: forgets a group's cursors and leases. Its dead letters stay.
//!
//! In: the group, in one queue or in all. Answered by `GroupDeleted`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `group`: a name |
//! | 1 | `keep_start`: 0 or 1: whether it is remembered where the group begins when it comes again |
//! | 1 | `scope`: 0 all queues, 1 one |
//! | 1 + n | `queue`: a name; only when `scope` is 1 |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::{GroupName, QueueName};
use crate::primitive::{Reader, put_flag, put_short};
use crate::request::scope::{put_scope, read_scope};

/// Forgets a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGroup {
    /// The group.
    pub group: GroupName,
    /// Whether it is remembered where it begins when it comes again.
    pub keep_start: bool,
    /// The queue; all of them when `None`.
    pub queue: Option<QueueName>,
}

impl DeleteGroup {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.group.as_bytes());
        put_flag(out, self.keep_start);
        put_scope(out, self.queue.as_ref());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let group = reader.short("group", GroupName::parse)?;
        let keep_start = reader.flag("keep_start")?;
        let queue = read_scope(&mut reader)?;
        reader.end()?;
        Ok(Self { group, keep_start, queue })
    }
}
