//! What native modules are written with: a message as JSON, typed state, and an outbox.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::process::runtime::{
    Call, CallKind, GuestError, Limits, Message, Module, OutboxEntry, Outcome, Reply, StateFault,
    StateView, bytes_of,
};

/// What a module does with a message.
pub(super) type Work = fn(&mut Desk<'_>) -> Result<Value, Fault>;

/// Why it does not.
pub(super) enum Fault {
    /// It says so.
    Says(String),
    /// Its state does.
    State(StateFault),
}

impl From<StateFault> for Fault {
    fn from(fault: StateFault) -> Self {
        Self::State(fault)
    }
}

/// One call, as a module sees it.
pub(super) struct Desk<'a> {
    /// The call.
    pub(super) call: Call<'a>,
    /// The message.
    pub(super) message: Message<'a>,
    /// Its payload.
    pub(super) body: Value,
    state: &'a mut dyn StateView,
    outbox: Vec<OutboxEntry>,
    outbox_bytes: usize,
    /// What it printed.
    pub(super) printed: String,
    limits: &'a Limits,
}

impl Desk<'_> {
    /// A state key.
    pub(super) fn get(&mut self, key: &str) -> Result<Option<Value>, Fault> {
        let value = self.state.get(key)?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// A state key as a whole number, 0 where there is none.
    pub(super) fn number(&mut self, key: &str) -> Result<i64, Fault> {
        Ok(self.get(key)?.and_then(|value| value.as_i64()).unwrap_or(0))
    }

    /// Sets a state key.
    pub(super) fn put(&mut self, key: &str, value: &Value) -> Result<(), Fault> {
        let value = value.to_string();
        let (bytes, limit) = (value.len(), self.limits.state_value_bytes);
        if bytes > limit {
            let (what, limit) = ("bytes of a state value", limit as u64);
            return Err(StateFault::Limit { what, limit }.into());
        }
        Ok(self.state.put(key, value.into())?)
    }

    /// Removes a state key.
    pub(super) fn remove(&mut self, key: &str) -> Result<(), Fault> {
        Ok(self.state.remove(key)?)
    }

    /// State keys that begin so.
    pub(super) fn scan(&mut self, prefix: &str) -> Result<Vec<(String, Value)>, Fault> {
        let found = self.state.scan(prefix, self.limits.scan_keys)?;
        let value = |value: Bytes| serde_json::from_slice(&value).unwrap_or(Value::Null);
        Ok(found.into_iter().map(|(key, it)| (key, value(it))).collect())
    }

    /// Messages that it may send.
    pub(super) fn entries_max(&self) -> usize {
        self.limits.outbox_entries
    }

    /// Sends a message. The keys that say how are those that guests use. Of more than may be sent
    /// nothing is kept but that it was too much.
    pub(super) fn send(&mut self, target: Option<&str>, body: Value) {
        let Limits { outbox_entries, outbox_bytes, .. } = *self.limits;
        if self.outbox.len() > outbox_entries || self.outbox_bytes > outbox_bytes {
            return;
        }
        let mut fields = match body {
            Value::Object(fields) => fields,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        let text = |it: Option<Value>| it.and_then(|it| it.as_str().map(str::to_owned));
        let number = |it: Option<Value>| it.and_then(|it| it.as_u64());
        let entry = OutboxEntry {
            target: target.map(str::to_owned),
            delay_ms: number(fields.remove("delay_ms")),
            reply_to: text(fields.remove("reply_to")),
            ttl_ms: number(fields.remove("ttl_ms")),
            transaction_suffix: text(fields.remove("transaction_suffix")),
            spawn_init: fields.remove("spawn_init").map(|it| it.to_string().into()),
            payload: Value::Object(fields).to_string().into(),
        };
        self.outbox_bytes += bytes_of(&entry);
        self.outbox.push(entry);
    }

    /// A text of the message.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.body.get(key)?.as_str()
    }

    /// A whole number of the message.
    pub(super) fn whole(&self, key: &str) -> Option<i64> {
        self.body.get(key)?.as_i64()
    }

    /// The process that sent the message, where one did.
    pub(super) fn sender(&self) -> Option<&str> {
        self.message.from.strip_prefix("process:")
    }
}

/// A function as a module.
pub(super) struct Native(pub(super) Work);

impl Module for Native {
    fn evaluate(&self, call: Call<'_>, state: &mut dyn StateView, limits: &Limits) -> Outcome {
        let nothing = Reply::default();
        let outcome =
            |result, printed| Outcome { result, printed, printed_truncated: false, fuel: 1 };
        let Some(message) = call.message.filter(|_| call.kind == CallKind::Handle) else {
            return outcome(Ok(nothing), String::new());
        };
        let body = match message.is_json {
            true => serde_json::from_slice(message.payload).unwrap_or(Value::Null),
            false => json!({ "bytes": message.payload.len() }),
        };
        let (outbox, printed) = (Vec::new(), String::new());
        let mut desk =
            Desk { call, message, body, state, outbox, outbox_bytes: 0, printed, limits };
        let result = (self.0)(&mut desk);
        let Desk { outbox, printed, .. } = desk;
        let result = match result {
            Ok(output) => reply(&output, outbox, limits),
            Err(Fault::Says(message)) => Err(GuestError::Guest { message }),
            Err(Fault::State(StateFault::Limit { what, limit })) => {
                Err(GuestError::StateLimit { what, limit })
            }
            Err(Fault::State(StateFault::Unavailable(reason))) => {
                Err(GuestError::StateUnavailable { reason })
            }
        };
        outcome(result, printed)
    }
}

fn reply(output: &Value, outbox: Vec<OutboxEntry>, limits: &Limits) -> Result<Reply, GuestError> {
    let bytes: usize = outbox.iter().map(bytes_of).sum();
    if outbox.len() > limits.outbox_entries {
        let limit = limits.outbox_entries;
        return Err(GuestError::OutboxTooLarge { what: "messages", limit });
    }
    if bytes > limits.outbox_bytes {
        return Err(GuestError::OutboxTooLarge { what: "bytes", limit: limits.outbox_bytes });
    }
    if output.is_null() {
        return Ok(Reply { outbox, ..Reply::default() });
    }
    let mut text = output.to_string();
    let output_truncated = text.len() > limits.output_bytes;
    if output_truncated {
        let end = (0..=limits.output_bytes).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text = Value::String(text).to_string();
    }
    Ok(Reply { output: Some(text.into()), output_truncated, outbox })
}
