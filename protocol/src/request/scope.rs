//! Scope: the queues that a request about a group means.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `scope`: 0 all queues, 1 one |
//! | 1 + n | `queue`: a name; only when `scope` is 1 |

use bytes::{BufMut, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::QueueName;
use crate::primitive::{Reader, put_short};

/// Writes one queue, or all.
pub(super) fn put_scope(out: &mut BytesMut, queue: Option<&QueueName>) {
    match queue {
        None => out.put_u8(0),
        Some(queue) => {
            out.put_u8(1);
            put_short(out, queue.as_bytes());
        }
    }
}

/// Reads one queue, or all.
pub(super) fn read_scope(reader: &mut Reader<'_>) -> Result<Option<QueueName>, DecodeError> {
    match reader.flag("scope")? {
        false => Ok(None),
        true => reader.short("queue", QueueName::parse).map(Some),
    }
}
