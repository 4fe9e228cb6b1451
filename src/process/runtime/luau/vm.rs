//! A Luau VM with one module in it, used by one thread at a time.
//!
//! In: the module's bytecode, once; then calls. Out: outcomes. The module's top level runs anew for every
//! call, in an environment of its own, above globals that nobody can change: so a VM that has served a
//! million calls and one that is new behave alike. After a limit was exceeded the VM is thrown away.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Error, Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use super::super::gathered::cut_output;
use super::super::meter::{Meter, Watch};
use super::super::{Call, CallKind, GuestError, Limits, Message, Outcome, Reply, StateView};
use super::Prelude;
use super::decode::{DecodeError, decode};
use super::encode::{EncodeError, encode};
use super::slot::{Slot, is_memory};

/// Bytes of an error's message that are kept.
const MESSAGE_BYTES: usize = 4 << 10;
/// Bytes that a VM may hold on to between calls, beyond what it had when it was new.
const GARBAGE_BYTES: usize = 2 << 20;

const SANDBOX: &str = include_str!("sandbox.luau");
const AO: &str = include_str!("ao.luau");
const BINT: &str = include_str!("bint.luau");

/// Makes bytecode of a source. What `pcall` and its like are must not be decided when compiling: the
/// sandbox puts others in their place.
pub(super) fn compile(source: &str) -> Result<Vec<u8>, Error> {
    let compiler = Compiler::new().set_optimization_level(1).set_debug_level(1);
    compiler.set_disabled_builtins(["pcall", "xpcall", "tostring"]).compile(source)
}

fn own_bytecode(cell: &'static OnceLock<Vec<u8>>, source: &str) -> Result<&'static [u8], Error> {
    if let Some(bytecode) = cell.get() {
        return Ok(bytecode);
    }
    let bytecode = compile(source)?;
    Ok(cell.get_or_init(|| bytecode))
}

/// What a VM is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task<'a> {
    /// Evaluate a call.
    Call(&'a Call<'a>),
    /// Run the module's top level and see whether it has what a module must have.
    Check,
}

pub(super) struct Vm {
    lua: Lua,
    meter: Arc<Meter>,
    array_mark: Table,
    /// Where names that a guest has not defined are looked up.
    env_meta: Table,
    run: Function,
    chunk: Function,
    prelude: Option<Function>,
    /// Bytes that it held when it was new.
    new_bytes: usize,
}

impl Vm {
    /// Makes a VM. Takes half a millisecond and half a megabyte.
    pub(super) fn new(
        name: &str,
        bytecode: &[u8],
        prelude: Prelude,
        watch: &Arc<Watch>,
    ) -> Result<Self, Error> {
        let libraries = StdLib::COROUTINE
            | StdLib::TABLE
            | StdLib::STRING
            | StdLib::UTF8
            | StdLib::BIT
            | StdLib::MATH
            | StdLib::BUFFER
            | StdLib::VECTOR
            | StdLib::DEBUG;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        let array_mark = lua.create_table()?;
        array_mark.set_readonly(true);
        let env_meta = lua.create_table()?;
        let globals = lua.globals();
        env_meta.raw_set("__index", &globals)?;
        env_meta.set_readonly(true);
        static SANDBOX_CODE: OnceLock<Vec<u8>> = OnceLock::new();
        let sandbox = load(&lua, "sandbox", own_bytecode(&SANDBOX_CODE, SANDBOX)?)?;
        let run: Function = sandbox.call((&array_mark, Value::NULL))?;
        lua.sandbox(true)?;
        let prelude = match prelude {
            Prelude::None => None,
            Prelude::Ao => Some(ao_prelude(&lua, globals)?),
        };
        let chunk = load(&lua, name, bytecode)?;
        let meter = Arc::new(Meter::new(Arc::clone(watch)));
        let of_guest = Arc::clone(&meter);
        lua.set_interrupt(move |_| match of_guest.take(1) {
            Ok(()) => Ok(VmState::Continue),
            Err(_) => Err(Error::runtime("stopped")),
        });
        lua.gc_collect()?;
        let new_bytes = lua.used_memory();
        Ok(Self { lua, meter, array_mark, env_meta, run, chunk, prelude, new_bytes })
    }

