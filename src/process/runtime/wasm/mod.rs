//! WebAssembly: the runtime for compiled guests.
//!
//! In: a module in the binary format, or its base64. Out: a [`Module`] that makes a new instance for each
//! call, so that nothing of a guest's memory outlives its slot.
//!
//! # What a guest exports
//!
//! | export | type | |
//! |---|---|---|
//! | `memory` | memory | |
//! | `alloc` | `(i32) -> i32` | room for that many bytes; where it is |
//! | `handle` | `(i32, i32) -> i64` | a message: where its text is, and its length |
//! | `init`, `migrate` | as `handle` | optional: the instance was made, or changed its version |
//!
//! Before each call the host asks `alloc` for room and puts a JSON text there:
//! `{"ctx":{"self","class","key","slot","now","version","from_version"},"message":{…}}`. The message has
//! the fields of its envelope (`id`, `from`, `cascade`, …) and, if it is JSON, `payload`.
//! The result is `address << 32 | length` of a JSON text, the output; 0 for none.
//!
//! # What it may import, from `onrush`
//!
//! | import | type | |
//! |---|---|---|
//! | `kv_get` | `(key, len, out, room) -> i32` | length of the value, or -1; it is written if it fits in `room` |
//! | `kv_put` | `(key, len, value, len)` | the value is a JSON text |
//! | `kv_del` | `(key, len)` | |
//! | `kv_scan` | `(prefix, len, limit, out, room) -> i32` | length of `[{"key":…,"value":…},…]`, ordered by key; written if it fits |
//! | `send` | `(entry, len) -> i32` | a JSON object with `target` and the rest of the message; its index |
//! | `log` | `(text, len)` | a line of `printed` |
//! | `now` | `() -> i64` | the time of the slot |
//! | `random` | `() -> i64` | the next random number of the slot |
//! | `payload_len` | `() -> i32` | bytes of the payload as it was pushed |
//! | `payload_copy` | `(out)` | writes them |
//! | `fail` | `(text, len)` | ends the call with this error |
//!
//! All lengths and addresses are `i32`, read as unsigned. A trap is `guest_error`. There is no start
//! function and no WASI: what a guest knows comes from here, so equal calls have equal outcomes.

mod host;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use wasmi::errors::ErrorKind;
use wasmi::{
    CompilationMode, Config, EnforcedLimits, Engine, Func, Instance, ResumableCall, Store,
    TrapCode, Val,
};

use super::gathered::{cut_output, truncate};
use super::meter::{Meter, Stop, Watch};
use super::{Call, CallKind, GuestError, Limits, Module, NoState, Outcome, Reply, StateView};
use host::Host;

/// Largest module, in bytes of the binary format.
pub const MODULE_BYTES_MAX: usize = 4 << 20;
/// Fuel after which the time is looked at.
const SLICE: u64 = 200_000;
/// Calls within each other.
const RECURSION_MAX: usize = 1_000;
/// What a binary module begins with.
const MAGIC: &[u8] = b"\0asm";
/// Bytes of an error's message that are kept.
const MESSAGE_BYTES: usize = 4 << 10;

/// A validated module.
pub(super) struct WasmModule {
    engine: Engine,
    module: wasmi::Module,
    watch: Arc<Watch>,
}

impl WasmModule {
    /// Validates and translates a module, and makes one instance of it within `limits`.
    pub(super) fn new(
        code: &[u8],
        limits: &Limits,
        watch: &Arc<Watch>,
    ) -> Result<Self, GuestError> {
        let decoded;
        let binary = if code.starts_with(MAGIC) {
            code
        } else {
            decoded = STANDARD
                .decode(code.trim_ascii())
                .map_err(|_| invalid("neither WebAssembly nor its base64"))?;
            &decoded
        };
        if binary.len() > MODULE_BYTES_MAX {
            return Err(invalid(format!("a module has at most {MODULE_BYTES_MAX} bytes")));
        }
        let mut config = Config::default();
        // Translating when a function is first called would take fuel from whoever comes first.
        config
            .consume_fuel(true)
            .compilation_mode(CompilationMode::Eager)
            .enforced_limits(EnforcedLimits::strict())
            .set_max_recursion_depth(RECURSION_MAX)
            .ignore_custom_sections(true)
            .allow_start_fn(false);
        let engine = Engine::new(&config);
        let module =
            wasmi::Module::new(&engine, binary).map_err(|error| invalid(error.to_string()))?;
        let this = Self { engine, module, watch: Arc::clone(watch) };
        this.check(limits)?;
        Ok(this)
    }

