//! Processes: messages pushed to them and waited for, how pushes and instances stand, what slots became.
//!
//! In: a class, a key, a message. Out: [`ProcessReply`]: a status and the JSON that HTTP would answer. Called by
//! users through [`Client::process`] and [`Client::process_push`].

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::limits::{PAGE_ITEMS_MAX, PROCESS_WAIT_MS_MAX, TRANSACTION_ID_BYTES_MAX};
use onrush_protocol::request::{
    AwaitLevel, CancelPush, ChangeProcess, GetProcess, GetPush, ProcessChange, ProcessLook,
    PushControls, PushProcess, PushSlot as PushSlotRequest,
};
use onrush_protocol::response::ProcessAnswer;
use onrush_protocol::{
    LongText, NameError, PartitionName, QueueName, Request, Response, ShortText,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::client::{Client, Repeat};
use crate::connection::mismatch;
use crate::desk::within;
use crate::error::Error;
use crate::queue::BoxFuture;

/// How long the server waits for what comes of a push where nothing is said.
const WAIT: Duration = Duration::from_secs(30);

/// How far what was asked is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStatus {
    /// As far as was asked.
    Done,
    /// Not yet: time ran out, or the server stops. It goes on.
    GoesOn,
    /// It failed, and the push was [strict](ProcessPush::strict).
    Failed,
    /// It was called off, and the push was strict.
    CalledOff,
}

/// What a server says of processes.
#[derive(Clone, Debug)]
pub struct ProcessReply {
    /// How far it is.
    pub status: ReplyStatus,
    /// What HTTP would answer.
    pub json: Value,
}

impl ProcessReply {
    fn read(asked: &str, response: Response) -> Result<Self, Error> {
        let answer = match response {
            Response::ProcessPushed(answer)
            | Response::SlotPushed(answer)
            | Response::PushShown(answer)
            | Response::PushCancelled(answer)
            | Response::ProcessShown(answer)
            | Response::ProcessChanged(answer) => answer,
            other => return Err(mismatch(asked, &other)),
        };
        let ProcessAnswer { status, json } = answer;
        let status = match status {
            200 => ReplyStatus::Done,
            202 => ReplyStatus::GoesOn,
            424 => ReplyStatus::Failed,
            409 => ReplyStatus::CalledOff,
            other => return Err(Error::Protocol(format!("status {other} in answer to {asked}"))),
        };
        let json = serde_json::from_slice(&json);
        Ok(Self { status, json: json.map_err(|error| Error::Json(error.to_string()))? })
    }

    /// Whether it is as far as was asked.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.status == ReplyStatus::Done
    }

    /// The push's id, by which it can be asked for and called off; of answers to pushes only.
    #[must_use]
    pub fn push_id(&self) -> Option<&str> {
        self.json.get("push_id").and_then(Value::as_str)
    }

    /// The answer read as a `T`.
    ///
    /// # Errors
    /// [`Error::Json`] when it is none.
    pub fn read_as<T: DeserializeOwned>(self) -> Result<T, Error> {
        serde_json::from_value(self.json).map_err(|error| Error::Json(error.to_string()))
    }
}

/// A class of processes. Cheap to clone; making one sends nothing.
#[derive(Clone, Debug)]
pub struct ProcessClass {
    client: Client,
    class: Result<QueueName, NameError>,
}

impl ProcessClass {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        Self { client, class: name.parse() }
    }

    /// The process with this key. Nothing is sent.
    #[must_use]
    pub fn instance(&self, key: &str) -> Instance {
        let names = self.class.clone().and_then(|class| Ok((class, key.parse()?)));
        Instance { client: self.client.clone(), names }
    }
}

/// One process. Cheap to clone; making one sends nothing.
#[derive(Clone, Debug)]
pub struct Instance {
    client: Client,
    names: Result<(QueueName, PartitionName), NameError>,
}

impl Instance {
    /// Pushes a message, `message` as JSON, and waits for what comes of it. Await it. The process is made
    /// where its class says so.
    pub fn push<T: Serialize + ?Sized>(&self, message: &T) -> ProcessPush {
        let message = serde_json::to_vec(message).map(Bytes::from);
        let message = message.map_err(|error| Error::Json(error.to_string()));
        ProcessPush { instance: self.clone(), message, transaction_id: None, wait: Wait::default() }
    }

    /// Waits for what comes of a message that is in the process's log. Await it. Safe to repeat.
    pub fn push_slot(&self, slot: u64) -> PushSlot {
        PushSlot { instance: self.clone(), slot, wait: Wait::default() }
    }

    /// How it stands: slots, evaluated, pending, version, why it is stopped. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such class or process.
    pub async fn standing(&self) -> Result<Value, Error> {
        Ok(self.look(ProcessLook::Standing, Duration::ZERO).await?.json)
    }