    /// Evaluates. Also returns whether the VM may be used again.
    pub(super) fn evaluate(
        &self,
        task: Task<'_>,
        state: &mut dyn StateView,
        limits: &Limits,
    ) -> (Outcome, bool) {
        self.meter.begin(limits);
        let prepared = self.prepare(limits);
        let (outcome, out_of_memory) = match prepared {
            Ok((known, cache)) => {
                let mark = &self.array_mark;
                let slot = Slot::new(state, limits, &self.meter, mark, known, cache);
                self.run(task, slot)
            }
            Err(error) => {
                let out_of_memory = is_memory(&error);
                let result = Err(self.error_of(error, limits));
                let printed = String::new();
                let outcome = Outcome { result, printed, printed_truncated: false, fuel: 0 };
                (outcome, out_of_memory)
            }
        };
        let intact = self.meter.stopped().is_none() && !out_of_memory && self.tidy();
        (outcome, intact)
    }

    fn prepare(&self, limits: &Limits) -> Result<(Table, Table), Error> {
        self.lua.set_memory_limit(limits.memory_bytes)?;
        Ok((self.lua.create_table()?, self.lua.create_table()?))
    }

    /// Leaves no more garbage to the next call than a few calls of its own make; so where its memory
    /// ends does not depend on who ran before.
    fn tidy(&self) -> bool {
        let within = self.lua.used_memory() <= self.new_bytes + GARBAGE_BYTES;
        within || self.lua.gc_collect().is_ok()
    }

    fn run(&self, task: Task<'_>, slot: Slot<'_>) -> (Outcome, bool) {
        let limits = slot.limits;
        let cell = RefCell::new(slot);
        let ran = self.lua.scope(|scope| {
            let host = scope.create_function(|lua, (op, a, b): (u32, Value, Value)| {
                let mut slot = cell.try_borrow_mut().map_err(|_| Error::RecursiveMutCallback)?;
                slot.operate(lua, op, a, b)
            })?;
            let arguments = self.arguments(task, &cell, host)?;
            match arguments {
                Ok(arguments) => self.run.call::<(bool, Value)>(arguments),
                Err(problem) => Ok((false, Value::String(self.lua.create_string(problem)?))),
            }
        });
        let mut slot = cell.into_inner();
        let result = match ran {
            Ok((true, value)) => self.finish(&mut slot, &value),
            Ok((false, problem)) => Ok(Err(said(&problem))),
            Err(error) => Err(error),
        };
        let out_of_memory = matches!(&result, Err(error) if is_memory(error));
        let result = result.unwrap_or_else(|error| Err(self.error_of(error, limits)));
        let (outbox, printed, refused) = slot.into_parts();
        let result = match self.meter.stopped() {
            Some(stop) => Err(stop
                .error(limits)
                .or(refused)
                .unwrap_or_else(|| GuestError::Guest { message: "stopped".to_owned() })),
            None => result.map(|(output, output_truncated)| {
                let outbox = outbox.into_entries();
                Reply { output, output_truncated, outbox }
            }),
        };
        let fuel = limits.fuel - self.meter.fuel_left().min(limits.fuel);
        (printed.outcome(result, fuel), out_of_memory)
    }

    /// What `sandbox.luau` takes, or what is wrong with the message.
    fn arguments(
        &self,
        task: Task<'_>,
        cell: &RefCell<Slot<'_>>,
        host: Function,
    ) -> Result<Result<MultiValue, String>, Error> {
        let lua = &self.lua;
        let env = lua.create_table()?;
        env.raw_set("_G", &env)?;
        env.set_metatable(Some(self.env_meta.clone()))?;
        // Nobody can swap functions of the library in it unseen, so the fast ways to them stay open.
        env.set_safeenv(true);
        self.chunk.set_environment(env.clone())?;
        let (kind, seed, info, envelope, payload) = match task {
            Task::Check => {
                let info = self.info(&Call::check())?;
                ("check", 0, info, Value::Nil, Value::Nil)
            }
            Task::Call(call) => {
                let info = self.info(call)?;
                let (envelope, payload) = match &call.message {
                    Some(message) => match self.message(message)? {
                        Ok((envelope, payload)) => (Value::Table(envelope), payload),
                        Err(problem) => return Ok(Err(problem)),
                    },
                    None => (Value::Nil, Value::Nil),
                };
                (name_of(call.kind), call.seed, info, envelope, payload)
            }
        };
        let slot = cell.try_borrow().map_err(|_| Error::RecursiveMutCallback)?;
        // A seed of Luau's generator has 32 bits.
        let seed = (seed ^ (seed >> 32)) as u32 as i32;
        let values = [
            Value::Function(host),
            Value::Table(slot.known.clone()),
            Value::Table(slot.cache.clone()),
            Value::Number(f64::from(seed)),
            Value::Function(self.chunk.clone()),
            self.prelude.clone().map_or(Value::Nil, Value::Function),
            Value::Table(env),
            Value::String(lua.create_string(kind)?),
            Value::Table(info),
            envelope,
            payload,
        ];
        Ok(Ok(values.into_iter().collect()))
    }