    fn check(&self, limits: &Limits) -> Result<(), GuestError> {
        let meter = Meter::new(Arc::clone(&self.watch));
        meter.begin(limits);
        let mut state = NoState;
        let host = Host::new(Call::check(), &mut state, limits, &meter);
        let mut guest = Guest::new(self, host).map_err(|error| invalid(error.to_string()))?;
        for name in ["alloc", "handle"] {
            if guest.function(name).is_none() {
                return Err(invalid(format!("it exports no function `{name}`")));
            }
        }
        if guest.instance.get_memory(&guest.store, "memory").is_none() {
            return Err(invalid("it exports no memory `memory`"));
        }
        for name in ["alloc", "handle", "init", "migrate"] {
            guest.typed(name)?;
        }
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> GuestError {
    GuestError::ModuleInvalid { message: message.into() }
}

fn guest_error(message: impl Into<String>) -> GuestError {
    let mut message = message.into();
    truncate(&mut message, MESSAGE_BYTES);
    GuestError::Guest { message }
}

impl Module for WasmModule {
    fn evaluate(&self, call: Call<'_>, state: &mut dyn StateView, limits: &Limits) -> Outcome {
        let meter = Meter::new(Arc::clone(&self.watch));
        meter.begin(limits);
        let host = Host::new(call, state, limits, &meter);
        match Guest::new(self, host) {
            Ok(mut guest) => {
                let returned = guest.perform(&call);
                guest.outcome(returned)
            }
            Err(error) => Outcome {
                result: Err(trapped(&error, limits)),
                printed: String::new(),
                printed_truncated: false,
                fuel: limits.fuel - meter.fuel_left().min(limits.fuel),
            },
        }
    }
}

/// What an error of the interpreter is.
fn trapped(error: &wasmi::Error, limits: &Limits) -> GuestError {
    let memory = GuestError::MemoryExceeded { limit: limits.memory_bytes };
    match error.as_trap_code() {
        Some(TrapCode::GrowthOperationLimited | TrapCode::OutOfSystemMemory) => memory,
        Some(TrapCode::OutOfFuel) => GuestError::FuelExhausted { limit: limits.fuel },
        _ => match error.kind() {
            // An instance that begins with more memory than it may have.
            ErrorKind::Memory(_) | ErrorKind::Table(_) => memory,
            _ => guest_error(error.to_string()),
        },
    }
}

/// One instance at work.
struct Guest<'a> {
    store: Store<Host<'a>>,
    instance: Instance,
}

impl<'a> Guest<'a> {
    fn new(module: &WasmModule, host: Host<'a>) -> Result<Self, wasmi::Error> {
        let mut store = Store::new(&module.engine, host);
        store.limiter(|host| host.limiter());
        store.set_fuel(SLICE)?;
        let linker = host::linker(&module.engine)?;
        let instance = linker.instantiate_and_start(&mut store, &module.module)?;
        let memory = instance.get_memory(&store, "memory");
        store.data_mut().set_memory(memory);
        Ok(Self { store, instance })
    }

    fn function(&self, name: &str) -> Option<Func> {
        self.instance.get_func(&self.store, name)
    }

    /// A function that is there has the type that it must have.
    fn typed(&mut self, name: &str) -> Result<(), GuestError> {
        let Some(function) = self.function(name) else { return Ok(()) };
        let fits = if name == "alloc" {
            function.typed::<i32, i32>(&self.store).is_ok()
        } else {
            function.typed::<(i32, i32), i64>(&self.store).is_ok()
        };
        if fits {
            Ok(())
        } else {
            Err(invalid(format!("`{name}` has another type than it must have")))
        }
    }

    fn limits(&self) -> &'a Limits {
        self.store.data().limits
    }

