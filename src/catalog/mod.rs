//! Which queues exist and what they allow: the control plane.
//!
//! In: names and settings. Out: queues as an immutable view that the message path reads without a
//! lock, and changes that answer when they are durable. Knows no message.

use std::sync::Arc;

use onrush_protocol::limits::NAME_BYTES_MAX;
use onrush_protocol::name::{GroupName, QueueName};
use onrush_protocol::options::QueueOptions;
use tokio::sync::oneshot;

use crate::base::place::QueueId;
use crate::shard::Engine;
use crate::shard::command::{Asked, Command, CommandError, Define, Delete, Maintain};
use crate::shard::look::figures::QueueFigures;
use crate::state::catalog::QueueDefinition;
use crate::state::classes::OWN_NAME;
use crate::state::draft::DecideError;
use crate::state::effect::Maintenance;

/// What happens to a push to a queue that does not exist.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AutoCreate {
    /// The queue is created with default settings.
    #[default]
    Yes,
    /// The push is refused.
    No,
}

/// Why a queue could not be looked up, made, changed or deleted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CatalogError {
    /// There is no such queue, and none is made by itself.
    #[error("Queue '{0}' does not exist")]
    NotFound(QueueName),
    /// A setting has a value that it cannot have, or a label is longer than it may be.
    #[error("{field} is {value}, over its limit of {limit}")]
    Option {
        /// The setting.
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// Its largest value.
        limit: u64,
    },
    /// Encryption was asked for and the server has no key. Nothing is ever stored in clear instead.
    #[error("the queue asks for encryption and this server has no key")]
    NoEncryptionKey,
    /// Rows in SQL were asked for, and encryption too: rows would hold in clear what must not be.
    #[error(
        "the queue asks for encryption and for rows in SQL (sqlRows), which are never encrypted"
    )]
    SealedRows,
    /// A setting would let go of messages of a class of processes that were never evaluated.
    #[error("{0} would let go of messages that a process has not evaluated")]
    OfClass(&'static str),
    /// Encryption was asked for, and the queue is a class of processes: what they keep would be in clear.
    #[error(
        "the queue asks for encryption (encryptionEnabled), and state, results and letters of processes are never encrypted"
    )]
    ClearClass,
    /// Rows in SQL were asked for and the store is in no database.
    #[error("the queue asks for rows in SQL (sqlRows) and this server's store is in no database")]
    NoDatabase,
    /// It was not carried out.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The queues of an engine.
#[derive(Clone)]
pub struct Catalogs {
    engine: Arc<Engine>,
    auto_create: AutoCreate,
    /// Whether the store is in a database, where people can ask for messages.
    has_sql: bool,
}

impl Catalogs {
    /// The queues of `engine`.
    #[must_use]
    pub fn new(engine: Arc<Engine>, auto_create: AutoCreate) -> Self {
        Self { engine, auto_create, has_sql: false }
    }

    /// The same, of a store that is in a database: there messages can be rows too.
    #[must_use]
    pub fn in_database(self) -> Self {
        Self { has_sql: true, ..self }
    }

    /// A queue by name, as of the last commit. Never waits.
    #[must_use]
    pub fn find(&self, name: &QueueName) -> Option<Arc<QueueDefinition>> {
        self.engine.catalog_now().find(name.as_str()).cloned()
    }