    fn info(&self, call: &Call<'_>) -> Result<Table, Error> {
        let lua = &self.lua;
        let info = lua.create_table_with_capacity(0, 8)?;
        info.raw_set("self", format!("{}/{}", call.class, call.key))?;
        info.raw_set("class", call.class)?;
        info.raw_set("key", call.key)?;
        info.raw_set("slot", call.slot as f64)?;
        info.raw_set("now", call.now_ms as f64)?;
        info.raw_set("version", call.version)?;
        if let CallKind::Migrate { from_version } = call.kind {
            info.raw_set("from_version", from_version)?;
        }
        Ok(info)
    }

    fn message(&self, message: &Message<'_>) -> Result<Result<(Table, Value), String>, Error> {
        let lua = &self.lua;
        let payload = if message.is_json {
            match decode(lua, &self.array_mark, message.payload) {
                Ok(value) => value,
                Err(DecodeError::Vm(error)) => return Err(error),
                Err(DecodeError::Text { at, what }) => {
                    return Ok(Err(format!("the message is no JSON: {what} at byte {at}")));
                }
            }
        } else {
            Value::String(lua.create_string(message.payload)?)
        };
        let envelope = lua.create_table_with_capacity(0, 16)?;
        envelope.raw_set("id", message.id)?;
        envelope.raw_set("transaction_id", message.transaction_id)?;
        envelope.raw_set("timestamp", message.timestamp_ms as f64)?;
        envelope.raw_set("from", message.from)?;
        envelope.raw_set("from_slot", message.from_slot.map(|slot| slot as f64))?;
        envelope.raw_set("from_index", message.from_index)?;
        envelope.raw_set("cascade", message.cascade)?;
        envelope.raw_set("parent", message.parent)?;
        envelope.raw_set("depth", message.depth)?;
        envelope.raw_set("hops_left", message.hops_left)?;
        envelope.raw_set("in_reply_to", message.in_reply_to)?;
        envelope.raw_set("reply_to", message.reply_to)?;
        Ok(Ok((envelope, payload)))
    }

    /// Writes the state and makes the output's text.
    fn finish(&self, slot: &mut Slot<'_>, value: &Value) -> Result<Returned, Error> {
        if let Some(message) = slot.flush()? {
            return Ok(Err(GuestError::Guest { message }));
        }
        if value.is_nil() {
            return Ok(Ok((None, false)));
        }
        let mut text = Vec::new();
        let room = slot.limits.output_bytes;
        match encode(value, &self.array_mark, room, &mut text) {
            Ok(()) => Ok(Ok((Some(text.into()), false))),
            Err(EncodeError::TooLong) => Ok(Ok((Some(cut_output(&text, room).into()), true))),
            Err(EncodeError::Value(what)) => {
                Ok(Err(GuestError::Guest { message: format!("the output: {what}") }))
            }
            Err(EncodeError::Vm(error)) => Err(error),
        }
    }

    fn error_of(&self, error: Error, limits: &Limits) -> GuestError {
        if is_memory(&error) {
            return GuestError::MemoryExceeded { limit: limits.memory_bytes };
        }
        GuestError::Guest { message: shortened(error.to_string()) }
    }
}

/// Output of a guest and whether it was cut, or its error.
type Returned = Result<(Option<Bytes>, bool), GuestError>;

fn ao_prelude(lua: &Lua, globals: Table) -> Result<Function, Error> {
    static BINT_CODE: OnceLock<Vec<u8>> = OnceLock::new();
    let bint: Function = load(lua, "bint", own_bytecode(&BINT_CODE, BINT)?)?.call(())?;
    static AO_CODE: OnceLock<Vec<u8>> = OnceLock::new();
    load(lua, "ao", own_bytecode(&AO_CODE, AO)?)?.call((globals, bint))
}

fn load(lua: &Lua, name: &str, bytecode: &[u8]) -> Result<Function, Error> {
    let chunk = lua.load(bytecode).set_mode(ChunkMode::Binary).set_name(format!("={name}"));
    chunk.into_function()
}

fn name_of(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Init => "init",
        CallKind::Handle => "handle",
        CallKind::Migrate { .. } => "migrate",
    }
}

fn said(problem: &Value) -> GuestError {
    let message = match problem {
        Value::String(text) => text.to_string_lossy(),
        other => other.type_name().to_owned(),
    };
    GuestError::Guest { message: shortened(message) }
}

fn shortened(mut message: String) -> String {
    super::super::gathered::truncate(&mut message, MESSAGE_BYTES);
    message
}
