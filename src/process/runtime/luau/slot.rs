//! One call of a Luau guest, seen from the host: what the guest reads, writes, sends and prints.
//!
//! In: the operations that `sandbox.luau` asks for, by number. Out: values, or a refusal. A refusal that
//! the guest may handle is a text; one that ends it (a limit, a store that is away) is written down here
//! and stops the meter, so that no `pcall` gets past it.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use mlua::{Lua, Table, Value};

use super::super::gathered::{self, Outbox, Printed};
use super::super::meter::{Meter, Stop};
use super::super::{ENVELOPE, GuestError, Limits, OutboxEntry, StateFault, StateView};
use super::decode::{DecodeError, decode};
use super::encode::{EncodeError, encode, encode_fields};

/// Keys that a scan returns if it does not say how many.
const SCAN_KEYS: usize = 100;
/// Bytes of text that converting costs a step for.
const BYTES_PER_STEP: u64 = 16;
/// Largest whole number that a guest can say exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Fields of an entry that are not part of its payload.
const OPTIONS: [&str; 5] = ["target", "delay_ms", "reply_to", "ttl_ms", "transaction_suffix"];

/// What an operation gives back: a value, or what is wrong with what was asked.
type Answer = mlua::Result<(Value, Option<String>)>;

/// What the store has for a key that the guest touched.
enum Stored {
    /// It was written without being read.
    Unread,
    /// This, or nothing.
    Text(Option<Bytes>),
}

/// The host's side of one call.
pub(super) struct Slot<'a> {
    pub(super) state: &'a mut dyn StateView,
    pub(super) limits: &'a Limits,
    pub(super) meter: &'a Meter,
    pub(super) array_mark: &'a Table,
    /// Keys that the guest touched.
    pub(super) known: Table,
    /// Their values, as far as they have one.
    pub(super) cache: Table,
    stored: BTreeMap<String, Stored>,
    /// Bytes written to the state.
    written: usize,
    outbox: Outbox,
    printed: Printed,
    muted: bool,
    refused: Option<GuestError>,
}

impl<'a> Slot<'a> {
    pub(super) fn new(
        state: &'a mut dyn StateView,
        limits: &'a Limits,
        meter: &'a Meter,
        array_mark: &'a Table,
        known: Table,
        cache: Table,
    ) -> Self {
        Self {
            state,
            limits,
            meter,
            array_mark,
            known,
            cache,
            stored: BTreeMap::new(),
            written: 0,
            outbox: Outbox::default(),
            printed: Printed::default(),
            muted: false,
            refused: None,
        }
    }

    /// Does what the guest asks for. A guest whose VM ran out of memory meanwhile is at its end.
    pub(super) fn operate(&mut self, lua: &Lua, op: u32, a: Value, b: Value) -> Answer {
        match self.perform(lua, op, a, b) {
            Err(error) if is_memory(&error) => Err(self.end(Stop::Memory)),
            answer => answer,
        }
    }

    /// The numbers are those of `sandbox.luau`.
    fn perform(&mut self, lua: &Lua, op: u32, a: Value, b: Value) -> Answer {
        match op {
            1 => self.get(lua, &a),
            2 => self.touch_only(&a),
            3 => self.scan(lua, &a, &b),
            4 => self.send(&a, &b),
            5 => Ok(self.print(&a, &b)),
            6 => self.charge(&a),
            7 => Err(self.end(Stop::Memory)),
            8 => self.encode(lua, &a),
            9 => self.decode(lua, &a),
            10 => Ok(done(Value::Number(self.meter.fuel_left() as f64))),
            11 => self.limits(lua),
            12 => self.restore(lua),
            _ => Err(mlua::Error::runtime("no such operation")),
        }
    }

    /// What the guest sent and printed, and the refusal that ended it.
    pub(super) fn into_parts(self) -> (Outbox, Printed, Option<GuestError>) {
        (self.outbox, self.printed, self.refused)
    }

    /// Stops the guest; the error only takes it to its end.
    fn end(&self, why: Stop) -> mlua::Error {
        self.meter.stop(why);
        mlua::Error::runtime("stopped")
    }

    fn refuse(&mut self, error: GuestError) -> mlua::Error {
        self.refused.get_or_insert(error);
        self.end(Stop::Refused)
    }

    fn fault(&mut self, fault: StateFault) -> mlua::Error {
        self.refuse(fault.into())
    }