    /// All queues, in the order in which they were made.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<QueueDefinition>> {
        self.engine.catalog_now().iter().cloned().collect()
    }

    /// A queue by name, made with default settings where that is allowed. Waits for one commit when
    /// it is made; dropping the future does not unmake it.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`]; [`CatalogError::Command`] when it could not be made.
    pub async fn find_or_create(
        &self,
        name: &QueueName,
    ) -> Result<Arc<QueueDefinition>, CatalogError> {
        self.find_or_create_in(name, None, None).await
    }

    /// As [`Self::find_or_create`], with labels for a queue that is made; those of a queue that
    /// exists stay as they are.
    ///
    /// # Errors
    /// As [`Self::find_or_create`].
    pub async fn find_or_create_in(
        &self,
        name: &QueueName,
        namespace: Option<&str>,
        task: Option<&str>,
    ) -> Result<Arc<QueueDefinition>, CatalogError> {
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        not_own(name.as_str())?;
        if self.auto_create == AutoCreate::No {
            return Err(CatalogError::NotFound(name.detach()));
        }
        // As the dotted names of the system that we replace: namespace.task.
        let mut parts = name.as_str().split('.');
        let by_name = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (namespace, task) = (namespace.unwrap_or(by_name.0), task.unwrap_or(by_name.1));
        self.define(name, namespace, task, None).await
    }

    /// Makes a queue, or replaces all settings of one that exists, or those that are named. Answers when
    /// that is durable.
    ///
    /// # Errors
    /// [`CatalogError::Option`], [`CatalogError::NoEncryptionKey`], [`CatalogError::SealedRows`],
    /// [`CatalogError::NoDatabase`], [`CatalogError::OfClass`] and [`CatalogError::ClearClass`]: nothing was
    /// changed.
    pub async fn configure(
        &self,
        name: &QueueName,
        namespace: &str,
        task: &str,
        asked: Asked,
    ) -> Result<Arc<QueueDefinition>, CatalogError> {
        not_own(name.as_str())?;
        check(&asked.options)?;
        let catalog = self.engine.catalog_now();
        let before = catalog.find(name.as_str());
        let all = before.map_or(asked, |it| asked.over(it, catalog.is_projected(it.id)));
        if all.options.encryption_enabled && !self.engine.seals().can_seal() {
            return Err(CatalogError::NoEncryptionKey);
        }
        if all.options.encryption_enabled && all.sql_rows {
            return Err(CatalogError::SealedRows);
        }
        if all.sql_rows && !self.has_sql {
            return Err(CatalogError::NoDatabase);
        }
        if before.is_some_and(|queue| catalog.class(queue.id).is_some()) {
            check_of_class(&all.options, all.ttl_asked)?;
        }
        self.define(name, namespace, task, Some(asked)).await
    }

    /// Makes the queue that processes need themselves. Answers when that is durable.
    ///
    /// # Errors
    /// [`CatalogError::Command`] when it was not carried out.
    pub async fn make_own(&self, name: &QueueName) -> Result<Arc<QueueDefinition>, CatalogError> {
        self.define(name, "", "", Some(Asked::default())).await
    }

    /// Deletes a queue with all it holds; tells whether there was one. Answers when that is
    /// durable; its space comes back later.
    ///
    /// # Errors
    /// [`CatalogError::Command`] when it was not carried out.
    pub async fn delete(&self, name: &QueueName) -> Result<bool, CatalogError> {
        self.delete_class(name, None).await
    }

    /// As [`Self::delete`], where the queue is a class only if this version of it is the newest.
    ///
    /// # Errors
    /// [`CatalogError::Command`] when it was not carried out.
    pub async fn delete_class(
        &self,
        name: &QueueName,
        class: Option<u32>,
    ) -> Result<bool, CatalogError> {
        not_own(name.as_str())?;
        let (reply, answer) = oneshot::channel();
        self.engine.submit(Command::Delete(Delete { name: name.detach(), class, reply }));
        Ok(answer.await.unwrap_or(Err(CommandError::ShuttingDown))?)
    }

    /// Whether a queue's messages are also rows in SQL, as of the last commit. Never waits.
    #[must_use]
    pub fn has_sql_rows(&self, queue: &QueueDefinition) -> bool {
        self.engine.catalog_now().is_projected(queue.id)
    }

    /// Whether a queue has a consumer group, as of the last commit. Never waits.
    #[must_use]
    pub fn has_group(&self, queue: QueueId, group: &GroupName) -> bool {
        self.engine.catalog_now().group(queue, group.as_str()).is_some()
    }

    /// What is held back on purpose, as of the last commit. Never waits.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        self.engine.catalog_now().maintenance()
    }

    /// Holds pushes or pops back, or no longer; `None` leaves it as it is. Every engine of the store
    /// does so, and still after a restart. Answers when that is durable.
    ///
    /// # Errors
    /// [`CatalogError::Command`] when it was not carried out.
    pub async fn maintain(
        &self,
        push: Option<bool>,
        pop: Option<bool>,
    ) -> Result<Maintenance, CatalogError> {
        let (reply, answer) = oneshot::channel();
        self.engine.submit(Command::Maintain(Maintain { push, pop, reply }));
        Ok(answer.await.unwrap_or(Err(CommandError::ShuttingDown))?)
    }

    /// A queue in numbers. Looks at all its partitions, some at a time.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn describe(&self, name: &QueueName) -> Result<QueueFigures, CatalogError> {
        let found = self.find(name).ok_or_else(|| CatalogError::NotFound(name.detach()))?;
        Ok(self.engine.queue_figures(found.id).await?)
    }

    async fn define(
        &self,
        name: &QueueName,
        namespace: &str,
        task: &str,
        asked: Option<Asked>,
    ) -> Result<Arc<QueueDefinition>, CatalogError> {
        for (field, text) in [("namespace", namespace), ("task", task)] {
            let (value, limit) = (text.len() as u64, NAME_BYTES_MAX as u64);
            if value > limit {
                return Err(CatalogError::Option { field, value, limit });
            }
        }
        let (reply, answer) = oneshot::channel();
        let (namespace, task) = (namespace.into(), task.into());
        let name = name.detach();
        let define = Define { name, namespace, task, asked, reply };
        self.engine.submit(Command::Define(Box::new(define)));
        Ok(answer.await.unwrap_or(Err(CommandError::ShuttingDown))?)
    }
}

