//! Where an entry of an outbox goes, and in which form, by the catalog as it is.
//!
//! In: an entry, with the message that it was sent for. Out: its way. Called by `step`.

use std::sync::Arc;

use onrush_protocol::name::{PartitionName, QueueName};

use crate::process::call::{self, Call};
use crate::process::codec::Said;
use crate::process::definition::Definition;
use crate::process::evaluate::Job;
use crate::process::incoming::Incoming;
use crate::process::modules::Code;
use crate::process::record::Fault;
use crate::process::runtime::OutboxEntry;
use crate::process::target::{self, Target};
use crate::state::catalog::{Catalog, QueueDefinition};

/// Where an entry goes.
pub(super) enum Route {
    /// To a process (`true`) or a plain queue.
    Queue(Arc<QueueDefinition>, PartitionName, bool),
    /// To whoever pushed.
    Reply,
    /// To a server elsewhere, whose answer goes to a process or queue of this name.
    Outside(Call, Box<str>),
    /// Nowhere yet.
    Unknown(Box<str>),
    /// Nowhere.
    No(Fault),
}

/// An entry with the message that it was sent for.
pub(super) struct Entry<'a> {
    pub(super) message: &'a Incoming,
    pub(super) definition: &'a Definition,
    pub(super) index: u32,
    pub(super) entry: &'a OutboxEntry,
    /// What it says, in the form that it is sent in.
    pub(super) said: Said,
}

/// What says where entries go.
pub(super) struct Signpost<'a> {
    pub(super) job: &'a Job,
    pub(super) catalog: &'a Catalog,
}

impl Signpost<'_> {
    /// Where an entry goes now.
    pub(super) fn route(&self, entry: &Entry<'_>) -> Route {
        let Entry { message, definition, entry: sent, .. } = entry;
        let Some(text) = sent.target.as_deref() else {
            return no("target_missing", "the entry names no target");
        };
        let mut target = target::parse(text);
        if let Some(Target::Reply) = target
            && let Some(to) = message.envelope.reply_to.as_deref()
        {
            target = target::parse(to);
        }
        if let Some(Target::Alias(alias)) = &target {
            let meant = definition.aliases.get(alias);
            target = meant.and_then(|meant| target::parse(meant));
        }
        match target {
            None => no("target_not_found", format!("there is no target '{text}'")),
            Some(Target::Alias(alias)) => {
                no("target_not_found", format!("an alias of an alias: '@{alias}'"))
            }
            Some(Target::Reply) => Route::Reply,
            Some(Target::Sender) => match message.from.strip_prefix("process:") {
                Some(sender) => match target::split(sender) {
                    Some((class, key)) => self.named(&class, key),
                    None => Route::Unknown(sender.into()),
                },
                None => Route::Reply,
            },
            Some(Target::Own) => match self.catalog.get(self.job.queue) {
                Some(queue) => Route::Queue(Arc::clone(queue), self.job.key.clone(), true),
                None => no("target_not_found", "the class is gone"),
            },
            Some(Target::Outside(call)) => self.outside(entry, call),
            Some(Target::Named(class, key)) => self.named(&class, key),
            Some(Target::Queue(name, partition)) => match self.catalog.find(name.as_str()) {
                Some(queue) => {
                    let is_process = self.catalog.class(queue.id).is_some();
                    Route::Queue(Arc::clone(queue), partition, is_process)
                }
                None => Route::Unknown(format!("queue:{name}/{partition}").into()),
            },
        }
    }

    /// A server elsewhere, where the class may ask it and the entry says where its answer goes: to its
    /// sender, unless it has a `reply_to`.
    fn outside(&self, entry: &Entry<'_>, call: Call) -> Route {
        let Entry { message, definition, entry, .. } = entry;
        if !definition.effects.iter().any(|allowed| call::is_below(&call.url, allowed)) {
            return no("effect_not_allowed", format!("the class may not ask '{}'", call.url));
        }
        let own = || self.job.name();
        let named = |text: &str| match target::parse(text) {
            Some(Target::Named(..) | Target::Queue(..)) => Some(text.to_owned()),
            Some(Target::Own) => Some(own()),
            Some(Target::Sender) => message.from.strip_prefix("process:").map(Into::into),
            Some(Target::Alias(alias)) => definition.aliases.get(&alias).map(|it| (**it).into()),
            Some(Target::Reply | Target::Outside(_)) | None => None,
        };
        match entry.reply_to.as_deref().map_or_else(|| Some(own()), named) {
            Some(to) => Route::Outside(call, to.into()),
            None => no("target_not_found", "the answer would go to no process and no queue"),
        }
    }

    fn named(&self, class: &QueueName, key: PartitionName) -> Route {
        match self.catalog.find(class.as_str()) {
            Some(queue) => {
                let is_process = self.catalog.class(queue.id).is_some();
                Route::Queue(Arc::clone(queue), key, is_process)
            }
            None => Route::Unknown(format!("{class}/{key}").into()),
        }
    }

    /// What an entry says in a form that its target takes.
    ///
    /// # Errors
    /// The fault of one that it does not take.
    pub(super) fn said(&self, said: &Said, queue: &QueueDefinition) -> Result<Said, Fault> {
        match self.newest(queue) {
            Some(code) => said.clone().in_one_of(&code.definition.codecs),
            None => Ok(said.clone()),
        }
    }

    fn newest(&self, queue: &QueueDefinition) -> Option<Arc<Code>> {
        let newest = self.catalog.class(queue.id)?.newest()?;
        self.job.modules.get(queue.id, &queue.name, newest).ok()
    }
}

/// An entry that goes nowhere.
pub(super) fn no(code: &str, why: impl Into<Box<str>>) -> Route {
    Route::No(Fault::new(code, why))
}