    fn take(&self, steps: u64) -> mlua::Result<()> {
        self.meter.take(steps).map_err(|_| mlua::Error::runtime("stopped"))
    }

    /// Counts a key; returns whether the guest had it before.
    fn touch(&mut self, key: &str) -> mlua::Result<bool> {
        if self.stored.contains_key(key) {
            return Ok(true);
        }
        let touched = self.stored.len();
        if let Err(limit) = self.limits.may_touch(key, touched) {
            return Err(self.refuse(limit));
        }
        Ok(false)
    }

    fn get(&mut self, lua: &Lua, key: &Value) -> Answer {
        let key = match text_of(key) {
            Ok(key) => key,
            Err(problem) => return Ok(problem),
        };
        self.touch(&key)?;
        let found = self.state.get(&key).map_err(|fault| self.fault(fault))?;
        let answer = match &found {
            Some(text) => self.value_of(lua, &key, text)?,
            None => done(Value::Nil),
        };
        self.stored.insert(key, Stored::Text(found));
        Ok(answer)
    }

    fn value_of(&self, lua: &Lua, key: &str, text: &[u8]) -> Answer {
        self.take(text.len() as u64 / BYTES_PER_STEP)?;
        match decode(lua, self.array_mark, text) {
            Ok(value) => Ok(done(value)),
            Err(DecodeError::Vm(error)) => Err(error),
            Err(DecodeError::Text { at, what }) => {
                Ok(wrong(format!("state key {key:?} holds no JSON: {what} at byte {at}")))
            }
        }
    }

    fn touch_only(&mut self, key: &Value) -> Answer {
        let key = match text_of(key) {
            Ok(key) => key,
            Err(problem) => return Ok(problem),
        };
        if !self.touch(&key)? {
            self.stored.insert(key, Stored::Unread);
        }
        Ok(done(Value::Nil))
    }

    /// Writes what the guest has changed so far, so that the scan finds it.
    fn scan(&mut self, lua: &Lua, prefix: &Value, limit: &Value) -> Answer {
        let prefix = match text_of(prefix) {
            Ok(prefix) => prefix,
            Err(problem) => return Ok(problem),
        };
        let limit = match whole_of(limit) {
            Ok(limit) => limit.map_or(SCAN_KEYS, |limit| usize::try_from(limit).unwrap_or(0)),
            Err(()) => return Ok(wrong("the limit of a scan is a whole number".to_owned())),
        };
        if let Some(problem) = self.flush()? {
            return Ok(wrong(problem));
        }
        let limit = limit.min(self.limits.scan_keys);
        let found = self.state.scan(&prefix, limit).map_err(|fault| self.fault(fault))?;
        let items = lua.create_table_with_capacity(found.len(), 0)?;
        for (key, text) in found {
            let had = self.touch(&key)?;
            let value = if had {
                self.cache.raw_get(key.as_str())?
            } else {
                let (value, problem) = self.value_of(lua, &key, &text)?;
                if problem.is_some() {
                    return Ok((value, problem));
                }
                self.known.raw_set(key.as_str(), true)?;
                self.cache.raw_set(key.as_str(), &value)?;
                value
            };
            let item = lua.create_table_with_capacity(0, 2)?;
            item.raw_set("key", key.as_str())?;
            item.raw_set("value", value)?;
            items.raw_push(item)?;
            if !had {
                self.stored.insert(key, Stored::Text(Some(text)));
            }
        }
        Ok(done(Value::Table(items)))
    }

    /// Writes every key whose value is another than in the store; also those where the guest changed
    /// something inside of a table that it had read. Returns what is wrong with a value that cannot be
    /// kept.
    pub(super) fn flush(&mut self) -> mlua::Result<Option<String>> {
        let keys: Vec<String> = self.stored.keys().cloned().collect();
        for key in keys {
            let value: Value = self.cache.raw_get(key.as_str())?;
            if let Some(problem) = self.flush_key(key, &value)? {
                return Ok(Some(problem));
            }
        }
        Ok(None)
    }

