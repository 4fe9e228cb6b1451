//! What a WebAssembly guest may ask the host for.
//!
//! In: addresses and lengths in the guest's memory, which may be anything. Out: bytes written there, or
//! the end of the guest. The table of functions is in the opening of this module's folder.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use wasmi::{
    Caller, Engine, Error, Linker, Memory, ResourceLimiter, StoreLimits, StoreLimitsBuilder,
};

use super::super::gathered::{Outbox, Printed, full_of_bytes};
use super::super::meter::{Meter, Stop};
use super::super::{
    Call, CallKind, ENVELOPE, GuestError, Limits, Message, OutboxEntry, StateFault, StateView,
};
use super::guest_error;
use crate::base::random::{Random, SeededRandom};

/// Bytes that cross the border for a unit of fuel.
const BYTES_PER_FUEL: u64 = 16;
/// Elements of a table.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Keys that a scan returns if it does not say how many.
const SCAN_KEYS: u32 = 100;

/// The host's side of one call.
pub(super) struct Host<'a> {
    call: Call<'a>,
    state: &'a mut dyn StateView,
    pub(super) limits: &'a Limits,
    pub(super) meter: &'a Meter,
    store_limits: StoreLimits,
    memory: Option<Memory>,
    random: SeededRandom,
    touched: BTreeSet<String>,
    /// Bytes written to the state.
    written: usize,
    outbox: Outbox,
    printed: Printed,
    pub(super) refused: Option<GuestError>,
}

impl<'a> Host<'a> {
    pub(super) fn new(
        call: Call<'a>,
        state: &'a mut dyn StateView,
        limits: &'a Limits,
        meter: &'a Meter,
    ) -> Self {
        let store_limits = StoreLimitsBuilder::new()
            .memory_size(limits.memory_bytes)
            .memories(1)
            .instances(1)
            .table_elements(TABLE_ELEMENTS_MAX)
            .trap_on_grow_failure(true)
            .build();
        Self {
            call,
            state,
            limits,
            meter,
            store_limits,
            memory: None,
            random: SeededRandom::new(call.seed),
            touched: BTreeSet::new(),
            written: 0,
            outbox: Outbox::default(),
            printed: Printed::default(),
            refused: None,
        }
    }

    pub(super) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.store_limits
    }

    pub(super) fn set_memory(&mut self, memory: Option<Memory>) {
        self.memory = memory;
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        self.memory
    }

    pub(super) fn into_parts(self) -> (Outbox, Printed) {
        (self.outbox, self.printed)
    }

    fn refuse(&mut self, error: GuestError) -> Error {
        self.refused.get_or_insert(error);
        self.meter.stop(Stop::Refused);
        Error::new("stopped")
    }

    fn fault(&mut self, fault: StateFault) -> Error {
        self.refuse(fault.into())
    }

    fn take(&self, bytes: usize) -> Result<(), Error> {
        let taken = self.meter.take(1 + bytes as u64 / BYTES_PER_FUEL);
        taken.map_err(|_| Error::new("stopped"))
    }

    fn touch(&mut self, key: &str) -> Result<(), Error> {
        if self.touched.contains(key) {
            return Ok(());
        }
        let touched = self.touched.len();
        if let Err(limit) = self.limits.may_touch(key, touched) {
            return Err(self.refuse(limit));
        }
        self.touched.insert(key.to_owned());
        Ok(())
    }

    fn get(&mut self, key: &str) -> Result<Option<Bytes>, Error> {
        self.touch(key)?;
        let found = self.state.get(key).map_err(|fault| self.fault(fault))?;
        self.take(found.as_ref().map_or(0, Bytes::len))?;
        Ok(found)
    }

    fn put(&mut self, key: &str, value: Bytes) -> Result<(), Error> {
        self.touch(key)?;
        match self.limits.may_write(key, &value, self.written) {
            Ok(written) => self.written = written,
            Err(limit) => return Err(self.refuse(limit)),
        }
        if serde_json::from_slice::<&RawValue>(&value).is_err() {
            return Err(
                self.refuse(guest_error(format!("state key {key:?}: the value is no JSON")))
            );
        }
        self.state.put(key, value).map_err(|fault| self.fault(fault))
    }

    fn delete(&mut self, key: &str) -> Result<(), Error> {
        self.touch(key)?;
        self.state.remove(key).map_err(|fault| self.fault(fault))
    }

    fn scan(&mut self, prefix: &str, limit: u32) -> Result<Vec<u8>, Error> {
        let limit = if limit == 0 { SCAN_KEYS } else { limit };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(self.limits.scan_keys);
        let found = self.state.scan(prefix, limit).map_err(|fault| self.fault(fault))?;
        let mut text = b"[".to_vec();
        for (key, value) in found {
            self.touch(&key)?;
            self.take(key.len() + value.len())?;
            if text.len() > 1 {
                text.push(b',');
            }
            text.extend_from_slice(b"{\"key\":");
            text.extend_from_slice(&serde_json::to_vec(&key).unwrap_or_default());
            text.extend_from_slice(b",\"value\":");
            text.extend_from_slice(&value);
            text.push(b'}');
        }
        text.push(b']');
        Ok(text)
    }

    fn send(&mut self, entry: &[u8]) -> Result<i32, Error> {
        if entry.len() > self.limits.outbox_bytes {
            return Err(self.refuse(full_of_bytes(self.limits)));
        }
        let entry = entry_of(entry).map_err(|problem| self.refuse(guest_error(problem)))?;
        let index = self.outbox.send(entry, self.limits).map_err(|full| self.refuse(full))?;
        Ok(i32::try_from(index).unwrap_or(i32::MAX))
    }
}

