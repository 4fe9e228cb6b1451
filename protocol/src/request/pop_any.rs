//! PopAny: asks for messages of any queue of a namespace or a task; answered by `AnyMessages`.
//!
//! The queue with the higher priority is asked first, and none is passed over for ever.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `by_namespace`: 0 or 1; one of the two at least is 1 |
//! | 1 + n | `namespace`: a short text; only when `by_namespace` is 1 |
//! | 1 | `by_task`: 0 or 1 |
//! | 1 + n | `task`: a short text; only when `by_task` is 1 |
//! | | the rest as in a `Pop` from its group on |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::QueueName;
use crate::primitive::{Reader, in_range};
use crate::request::Pop;
use crate::request::list_queues::{put_wanted, read_wanted};
use crate::text::ShortText;

/// Takes messages out of whichever queue has some, under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopAny {
    /// Only of queues that belong to this.
    pub namespace: Option<ShortText>,
    /// Only of queues that are for this.
    pub task: Option<ShortText>,
    /// What is asked. Its queue and its partition are not sent: they are the empty name and none.
    pub terms: Pop,
}

impl PopAny {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_wanted(out, self.namespace.as_ref());
        put_wanted(out, self.task.as_ref());
        self.terms.put_terms(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let namespace = read_wanted(&mut reader, "by_namespace", "namespace")?;
        let offset = reader.at();
        let task = read_wanted(&mut reader, "by_task", "task")?;
        let asked = u64::from(namespace.is_some() || task.is_some());
        in_range("by_task", offset, asked, 1, 1)?;
        let terms = Pop::read_terms(&mut reader, QueueName::default(), None)?;
        reader.end()?;
        Ok(Self { namespace, task, terms })
    }
}
