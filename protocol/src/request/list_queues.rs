//! ListQueues: asks for a page of queues with their figures, newest first.
//!
//! In: which queues, and which page of them. Answered by `Queues`.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `skip`: queues left out |
//! | 4 | `limit`: queues wanted, 1 to 1 000 |
//! | 1 | `by_namespace`: 0 or 1 |
//! | 1 + n | `namespace`: a short text; only when `by_namespace` is 1 |
//! | 1 | `by_task`: 0 or 1 |
//! | 1 + n | `task`: a short text; only when `by_task` is 1 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::PAGE_ITEMS_MAX;
use crate::primitive::{Reader, put_flag, put_short};
use crate::text::ShortText;

/// Asks for a page of queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQueues {
    /// Queues of the list that are left out.
    pub skip: u32,
    /// Queues wanted: 1 to 1 000.
    pub limit: u32,
    /// Only those that belong to this; those of none are of the empty one.
    pub namespace: Option<ShortText>,
    /// Only those that are for this; those for nothing are for the empty one.
    pub task: Option<ShortText>,
}

/// Writes a text that may be missing.
pub(super) fn put_wanted(out: &mut BytesMut, text: Option<&ShortText>) {
    put_flag(out, text.is_some());
    if let Some(text) = text {
        put_short(out, text.as_bytes());
    }
}

/// Reads a text that may be missing.
pub(super) fn read_wanted(
    reader: &mut Reader<'_>,
    flag: &'static str,
    field: &'static str,
) -> Result<Option<ShortText>, DecodeError> {
    match reader.flag(flag)? {
        false => Ok(None),
        true => reader.short(field, ShortText::parse).map(Some),
    }
}

impl ListQueues {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.skip);
        out.put_u32_le(self.limit);
        put_wanted(out, self.namespace.as_ref());
        put_wanted(out, self.task.as_ref());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let skip = reader.u32("skip")?;
        let limit = reader.u32_in("limit", 1, PAGE_ITEMS_MAX)?;
        let namespace = read_wanted(&mut reader, "by_namespace", "namespace")?;
        let task = read_wanted(&mut reader, "by_task", "task")?;
        reader.end()?;
        Ok(Self { skip, limit, namespace, task })
    }
}