    /// Its messages from slot `from` on with what became of them, `limit` of them (1 to 1 000). Safe to
    /// repeat.
    ///
    /// # Errors
    /// As [`Self::standing`]; [`Error::Value`] before anything is sent.
    pub async fn slots(&self, from: u64, limit: u32) -> Result<Value, Error> {
        let limit = within("limit", limit, (1, PAGE_ITEMS_MAX))?;
        let look = ProcessLook::Slots { from, last: u64::MAX, limit };
        Ok(self.look(look, Duration::ZERO).await?.json)
    }

    /// What became of the message in a slot, or a part of it (`output/balance`; empty for all of it). Waits
    /// up to `wait`, ten minutes at most, until it is evaluated. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such slot or part.
    pub async fn result(
        &self,
        slot: u64,
        path: &str,
        wait: Duration,
    ) -> Result<ProcessReply, Error> {
        let (wait_ms, path) = (millis(wait)?, LongText::lossy(path));
        self.look(ProcessLook::Slot { slot, wait_ms, path }, wait).await
    }

    /// As [`Self::result`], of the newest message.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub async fn newest(&self, path: &str, wait: Duration) -> Result<ProcessReply, Error> {
        let (wait_ms, path) = (millis(wait)?, LongText::lossy(path));
        self.look(ProcessLook::Newest { wait_ms, path }, wait).await
    }

    /// State keys that begin with `prefix`, behind `after`, with their values: `limit` of them (1 to 1 000).
    /// Safe to repeat.
    ///
    /// # Errors
    /// As [`Self::slots`].
    pub async fn state(&self, prefix: &str, after: &str, limit: u32) -> Result<Value, Error> {
        let limit = within("limit", limit, (1, PAGE_ITEMS_MAX))?;
        let (prefix, after) = (LongText::lossy(prefix), LongText::lossy(after));
        let look = ProcessLook::State { prefix, after, limit };
        Ok(self.look(look, Duration::ZERO).await?.json)
    }

    /// The value of one state key. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such process or key.
    pub async fn state_key(&self, name: &str) -> Result<Value, Error> {
        let look = ProcessLook::StateKey { name: LongText::lossy(name) };
        Ok(self.look(look, Duration::ZERO).await?.json)
    }

    /// Lets it evaluate nothing until it is resumed; `reason` (cut at 4096 bytes) is told to whoever asks.
    /// Safe to repeat.
    ///
    /// # Errors
    /// As [`Self::standing`].
    pub async fn pause(&self, reason: &str) -> Result<(), Error> {
        self.change(ProcessChange::Pause { reason: LongText::lossy(reason) }).await
    }

    /// Lets it go on. Safe to repeat.
    ///
    /// # Errors
    /// As [`Self::standing`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.change(ProcessChange::Resume).await
    }

    async fn look(&self, look: ProcessLook, wait: Duration) -> Result<ProcessReply, Error> {
        let (class, key) = self.names.clone()?;
        let request = Request::GetProcess(GetProcess { class, key, look });
        let response = self.client.request_waiting_safely(&request, wait).await?;
        ProcessReply::read("get process", response)
    }

    async fn change(&self, change: ProcessChange) -> Result<(), Error> {
        let (class, key) = self.names.clone()?;
        let request = Request::ChangeProcess(ChangeProcess { class, key, change });
        let response = self.client.request(Repeat::Safe, &request).await?;
        ProcessReply::read("change process", response).map(|_| ())
    }
}

/// How a push is waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    controls: PushControls,
    timeout: Option<Duration>,
}

impl Wait {
    /// What is sent, and how long the server may take on purpose.
    fn checked(self) -> Result<(PushControls, Duration), Error> {
        let timeout_ms = self.timeout.map(millis).transpose()?;
        let controls = PushControls { timeout_ms, ..self.controls };
        Ok((controls, self.timeout.unwrap_or(WAIT)))
    }
}

/// Whole milliseconds, at most ten minutes.
fn millis(wait: Duration) -> Result<u32, Error> {
    let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    within("wait", ms, (0, PROCESS_WAIT_MS_MAX))
}

/// Declares what pushes of messages and of slots have in common.
macro_rules! waiting {
    ($name:ident) => {
        impl $name {
            /// How far it is waited for. Default: until nothing of its cascade is pending.
            pub fn until(mut self, level: AwaitLevel) -> Self {
                self.wait.controls.level = level;
                self
            }

            /// For how long, ten minutes at most. Default: 30 seconds. It goes on either way.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.wait.timeout = Some(timeout);
                self
            }

            /// How many levels of the answer's tree carry their results. Default: the first.
            pub fn result_depth(mut self, levels: u32) -> Self {
                self.wait.controls.result_depth = Some(levels);
                self
            }

            /// How deep it is waited for; what is deeper goes on by itself. Default: all of it.
            pub fn max_depth(mut self, depth: u32) -> Self {
                self.wait.controls.max_depth = Some(depth);
                self
            }

            /// Whether a failure is said by [`ReplyStatus::Failed`]. Default: no; the answer's JSON says it.
            pub fn strict(mut self, strict: bool) -> Self {
                self.wait.controls.strict = strict;
                self
            }
        }

        impl IntoFuture for $name {
            type Output = Result<ProcessReply, Error>;
            type IntoFuture = BoxFuture<Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}

/// A push to a process that was not sent yet. Await it.
///
/// It has a transaction id, its own or one made up here, so that it is repeated safely: the process gets the
/// message once. Dropping the future takes nothing back.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct ProcessPush {
    instance: Instance,
    message: Result<Bytes, Error>,
    transaction_id: Option<String>,
    wait: Wait,
}

