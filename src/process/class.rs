//! Classes: defined, read, listed, deleted.

use std::sync::Arc;

use onrush_protocol::name::QueueName;
use onrush_protocol::options::QueueOptions;
use tokio::sync::oneshot;

use crate::catalog::{check_of_class, not_own};
use crate::process::definition::{Definition, DefinitionError};
use crate::process::modules::Code;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::command::{Asked, Classed, Command, CommandError, DefineClass};
use crate::state::catalog::QueueDefinition;

/// A class as it is now.
#[derive(Clone, Debug)]
pub struct ClassShown {
    /// Its name.
    pub name: Box<str>,
    /// Its newest version.
    pub version: u32,
    /// When that was defined, unix milliseconds.
    pub since_ms: u64,
    /// The versions that are remembered, oldest first.
    pub versions: Vec<u32>,
    /// What it says.
    pub definition: Definition,
}

impl Processes {
    /// Defines a class, or a new version of it, which holds for messages pushed from then on. Its queue
    /// is made where there is none. Answers when that is durable.
    ///
    /// # Errors
    /// [`ProcessError::Definition`], [`ProcessError::Version`] where `expected` is not the newest
    /// version, [`ProcessError::Catalog`] where its queue lets go of messages; nothing was changed then.
    pub async fn define(
        &self,
        name: &QueueName,
        text: &[u8],
        expected: Option<u32>,
    ) -> Result<ClassShown, ProcessError> {
        let definition = Definition::read_within(text, &self.inner.config.maxima)?;
        let check = {
            let (definition, modules) = (definition.clone(), Arc::clone(&self.inner.modules));
            let name = name.as_str().to_owned();
            tokio::task::spawn_blocking(move || modules.compile(&name, &definition).map(|_| ()))
        };
        let compiled = check.await.map_err(|error| DefinitionError::Module(error.to_string()))?;
        compiled.map_err(|error| DefinitionError::Module(error.to_string()))?;
        let inner = &self.inner;
        not_own(name.as_str())?;
        inner.ensure_desk().await?;
        if let Some(queue) = inner.catalogs.find(name) {
            check_of_class(&queue.options, queue.ttl_asked)?;
        }
        let asked = Asked { options: options(), ..Asked::default() };
        let (reply, answer) = oneshot::channel();
        let text = definition.text().into();
        let define = DefineClass { queue: name.detach(), asked, expected, text, reply };
        inner.engine.submit(Command::DefineClass(Box::new(define)));
        match answer.await.unwrap_or(Err(CommandError::ShuttingDown))? {
            Classed::Defined(..) => {}
            Classed::Conflict(version) => return Err(ProcessError::Version(version)),
        }
        inner.defined.notify_waiters();
        inner.waiting.notify_waiters();
        self.class(name)
    }

    /// A class. Never waits.
    ///
    /// # Errors
    /// [`ProcessError::NoClass`].
    pub fn class(&self, name: &QueueName) -> Result<ClassShown, ProcessError> {
        let catalog = self.inner.engine.catalog_now();
        let queue = catalog.find(name.as_str());
        let shown = queue.and_then(|queue| shown(&catalog, queue));
        shown.ok_or_else(|| ProcessError::NoClass(name.as_str().into()))
    }

    /// All classes, in the order in which their queues were made. Never waits.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassShown> {
        let catalog = self.inner.engine.catalog_now();
        let queues = catalog.classes().filter_map(|(queue, _)| catalog.get(queue));
        queues.filter_map(|queue| shown(&catalog, queue)).collect()
    }

    /// Deletes a class with all its instances. What waits in them is lost to its cascades.
    ///
    /// # Errors
    /// [`ProcessError::NoClass`]; [`ProcessError::Version`] where `expected` is not the newest version.
    pub async fn delete(
        &self,
        name: &QueueName,
        expected: Option<u32>,
    ) -> Result<(), ProcessError> {
        let class = self.class(name)?;
        if expected.is_some_and(|expected| expected != class.version) {
            return Err(ProcessError::Version(class.version));
        }
        let queue = self.inner.catalogs.find(name).map(|queue| queue.id);
        if let Some(queue) = queue {
            self.inner.lose_all(queue, name).await?;
        }
        match self.inner.catalogs.delete_class(name, expected).await? {
            true => Ok(()),
            // Somebody was there in between.
            false => Err(match self.class(name) {
                Ok(class) => ProcessError::Version(class.version),
                Err(gone) => gone,
            }),
        }
    }
}

impl Inner {
    /// A class's queue and its newest code.
    pub(super) fn newest(
        &self,
        name: &QueueName,
    ) -> Result<(Arc<QueueDefinition>, Arc<Code>), ProcessError> {
        let missing = || ProcessError::NoClass(name.as_str().into());
        let catalog = self.engine.catalog_now();
        let queue = catalog.find(name.as_str()).cloned().ok_or_else(missing)?;
        let class = catalog.class(queue.id).cloned().ok_or_else(missing)?;
        drop(catalog);
        let code = self.modules.get(queue.id, &queue.name, class.newest().ok_or_else(missing)?)?;
        Ok((queue, code))
    }
}

/// The settings of a class's queue. A lease that runs out is nobody's fault here, and never makes a
/// dead letter.
fn options() -> QueueOptions {
    QueueOptions { retry_limit: u32::MAX, retry_delay_ms: 0, ttl_s: 0, ..QueueOptions::default() }
}

fn shown(catalog: &crate::state::catalog::Catalog, queue: &QueueDefinition) -> Option<ClassShown> {
    let class = catalog.class(queue.id)?;
    let newest = class.newest()?;
    Some(ClassShown {
        name: queue.name.clone(),
        version: newest.version,
        since_ms: newest.since_ms,
        versions: class.versions().map(|it| it.version).collect(),
        definition: Definition::read(&newest.text).ok()?,
    })
}