/// Longest time that a setting in seconds may ask for: a hundred years, so that no sum overflows.
const SECONDS_MAX: u64 = 100 * 366 * 24 * 60 * 60;

/// Refuses the name of what processes use themselves, which nobody else may have to do with.
///
/// # Errors
/// [`DecideError::OwnName`].
pub fn not_own(name: &str) -> Result<(), CommandError> {
    match name {
        OWN_NAME => Err(DecideError::OwnName.into()),
        _ => Ok(()),
    }
}

fn check(options: &QueueOptions) -> Result<(), CatalogError> {
    let seconds = [
        ("leaseTime", options.lease_time_s),
        ("ttl", options.ttl_s),
        ("delayedProcessing", options.delayed_processing_s),
        ("windowBuffer", options.window_buffer_s),
        ("retentionSeconds", options.retention_s),
        ("completedRetentionSeconds", options.completed_retention_s),
        ("maxWaitTimeSeconds", options.max_wait_time_s),
    ];
    for (field, value) in seconds {
        let (value, limit) = (u64::from(value), SECONDS_MAX);
        if value > limit {
            return Err(CatalogError::Option { field, value, limit });
        }
    }
    Ok(())
}

/// Checks settings of a queue that is a class of processes: a message that is let go of unevaluated would
/// keep its cascade pending for ever.
///
/// # Errors
/// [`CatalogError::OfClass`], [`CatalogError::ClearClass`].
pub fn check_of_class(options: &QueueOptions, ttl_asked: bool) -> Result<(), CatalogError> {
    let is_default = options.ttl_s == QueueOptions::default().ttl_s;
    let settings = [
        ("ttl", options.ttl_s > 0 && (ttl_asked || !is_default)),
        ("retentionSeconds", options.retention_enabled && options.retention_s > 0),
        ("maxWaitTimeSeconds", options.max_wait_time_s > 0),
    ];
    match settings.into_iter().find(|(_, lets_go)| *lets_go) {
        Some((setting, _)) => Err(CatalogError::OfClass(setting)),
        None if options.encryption_enabled => Err(CatalogError::ClearClass),
        None => Ok(()),
    }
}