/// Reads a message that a guest sends.
fn entry_of(text: &[u8]) -> Result<OutboxEntry, String> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(text)
        .map_err(|error| format!("a message is a JSON object: {error}"))?;
    let mut sent = OutboxEntry::default();
    let mut payload = BTreeMap::new();
    for (name, value) in fields {
        let text = || serde_json::from_str::<Option<String>>(value.get());
        let whole = || serde_json::from_str::<Option<u64>>(value.get());
        let wrong = |error: serde_json::Error| format!("{name}: {error}");
        match name.as_str() {
            "target" => sent.target = text().map_err(wrong)?,
            "reply_to" => sent.reply_to = text().map_err(wrong)?,
            "transaction_suffix" => sent.transaction_suffix = text().map_err(wrong)?,
            "delay_ms" => sent.delay_ms = whole().map_err(wrong)?,
            "ttl_ms" => sent.ttl_ms = whole().map_err(wrong)?,
            "spawn_init" if value.get().starts_with('{') => {
                sent.spawn_init = Some(Bytes::copy_from_slice(value.get().as_bytes()));
            }
            "spawn_init" => return Err("spawn_init is an object".to_owned()),
            field if ENVELOPE.contains(&field) => {
                return Err(format!(
                    "a message may not have the field {field}: the engine sets it"
                ));
            }
            _ => {
                payload.insert(name, value);
            }
        }
    }
    let payload = serde_json::to_vec(&payload).map_err(|error| error.to_string())?;
    sent.payload = payload.into();
    Ok(sent)
}

#[derive(Serialize)]
struct Input<'a> {
    ctx: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Envelope<'a>>,
}

#[derive(Serialize)]
struct Context<'a> {
    #[serde(rename = "self")]
    this: String,
    class: &'a str,
    key: &'a str,
    slot: u64,
    now: u64,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_version: Option<u32>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    transaction_id: &'a str,
    timestamp: u64,
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_slot: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_index: Option<u32>,
    cascade: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'a str>,
    depth: u32,
    hops_left: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

/// The text that a call is for a guest, or what is wrong with its message.
pub(super) fn input(call: &Call<'_>) -> Result<Vec<u8>, String> {
    let message = call.message.as_ref().map(envelope).transpose()?;
    let from_version = match call.kind {
        CallKind::Migrate { from_version } => Some(from_version),
        _ => None,
    };
    let ctx = Context {
        this: format!("{}/{}", call.class, call.key),
        class: call.class,
        key: call.key,
        slot: call.slot,
        now: call.now_ms,
        version: call.version,
        from_version,
    };
    serde_json::to_vec(&Input { ctx, message }).map_err(|error| error.to_string())
}

fn envelope<'a>(message: &Message<'a>) -> Result<Envelope<'a>, String> {
    let payload = if message.is_json {
        let read = serde_json::from_slice::<&'a RawValue>(message.payload);
        Some(read.map_err(|error| format!("the message is no JSON: {error}"))?)
    } else {
        None
    };
    Ok(Envelope {
        id: message.id,
        transaction_id: message.transaction_id,
        timestamp: message.timestamp_ms,
        from: message.from,
        from_slot: message.from_slot,
        from_index: message.from_index,
        cascade: message.cascade,
        parent: message.parent,
        depth: message.depth,
        hops_left: message.hops_left,
        in_reply_to: message.in_reply_to,
        reply_to: message.reply_to,
        payload,
    })
}

/// A guest that calls the host, and the host's data.
type Asking<'c, 'a> = Caller<'c, Host<'a>>;