    fn flush_key(&mut self, key: String, value: &Value) -> mlua::Result<Option<String>> {
        let text = if value.is_nil() {
            None
        } else {
            let mut text = Vec::new();
            match encode(value, self.array_mark, self.limits.state_value_bytes, &mut text) {
                Ok(()) => Some(Bytes::from(text)),
                Err(EncodeError::Vm(error)) => return Err(error),
                Err(EncodeError::Value(what)) => return Ok(Some(format!("state.{key}: {what}"))),
                Err(EncodeError::TooLong) => {
                    let limit = self.limits.state_value_bytes as u64;
                    let what = "bytes of a state value";
                    return Err(self.refuse(GuestError::StateLimit { what, limit }));
                }
            }
        };
        if matches!(self.stored.get(&key), Some(Stored::Text(stored)) if *stored == text) {
            return Ok(None);
        }
        match self.limits.may_write(&key, text.as_deref().unwrap_or_default(), self.written) {
            Ok(written) => self.written = written,
            Err(limit) => return Err(self.refuse(limit)),
        }
        let done = match &text {
            Some(text) => self.state.put(&key, text.clone()),
            None => self.state.remove(&key),
        };
        done.map_err(|fault| self.fault(fault))?;
        self.stored.insert(key, Stored::Text(text));
        Ok(None)
    }

    /// Puts tables that were read back to what the store has, where they are something else by now.
    fn restore(&mut self, lua: &Lua) -> Answer {
        for (key, stored) in &self.stored {
            let Stored::Text(Some(text)) = stored else { continue };
            let Value::Table(now) = self.cache.raw_get(key.as_str())? else { continue };
            let mut encoded = Vec::new();
            let mark = self.array_mark;
            let room = self.limits.state_value_bytes;
            let same = encode(&Value::Table(now.clone()), mark, room, &mut encoded).is_ok();
            if same && encoded == **text {
                continue;
            }
            let (Value::Table(was), _) = self.value_of(lua, key, text)? else { continue };
            now.clear()?;
            was.for_each(|name: Value, value: Value| now.raw_set(name, value))?;
        }
        Ok(done(Value::Nil))
    }

    fn send(&mut self, entry: &Value, init: &Value) -> Answer {
        let Value::Table(entry) = entry else { return Ok(wrong("no message".to_owned())) };
        if self.muted {
            return Ok(done(Value::Number(0.0)));
        }
        let mut sent = match options_of(entry)? {
            Ok(sent) => sent,
            Err(problem) => return Ok(wrong(problem)),
        };
        let room = self.outbox.room(self.limits);
        let taken = Cell::new(None);
        let skip = |name: &[u8]| {
            let is = |known: &&str| known.as_bytes() == name;
            if taken.get().is_none() {
                taken.set(ENVELOPE.into_iter().find(is));
            }
            OPTIONS.iter().any(is)
        };
        let mut payload = Vec::new();
        let encoded = encode_fields(entry, self.array_mark, room, skip, &mut payload);
        if let Some(problem) = self.sendable(encoded)? {
            return Ok(wrong(problem));
        }
        if let Some(name) = taken.get() {
            return Ok(wrong(format!(
                "a message may not have the field {name}: the engine sets it"
            )));
        }
        sent.payload = payload.into();
        if let Value::Table(init) = init {
            let mut text = Vec::new();
            let encoded = encode_fields(init, self.array_mark, room, |_| false, &mut text);
            if let Some(problem) = self.sendable(encoded)? {
                return Ok(wrong(problem));
            }
            sent.spawn_init = Some(text.into());
        } else if !init.is_nil() {
            return Ok(wrong("the first state of a process is a table".to_owned()));
        }
        match self.outbox.send(sent, self.limits) {
            Ok(index) => Ok(done(Value::Number(index as f64))),
            Err(full) => Err(self.refuse(full)),
        }
    }

    /// What is wrong with a message that has no text; ends the guest if it is too long.
    fn sendable(&mut self, encoded: Result<(), EncodeError>) -> mlua::Result<Option<String>> {
        match encoded {
            Ok(()) => Ok(None),
            Err(EncodeError::Value(what)) => Ok(Some(what)),
            Err(EncodeError::TooLong) => Err(self.refuse(gathered::full_of_bytes(self.limits))),
            Err(EncodeError::Vm(error)) => Err(error),
        }
    }

    fn print(&mut self, line: &Value, muted: &Value) -> (Value, Option<String>) {
        match (line, muted) {
            (Value::String(line), _) if !self.muted => {
                self.printed.line(&line.as_bytes(), self.limits);
            }
            (Value::Nil, Value::Boolean(muted)) => self.muted = *muted,
            _ => {}
        }
        done(Value::Nil)
    }

    fn charge(&self, steps: &Value) -> Answer {
        let steps = match steps {
            Value::Integer(steps) => u64::try_from(*steps).unwrap_or(0),
            // Beyond what there is of fuel, all are the same.
            Value::Number(steps) => *steps as u64,
            _ => 0,
        };
        self.take(steps)?;
        Ok(done(Value::Nil))
    }

