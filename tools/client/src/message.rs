//! A message before it is pushed.
//!
//! In: a value, bytes, ids, headers. Out: [`Message`], which knows how to stand in a batch. What
//! is wrong with it is reported by the push, for this message alone. Called by users.

use bytes::Bytes;
use onrush_protocol::{BatchBuilder, BatchError, NewRecord};
use serde::Serialize;
use uuid::Uuid;

use crate::error::Error;

/// The header that a W3C trace context travels in.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// One message on its way in. Cheap to clone but for its headers.
#[derive(Clone, Debug)]
pub struct Message {
    payload: Result<Bytes, Error>,
    is_json: bool,
    transaction_id: Option<String>,
    trace_id: Option<Uuid>,
    headers: Vec<(String, Bytes)>,
}

impl Message {
    /// A message whose payload is `value` as JSON. A value that serde cannot write (a map with
    /// keys that are no strings, say) is reported by the push as [`Error::Json`].
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        let payload = serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(|error| Error::Json(error.to_string()));
        Self { payload, is_json: true, transaction_id: None, trace_id: None, headers: Vec::new() }
    }

    /// A message whose payload is these bytes, whatever they are.
    #[must_use]
    pub fn bytes(payload: impl Into<Bytes>) -> Self {
        let payload = Ok(payload.into());
        Self { payload, is_json: false, transaction_id: None, trace_id: None, headers: Vec::new() }
    }

    /// The id that makes the message unique in its partition, 1 to 255 bytes: within the dedup
    /// horizon a second one with the same id is answered as a duplicate and not stored.
    #[must_use]
    pub fn transaction_id(mut self, id: impl Into<String>) -> Self {
        self.transaction_id = Some(id.into());
        self
    }

    /// The trace that the message belongs to.
    #[must_use]
    pub fn trace_id(mut self, id: Uuid) -> Self {
        self.trace_id = Some(id);
        self
    }

    /// One more header: a key of 1 to 255 bytes, a value of at most 65 535; all headers of a
    /// message take at most 65 535 bytes.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((key.into(), value.into()));
        self
    }

    /// The W3C trace context that the message is a part of, such as
    /// `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`. It comes out with the message on every door;
    /// whether it is one is for whoever reads it.
    #[must_use]
    pub fn traceparent(self, context: &str) -> Self {
        self.header(TRACEPARENT, context.to_owned())
    }

    /// The payload's size in bytes; 0 when there is none to send.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// Gives the message an id if it has none, so that sending it twice is safe.
    pub(crate) fn ensure_transaction_id(&mut self) {
        if self.transaction_id.is_none() {
            self.transaction_id = Some(Uuid::now_v7().to_string());
        }
    }

    pub(crate) fn has_transaction_id(&self) -> bool {
        self.transaction_id.is_some()
    }

    pub(crate) fn transaction_id_text(&self) -> Option<&str> {
        self.transaction_id.as_deref()
    }

    pub(crate) fn trace(&self) -> Option<Uuid> {
        self.trace_id
    }

    /// About how many bytes it takes in a batch; for deciding where to split.
    pub(crate) fn record_bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(key, value)| 3 + key.len() + value.len()).sum();
        let id = self.transaction_id.as_ref().map_or(0, |id| 1 + id.len());
        5 + id + 16 + 2 + headers + self.payload_bytes()
    }

    /// Adds the message to a batch.
    pub(crate) fn add_to(&self, batch: &mut BatchBuilder) -> Result<(), AddError> {
        let payload = self.payload.as_ref().map_err(|error| AddError::Message(error.clone()))?;
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(key, value)| (key.as_str(), value.as_ref())).collect();
        let record = NewRecord {
            transaction_id: self.transaction_id.as_deref(),
            trace_id: self.trace_id.map(Uuid::into_bytes),
            headers: &headers,
            is_json: self.is_json,
            payload,
        };
        batch.push(&record).map_err(|error| match error {
            BatchError::Count { .. } => AddError::BatchFull,
            BatchError::TooLarge { field: "batch", .. } if batch.count() > 0 => AddError::BatchFull,
            error => AddError::Message(error.into()),
        })
    }
}

/// Why a message was not added to a batch.
pub(crate) enum AddError {
    /// It may fit the next one.
    BatchFull,
    /// It fits none.
    Message(Error),
}
