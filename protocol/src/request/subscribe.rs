//! Subscribe: changes where a group begins wherever it has no cursor yet. Cursors stay.
//!
//! In: the group, in one queue or in all that know it, and a time. Answered by `Subscribed`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `group`: a name |
//! | 8 | `start_ms`: signed milliseconds since 1970 |
//! | 1 | `scope`: 0 all queues, 1 one |
//! | 1 + n | `queue`: a name; only when `scope` is 1 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::{GroupName, QueueName};
use crate::primitive::{Reader, put_short};
use crate::request::scope::{put_scope, read_scope};

/// Changes where a group begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The group.
    pub group: GroupName,
    /// With the first message stamped at or after this time, in milliseconds since 1970.
    pub start_ms: i64,
    /// The queue; all that know the group when `None`.
    pub queue: Option<QueueName>,
}

impl Subscribe {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.group.as_bytes());
        out.put_i64_le(self.start_ms);
        put_scope(out, self.queue.as_ref());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let group = reader.short("group", GroupName::parse)?;
        let start_ms = reader.i64("start_ms")?;
        let queue = read_scope(&mut reader)?;
        reader.end()?;
        Ok(Self { group, start_ms, queue })
    }
}
