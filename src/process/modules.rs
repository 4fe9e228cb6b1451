//! Compiled code: each version of each class once, shared by all instances and threads.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::place::QueueId;
use crate::process::definition::{Definition, DefinitionError, Runtime};
use crate::process::native;
use crate::process::runtime::{GuestError, Limits, Module};
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
#[derive(Default)]
pub(super) struct Modules {
    compiled: Mutex<HashMap<(QueueId, u32), Arc<Code>>>,
}

/// Compiles the code of a definition.
///
/// # Errors
/// [`GuestError::ModuleInvalid`].
pub(super) fn compile(definition: &Definition) -> Result<Arc<dyn Module>, GuestError> {
    let Definition { runtime, module, .. } = definition;
    match runtime {
        Runtime::Native => native::find(module).ok_or_else(|| GuestError::ModuleInvalid {
            message: format!("there is no native module '{module}'"),
        }),
        Runtime::Luau | Runtime::Wasm => Err(GuestError::ModuleInvalid {
            message: "this server has no such runtime".into(),
        }),
    }
}

impl Modules {
    /// The code of a version of a class.
    ///
    /// # Errors
    /// Why it does not compile: it did when it was defined, perhaps on another server.
    pub(super) fn get(
        &self,
        queue: QueueId,
        version: &ClassVersion,
    ) -> Result<Arc<Code>, DefinitionError> {
        let key = (queue, version.version);
        if let Some(code) = self.compiled.lock().get(&key) {
            return Ok(Arc::clone(code));
        }
        let definition = Definition::read(&version.text)?;
        let module = compile(&definition);
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
