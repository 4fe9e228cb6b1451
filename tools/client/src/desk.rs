//! Messages as whoever runs queues sees them: pages of them, one with its payload, and what may be done
//! with one.
//!
//! In: filters, or a message's address. Out: how messages stand with their groups. Looking leases nothing
//! and moves no cursor. Called by users through [`Client::messages`], [`Queue::messages`](crate::Queue::messages)
//! and [`Client::message`].

use std::future::IntoFuture;

use bytes::Bytes;
use onrush_protocol::limits::{MESSAGES_SKIP_MAX, PAGE_ITEMS_MAX};
use onrush_protocol::request::{
    ChangeMessage, GetMessage, ListMessages, MessageChange, MessageKey,
};
use onrush_protocol::response::{MessageGroup, MessagePage, MessageShown, MessageStanding};
use onrush_protocol::{
    BatchLimits, GroupName, LongText, MessageId, NameError, PartitionName, QueueName, RecordBatch,
    Request, Response,
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::client::{Client, Repeat};
use crate::connection::mismatch;
use crate::error::Error;
use crate::queue::BoxFuture;

/// Whose messages or letters: a queue's, or everybody's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) queue: Option<QueueName>,
    pub(crate) partition: Option<PartitionName>,
}

/// A page of messages that was not asked for yet, newest first. Await it.
///
/// Waits for the server's disk, and for as many messages as are skipped. It is repeated safely.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct ListOfMessages {
    client: Client,
    scope: Result<Scope, NameError>,
    status: Option<MessageStanding>,
    from_ms: u64,
    to_ms: u64,
    skip: u32,
    limit: u32,
}

/// A number within its limits, before anything is sent.
pub(crate) fn within(
    field: &'static str,
    value: u32,
    (min, max): (u32, u32),
) -> Result<u32, Error> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    let (value, min, max) = (u64::from(value), u64::from(min), u64::from(max));
    Err(Error::Value { field, value, min, max })
}

impl ListOfMessages {
    pub(crate) fn new(client: Client, scope: Result<Scope, NameError>) -> Self {
        let (from_ms, to_ms) = (0, 0);
        Self { client, scope, status: None, from_ms, to_ms, skip: 0, limit: 100 }
    }

    /// Only messages that stand so with all groups together.
    pub fn status(mut self, status: MessageStanding) -> Self {
        self.status = Some(status);
        self
    }

    /// Only messages stored then or later, in milliseconds since 1970.
    pub fn from_ms(mut self, unix_ms: u64) -> Self {
        self.from_ms = unix_ms;
        self
    }

    /// Only messages stored then or before, in milliseconds since 1970; 0 for no such limit.
    pub fn to_ms(mut self, unix_ms: u64) -> Self {
        self.to_ms = unix_ms;
        self
    }

    /// Leaves out so many, at most 100 000: how to ask for the next page. What is older than that is
    /// found by its time.
    pub fn skip(mut self, messages: u32) -> Self {
        self.skip = messages;
        self
    }

    /// So many, at most: 1 to 1 000. Default: 100.
    pub fn limit(mut self, messages: u32) -> Self {
        self.limit = messages;
        self
    }

    /// Asks for the page.
    ///
    /// # Errors
    /// [`Error::Value`] and [`Error::Name`] before anything is sent; [`Error::Refused`] when there is no
    /// such queue; else any [`Error`] after the last retry.
    pub async fn send(&self) -> Result<MessagePage, Error> {
        let Scope { queue, partition } = self.scope.clone()?;
        let request = Request::ListMessages(ListMessages {
            skip: within("skip", self.skip, (0, MESSAGES_SKIP_MAX))?,
            limit: within("limit", self.limit, (1, PAGE_ITEMS_MAX))?,
            status: self.status,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            partition,
            queue,
        });
        match self.client.request(Repeat::Safe, &request).await? {
            Response::MessagePage(page) => Ok(page),
            other => Err(mismatch("list messages", &other)),
        }
    }
}

impl IntoFuture for ListOfMessages {
    type Output = Result<MessagePage, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send().await })
    }
}

/// What a message carries, as it was pushed. It shares the memory of the answer it came in.
#[derive(Clone, Debug)]
pub struct Content {
    /// The producer's id for it.
    pub transaction_id: Option<String>,
    /// The trace that it belongs to.
    pub trace_id: Option<Uuid>,
    /// Key and value pairs, as the producer gave them.
    pub headers: Vec<(String, Bytes)>,
    /// Whether the payload is JSON.
    pub is_json: bool,
    /// The payload.
    pub payload: Bytes,
}