    /// Calls a function in slices of fuel and looks at the time between them.
    fn call(&mut self, function: Func, inputs: &[Val], output: Val) -> Result<Val, GuestError> {
        let limits = self.limits();
        let mut outputs = [output];
        let mut granted = self.grant(SLICE)?;
        let mut state = function
            .call_resumable(&mut self.store, inputs, &mut outputs)
            .map_err(|error| self.failed(&error))?;
        loop {
            let left = self.store.get_fuel().unwrap_or(0);
            self.take(granted.saturating_sub(left))?;
            match state {
                ResumableCall::Finished => {
                    let [output] = outputs;
                    return Ok(output);
                }
                ResumableCall::HostTrap(trap) => return Err(self.failed(trap.host_error())),
                ResumableCall::OutOfFuel(paused) => {
                    if paused.required_fuel() > self.store.data().meter.fuel_left() {
                        return Err(GuestError::FuelExhausted { limit: limits.fuel });
                    }
                    granted = self.grant(SLICE.max(paused.required_fuel()))?;
                    state = paused
                        .resume(&mut self.store, &mut outputs)
                        .map_err(|error| self.failed(&error))?;
                }
            }
        }
    }

    /// Gives the guest fuel for a while; returns how much.
    fn grant(&mut self, fuel: u64) -> Result<u64, GuestError> {
        let fuel = fuel.min(self.store.data().meter.fuel_left());
        let granted = self.store.set_fuel(fuel);
        granted.map_err(|error| guest_error(error.to_string()))?;
        Ok(fuel)
    }

    fn take(&mut self, steps: u64) -> Result<(), GuestError> {
        let taken = self.store.data().meter.take(steps);
        taken.map_err(|stop| self.stopped(stop))
    }

    fn stopped(&self, stop: Stop) -> GuestError {
        let host = self.store.data();
        let known = stop.error(host.limits).or_else(|| host.refused.clone());
        known.unwrap_or_else(|| guest_error("stopped"))
    }

    fn failed(&self, error: &wasmi::Error) -> GuestError {
        match self.store.data().meter.stopped() {
            Some(stop) => self.stopped(stop),
            None => trapped(error, self.limits()),
        }
    }

    /// Puts the call's text into the guest, calls it and reads its output.
    fn perform(&mut self, call: &Call<'_>) -> Result<(Option<Bytes>, bool), GuestError> {
        let name = match call.kind {
            CallKind::Init => "init",
            CallKind::Handle => "handle",
            CallKind::Migrate { .. } => "migrate",
        };
        let Some(function) = self.function(name) else {
            // A module without `handle` was refused when it was compiled.
            return Ok((None, false));
        };
        let text = host::input(call).map_err(guest_error)?;
        let alloc = self.function("alloc").ok_or_else(|| guest_error("no alloc"))?;
        let len = i32::try_from(text.len()).map_err(|_| guest_error("a message too long"))?;
        let at = self.call(alloc, &[Val::I32(len)], Val::I32(0))?;
        let Val::I32(at) = at else { return Err(guest_error("alloc returned no address")) };
        let written = self.store.data().memory().and_then(|memory| {
            let to = usize::try_from(at as u32).ok()?;
            memory.write(&mut self.store, to, &text).ok()
        });
        written.ok_or_else(|| guest_error("alloc returned room outside of the memory"))?;
        let inputs = [Val::I32(at), Val::I32(len)];
        let Val::I64(packed) = self.call(function, &inputs, Val::I64(0))? else {
            return Err(guest_error("no output"));
        };
        self.output(packed as u64)
    }

    fn output(&mut self, packed: u64) -> Result<(Option<Bytes>, bool), GuestError> {
        if packed == 0 {
            return Ok((None, false));
        }
        let (at, len) = ((packed >> 32) as u32, packed as u32);
        let memory = self.store.data().memory();
        let bytes = memory.and_then(|memory| {
            let at = usize::try_from(at).ok()?;
            let end = at.checked_add(usize::try_from(len).ok()?)?;
            memory.data(&self.store).get(at..end)
        });
        let bytes = bytes.ok_or_else(|| guest_error("the output is outside of the memory"))?;
        if serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_err() {
            return Err(guest_error("the output is no JSON"));
        }
        let room = self.limits().output_bytes;
        if bytes.len() > room {
            return Ok((Some(cut_output(bytes, room).into()), true));
        }
        Ok((Some(Bytes::copy_from_slice(bytes)), false))
    }

    fn outcome(self, returned: Result<(Option<Bytes>, bool), GuestError>) -> Outcome {
        let host = self.store.into_data();
        let limits = host.limits;
        let fuel = limits.fuel - host.meter.fuel_left().min(limits.fuel);
        let (outbox, printed) = host.into_parts();
        let result = returned.map(|(output, output_truncated)| {
            let outbox = outbox.into_entries();
            Reply { output, output_truncated, outbox }
        });
        printed.outcome(result, fuel)
    }
}