    fn encode(&self, lua: &Lua, value: &Value) -> Answer {
        let mut text = Vec::new();
        let encoded = encode(value, self.array_mark, self.limits.memory_bytes, &mut text);
        self.take(text.len() as u64 / BYTES_PER_STEP)?;
        match encoded {
            Ok(()) => Ok(done(Value::String(lua.create_string(&text)?))),
            Err(EncodeError::Value(what)) => Ok(wrong(what)),
            Err(EncodeError::TooLong) => Err(self.end(Stop::Memory)),
            Err(EncodeError::Vm(error)) => Err(error),
        }
    }

    fn decode(&self, lua: &Lua, text: &Value) -> Answer {
        let Value::String(text) = text else { return Ok(wrong("no text".to_owned())) };
        let text = text.as_bytes();
        self.take(text.len() as u64 / BYTES_PER_STEP)?;
        match decode(lua, self.array_mark, &text) {
            Ok(value) => Ok(done(value)),
            Err(DecodeError::Vm(error)) => Err(error),
            Err(DecodeError::Text { at, what }) => {
                Ok(wrong(format!("this is no JSON: {what} at byte {at}")))
            }
        }
    }

    fn limits(&self, lua: &Lua) -> Answer {
        let limits = self.limits;
        let table = lua.create_table_from([
            ("fuel", limits.fuel as f64),
            ("wall_ms", limits.wall_ms as f64),
            ("memory_bytes", limits.memory_bytes as f64),
            ("outbox_entries", limits.outbox_entries as f64),
            ("outbox_bytes", limits.outbox_bytes as f64),
            ("output_bytes", limits.output_bytes as f64),
            ("state_key_bytes", limits.state_key_bytes as f64),
            ("state_value_bytes", limits.state_value_bytes as f64),
            ("state_keys_touched", limits.state_keys_touched as f64),
            ("scan_keys", limits.scan_keys as f64),
        ])?;
        table.set_readonly(true);
        Ok(done(Value::Table(table)))
    }
}

/// Whether an error is that the VM has no more memory.
pub(super) fn is_memory(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::MemoryError(_) => true,
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => {
            is_memory(cause)
        }
        _ => false,
    }
}

fn done(value: Value) -> (Value, Option<String>) {
    (value, None)
}

fn wrong(problem: String) -> (Value, Option<String>) {
    (Value::Nil, Some(problem))
}

fn text_of(value: &Value) -> Result<String, (Value, Option<String>)> {
    let Value::String(text) = value else { return Err(wrong("no text".to_owned())) };
    let text = text.to_str().map(|text| text.to_owned());
    text.map_err(|_| wrong("a state key is UTF-8".to_owned()))
}

/// A whole number that is not negative; `None` for nil.
fn whole_of(value: &Value) -> Result<Option<u64>, ()> {
    let number = match value {
        Value::Nil => return Ok(None),
        Value::Integer(number) => *number as f64,
        Value::Number(number) => *number,
        _ => return Err(()),
    };
    let whole = number.fract() == 0.0 && (0.0..=WHOLE_MAX).contains(&number);
    if whole { Ok(Some(number as u64)) } else { Err(()) }
}

/// The fields of an entry that say what becomes of it, or what is wrong with one.
fn options_of(entry: &Table) -> mlua::Result<Result<OutboxEntry, String>> {
    let mut sent = OutboxEntry::default();
    let texts = [
        ("target", &mut sent.target),
        ("reply_to", &mut sent.reply_to),
        ("transaction_suffix", &mut sent.transaction_suffix),
    ];
    for (name, place) in texts {
        *place = match entry.raw_get::<Value>(name)? {
            Value::Nil => None,
            Value::String(text) => match text.to_str() {
                Ok(text) => Some(text.to_owned()),
                Err(_) => return Ok(Err(format!("{name} is not UTF-8"))),
            },
            other => return Ok(Err(format!("{name} is a string, not a {}", other.type_name()))),
        };
    }
    for (name, place) in [("delay_ms", &mut sent.delay_ms), ("ttl_ms", &mut sent.ttl_ms)] {
        let Ok(number) = whole_of(&entry.raw_get(name)?) else {
            return Ok(Err(format!("{name} is a whole number of milliseconds, from 0")));
        };
        *place = number;
    }
    Ok(Ok(sent))
}
