//! Luau: the script runtime.
//!
//! In: a script. Out: a [`Module`] that keeps its bytecode and a few VMs that wait for the next call. A
//! VM serves one call at a time; a call that finds none makes one. How many wait is bounded per module
//! and for all modules together.

#[cfg(test)]
mod ao_scripts;
mod decode;
mod encode;
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod ledger;
mod slot;
#[cfg(test)]
mod tests;
mod vm;

pub use fuzz::fuzz_json;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::meter::Watch;
use super::{Call, GuestError, Limits, Module, NoState, Outcome, Prelude, StateView};
use vm::{Task, Vm};

/// Largest script, in bytes.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;
/// VMs of all modules that may wait for calls; half a megabyte each.
const WAITING_MAX: usize = 256;

/// How many VMs wait, of all modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn enter(&self) -> bool {
        let more = |waiting| (waiting < WAITING_MAX).then_some(waiting + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn leave(&self, vms: usize) {
        self.0.fetch_sub(vms, Ordering::Relaxed);
    }
}

/// A compiled script.
pub(super) struct LuauModule {
    name: String,
    bytecode: Vec<u8>,
    prelude: Prelude,
    watch: Arc<Watch>,
    idle: Mutex<Vec<Vm>>,
    idle_max: usize,
    waiting: Waiting,
}

impl LuauModule {
    /// Compiles a script and runs its top level once, within `limits` and with an empty state.
    pub(super) fn new(
        name: &str,
        source: &str,
        prelude: Prelude,
        limits: &Limits,
        watch: &Arc<Watch>,
        waiting: &Waiting,
    ) -> Result<Self, GuestError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(invalid(format!("a script has at most {SOURCE_BYTES_MAX} bytes")));
        }
        let bytecode = vm::compile(source).map_err(|error| match error {
            mlua::Error::SyntaxError { message, .. } => invalid(format!("{name}:{message}")),
            other => invalid(other.to_string()),
        })?;
        let module = Self {
            name: name.to_owned(),
            bytecode,
            prelude,
            watch: Arc::clone(watch),
            idle: Mutex::new(Vec::new()),
            idle_max: std::thread::available_parallelism().map_or(2, usize::from),
            waiting: waiting.clone(),
        };
        let outcome = module.perform(Task::Check, &mut NoState, limits);
        match outcome.result {
            Ok(_) => Ok(module),
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    fn perform(&self, task: Task<'_>, state: &mut dyn StateView, limits: &Limits) -> Outcome {
        let vm = match self.take() {
            Ok(vm) => vm,
            Err(error) => {
                let result = Err(invalid(error.to_string()));
                let printed = String::new();
                return Outcome { result, printed, printed_truncated: false, fuel: 0 };
            }
        };
        let (outcome, intact) = vm.evaluate(task, state, limits);
        if intact {
            self.give(vm);
        }
        outcome
    }

    fn take(&self) -> Result<Vm, mlua::Error> {
        if let Some(vm) = self.idle.lock().pop() {
            self.waiting.leave(1);
            return Ok(vm);
        }
        Vm::new(&self.name, &self.bytecode, self.prelude, &self.watch)
    }

    fn give(&self, vm: Vm) {
        let mut idle = self.idle.lock();
        if idle.len() < self.idle_max && self.waiting.enter() {
            idle.push(vm);
        }
    }
}

impl Drop for LuauModule {
    fn drop(&mut self) {
        self.waiting.leave(self.idle.get_mut().len());
    }
}

impl Module for LuauModule {
    fn evaluate(&self, call: Call<'_>, state: &mut dyn StateView, limits: &Limits) -> Outcome {
        self.perform(Task::Call(&call), state, limits)
    }
}

fn invalid(message: String) -> GuestError {
    GuestError::ModuleInvalid { message }
}