/// Bytes of the guest's memory.
fn bytes_of(caller: &mut Asking<'_, '_>, at: i32, len: i32) -> Result<Vec<u8>, Error> {
    let (at, len) = (at as u32, len as u32);
    let memory = caller.data().memory;
    let span = || {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(usize::try_from(len).ok()?)?;
        memory?.data(&*caller).get(at..end).map(<[u8]>::to_vec)
    };
    let Some(bytes) = span() else {
        let outside = guest_error("an address outside of the memory");
        return Err(caller.data_mut().refuse(outside));
    };
    caller.data().take(bytes.len())?;
    Ok(bytes)
}

fn text_of(caller: &mut Asking<'_, '_>, at: i32, len: i32) -> Result<String, Error> {
    let bytes = bytes_of(caller, at, len)?;
    String::from_utf8(bytes)
        .map_err(|_| caller.data_mut().refuse(guest_error("a text that is not UTF-8")))
}

/// Writes `bytes` if they fit in `room`.
fn answer(caller: &mut Asking<'_, '_>, bytes: &[u8], out: i32, room: i32) -> Result<i32, Error> {
    let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    if bytes.len() as u64 > u64::from(room as u32) {
        return Ok(len);
    }
    let memory = caller.data().memory;
    let at = usize::try_from(out as u32).unwrap_or(usize::MAX);
    let written = memory.and_then(|memory| memory.write(&mut *caller, at, bytes).ok());
    if written.is_none() {
        let outside = guest_error("an address outside of the memory");
        return Err(caller.data_mut().refuse(outside));
    }
    Ok(len)
}

/// All that guests may import.
pub(super) fn linker<'a>(engine: &Engine) -> Result<Linker<Host<'a>>, Error> {
    let mut linker = Linker::<Host<'a>>::new(engine);
    state_functions(&mut linker)?;
    let from = "onrush";
    linker.func_wrap(from, "send", |mut caller: Asking<'_, 'a>, at: i32, len: i32| {
        let entry = bytes_of(&mut caller, at, len)?;
        caller.data_mut().send(&entry)
    })?;
    linker.func_wrap(from, "log", |mut caller: Asking<'_, 'a>, at: i32, len: i32| {
        let line = bytes_of(&mut caller, at, len)?;
        let host = caller.data_mut();
        host.printed.line(&line, host.limits);
        Ok::<(), Error>(())
    })?;
    linker.func_wrap(from, "now", |caller: Asking<'_, 'a>| caller.data().call.now_ms as i64)?;
    linker.func_wrap(from, "random", |caller: Asking<'_, 'a>| {
        caller.data().random.next_u64() as i64
    })?;
    linker.func_wrap(from, "payload_len", |caller: Asking<'_, 'a>| {
        let payload = caller.data().call.message.map_or(0, |message| message.payload.len());
        i32::try_from(payload).unwrap_or(i32::MAX)
    })?;
    linker.func_wrap(from, "payload_copy", |mut caller: Asking<'_, 'a>, out: i32| {
        let payload = caller.data().call.message.map_or(&b""[..], |message| message.payload);
        caller.data().take(payload.len())?;
        answer(&mut caller, payload, out, -1).map(|_| ())
    })?;
    linker.func_wrap(from, "fail", |mut caller: Asking<'_, 'a>, at: i32, len: i32| {
        let text = bytes_of(&mut caller, at, len)?;
        let failure = guest_error(String::from_utf8_lossy(&text).into_owned());
        Err::<(), Error>(caller.data_mut().refuse(failure))
    })?;
    Ok(linker)
}

fn state_functions<'a>(linker: &mut Linker<Host<'a>>) -> Result<(), Error> {
    let from = "onrush";
    let get = |mut caller: Asking<'_, 'a>, key: i32, len: i32, out: i32, room: i32| {
        let key = text_of(&mut caller, key, len)?;
        match caller.data_mut().get(&key)? {
            Some(value) => answer(&mut caller, &value, out, room),
            None => Ok(-1),
        }
    };
    linker.func_wrap(from, "kv_get", get)?;
    let put = |mut caller: Asking<'_, 'a>, key: i32, len: i32, value: i32, value_len: i32| {
        let key = text_of(&mut caller, key, len)?;
        let value = bytes_of(&mut caller, value, value_len)?;
        caller.data_mut().put(&key, value.into())
    };
    linker.func_wrap(from, "kv_put", put)?;
    linker.func_wrap(from, "kv_del", |mut caller: Asking<'_, 'a>, key: i32, len: i32| {
        let key = text_of(&mut caller, key, len)?;
        caller.data_mut().delete(&key)
    })?;
    let scan = |mut caller: Asking<'_, 'a>, at: i32, len: i32, limit: i32, out: i32, room: i32| {
        let prefix = text_of(&mut caller, at, len)?;
        let text = caller.data_mut().scan(&prefix, limit as u32)?;
        answer(&mut caller, &text, out, room)
    };
    linker.func_wrap(from, "kv_scan", scan)?;
    Ok(())
}
