//! Compiled code: each version of each class once, shared by all instances and threads.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::clock::Clock;
use crate::base::place::QueueId;
use crate::process::definition::{Definition, DefinitionError, Runtime};
use crate::process::native;
use crate::process::runtime::{GuestError, Language, Limits, Module, Runtimes, Source};
use crate::state::classes::ClassVersion;

/// Most versions that stay compiled.
const COMPILED_MAX: usize = 1024;

/// A version of a class, ready to run.
pub(super) struct Code {
    pub(super) version: u32,
    pub(super) definition: Definition,
    pub(super) module: Arc<dyn Module>,
    pub(super) limits: Limits,
}

/// See the module.
pub(super) struct Modules {
    compiled: Mutex<HashMap<(QueueId, u32), Arc<Code>>>,
    runtimes: Runtimes,
}

impl Modules {
    /// Nothing compiled yet. `clock` is for what guests may take.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { compiled: Mutex::default(), runtimes: Runtimes::new(clock) }
    }

    /// Compiles the code of a definition; takes what it takes.
    ///
    /// # Errors
    /// [`GuestError::ModuleInvalid`].
    pub(super) fn compile(
        &self,
        name: &str,
        definition: &Definition,
    ) -> Result<Arc<dyn Module>, GuestError> {
        let Definition { runtime, module, prelude, limits, .. } = definition;
        let language = match runtime {
            Runtime::Native => {
                return native::find(module).ok_or_else(|| GuestError::ModuleInvalid {
                    message: format!("there is no native module '{module}'"),
                });
            }
            Runtime::Luau => Language::Luau,
            Runtime::Wasm => Language::Wasm,
        };
        let source = Source { name, language, prelude: *prelude, code: module.as_bytes() };
        self.runtimes.compile(&source, &limits.limits())
    }

    /// The code of a version of a class.
    ///
    /// # Errors
    /// Why it does not compile: it did when it was defined, perhaps on another server.
    pub(super) fn get(
        &self,
        queue: QueueId,
        name: &str,
        version: &ClassVersion,
    ) -> Result<Arc<Code>, DefinitionError> {
        let key = (queue, version.version);
        if let Some(code) = self.compiled.lock().get(&key) {
            return Ok(Arc::clone(code));
        }
        let definition = Definition::read(&version.text)?;
        let module = self.compile(name, &definition);
        let module = module.map_err(|error| DefinitionError::Module(error.to_string()))?;
        let limits = definition.limits.limits();
        let code = Arc::new(Code { version: version.version, definition, module, limits });
        let mut compiled = self.compiled.lock();
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(key, Arc::clone(&code));
        Ok(code)
    }
}