impl Content {
    /// The payload read as JSON.
    ///
    /// # Errors
    /// [`Error::Json`] when it is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.payload).map_err(|error| Error::Json(error.to_string()))
    }

    /// Reads a batch of one; none where there are no bytes.
    pub(crate) fn read(batch: &Bytes) -> Result<Option<Self>, Error> {
        if batch.is_empty() {
            return Ok(None);
        }
        // What a server has stored it may show, whatever its limits for pushing are now.
        let limits = BatchLimits {
            batch_bytes_max: usize::MAX,
            message_bytes_max: usize::MAX,
            ..BatchLimits::default()
        };
        let batch = RecordBatch::parse(batch.clone(), &limits)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        let share = |part: &[u8]| batch.bytes().slice_ref(part);
        Ok(batch.records().next().map(|record| Self {
            transaction_id: record.transaction_id.map(str::to_owned),
            trace_id: record.trace_id.map(Uuid::from_bytes),
            headers: record.headers.map(|(key, value)| (key.to_owned(), share(value))).collect(),
            is_json: record.is_json,
            payload: share(record.payload),
        }))
    }
}

/// One message with all that the server knows of it.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Where it is, and how it stands with all groups together.
    pub shown: MessageShown,
    /// How it stands with each group of its queue.
    pub groups: Vec<MessageGroup>,
    /// Whether the server keeps it sealed.
    pub is_encrypted: bool,
    /// What it carries, or why the server cannot show that.
    pub content: Result<Content, String>,
}

/// One message by its address. Cheap to clone; making one sends nothing.
#[derive(Clone, Debug)]
pub struct OneMessage {
    client: Client,
    partition: u32,
    key: MessageKey,
    group: Result<Option<GroupName>, NameError>,
}

impl OneMessage {
    pub(crate) fn by_id(client: Client, id: MessageId) -> Self {
        let (_, partition, seq) = id.parts();
        Self { client, partition, key: MessageKey::Seq(seq), group: Ok(None) }
    }

    pub(crate) fn by_transaction_id(client: Client, partition: u32, id: &str) -> Self {
        let key = MessageKey::TransactionId(LongText::lossy(id));
        Self { client, partition, key, group: Ok(None) }
    }

    /// For one group: what [`Self::retry`] and [`Self::bury`] are about. Without it they are about all.
    #[must_use]
    pub fn group(mut self, name: &str) -> Self {
        self.group = name.parse().map(Some);
        self
    }

    /// The message with its payload. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such message, or not any more.
    pub async fn get(&self) -> Result<StoredMessage, Error> {
        let get = GetMessage { partition: self.partition, key: self.key.clone() };
        let detail = match self.client.request(Repeat::Safe, &Request::GetMessage(get)).await? {
            Response::MessageDetail(detail) => detail,
            other => return Err(mismatch("get message", &other)),
        };
        let problem = || detail.problem.as_str().to_owned();
        let content = Content::read(&detail.batch)?.ok_or_else(problem);
        let (shown, groups, is_encrypted) = (detail.shown, detail.groups, detail.is_encrypted);
        Ok(StoredMessage { shown, groups, is_encrypted, content })
    }

    /// Deletes it for all groups. Not repeated when its outcome is unknown.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such message, or not any more.
    pub async fn delete(&self) -> Result<(), Error> {
        self.change(MessageChange::Delete, None, "").await.map(|_| ())
    }

    /// Gives its dead letters back to their groups, with no attempt counted; returns for how many. Not
    /// repeated when its outcome is unknown.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is no dead letter (`message_settled`), or a consumer holds messages
    /// around it (`busy`).
    pub async fn retry(&self) -> Result<u64, Error> {
        self.change(MessageChange::Retry, self.group.clone()?, "").await
    }

    /// Makes a dead letter of it, with `error` as its reason (cut at 4096 bytes); returns for how many
    /// groups. Not repeated when its outcome is unknown.
    ///
    /// # Errors
    /// [`Error::Refused`] when every group is done with it, or there is no group yet
    /// (`message_settled`).
    pub async fn bury(&self, error: &str) -> Result<u64, Error> {
        self.change(MessageChange::Bury, self.group.clone()?, error).await
    }

    async fn change(
        &self,
        change: MessageChange,
        group: Option<GroupName>,
        error: &str,
    ) -> Result<u64, Error> {
        let request = Request::ChangeMessage(ChangeMessage {
            partition: self.partition,
            key: self.key.clone(),
            change,
            group,
            error: LongText::lossy(error),
        });
        match self.client.request(Repeat::Unsafe, &request).await? {
            Response::MessageChanged(changed) => Ok(changed.groups),
            other => Err(mismatch("change message", &other)),
        }
    }
}