waiting!(ProcessPush);

impl ProcessPush {
    /// The id that makes the message unique in its process, 1 to 255 bytes.
    pub fn transaction_id(mut self, id: impl Into<String>) -> Self {
        self.transaction_id = Some(id.into());
        self
    }

    /// How often messages of its cascade may be sent on; 0 for no limit. Default: what the class says.
    pub fn max_hops(mut self, hops: u32) -> Self {
        self.wait.controls.max_hops = Some(hops);
        self
    }

    /// How many messages may come of it. Default: what the class says.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.wait.controls.max_messages = Some(messages);
        self
    }

    /// Sends the push and waits.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Name`] and [`Error::Value`] before anything is sent; [`Error::Refused`] when
    /// there is no such class, or it does not take the message.
    pub async fn send(self) -> Result<ProcessReply, Error> {
        let (class, key) = self.instance.names?;
        let (controls, wait) = self.wait.checked()?;
        let id = self.transaction_id.unwrap_or_else(|| Uuid::now_v7().to_string());
        let bytes = u32::try_from(id.len()).unwrap_or(u32::MAX);
        within("transaction_id", bytes, (1, TRANSACTION_ID_BYTES_MAX as u32))?;
        let transaction_id = LongText::lossy(&id);
        let message = self.message?;
        let push = PushProcess { class, key, controls, transaction_id, message };
        let request = Request::PushProcess(push);
        let response = self.instance.client.request_waiting_safely(&request, wait).await?;
        ProcessReply::read("push process", response)
    }
}

/// A wait for a message that is there, not sent yet. Await it. It is repeated safely.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct PushSlot {
    instance: Instance,
    slot: u64,
    wait: Wait,
}

waiting!(PushSlot);

impl PushSlot {
    /// Asks, and waits.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::Value`] before anything is sent; [`Error::Refused`] when there is no such
    /// slot.
    pub async fn send(self) -> Result<ProcessReply, Error> {
        let (class, key) = self.instance.names?;
        let (controls, wait) = self.wait.checked()?;
        let request = Request::PushSlot(PushSlotRequest { class, key, slot: self.slot, controls });
        let response = self.instance.client.request_waiting_safely(&request, wait).await?;
        ProcessReply::read("push slot", response)
    }
}

/// A push that was sent, by its id. Cheap to clone; making one sends nothing.
#[derive(Clone, Debug)]
pub struct CascadeHandle {
    client: Client,
    push: Result<ShortText, NameError>,
}

impl CascadeHandle {
    pub(crate) fn new(client: Client, id: &str) -> Self {
        Self { client, push: id.parse() }
    }

    /// How it stands, as a tree with `result_depth` levels of results. Waits up to `wait`, ten minutes at
    /// most, until it is complete. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such push.
    pub async fn status(&self, result_depth: u32, wait: Duration) -> Result<ProcessReply, Error> {
        let (wait_ms, limit) = (millis(wait)?, PAGE_ITEMS_MAX);
        let show = |push| GetPush {
            push,
            as_graph: false,
            wait_ms,
            result_depth,
            limit,
            cursor: ShortText::default(),
        };
        let request = Request::GetPush(show(self.push.clone()?));
        let response = self.client.request_waiting_safely(&request, wait).await?;
        ProcessReply::read("get push", response)
    }

    /// Its messages as nodes and edges. Safe to repeat.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn graph(&self) -> Result<Value, Error> {
        let push = self.push.clone()?;
        let (wait_ms, result_depth, limit) = (0, 0, 1);
        let cursor = ShortText::default();
        let show = GetPush { push, as_graph: true, wait_ms, result_depth, limit, cursor };
        let response = self.client.request(Repeat::Safe, &Request::GetPush(show)).await?;
        Ok(ProcessReply::read("get push", response)?.json)
    }

    /// Calls it off: messages of it that are not evaluated yet never are; what was committed stays. Safe to
    /// repeat.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn cancel(&self) -> Result<ProcessReply, Error> {
        let request = Request::CancelPush(CancelPush { push: self.push.clone()? });
        let response = self.client.request(Repeat::Safe, &request).await?;
        ProcessReply::read("cancel push", response)
    }
}
